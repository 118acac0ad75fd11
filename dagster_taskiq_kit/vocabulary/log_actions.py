"""What a line in the log of a worker, an exporter or a stack is about, for programs to read.

Invariant: an action keeps its name and its meaning from one release to the next; the sentence
beside it may change at any time.
"""

from enum import Enum
from typing import Any


class Action(str, Enum):
    """What happened, by a name that stays."""

    # one message
    #: A run, a step or a task of yours began on this worker.
    BEGAN = "began"
    #: It ended; `state` says how, `seconds` how long it ran.
    ENDED = "ended"
    #: It was given back to its queue; the sentence says why.
    REQUEUED = "requeued"
    #: A message cannot be executed here or anywhere: it is a dead letter.
    REFUSED = "refused"
    #: Its process is killed: it ran too long, or others have its work.
    KILLED = "killed"
    #: The process of a message was still there after its end, and is killed.
    LINGERED = "lingered"
    #: A line that a step printed; `stream` is `out` or `err`.
    STEP_OUTPUT = "step_output"
    #: A line that something else printed: code at its import, a library.
    PRINTED = "printed"
    #: The database refuses an event of a step.
    EVENT_NOT_STORED = "event_not_stored"
    #: The broker ordered this worker to cancel, revoke or state again a message.
    ORDER = "ordered"

    # the worker
    #: The worker has loaded its code and takes work.
    READY = "ready"
    #: It takes no new work, and ends when what it executes has ended.
    DRAINING = "draining"
    #: It leaves without having given back all it held.
    DRAIN_GIVEN_UP = "drain_given_up"
    #: A second signal: it ends at once, as if killed.
    STOPPED_AT_ONCE = "stopped_at_once"
    #: It ends with exit code 1; the sentence says what to do.
    CANNOT_GO_ON = "cannot_go_on"
    #: A part of it failed and is started again.
    PART_RESTARTED = "part_restarted"
    #: A process that a dead worker left on this host is killed.
    LEFTOVER = "leftover"

    # code
    #: A code location of the workspace is not served, and why.
    NOT_SERVED = "location_not_served"
    #: Steps of a code location import it for themselves, and why.
    NOT_WARM = "location_not_warm"
    #: Steps of a location write their events themselves, and why.
    STORES_ITSELF = "stores_itself"
    #: Jobs are planned in their steps, not before.
    NOT_PREPARED = "jobs_not_prepared"
    #: A code location was loaded again.
    RELOADED = "reloaded"
    #: It could not be; the older code goes on serving.
    RELOAD_FAILED = "reload_failed"
    #: The fork server of a code location is started again.
    FORK_SERVER_DIED = "fork_server_died"
    #: Code does not import; it is tried again.
    CODE_NOT_LOADED = "code_not_loaded"

    # broker and database
    #: The broker does not answer; it is waited for.
    BROKER_AWAY = "broker_away"
    #: The broker answers again.
    BROKER_BACK = "broker_back"
    #: Dagster's database does not answer; it is waited for.
    DATABASE_AWAY = "database_away"
    #: The database answers again.
    DATABASE_BACK = "database_back"
    #: The broker holds what cannot be read; it is passed over.
    UNREADABLE = "unreadable"
    #: Events are stored the way Dagster ships, and why.
    AS_SHIPPED = "stored_as_shipped"

    # what one worker does for all
    #: What a silent worker held was taken from it.
    RESCUED = "rescued"
    #: The broker's clock was set or it was slow: nobody is given up yet.
    CLOCK_SET = "clock_set"
    #: A message that had lost its place in its queue is queued again.
    RESTORED = "restored"
    #: A queue that nobody used for a long time is forgotten.
    PRUNED = "pruned"
    #: A run and its messages did not fit together; its log says what.
    RECONCILED = "reconciled"
    #: A periodic duty failed; it is tried again.
    DUTY_FAILED = "duty_failed"

    # metrics
    #: Where metrics are served.
    METRICS = "metrics_served"
    #: A source of metrics could not be read.
    COLLECTOR_FAILED = "collector_failed"


def about(action: Action, task_id: str = "", **fields: Any) -> dict[str, Any]:
    """Return what a line of the log says to programs, as ``extra`` of a logging call.

    Args:
        action: What happened.
        task_id: The message, where it is about one; says run, step and attempt, too.
        **fields: More, such as ``queue`` or ``location``.
    """
    return {"action": action.value, **of_task(task_id), **fields}


def of_task(task_id: str) -> dict[str, Any]:
    """Return what a message's id says: run, and of a step its key and attempt."""
    if not task_id:
        return {}
    kind, _, rest = task_id.partition(":")
    run_id, _, more = rest.partition(":")
    if kind == "run" and more:
        return {"task_id": task_id, "run_id": run_id}
    step_key, _, attempt = more.rpartition(":")
    if kind == "step" and step_key and attempt.isdigit():
        return {
            "task_id": task_id, "run_id": run_id, "step_key": step_key, "attempt": int(attempt),
        }  # fmt: skip
    return {"task_id": task_id}
