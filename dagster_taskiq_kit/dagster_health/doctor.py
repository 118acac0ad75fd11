"""``dagster-taskiq doctor``: is this installation one that cannot let its runs down?

Invariant: it reads and changes nothing; each finding that is not fine says how to mend it. What the
health rules judge already (broker, releases, clocks, storage folder) is taken from them.
"""

from collections.abc import Callable, Iterator, Sequence

import dagster as dg

from ..code_locations.code_location import BY_OPTION
from ..code_locations.code_matching import Served, is_served
from ..config.settings import TaskiqSettings
from ..dagster_internals.event_rows import why_not_relayed
from ..dagster_internals.postgres.connection_limits import most_database_connections
from ..health.findings import Finding, Severity
from ..health.rules import judge
from ..health.snapshot import Snapshot
from ..launching.launcher import TaskiqRunLauncher
from ..vocabulary.wording import counted, first_few
from .loaded_locations import LoadedLocation

DAY_S = 86_400
#: Share of the database's connections that slots may take; the webserver and the daemon need some.
CONNECTIONS_WARN = 0.8
_FROM_RULES = {
    "durability", "memory", "heartbeats", "code_fresh", "version_skew", "shared_storage",
}  # fmt: skip


def examine(
    instance: dg.DagsterInstance,
    snapshot: Snapshot,
    settings: TaskiqSettings,
    code: Sequence[LoadedLocation] | None = None,
) -> Sequence[Finding]:
    """Examine an installation.

    Args:
        instance: The Dagster instance.
        snapshot: Queues, workers and server.
        settings: The deployment.
        code: Code locations of the workspace; None when none is known.
    """
    found = [each for each in judge(snapshot, settings) if each.check in _FROM_RULES]
    for look in _LOOKS:
        found += look(instance, snapshot)
    if code is not None:
        found += _loading(code)
        found += _locations(snapshot, [each.name for each in code])
        found += _io_managers(snapshot, settings, code)
    return found


def _finding(check: str, severity: Severity, sentence: str, remedy: str = "") -> Finding:
    return Finding("installation", check, severity, sentence, remedy)


def _hosts(snapshot: Snapshot) -> Sequence[str]:
    return sorted({worker.card.host for worker in snapshot.live_workers})


def _storage(instance: dg.DagsterInstance, snapshot: Snapshot) -> Iterator[Finding]:
    hosts = _hosts(snapshot)
    if "sqlite" not in type(instance.event_log_storage).__module__:
        yield _finding("instance_storage", Severity.OK, "The instance keeps its runs in a server.")
        return
    many = len(hosts) > 1
    yield _finding(
        "instance_storage",
        Severity.ERROR if many else Severity.WARN,
        "The instance keeps its runs in SQLite, which one host can share"
        + (f"; workers run on {first_few(hosts)}." if many else "."),
        "Set storage.postgres in dagster.yaml.",
    )


def _event_insert(instance: dg.DagsterInstance, _snapshot: Snapshot) -> Iterator[Finding]:
    why = why_not_relayed(instance)
    if why and "sqlite" not in type(instance.event_log_storage).__module__:
        yield _finding(
            "event_insert", Severity.WARN,
            f"Each step stores its events itself, in a database session of its own: {why}.",
            "A step costs more. Keep runs in PostgreSQL, with a dagster-postgres of the range that "
            "dagster-taskiq-kit is made for.",
        )  # fmt: skip


def _launcher(instance: dg.DagsterInstance, _snapshot: Snapshot) -> Iterator[Finding]:
    ours = isinstance(instance.run_launcher, TaskiqRunLauncher)
    yield _finding(
        "run_launcher",
        Severity.OK if ours else Severity.WARN,
        f"Runs are launched by {type(instance.run_launcher).__name__}.",
        "" if ours else "Set run_launcher to TaskiqRunLauncher, so that workers execute runs and a "
        "dead one is resumed.",
    )  # fmt: skip


