"""Random faults against a stream of runs: every run ends, no body runs twice at once, nothing is left.

``SOAK_S`` says for how many seconds; ``SOAK_SEED`` repeats the same faults.
"""

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import psutil
import pytest

import dagster_taskiq_kit
from dagster_taskiq_kit.broker import readings
from dagster_taskiq_kit.broker.connection import SyncConnection
from dagster_taskiq_kit.broker.keys import KEYS
from dagster_taskiq_kit.testing.fleet import FleetError
from dagster_taskiq_kit.vocabulary.errors import BrokerError
from dagster_taskiq_kit.vocabulary.states import State
from dagster_taskiq_kit.worker.process.lifecycle import CHILD, FORK_SERVER, GUARDIAN

from .conftest import Chaos
from .moved_clock import BrokerWithClock
from .own_broker import OwnBroker
from .test_database_refusals import read_only

STATUS = dg.DagsterRunStatus
SOAK_S = float(os.environ.get("SOAK_S", "40"))
#: How often each class of faults must have hit a busy target.
HITS = max(4, int(SOAK_S / 30))
#: Longest wait for that, beyond the time of the soak: a busy machine takes its time.
HITS_WITHIN_S = 400.0
SEED = int(os.environ.get("SOAK_SEED", time.time_ns() % 1_000_000))
STEPS_OF_ENDURING = 4
FREEZE_CLAIM = "freeze between claim and start"
FAULTS = ("kill", "freeze", FREEZE_CLAIM, "drain", "restart broker", "cancel")
#: What happens to machines, clocks and servers, to code that loads slowly and steps that say much.
SURROUNDINGS = (
    "kill fork server", "freeze", "freeze broker", "jump clock", "read-only database", "poison",
)  # fmt: skip
#: Longer than the lease.
SLOW_IMPORT_S = "4"
JUMP_S = 3600
PACKAGE = Path(dagster_taskiq_kit.__file__).parent
#: What keeps a worker from touching what was given to another.
OWNER_CHECK = "or record.owner ~= token"

pytestmark = pytest.mark.timeout(SOAK_S + 2 * HITS_WITHIN_S)


