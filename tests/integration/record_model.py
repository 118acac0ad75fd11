"""What the broker must know: sections 4 and 5 of the design as plain Python.

Queues are lists, records a dict, and every call of the broker is a method that changes them in the
same way. Whatever the server alone can decide (its clock, the order of a set) is told by the test.
"""

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from dagster_taskiq_kit.broker.records import MAX_DELIVERIES, Cancelled
from dagster_taskiq_kit.vocabulary.states import BANDS, OWNED, TERMINAL, TRANSITIONS, Kind, State

STAMPS = itertools.count()
QUEUES = ["a", "b"]
WORKERS = ["w1", "w2", "w3"]
RUNS = ["r1", "r2"]
LANES = {"steps": [Kind.STEP, Kind.TASK], "runs": [Kind.RUN]}
#: Each id has its kind and its run, as deterministic ids have.
MESSAGES = {
    **{f"run:{run}:{number}": (Kind.RUN, run) for run in RUNS for number in range(3)},
    **{f"step:{run}:{number}": (Kind.STEP, run) for run in RUNS for number in range(3)},
    "task:0": (Kind.TASK, ""),
}


@dataclass
class Modelled:
    """What the model knows of one record."""

    task_id: str
    queue: str
    band: int
    queued_at_ms: int
    state: State = State.QUEUED
    deliveries: int = 0
    owner: str | None = None
    worker: str | None = None
    handed_over: bool = False

    @property
    def kind(self):
        return MESSAGES[self.task_id][0]

    @property
    def run_id(self):
        return MESSAGES[self.task_id][1]

    @property
    def stream(self):
        return (self.queue, self.kind, self.band)

    @property
    def ended(self):
        """Whether nothing comes after it: what is lost and no run, is over."""
        return self.state in TERMINAL or (self.state is State.LOST and self.kind is not Kind.RUN)


@dataclass(frozen=True)
class Letter:
    """What the model knows of a dead letter."""

    task_id: str
    queue: str
    band: int


