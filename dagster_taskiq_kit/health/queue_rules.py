"""Rules on one queue, against its objective.

Invariant: a draining worker does not serve a queue, and a queue that nobody declared needs a worker
only while something waits in it.
"""

from collections.abc import Callable, Sequence

from ..config.settings import TaskiqSettings
from ..vocabulary.wording import counted, duration
from .findings import Finding, Severity, queue_subject, start_worker, watched_queues
from .snapshot import QueueReading, Snapshot

#: A queue whose oldest message waits for this many times its objective is an ERROR.
ERROR_AFTER_OBJECTIVES = 5


def _oldest_waiting_age(
    queue: QueueReading, snapshot: Snapshot, settings: TaskiqSettings
) -> Finding:
    slo_s = settings.objective(queue.name).slo_s
    oldest_s = queue.oldest_waiting_s or 0.0
    severity = (
        Severity.ERROR if oldest_s > ERROR_AFTER_OBJECTIVES * slo_s
        else Severity.WARN if oldest_s > slo_s else Severity.OK
    )  # fmt: skip
    return Finding(
        queue_subject(queue.name),
        "oldest_waiting_age",
        severity,
        f"The oldest message waits for {duration(oldest_s)}." if queue.backlog
        else "Nothing waits.",
        "" if severity is Severity.OK else _more_workers(queue, snapshot),
        {"oldest_waiting_s": round(oldest_s, 3)},
        f"warn > {duration(slo_s)}, error > {duration(ERROR_AFTER_OBJECTIVES * slo_s)}",
    )  # fmt: skip


def _backlog(queue: QueueReading, snapshot: Snapshot, settings: TaskiqSettings) -> Finding:
    promised = settings.objective(queue.name)
    severity = (
        Severity.ERROR if queue.backlog > promised.backlog_error
        else Severity.WARN if queue.backlog > promised.backlog_warn else Severity.OK
    )  # fmt: skip
    return Finding(
        queue_subject(queue.name),
        "backlog",
        severity,
        f"{queue.backlog} waiting, {queue.claimed} claimed, {queue.running} running.",
        "" if severity is Severity.OK else _more_workers(queue, snapshot),
        {"backlog": queue.backlog, "running": queue.running},
        f"warn > {promised.backlog_warn}, error > {promised.backlog_error}",
    )


def _has_live_worker(queue: QueueReading, snapshot: Snapshot, settings: TaskiqSettings) -> Finding:
    taking = [w for w in snapshot.workers_of(queue.name) if w.state == "alive"]
    declared = queue.name in watched_queues(settings)
    wanted = settings.objective(queue.name).min_workers if declared else 0
    lanes = snapshot.unserved_lanes(queue)
    missing = len(taking) < max(wanted, 1 if queue.backlog else 0) or bool(lanes)
    severity = Severity.ERROR if missing else Severity.WARN if queue.paused else Severity.OK
    waits = f" Waiting: {counted(queue.backlog, 'message')}." if missing and queue.backlog else ""
    sentence = f"Served by {counted(len(taking), 'live worker')}.{waits}"
    remedy = ""
    if lanes and taking:
        said = " and ".join(f"{lane}s" for lane in lanes)
        sentence += f" None of them has slots for {said}."
    if missing:
        remedy = start_worker(queue.name)
    if queue.paused:
        sentence += " The queue is paused: nothing is handed out."
        remedy += f" Go on with `dagster-taskiq queue resume {queue.name}`."
    return Finding(
        queue_subject(queue.name),
        "has_live_worker",
        severity,
        sentence,
        remedy.strip(),
        {"live_workers": len(taking)},
        (f"error < {wanted}, or" if wanted else "error")
        + " when nobody takes what waits"
        + ", warn when paused",
    )


def _redeliveries(queue: QueueReading, _snapshot: Snapshot, settings: TaskiqSettings) -> Finding:
    most = settings.objective(queue.name).redeliveries_warn
    bad = queue.troubled >= most
    return Finding(
        queue_subject(queue.name),
        "redeliveries",
        Severity.WARN if bad else Severity.OK,
        f"In the last hour {counted(queue.troubled, 'message')} redelivered or lost.",
        "Look at why workers die: `dagster-taskiq worker list`, and out-of-memory kills on their "
        "hosts." if bad else "",
        {"troubled_last_hour": queue.troubled},
        f"warn >= {most} an hour",
    )  # fmt: skip


def _dead_letters(queue: QueueReading, _snapshot: Snapshot, _settings: TaskiqSettings) -> Finding:
    bad = queue.dead_letters > 0
    return Finding(
        queue_subject(queue.name),
        "dead_letters",
        Severity.WARN if bad else Severity.OK,
        f"{counted(queue.dead_letters, 'dead letter')}." if bad else "No dead letters.",
        "See why with `dagster-taskiq dead-letter list`, then requeue or purge them."
        if bad
        else "",
        {"dead_letters": queue.dead_letters},
        "warn > 0",
    )


def _more_workers(queue: QueueReading, snapshot: Snapshot) -> str:
    if queue.paused:
        return f"The queue is paused: `dagster-taskiq queue resume {queue.name}`."
    servers = snapshot.workers_of(queue.name)
    if not servers:
        return f"No live worker serves it. {start_worker(queue.name)}"
    return f"Served by {counted(len(servers), 'live worker')}: start more, or give them more slots."


QUEUE_RULES: Sequence[Callable[[QueueReading, Snapshot, TaskiqSettings], Finding]] = (
    _oldest_waiting_age, _backlog, _has_live_worker, _redeliveries, _dead_letters,
)  # fmt: skip
