"""What every worker does for the whole fleet: rescue, reconcile, prune, restore.

Invariant: a duty that fails is told in the log and done again at its next time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import dagster as dg

from ...broker.connection import AsyncConnection
from ...config.settings import TaskiqSettings
from ...vocabulary.errors import BrokerUnavailable
from ...vocabulary.log_actions import Action, about
from .prune import EVERY_S as PRUNE_EVERY_S
from .prune import Prune
from .reconcile import EVERY_S as RECONCILE_EVERY_S
from .reconcile import Reconcile
from .rescue import Rescue
from .restore import EVERY_S as RESTORE_EVERY_S
from .restore import Restore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Duty:
    """What a worker does again and again.

    Args:
        tick: Does it once.
        every_s: How often to try.
    """

    tick: Callable[[], Awaitable[None]]
    every_s: float


def fleet_duties(
    instance: dg.DagsterInstance,
    settings: TaskiqSettings,
    worker_id: str,
    contact_s: Callable[[], float],
    *,
    launches: bool,
) -> Sequence[Duty]:
    """Return the duties of a worker for its fleet.

    Args:
        instance: The Dagster instance.
        settings: The deployment.
        worker_id: The worker.
        contact_s: Returns for how long the broker has answered this worker.
        launches: Whether the instance launches its runs through ``TaskiqRunLauncher``.
    """
    connection = AsyncConnection(settings)
    rescue = Rescue(connection, settings, contact_s)
    reconcile = Reconcile(instance, settings, worker_id, launches=launches)

    async def reconcile_tick() -> None:
        await asyncio.to_thread(reconcile.tick)

    return [
        Duty(rescue.tick, settings.renew_s),
        Duty(reconcile_tick, RECONCILE_EVERY_S),
        Duty(Prune(connection, worker_id).tick, PRUNE_EVERY_S),
        Duty(Restore(connection, worker_id).tick, RESTORE_EVERY_S),
    ]


async def perform(duty: Duty) -> None:
    """Do a duty for as long as the worker works."""
    while True:
        await asyncio.sleep(duty.every_s)
        try:
            await duty.tick()
        except BrokerUnavailable:
            continue
        except Exception:
            logger.exception("A duty failed; it is tried again.", extra=about(Action.DUTY_FAILED))
