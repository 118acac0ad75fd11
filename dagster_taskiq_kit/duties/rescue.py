"""Rescue: takes from workers whose lease has expired what they held.

Invariant: nobody rescues before it has itself had unbroken contact with the broker for a whole
lease. The broker has been up that long then, so after an outage the living have renewed first.
"""

import logging
from collections.abc import Callable

from ..broker import records
from ..broker.connection import AsyncConnection
from ..settings import TaskiqSettings

logger = logging.getLogger(__name__)


class Rescue:
    """One worker's part in the rescue; in each round one of them does it.

    Args:
        connection: The broker.
        worker_id: This worker.
        settings: The deployment.
        contact_s: For how long the broker has answered this worker without a break.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        worker_id: str,
        settings: TaskiqSettings,
        contact_s: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._worker_id = worker_id
        self._settings = settings
        self._contact_s = contact_s

    async def tick(self) -> None:
        """Rescue once, if it is this worker's turn.

        Raises:
            BrokerError: The broker did not answer.
        """
        if self._contact_s() < self._settings.lease_s:
            return
        # Every worker asks each ``renew_s``; half of it lets a lone worker rescue each time.
        round_s = self._settings.renew_s / 2
        call = records.rescue(self._worker_id, round_s, self._settings.outcome_ttl_s)
        for rescued in await self._connection.run(call, give_up_s=0):
            logger.warning(
                "The lease of worker %s has expired; %s is %s.",
                rescued.worker_id,
                rescued.task_id,
                rescued.state.value,
                extra={"action": "rescued", "task_id": rescued.task_id},
            )
