"""How a delivery's record leaves this worker.

Invariant: a transition is repeated until the broker answers. It is idempotent and this worker's to
make; where the broker refuses for good, the lease ends, and the child with it.
"""

import asyncio
import logging
import socket
from collections import Counter
from typing import Any, TypeVar

from ...broker import records
from ...broker.connection import AsyncConnection
from ...broker.records import Delivery
from ...broker.scripts import Call
from ...config.settings import TaskiqSettings
from ...vocabulary.errors import BrokerError, BrokerUnavailable
from ...vocabulary.log_actions import Action, about
from ...vocabulary.states import State
from .delivery_log import log_ended, log_requeued
from .held import Held

logger = logging.getLogger(__name__)
T = TypeVar("T")

_INSIST_PAUSE_S = 1.0


class RecordEnds:
    """Ends the records of one worker's deliveries, or gives them back.

    Args:
        worker_id: The worker.
        settings: The deployment.
        connection: The broker.
    """

    def __init__(
        self, worker_id: str, settings: TaskiqSettings, connection: AsyncConnection
    ) -> None:
        self._worker_id = worker_id
        self._settings = settings
        self._connection = connection
        #: How messages ended here.
        self.ended: Counter[State] = Counter()

    async def requeue(self, delivery: Delivery, reason: str, *, counts: bool) -> None:
        """Give a delivery back to its queue.

        Args:
            delivery: The delivery.
            reason: What happened to it.
            counts: Whether this delivery counts towards ``MAX_DELIVERIES``.
        """
        requeue = records.requeue(delivery.task_id, delivery.token, reason, counts=counts)
        if await self.insist(requeue) != "revoked":
            log_requeued(delivery, reason)

    def last_words(self, reason: str) -> dict[str, Any]:
        """Return what is said of a step that this worker itself has ended."""
        host = socket.gethostname()
        return {"reason": reason, "worker": self._worker_id, "host": host, "gone": True}

    async def finish(
        self, held: Held, outcome: State, detail: dict[str, Any], dead: str = ""
    ) -> None:
        """End a record.

        Args:
            held: The delivery.
            outcome: A terminal state, or LOST.
            detail: What the orchestrator and an operator may want to know.
            dead: Why its payload shall go to the dead letters; '' for not.
        """
        delivery = held.delivery
        log_ended(held, outcome, detail)
        self.ended[outcome] += 1
        finish = records.finish(
            delivery.task_id,
            delivery.token,
            outcome,
            detail,
            dead_letter=dead,
        )
        # It may be that the broker forgot it since the last renewal.
        if await self.insist(finish) == "revoked" and held.began:
            restate = records.restate(delivery, self._worker_id)
            if await self.insist(restate) == "ok":
                await self.insist(finish)

    async def insist(self, call: Call[T]) -> T:
        """Repeat a transition until the broker answers."""
        while True:
            try:
                return await self._connection.run(call)
            except BrokerError as error:
                logger.warning("%s", error, extra=about(Action.BROKER_AWAY))
                if not isinstance(error, BrokerUnavailable):
                    await asyncio.sleep(_INSIST_PAUSE_S)
