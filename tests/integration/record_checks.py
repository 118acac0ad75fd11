"""Everything that the server keeps of records, compared with the model after every call."""

import itertools
import uuid
from collections import Counter

from hypothesis.stateful import RuleBasedStateMachine, invariant
from record_model import MESSAGES, QUEUES, RUNS, WORKERS, Model
from snapshot_truth import check_against_raw_reads

from dagster_taskiq_kit.broker import dead_letters, readings
from dagster_taskiq_kit.broker.connection import SyncConnection
from dagster_taskiq_kit.broker.histograms import read_histograms
from dagster_taskiq_kit.broker.records import MAX_DELIVERIES
from dagster_taskiq_kit.config.settings import TaskiqSettings
from dagster_taskiq_kit.health.snapshot import read_snapshot
from dagster_taskiq_kit.vocabulary.states import OWNED, State

PAYLOAD = b"payload"


class AgreesWithTheModel(RuleBasedStateMachine):
    """A namespace of its own on a real server, and the model of it; set ``url`` before it is run."""

    url = ""

    def __init__(self):
        super().__init__()
        namespace = f"machine-{uuid.uuid4().hex[:12]}"
        self.connection = SyncConnection(
            TaskiqSettings.resolve({"url": self.url, "namespace": namespace})
        )
        self.client = self.connection.client
        self.model = Model()

    def key(self, family, *parts):
        return self.connection.keys.name(family, *parts)

    def all_keys(self):
        return list(self.client.scan_iter(f"{self.connection.keys.prefix}:*", count=10_000))

    @invariant()
    def records_and_streams_are_what_the_model_says(self):
        lines = {place: line for place, line in self.model.streams.items() if line}
        pipe = self.client.pipeline()
        for task_id in MESSAGES:
            pipe.hgetall(self.key("record", task_id)).ttl(self.key("record", task_id))
        for queue, kind, band in lines:
            pipe.xrange(self.key("stream", queue, kind.value, str(band)))
        answers = iter(pipe.execute())
        for task_id in MESSAGES:
            self.check_record(task_id, next(answers), next(answers))
        for line, entries in zip(lines.values(), answers, strict=True):
            assert [fields[b"id"].decode() for _, fields in entries] == line
        snapshot = read_snapshot(self.connection)
        check_against_raw_reads(snapshot, self.client, self.connection.keys)
        backlog = sum(queue.backlog for queue in snapshot.queues)
        assert backlog == sum(len(line) for line in lines.values())  # nothing waits elsewhere

    def check_record(self, task_id, fields, ttl_s):
        stands = readings.read_record(task_id, fields)
        record = self.model.records.get(task_id)
        assert (stands is None) == (record is None)
        if record is None:
            return
        assert (stands.state, stands.deliveries) == (record.state, record.deliveries)
        assert (stands.queue, stands.band) == (record.queue, record.band)
        assert (stands.worker, stands.queued_at_ms) == (record.worker, record.queued_at_ms)
        assert fields.get(b"owner", b"").decode() == (record.owner or "")
        assert (b"entry" in fields) == (record.state is State.QUEUED)
        # What has ended leaves no payload, and goes away; all else stays.
        assert fields.get(b"payload") == (None if record.ended else PAYLOAD)
        assert (ttl_s > 0) == record.ended
        assert record.deliveries <= MAX_DELIVERIES or record.state is not State.QUEUED

    @invariant()
    def who_holds_what_and_which_runs_are_open_is_what_the_model_says(self):
        zsets = list(itertools.product(OWNED, QUEUES))
        pipe = self.client.pipeline()
        for state, queue in zsets:
            pipe.zrange(self.key(state.value, queue), 0, -1)
        for worker in WORKERS:
            pipe.smembers(self.key("held", worker))
        for run_id in RUNS:
            pipe.smembers(self.key("run", run_id))
        pipe.smembers(self.key("open_runs")).zrange(self.key("workers"), 0, -1)
        model, open_messages = self.model, self.model.open_messages()
        expected = [
            *([r.task_id for r in model.owned() if (r.state, r.queue) == place] for place in zsets),
            *([record.task_id for record in model.owned(worker)] for worker in WORKERS),
            *(open_messages[run_id] for run_id in RUNS),
            [run_id for run_id in RUNS if open_messages[run_id]],
            model.leases,
        ]
        found = [{member.decode() for member in answer} for answer in pipe.execute()]
        assert found == [set(ids) for ids in expected]
        for worker in WORKERS:
            pipe.hgetall(self.key("unnamed", worker))
        unnamed = [{k.decode(): int(n) for k, n in times.items()} for times in pipe.execute()]
        assert unnamed == [model.unnamed[worker] for worker in WORKERS]

    @invariant()
    def counters_dead_letters_bells_and_orders_tell_what_happened(self):
        pipe = self.client.pipeline()
        pipe.hgetall(self.key("counters"))
        for worker in WORKERS:
            pipe.xrange(self.key("orders", worker))
        for run_id in RUNS:
            pipe.xrange(self.key("bell", run_id))
        counters, *streams = pipe.execute()
        assert {name.decode(): int(n) for name, n in counters.items()} == self.model.counters
        self._histograms_hold_each_start_and_end_once()
        # A cancel ends the messages of a run in the order of a set: only counts are promised.
        told = [Counter((f[b"id"].decode(), f.get(b"state")) for _, f in s) for s in streams]
        orders = [self.model.orders[worker] for worker in WORKERS]
        assert told == [
            *(Counter({(task_id, None): n for task_id, n in given.items()}) for given in orders),
            *(Counter(self.model.rings[run_id]) for run_id in RUNS),
        ]
        found = dead_letters.read_all(self.connection)[::-1]
        assert [(letter.task_id, letter.queue) for letter in found] == [
            (letter.task_id, letter.queue) for letter in self.model.letters
        ]
        assert all(letter.payload == PAYLOAD for letter in found)

    def _histograms_hold_each_start_and_end_once(self):
        found = read_histograms(self.connection)
        for (what, queue, kind), expected in self.model.observed.items():
            assert found[what, queue, kind].total == expected
        assert sum(each.total for each in found.values()) == self.model.observed.total()

    def check_everything(self):
        self.records_and_streams_are_what_the_model_says()
        self.who_holds_what_and_which_runs_are_open_is_what_the_model_says()
        self.counters_dead_letters_bells_and_orders_tell_what_happened()
