"""Keeps going what a worker does all the time: its lanes, its heartbeat, its hearing of orders.

Invariant: what ends before it shall, for whatever cause, is started again after a pause that grows;
log and card say so meanwhile. Without what is vital for too long the worker ends with an error, so
that whoever supervises the process learns of it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from ..vocabulary.errors import WorkerFailed
from ..vocabulary.log_actions import Action, about

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LAST_PAUSE_S = 1.0, 30.0
_CANCEL_AGAIN_S = 0.2
#: What goes on for so long is well again.
_WELL_AFTER_S = 60.0


def _never() -> bool:
    return False


class Supervision:
    """Starts activities of a worker, and starts them again."""

    def __init__(self) -> None:
        self._troubles: dict[str, tuple[str, float]] = {}

    @property
    def trouble(self) -> str:
        """What ended of late, and why; '' when nothing did."""
        now_s = time.monotonic()
        return " ".join(
            f"{name} ended and is started again: {why}."
            for name, (why, at_s) in self._troubles.items()
            if now_s - at_s < _WELL_AFTER_S
        )

    async def keep(
        self,
        name: str,
        work: Callable[[], Awaitable[None]],
        finish: asyncio.Event,
        *,
        hopeless: Callable[[], bool] = _never,
    ) -> None:
        """Do something until it shall finish.

        Args:
            name: What it is, as the start of a sentence.
            work: Does it once, which is for as long as nothing goes wrong.
            finish: Set when it shall end.
            hopeless: Asked after each end; True when the worker is no good without it any more.

        Raises:
            WorkerFailed: It is hopeless.
        """
        pause_s = _FIRST_PAUSE_S
        while not finish.is_set():
            began_s = time.monotonic()
            try:
                await work()
                why = "it stopped by itself"
            except Exception as error:
                logger.exception(
                    "%s ended; it is started again.", name, extra=about(Action.PART_RESTARTED)
                )
                why = f"{type(error).__name__}: {error}"
            if finish.is_set():
                return
            if hopeless():
                raise WorkerFailed(name, why)
            self._troubles[name] = (why, time.monotonic())
            if time.monotonic() - began_s > _WELL_AFTER_S:
                pause_s = _FIRST_PAUSE_S
            await _pause(finish, pause_s)
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)


async def _pause(finish: asyncio.Event, pause_s: float) -> None:
    try:
        await asyncio.wait_for(finish.wait(), pause_s)
    except asyncio.TimeoutError:
        return


async def cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks until they end: before Python 3.12 ``wait_for`` may lose a cancellation."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_CANCEL_AGAIN_S)
