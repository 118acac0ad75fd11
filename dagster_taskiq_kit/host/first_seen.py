"""For how long a condition has held, by this process's own observations alone.

Invariant: no clock of another machine has a say, and no jump of this one's: times are of the boot
clock, from the first look that found it so, over looks that followed each other. What a look does
not find is forgotten, and so is what nobody looked at for long: nobody knows what was so meanwhile.
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
        #: By thing: when it was first seen, and last.
        self._seen_s: dict[Hashable, tuple[float, float]] = {}

    def look(self, things: Iterable[Hashable]) -> frozenset[Hashable]:
        """Take note of all that is so now; returns what was not so at the look before."""
        before, self._seen_s = self._seen_s, {}
        now_s = self._clock()
        for thing in things:
            first_s, last_s = before.get(thing, (now_s, now_s))
            self._seen_s[thing] = (first_s if now_s - last_s <= self._pause_s else now_s, now_s)
        return frozenset(thing for thing, (first_s, _) in self._seen_s.items() if first_s == now_s)

    def look_at(self, thing: Hashable, *, holds: bool) -> float:
        """Take note of one thing alone; returns for how long it is known to be so."""
        now_s = self._clock()
        first_s, last_s = self._seen_s.pop(thing, (now_s, now_s))
        if not holds:
            return 0.0
        first_s = first_s if now_s - last_s <= self._pause_s else now_s
        self._seen_s[thing] = (first_s, now_s)
        return now_s - first_s

    def for_s(self, thing: Hashable) -> float:
        """Return for how long something is known to be so; 0 when the last look did not find it."""
        now_s = self._clock()
        return now_s - self._seen_s.get(thing, (now_s, now_s))[0]