class Soak:
    """Workers, runs, and faults upon them."""

    def __init__(
        self,
        chaos: Chaos,
        broker: OwnBroker,
        faults: tuple[str, ...] = FAULTS,
        environment: dict[str, str] | None = None,
        job: str = "enduring",
    ) -> None:
        self.chaos = chaos
        self.job = job
        self.broker = broker
        self.faults = faults
        self.environment = environment or {}
        self.thawing: list[threading.Thread] = []
        self.random = random.Random(SEED)
        self.workers: dict[int, object] = {}
        self.frozen: dict[int, float] = {}
        self.runs: list[str] = []
        self.cancelled: set[str] = set()
        self.hits: Counter[str] = Counter()

    def busy(self) -> dict[int, set[str]]:
        """Runs whose bodies are at work, by worker pid, from the ledger."""
        at_work: dict[tuple, tuple[int, str]] = {}
        for entry in self.chaos.ledger():
            key = (entry.run, entry.step, entry.attempt)
            if entry.what == "start" and psutil.pid_exists(entry.pid):
                at_work[key] = (entry.worker, entry.run)
            elif entry.what == "end":
                at_work.pop(key, None)
        found: dict[int, set[str]] = {}
        for worker, run in at_work.values():
            found.setdefault(worker, set()).add(run)
        return found

    def keep_workers(self, count: int) -> None:
        self.workers = {pid: w for pid, w in self.workers.items() if w.poll() is None}
        while len(self.workers) < count:
            worker = self.chaos.start_worker(
                slots=2, run_slots=2, wait=False, environment=self.environment
            )
            self.workers[worker.pid] = worker

    def keep_runs(self, count: int) -> None:
        instance = self.chaos.fleet.instance
        open_runs = [r for r in self.runs if not instance.get_run_by_id(r).is_finished]
        for _ in range(count - len(open_runs)):
            self.runs.append(self.chaos.launch(self.job))

    def thaw(self, *, every: bool = False) -> None:
        for pid, until_s in list(self.frozen.items()):
            if time.monotonic() > until_s or (every and until_s != float("inf")):
                del self.frozen[pid]
                if pid in self.workers and self.workers[pid].poll() is None:
                    self.workers[pid].send_signal(signal.SIGCONT)

    def thaw_beside_the_next(self, task_id: str, worker) -> None:
        """Thaw a worker in the moment in which another executes what it had claimed."""
        broker = SyncConnection(self.chaos.fleet.settings)
        until_s = time.monotonic() + 4 * broker.settings.lease_s
        while time.monotonic() < until_s:
            with contextlib.suppress(BrokerError):
                record = readings.fetch(broker, task_id)
                if record is None or record.state not in (State.QUEUED, State.CLAIMED):
                    break
            time.sleep(0.01)
        broker.close()
        if worker.poll() is None:
            worker.send_signal(signal.SIGCONT)
        self.frozen.pop(worker.pid, None)

    def freeze_a_claim(self) -> bool:
        """Stop a worker that has claimed a step which has not begun; returns whether it worked."""
        broker = self.chaos.fleet.broker
        key, until_s = broker.keys.name("claimed", "default"), time.monotonic() + 2
        by_name = {w.card.worker_id: w.card.pid for w in self.chaos.fleet.snapshot().workers}
        while time.monotonic() < until_s:
            for task in broker.client.zrange(key, 0, -1):
                task_id = task.decode()
                owner = broker.client.hget(broker.keys.name("record", task_id), "worker") or b""
                worker = self.workers.get(by_name.get(owner.decode(), 0))
                if worker is None or worker.pid in self.frozen or task_id.startswith("run:"):
                    continue
                worker.send_signal(signal.SIGSTOP)
                record = readings.fetch(broker, task_id)
                if record is not None and record.state is State.CLAIMED:
                    self.frozen[worker.pid] = float("inf")
                    thawing = threading.Thread(
                        target=self.thaw_beside_the_next, args=(task_id, worker)
                    )
                    thawing.start()
                    self.thawing.append(thawing)
                    return True
                worker.send_signal(signal.SIGCONT)
        return False

    def fault(self) -> None:
        """Do one fault to a busy target; the class that was hit least comes first."""
        least = min(self.hits[name] for name in self.faults)
        name = self.random.choice([name for name in self.faults if self.hits[name] == least])
        if name == FREEZE_CLAIM:
            self.hits[name] += self.freeze_a_claim()
            return
        if name in self.of_the_surroundings:
            self.of_the_surroundings[name]()
            self.hits[name] += 1
            return
        busy = {p: runs for p, runs in self.busy().items() if p in self.workers}
        targets = sorted(pid for pid in busy if pid not in self.frozen)
        if not targets:
            return
        pid = self.random.choice(targets)
        worker = self.workers[pid]
        if name == "kill":
            self.chaos.kill(worker)
        elif name == "freeze":
            worker.send_signal(signal.SIGSTOP)
            lease_s = self.chaos.fleet.settings.lease_s
            self.frozen[pid] = time.monotonic() + self.random.uniform(0.3, 2.0) * lease_s
        elif name == "drain":
            worker.send_signal(signal.SIGTERM)
        elif name == "cancel":
            run = self.random.choice(sorted(busy[pid]))
            self.cancelled.add(run)
            self.chaos.fleet.instance.run_launcher.terminate(run)
        elif name == "kill fork server":
            servers = psutil.Process(pid).children()
            if not servers:
                return  # the last one is not replaced yet
            servers[0].kill()
        else:
            self.broker.kill()
            self.broker.start()
        self.hits[name] += 1

    @property
    def of_the_surroundings(self) -> dict[str, Callable[[], None]]:
        return {
            "freeze broker": self.freeze_broker,
            "jump clock": self.jump_clock,
            "read-only database": self.make_database_read_only,
            "poison": self.poison,
        }

    def for_more_than_a_lease(self) -> None:
        """A fault that lasts: that it lasts is what it is about."""
        time.sleep(self.random.uniform(1.1, 1.6) * self.chaos.fleet.settings.lease_s)

    def freeze_broker(self) -> None:
        self.broker.signal(signal.SIGSTOP)
        self.for_more_than_a_lease()
        self.broker.signal(signal.SIGCONT)

    def jump_clock(self) -> None:
        assert isinstance(self.broker, BrokerWithClock)
        self.broker.jump_to(self.random.choice([-JUMP_S, -60, 0, 60, JUMP_S]))

    def make_database_read_only(self) -> None:
        with read_only(self.chaos):
            self.for_more_than_a_lease()

    def poison(self) -> None:
        """One record of each kind that nobody can execute, a malformed order, and a ghost."""
        broker, number = self.chaos.fleet.broker, self.hits["poison"]
        client, key = broker.client, broker.keys.name
        sound = {"state": "queued", "band": "5", "run_id": "", "deliveries": "0", "queued_at": "1",
                 "queue": "default", "payload": "[", "entry": f"1-{number + 1}"}  # fmt: skip
        for kind in ("run", "step", "task"):
            task_id = f"{kind}:poison:{number}"
            spoiled = {self.random.choice(list(sound)): self.random.choice(["", "x", "-1"])}
            client.hset(
                key("record", task_id), mapping={**sound, "kind": kind, **spoiled, "entry": "0-1"}
            )
            entry = client.xadd(key("stream", "default", kind, "5"), {"id": task_id, "at": "1"})
            client.hset(key("record", task_id), "entry", entry)
            client.zadd(key("waiting", "default", kind), {task_id: 1})
        for worker in self.chaos.fleet.snapshot().workers:
            client.xadd(key("orders", worker.card.worker_id), {"order": b"\xff"})
            client.expire(key("orders", worker.card.worker_id), 3600)
        client.hset(key("worker", f"ghost-{number}"), "card", "{")
        client.zadd(key("workers"), {f"ghost-{number}": 4e12})


