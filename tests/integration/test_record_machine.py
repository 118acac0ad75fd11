"""Records on a real server against a model: any sequence of calls, from any owner, old or new.

The model is in ``record_model.py``, the comparison after every call in ``record_checks.py``. At the
end all that is open is brought to an end, as a fleet would.
"""

import copy
import dataclasses
import itertools
import sys

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from record_checks import PAYLOAD, AgreesWithTheModel
from record_model import LANES, MESSAGES, QUEUES, RUNS, WORKERS, Modelled

from dagster_taskiq_kit.broker import dead_letters, leases, readings, records, worker_cards
from dagster_taskiq_kit.broker.leases import Silent
from dagster_taskiq_kit.broker.records import MAX_DELIVERIES, NothingWaits
from dagster_taskiq_kit.broker.worker_cards import Holding, WorkerCard
from dagster_taskiq_kit.vocabulary.errors import UnfitServer
from dagster_taskiq_kit.vocabulary.states import (
    OWNED,
    TERMINAL,
    TRANSITIONS,
    Kind,
    State,
    band_of_priority,
)

#: No lease ends by itself while a sequence runs.
LONG_S = 3_600.0
ANY_QUEUES = [["a", "b"], ["b", "a"], ["a"], ["b"]]
ids, workers, queues = (st.sampled_from(names) for names in (list(MESSAGES), WORKERS, QUEUES))
priorities = st.sampled_from([-2, 5, 5, 6, 12])


def chosen(options):
    """Draw one of what the machine offers at that moment."""
    return st.runner().flatmap(lambda machine: st.sampled_from(options(machine)))


#: A delivery that was once given: often one that is good still, often an old one.
deliveries = chosen(lambda machine: machine.current() * 2 + machine.given[-8:])
any_deliveries = st.lists(chosen(lambda machine: machine.given[-8:] or [None]), max_size=2)
something_was_given = precondition(lambda machine: machine.given)
something_is_known = precondition(lambda machine: machine.model.records)
something_is_dead = precondition(lambda machine: machine.model.letters)
known_ids = chosen(lambda machine: list(machine.model.records))
letters = chosen(lambda machine: range(len(machine.model.letters)))


