"""What a fork server knows of each of its children.

Invariant: a child that has executed code of a message is given another one of the same group, or
none.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .usage import NOTHING, Usage
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
        group: Whose messages alone it may be given, once it was given one; '' for anybody's.
        rests_since_s: Monotonic time since which it waits for another of them.
        told: What it has used for messages that have ended, by its own word.
    """

    pid: int
    wire: PatientWire
    key: str | None = None
    since_s: float = field(default_factory=time.monotonic)
    leaving: bool = False
    deaf: bool = False
    gone_by_s: float | None = None
    group: str = ""
    rests_since_s: float | None = None
    told: Usage = NOTHING


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


#: How long a child that shares its process waits for another message. Between two steps of a chain
#: lie some milliseconds; what it holds meanwhile is memory and no slot.
_REST_S = 3.0
#: How many may wait so; a stream of short runs would leave many.
_MOST_RESTING = 8


class Crew:
    """The children that wait: spare ones for any message, resting ones for one of their group.

    Args:
        children: All children, by pid.
    """

    def __init__(self, children: Mapping[int, Child]) -> None:
        self._children = children

    def spare(self) -> Sequence[Child]:
        """Return those that have executed nothing yet."""
        return [
            child
            for child in self._children.values()
            if child.key is None and not child.leaving and child.rests_since_s is None
        ]

    def resting(self) -> Sequence[Child]:
        """Return those that have executed something and may go on."""
        return [
            child
            for child in self._children.values()
            if child.rests_since_s is not None and not child.leaving
        ]

    def take(self, group: str) -> Child | None:
        """Return the child to give a message of a group to; None when there is none."""
        for child in self.resting():
            if group and child.group == group:
                child.rests_since_s = None
                return child
        spare = self.spare()
        return min(spare, key=lambda child: child.since_s) if spare else None

    def rested_enough(self) -> Sequence[Child]:
        """Return those that have waited in vain, and the oldest of too many."""
        since_s = time.monotonic() - _REST_S
        resting = sorted(self.resting(), key=lambda child: child.rests_since_s or 0.0)
        too_many = max(0, len(resting) - _MOST_RESTING)
        return [
            child
            for position, child in enumerate(resting)
            if position < too_many or (child.rests_since_s or 0.0) < since_s
        ]
