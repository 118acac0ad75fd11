"""Rules on the workers of a fleet.

Invariant: an expired lease says that nothing was heard; only a worker that holds work then is an
error.
"""

from collections.abc import Callable, Sequence

from ..config.settings import TaskiqSettings
from ..vocabulary.wording import FEW, counted, duration
from .findings import Finding, Severity
from .snapshot import Snapshot

#: A worker that was given up is news for this long.
LOST_WORKER_NEWS_S = 600.0
CLOCK_SKEW_WARN_S = 5.0


def _heartbeats(snapshot: Snapshot, _settings: TaskiqSettings) -> Finding:
    silent = [worker for worker in snapshot.workers if not worker.live]
    holding = [worker for worker in silent if worker.held]
    news = [each for each in snapshot.lost_workers if each.ago_s < LOST_WORKER_NEWS_S]
    live = len(snapshot.live_workers)
    numbers = {
        "live_workers": live,
        "silent_workers": len(silent),
        "lost_last_hour": len(snapshot.lost_workers),
    }
    thresholds = (
        "error when a silent worker holds work, warn when one is silent or was given up in the "
        f"last {duration(LOST_WORKER_NEWS_S)}"
    )
    sentence, remedy, severity = f"Heard of {counted(live, 'worker')}.", "", Severity.OK
    if silent or news:
        severity = Severity.ERROR if holding else Severity.WARN
        said = [
            f"{worker.card.worker_id} on {worker.card.host} is silent for "
            f"{duration(worker.silent_s)} and holds {counted(len(worker.held), 'message')}"
            for worker in (holding or silent)[:FEW]
        ]
        said += [
            f"{each.worker_id} on {each.host or 'an unknown host'} was given up "
            f"{duration(each.ago_s)} ago"
            for each in news[:FEW]
        ]
        sentence += f" {'; '.join(said)}."
        remedy = "Look whether its host lives and why it is silent (killed, frozen, cut off)."
        if holding and not live:
            remedy += " No worker is left to take its work over: start one."
    return Finding("workers", "heartbeats", severity, sentence, remedy, numbers, thresholds)


def _slots_free(snapshot: Snapshot, _settings: TaskiqSettings) -> Finding:
    alive = [worker for worker in snapshot.live_workers if worker.state == "alive"]
    free = {
        "step": sum(max(0, w.card.slots - w.card.busy_slots) for w in alive),
        "run": sum(max(0, w.card.run_slots - w.card.busy_run_slots) for w in alive),
    }
    waiting = {
        kinds: sum(queue.waiting.get(kind, 0) for queue in snapshot.queues for kind in kinds)
        for kinds in (("step", "task"), ("run",))
    }
    short = []
    if waiting["step", "task"] and not free["step"]:
        short.append(f"no slot is free for {waiting['step', 'task']} waiting steps and tasks")
    if waiting[("run",)] and not free["run"]:
        short.append(f"no run slot is free for {counted(waiting[('run',)], 'waiting run')}")
    slots, run_slots = (sum(getattr(w.card, n) for w in alive) for n in ("slots", "run_slots"))
    said = [
        f"{free[lane]} of {counted(total, noun)}"
        for lane, total, noun in (("step", slots, "slot"), ("run", run_slots, "run slot"))
        if total
    ]
    sentence = f"{' and '.join(said)} free." if said else "No live worker has a slot."
    return Finding(
        "workers",
        "slots_free",
        Severity.WARN if short else Severity.OK,
        f"{sentence[:-1]}: {', '.join(short)}." if short else sentence,
        "Start more workers, or give them more --slots or --run-slots." if short else "",
        {"free_slots": free["step"], "free_run_slots": free["run"]},
        "warn when work waits and no slot is free",
    )  # fmt: skip


