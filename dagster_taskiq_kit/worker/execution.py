"""From one delivery to its end: child, permission, outcome, record.

Invariant: a delivery leaves the worker by exactly one transition of its record, and that transition
is repeated until the broker answers. The child's own report decides; without one, its death does.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .. import messages
from ..broker import records
from ..broker.connection import AsyncConnection
from ..broker.records import Delivery
from ..broker.scripts import Call
from ..broker.worker_cards import Holding
from ..code_matching import location_for
from ..errors import BrokerUnavailable, CodeError, MessageError
from ..messages import Message
from ..settings import TaskiqSettings
from ..states import Kind, State
from ..tags import TIMEOUT_TAG
from .fork_client import Execution, ForkServerClient
from .place import Place
from .witness import Executing

logger = logging.getLogger(__name__)
T = TypeVar("T")

_LAST_BYTES = 4_096
_LAST_LINES = 10


class Deliveries:
    """All deliveries that this worker holds.

    Args:
        worker_id: The worker that holds them.
        settings: The deployment.
        connection: The broker.
        servers: Fork servers, one a code location.
        changed: Called when a delivery came or went.
    """

    def __init__(
        self,
        worker_id: str,
        settings: TaskiqSettings,
        connection: AsyncConnection,
        servers: Sequence[ForkServerClient],
        changed: Callable[[], None],
    ) -> None:
        self._worker_id = worker_id
        self._host = socket.gethostname()
        self._settings = settings
        self._connection = connection
        self._servers = servers
        self._changed = changed
        self._held: dict[str, _Held] = {}

    def holdings(self) -> dict[str, Holding]:
        """Return what is held, by task id."""
        return {
            held.delivery.task_id: Holding(held.delivery.token, held.began)
            for held in self._held.values()
            if not held.over
        }

    def executing(self) -> Sequence[Executing]:
        """Return what the broker allowed to begin and has not ended, for the witness."""
        return [
            Executing(held.message, held.execution.pid)
            for held in self._held.values()
            if held.began and not held.over and not held.ending
        ]

    def busy(self, *kinds: Kind) -> int:
        """Return how many messages of these kinds are held."""
        return sum(held.delivery.kind in kinds for held in self._held.values())

    async def execute(self, delivery: Delivery) -> None:
        """Execute one delivery to its end: its process is gone then, and its record ended."""
        try:
            message = messages.decode(delivery.task_id, delivery.kind, delivery.payload)
            server = self._server_for(message)
        except (MessageError, CodeError) as error:
            logger.error("%s", error, extra={"action": "refused", "task_id": delivery.task_id})
            await self._finish(delivery, State.REFUSED, {"reason": str(error)}, dead=str(error))
            return
        if not await server.is_ready(self._settings.lease_s):
            # Nothing is wrong with the message: code that does not import any more spends none of
            # its deliveries.
            await self._requeue(delivery, "Its fork server did not start.", counts=False)
            return
        place = Place(
            self._worker_id,
            self._host,
            delivery.queue,
            delivery.waited_ms,
            delivery.deliveries,
            delivery.handed_over,
        )
        execution = server.begin(delivery.token, message, place)
        held = self._held[delivery.task_id] = _Held(delivery, message, server, execution)
        self._changed()
        try:
            await self._follow(held)
        finally:
            if held.timer is not None:
                held.timer.cancel()
            del self._held[delivery.task_id]
            self._changed()

    def _server_for(self, message: Message) -> ForkServerClient:
        served = [server.served() for server in self._servers]
        return self._servers[location_for(message.code, served)]

    async def _follow(self, held: "_Held") -> None:
        delivery = held.delivery
        async for packet in held.execution.packets():
            if packet["op"] == "begin":
                verdict = await self._insist(
                    records.begin(delivery.task_id, delivery.token, self._settings.outcome_ttl_s)
                )
                held.began = verdict == "ok"
                if held.began:
                    self._limit_time(held)
                held.over = verdict != "ok"
                held.server.answer(held.execution.key, go=verdict == "ok")
            elif packet["op"] == "runs":
                held.resumable = packet["resumable"]
            elif packet["op"] == "output":
                # Not heard, it costs the orchestrator one slow poll.
                with contextlib.suppress(BrokerUnavailable):
                    await self._connection.run(records.tell(delivery.task_id, delivery.token))
            elif packet["op"] == "stderr":
                held.stderr_file = packet["path"]
            elif packet["op"] == "expired":
                held.expired = True
            elif packet["op"] == "done" and held.began and not held.over:
                # Said before the process is gone, so that the run goes on while it takes itself
                # down.
                held.ending = True
                await self._finish(delivery, State(packet["outcome"]), packet["detail"])
                held.over = True
            elif packet["op"] == "exited" and not held.over:
                await self._end_without_report(held, packet["exit_code"])

    async def _end_without_report(self, held: "_Held", exit_code: int | None) -> None:
        delivery = held.delivery
        reason = _death_in_words(exit_code)
        if held.cancelled:
            await self._finish(delivery, State.CANCELLED, {"reason": reason})
        elif held.expired and held.began:
            reason = "Its worker could not renew its lease in time."
            await self._finish(delivery, State.LOST, self._last_words(reason))
        elif held.expired or (held.given_back and (not held.began or delivery.kind is Kind.RUN)):
            await self._requeue(delivery, reason, counts=False)
        elif held.given_back:
            reason = "Its worker was shut down before it ended."
            await self._finish(delivery, State.LOST, self._last_words(reason))
        elif held.began:
            reason = f"{held.limit or reason}{held.last_lines()}"
            await self._finish(delivery, State.CRASHED, {"reason": reason, "exit_code": exit_code})
        else:
            await self._requeue(delivery, reason, counts=True)

    def _limit_time(self, held: "_Held") -> None:
        timeout_s = getattr(held.message, "timeout_s", None)
        if timeout_s is not None:
            reason = f"It ran longer than its limit of {timeout_s:g} s (tag {TIMEOUT_TAG!r})."
            held.timer = asyncio.get_running_loop().call_later(
                timeout_s, self.exceed, held.delivery.task_id, reason
            )

    def exceed(self, task_id: str, reason: str) -> None:
        """Kill a message that exceeds a limit; its end names the limit."""
        held = self._held.get(task_id)
        if held is not None and not held.over and not held.ending:
            held.limit = reason
            held.server.signal(held.execution.key, signal.SIGKILL)

    def cancel(self, task_id: str) -> None:
        """Stop one message: SIGTERM now, SIGKILL after the grace."""
        held = self._held.get(task_id)
        if held is None or held.cancelled:
            return
        held.cancelled = True
        held.server.signal(held.execution.key, signal.SIGTERM)
        asyncio.get_running_loop().call_later(
            self._settings.cancel_grace_s, held.server.signal, held.execution.key, signal.SIGKILL
        )

    async def restate(self, task_id: str) -> None:
        """Tell a broker that forgot it what really runs here; kill it if it is somebody else's."""
        held = self._held.get(task_id)
        if held is None or held.ending:
            return
        call = records.restate(held.delivery, self._worker_id)
        if await self._connection.run(call) != "ok":
            self.revoke(task_id)

    def revoke(self, task_id: str) -> None:
        """Kill what is not ours any more, and report nothing for it."""
        held = self._held.get(task_id)
        if held is not None and not held.ending:
            held.over = True
            held.server.signal(held.execution.key, signal.SIGKILL)

    def hand_over_runs(self) -> None:
        """Let another worker go on with the runs that lose nothing by it."""
        for held in self._held.values():
            if held.delivery.kind is Kind.RUN and (held.resumable or not held.began):
                self._give_back(held)

    def give_back_all(self) -> None:
        """Kill what is held still, and let another worker have what can be had again."""
        for held in self._held.values():
            self._give_back(held)

    def _give_back(self, held: "_Held") -> None:
        if not held.over:
            held.given_back = True
            # Dagster is not signalled: SIGTERM would make an executor stop its steps.
            held.server.signal(held.execution.key, signal.SIGKILL)

    async def _requeue(self, delivery: Delivery, reason: str, *, counts: bool) -> None:
        await self._insist(
            records.requeue(
                delivery.task_id,
                delivery.token,
                reason,
                self._settings.outcome_ttl_s,
                counts=counts,
            )
        )

    def _last_words(self, reason: str) -> dict[str, Any]:
        return {"reason": reason, "worker": self._worker_id, "host": self._host, "gone": True}

    async def _finish(
        self, delivery: Delivery, outcome: State, detail: dict[str, Any], dead: str = ""
    ) -> None:
        finish = records.finish(
            delivery.task_id,
            delivery.token,
            outcome,
            detail,
            self._settings.outcome_ttl_s,
            dead_letter=dead,
        )
        held = self._held.get(delivery.task_id)
        refused = await self._insist(finish) == "revoked"
        # It may be that the broker forgot it since the last renewal.
        if refused and held is not None and held.began:
            restate = records.restate(delivery, self._worker_id)
            if await self._insist(restate) == "ok":
                await self._insist(finish)

    async def _insist(self, call: Call[T]) -> T:
        """Repeat a transition until the broker answers; it is idempotent, and ours to make."""
        while True:
            try:
                return await self._connection.run(call)
            except BrokerUnavailable as error:
                logger.warning("%s", error, extra={"action": "broker_away"})


