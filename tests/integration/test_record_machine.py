"""Records on a real server against a model: any sequence of calls, from any owner, old or new.

The model is the design's sections 4 and 5 in Python: lists for queues, a dict for records. After
every call, everything that the server keeps is compared with it.
"""

import itertools
import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dagster_taskiq_kit.broker import readings, records, worker_cards
from dagster_taskiq_kit.broker.connection import SyncConnection
from dagster_taskiq_kit.broker.records import MAX_DELIVERIES, Cancelled, Delivery, NothingWaits
from dagster_taskiq_kit.broker.worker_cards import Holding, WorkerCard
from dagster_taskiq_kit.errors import UnfitServer
from dagster_taskiq_kit.health.snapshot import read_snapshot
from dagster_taskiq_kit.settings import TaskiqSettings
from dagster_taskiq_kit.states import (
    BANDS,
    OWNED,
    TERMINAL,
    TRANSITIONS,
    Kind,
    State,
    band_of_priority,
)

DAY_S = 86_400
QUEUES = ["a", "b"]
WORKERS = ["w1", "w2", "w3"]
RUNS = ["r1", "r2"]
LANES = {"steps": [Kind.STEP, Kind.TASK], "runs": [Kind.RUN]}
#: Each id has its kind and its run, as deterministic ids have.
MESSAGES = {
    **{f"run:{run}:{number}": (Kind.RUN, run) for run in RUNS for number in range(2)},
    **{f"step:{run}:{number}": (Kind.STEP, run) for run in RUNS for number in range(4)},
    **{f"task:{number}": (Kind.TASK, "") for number in range(2)},
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


@dataclass
class Model:
    """What the server must know."""

    records: dict = field(default_factory=dict)
    streams: dict = field(default_factory=lambda: defaultdict(list))
    counters: Counter = field(default_factory=Counter)
    cancelled_runs: set = field(default_factory=set)
    dead: list = field(default_factory=list)
    rings: dict = field(default_factory=lambda: defaultdict(list))
    orders: dict = field(default_factory=lambda: defaultdict(Counter))

    def count(self, event, record):
        self.counters[f"{event}|{record.queue}|{record.kind.value}"] += 1

    def move(self, record, state):
        assert state in TRANSITIONS[record.state]
        if record.state is State.QUEUED:
            self.streams[record.stream].remove(record.task_id)
        record.state = state
        if state is State.QUEUED:
            self.streams[record.stream].append(record.task_id)
        elif state not in OWNED and record.kind is Kind.STEP:
            self.rings[record.run_id].append((record.task_id, state.value))
        self.count(state.value, record)

    def bury(self, record):
        self.dead.append(record.task_id)
        self.count("dead", record)

    def next_of(self, kinds, queues, *, oldest_first):
        """Return what a claim must take: the rules of design 4."""
        best = None
        for band in reversed(BANDS):
            for queue, kind in itertools.product(queues, kinds):
                if line := self.streams[queue, kind, band]:
                    head = self.records[line[0]]
                    if best is None or head.queued_at_ms < best.queued_at_ms:
                        best = head
            if best is not None and not oldest_first:
                return best
        return best


class RecordMachine(RuleBasedStateMachine):
    """Calls in any order; set ``url`` before it is run."""

    url = ""
    deliveries = Bundle("deliveries")

    def __init__(self):
        super().__init__()
        namespace = f"machine-{uuid.uuid4().hex[:12]}"
        self.connection = SyncConnection(
            TaskiqSettings.resolve({"url": self.url, "namespace": namespace})
        )
        self.model = Model()
        self.tokens = itertools.count()
        self.again = None

    def teardown(self):
        client, prefix = self.connection.client, self.connection.keys.prefix
        if names := list(client.scan_iter(f"{prefix}:*")):
            client.delete(*names)
        self.connection.close()

    def call(self, call, repeated=None):
        """Make a call, and keep it with the answer that its repetition must get."""
        answer = self.connection.run(call)
        self.again = (call, (repeated or (lambda first: first))(answer))
        return answer

    def key(self, family, *parts):
        return self.connection.keys.name(family, *parts)

    def read_all(self, command, *names, arguments=()):
        """Read keys in one round trip."""
        pipe = self.connection.client.pipeline(transaction=False)
        for name in names:
            getattr(pipe, command)(self.key(*name), *arguments)
        return pipe.execute()

    def of_owner(self, delivery):
        """Return the record, if this delivery is its owner's."""
        record = self.model.records[delivery.task_id]
        return record if record.owner == delivery.token else None

    # -- what can happen

    @rule(
        task_id=st.sampled_from(list(MESSAGES)),
        queue=st.sampled_from(QUEUES),
        priority=st.integers(-2, 12),
    )
    def submit(self, task_id, queue, priority):
        kind, run_id = MESSAGES[task_id]
        answer = self.call(
            records.submit(
                task_id=task_id, kind=kind, queue=queue, priority=priority, run_id=run_id,
                payload=b"payload", outcome_ttl_s=DAY_S,
            ),
            lambda first: records.Submitted(False, first.state),
        )  # fmt: skip
        known = self.model.records.get(task_id)
        assert answer.created == (known is None)
        if known is None:
            stands = readings.fetch(self.connection, task_id)
            record = Modelled(task_id, queue, band_of_priority(priority), stands.queued_at_ms)
            self.model.records[task_id] = known = record
            self.model.streams[record.stream].append(task_id)
            self.model.count("queued", record)
            if run_id in self.model.cancelled_runs:
                self.model.move(record, State.CANCELLED)
        assert answer.state is known.state

    @rule(
        target=deliveries,
        worker=st.sampled_from(WORKERS),
        lane=st.sampled_from(list(LANES)),
        queues=st.sampled_from([["a"], ["b"], ["a", "b"], ["b", "a"]]),
        oldest_first=st.booleans(),
    )
    def claim(self, worker, lane, queues, oldest_first):
        expected = self.model.next_of(LANES[lane], queues, oldest_first=oldest_first)
        token = f"{worker}#{next(self.tokens)}"
        answer = self.call(
            records.claim(
                worker_id=worker, lane=lane, token=token, kinds=LANES[lane], queues=queues,
                oldest_first=oldest_first,
            )
        )  # fmt: skip
        if expected is None:
            assert isinstance(answer, NothingWaits)
            return Delivery("", "", Kind.TASK, "", "", b"", 0, 0, False, 0)
        assert isinstance(answer, Delivery)
        assert answer.task_id == expected.task_id
        self.model.move(expected, State.CLAIMED)
        expected.owner, expected.worker = token, worker
        expected.deliveries += 1
        assert (answer.token, answer.queue, answer.kind) == (token, expected.queue, expected.kind)
        assert (answer.run_id, answer.payload) == (expected.run_id, b"payload")
        assert (answer.deliveries, answer.handed_over) == (
            expected.deliveries,
            expected.handed_over,
        )
        return answer

    @rule(delivery=deliveries.filter(lambda d: d.task_id))
    def begin(self, delivery):
        answer = self.call(records.begin(delivery.task_id, delivery.token, DAY_S))
        record = self.of_owner(delivery)
        if record is None:
            assert answer == "revoked"
        elif record.state is State.CLAIMED and record.run_id in self.model.cancelled_runs:
            self.model.move(record, State.CANCELLED)
            assert answer == "cancelled"
        elif record.state is State.CLAIMED:
            self.model.move(record, State.RUNNING)
            assert answer == "ok"
        else:
            verdicts = {State.RUNNING: "ok", State.CANCELLED: "cancelled"}
            assert answer == verdicts.get(record.state, "revoked")

    @rule(
        delivery=deliveries.filter(lambda d: d.task_id),
        outcome=st.sampled_from([*sorted(TERMINAL), State.LOST]),
        buried=st.booleans(),
    )
    def finish(self, delivery, outcome, buried):
        reason = "because" if buried and outcome is State.REFUSED else ""
        call = records.finish(delivery.task_id, delivery.token, outcome, {"n": 1}, DAY_S, reason)
        record = self.of_owner(delivery)
        if record is None or not (record.state in OWNED or record.state is outcome):
            assert self.call(call) == "revoked"
        elif record.state is outcome:
            assert self.call(call) == "ok"
        elif outcome in TRANSITIONS[record.state]:
            assert self.call(call) == "ok"
            if reason:
                self.model.bury(record)
            self.model.move(record, outcome)
        else:
            with pytest.raises(UnfitServer, match="illegal transition"):
                self.call(call)

    @rule(delivery=deliveries.filter(lambda d: d.task_id), counts=st.booleans())
    def requeue(self, delivery, counts):
        answer = self.call(
            records.requeue(delivery.task_id, delivery.token, "died", DAY_S, counts=counts)
        )
        record = self.of_owner(delivery)
        if record is not None and record.state in (State.QUEUED, State.REFUSED):
            assert answer == record.state.value  # asked before
            return
        handed_over = record is not None and (record.state, record.kind) == (
            State.RUNNING,
            Kind.RUN,
        )
        if record is None or not (record.state is State.CLAIMED or handed_over):
            assert answer == "revoked"
        elif counts and record.deliveries >= MAX_DELIVERIES:
            assert answer == "refused"
            self.model.bury(record)
            self.model.move(record, State.REFUSED)
        else:
            assert answer == "queued"
            self.model.move(record, State.QUEUED)
            record.handed_over |= handed_over
            if counts:
                self.model.count("redelivered", record)
            else:
                record.deliveries -= 1

    @rule(run_id=st.sampled_from(RUNS), whole=st.booleans())
    def cancel(self, run_id, whole):
        removed, ordered = [], []
        for record in self.model.records.values():
            if record.run_id == run_id and (whole or record.kind is Kind.STEP):
                if record.state is State.QUEUED:
                    removed.append(record)
                elif record.state in OWNED:
                    ordered.append(record)
        runs = sum(record.kind is Kind.RUN for record in ordered)
        answer = self.call(
            records.cancel(run_id, whole_run=whole, outcome_ttl_s=DAY_S),
            lambda first: Cancelled(0, first.ordered, first.runs_ordered),
        )
        assert answer == Cancelled(len(removed), len(ordered), runs)
        if whole:
            self.model.cancelled_runs.add(run_id)
        for record in removed:
            self.model.move(record, State.CANCELLED)
        for record in ordered:
            self.model.orders[record.worker][record.task_id] += 1

    @rule(worker=st.sampled_from(WORKERS), others=st.sets(deliveries, max_size=2))
    def renew(self, worker, others):
        held = {
            record.task_id: record.owner
            for record in self.model.records.values()
            if record.worker == worker and record.state in OWNED
        }
        held |= {delivery.task_id: delivery.token for delivery in others if delivery.task_id}
        named = {task_id: Holding(token, began=False) for task_id, token in held.items()}
        expected = {}
        for task_id, token in held.items():
            record = self.model.records[task_id]
            if record.owner != token or record.state not in OWNED:
                expected[task_id] = "revoked"
            elif record.run_id in self.model.cancelled_runs:
                expected[task_id] = "cancel"
        card = WorkerCard(worker, worker, "h", 1, QUEUES, 3, 1, ["code"])
        assert self.call(worker_cards.renew(card, 15.0, named, "instance", DAY_S)) == expected

    @precondition(lambda self: self.again is not None)
    @rule()
    def repeat_the_last_call_because_its_reply_was_lost(self):
        call, first_answer = self.again
        if call.script == "cancel":  # it orders again; an order may be heard twice
            run_id, whole, _ = call.arguments
            for record in self.model.records.values():
                meant = record.run_id == run_id and (whole == "1" or record.kind is Kind.STEP)
                if meant and record.state in OWNED:
                    self.model.orders[record.worker][record.task_id] += 1
        assert self.connection.run(call) == first_answer

    # -- what must hold after each of it

    @invariant()
    def every_record_is_what_the_model_says(self):
        known = self.model.records
        hashes = self.read_all("hgetall", *(("record", task_id) for task_id in known))
        for record, fields in zip(known.values(), hashes, strict=True):
            stands = readings.read_record(record.task_id, fields)
            assert (stands.state, stands.deliveries) == (record.state, record.deliveries)
            assert (stands.queue, stands.band) == (record.queue, record.band)
            assert (stands.worker, stands.queued_at_ms) == (record.worker, record.queued_at_ms)
            assert record.deliveries <= MAX_DELIVERIES or record.state is not State.QUEUED

    @invariant()
    def every_queued_record_has_exactly_one_stream_entry_in_its_place(self):
        places = list(itertools.product(QUEUES, Kind, BANDS))
        names = [("stream", queue, kind.value, str(band)) for queue, kind, band in places]
        streams = self.read_all("xrange", *names)
        found = {
            place: [fields[b"id"].decode() for _, fields in entries]
            for place, entries in zip(places, streams, strict=True)
        }
        expected = {place: self.model.streams[place] for place in places}
        assert found == expected
        backlog = sum(queue.backlog for queue in read_snapshot(self.connection).queues)
        queued = [r for r in self.model.records.values() if r.state is State.QUEUED]
        assert backlog == len(queued)

    @invariant()
    def what_is_owned_stands_once_among_claimed_or_running_and_with_its_one_worker(self):
        owned = [r for r in self.model.records.values() if r.state in OWNED]
        places = [(state.value, queue) for state in OWNED for queue in QUEUES]
        scored = self.read_all("zrange", *places, arguments=(0, -1))
        for (state, queue), members in zip(places, scored, strict=True):
            assert {member.decode() for member in members} == {
                r.task_id for r in owned if (r.state.value, r.queue) == (state, queue)
            }
        held = self.read_all("smembers", *(("held", worker) for worker in WORKERS))
        for worker, members in zip(WORKERS, held, strict=True):
            assert {member.decode() for member in members} == {
                r.task_id for r in owned if r.worker == worker
            }

    @invariant()
    def counters_dead_letters_bells_and_orders_tell_what_happened(self):
        client = self.connection.client
        counters = client.hgetall(self.key("counters"))
        assert {name.decode(): int(n) for name, n in counters.items()} == dict(self.model.counters)
        dead = [fields[b"id"].decode() for _, fields in client.xrange(self.key("dead"))]
        assert dead == self.model.dead
        alive = [r for r in self.model.records.values() if r.state in (*OWNED, State.QUEUED)]
        open_ids = self.read_all("smembers", *(("run", run_id) for run_id in RUNS))
        for run_id, members in zip(RUNS, open_ids, strict=True):
            assert {member.decode() for member in members} == {
                r.task_id for r in alive if r.run_id == run_id
            }
        # A cancel ends the messages of a run in the order of a set: only the counts are promised.
        bells = self.read_all("xrange", *(("bell", run_id) for run_id in RUNS))
        for run_id, entries in zip(RUNS, bells, strict=True):
            heard = Counter((f[b"id"].decode(), f[b"state"].decode()) for _, f in entries)
            assert heard == Counter(self.model.rings[run_id])
        orders = self.read_all("xrange", *(("orders", worker) for worker in WORKERS))
        for worker, entries in zip(WORKERS, orders, strict=True):
            given = Counter(fields[b"id"].decode() for _, fields in entries)
            assert given == self.model.orders[worker]


@pytest.fixture
def machine_class(broker_url):
    class Machine(RecordMachine):
        url = broker_url

    return Machine


def test_any_sequence_of_calls_leaves_what_the_design_says(machine_class):
    run_state_machine_as_test(
        machine_class,
        settings=settings(
            max_examples=50,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_three_deaths_are_one_dead_letter_also_when_every_reply_is_lost(machine_class):
    machine = machine_class()
    repeat = machine.repeat_the_last_call_because_its_reply_was_lost
    machine.submit(task_id="step:r1:0", queue="a", priority=5)
    repeat()
    for worker in WORKERS:
        delivery = machine.claim(worker=worker, lane="steps", queues=["a"], oldest_first=False)
        repeat()
        machine.requeue(delivery=delivery, counts=True)
        repeat()
    assert machine.model.dead == ["step:r1:0"]
    machine.every_record_is_what_the_model_says()
    machine.every_queued_record_has_exactly_one_stream_entry_in_its_place()
    machine.what_is_owned_stands_once_among_claimed_or_running_and_with_its_one_worker()
    machine.counters_dead_letters_bells_and_orders_tell_what_happened()
    machine.teardown()
