"""Whatever stands in the broker, a claim ends in a delivery or a dead letter, and everybody reads on."""

import contextlib
import json
import random
from dataclasses import asdict

import pytest

from dagster_taskiq_kit.broker import dead_letters, leases, readings, records, worker_cards
from dagster_taskiq_kit.broker.bells import Bell
from dagster_taskiq_kit.broker.histograms import read_histograms
from dagster_taskiq_kit.broker.keys import KEYS
from dagster_taskiq_kit.broker.records import Delivery
from dagster_taskiq_kit.broker.waiting_notes import WaitingNotes
from dagster_taskiq_kit.broker.watchers import Watch, take_watch
from dagster_taskiq_kit.broker.worker_cards import Holding, WorkerCard
from dagster_taskiq_kit.exporter.sources import BrokerSource
from dagster_taskiq_kit.health.rules import judge
from dagster_taskiq_kit.health.snapshot import read_snapshot
from dagster_taskiq_kit.vocabulary import messages
from dagster_taskiq_kit.vocabulary.errors import MessageError
from dagster_taskiq_kit.vocabulary.states import Kind, State

ROUNDS, A_ROUND = 40, 75
RUBBISH = [
    b"", b"0", b"-1", b"1e400", b"nan", b"queued", b"running", b"succeeded", b"run", b"task", b"\xff\xfe",
    b"null", b"{}", b"[", b"9" * 400, "ü".encode(), b"a|b|c", b'{"schema": Infinity}',
]  # fmt: skip
FIELDS = [
    "state", "kind", "queue", "band", "run_id", "deliveries", "queued_at", "entry", "payload", "owner",
]  # fmt: skip
CARD = WorkerCard("w-1", "w", "h", 1, ["default"], 1, 1, ["here"])


def submit(connection, task_id) -> None:
    connection.run(
        records.submit(
            task_id=task_id, kind=Kind.STEP, queue="default", priority=5, run_id="r",
            payload=b"{}",
        )
    )  # fmt: skip


class Spoiler:
    """Does one thing to a queued record, its entry, or what stands beside it.

    Args:
        chance: What to do, and what to write.
        connection: The broker.
        task_id: The message.
    """

    def __init__(self, chance: random.Random, connection, task_id) -> None:
        self.chance = chance
        self.client, self.key = connection.client, connection.keys.name
        self.task_id = task_id
        self.record = self.key("record", task_id)
        self.rubbish = chance.choice(RUBBISH)
        self.worker = f"w-{chance.randrange(3)}"

    def spoil(self) -> None:
        fields = [self.a_field] * 4  # the likeliest by far
        self.chance.choice(
            [
                *fields, self.without_a_field, self.of_another_type, self.an_entry, self.a_card,
                self.typed_card, self.a_hash, self.counts, self.another_key, self.scores,
                self.dead_letter, self.a_string,
            ]
        )()  # fmt: skip

    def a_field(self) -> None:
        self.client.hset(self.record, self.chance.choice(FIELDS), self.rubbish)

    def without_a_field(self) -> None:
        self.client.hdel(self.record, self.chance.choice(FIELDS))

    def of_another_type(self) -> None:
        self.client.delete(self.record)
        self.client.rpush(self.record, self.rubbish)

    def an_entry(self) -> None:
        stream = self.key("stream", "default", "step", "5")
        give_type(self.client, stream, "stream")
        self.client.xadd(stream, {self.chance.choice(["id", "at", "x"]): self.rubbish})

    def a_card(self) -> None:
        give_type(self.client, self.key("worker", self.worker), "hash")
        self.client.hset(self.key("worker", self.worker), "card", self.rubbish)
        self.scored("workers", self.worker, 4e12)

    def typed_card(self) -> None:
        values = {**asdict(CARD), "worker_id": "w-0"}
        rubbish = [5, None, [], {}, "x", float("nan"), float("inf"), [None], [[[]]]]
        values[self.chance.choice(list(values))] = self.chance.choice(rubbish)
        self.rubbish = json.dumps(values).encode()
        self.a_card()

    def a_hash(self) -> None:
        name = self.key(self.chance.choice(["counters", "objectives", "histograms"]))
        give_type(self.client, name, "hash")
        self.client.hset(name, self.rubbish, self.rubbish)

    def counts(self) -> None:
        """What is counted from now on is no number."""
        for name in ("counters", "histograms"):
            give_type(self.client, self.key(name), "hash")
        for event in ("submitted", "claimed", "refused", "dead"):
            self.client.hset(self.key("counters"), f"{event}|default|step", self.rubbish)
        bucket = f"wait|default|step|{self.chance.randrange(9)}"
        self.client.hset(self.key("histograms"), bucket, self.rubbish)

    def another_key(self) -> None:
        """A key that scripts use, other than a record, is of another type."""
        family = self.chance.choice([each for each in KEYS if each not in ("record", "result")])
        parts = {
            "queue": "default", "kind": "step", "band": str(self.chance.randrange(11)),
            "run_id": "r", "worker_id": "w-1", "lane": "steps", "duty": "x",
        }  # fmt: skip
        name = self.key(family, *(parts[part] for part in KEYS[family].parts))
        give_type(self.client, name, "set" if KEYS[family].type == "string" else "string")
        write = self.client.sadd if KEYS[family].type == "string" else self.client.set
        write(name, "x")

    def scores(self) -> None:
        score = self.chance.choice([float("inf"), float("-inf"), 1e300, -5])
        self.scored(self.chance.choice(["queues", "workers", "lost_workers"]), self.rubbish, score)

    def scored(self, family: str, member, score: float) -> None:
        give_type(self.client, self.key(family), "zset")
        self.client.zadd(self.key(family), {member: score})

    def dead_letter(self) -> None:
        give_type(self.client, self.key("dead"), "stream")
        self.client.xadd(self.key("dead"), {self.chance.choice(["id", "queue", "x"]): self.rubbish})

    def a_string(self) -> None:
        self.client.set(
            self.key(self.chance.choice(["schema", "watched", "watch", "born"])), self.rubbish
        )
        self.client.set(self.key("run_band", "r"), self.rubbish)


