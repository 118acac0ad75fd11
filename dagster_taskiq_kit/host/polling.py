"""Waits until something can be read; ``select.select`` takes no descriptor above 1,023."""

import select
from collections.abc import Iterable
from typing import Protocol


class HasDescriptor(Protocol):
    """Whatever shows a descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""
        ...


def readable(ends: Iterable[int | HasDescriptor], timeout_s: float) -> bool:
    """Wait until one of some descriptors can be read or is hung up.

    Args:
        ends: The descriptors.
        timeout_s: Longest wait; 0 only looks.

    Returns:
        Whether one can be.
    """
    poll = select.poll()
    for end in ends:
        poll.register(end, select.POLLIN)
    return bool(poll.poll(max(0.0, timeout_s) * 1_000))
