"""``dagster-taskiq queue``: what waits where, whether it is handed out, and in which order.

Invariant: a paused queue takes new messages and hands none out; what executes goes on. A purge ends
only what waits, and tells whoever waits for it.
"""

import json
from dataclasses import asdict
from typing import Any

import click

from ..broker import readings, records
from ..errors import ConfigurationError
from ..health.findings import counted
from ..health.snapshot import read_snapshot
from ..settings import check_queue_name
from ..states import BANDS, Kind
from .completion import complete_queues
from .main import broker_options, connect, open_instance
from .status import queue_rows


@click.group()
def queue() -> None:
    """List, pause, resume, purge and reorder queues."""


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
@click.argument("name", shell_complete=complete_queues)
def pause(name: str, **broker: Any) -> None:
    """Hand out nothing of a queue until it is resumed; what executes goes on."""
    _pause(name, broker, paused=True)


@queue.command()
@broker_options
@click.argument("name", shell_complete=complete_queues)
def resume(name: str, **broker: Any) -> None:
    """Hand out a paused queue's messages again."""
    _pause(name, broker, paused=False)


@queue.command()
@broker_options
@click.argument("name", shell_complete=complete_queues)
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(name: str, yes: bool, **broker: Any) -> None:
    """End what waits in a queue: runs are cancelled, steps fail by their own policies."""
    with connect(broker) as connection:
        waiting = readings.waiting(connection, name)
        if not waiting:
            click.echo(f"Nothing waits in queue {name!r}.")
            return
        if not yes:
            click.confirm(f"End {counted(len(waiting), 'message')} of queue {name!r}?", abort=True)
        runs = [task_id for task_id in waiting if task_id.startswith(f"{Kind.RUN.value}:")]
        ttl_s = connection.settings.outcome_ttl_s
        for task_id in waiting:
            if task_id not in runs:
                connection.run(records.cancel_message(task_id, ttl_s))
        if runs:
            with open_instance() as instance:
                for task_id in runs:
                    instance.run_launcher.terminate(task_id.split(":")[1])
    click.echo(f"Ended {counted(len(waiting), 'message')} of queue {name!r}.")


@queue.command()
@broker_options
@click.argument("run_id")
@click.argument("priority", type=click.IntRange(BANDS[0], BANDS[-1]))
def reprioritize(run_id: str, priority: int, **broker: Any) -> None:
    """Move what a run has queued, and what it will queue, to a priority; 10 is served first."""
    with connect(broker) as connection:
        moved = connection.run(records.reprioritize(run_id, priority))
    said = counted(moved, "queued message")
    click.echo(f"Run {run_id} has priority {priority} from now on; moved {said}.")


def _pause(name: str, broker: dict[str, Any], *, paused: bool) -> None:
    try:
        check_queue_name(name)
    except ValueError as error:
        raise ConfigurationError(f"{error}.", "queue") from None
    with connect(broker) as connection:
        changed = connection.run(records.pause(name, paused=paused))
    state = "paused" if paused else "handed out"
    click.echo(f"Queue {name!r} is {state}{'' if changed else ' already'}.")
