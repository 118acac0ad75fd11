"""A run's bell: on it the orchestrator hears that steps ended, and wakes without a tick.

Invariant: what the bell says is a hint about *when* to look; the event log says what happened, and
only where it has no end does the ring decide which one is written. A missed ring costs the
orchestrator one slow poll, never a step.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import redis
import redis.exceptions

from ..host.library_internals import socket_of
from ..host.polling import readable
from ..vocabulary.log_actions import Action, about
from ..vocabulary.messages import UNREADABLE
from ..vocabulary.states import State
from .connection import SyncConnection, understand
from .scripts import text

logger = logging.getLogger(__name__)

_FROM_THE_START = "0-0"
_MAX_RINGS = 1000


@dataclass(frozen=True)
class Ring:
    """One thing the bell said: a message ended, or a running step wrote an output.

    Args:
        task_id: The message.
        state: How it ended; RUNNING for an output.
        worker: Worker id of its last owner, or ''.
        detail: What the owner said of it.
    """

    task_id: str
    state: State
    worker: str
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lost(self) -> bool:
        """Whether the attempt ended because its worker was lost, not by what it did itself."""
        return self.state is State.LOST or bool(self.detail.get("begun_before"))

    @property
    def gone(self) -> bool:
        """Whether its process is known to be gone: its own worker said so."""
        return self.state is not State.REFUSED and bool(self.detail.get("gone"))


class Bell:
    """Listens to one run's bell, on a connection of its own.

    Args:
        connection: The broker.
        run_id: The run.
    """

    def __init__(self, connection: SyncConnection, run_id: str) -> None:
        self._broker = connection
        self._key = connection.keys.name("bell", run_id)
        self._last_id = _FROM_THE_START
        self._listening: redis.Connection | None = None

    def wait(self, timeout_s: float, also: Sequence[int] = ()) -> Sequence[Ring]:
        """Wait for rings.

        Args:
            timeout_s: Longest wait.
            also: File descriptors that end the wait too, such as the signal wake-up fd; a blocking
                read alone is not interrupted by a signal.

        Returns:
            What was heard; empty when the time is up or another descriptor woke us.

        Raises:
            BrokerUnavailable: The broker is away; waiting may be tried again.
        """
        try:
            return self._wait(timeout_s, also)
        except (redis.exceptions.RedisError, OSError) as error:
            self.close()
            raise understand(self._broker.url, error) from error

    def _wait(self, timeout_s: float, also: Sequence[int]) -> Sequence[Ring]:
        listening = self._listening
        if listening is None:
            # One long-lived read at a time stays open on this connection; a wake-up by another
            # descriptor leaves it open, and the next wait goes on listening to it.
            made = self._broker.client.connection_pool.make_connection()
            listening = self._listening = cast("redis.Connection", made)
            listening.connect()
            listening.send_command(
                "XREAD", "COUNT", _MAX_RINGS, "BLOCK", 0, "STREAMS", self._key, self._last_id
            )
        if not listening.can_read(0):
            readable([socket_of(listening), *also], timeout_s)
            if not listening.can_read(0):
                return []
        answer = listening.read_response()
        heard = [
            self._read(entry_id, fields)
            for _, entries in answer or []
            for entry_id, fields in entries
        ]
        rings = [ring for ring in heard if ring is not None]
        listening.send_command(
            "XREAD", "COUNT", _MAX_RINGS, "BLOCK", 0, "STREAMS", self._key, self._last_id
        )
        return rings

    def _read(self, entry_id: bytes, fields: Sequence[bytes]) -> Ring | None:
        """Return what an entry says; None when it cannot be read: the log says what is true."""
        self._last_id = text(entry_id)
        try:
            values = {text(k): text(v) for k, v in zip(fields[::2], fields[1::2], strict=True)}
            detail = dict(json.loads(values["detail"]))
            return Ring(values["id"], State(values["state"]), values["worker"], detail)
        except UNREADABLE:
            logger.warning(
                "An entry of bell %s cannot be read and is passed over.", self._key,
                extra=about(Action.UNREADABLE),
            )  # fmt: skip
            return None

    def close(self) -> None:
        """Stop listening."""
        if self._listening is not None:
            self._listening.disconnect()
            self._listening = None