def _monitoring(instance: dg.DagsterInstance, _snapshot: Snapshot) -> Iterator[Finding]:
    if not instance.run_monitoring_enabled:
        yield _finding(
            "run_monitoring", Severity.ERROR,
            "run_monitoring is off: nobody resumes a run whose worker died.",
            "Set run_monitoring.enabled to true in dagster.yaml.",
        )  # fmt: skip
        return
    start_s = instance.run_monitoring_start_timeout_seconds
    if start_s < DAY_S:
        said = "makes the monitor raise on every STARTING run" if not start_s else (
            "fails runs that only wait in a queue"
        )  # fmt: skip
        yield _finding(
            "start_timeout", Severity.ERROR if not start_s else Severity.WARN,
            f"run_monitoring.start_timeout_seconds is {start_s}: that {said}.",
            "Set it to a year (31536000).",
        )  # fmt: skip
    else:
        yield _finding("start_timeout", Severity.OK, "A run may wait in a queue for long.")
    resumes = instance.run_monitoring_max_resume_run_attempts
    yield _finding(
        "run_monitoring", Severity.OK if resumes else Severity.ERROR,
        f"A run whose worker died is resumed up to {resumes} times.",
        "" if resumes else "Set run_monitoring.max_resume_run_attempts to 3.",
    )  # fmt: skip
    frees = instance.run_monitoring_settings.get("free_slots_after_run_end_seconds")
    yield _finding(
        "pool_slots", Severity.OK if frees else Severity.WARN,
        f"Pool slots of a dead run go back after {frees} s." if frees
        else "Pool slots of a dead run are given back by workers only.",
        "" if frees else "Set run_monitoring.free_slots_after_run_end_seconds to 300.",
    )  # fmt: skip


def _retries(instance: dg.DagsterInstance, _snapshot: Snapshot) -> Iterator[Finding]:
    on = instance.run_retries_enabled
    yield _finding(
        "run_retries", Severity.OK if on else Severity.WARN,
        "Run retries are on." if on
        else "Run retries are off: a run on an executor that cannot resume ends with its worker.",
        "" if on else "Set run_retries.enabled to true; max_retries may stay 0.",
    )  # fmt: skip


def _run_limit(instance: dg.DagsterInstance, snapshot: Snapshot) -> Iterator[Finding]:
    queue = instance.get_concurrency_config().run_queue_config
    slots = sum(worker.card.run_slots for worker in snapshot.live_workers)
    limit = None if queue is None else queue.max_concurrent_runs
    if limit is None or limit < 0 or limit >= slots:
        yield _finding(
            "run_slots",
            Severity.OK,
            f"{counted(slots, 'run slot')} limit how many runs execute at once."
            if slots
            else "No live worker has a run slot now; Dagster's own queue limits nothing.",
        )
        return
    yield _finding(
        "run_slots", Severity.WARN,
        f"Dagster lets {counted(limit, 'run')} out of its own queue at once, and workers have "
        f"{counted(slots, 'run slot')}: the others stay empty.",
        "Set concurrency.runs.max_concurrent_runs to -1.",
    )  # fmt: skip


def _logs(instance: dg.DagsterInstance, snapshot: Snapshot) -> Iterator[Finding]:
    local = type(instance.compute_log_manager).__name__ == "LocalComputeLogManager"
    many = len(_hosts(snapshot)) > 1
    yield _finding(
        "compute_logs", Severity.WARN if local and many else Severity.OK,
        f"Compute logs go to {type(instance.compute_log_manager).__name__}.",
        "Put its folder on a shared volume, or use a compute log manager of a bucket: the "
        "webserver cannot show what another host wrote." if local and many else "",
    )  # fmt: skip


def _connections(instance: dg.DagsterInstance, snapshot: Snapshot) -> Iterator[Finding]:
    most = most_database_connections(instance)
    if most is None:
        return
    # A child at work holds one, each worker and each run child up to two more.
    live = snapshot.live_workers
    wanted = sum(w.card.slots + 2 * w.card.run_slots + 2 for w in live)
    tight = wanted > CONNECTIONS_WARN * most
    yield _finding(
        "database_connections", Severity.WARN if tight else Severity.OK,
        f"The slots of all workers may take {wanted} of the database's {most} connections.",
        "Raise max_connections, or put a pooler in session mode before it." if tight else "",
    )  # fmt: skip


