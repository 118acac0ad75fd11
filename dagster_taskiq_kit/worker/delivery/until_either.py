"""Waits for the first of two things; the other one is given up."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def until_either(
    one: Coroutine[Any, Any, object],
    other: Coroutine[Any, Any, object],
    timeout_s: float | None = None,
) -> None:
    """Wait until one of two coroutines has ended, or the time is over; neither goes on then."""
    waiting = [asyncio.ensure_future(one), asyncio.ensure_future(other)]
    try:
        await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
