"""``dagster-taskiq queue``: what waits where, whether it is handed out, and in which order.

Invariant: a paused queue takes new messages and hands none out; what executes goes on. A purge ends
only what waits, and tells whoever waits for it.
"""

import os
from typing import Any

import click

from ..broker import readings, records
from ..broker.connection import SyncConnection
from ..health.snapshot import read_snapshot
from ..health.steering import check_queue_is_there
from ..vocabulary.errors import ConfigurationError
from ..vocabulary.states import BANDS, Kind
from ..vocabulary.wording import counted, not_there
from .completion import complete_queues
from .main import broker_options, check_queue_option, connect, json_option, open_instance, say
from .status import queue_rows, queues_as_data

_LOOK = "`dagster-taskiq queue list` shows all."


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
@click.option("--create", is_flag=True, help="Also a queue that was never used and is not served.")
def pause(name: str, create: bool, as_json: bool, **broker: Any) -> None:
    """Hand out nothing of a queue until it is resumed; what executes goes on."""
    _pause(name, broker, paused=True, create=create, as_json=as_json)


@queue.command()
@broker_options
@json_option
@click.argument("name", shell_complete=complete_queues)
def resume(name: str, as_json: bool, **broker: Any) -> None:
    """Hand out a paused queue's messages again."""
    _pause(name, broker, paused=False, create=False, as_json=as_json)


@queue.command()
@broker_options
@json_option
@click.argument("name", shell_complete=complete_queues)
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(name: str, yes: bool, as_json: bool, **broker: Any) -> None:
    """End what waits in a queue: runs are cancelled, steps fail by their own policies."""
    check_queue_option(name)
    with connect(broker) as connection:
        check_queue_is_there(read_snapshot(connection), connection.settings, name, _LOOK)
        waiting = readings.waiting(connection, name)
        if not waiting:
            say({"queue": name, "ended": 0}, f"Nothing waits in queue {name!r}.", as_json=as_json)
            return
        said = f"{counted(len(waiting), 'message')} of queue {name!r}"
        if not yes:
            click.confirm(f"End {said}?", abort=True, err=True)
        runs = [task_id for task_id in waiting if task_id.startswith(f"{Kind.RUN.value}:")]
        for task_id in waiting:
            if task_id not in runs:
                connection.run(records.cancel_message(task_id))
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
@click.option("--yes", is_flag=True, help="Also a run that is not known here yet.")
def reprioritize(run_id: str, priority: int, yes: bool, as_json: bool, **broker: Any) -> None:
    """Move what a run has queued, and what it will queue, to a priority; 10 is served first."""
    with connect(broker) as connection:
        if not yes:
            _check_run_is_open(connection, run_id)
        moved = connection.run(records.reprioritize(run_id, priority))
    said = counted(moved, "queued message")
    say(
        {"run_id": run_id, "priority": priority, "moved": moved},
        f"Run {run_id} has priority {priority} from now on; moved {said}.",
        as_json=as_json,
    )


def _check_run_is_open(connection: SyncConnection, run_id: str) -> None:
    """Refuse a run that has nothing in the broker and is not open in Dagster either."""
    if readings.open_messages(connection, [run_id])[run_id]:
        return
    if os.environ.get("DAGSTER_HOME"):
        with open_instance() as instance:
            run = instance.get_run_by_id(run_id)
        if run is not None and run.is_finished:
            raise ConfigurationError(
                f"Run {run_id} is over ({run.status.value}): it queues nothing any more.", "run_id"
            )
        if run is not None:
            return
    known = readings.members(connection, connection.keys.name("open_runs"))
    raise not_there("open run", run_id, known, "Say --yes if it is yet to come.")


def _pause(name: str, broker: dict[str, Any], *, paused: bool, create: bool, as_json: bool) -> None:
    check_queue_option(name)
    with connect(broker) as connection:
        if not create:
            advice = "Say --create to pause it before it is used." if paused else _LOOK
            check_queue_is_there(read_snapshot(connection), connection.settings, name, advice)
        changed = connection.run(records.pause(name, paused=paused))
    state = "paused" if paused else "handed out"
    say(
        {"queue": name, "paused": paused, "changed": bool(changed)},
        f"Queue {name!r} is {state}{'' if changed else ' already'}.",
        as_json=as_json,
    )
