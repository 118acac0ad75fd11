"""``dagster-taskiq queue``: what waits where, whether it is handed out, and in which order.

Invariant: a paused queue takes new messages and hands none out; what executes goes on. A purge ends
only what waits, and tells whoever waits for it.
"""

from typing import Any

import click

from ..broker import readings, records
from ..health.findings import counted
from ..health.snapshot import read_snapshot
from ..states import BANDS, Kind
from .completion import complete_queues
from .main import broker_options, check_queue_option, connect, json_option, open_instance, say
from .status import queue_rows, queues_as_data


@click.group()
def queue() -> None:
    """List, pause, resume, purge and reorder queues."""


@queue.command("list")
@broker_options
@json_option
def list_queues(as_json: bool, **broker: Any) -> None:
    """List queues."""
    with connect(broker) as connection:
        snapshot = read_snapshot(connection)
    say(queues_as_data(snapshot), "\n".join(queue_rows(snapshot)), as_json=as_json)


@queue.command()
@broker_options
@json_option
@click.argument("name", shell_complete=complete_queues)
def pause(name: str, as_json: bool, **broker: Any) -> None:
    """Hand out nothing of a queue until it is resumed; what executes goes on."""
    _pause(name, broker, paused=True, as_json=as_json)


@queue.command()
@broker_options
@json_option
@click.argument("name", shell_complete=complete_queues)
def resume(name: str, as_json: bool, **broker: Any) -> None:
    """Hand out a paused queue's messages again."""
    _pause(name, broker, paused=False, as_json=as_json)


@queue.command()
@broker_options
@json_option
@click.argument("name", shell_complete=complete_queues)
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(name: str, yes: bool, as_json: bool, **broker: Any) -> None:
    """End what waits in a queue: runs are cancelled, steps fail by their own policies."""
    check_queue_option(name)
    with connect(broker) as connection:
        waiting = readings.waiting(connection, name)
        if not waiting:
            say({"queue": name, "ended": 0}, f"Nothing waits in queue {name!r}.", as_json=as_json)
            return
        said = f"{counted(len(waiting), 'message')} of queue {name!r}"
        if not yes:
            click.confirm(f"End {said}?", abort=True, err=True)
        runs = [task_id for task_id in waiting if task_id.startswith(f"{Kind.RUN.value}:")]
        ttl_s = connection.settings.outcome_ttl_s
        for task_id in waiting:
            if task_id not in runs:
                connection.run(records.cancel_message(task_id, ttl_s))
        if runs:
            with open_instance() as instance:
                for task_id in runs:
                    instance.run_launcher.terminate(task_id.split(":")[1])
    say({"queue": name, "ended": len(waiting)}, f"Ended {said}.", as_json=as_json)


@queue.command()
@broker_options
@json_option
@click.argument("run_id")
@click.argument("priority", type=click.IntRange(BANDS[0], BANDS[-1]))
def reprioritize(run_id: str, priority: int, as_json: bool, **broker: Any) -> None:
    """Move what a run has queued, and what it will queue, to a priority; 10 is served first."""
    with connect(broker) as connection:
        moved = connection.run(records.reprioritize(run_id, priority))
    said = counted(moved, "queued message")
    say(
        {"run_id": run_id, "priority": priority, "moved": moved},
        f"Run {run_id} has priority {priority} from now on; moved {said}.",
        as_json=as_json,
    )


def _pause(name: str, broker: dict[str, Any], *, paused: bool, as_json: bool) -> None:
    check_queue_option(name)
    with connect(broker) as connection:
        changed = connection.run(records.pause(name, paused=paused))
    state = "paused" if paused else "handed out"
    say(
        {"queue": name, "paused": paused, "changed": bool(changed)},
        f"Queue {name!r} is {state}{'' if changed else ' already'}.",
        as_json=as_json,
    )