def _locations(snapshot: Snapshot, locations: Sequence[str]) -> Iterator[Finding]:
    served = [Served(name) for worker in snapshot.live_workers for name in worker.card.locations]
    missing = sorted(name for name in set(locations) if not is_served(name, served))
    yield _finding(
        "code_locations", Severity.ERROR if missing else Severity.OK,
        f"No live worker serves code location {first_few(missing)}." if missing
        else "Every code location of the workspace is served.",
        "Start a worker with it under that name: -w WORKSPACE, or -m MODULE or -f FILE with "
        "--location-name." if missing else "",
    )  # fmt: skip


def _warm(_instance: dg.DagsterInstance, snapshot: Snapshot) -> Iterator[Finding]:
    slow = sorted(
        {
            f"{location} is served {mode}"
            for worker in snapshot.live_workers
            for location, mode in worker.card.modes.items()
            if mode != "warm" and not mode.endswith(BY_OPTION)
        }
    )
    yield _finding(
        "warm", Severity.WARN if slow else Severity.OK,
        f"Steps of some code import it each for themselves: {'; '.join(slow)}." if slow
        else "Steps are forked with their code imported.",
        "Make what is named there where it is first used (a resource, a cached function); or say "
        "--warm LOCATION=always where steps may share it." if slow else "",
    )  # fmt: skip


def _loading(code: Sequence[LoadedLocation]) -> Iterator[Finding]:
    broken = [each for each in code if each.error is not None]
    said = "; ".join(
        f"{each.name}: {(each.error or '').strip().splitlines()[0]}" for each in broken
    )
    yield _finding(
        "code_loading", Severity.ERROR if broken else Severity.OK,
        f"Cannot be loaded: {said}" if broken else "Every code location of the workspace loads.",
        "Mend its code: workers refuse what they cannot load." if broken else "",
    )  # fmt: skip


def _io_managers(
    snapshot: Snapshot, settings: TaskiqSettings, code: Sequence[LoadedLocation]
) -> Iterator[Finding]:
    """Judge where steps leave what the next ones read, which may execute on another host."""
    hosts = _hosts(snapshot)
    folders = {w.card.storage_id for w in snapshot.live_workers}
    # By default outputs lie in the instance's storage folder, which workers compare by a marker.
    proven = settings.shared_storage and len(folders) == 1 and "" not in folders
    local = [
        f"{each.name} ({each.local_io_manager})"
        for each in code
        if each.local_io_manager and not (proven and each.outputs_in_instance_storage)
    ]
    in_memory = [each.name for each in code if each.in_memory_io_manager]
    many = len(hosts) > 1
    remedy = (
        "Put its folder on a volume that all hosts mount, or use an IO manager that writes to a "
        "bucket or a database."
    )
    if in_memory:
        yield _finding(
            "io_manager", Severity.ERROR,
            f"Outputs of {first_few(in_memory)} stay in memory: no other process can read them.",
            "Use an IO manager that persists, or in_process_executor for those jobs.",
        )  # fmt: skip
    elif local and many:
        yield _finding(
            "io_manager", Severity.WARN,
            f"Outputs may be files that only one of {len(hosts)} hosts sees: {first_few(local)}.",
            remedy,
        )  # fmt: skip
    else:
        said = "Outputs are found by every step"
        yield _finding(
            "io_manager", Severity.OK, f"{said}{'.' if many else ': there is one host.'}"
        )


_LOOKS: Sequence[Callable[[dg.DagsterInstance, Snapshot], Iterator[Finding]]] = (
    _storage, _event_insert, _launcher, _monitoring, _retries, _run_limit, _logs,
    _connections, _warm,
)  # fmt: skip
