"""Which runs were told that they wait in a queue that nobody serves.

Invariant: a run is told once when that begins and once when it ends, whichever worker tells it.
"""

from collections.abc import Sequence

from ..vocabulary.states import BANDS
from .connection import SyncConnection
from .scripts import text

#: Most messages of one stream that are looked at; runs behind them are told in a later round.
_MOST = 200


class WaitingNotes:
    """The notes of one namespace.

    Args:
        connection: The broker.

    Each method raises BrokerUnavailable when the broker does not answer.
    """

    def __init__(self, connection: SyncConnection) -> None:
        self._broker = connection
        self._key = connection.keys.name("unserved")

    def waiting_runs(self, queue: str, lane: str) -> Sequence[str]:
        """Return the runs whose messages wait in a queue for a lane: ``run`` or ``step``."""

        def ask() -> Sequence[str]:
            pipeline = self._broker.client.pipeline(transaction=False)
            for band in BANDS:
                stream = self._broker.keys.name("stream", queue, lane, str(band))
                pipeline.xrange(stream, count=_MOST)
            entries = [entry for answer in pipeline.execute() for entry in answer]
            ids = [text(fields[b"id"]) for _, fields in entries if b"id" in fields]
            keys = [self._broker.keys.name("record", task_id) for task_id in ids]
            for key in keys:
                pipeline.hget(key, "run_id")
            runs = {text(run_id) for run_id in pipeline.execute() if run_id}
            return sorted(runs)

        return self._broker.retrying(ask)

    def note(self, run_id: str, queue: str) -> bool:
        """Note that a run is told; False when it was told before."""
        name = f"{run_id}|{queue}"
        return bool(self._broker.retrying(lambda: self._broker.client.sadd(self._key, name)))

    def forget(self, run_id: str, queue: str) -> bool:
        """Forget it again; False when another worker did."""
        name = f"{run_id}|{queue}"
        return bool(self._broker.retrying(lambda: self._broker.client.srem(self._key, name)))

    def all(self) -> Sequence[tuple[str, str]]:
        """Return each run that was told, with the queue."""
        found = self._broker.retrying(lambda: self._broker.client.smembers(self._key))
        pairs = [text(name).partition("|") for name in found]
        return [(run_id, queue) for run_id, _, queue in pairs]
