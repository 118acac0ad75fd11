"""From what the broker answered to a snapshot.

Invariant: one entry that cannot be read is passed over and told in the log; the rest is shown.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ..broker.doubts import is_doubtful
from ..broker.watchers import JUDGING
from ..broker.worker_cards import WorkerCard
from ..config.settings import QueueObjective
from ..vocabulary.log_actions import Action, about
from ..vocabulary.messages import UNREADABLE
from .snapshot import HeldReading, LostWorker, QueueReading, ServerReading, Snapshot, WorkerReading

logger = logging.getLogger(__name__)
E = TypeVar("E")
T = TypeVar("T")


def parsed(raw: Mapping[str, Any], latency_s: float) -> Snapshot:
    """Return the snapshot that the script of that name answered with.

    Args:
        raw: Its answer.
        latency_s: How long a PING took.
    """
    now_ms = int(raw["now_ms"])
    workers = _readable(raw["workers"], lambda entry: _worker(entry, now_ms))
    paused = set(raw["paused"])
    queues = {entry["name"]: _queue(entry, now_ms, paused) for entry in raw["queues"]}
    # One that was never used may be served, and paused, all the same.
    for name in paused.union(*(worker.card.queues for worker in workers)):
        queues.setdefault(name, QueueReading(name, paused=name in paused))
    lost = _readable(
        raw["lost_workers"],
        lambda entry: LostWorker(
            entry["id"],
            json.loads(entry["card"])["host"] if entry.get("card") else "",
            _ago_s(entry["at_ms"], now_ms),
        ),
    )
    counters = _readable(
        _pairs(raw["counters"]), lambda each: (_counter_name(each[0]), int(each[1]))
    )
    objectives = dict(_pairs(raw["objectives"]))
    born_ms = raw.get("born_ms")
    return Snapshot(
        taken_at_ms=now_ms,
        queues=[queues[name] for name in sorted(queues)],
        workers=sorted(workers, key=lambda worker: (worker.card.name, worker.card.worker_id)),
        server=_server(raw.get("info"), latency_s),
        lost_workers=sorted(lost, key=lambda worker: worker.ago_s),
        counters=dict(counters),
        objectives=dict(
            _readable(
                [each for each in objectives.items() if each[0] != JUDGING],
                lambda each: (each[0], QueueObjective.model_validate_json(each[1])),
            )
        ),
        judging=next(iter(_readable([objectives.get(JUDGING, "{}")], _judging)), {}),
        dead_letters=int(raw["dead_letters"]),
        watched_ago_s=_ago_s(raw["watched_ms"], now_ms) if raw.get("watched_ms") else None,
        namespace_age_s=None if born_ms is None else _ago_s(born_ms, now_ms),
    )


def _readable(entries: Iterable[E], read: Callable[[E], T]) -> Sequence[T]:
    """Return what can be read; the rest is told in the log, and keeps nobody from the others."""
    found: list[T] = []
    for entry in entries:
        try:
            found.append(read(entry))
        except UNREADABLE as error:
            logger.warning(
                "The broker holds what cannot be read (%s): %.200s", error, entry,
                extra=about(Action.UNREADABLE),
            )  # fmt: skip
    return found


def _judging(said: str) -> Mapping[str, Any]:
    return dict(json.loads(said))


def _pairs(flat: Sequence[Any]) -> Iterable[tuple[str, str]]:
    """Return the pairs of a flat list; cjson writes an empty one as an object."""
    return zip(list(flat)[::2], list(flat)[1::2], strict=True)


def _counter_name(name: str) -> tuple[str, str, str]:
    event, _, rest = name.partition("|")
    queue, _, kind = rest.rpartition("|")
    return event, queue, kind


def _worker(entry: Mapping[str, Any], now_ms: int) -> WorkerReading:
    card = WorkerCard.from_json(entry["card"])
    renewed_at_ms = entry.get("renewed_at_ms") or now_ms
    held = [
        HeldReading(each["id"], each["state"], each["queue"], _ago_s(each["since_ms"], now_ms))
        for each in entry["held"]
    ]
    silent_s = (now_ms - renewed_at_ms) / 1000
    lease_left_s = (entry["lease_until_ms"] - now_ms) / 1000
    return WorkerReading(
        card,
        lease_left_s,
        max(0.0, silent_s),
        sorted(held, key=lambda each: each.task_id),
        card.clock_s - renewed_at_ms / 1000 if card.clock_s else 0.0,
        is_doubtful(card, silent_s, lease_left_s),
    )


def _ago_s(at_ms: float, now_ms: int) -> float:
    """Return an age for people; a stamp from before the clock was set back is of now."""
    return max(0.0, (now_ms - at_ms) / 1000)


def _queue(entry: Mapping[str, Any], now_ms: int, paused: set[str]) -> QueueReading:
    def since_s(stamp: str) -> float | None:
        return _ago_s(entry[stamp], now_ms) if entry.get(stamp) else None

    oldest: Mapping[str, float] = dict(entry["oldest_at_ms"] or {})
    return QueueReading(
        name=entry["name"],
        waiting={kind: int(count) for kind, count in entry["waiting"].items()},
        oldest_waiting_by_kind_s={kind: _ago_s(at_ms, now_ms) for kind, at_ms in oldest.items()},
        claimed=int(entry["claimed"]),
        oldest_claimed_s=since_s("oldest_claimed_at_ms"),
        running=int(entry["running"]),
        oldest_running_s=since_s("oldest_running_at_ms"),
        troubled=int(entry["recent"]),
        dead_letters=int(entry["dead_letters"]),
        paused=entry["name"] in paused,
        first_used_ms=int(entry["first_used_ms"]),
    )


def _server(info: str | None, latency_s: float) -> ServerReading:
    if info is None:
        return ServerReading(None, latency_s)
    said = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)

    def number(name: str) -> int | None:
        return int(said[name]) if said.get(name, "").isdigit() else None

    name = "Valkey" if "valkey_version" in said else "Redis"
    version = said.get("valkey_version") or said.get("redis_version")
    return ServerReading(
        version=f"{name} {version}" if version else None,
        latency_s=latency_s,
        uptime_s=number("uptime_in_seconds"),
        used_memory_bytes=number("used_memory"),
        max_memory_bytes=number("maxmemory"),
        system_memory_bytes=number("total_system_memory"),
        eviction_policy=said.get("maxmemory_policy"),
        append_only=said["aof_enabled"] == "1" if "aof_enabled" in said else None,
        last_write_ok=(
            said["aof_last_write_status"] == "ok" if "aof_last_write_status" in said else None
        ),
        clients=number("connected_clients"),
        max_clients=number("maxclients"),
    )
