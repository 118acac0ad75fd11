"""What this process and the children that it has reaped have used, by the kernel's accounting.

Invariant: of a process that executes several messages each is told its own part.
"""

import contextlib
import resource
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

#: Makes the kernel forget the largest resident memory of this process (proc(5), clear_refs).
_FORGET_PEAK = "5"


@dataclass(frozen=True)
class Usage:
    """What something has used.

    Args:
        user_s: CPU in its own code.
        system_s: CPU in the kernel on its behalf.
        peak_kib: Largest resident memory of one of its processes; what is shared counts as its own.
    """

    user_s: float = 0.0
    system_s: float = 0.0
    peak_kib: int = 0

    def since(self, before: "Usage") -> "Usage":
        """Return what was used since then."""
        return Usage(self.user_s - before.user_s, self.system_s - before.system_s, self.peak_kib)

    def plus(self, used: Mapping[str, Any]) -> "Usage":
        """Return it together with more, which is data."""
        more = Usage(**used)
        peak_kib = max(self.peak_kib, more.peak_kib)
        return Usage(self.user_s + more.user_s, self.system_s + more.system_s, peak_kib)

    def data(self) -> dict[str, Any]:
        """Return it as data."""
        return asdict(self)


NOTHING = Usage()
#: The largest process that was reaped before the message at hand.
_reaped_before = [0]


def used_so_far() -> Usage:
    """Return what this process has used since its fork; of memory since the last message."""
    own, reaped = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    used = of_kernel(own, reaped)
    if reaped.ru_maxrss > _reaped_before[0]:
        return used
    # The largest that was ever reaped: the kernel forgets it never, and it was another message's.
    return Usage(used.user_s, used.system_s, own.ru_maxrss)


def of_kernel(*told: Any) -> Usage:
    """Return the sum of what the kernel told of some processes; of memory the largest."""
    return Usage(
        sum(each.ru_utime for each in told),
        sum(each.ru_stime for each in told),
        max(each.ru_maxrss for each in told),
    )


def forget_peak() -> None:
    """Have the largest resident memory begin anew, where the kernel can."""
    _reaped_before[0] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as refs:  # noqa: PTH123
        refs.write(_FORGET_PEAK)
