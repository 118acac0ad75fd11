"""``dagster-taskiq worker list|show|drain|terminate``: see and steer workers that run elsewhere.

Invariant: an order is left where the worker reads it, and obeyed when it hears it; nothing here
needs to reach its host.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigurationError
from .completion import complete_workers
from .main import broker_options, connect

if TYPE_CHECKING:
    from ..broker.connection import SyncConnection
    from ..health.snapshot import WorkerReading


@click.command("list")
@broker_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def list_workers(as_json: bool, **broker: Any) -> None:
    """List workers."""
    from ..health.snapshot import read_snapshot
    from .status import worker_as_data, worker_rows

    with connect(broker) as connection:
        workers = read_snapshot(connection).workers
    if as_json:
        click.echo(json.dumps([worker_as_data(worker) for worker in workers], indent=2))
        return
    click.echo("\n".join(worker_rows(workers)))


@click.command()
@broker_options
@click.argument("name", shell_complete=complete_workers)
def show(name: str, **broker: Any) -> None:
    """Show one worker, by name or id, as JSON."""
    from .status import worker_as_data

    with connect(broker) as connection:
        chosen = _chosen(connection, [name])
    click.echo(json.dumps([worker_as_data(worker) for worker in chosen], indent=2))


def _steer(names: tuple[str, ...], every: bool, broker: dict[str, Any], verb: str) -> None:
    from ..broker import worker_cards
    from ..health.snapshot import read_snapshot

    with connect(broker) as connection:
        if every == bool(names):
            raise ConfigurationError("Name the workers, or say --all; not both and not neither.")
        live = [worker for worker in read_snapshot(connection).workers if worker.live]
        for worker in live if every else _chosen(connection, names):
            worker_cards.order_drain(connection, worker.card.worker_id)
            click.echo(f"Worker {worker.card.worker_id} on {worker.card.host} was told to {verb}.")


@click.command()
@broker_options
@click.argument("names", nargs=-1, shell_complete=complete_workers)
@click.option("-a", "--all", "every", is_flag=True, help="Every live worker.")
def drain(names: tuple[str, ...], every: bool, **broker: Any) -> None:
    """Have workers take no new work, hand over their runs, finish what they can, and end."""
    _steer(names, every, broker, "drain")


@click.command()
@broker_options
@click.argument("names", nargs=-1, shell_complete=complete_workers)
@click.option("-a", "--all", "every", is_flag=True, help="Every live worker.")
def terminate(names: tuple[str, ...], every: bool, **broker: Any) -> None:
    """The same as drain, under dagster-celery's name."""
    _steer(names, every, broker, "end")


def _chosen(connection: "SyncConnection", names: Sequence[str]) -> "Sequence[WorkerReading]":
    from ..health.snapshot import read_snapshot

    workers = read_snapshot(connection).workers
    chosen: list[WorkerReading] = []
    for name in names:
        found = [w for w in workers if name in (w.card.name, w.card.worker_id)]
        if not found:
            known = ", ".join(worker.card.name for worker in workers) or "none"
            raise ConfigurationError(f"There is no worker {name!r}; known are: {known}.", "name")
        chosen += found
    return chosen
