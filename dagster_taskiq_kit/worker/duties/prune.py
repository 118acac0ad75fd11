"""Prune: what has no time to live of its own and nobody needs any more is forgotten.

Invariant: a queue that holds work, that a worker serves or that was used within ``KEEP_S`` is kept.
Records, bells, cards and orders expire by themselves, and dead letters are trimmed as they come.
"""

import logging

from ...broker import records
from ...broker.connection import AsyncConnection
from ...vocabulary.log_actions import Action, about
from .turns import Turn

logger = logging.getLogger(__name__)

EVERY_S = 3_600.0
#: A queue may be used by a job that runs once a month.
KEEP_S = 40 * 86_400.0


class Prune:
    """One worker's part in the pruning; the one whose turn it is does it.

    Args:
        connection: The broker.
        worker_id: This worker.
    """

    def __init__(self, connection: AsyncConnection, worker_id: str) -> None:
        self._connection = connection
        self._turn = Turn("prune", worker_id, EVERY_S)

    async def tick(self) -> None:
        """Prune once, if it is this worker's turn.

        Raises:
            BrokerError: The broker did not answer.
        """
        if not await self._connection.run(self._turn.ask(), give_up_s=0):
            return
        for queue in await self._connection.run(records.prune(KEEP_S), give_up_s=0):
            logger.info(
                "Queue %r was not used for %d days and is forgotten.",
                queue,
                KEEP_S / 86_400,
                extra=about(Action.PRUNED, queue=queue),
            )
