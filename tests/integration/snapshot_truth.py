"""What a snapshot must say, computed from raw reads of every record, stream and letter."""

from collections import defaultdict

from dagster_taskiq_kit.health.snapshot import Snapshot


def check_against_raw_reads(snapshot: Snapshot, client, keys) -> None:
    """Compare a snapshot with what stands in the broker; nobody writes meanwhile."""
    records = {}
    for name in client.scan_iter(match=keys.name("record", "*"), count=1000):
        fields = {
            k.decode(): v.decode() for k, v in client.hgetall(name).items() if k != b"payload"
        }
        records[name.decode().removeprefix(keys.name("record", ""))] = fields
    by_place = defaultdict(lambda: defaultdict(dict))
    for task_id, fields in records.items():
        by_place[fields["queue"]][fields["state"]][task_id] = fields
    letters = [fields for _, fields in client.xrange(keys.name("dead"))]
    paused = {name.decode() for name in client.smembers(keys.name("paused"))}
    for queue in snapshot.queues:
        place = by_place[queue.name]
        for kind in ("run", "step", "task"):
            waiting = [f for f in place["queued"].values() if f["kind"] == kind]
            assert queue.waiting.get(kind, 0) == len(waiting)
            since = [int(f["queued_at"]) for f in waiting]
            said_s = queue.oldest_waiting_by_kind_s.get(kind)
            assert said_s == (age_s(snapshot, min(since)) if since else None)
        assert queue.claimed == len(place["claimed"])
        assert queue.running == len(place["running"])
        for said_s, state, stamp in (
            (queue.oldest_claimed_s, "claimed", "claimed_at"),
            (queue.oldest_running_s, "running", "began_at"),
        ):
            since = [int(f[stamp]) for f in place[state].values()]
            assert said_s == (age_s(snapshot, min(since)) if since else None)
        assert queue.dead_letters == sum(f[b"queue"].decode() == queue.name for f in letters)
        assert queue.paused == (queue.name in paused)
    assert paused <= {queue.name for queue in snapshot.queues if queue.paused}
    assert snapshot.dead_letters == len(letters)
    assert {name for name in by_place if by_place[name]} <= {q.name for q in snapshot.queues}
    for worker in snapshot.workers:
        owned = {
            task_id: f["state"] for task_id, f in records.items()
            if f.get("worker") == worker.card.worker_id and f["state"] in ("claimed", "running")
        }  # fmt: skip
        assert {each.task_id: each.state for each in worker.held} == owned


def age_s(snapshot: Snapshot, at_ms: int) -> float:
    return max(0.0, (snapshot.taken_at_ms - at_ms) / 1000)