def test_random_faults_leave_every_run_ended_and_nothing_behind(make_chaos, broker: OwnBroker):
    print(f"SOAK_SEED={SEED}")
    with make_chaos(url=broker.url, settings={"drain_timeout_s": 2}) as chaos:
        soak = Soak(chaos, broker)
        rage(soak, SOAK_S, HITS)
        finish(soak)


def test_random_faults_of_what_is_around_leave_every_run_ended_and_nothing_behind(
    make_chaos, tmp_path
):
    print(f"SOAK_SEED={SEED}")
    broker = BrokerWithClock(tmp_path / "broker-with-clock")
    environment = {"IMPORT_S": SLOW_IMPORT_S}
    with (
        contextlib.closing(broker),
        make_chaos(url=broker.url, storage="postgres", settings={"drain_timeout_s": 2}) as chaos,
    ):
        soak = Soak(chaos, broker, SURROUNDINGS, environment, "enduring_and_chatty")
        rage(soak, SOAK_S / 2, max(3, HITS // 2))
        broker.jump_to(0)
        finish(soak, 240)


def test_without_the_owner_check_the_soak_fails(
    make_chaos, broker: OwnBroker, tmp_path, monkeypatch
):
    copy = tmp_path / "mutated" / PACKAGE.name
    shutil.copytree(PACKAGE, copy)
    checks = 0
    for file in (copy / "broker" / "scripts").glob("*.lua"):
        checks += file.read_text().count(OWNER_CHECK)
        file.write_text(file.read_text().replace(OWNER_CHECK, ""))
    assert checks >= 4
    monkeypatch.chdir(tmp_path)  # the repository would come before the copy
    with make_chaos(url=broker.url) as chaos:
        soak = Soak(chaos, broker, (FREEZE_CLAIM,), {"PYTHONPATH": str(copy.parent)})
        with pytest.raises((AssertionError, FleetError)):
            # The log as second witness stops many of these second bodies, so it takes a few tries.
            for hits in range(4, 33, 4):
                rage(soak, 1, hits)
                assert_no_two_at_once(chaos)
            finish(soak, within_s=30)


def rage(soak: Soak, seconds: float, hits: int) -> None:
    """Do faults for a while, and until each class hit often enough."""
    soak.chaos.fleet.instance.event_log_storage.set_concurrency_slots("shared", 3)
    until_s = time.monotonic() + seconds
    soak.keep_workers(3)
    while time.monotonic() < until_s or min(soak.hits[name] for name in soak.faults) < hits:
        if time.monotonic() > until_s + HITS_WITHIN_S:
            pytest.fail(f"faults missed: {soak.hits}")
        soak.keep_workers(3)
        soak.keep_runs(3)
        soak.thaw()
        soak.fault()
        soak.chaos.monitor()  # errors while the broker is away are its right
        # Nothing is awaited: a fault comes at any moment of what happens, and that is the point.
        time.sleep(soak.random.uniform(0.2, 1.5))
    soak.thaw(every=True)
    for thawing in soak.thawing:
        thawing.join()
    soak.keep_workers(3)


def finish(soak: Soak, within_s: float = 120) -> None:
    """Without faults everything comes to its end."""
    chaos, instance = soak.chaos, soak.chaos.fleet.instance

    def over() -> bool:
        chaos.monitor()
        return all(instance.get_run_by_id(run).is_finished for run in soak.runs)

    def explain() -> str:
        return f"SOAK_SEED={SEED} {soak.hits}\n{chaos.explain()[-20_000:]}"

    chaos.fleet.wait_for(over, "every run to end", explain, within_s)
    for run in soak.runs:
        allowed = {STATUS.SUCCESS} | ({STATUS.CANCELED} if run in soak.cancelled else set())
        assert instance.get_run_by_id(run).status in allowed, "\n".join(chaos.fleet.said(run))
        if run not in soak.cancelled:
            assert len(ended_well(chaos, run)) == STEPS_OF_ENDURING, explain()
    assert_no_two_at_once(chaos)
    chaos.fleet.wait_for(
        lambda: not left_over(chaos), "nothing to be left",
        lambda: f"SOAK_SEED={SEED} left: {left_over(chaos)}\n{explain()}",
        # On a machine so busy that looks come late, nobody is given up: a ghost stays for longer.
        within_s=2 * within_s,
    )  # fmt: skip
    for worker in soak.workers.values():
        chaos.fleet.stop_worker(worker)
    assert processes_of(chaos.fleet.home) == []


def ended_well(chaos: Chaos, run: str) -> set[str]:
    return {entry.step for entry in chaos.ledger() if (entry.run, entry.what) == (run, "end")}


def left_over(chaos: Chaos) -> list[str]:
    """What is still held, queued, claimed or kept for ever, and pool slots that nobody gave back."""
    broker = chaos.fleet.broker
    snapshot = chaos.fleet.snapshot()
    found = [f"queue {q.name}" for q in snapshot.queues if q.backlog or q.claimed or q.running]
    found += [f"held by {w.card.name}" for w in snapshot.workers if w.held]
    for name in broker.client.scan_iter(match=f"{broker.keys.prefix}:*"):
        family = name.decode().split(":")[1]
        for_ever = KEYS[family].expiry == "never"
        if not for_ever and broker.client.ttl(name) == -1:
            found.append(f"key {name} has no time to live")
    if broker.client.scard(broker.keys.name("open_runs")):
        found.append("open runs")
    pool = chaos.fleet.instance.event_log_storage.get_concurrency_info("shared")
    return found + [f"pool slot of {slot}" for slot in (*pool.claimed_slots, *pool.pending_steps)]


def processes_of(home: Path) -> list[str]:
    """Fork servers, guardians and children of a fleet that are there, also stopped ones.

    Whatever of them does not print into a log or a compute log of the fleet is none of it.
    """
    found = []
    for process in psutil.process_iter(["name", "pid", "status"]):
        if process.info["name"] in (CHILD, FORK_SERVER, GUARDIAN):
            with contextlib.suppress(OSError):
                prints = str(Path(f"/proc/{process.pid}/fd/2").readlink())
                if prints.startswith(f"{home}/"):
                    found.append(str(process.info))
    return found


def assert_no_two_at_once(chaos: Chaos) -> None:
    """One body an attempt, none with a sign of life after the next had begun, and no second attempt
    but of a step whose first the log has closed."""
    instance, newest, attempts = chaos.fleet.instance, {}, set()
    for entry in sorted(chaos.ledger(), key=lambda entry: entry.at):
        step = (entry.run, entry.step)
        if entry.what == "start":
            attempt = (*step, entry.attempt)
            assert attempt not in attempts, f"{entry}: an attempt twice (SOAK_SEED={SEED})"
            attempts.add(attempt)
            newest[step] = entry.pid
        assert newest[step] == entry.pid, f"{entry}: two at once (SOAK_SEED={SEED})"
    for run in {run for run, _, _ in attempts}:
        events = [e.dagster_event for e in instance.all_logs(run) if e.dagster_event]
        said = Counter((event.step_key, event.event_type) for event in events)
        for step, attempt in {(step, number) for other, step, number in attempts if other == run}:
            closed = said[step, dg.DagsterEventType.STEP_UP_FOR_RETRY]
            assert attempt <= closed + 1, f"{run} {step}: attempt {attempt} (SOAK_SEED={SEED})"
            assert said[step, dg.DagsterEventType.STEP_SUCCESS] <= 1
