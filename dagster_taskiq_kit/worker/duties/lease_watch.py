"""Who is silent: the verdict of one rescuer, from what it saw itself.

Invariant: a worker is named only if what its last renewal left behind stood unchanged for a whole
lease of this machine's boot clock, over looks that followed each other without a gap. A look that
was answered late, or came late, says nothing about the time before it: the broker or this process
was frozen then, and nobody could renew. Who is named has no lease left by its own clock, because
its renewal was sent before the look that first saw it was answered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...broker.leases import Silent


@dataclass(frozen=True)
class Look:
    """One reading of all renewals.

    Args:
        sent_s: When it was asked for, on the boot clock.
        answered_s: When the answer had come.
        renewals: What the last renewal of each registered worker left behind.
    """

    sent_s: float
    answered_s: float
    renewals: Mapping[str, str]


class LeaseWatch:
    """What one rescuer saw of the workers' renewals.

    Args:
        lease_s: How long a worker is trusted after its last renewal.
        renew_s: How often the workers renew, and the rescuer looks.
    """

    def __init__(self, lease_s: float, renew_s: float) -> None:
        self._lease_s = lease_s
        #: Longest time from answer to answer: a busy machine may be late by a round, and within
        #: half a lease who lives has renewed.
        self._gap_s = max(2 * renew_s, lease_s / 2)
        self._last: Look | None = None
        #: By worker: what stands there, and since when it is known to.
        self._standing: dict[str, tuple[str, float]] = {}

    def saw(self, look: Look) -> None:
        """Take note of a look."""
        last = self._last
        if last is None or look.answered_s - last.answered_s > self._gap_s:
            self._standing = {}
        self._last = look
        before = self._standing
        self._standing = {
            worker: before[worker]
            if worker in before and before[worker][0] == renewal
            else (renewal, look.answered_s)
            for worker, renewal in look.renewals.items()
        }

    def silent(self) -> Sequence[Silent]:
        """Return who did not renew for a lease, the longest silent first."""
        if self._last is None:
            return []
        found = [
            Silent(worker, renewal, self._last.sent_s - since_s)
            for worker, (renewal, since_s) in self._standing.items()
        ]
        silent = [each for each in found if each.for_s >= self._lease_s]
        return sorted(silent, key=lambda each: -each.for_s)

    def forget(self) -> None:
        """Begin anew: what was seen may not be what it seemed."""
        self._last = None
        self._standing = {}
