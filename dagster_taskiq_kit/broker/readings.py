"""What stands in the broker, read without changing it; all changes are in ``records.py``.

Invariant: every reading is bounded by ``give_up_s`` and takes one round trip (two for the age of a
namespace), however many records it is about.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from ..vocabulary.log_actions import Action, about
from ..vocabulary.messages import UNREADABLE
from ..vocabulary.states import Kind, State
from .connection import SyncConnection
from .replies import WRONG_TYPE, code_of
from .scripts import text

logger = logging.getLogger(__name__)

#: How long the scripts keep that a run was cancelled.
_CANCEL_KEPT_S = 86_400


@dataclass(frozen=True)
class Record:
    """A task record as it stands in the broker; stamps are server milliseconds."""

    task_id: str
    kind: Kind
    queue: str
    band: int
    run_id: str
    state: State
    deliveries: int
    queued_at_ms: int
    worker: str | None = None
    claimed_at_ms: int | None = None
    began_at_ms: int | None = None
    ended_at_ms: int | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def gone(self) -> bool:
        """Whether its process is known to be gone: its own worker said so."""
        return bool(self.detail.get("gone"))


def read_record(task_id: str, flat: Mapping[bytes | str, bytes | str]) -> Record | None:
    """Read the hash of a record, as HGETALL gives it; None when there is none that can be read."""
    try:
        return _read_record(task_id, flat) if flat else None
    except UNREADABLE as error:
        logger.warning(
            "The record of %s cannot be read (%s).", task_id, error,
            extra=about(Action.UNREADABLE, task_id),
        )  # fmt: skip
        return None


def _read_record(task_id: str, flat: Mapping[bytes | str, bytes | str]) -> Record:
    fields = {text(name): text(value) for name, value in flat.items() if text(name) != "payload"}

    def stamp(name: str) -> int | None:
        return int(fields[name]) if name in fields else None

    return Record(
        task_id=task_id,
        kind=Kind(fields["kind"]),
        queue=fields["queue"],
        band=int(fields["band"]),
        run_id=fields["run_id"],
        state=State(fields["state"]),
        deliveries=int(fields["deliveries"]),
        queued_at_ms=int(fields["queued_at"]),
        worker=fields.get("worker"),
        claimed_at_ms=stamp("claimed_at"),
        began_at_ms=stamp("began_at"),
        ended_at_ms=stamp("ended_at"),
        detail=dict(json.loads(fields.get("detail") or "{}")),
    )


def fetch(connection: SyncConnection, task_id: str) -> Record | None:
    """Return the record of a message, or None when there is none.

    Raises:
        BrokerUnavailable: No answer within ``give_up_s``.
    """
    return fetch_all(connection, [task_id])[task_id]


def fetch_all(
    connection: SyncConnection, task_ids: Sequence[str], give_up_s: float | None = None
) -> Mapping[str, Record | None]:
    """Return the records of many messages in one round trip.

    Args:
        connection: The broker.
        task_ids: The messages.
        give_up_s: How long to wait for an answer, default as the settings say.

    Raises:
        BrokerUnavailable: No answer within ``give_up_s``.
    """

    def ask() -> Mapping[str, Record | None]:
        pipeline = connection.client.pipeline(transaction=False)
        for task_id in task_ids:
            pipeline.hgetall(connection.keys.name("record", task_id))
        answers = pipeline.execute(raise_on_error=False)
        rows = zip(task_ids, answers, strict=True)
        return {task_id: read_record(task_id, _hash(answer)) for task_id, answer in rows}

    return connection.retrying(ask, give_up_s) if task_ids else {}


def _hash(answer: Any) -> Mapping[bytes | str, bytes | str]:
    """Return the hash that a command answered with: a key of another type holds none."""
    if isinstance(answer, Exception):
        if code_of(answer) == WRONG_TYPE:
            return {}
        raise answer
    return cast("Mapping[bytes | str, bytes | str]", answer)


def open_messages(
    connection: SyncConnection, run_ids: Sequence[str]
) -> Mapping[str, Sequence[str]]:
    """Return the messages of each run that have not ended.

    Raises:
        BrokerUnavailable: No answer within ``give_up_s``.
    """

    def ask() -> Mapping[str, Sequence[str]]:
        pipeline = connection.client.pipeline(transaction=False)
        for run_id in run_ids:
            pipeline.smembers(connection.keys.name("run", run_id))
        answers = zip(run_ids, pipeline.execute(), strict=True)
        return {run_id: sorted(text(each) for each in found) for run_id, found in answers}

    return connection.retrying(ask) if run_ids else {}


def members(connection: SyncConnection, key: str) -> frozenset[str]:
    """Return the members of a set.

    Raises:
        BrokerUnavailable: No answer within ``give_up_s``.
    """
    ask = connection.client.smembers
    return frozenset(text(member) for member in connection.retrying(lambda: ask(key)))


def server_time_ms(connection: SyncConnection) -> int:
    """Return the broker's clock, by which every stamp of a record is made.

    Raises:
        BrokerUnavailable: No answer within ``give_up_s``.
    """
    seconds, micros = connection.retrying(connection.client.time)
    return int(seconds) * 1000 + int(micros) // 1000


def namespace_age_s(connection: SyncConnection, give_up_s: float | None = None) -> float:
    """Return for how long the namespace exists; a broker that forgot it begins anew.

    Raises:
        BrokerUnavailable: No answer within ``give_up_s``.
    """

    def ask() -> float:
        born = connection.client.get(connection.keys.name("born"))
        seconds, micros = connection.client.time()
        now_ms = int(seconds) * 1000 + int(micros) / 1000
        # Without a birth it was forgotten a moment ago; a worker's next renewal writes it anew.
        return float((now_ms - int(born)) / 1000) if born and born.isdigit() else 0.0

    return connection.retrying(ask, give_up_s)


def waiting(connection: SyncConnection, queue: str) -> Sequence[str]:
    """Return what waits in a queue, the longest-waiting first of each kind.

    Raises:
        BrokerUnavailable: No answer in time.
    """

    def ask() -> list[list[Any]]:
        pipeline = connection.client.pipeline(transaction=False)
        for kind in Kind:
            pipeline.zrange(connection.keys.name("waiting", queue, kind.value), 0, -1)
        return pipeline.execute()

    return [text(task_id) for ids in connection.retrying(ask) for task_id in ids]


def cancelled_for_s(connection: SyncConnection, run_id: str) -> float | None:
    """Return how long ago a run was cancelled, by the broker; None when it does not know.

    Raises:
        BrokerUnavailable: No answer within ``give_up_s``.
    """
    key = connection.keys.name("cancel", run_id)
    left_s = connection.retrying(lambda: connection.client.ttl(key))
    return None if left_s < 0 else max(0.0, float(_CANCEL_KEPT_S - left_s))


def cancelled_runs(connection: SyncConnection, run_ids: Sequence[str]) -> frozenset[str]:
    """Return those of the runs that were cancelled in the last day.

    Raises:
        BrokerUnavailable: No answer within ``give_up_s``.
    """

    def ask() -> frozenset[str]:
        pipeline = connection.client.pipeline(transaction=False)
        for run_id in run_ids:
            pipeline.exists(connection.keys.name("cancel", run_id))
        answers = zip(run_ids, pipeline.execute(), strict=True)
        return frozenset(run_id for run_id, exists in answers if exists)

    return connection.retrying(ask) if run_ids else frozenset()
