"""The broker on a real server: one owner, exact order, idempotent calls, nothing hoarded."""

import itertools
import json
import subprocess
import sys
import threading
import time

import pytest

from dagster_taskiq_kit.broker import guards, readings, records, worker_cards
from dagster_taskiq_kit.broker.bells import Bell
from dagster_taskiq_kit.broker.connection import SyncConnection
from dagster_taskiq_kit.broker.histograms import read_histograms
from dagster_taskiq_kit.broker.records import Delivery, NothingWaits
from dagster_taskiq_kit.broker.watchers import Watch, take_watch
from dagster_taskiq_kit.broker.worker_cards import Holding, WorkerCard
from dagster_taskiq_kit.config.settings import TaskiqSettings
from dagster_taskiq_kit.health.snapshot import read_snapshot
from dagster_taskiq_kit.vocabulary.errors import BrokerUnavailable, UnfitServer, WrongInstance
from dagster_taskiq_kit.vocabulary.states import Kind, State


class Client:
    """Submits and claims with short words."""

    def __init__(self, connection):
        self.connection = connection
        self.tokens = itertools.count()

    def submit(self, task_id, *, queue="default", priority=5, kind=Kind.STEP, run_id="r"):
        return self.connection.run(
            records.submit(
                task_id=task_id,
                kind=kind,
                queue=queue,
                priority=priority,
                run_id=run_id,
                payload=b"{}",
            )
        )

    def claim(self, *, queues=("default",), worker="w", token=None, oldest_first=False):
        return self.connection.run(
            records.claim(
                worker_id=worker,
                lane="steps",
                token=token or f"{worker}#{next(self.tokens)}",
                kinds=[Kind.STEP],
                queues=list(queues),
                oldest_first=oldest_first,
            )
        )

    def begin(self, delivery):
        return self.connection.run(records.begin(delivery.task_id, delivery.token))

    def finish(self, delivery, outcome=State.SUCCEEDED, dead=""):
        return self.connection.run(
            records.finish(delivery.task_id, delivery.token, outcome, {}, dead)
        )

    def done(self):
        """Claim one message, begin and finish it."""
        delivery = self.claim()
        assert self.begin(delivery) == "ok"
        return self.finish(delivery)

    def next_millisecond(self):
        """Wait until the server's clock shows another millisecond: ages of heads then differ."""
        now_ms = self.server_ms()
        while self.server_ms() == now_ms:
            pass

    def server_ms(self):
        seconds, micros = self.connection.client.time()
        return seconds * 1000 + micros // 1000

    def requeue(self, delivery, *, counts=True):
        return self.connection.run(
            records.requeue(delivery.task_id, delivery.token, "died", counts=counts)
        )

    def cancel(self, run_id="r", *, whole_run=True):
        return self.connection.run(records.cancel(run_id, whole_run=whole_run))

    def record(self, task_id):
        return readings.fetch(self.connection, task_id)


@pytest.fixture
def client(connection):
    return Client(connection)


def test_submitting_the_same_id_twice_queues_it_once(client):
    assert client.submit("a").created
    again = client.submit("a")
    assert (again.created, again.state) == (False, State.QUEUED)
    assert client.claim().task_id == "a"
    assert isinstance(client.claim(), NothingWaits)


@pytest.mark.parametrize("knows", [True, False], ids=["knows_the_script", "has_forgotten_it"])
def test_many_are_submitted_with_one_exchange_in_their_order(client, knows):
    client.submit("a")
    if not knows:
        client.connection.client.script_flush()
    names = [f"m{number}" for number in range(50)]
    calls = [
        records.submit(
            task_id=name, kind=Kind.STEP, queue="default", priority=5, run_id="r", payload=b"{}"
        )
        for name in ["a", *names]
    ]
    submitted = client.connection.run_all(calls)
    assert [each.created for each in submitted] == [False, *[True] * 50]
    assert [client.claim().task_id for _ in range(51)] == ["a", *names]
    assert not any(each.created for each in client.connection.run_all(calls))


def test_a_claim_repeated_after_a_lost_reply_gets_the_same_message(client):
    client.submit("a")
    client.submit("b")
    first = client.claim(token="w#same")
    assert client.claim(token="w#same") == first
    assert client.claim().task_id == "b"


def test_every_transition_asked_again_by_its_owner_gets_its_first_answer(client):
    client.submit("a")
    delivery = client.claim()
    assert [client.begin(delivery), client.begin(delivery)] == ["ok", "ok"]
    assert [client.finish(delivery), client.finish(delivery)] == ["ok", "ok"]
    assert client.record("a").state is State.SUCCEEDED