class _Held:
    """One delivery and what was decided about it so far."""

    def __init__(
        self,
        delivery: Delivery,
        message: Message,
        server: ForkServerClient,
        execution: Execution,
    ) -> None:
        self.delivery = delivery
        self.message = message
        self.server = server
        self.execution = execution
        self.began = False
        self.cancelled = False
        #: A run whose executor can go on elsewhere where its log left off.
        self.resumable = False
        self.given_back = False
        #: The fork server killed it because nobody renewed the lease.
        self.expired = False
        #: Why it was killed for exceeding a limit.
        self.limit = ""
        self.timer: asyncio.TimerHandle | None = None
        #: Where its step writes stderr, once it does.
        self.stderr_file: str | None = None
        #: Its outcome is on its way to the broker.
        self.ending = False
        #: Its record has ended, or is not ours: nothing more is to be written for it.
        self.over = False

    def last_lines(self) -> str:
        """Return the end of what its step wrote to stderr, for whoever asks why it died."""
        if self.stderr_file is None:
            return ""
        try:
            with Path(self.stderr_file).open("rb") as written:
                written.seek(0, os.SEEK_END)
                written.seek(max(0, written.tell() - _LAST_BYTES))
                lines = written.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return "\nLast lines of its stderr:\n" + "\n".join(lines[-_LAST_LINES:]) if lines else ""


def _death_in_words(exit_code: int | None) -> str:
    if exit_code is None:
        return "Its process was killed because the fork server died."
    if exit_code >= 0:
        return f"Its process left with exit code {exit_code} and without a word."
    name = signal.Signals(-exit_code).name
    hint = " The kernel does that when memory runs out." if name == "SIGKILL" else ""
    return f"Its process was killed by {name}.{hint}"