class RecordMachine(AgreesWithTheModel):
    """Calls in any order; set ``url`` before it is run."""

    def __init__(self):
        super().__init__()
        self.tokens = itertools.count()
        self.given = []
        self.again = None
        self.disk = None
        self.looks = []

    def teardown(self):
        try:
            if sys.exc_info()[0] is None:
                self.drain()
        finally:
            if names := self.all_keys():
                self.client.delete(*names)
            self.connection.close()

    def call(self, call, repeated=lambda first: first):
        """Make a call, and keep it with what says which answer its repetition must get."""
        answer = self.connection.run(call)
        self.again = (call, lambda: repeated(answer))
        return answer

    def current(self):
        """Return the deliveries whose owner still owns what was delivered."""
        owners = {record.owner for record in self.model.owned()}
        return [delivery for delivery in self.given if delivery.token in owners]

    # -- producers and operators

    @initialize(
        work=st.lists(
            st.tuples(ids, queues, workers, st.integers(0, 3), st.integers(0, 4)),
            min_size=4,
            max_size=10,
            unique_by=lambda work: work[0],
        )
    )
    def a_fleet_is_at_work(self, work):
        """Without this, most sequences would end before anything runs."""
        for task_id, queue, worker, deaths, progress in work:
            self.submit(task_id, queue, 5)
            lane = "runs" if MESSAGES[task_id][0] is Kind.RUN else "steps"
            for _ in range(deaths):
                if delivery := self.take(worker, lane, [queue]):
                    self.requeue(delivery, counts=True)
            if progress and (delivery := self.take(worker, lane, [queue])):
                if progress > 1:
                    self.begin(delivery)
                if progress > 3:
                    self.finish(delivery, State.LOST)

    @rule(task_id=ids, queue=queues, priority=priorities)
    def submit(self, task_id, queue, priority, before=""):
        kind, run_id = MESSAGES[task_id]
        answer = self.call(
            records.submit(
                task_id=task_id, kind=kind, queue=queue, priority=priority, run_id=run_id,
                payload=PAYLOAD, supersedes=before,
            ),
            lambda first: records.Submitted(False, first.state),
        )  # fmt: skip
        known = self.model.records.get(task_id)
        assert answer.created == (known is None)
        if known is None:
            superseded = self.model.records.get(before)
            if superseded is not None and superseded.state is State.LOST:
                self.model.move(superseded, State.CRASHED)
            known = Modelled(task_id, queue, band_of_priority(priority), self.queued_at(task_id))
            self.model.create(known)
            if run_id in self.model.cancelled_runs:
                self.model.move(known, State.CANCELLED)
        assert answer.state is known.state

    @precondition(lambda self: self.resumable())
    @rule(task_id=chosen(lambda machine: machine.resumable()), queue=queues)
    def resume_a_run(self, task_id, queue):
        stem, number = task_id[:-1], int(task_id[-1])
        self.submit(f"{stem}{number + 1}", queue, 5, before=task_id)

    def resumable(self):
        """Return runs, preferably lost ones, that a later execution can take the place of."""
        known = self.model.records.values()
        runs = [r for r in known if r.kind is Kind.RUN and not r.task_id.endswith(":2")]
        return [r.task_id for r in runs if r.state is State.LOST] or [r.task_id for r in runs]

    def queued_at(self, task_id):
        """Return what only the server's clock knows.

        It waits for the next millisecond: of two that were queued in the same one, chance would
        decide which is older, and a sequence would not be the same when it is tried again.
        """
        queued_at_ms = readings.fetch(self.connection, task_id).queued_at_ms
        while readings.server_time_ms(self.connection) <= queued_at_ms:
            pass
        return queued_at_ms

    @something_is_known
    @rule(run_id=st.sampled_from(RUNS), whole=st.sampled_from([False, False, True]))
    def cancel(self, run_id, whole):
        answer = self.call(
            records.cancel(run_id, whole_run=whole),
            # It orders again; an order may be heard twice.
            lambda _: self.model.cancel(run_id, whole=whole),
        )
        assert answer == self.model.cancel(run_id, whole=whole)

    @something_is_known
    @rule(task_id=known_ids.filter(lambda task_id: MESSAGES[task_id][0] is Kind.RUN))
    def revive(self, task_id):
        record = self.model.records[task_id]
        if record.state is State.LOST and record.deliveries >= MAX_DELIVERIES:
            self.model.bury(record)
            self.model.move(record, State.CRASHED)
        elif record.state is State.LOST:
            self.model.give_back(record, counts=True)
        assert self.call(records.revive(task_id, "lost")) is record.state

    @something_is_dead
    @rule(index=letters)
    def requeue_a_dead_letter(self, index):
        letter = self.model.letters[index]
        call = dead_letters.requeue(self.entry_of(index))
        answer = self.call(call, lambda first: "none" if first == "queued" else first)
        known = self.model.records.get(letter.task_id)
        if known is not None and known.state not in TERMINAL:
            assert answer == "alive"
            return
        assert answer == "queued"
        del self.model.letters[index]
        self.model.create(
            Modelled(letter.task_id, letter.queue, letter.band, self.queued_at(letter.task_id))
        )

    @something_is_dead
    @rule(indexes=st.sets(letters, max_size=2))
    def purge_dead_letters(self, indexes):
        entries = [self.entry_of(index) for index in indexes]
        assert self.connection.run(dead_letters.purge(entries)) == len(entries)
        assert self.connection.run(dead_letters.purge(entries)) == 0
        kept = [letter for n, letter in enumerate(self.model.letters) if n not in indexes]
        self.model.letters = kept
        self.again = None

    def entry_of(self, index):
        return dead_letters.read_all(self.connection)[::-1][index].entry_id

    @rule(queue=queues, paused=st.sampled_from([True, False, False]))
    def pause(self, queue, paused):
        changed = (queue in self.model.paused) != paused
        call = records.pause(queue, paused=paused)
        assert self.call(call, lambda _first: False) == changed
        (self.model.paused.add if paused else self.model.paused.discard)(queue)

    # -- workers

    @precondition(lambda self: any(self.model.streams.values()))
    @rule(
        worker=workers,
        lane=st.sampled_from(list(LANES)),
        queues=st.sampled_from(ANY_QUEUES),
        oldest_first=st.booleans(),
        begins=st.booleans(),
    )
    def claim(self, worker, lane, queues, oldest_first, begins):
        delivery = self.take(worker, lane, queues, oldest_first=oldest_first)
        if delivery is not None and begins:
            self.begin(delivery)

    def take(self, worker, lane, queues, *, oldest_first=False):
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
            return None
        assert answer.task_id == expected.task_id
        self.model.claim(expected, token, worker)
        assert (answer.token, answer.queue, answer.kind) == (token, expected.queue, expected.kind)
        assert (answer.run_id, answer.payload) == (expected.run_id, PAYLOAD)
        assert (answer.deliveries, answer.band) == (expected.deliveries, expected.band)
        assert answer.handed_over == expected.handed_over
        self.given.append(answer)
        return answer

    @something_was_given
    @rule(delivery=deliveries)
    def begin(self, delivery):
        answer = self.call(records.begin(delivery.task_id, delivery.token))
        record = self.model.of_owner(delivery)
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

    @something_was_given
    @rule(
        delivery=deliveries,
        outcome=st.sampled_from([*sorted(TERMINAL), State.LOST, State.LOST]),
        buried=st.booleans(),
    )
    def finish(self, delivery, outcome, *, buried=False):
        reason = "because" if buried and outcome is State.REFUSED else ""
        call = records.finish(delivery.task_id, delivery.token, outcome, {"n": 1}, reason)
        record = self.model.of_owner(delivery)
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

    @something_was_given
    @rule(delivery=deliveries, counts=st.booleans())
    def requeue(self, delivery, counts):
        answer = self.call(records.requeue(delivery.task_id, delivery.token, "died", counts=counts))
        record = self.model.of_owner(delivery)
        if record is not None and record.state in (State.QUEUED, State.REFUSED):
            assert answer == record.state.value  # asked before
            return
        executes = record is not None and record.state is State.RUNNING
        handed_over = executes and record.kind is Kind.RUN
        if record is None or not (record.state is State.CLAIMED or handed_over):
            assert answer == "revoked"
            return
        record.handed_over |= handed_over
        if handed_over:
            record.queued_at_ms = self.queued_at(record.task_id)
        self.model.give_back(record, counts=counts)
        assert answer == record.state.value

    @rule(
        worker=workers,
        omits=st.sampled_from(["nothing", "nothing", "all", "claimed"]),
        others=any_deliveries,
        all_began=st.booleans(),
        times=st.sampled_from([1, 2]),
    )
    def renew(self, worker, omits, others, all_began, times):
        """What it knows of, what it has forgotten, and what it should not hold any more."""
        omitted = {"nothing": (), "claimed": (State.CLAIMED,), "all": OWNED}[omits]
        named = {
            record.task_id: Holding(record.owner, all_began or record.state is State.RUNNING)
            for record in self.model.owned(worker)
            if record.state not in omitted
        }
        named |= {other.task_id: Holding(other.token, all_began) for other in others if other}
        card = WorkerCard(worker, worker, "host", 1, QUEUES, 3, 1, ["code"])
        call = worker_cards.renew(card, LONG_S, named, "instance")

        def expected():
            orders, taken = self.model.renew(worker, named)
            for record in sorted(taken, key=self.place_in_stream):
                self.model.take(record, counts=False)
            return orders

        for _ in range(times):
            assert self.call(call, lambda _: expected()) == expected()

    def place_in_stream(self, record):
        """Return what only the server knows: what it takes at once, it takes in any order."""
        entry = self.client.hget(self.key("record", record.task_id), "entry") or b"0-0"
        return [int(part) for part in entry.split(b"-")]

    @something_was_given
    @rule(delivery=deliveries)
    def restate(self, delivery):
        worker = delivery.token.partition("#")[0]
        # As if it had been claimed at once, for the same reason: see queued_at.
        answer = self.call(records.restate(dataclasses.replace(delivery, waited_ms=0), worker))
        assert answer == self.model.restate(delivery, worker, self.queued_at(delivery.task_id))

    @rule()
    def look_at_renewals(self):
        """What a rescuer sees, which may be old when it acts by it."""
        seen = self.connection.run(leases.leases())
        assert set(seen.renewals) == self.model.leases
        self.looks.append((seen, {w: self.model.renewals[w] for w in seen.renewals}))

    @precondition(lambda self: self.looks)
    @rule(
        look=chosen(lambda machine: machine.looks[-3:]),
        named=st.sets(workers, min_size=1),
        late=st.sampled_from([None, None, None, "stuck on its way", "the clock was set back"]),
    )
    def rescue(self, look, named, late=None):
        seen, modelled = look
        silent = [Silent(w, seen.renewals[w], 15.0) for w in named if w in seen.renewals]
        at_ms, most_s = seen.at_ms, LONG_S
        if late:
            at_ms += -LONG_S * 1000 if late == "stuck on its way" else LONG_S * 1000
            most_s = LONG_S / 2
        answer = self.call(leases.rescue(silent, at_ms, most_s), lambda first: first and [])
        if late:
            assert answer is None
            return
        named = {each.worker_id: modelled[each.worker_id] for each in silent}
        told = self.model.strip_the_silent(named, [rescued.task_id for rescued in answer])
        assert [(r.task_id, r.state, r.worker_id) for r in answer] == told
        for rescued in answer:
            if rescued.state is not State.QUEUED:
                stands = readings.fetch(self.connection, rescued.task_id)
                assert rescued.worker_id in stands.detail["reason"]

    @rule(worker=workers)
    def retire(self, worker):
        held = len(self.model.owned(worker))
        assert self.call(worker_cards.retire(worker)) == held
        if not held:
            self.model.leases.discard(worker)
            self.model.renewals.pop(worker, None)
            self.model.orders[worker].clear()
            self.model.unnamed[worker].clear()

    # -- what goes wrong between them

    @precondition(lambda self: self.again is not None)
    @rule()
    def repeat_the_last_call_because_its_reply_was_lost(self):
        call, expected = self.again
        answer = self.connection.run(call)
        assert answer == expected()

    @something_is_known
    @rule(task_id=known_ids)
    def the_server_forgets_a_message(self, task_id):
        record = self.model.records[task_id]
        pipe = self.client.pipeline()
        if entry := self.client.hget(self.key("record", task_id), "entry"):
            band = str(record.band)
            pipe.xdel(self.key("stream", record.queue, record.kind.value, band), entry)
            pipe.zrem(self.key("waiting", record.queue, record.kind.value), task_id)
        for state in OWNED:
            pipe.zrem(self.key(state.value, record.queue), task_id)
        for worker in WORKERS:
            pipe.srem(self.key("held", worker), task_id)
        self.model.forget(task_id)
        if record.run_id:
            pipe.srem(self.key("run", record.run_id), task_id)
            if record.run_id not in self.model.open_messages():
                pipe.srem(self.key("open_runs"), record.run_id)
        pipe.delete(self.key("record", task_id))
        pipe.execute()
        self.again = None

    @something_is_known
    @rule()
    def all_is_on_disk(self):
        names = self.all_keys()
        pipe = self.client.pipeline()
        for name in names:
            pipe.dump(name).pttl(name)
        answers = pipe.execute()
        kept = list(zip(names, answers[::2], answers[1::2], strict=True))
        self.disk = (kept, copy.deepcopy(self.model))

    @precondition(lambda self: self.disk is not None)
    @rule()
    def the_server_crashes_and_comes_back_with_what_is_on_disk(self):
        kept, model = self.disk
        pipe = self.client.pipeline()
        for name in self.all_keys():
            pipe.delete(name)
        for name, value, ttl_ms in kept:
            pipe.restore(name, max(ttl_ms, 0), value)
        pipe.execute()
        self.model = copy.deepcopy(model)
        self.again = None

    # -- the end

    def drain(self):
        """Everybody dies, and one worker goes on with all that is left."""
        self.look_at_renewals()
        self.rescue(self.looks[-1], set(WORKERS))
        for task_id in [r.task_id for r in self.model.records.values() if r.state is State.LOST]:
            if MESSAGES[task_id][0] is Kind.RUN:
                self.revive(task_id)
        for queue in sorted(self.model.paused):
            self.pause(queue, False)
        while any(self.model.streams.values()):
            for lane in LANES:
                delivery = self.take(WORKERS[0], lane, QUEUES)
                if delivery is not None:
                    self.begin(delivery)
                    self.finish(delivery, State.SUCCEEDED)
        self.check_everything()
        assert all(record.ended for record in self.model.records.values())
        for family, *parts in [("open_runs",), *((s.value, q) for s in OWNED for q in QUEUES)]:
            assert not self.client.exists(self.key(family, *parts))
        assert not self.client.exists(*(self.key("held", worker) for worker in WORKERS))