def test_only_the_owner_can_begin_and_finish(client):
    client.submit("a")
    old = client.claim()
    assert client.requeue(old) == "queued"
    new = client.claim(worker="w2")
    assert client.begin(old) == "revoked"
    assert client.begin(new) == "ok"
    assert client.finish(old) == "revoked"
    assert client.record("a").state is State.RUNNING
    assert client.finish(new) == "ok"


def test_priorities_are_served_in_exact_order_and_within_one_by_age(client):
    submitted = [(f"{priority}-{turn}", priority) for turn in range(2) for priority in range(10)]
    for task_id, priority in submitted:
        client.submit(task_id, priority=priority)
    order = [client.claim().task_id for _ in submitted]
    assert order == [f"{p}-{t}" for p in range(9, -1, -1) for t in range(2)]


def test_priorities_outside_of_the_bands_are_clamped(client):
    client.submit("low", priority=-7)
    client.submit("high", priority=99)
    assert client.record("high").band == 10
    assert client.record("low").band == 0


def test_within_a_band_the_queue_whose_head_waited_longest_comes_first(client):
    for task_id, queue in (("b1", "b"), ("a1", "a"), ("b2", "b")):
        client.submit(task_id, queue=queue)
        client.next_millisecond()
    assert [client.claim(queues=["a", "b"]).task_id for _ in range(3)] == ["b1", "a1", "b2"]


def test_a_low_band_is_not_starved(client):
    client.submit("low", priority=0)
    client.next_millisecond()
    for number in range(30):
        client.submit(f"high-{number}", priority=10)
    assert client.claim().task_id != "low"
    assert client.claim(oldest_first=True).task_id == "low"


def test_a_worker_is_woken_within_the_claim_it_waits_for(client, connection):
    nothing = client.claim()
    assert isinstance(nothing, NothingWaits)
    woken = []

    def wait():
        woken.append(connection.client.xread(dict(nothing.doors), block=4000))

    waiter = threading.Thread(target=wait)
    waiter.start()
    client.submit("a")
    waiter.join(10)
    assert woken
    assert woken[0]


def test_no_wake_up_is_lost_between_claim_and_wait(client, connection):
    nothing = client.claim()
    client.submit("a")
    assert connection.client.xread(dict(nothing.doors), block=2000)


def test_the_backlog_is_exactly_the_length_of_the_streams(client, connection):
    for number in range(5):
        client.submit(f"t{number}", priority=number)
    client.done()
    client.begin(client.claim())
    client.claim()
    (queue,) = read_snapshot(connection).queues
    assert (queue.backlog, queue.claimed, queue.running) == (2, 1, 1)
    client.cancel()
    (queue,) = read_snapshot(connection).queues
    assert (queue.backlog, queue.claimed, queue.running) == (0, 1, 1)


def test_a_message_that_kills_its_child_three_times_is_a_dead_letter(client, connection):
    client.submit("a")
    answers = []
    for _ in range(3):
        answers.append(client.requeue(client.claim()))
    assert answers == ["queued", "queued", "refused"]
    record = client.record("a")
    assert (record.state, record.deliveries) == (State.REFUSED, 3)
    assert connection.client.xlen(connection.keys.name("dead")) == 1


def test_a_draining_worker_gives_back_without_spending_a_delivery(client):
    client.submit("a")
    for _ in range(5):
        assert client.requeue(client.claim(), counts=False) == "queued"
    assert client.record("a").deliveries == 0


def test_redelivery_does_not_falsify_how_long_a_message_has_waited(client):
    client.submit("a")
    before = client.record("a").queued_at_ms
    client.requeue(client.claim())
    assert client.record("a").queued_at_ms == before


def test_cancelling_a_run_ends_what_is_queued_and_orders_what_runs(client, connection):
    client.submit("running", priority=9)
    client.submit("queued")
    delivery = client.claim()
    client.begin(delivery)
    done = client.cancel()
    assert (done.removed, done.ordered, done.runs_ordered) == (1, 1, 0)
    assert client.record("queued").state is State.CANCELLED
    orders = connection.client.xrange(connection.keys.name("orders", "w"))
    assert orders[0][1] == {b"order": b"cancel", b"id": b"running"}


