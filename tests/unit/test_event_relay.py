"""The worker's side of the event relay, before a database that is away, lies down and refuses."""

import asyncio
import itertools
import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_taskiq_kit.dagster_internals.event_rows import EventRow, NotNow
from dagster_taskiq_kit.host.process_group import wait_until
from dagster_taskiq_kit.worker import event_relay
from dagster_taskiq_kit.worker.event_relay import EventRelay


class Away(Exception):
    pass


class Database:
    """A log that stores all rows of a call or none, and may lose the answer."""

    def __init__(self, faults=()):
        self.log = []
        self.calls = 0
        self._faults = iter(faults)

    def go_together(self, one, other):
        return one.columns["plain"] and other.columns["plain"]

    def store(self, rows, *, again, may_store):
        self.calls += 1
        if not may_store():
            raise NotNow
        said = [(row.columns["key"], int(row.event)) for row in rows]
        fault = next(self._faults, "")
        if again and said[0] in self.log:
            return
        if fault == "before":
            raise Away
        if any(row.columns.get("bad") for row in rows):
            raise ValueError("refused")
        self.log += said
        if fault == "after":
            raise Away

    def answers(self):
        return False

    def is_of_an_outage(self, error):
        return isinstance(error, Away)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(event_relay, "_AWAY_S", 0.001)
    monkeypatch.setattr(event_relay, "_LEASE_S", 0.001)


def say(relay, key, *numbers, plain=True, bad=False):
    for number in numbers:
        columns = {"key": key, "plain": plain, "bad": bad, "dagster_event_type": None}
        relay.take(key, EventRow(columns, b"%d" % number).packed())


FAULTS = st.lists(st.sampled_from(["", "", "before", "after"]), max_size=30)


@settings(max_examples=60, deadline=None)
@given(
    faults=FAULTS,
    said=st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60),
)
def test_every_event_is_stored_once_and_in_order_whatever_the_database_does(faults, said):
    database = Database(faults)
    marks = []

    async def go():
        relay = EventRelay(database, None, lambda: True)
        for number, (key, plain) in enumerate(said):
            say(relay, key, number, plain=plain)
            if number % 7 == 0:
                # What a mark waits for is there when it is told.
                relay.when_stored(
                    key, lambda _, n=number, k=key: marks.append((k, n) in database.log)
                )
        for key in "abc":
            assert await asyncio.wait_for(relay.stored(key), 20) == ""

    asyncio.run(go())
    assert len(database.log) == len(set(database.log)) == len(said)
    for key in "abc":
        numbers = [number for k, number in database.log if k == key]
        assert numbers == sorted(numbers)
    assert all(marks)


def test_events_that_arrive_while_one_transaction_is_under_way_are_one_transaction():
    database = Database()

    async def go():
        relay = EventRelay(database, None, lambda: True)
        store, first = database.store, asyncio.Event()
        loop = asyncio.get_running_loop()
        free = threading.Event()

        def held(rows, *, again, may_store):
            loop.call_soon_threadsafe(first.set)
            free.wait(20)
            store(rows, again=again, may_store=may_store)

        database.store = held
        say(relay, "a", 0)
        await asyncio.wait_for(first.wait(), 20)
        say(relay, "a", *range(1, 100))
        free.set()
        await asyncio.wait_for(relay.stored("a"), 20)

    asyncio.run(go())
    assert database.calls == 2
    assert [number for _, number in database.log] == list(range(100))


def test_a_refused_event_stops_its_own_delivery_and_no_other():
    database = Database()

    async def go():
        relay = EventRelay(database, None, lambda: True)
        say(relay, "a", 1)
        say(relay, "b", 1)
        say(relay, "a", 2, bad=True)
        say(relay, "a", 3)
        say(relay, "b", 2)
        assert await asyncio.wait_for(relay.stored("a"), 20) == "refused"
        assert await asyncio.wait_for(relay.stored("b"), 20) == ""
        relay.forget("a")
        await asyncio.wait_for(relay.stored("b"), 20)
        assert await asyncio.wait_for(relay.stored("a"), 20) == ""

    asyncio.run(go())
    assert database.log == [("a", 1), ("b", 1), ("b", 2)]


def test_nothing_is_stored_while_the_lease_may_be_over_and_nothing_of_what_was_taken_away():
    database = Database()
    good = []

    async def go():
        relay = EventRelay(database, None, lambda: bool(good))
        say(relay, "taken", 1)
        say(relay, "ours", 1)
        waiting = asyncio.ensure_future(relay.stored("ours"))
        done, _ = await asyncio.wait([waiting], timeout=0.1)
        assert not done
        assert database.log == []
        relay.drop("taken")
        good.append(True)
        assert await asyncio.wait_for(waiting, 20) == ""
        say(relay, "taken", 2)
        await asyncio.wait_for(relay.stored("taken"), 20)

    asyncio.run(go())
    assert database.log == [("ours", 1)]


def test_what_is_dropped_while_the_database_is_away_is_not_stored_afterwards():
    away = []
    database = Database(itertools.chain(iter(lambda: "before" if not away else "", None)))

    async def go():
        relay = EventRelay(database, None, lambda: True)
        say(relay, "taken", 1)
        say(relay, "ours", 1)
        assert await asyncio.to_thread(wait_until, lambda: database.calls >= 3, 20)
        relay.drop("taken")
        away.append("no more")
        assert await asyncio.wait_for(relay.stored("ours"), 20) == ""

    asyncio.run(go())
    assert database.log == [("ours", 1)]


def test_an_answer_before_the_commit_would_be_seen():
    """The check of the first test, on a relay that answers before it stores: it must fail."""

    class Early(EventRelay):
        def when_stored(self, _key, then):
            self._loop.call_soon(then, "")

    database = Database(["before"] * 5)
    seen = []

    async def go():
        relay = Early(database, None, lambda: True)
        for number in range(random.randint(5, 20)):
            say(relay, "a", number)
            relay.when_stored("a", lambda _, n=number: seen.append(("a", n) in database.log))
            await asyncio.sleep(0)
        await EventRelay.stored(relay, "a")

    asyncio.run(go())
    assert not all(seen)