@pytest.fixture
def machine_class(broker_url):
    class Machine(RecordMachine):
        url = broker_url

    return Machine


def test_any_sequence_of_calls_leaves_what_the_design_says(machine_class):
    run_state_machine_as_test(
        machine_class,
        settings=settings(
            max_examples=80,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # shrinking takes longer than a test may
        ),
    )


def test_three_deaths_are_one_dead_letter_also_when_every_reply_is_lost(machine_class):
    machine = machine_class()
    repeat = machine.repeat_the_last_call_because_its_reply_was_lost
    machine.submit("step:r1:0", "a", 5)
    repeat()
    for worker in WORKERS:
        delivery = machine.take(worker, "steps", ["a"])
        repeat()
        machine.requeue(delivery, counts=True)
        repeat()
    assert [letter.task_id for letter in machine.model.letters] == ["step:r1:0"]
    machine.check_everything()
    machine.teardown()


def test_what_a_retired_worker_claims_by_a_late_call_is_handed_out_again(machine_class):
    machine = machine_class()
    machine.submit("step:r1:0", "a", 5)
    machine.retire("w1")
    machine.take("w1", "steps", ["a"])
    machine.look_at_renewals()
    machine.rescue(machine.looks[-1], {"w1"})
    assert machine.take("w2", "steps", ["a"]).task_id == "step:r1:0"
    machine.check_everything()
    machine.teardown()


def test_a_dead_letter_stays_while_a_message_of_its_id_is_alive(machine_class):
    machine = machine_class()
    machine.submit("run:r1:0", "a", 5)
    machine.finish(machine.take("w1", "runs", ["a"]), State.REFUSED, buried=True)
    machine.the_server_forgets_a_message("run:r1:0")
    machine.submit("run:r1:0", "b", 5)
    machine.requeue_a_dead_letter(0)
    delivery = machine.take("w1", "runs", ["b"])
    machine.begin(delivery)
    for end in (lambda: None, lambda: machine.finish(delivery, State.LOST)):
        end()
        machine.requeue_a_dead_letter(0)
        assert machine.model.letters
        machine.check_everything()
    machine.cancel("r1", whole=True)
    machine.requeue_a_dead_letter(0)
    assert not machine.model.letters
    machine.check_everything()
    machine.teardown()