def test_a_step_submitted_after_its_run_was_cancelled_never_runs(client, connection):
    client.cancel()
    assert client.submit("late").state is State.CANCELLED
    assert isinstance(client.claim(), NothingWaits)
    with_bell = Bell(connection, "r")
    assert [ring.task_id for ring in with_bell.wait(2)] == ["late"]


def test_a_claimed_message_of_a_cancelled_run_may_not_begin(client):
    client.submit("a")
    delivery = client.claim()
    client.cancel()
    assert client.begin(delivery) == "cancelled"
    assert client.record("a").state is State.CANCELLED


def test_the_bell_tells_each_end_once_and_wakes_for_other_descriptors(client, connection):
    import os

    bell = Bell(connection, "r")
    read, write = os.pipe()
    os.write(write, b"x")
    began = time.monotonic()
    assert bell.wait(30, [read]) == []
    assert time.monotonic() - began < 25
    client.submit("a")
    client.done()
    assert [(r.task_id, r.state) for r in bell.wait(10)] == [("a", State.SUCCEEDED)]
    assert bell.wait(0.05) == []
    bell.close()
    os.close(read)
    os.close(write)


def test_renewal_carries_back_what_is_revoked_or_cancelled(client, connection):
    for task_id, run_id in (("mine", "r1"), ("cancelled", "r2"), ("taken", "r3")):
        client.submit(task_id, run_id=run_id)
    held = {delivery.task_id: delivery for delivery in (client.claim() for _ in range(3))}
    named = {task_id: Holding(delivery.token, began=False) for task_id, delivery in held.items()}
    client.cancel("r2")
    client.requeue(held["taken"])
    client.claim(worker="other")
    card = WorkerCard("w", "w", "h", 1, ["default"], 3, 1, ["code"])
    orders = connection.run(worker_cards.renew(card, 15.0, named, "instance"))
    assert orders == {"cancelled": "cancel", "taken": "revoked"}
    (worker,) = read_snapshot(connection).workers
    assert worker.live
    assert worker.card == card


def test_ended_records_lose_their_payload_and_expire(client, connection):
    client.submit("a")
    client.done()
    key = connection.keys.name("record", "a")
    assert not connection.client.hexists(key, "payload")
    assert 0 < connection.client.ttl(key) <= connection.settings.outcome_ttl_s


def test_a_namespace_belongs_to_the_first_instance_that_uses_it(connection):
    guards.check_broker(connection, "production")
    guards.check_broker(connection, "production")
    with pytest.raises(WrongInstance, match="belongs to Dagster instance production.*staging"):
        guards.check_broker(connection, "staging")


def test_a_server_that_evicts_keys_is_refused(connection):
    connection.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(UnfitServer, match="Set maxmemory-policy to noeviction"):
            guards.check_broker(connection, "i")
    finally:
        connection.client.config_set("maxmemory-policy", "noeviction")


def test_an_absent_broker_is_one_sentence_within_a_bound():
    settings = TaskiqSettings.resolve({"url": "redis://:secret@127.0.0.1:1/0"})
    with pytest.raises(BrokerUnavailable, match="Is the server running") as caught:
        SyncConnection(settings).run(records.begin("a", "b"), give_up_s=0.3)
    assert "secret" not in str(caught.value)


def test_ten_messages_shared_by_a_busy_and_a_free_worker_go_to_the_free_one(client):
    for number in range(10):
        client.submit(f"t{number}")
    busy = client.claim(worker="busy")  # its only slot is taken now: it asks for no more
    taken = []
    while isinstance(delivery := client.claim(worker="free"), Delivery):
        taken.append(delivery.task_id)
        client.begin(delivery)
        client.finish(delivery)
    assert len(taken) == 9
    assert busy.task_id not in taken


def test_a_queue_that_nobody_uses_serves_or_needs_is_forgotten_and_may_come_back(client):
    for queue in ("idle", "step", "waiting", "claimed", "served"):  # one is named like a kind
        client.submit(f"a-{queue}", queue=queue)
        if queue != "waiting":
            delivery = client.claim(queues=[queue])
            if queue != "claimed":
                assert (client.begin(delivery), client.finish(delivery)) == ("ok", "ok")
    card = WorkerCard("w-1", "w", "h", 1, ["served"], 1, 0, ["code"])
    client.connection.run(worker_cards.renew(card, 30, {}, "i"))
    # Used a moment ago, each is kept.
    assert client.connection.run(records.prune(60)) == []
    client.next_millisecond()
    assert client.connection.run(records.prune(0)) == ["idle", "step"]
    assert client.connection.run(records.prune(0)) == []
    names = {queue.name for queue in read_snapshot(client.connection).queues}
    assert names == {"waiting", "claimed", "served"}
    prefix = client.connection.keys.prefix
    assert not client.connection.client.keys(f"{prefix}:*:idle*")
    # What was counted of them goes with them, and nothing of others.
    assert {queue for _, queue, _ in read_snapshot(client.connection).counters} == names
    assert set(read_histograms(client.connection)) == {
        ("wait", "served", "step"), ("duration", "served", "step"),
    }  # fmt: skip
    client.submit("again", queue="idle")
    assert client.claim(queues=["idle"]).task_id == "again"


