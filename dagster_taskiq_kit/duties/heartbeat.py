"""The heartbeat: renews the worker's lease and obeys the orders that come back with it.

Invariant: one renewal names all that the worker holds, on a connection of its own, so neither a
long claim nor a burst of finishes can delay it.
"""

import logging
from collections.abc import Callable, Mapping

from ..broker import worker_cards
from ..broker.connection import AsyncConnection
from ..broker.worker_cards import WorkerCard

logger = logging.getLogger(__name__)


class Heartbeat:
    """Renews one worker's lease.

    Args:
        connection: A connection that nothing else uses.
        lease_s: How long the lease is good after a renewal.
        card: Returns the worker's card as it is now.
        held: Returns the owner token by task id of all that it holds.
        obey: Called with task id and order (``cancel`` or ``revoked``).
    """

    def __init__(
        self,
        connection: AsyncConnection,
        lease_s: float,
        card: Callable[[], WorkerCard],
        held: Callable[[], Mapping[str, str]],
        obey: Callable[[str, str], None],
    ) -> None:
        self._connection = connection
        self._lease_s = lease_s
        self._card = card
        self._held = held
        self._obey = obey

    async def tick(self) -> None:
        """Renew once.

        Raises:
            BrokerUnavailable: The broker did not answer; the lease runs on.
        """
        named = dict(self._held())
        orders = await self._connection.run(
            worker_cards.renew(self._card(), self._lease_s, named), give_up_s=0
        )
        for task_id, order in orders.items():
            # What was finished or claimed anew since the renewal was sent is not meant.
            if self._held().get(task_id) == named[task_id]:
                self._obey(task_id, order)