def _version_skew(snapshot: Snapshot, _settings: TaskiqSettings) -> Finding:
    live = snapshot.live_workers
    kit = sorted({worker.card.version for worker in live})
    dagster = sorted({worker.card.dagster_version for worker in live} - {""})
    skewed = [w for w in live if abs(w.clock_skew_s) > CLOCK_SKEW_WARN_S]
    wrong, remedies = [], []
    if len(kit) > 1:
        wrong.append(f"dagster-taskiq-kit {', '.join(kit)}")
    if len(dagster) > 1:
        wrong.append(f"dagster {', '.join(dagster)}")
    if wrong:
        remedies.append("Finish the rollout: bring all workers to one release.")
    sentence = counted(len(live), "live worker")
    if wrong:
        sentence += f": different releases of {' and of '.join(wrong)}"
    elif live:
        sentence += f" on dagster-taskiq-kit {kit[0]}" + (
            f" and dagster {dagster[0]}" if dagster else ""
        )
    sentence += "."
    if skewed:
        said = ", ".join(f"{w.card.host} by {w.clock_skew_s:+.1f} s" for w in skewed[:FEW])
        sentence += f" Clocks are off: {said}."
        remedies.append("Synchronise the clocks of those hosts.")
    return Finding(
        "workers",
        "version_skew",
        Severity.WARN if wrong or skewed else Severity.OK,
        sentence,
        " ".join(remedies),
        {"releases": len(kit), "workers_with_wrong_clock": len(skewed)},
        f"warn > 1 release, warn when a clock is off by more than {CLOCK_SKEW_WARN_S:g} s",
    )


def _shared_storage(snapshot: Snapshot, settings: TaskiqSettings) -> Finding:
    live = snapshot.live_workers
    unreadable = [w for w in live if w.card.storage and not w.card.storage_id]
    told = [w for w in live if w.card.storage_id]
    folders = {w.card.storage_id for w in told}
    hosts = {w.card.host for w in live}
    numbers = {"hosts": len(hosts), "storage_folders": len(folders)}
    thresholds = "error when workers see different storage folders and `shared_storage` is set"

    def verdict(severity: Severity, sentence: str, remedy: str = "") -> Finding:
        return Finding("workers", "shared_storage", severity, sentence, remedy, numbers, thresholds)

    if not settings.shared_storage:
        return verdict(Severity.OK, "Not demanded: the setting `shared_storage` is off.")
    if unreadable:
        said = "; ".join(f"{w.card.host}: {w.card.storage}" for w in unreadable[:FEW])
        return verdict(
            Severity.ERROR, f"The storage folder cannot be read ({said}).",
            "Mount it there, and let the worker's user write to it.",
        )  # fmt: skip
    if len(folders) > 1:
        said = "; ".join(
            sorted({f"{w.card.host} sees {w.card.storage} ({w.card.storage_id})" for w in told})
        )
        return verdict(
            Severity.ERROR,
            f"Workers do not see the same storage folder: {said}. A step would not find what "
            "another host's step wrote.",
            "Put it on a shared volume, or use an IO manager that writes to a bucket or a database "
            "and set shared_storage to false.",
        )
    return verdict(Severity.OK, f"{counted(len(hosts), 'host')}, one storage folder.")


def _code_loaded(snapshot: Snapshot, _settings: TaskiqSettings) -> Finding:
    unready = [worker for worker in snapshot.live_workers if worker.state == "unready"]
    said = [f"{w.card.name} on {w.card.host}: {w.card.trouble}" for w in unready[:FEW]]
    return Finding(
        "workers",
        "code_loaded",
        Severity.ERROR if unready else Severity.OK,
        f"{counted(len(unready), 'worker')} cannot load the code any more, or cannot keep a lane "
        f"going, and may take no work ({'; '.join(said)})." if unready
        else "Every live worker can load its code and listens.",
        "Mend the code, or what the worker's log says: it is tried again each half minute. What "
        "waits is taken by other workers." if unready else "",
        {"unready_workers": len(unready)},
        "error when a live worker cannot load its code",
    )  # fmt: skip


def _code_fresh(snapshot: Snapshot, _settings: TaskiqSettings) -> Finding:
    stale = [
        f"{worker.card.name} on {worker.card.host}, {location!r}: {why}"
        for worker in snapshot.live_workers
        for location, why in worker.card.stale.items()
    ]
    return Finding(
        "workers",
        "code_fresh",
        Severity.WARN if stale else Severity.OK,
        f"Older code than its files is served ({'; '.join(stale[:FEW])})." if stale
        else "No live worker is known to serve older code than its files.",
        "Mend the code, it is loaded then; or `dagster-taskiq worker reload NAME` where reloading "
        "waits for that." if stale else "",
        {"stale_locations": len(stale)},
        "warn when a live worker serves a location with older code than its files",
    )  # fmt: skip


WORKER_RULES: Sequence[Callable[[Snapshot, TaskiqSettings], Finding]] = (
    _heartbeats, _code_loaded, _code_fresh, _slots_free, _version_skew, _shared_storage,
)  # fmt: skip
