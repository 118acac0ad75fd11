"""Keeps the lanes of a worker listening, whatever ends one.

Invariant: a lane that ends before the worker shall finish is started again, after a pause that
grows; log and card say so meanwhile. What it had handed out goes on.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from .lanes import LaneReceiver

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LAST_PAUSE_S = 1.0, 30.0
#: A lane that listens for so long is well again.
_WELL_AFTER_S = 60.0


class LaneSupervision:
    """Starts lanes, and starts them again.

    Args:
        finish: Set when they shall end.
    """

    def __init__(self, finish: asyncio.Event) -> None:
        self._finish = finish
        self._troubles: dict[str, tuple[str, float]] = {}

    @property
    def trouble(self) -> str:
        """Which lanes ended of late, and why; '' when none did."""
        now_s = time.monotonic()
        return " ".join(
            f"Lane {name} ended and is started again: {why}."
            for name, (why, at_s) in self._troubles.items()
            if now_s - at_s < _WELL_AFTER_S
        )

    async def keep(self, name: str, make: Callable[[], LaneReceiver]) -> None:
        """Listen until the worker shall finish.

        Args:
            name: The lane.
            make: Makes its receiver anew.
        """
        pause_s = _FIRST_PAUSE_S
        while not self._finish.is_set():
            began_s = time.monotonic()
            try:
                await make().listen(self._finish)
                if self._finish.is_set():
                    return
                why = "its receiver stopped"
            except Exception as error:
                logger.exception("Lane %s ended; it is started again.", name)
                why = f"{type(error).__name__}: {error}"
            self._troubles[name] = (why, time.monotonic())
            if time.monotonic() - began_s > _WELL_AFTER_S:
                pause_s = _FIRST_PAUSE_S
            await self._pause(pause_s)
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)

    async def _pause(self, pause_s: float) -> None:
        try:
            await asyncio.wait_for(self._finish.wait(), pause_s)
        except asyncio.TimeoutError:
            return