def give_type(client, name: str, wanted: str) -> None:
    if client.type(name).decode() != wanted:
        client.delete(name)


def claim(connection, token):
    return connection.run(
        records.claim(
            worker_id="w-1", lane="steps", token=token, kinds=[Kind.STEP], queues=["default"],
            oldest_first=False,
        )
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_claim_ends_in_a_delivery_or_a_dead_letter_whatever_stands_there(connection, seed):
    """Three thousand spoiled messages in all; a good one among them is handed out each time."""
    chance = random.Random(seed)
    connection.run(worker_cards.renew(CARD, 15, {}, "i"))
    for number in range(A_ROUND):
        submit(connection, f"step:r:{number}:1")
        Spoiler(chance, connection, f"step:r:{number}:1").spoil()
    submit(connection, "step:r:good:1")
    handed_out = set()
    for number in range(3 * A_ROUND):
        answer = claim(connection, f"w-1#{number}")
        if not isinstance(answer, Delivery):
            break
        handed_out.add(answer.task_id)
        with contextlib.suppress(MessageError):
            messages.decode(answer.task_id, answer.kind, answer.payload)
        connection.run(records.finish(answer.task_id, answer.token, State.REFUSED, {}, "x"))
    else:
        pytest.fail("the queue hands out for ever")
    assert "step:r:good:1" in handed_out
    for letter in dead_letters.read_all(connection):
        assert letter.reason
    # Everybody else reads on.
    snapshot = read_snapshot(connection)
    assert judge(snapshot, connection.settings)
    assert connection.run(leases.leases()).renewals
    connection.run(worker_cards.renew(CARD, 15, {}, "i"))
    readings.fetch_all(connection, [f"step:r:{number}:1" for number in range(A_ROUND)])
    assert list(BrokerSource(connection.settings)())
    read_histograms(connection)
    WaitingNotes(connection).waiting_runs("default", "step")
    watch = Watch("here", "health")
    assert connection.run(take_watch(watch, 60, {})) == watch
    connection.run(records.restore())
    connection.run(records.prune(60))
    connection.run(records.reprioritize("r", 3))
    connection.run(records.pause("default", paused=True))
    connection.run(records.take_turn("x", "w-1"))
    for letter in dead_letters.read_all(connection):
        connection.run(dead_letters.requeue(letter.entry_id))
    connection.run(records.cancel("r", whole_run=True))


@pytest.mark.parametrize("seed", range(10))
def test_what_is_spoiled_while_a_worker_holds_it_stops_no_renewal_and_no_rescue(connection, seed):
    chance = random.Random(seed)
    client, key = connection.client, connection.keys.name
    deliveries = []
    for number in range(30):
        submit(connection, f"step:r:{number}:1")
        deliveries.append(claim(connection, f"w-1#{number}"))
        if number % 2:
            connection.run(records.begin(deliveries[-1].task_id, deliveries[-1].token))
    for delivery in deliveries:
        record = key("record", delivery.task_id)
        if chance.randrange(5):
            name = chance.choice([*FIELDS, "worker", "claimed_at", "began_at"])
            client.hset(record, name, chance.choice(RUBBISH))
        else:
            client.delete(record)
            client.rpush(record, b"x")
    held = {each.task_id: Holding(each.token, number % 2 == 1)
            for number, each in enumerate(deliveries[:10])}  # fmt: skip
    for _ in range(3):  # what it does not name is taken from it
        connection.run(worker_cards.renew(CARD, 15, held, "i"))
    for began, delivery in [(number % 2, each) for number, each in enumerate(deliveries[:6])]:
        end = (
            records.finish(delivery.task_id, delivery.token, State.FAILED, {})
            if began
            else records.requeue(delivery.task_id, delivery.token, "x", counts=True)
        )
        connection.run(end)
    seen = connection.run(leases.leases())
    silent = leases.Silent("w-1", seen.renewals["w-1"], 20)
    assert connection.run(leases.rescue([silent], seen.at_ms, 60)) is not None
    assert connection.run(leases.leases()).renewals == {}
    assert read_snapshot(connection).workers == []


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(
    "payload",
    [
        b'{"labels": {"schema": Infinity}}', b"[" * 100_000, b"\xff", b"null", b"[]",
        b'{"labels": [5], "task_name": "dagster_taskiq_kit:step", "args": [null]}',
    ],
)  # fmt: skip
def test_a_payload_that_cannot_be_read_is_one_sentence(kind, payload):
    with pytest.raises(MessageError):
        messages.decode("x", kind, payload)


@pytest.mark.parametrize(
    "change",
    [
        {"timeout_s": -1}, {"timeout_s": 0}, {"timeout_s": 1e-9}, {"timeout_s": float("inf")},
        {"timeout_s": "5"}, {"attempt": "1"}, {"attempt": -1}, {"run_id": 5}, {"step_key": None},
        {"tell_outputs": 1}, {"code": {"job": 5}}, {"code": {"job": "x", "location": []}},
    ],
)  # fmt: skip
def test_a_message_whose_fields_cannot_be_is_refused(change):
    good = {
        "run_id": "r", "step_key": "s", "attempt": 1, "code": {"job": "j"}, "retry_mode": "enabled",
        "known_state": "{}",
    }  # fmt: skip

    def encoded(data) -> bytes:
        name = messages.TASK_NAMES[Kind.STEP]
        return json.dumps({"labels": {"schema": "1"}, "task_name": name, "args": [data]}).encode()

    assert messages.decode("x", Kind.STEP, encoded(good))
    with pytest.raises(MessageError):
        messages.decode("x", Kind.STEP, encoded({**good, **change}))


def test_a_malformed_ring_is_passed_over(connection):
    key = connection.keys.name("bell", "r")
    bell = Bell(connection, "r")
    for rubbish in RUBBISH:
        connection.client.xadd(key, {"id": rubbish, "state": rubbish})
        connection.client.xadd(key, {"id": "a", "state": "lost", "worker": "w", "detail": rubbish})
    connection.client.xadd(key, {"id": "good", "state": "succeeded", "worker": "w", "detail": "{}"})
    heard = []
    while not any(ring.task_id == "good" for ring in heard):
        heard += bell.wait(10)
    bell.close()


def test_a_namespace_without_a_birth_is_as_young_as_can_be(connection):
    assert readings.namespace_age_s(connection) == 0


@pytest.mark.parametrize("lost", ["the stream", "one entry", "a stream of another type"])
def test_a_message_whose_stream_entry_is_gone_is_queued_again(connection, lost):
    client, stream = connection.client, connection.keys.name("stream", "default", "step", "5")
    for number in range(3):
        submit(connection, f"step:r:{number}:1")
    assert connection.run(records.restore()) == []
    if lost == "one entry":
        client.xdel(stream, client.xrange(stream, count=1)[0][0])
    else:
        client.delete(stream)
    if lost == "a stream of another type":
        client.set(stream, "x")
        assert not isinstance(claim(connection, "w-1#x"), Delivery)
        client.delete(stream)
    wanted = ["step:r:0:1"] if lost == "one entry" else [f"step:r:{n}:1" for n in range(3)]
    assert connection.run(records.restore()) == wanted
    assert connection.run(records.restore()) == []
    claimed = [claim(connection, f"w-1#{number}").task_id for number in range(3)]
    assert sorted(claimed) == [f"step:r:{number}:1" for number in range(3)]
