"""``dagster-taskiq queue list|pause|resume``: what waits where, and whether it is handed out.

Invariant: a paused queue takes new messages and hands none out; what executes goes on.
"""

import json
from dataclasses import asdict
from typing import Any

import click

from ..broker import records
from ..errors import ConfigurationError
from ..health.snapshot import read_snapshot
from ..settings import check_queue_name
from .main import broker_options, connect
from .status import queue_rows


@click.group()
def queue() -> None:
    """List, pause and resume queues."""


@queue.command("list")
@broker_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def list_queues(as_json: bool, **broker: Any) -> None:
    """List queues."""
    with connect(broker) as connection:
        snapshot = read_snapshot(connection)
    if as_json:
        click.echo(json.dumps([asdict(each) for each in snapshot.queues], indent=2))
    else:
        click.echo("\n".join(queue_rows(snapshot)))


@queue.command()
@broker_options
@click.argument("name")
def pause(name: str, **broker: Any) -> None:
    """Hand out nothing of a queue until it is resumed; what executes goes on."""
    _pause(name, broker, paused=True)


@queue.command()
@broker_options
@click.argument("name")
def resume(name: str, **broker: Any) -> None:
    """Hand out a paused queue's messages again."""
    _pause(name, broker, paused=False)


def _pause(name: str, broker: dict[str, Any], *, paused: bool) -> None:
    try:
        check_queue_name(name)
    except ValueError as error:
        raise ConfigurationError(f"{error}.", "queue") from None
    with connect(broker) as connection:
        changed = connection.run(records.pause(name, paused=paused))
    state = "paused" if paused else "handed out"
    click.echo(f"Queue {name!r} is {state}{'' if changed else ' already'}.")