@dataclass
class Model:
    """What the server must know."""

    records: dict = field(default_factory=dict)
    streams: dict = field(default_factory=lambda: defaultdict(list))
    counters: Counter = field(default_factory=Counter)
    #: Observations in the histograms, by what, queue and kind.
    observed: Counter = field(default_factory=Counter)
    cancelled_runs: set = field(default_factory=set)
    letters: list = field(default_factory=list)
    paused: set = field(default_factory=set)
    rings: dict = field(default_factory=lambda: defaultdict(list))
    orders: dict = field(default_factory=lambda: defaultdict(Counter))
    #: Workers that stand in the registry.
    leases: set = field(default_factory=set)
    #: What a rescuer sees of each worker: how often it renewed or was given up, and a stamp that no
    #: other renewal has, also not one that the server has forgotten.
    renewals: dict = field(default_factory=lambda: defaultdict(lambda: (0, None)))
    #: By worker: how often in a row its renewals did not name a message.
    unnamed: dict = field(default_factory=lambda: defaultdict(dict))

    # -- what it is asked

    def owned(self, worker=None):
        return [
            record
            for record in self.records.values()
            if record.state in OWNED and worker in (None, record.worker)
        ]

    def of_owner(self, delivery):
        """Return the record, if this delivery is its owner's."""
        record = self.records.get(delivery.task_id)
        return record if record is not None and record.owner == delivery.token else None

    def open_messages(self):
        """Return what has not ended, by run."""
        found = defaultdict(set)
        for record in self.records.values():
            if record.run_id and not record.ended:
                found[record.run_id].add(record.task_id)
        return found

    def next_of(self, kinds, queues, *, oldest_first):
        """Return what a claim must take: the rules of design 4."""
        best = None
        open_queues = [queue for queue in queues if queue not in self.paused]
        for band in reversed(BANDS):
            for queue, kind in itertools.product(open_queues, kinds):
                if line := self.streams[queue, kind, band]:
                    head = self.records[line[0]]
                    if best is None or head.queued_at_ms < best.queued_at_ms:
                        best = head
            if best is not None and not oldest_first:
                return best
        return best

    # -- one record

    def count(self, event, record):
        self.counters[f"{event}|{record.queue}|{record.kind.value}"] += 1

    def move(self, record, state):
        assert state in TRANSITIONS[record.state]
        before = record.state
        if record.state is State.QUEUED:
            self.streams[record.stream].remove(record.task_id)
        record.state = state
        if state is State.QUEUED:
            self.streams[record.stream].append(record.task_id)
        elif state in OWNED:
            # Who holds something can be rescued.
            self.leases.add(record.worker)
        elif record.kind is Kind.STEP:
            self.rings[record.run_id].append((record.task_id, state.value.encode()))
        if (before, state) != (State.LOST, State.CRASHED):
            self.count(state.value, record)
        queue, kind = record.queue, record.kind.value
        if state is State.RUNNING:
            self.observed["wait", queue, kind] += 1
        elif before is State.RUNNING and state not in (State.QUEUED, State.LOST):
            self.observed["duration", queue, kind] += 1

    def create(self, record):
        """Queue a message that was not known, or had ended."""
        self.records[record.task_id] = record
        self.streams[record.stream].append(record.task_id)
        self.count("submitted", record)

    def claim(self, record, token, worker):
        record.owner, record.worker = token, worker
        record.deliveries += 1
        self.move(record, State.CLAIMED)

    def bury(self, record):
        self.letters.append(Letter(record.task_id, record.queue, record.band))
        self.count("dead", record)

    def give_back(self, record, *, counts):
        if counts and record.deliveries >= MAX_DELIVERIES:
            self.bury(record)
            self.move(record, State.REFUSED)
            return
        self.move(record, State.QUEUED)
        if counts:
            self.count("redelivered", record)
        else:
            record.deliveries -= 1

    def take(self, record, *, counts):
        """Take a record from a worker that does not hold it any more."""
        if record.state is State.CLAIMED:
            self.give_back(record, counts=counts)
        else:
            self.move(record, State.LOST)

    def restate(self, delivery, worker, queued_at_ms):
        """Believe a worker what it executes, if nobody else owns it; returns the verdict."""
        record = self.records.get(delivery.task_id)
        if record is None:
            record = Modelled(
                delivery.task_id, delivery.queue, delivery.band, queued_at_ms,
                deliveries=delivery.deliveries - 1,
            )  # fmt: skip
            self.records[record.task_id] = record
            self.streams[record.stream].append(record.task_id)
        if record.state is State.QUEUED:
            self.claim(record, delivery.token, worker)
        if record.owner != delivery.token or record.state not in OWNED:
            return "revoked"
        if record.state is State.CLAIMED:
            self.move(record, State.RUNNING)
        return "ok"

    # -- many records

    def cancel(self, run_id, *, whole):
        """Cancel a run's messages, or order their owners to; returns the answer."""
        meant = [
            record
            for record in self.records.values()
            if record.run_id == run_id and (whole or record.kind is Kind.STEP)
        ]
        removed = [r for r in meant if not r.ended and r.state not in OWNED]
        ordered = [r for r in meant if r.state in OWNED]
        if whole:
            self.cancelled_runs.add(run_id)
        for record in removed:
            self.move(record, State.CANCELLED)
        for record in ordered:
            self.orders[record.worker][record.task_id] += 1
        runs = sum(record.kind is Kind.RUN for record in ordered)
        return Cancelled(len(removed), len(ordered), runs)

    def renew(self, worker, named):
        """Renew a lease; returns the orders, and what must be taken from the worker."""
        self.leases.add(worker)
        self.renewals[worker] = (self.renewals[worker][0] + 1, next(STAMPS))
        orders = {
            task_id: order
            for task_id, holding in named.items()
            if (order := self._order(task_id, holding))
        }
        times = {
            record.task_id: self.unnamed[worker].get(record.task_id, 0) + 1
            for record in self.owned(worker)
            if record.task_id not in named
        }
        self.unnamed[worker] = {task_id: n for task_id, n in times.items() if n < 2}
        return orders, [self.records[task_id] for task_id, n in times.items() if n == 2]

    def _order(self, task_id, holding):
        record = self.records.get(task_id)
        if record is None or record.state is State.QUEUED:
            return "forgotten" if holding.began else "revoked"
        if record.owner != holding.token or record.state not in OWNED:
            return "revoked"
        if record.state is State.CLAIMED and holding.began:
            return "forgotten"
        return "cancel" if record.run_id in self.cancelled_runs else None

    def strip_the_silent(self, named, order):
        """Take from workers what they held, if they have not renewed since they were looked at.

        Args:
            named: Workers that are called silent, and what was seen of them.
            order: Task ids in the order in which the server took them.

        Returns:
            What must be told of it.
        """
        silent = [w for w, seen in named.items() if w in self.leases and self.renewals[w] == seen]
        taken = [record for worker in silent for record in self.owned(worker)]
        assert sorted(order) == sorted(record.task_id for record in taken)
        told = []
        for record in sorted(taken, key=lambda record: order.index(record.task_id)):
            self.take(record, counts=True)
            told.append((record.task_id, record.state, record.worker))
        for worker in silent:
            self.leases.discard(worker)
            times, stamp = self.renewals[worker]
            self.renewals[worker] = (times + 1, stamp)
            self.counters["worker_lost||"] += 1
            self.unnamed[worker].clear()
        return told

    def forget(self, task_id):
        record = self.records.pop(task_id)
        if record.state is State.QUEUED:
            self.streams[record.stream].remove(task_id)
