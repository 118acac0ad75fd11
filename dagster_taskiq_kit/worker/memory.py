"""How much memory a child and its own children use, and the end of one that uses too much.

Invariant: what a forked child shares with its fork server does not count, so a limit means the same
in a warm and in a cold location.
"""

import asyncio

import psutil

from .delivery.deliveries import Deliveries
from .options import MEMORY_OPTION

_MIB = 1024 * 1024
_LOOK_S = 0.5


async def watch_memory(deliveries: Deliveries, limit_mib: int | None) -> None:
    """Kill each message that uses more than a limit; never ends.

    Args:
        deliveries: What the worker holds.
        limit_mib: Most unshared memory of one message; None for no limit.
    """
    while True:
        await asyncio.sleep(_LOOK_S)
        for each in deliveries.executing() if limit_mib is not None else ():
            used = await asyncio.to_thread(used_mib, each.pid) if each.pid else 0
            if limit_mib is not None and used > limit_mib:
                reason = (
                    f"It used {used:.0f} MiB of memory, more than its limit of {limit_mib} MiB "
                    f"({MEMORY_OPTION} of its worker)."
                )
                deliveries.exceed(each.message.task_id, reason)


def used_mib(pid: int) -> float:
    """Return the unshared memory of a process and all below it, in MiB; 0 when it is gone."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0.0
    return sum(_unshared_bytes(member) for member in family) / _MIB


def _unshared_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().uss)
    except psutil.Error:
        return 0
