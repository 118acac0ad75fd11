"""What a fork server knows of each of its children."""

import time
from dataclasses import dataclass, field
from typing import Any

from .wire import PatientWire


@dataclass
class Child:
    """One child, waiting or at work.

    Args:
        pid: Its process, which leads its own session and group.
        wire: To it.
        key: The delivery it works on; None while it waits.
        since_s: Monotonic time of its fork.
        leaving: It was told to end, or has ended: no delivery may be given to it any more.
        deaf: Its end of the wire is gone.
        gone_by_s: Monotonic time by which it must have left, once its message has ended.
    """

    pid: int
    wire: PatientWire
    key: str | None = None
    since_s: float = field(default_factory=time.monotonic)
    leaving: bool = False
    deaf: bool = False
    gone_by_s: float | None = None


@dataclass(frozen=True)
class Left:
    """How a child has ended.

    Args:
        child: The child.
        status: As of ``waitpid``.
        usage: What it has used.
        by_s: Monotonic time at which what it has started is killed.
    """

    child: Child
    status: int
    usage: Any
    by_s: float
