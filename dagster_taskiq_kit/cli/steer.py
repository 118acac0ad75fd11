"""``dagster-taskiq worker list|show|drain|...``: see and steer workers that run elsewhere.

Invariant: an order is left where the worker reads it, and obeyed when it hears it; nothing here
needs to reach its host.
"""

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import click

from ..vocabulary.errors import ConfigurationError
from ..vocabulary.text_table import fields
from .completion import complete_workers
from .main import broker_options, connect, json_option, say
from .option_types import Seconds

if TYPE_CHECKING:
    from ..broker.connection import SyncConnection
    from ..health.snapshot import WorkerReading

_ERROR_CODE = 2
_LOOK_S = 0.3


@click.command("list")
@broker_options
@json_option
def list_workers(as_json: bool, **broker: Any) -> None:
    """List workers."""
    from ..health.snapshot import read_snapshot
    from .status import worker_as_data, worker_rows

    with connect(broker) as connection:
        workers = read_snapshot(connection).workers
    data = [worker_as_data(worker) for worker in workers]
    say(data, "\n".join(worker_rows(workers)), as_json=as_json)


@click.command()
@broker_options
@json_option
@click.argument("name", shell_complete=complete_workers)
def show(name: str, as_json: bool, **broker: Any) -> None:
    """Show one worker, by name or id."""
    from .status import worker_as_data

    with connect(broker) as connection:
        chosen = [worker_as_data(worker) for worker in _chosen(connection, [name])]
    say(chosen, "\n\n".join(fields(worker) for worker in chosen), as_json=as_json)


def _steer(
    names: tuple[str, ...],
    every: bool,
    broker: dict[str, Any],
    order: Literal["drain", "reload"],
    verb: str,
    *,
    as_json: bool,
) -> Sequence[str]:
    """Give workers an order; returns their ids."""
    from ..broker import worker_cards
    from ..health.snapshot import read_snapshot

    with connect(broker) as connection:
        if every == bool(names):
            raise ConfigurationError("Name the workers, or say --all; not both and not neither.")
        live = [worker for worker in read_snapshot(connection).workers if worker.live]
        data, lines = [], []
        chosen = live if every else _chosen(connection, names)
        try:
            for card in [worker.card for worker in chosen]:
                worker_cards.order(connection, card.worker_id, order)
                lines.append(f"Worker {card.worker_id} on {card.host} was told to {verb}.")
                data.append({"worker_id": card.worker_id, "name": card.name, "host": card.host})
        finally:  # what was done is said, whatever ended it
            say(data, "\n".join(lines or ["No worker was told."]), as_json=as_json)
    return [each["worker_id"] for each in data]


@click.command()
@broker_options
@json_option
@click.argument("names", nargs=-1, shell_complete=complete_workers)
@click.option("-a", "--all", "every", is_flag=True, help="Every live worker.")
@click.option(
    "--wait", "wait_s", type=Seconds(0.1), metavar="SECONDS",
    help="Return when they have ended; exit code 2 when one has not within so long.",
)  # fmt: skip
def drain(
    names: tuple[str, ...], every: bool, as_json: bool, wait_s: float | None, **broker: Any
) -> None:
    """Have workers take no new work, hand over their runs, finish what they can, and end."""
    told = _steer(names, every, broker, "drain", "drain", as_json=as_json)
    if wait_s is not None and (left := _wait_for_ends(told, wait_s, broker)):
        click.echo(f"After {wait_s:g} s still there: {', '.join(left)}.", err=True)
        sys.exit(_ERROR_CODE)


def _wait_for_ends(told: Sequence[str], wait_s: float, broker: dict[str, Any]) -> Sequence[str]:
    """Return which of the workers were still there at the end of that time."""
    from ..health.snapshot import read_snapshot

    deadline_s = time.monotonic() + wait_s
    with connect(broker) as connection:
        while True:
            there = {each.card.worker_id for each in read_snapshot(connection).workers}
            left = [each for each in told if each in there]
            if not left or time.monotonic() > deadline_s:
                return left
            time.sleep(_LOOK_S)


@click.command()
@broker_options
@json_option
@click.argument("names", nargs=-1, shell_complete=complete_workers)
@click.option("-a", "--all", "every", is_flag=True, help="Every live worker.")
def terminate(names: tuple[str, ...], every: bool, as_json: bool, **broker: Any) -> None:
    """The same as drain, under dagster-celery's name."""
    _steer(names, every, broker, "drain", "end", as_json=as_json)


@click.command("reload")
@broker_options
@json_option
@click.argument("names", nargs=-1, shell_complete=complete_workers)
@click.option("-a", "--all", "every", is_flag=True, help="Every live worker.")
def reload_code(names: tuple[str, ...], every: bool, as_json: bool, **broker: Any) -> None:
    """Have workers load their code again; what executes goes on with the code it has."""
    _steer(names, every, broker, "reload", "load its code again", as_json=as_json)


def _chosen(connection: "SyncConnection", names: Sequence[str]) -> "Sequence[WorkerReading]":
    from ..health.snapshot import read_snapshot
    from ..vocabulary.wording import not_there

    workers = read_snapshot(connection).workers
    chosen: list[WorkerReading] = []
    for name in names:
        found = [w for w in workers if name in (w.card.name, w.card.worker_id)]
        if not found:
            raise not_there("worker", name, {worker.card.name for worker in workers})
        chosen += found
    return chosen
