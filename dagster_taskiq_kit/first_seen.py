"""Since when something is so, by what this process saw itself.

Invariant: no clock of another machine has a say, and no jump of this one's: times are of the boot
clock, from the first look that found it so, over looks that followed each other. What a look does
not find is forgotten, and a pause between two looks forgets everything: nobody knows what was so
meanwhile.
"""

from collections.abc import Callable, Hashable, Iterable

from .boot_time import boot_time_s


class FirstSeen:
    """What was found by looks that followed each other.

    Args:
        pause_s: Longest time between two looks that counts as without a pause.
        clock: Returns seconds; default the boot clock.
    """

    def __init__(self, pause_s: float, clock: Callable[[], float] = boot_time_s) -> None:
        self._pause_s = pause_s
        self._clock = clock
        self._since_s: dict[Hashable, float] = {}
        self._looked_at_s = float("-inf")

    def look(self, things: Iterable[Hashable]) -> frozenset[Hashable]:
        """Take note of all that is so now; returns what was not so at the look before."""
        now_s = self._clock()
        before = self._since_s if now_s - self._looked_at_s <= self._pause_s else {}
        self._since_s = {thing: before.get(thing, now_s) for thing in things}
        self._looked_at_s = now_s
        return frozenset(self._since_s.keys() - before.keys())

    def for_s(self, thing: Hashable) -> float:
        """Return for how long something is known to be so; 0 when the last look did not find it."""
        now_s = self._clock()
        return now_s - self._since_s.get(thing, now_s)

    def forget(self) -> None:
        """Begin anew."""
        self._since_s = {}
