"""Random faults against a stream of runs: every run ends, no body runs twice at once, nothing is left.

``SOAK_S`` says for how many seconds; ``SOAK_SEED`` repeats the same faults.
"""

import os
import random
import signal
import time
from collections import Counter

import dagster as dg
import psutil

from .conftest import Chaos
from .own_broker import OwnBroker

STATUS = dg.DagsterRunStatus
SOAK_S = float(os.environ.get("SOAK_S", "60"))
SEED = int(os.environ.get("SOAK_SEED", time.time_ns() % 1_000_000))
FAULTS = ("kill", "freeze", "drain", "restart broker", "cancel")


class Soak:
    """Workers, runs, and faults upon them."""

    def __init__(self, chaos: Chaos, broker: OwnBroker) -> None:
        self.chaos = chaos
        self.broker = broker
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
            else:
                at_work.pop(key, None)
        found: dict[int, set[str]] = {}
        for worker, run in at_work.values():
            found.setdefault(worker, set()).add(run)
        return found

    def keep_workers(self, count: int) -> None:
        self.workers = {pid: w for pid, w in self.workers.items() if w.poll() is None}
        while len(self.workers) < count:
            worker = self.chaos.start_worker(slots=2, run_slots=2, wait=False)
            self.workers[worker.pid] = worker

    def keep_runs(self, count: int) -> None:
        instance = self.chaos.fleet.instance
        open_runs = [r for r in self.runs if not instance.get_run_by_id(r).is_finished]
        for _ in range(count - len(open_runs)):
            self.runs.append(self.chaos.launch("enduring"))

    def thaw(self, *, every: bool = False) -> None:
        for pid, until_s in list(self.frozen.items()):
            if every or time.monotonic() > until_s:
                del self.frozen[pid]
                if pid in self.workers and self.workers[pid].poll() is None:
                    self.workers[pid].send_signal(signal.SIGCONT)

    def fault(self) -> None:
        """Do one fault to a busy target; the class that was hit least comes first."""
        least = min(self.hits[name] for name in FAULTS)
        name = self.random.choice([name for name in FAULTS if self.hits[name] == least])
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
        else:
            self.broker.kill()
            self.broker.start()
        self.hits[name] += 1


def test_random_faults_leave_every_run_ended_and_nothing_behind(make_chaos, broker: OwnBroker):
    print(f"SOAK_SEED={SEED}")
    with make_chaos(url=broker.url, settings={"drain_timeout_s": 2}) as chaos:
        soak = Soak(chaos, broker)
        until_s = time.monotonic() + SOAK_S
        soak.keep_workers(3)
        while time.monotonic() < until_s or min(soak.hits[name] for name in FAULTS) < 2:
            assert time.monotonic() < until_s + 60, f"faults missed: {soak.hits}"
            soak.keep_workers(3)
            soak.keep_runs(3)
            soak.thaw()
            soak.fault()
            chaos.monitor()  # errors while the broker is away are its right
            time.sleep(soak.random.uniform(0.2, 1.5))
        soak.thaw(every=True)
        soak.keep_workers(3)
        finish(soak)


def finish(soak: Soak) -> None:
    """Without faults everything comes to its end."""
    chaos, instance = soak.chaos, soak.chaos.fleet.instance

    def over() -> bool:
        chaos.monitor()
        return all(instance.get_run_by_id(run).is_finished for run in soak.runs)

    why = lambda: f"SOAK_SEED={SEED} {soak.hits}\n{chaos.explain()[-20_000:]}"  # noqa: E731
    chaos.fleet.wait_for(over, "every run to end", why, within_s=120)
    for run in soak.runs:
        allowed = {STATUS.SUCCESS} | ({STATUS.CANCELED} if run in soak.cancelled else set())
        assert instance.get_run_by_id(run).status in allowed, "\n".join(chaos.fleet.said(run))
    assert_no_two_at_once(chaos)
    keys, client = chaos.fleet.broker.keys, chaos.fleet.broker.client

    def nothing_is_left() -> bool:
        snapshot = chaos.fleet.snapshot()
        busy = [q for q in snapshot.queues if q.backlog or q.claimed or q.running]
        return not (busy or client.scard(keys.name("open_runs")))

    chaos.fleet.wait_for(nothing_is_left, "nothing to be left", why)


def assert_no_two_at_once(chaos: Chaos) -> None:
    """No body of a step began while another of the same step was at work, and none began after
    one had ended well."""
    ended: set[tuple[str, str]] = set()
    at_work: dict[tuple[str, str], int] = {}
    for entry in sorted(chaos.ledger(), key=lambda entry: entry.at):
        step = (entry.run, entry.step)
        if entry.what == "end":
            ended.add(step)
            at_work.pop(step, None)
            continue
        assert step not in ended, f"{entry} began after it had ended well (SOAK_SEED={SEED})"
        at_work[step] = entry.pid
