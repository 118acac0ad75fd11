"""Rescue: takes from workers that are silent for a whole lease what they held.

Invariant: no worker is given up by one machine's clock, nor by a call that was old when it ran.

The protocol:

1. Each renewal leaves another value in the worker's hash (``renew.lua``).
2. Each worker, as a rescuer, reads those values of all registered workers every ``renew_s``
   (``leases.lua``), and only while its own renewals get through.
3. It names a worker as silent when it saw the same value for a whole ``lease_s`` of its own boot
   clock, over looks without a gap (``lease_watch.py``). After an outage, or a freeze of the broker
   or of its own, it begins anew: whoever lives has renewed long before a lease is over.
4. The rescue call says whom it means, the value that was seen, and the server's time of the last
   look. The script (``rescue.lua``) takes only from workers whose value still is that one, and does
   nothing if its clock has not moved since that look as the rescuer's did: a call that was stuck on
   its way, or a clock that was set, is refused, and all is observed anew.

There is no election: the script is atomic, and the second rescuer finds nothing left. How long a
worker believes in its own lease is in ``heartbeat.py``: no longer than any rescuer does.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from ...broker import leases
from ...broker.connection import AsyncConnection
from ...broker.leases import Silent
from ...config.settings import TaskiqSettings
from ...host.boot_time import boot_time_s
from ...vocabulary.errors import BrokerUnavailable
from ...vocabulary.log_actions import Action, about
from .lease_watch import LeaseWatch, Look

logger = logging.getLogger(__name__)


class Rescue:
    """One worker's part in the rescue.

    Args:
        connection: The broker.
        settings: The deployment.
        contact_s: For how long the broker has answered this worker without a break.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        settings: TaskiqSettings,
        contact_s: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._contact_s = contact_s
        self._watch = LeaseWatch(settings.lease_s, settings.renew_s)
        # Like a renewal, a look that is answered late is an outage.
        self._patience_s = min(settings.command_timeout_s, settings.lease_s / 3)

    async def tick(self) -> None:
        """Look at all renewals once, and rescue what silent workers held.

        Raises:
            BrokerError: The broker did not answer; nothing that was seen before counts any more.
        """
        if not self._contact_s():
            self._watch.forget()
            return
        try:
            seen_at_ms = await self._look()
        except BaseException:
            self._watch.forget()
            raise
        # A rescuer that has been in contact for less than a lease rescues nobody: the others may
        # have been cut off until a moment ago, too.
        if self._contact_s() < self._settings.lease_s:
            return
        silent = self._watch.silent()[: leases.MOST_RESCUED]
        if silent:
            await self._rescue(silent, seen_at_ms)

    async def _look(self) -> int:
        sent_s = boot_time_s()
        asking = self._connection.run(leases.leases(), give_up_s=0)
        try:
            found = await asyncio.wait_for(asking, self._patience_s)
        except asyncio.TimeoutError:
            raise BrokerUnavailable(
                self._connection.url, f"no answer to a look within {self._patience_s:g} s."
            ) from None
        self._watch.saw(Look(sent_s, boot_time_s(), found.renewals))
        return found.at_ms

    async def _rescue(self, silent: Sequence[Silent], seen_at_ms: int) -> None:
        call = leases.rescue(silent, seen_at_ms, self._patience_s)
        taken = await self._connection.run(call, give_up_s=0)
        if taken is None:
            logger.warning(
                "Nobody is given up: the broker's clock was set, or it was slow. All workers are "
                "watched for another lease.",
                extra=about(Action.CLOCK_SET),
            )
            self._watch.forget()
            return
        for rescued in taken:
            logger.warning(
                "Worker %s did not renew its lease; %s is %s.",
                rescued.worker_id,
                rescued.task_id,
                rescued.state.value,
                extra=about(Action.RESCUED, rescued.task_id),
            )
