"""Which job each message is of: records do not say it, their payloads do.

Invariant: a payload is read once for each message, however often it is asked; what is remembered is
bounded.
"""

from collections.abc import Mapping
from typing import Any

from ..vocabulary.errors import MessageError
from ..vocabulary.messages import decode
from ..vocabulary.states import Kind
from .connection import SyncConnection

_MOST_ASKED = 500
_MOST_KNOWN = 20_000


class JobNames:
    """The jobs of messages, by their ids."""

    def __init__(self) -> None:
        self._jobs: dict[str, str] = {}

    def of(self, connection: SyncConnection, kinds: Mapping[str, Kind]) -> Mapping[str, str]:
        """Return the job of each message whose job is known, after having asked for new ones.

        Args:
            connection: The broker.
            kinds: The kind of each message, by its id.

        Raises:
            BrokerUnavailable: No answer within ``give_up_s``.
        """
        if len(self._jobs) > _MOST_KNOWN:
            self._jobs = {each: self._jobs[each] for each in kinds if each in self._jobs}
        unknown = [each for each in kinds if each not in self._jobs][:_MOST_ASKED]
        if not unknown:
            return self._jobs

        def ask() -> list[Any]:
            pipeline = connection.client.pipeline(transaction=False)
            for task_id in unknown:
                pipeline.hget(connection.keys.name("record", task_id), "payload")
            return pipeline.execute(raise_on_error=False)

        for task_id, payload in zip(unknown, connection.retrying(ask), strict=True):
            if not isinstance(payload, bytes):
                continue  # its record has ended meanwhile
            try:
                self._jobs[task_id] = decode(task_id, kinds[task_id], payload).code.job
            except MessageError:
                self._jobs[task_id] = ""  # of a newer release, or no message: not asked again
        return self._jobs
