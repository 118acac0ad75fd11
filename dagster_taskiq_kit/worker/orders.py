"""Orders to this worker, heard as they are given; the heartbeat repeats what is missed here.

Invariant: whatever stands in the stream, the next order is heard: an entry that cannot be read or
obeyed is told in the log and passed over.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import redis.exceptions

from ..broker.connection import blocking_client
from ..broker.keys import Keys
from ..config.settings import TaskiqSettings
from ..vocabulary.errors import BrokerError
from ..vocabulary.log_actions import Action, about
from .delivery.deliveries import Deliveries

logger = logging.getLogger(__name__)

_WAIT_MS = 2_000
_AGAIN_S = 0.5


class Orders:
    """Hears and obeys orders.

    Args:
        worker_id: The worker.
        settings: The deployment.
        deliveries: What it holds.
        of_the_worker: What to call for an order that is of no message, by its name.
    """

    def __init__(
        self,
        worker_id: str,
        settings: TaskiqSettings,
        deliveries: Deliveries,
        of_the_worker: Mapping[str, Callable[[], None]],
    ) -> None:
        self._settings = settings
        self._stream = Keys(settings.namespace).name("orders", worker_id)
        self._deliveries = deliveries
        self._of_the_worker = of_the_worker

    async def hear(self) -> None:
        """Hear orders for as long as this worker works."""
        client = blocking_client(self._settings)
        last_id: str | bytes = "0-0"
        while True:
            try:
                answer: Any = await asyncio.wait_for(
                    client.xread({self._stream: last_id}, block=_WAIT_MS),
                    _WAIT_MS / 1000 + self._settings.command_timeout_s,
                )
            except (redis.exceptions.RedisError, OSError, asyncio.TimeoutError):
                await asyncio.sleep(_AGAIN_S)
                continue
            for _, entries in answer or []:
                for entry_id, fields in entries:
                    last_id = entry_id
                    await self._take(fields)

    async def _take(self, fields: Mapping[bytes, bytes]) -> None:
        try:
            order = fields[b"order"].decode()
            task_id = "" if order in self._of_the_worker else fields[b"id"].decode()
        except (KeyError, UnicodeDecodeError):
            logger.warning(
                "An order cannot be read and is passed over: %s", dict(fields),
                extra=about(Action.UNREADABLE),
            )  # fmt: skip
            return
        if order in self._of_the_worker:
            self._of_the_worker[order]()
            return
        try:
            await self.obey(task_id, order)
        except BrokerError as error:
            logger.warning("%s", error, extra=about(Action.BROKER_AWAY))

    async def obey(self, task_id: str, order: str) -> None:
        """Obey one order: ``cancel``, ``revoked``, or ``forgotten``.

        Raises:
            BrokerError: What was forgotten could not be stated again.
        """
        said = about(Action.ORDER, task_id, order=order)
        logger.info("Order %s for %s.", order, task_id, extra=said)
        if order == "revoked":
            self._deliveries.revoke(task_id)
        elif order == "forgotten":
            await self._deliveries.restate(task_id)
        elif order == "cancel":
            self._deliveries.cancel(task_id)
        else:
            logger.warning(
                "Order %r for %s is unknown and is passed over.", order, task_id, extra=said
            )
