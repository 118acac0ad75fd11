"""What a line in the log of a worker, an exporter or a stack is about, for programs to read.

Invariant: an action keeps its name and its meaning from one release to the next; the sentence
beside it may change at any time.
"""

from enum import Enum
from typing import Any


class Action(str, Enum):
    """What happened, by a name that stays.

    Each member is its name in the log, and what it means.
    """

    meaning: str

    def __new__(cls, name: str, meaning: str) -> "Action":
        """Make a member of its name and what it means."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.meaning = meaning
        return member

    # one message
    BEGAN = "began", "A run, a step or a task of yours began on this worker."
    ENDED = "ended", "It ended; `state` says how, `seconds` how long it ran."
    REQUEUED = "requeued", "It was given back to its queue; the sentence says why."
    REFUSED = "refused", "A message cannot be executed here or anywhere: it is a dead letter."
    KILLED = "killed", "Its process is killed: it ran too long, or others have its work."
    LINGERED = "lingered", "The process of a message was still there after its end, and is killed."
    STEP_OUTPUT = "step_output", "A line that a step printed; `stream` is `out` or `err`."
    PRINTED = "printed", "A line that something else printed: code at its import, a library."
    EVENT_NOT_STORED = "event_not_stored", "The database refuses an event of a step."
    ORDER = "order", "The broker ordered this worker to cancel, revoke or state again a message."

    # the worker
    READY = "ready", "The worker has loaded its code and takes work."
    DRAINING = "draining", "It takes no new work, and ends when what it executes has ended."
    DRAIN_GIVEN_UP = "drain_given_up", "It leaves without having given back all it held."
    STOPPED_AT_ONCE = "stopped_at_once", "A second signal: it ends at once, as if killed."
    CANNOT_GO_ON = (
        "cannot_go_on",
        "It ends with exit code 1; the sentence says what to do.",
    )
    PART_RESTARTED = "part_restarted", "A part of it failed and is started again."
    LEFTOVER = "leftover", "A process that a dead worker left on this host is killed."

    # code
    NOT_SERVED = "location_not_served", "A code location of the workspace is not served, and why."
    NOT_WARM = "location_not_warm", "Steps of a code location import it for themselves, and why."
    STORES_ITSELF = "stores_itself", "Steps of a location write their events themselves, and why."
    NOT_PREPARED = "jobs_not_prepared", "Jobs are planned in their steps, not before."
    RELOADED = "reloaded", "A code location was loaded again."
    RELOAD_FAILED = "reload_failed", "It could not be; the older code goes on serving."
    FORK_SERVER_DIED = "fork_server_died", "The fork server of a code location is started again."
    CODE_NOT_LOADED = (
        "code_not_loaded",
        "Code does not import; it is tried again.",
    )

    # broker and database
    BROKER_AWAY = "broker_away", "The broker does not answer; it is waited for."
    BROKER_BACK = "broker_back", "The broker answers again."
    DATABASE_AWAY = "database_away", "Dagster's database does not answer; it is waited for."
    DATABASE_BACK = "database_back", "The database answers again."
    UNREADABLE = "unreadable", "The broker holds what cannot be read; it is passed over."
    AS_SHIPPED = "stored_as_shipped", "Events are stored the way Dagster ships, and why."

    # what one worker does for all
    RESCUED = "rescued", "What a silent worker held was taken from it."
    CLOCK_SET = "clock_set", "The broker's clock was set or it was slow: nobody is given up yet."
    RESTORED = "restored", "A message that had lost its place in its queue is queued again."
    PRUNED = "pruned", "A queue that nobody used for a long time is forgotten."
    RECONCILED = "reconciled", "A run and its messages did not fit together; its log says what."
    DUTY_FAILED = "duty_failed", "A periodic duty failed; it is tried again."

    # metrics
    METRICS = "metrics_served", "Where metrics are served."
    COLLECTOR_FAILED = "collector_failed", "A source of metrics could not be read."


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
