"""Restore: what waits by its record and has lost its place in a stream is queued again.

Invariant: the record is the truth. A stream says only in which order it is handed out, and can be
made from the records at any time; nothing is handed out twice by it.
"""

import logging

from ...broker import records
from ...broker.connection import AsyncConnection
from ...vocabulary.log_actions import Action, about
from .turns import Turn

logger = logging.getLogger(__name__)

EVERY_S = 10.0


class Restore:
    """One worker's part in the restoring; the one whose turn it is does it.

    Args:
        connection: The broker.
        worker_id: This worker.
    """

    def __init__(self, connection: AsyncConnection, worker_id: str) -> None:
        self._connection = connection
        self._turn = Turn("restore", worker_id, EVERY_S)

    async def tick(self) -> None:
        """Restore once, if it is this worker's turn.

        Raises:
            BrokerError: The broker did not answer.
        """
        if not await self._connection.run(self._turn.ask(), give_up_s=0):
            return
        for task_id in await self._connection.run(records.restore(), give_up_s=0):
            logger.warning(
                "%s had lost its place in its queue and is queued again.",
                task_id,
                extra=about(Action.RESTORED, task_id),
            )