def test_a_turn_stays_with_its_holder_until_it_is_dead_or_overdue(connection):
    def renew(worker_id):
        card = WorkerCard(worker_id, worker_id, "h", 1, ["default"], 1, 1, ["code"])
        connection.run(worker_cards.renew(card, 30, {}, "i"))

    def ask(worker_id, overdue=""):
        return connection.run(records.take_turn("duty", worker_id, overdue))

    renew("first")
    renew("second")
    assert ask("first") == ""
    seen = ask("second")
    assert seen
    assert ask("second") == seen
    assert ask("first") == ""
    # Its holder has come back to it since: what was seen is not overdue.
    again = ask("second", overdue=seen)
    assert again not in ("", seen)
    assert ask("second", overdue=again) == ""
    assert ask("first") != ""
    connection.run(worker_cards.retire("second"))
    assert ask("first") == ""


def test_status_says_what_the_health_rules_say_and_its_exit_code_is_theirs(connection, client):
    options = ["--url", connection.url, "--namespace", connection.settings.namespace]

    def dagster_taskiq(*arguments):
        command = [sys.executable, "-m", "dagster_taskiq_kit", *arguments, *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def status(*arguments):
        return dagster_taskiq("status", *arguments)

    client.submit("a")
    red = status()
    assert red.returncode == 2
    assert "ERROR queue/default has_live_worker: Served by 0 live workers" in red.stdout
    said = json.loads(status("--json").stdout)
    assert said["severity"] == "error"
    assert [q["backlog"] for q in said["queues"]] == [1]
    card = WorkerCard("w", "w", "h", 1, ["default"], 3, 1, ["code"])
    connection.run(worker_cards.renew(card, 60.0, {}, "instance"))
    green = status()
    assert green.returncode == 0, green.stdout
    assert green.stdout.startswith("All 15 checks pass.")
    queue = lambda verb: dagster_taskiq("queue", verb, "default").stdout  # noqa: E731
    assert queue("pause") == "Queue 'default' is paused.\n"
    assert queue("pause") == "Queue 'default' is paused already.\n"
    assert isinstance(client.claim(), NothingWaits)
    paused = status()
    assert paused.returncode == 0
    assert "WARN queue/default has_live_worker" in paused.stdout
    assert "dagster-taskiq queue resume default" in paused.stdout
    assert queue("resume") == "Queue 'default' is handed out.\n"
    assert client.claim().task_id == "a"


def test_what_a_worker_runs_and_claims_once_more_stays_with_its_first_delivery(client, connection):
    """The broker forgot claim and start, and the worker's lane is faster than its renewal."""
    client.submit("a")
    first = client.claim()
    assert client.begin(first) == "ok"
    connection.client.delete(connection.keys.name("record", "a"))
    client.submit("a")
    second = client.claim()
    restate = records.restate(first, "w", instead_of=second.token)
    assert [connection.run(restate) for _ in range(2)] == ["ok", "ok"]
    assert client.begin(second) == "revoked"
    record = readings.fetch(connection, "a")
    assert (record.state, record.deliveries) == (State.RUNNING, 1)
    stranger = records.restate(second, "w", instead_of="of nobody")
    assert connection.run(stranger) == "revoked"
    assert client.finish(first) == "ok"


def test_a_watch_taken_before_the_clock_was_set_back_keeps_nobody_from_it(connection):
    """Its lease ends by that clock, an hour late; the time of its last tick is in the future."""
    first, second = Watch("one", "health"), Watch("two", "health")
    assert connection.run(take_watch(first, 60, {})) == first
    assert connection.run(take_watch(second, 60, {})) == first
    watched = connection.keys.name("watched")
    connection.client.incrby(watched, 3_600_000)
    assert connection.run(take_watch(second, 60, {})) == second
    assert connection.run(take_watch(first, 60, {})) == second
