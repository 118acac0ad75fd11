"""The heartbeat: renews the worker's lease and obeys the orders that come back with it.

Invariant: one renewal names all that the worker holds, on a connection of its own, so neither a
long claim nor a burst of finishes can delay it. What was renewed is good until ``lease_s`` after
the renewal was *sent*, so the worker never believes in its lease for longer than the broker does.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from ...broker import worker_cards
from ...broker.connection import AsyncConnection
from ...broker.worker_cards import Holding, Order, WorkerCard
from ...config.settings import TaskiqSettings
from ...host.boot_time import boot_time_s
from ...vocabulary.errors import BrokerError, BrokerUnavailable

logger = logging.getLogger(__name__)


class Heartbeat:
    """Renews one worker's lease.

    Args:
        connection: A connection that nothing else uses.
        settings: The deployment.
        instance_id: The Dagster instance.
        card: Returns the worker's card as it is now.
        held: Returns all that it holds, by task id.
        obey: Awaited with task id and order.
        renewed: Called with the boot time until which the lease is good.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        settings: TaskiqSettings,
        instance_id: str,
        card: Callable[[], WorkerCard],
        held: Callable[[], Mapping[str, Holding]],
        obey: Callable[[str, Order], Awaitable[None]],
        renewed: Callable[[float], None],
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._instance_id = instance_id
        self._card = card
        self._held = held
        self._obey = obey
        self._renewed = renewed
        self._contact_since_s: float | None = None
        self._renewed_at_s = 0.0

    def contact_s(self) -> float:
        """Return for how long the broker has answered without a break; 0 when it is away."""
        return 0.0 if self._contact_since_s is None else boot_time_s() - self._contact_since_s

    async def tick(self) -> None:
        """Renew once.

        Raises:
            BrokerError: The broker did not answer, or cannot; the lease runs on.
        """
        named = dict(self._held())
        sent_s = boot_time_s()
        lease_s = self._settings.lease_s
        renew = worker_cards.renew(self._card(), lease_s, named, self._instance_id)
        # A server that accepts and says nothing must be noticed while the lease is good.
        patience_s = min(self._settings.command_timeout_s, lease_s / 3)
        try:
            orders = await asyncio.wait_for(self._connection.run(renew, give_up_s=0), patience_s)
        except asyncio.TimeoutError:
            self._contact_since_s = None
            raise BrokerUnavailable(
                self._connection.url, f"no answer to a renewal within {patience_s:g} s."
            ) from None
        except BrokerError:
            self._contact_since_s = None
            raise
        # A process that was frozen for a lease has had no contact meanwhile, whatever it believes.
        if self._contact_since_s is None or boot_time_s() - self._renewed_at_s > lease_s:
            self._contact_since_s = sent_s
        self._renewed_at_s = sent_s
        # What was taken from this worker is given up before it believes in its lease again.
        given = list(orders.items())
        await self._obey_all([each for each in given if each[1] == "revoked"], named)
        self._renewed(sent_s + lease_s)
        await self._obey_all([each for each in given if each[1] != "revoked"], named)

    async def _obey_all(
        self, orders: Sequence[tuple[str, Order]], named: Mapping[str, Holding]
    ) -> None:
        for task_id, order in orders:
            # What was finished or claimed anew since the renewal was sent is not meant.
            holding = self._held().get(task_id)
            if holding is not None and holding.token == named[task_id].token:
                await self._obey(task_id, order)
