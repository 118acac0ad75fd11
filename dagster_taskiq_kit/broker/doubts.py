"""Whether a worker that the broker's clock calls silent is silent, and the other way round.

Invariant: no single clock says so. A worker is silent if the broker's clock and the reader's both
say that its lease is over. Where they differ, or the broker's stands before the worker's last
renewal, a second look decides: who lives renews within ``renew_s``.
"""

import time
from collections.abc import Collection

from . import leases
from .connection import SyncConnection
from .worker_cards import WorkerCard, age_by_own_clock_s

#: Renewals for which a second look waits at most.
_RENEWALS = 2
_POLL_S = 0.1


def is_doubtful(card: WorkerCard, silent_s: float, lease_left_s: float) -> bool:
    """Return whether the broker's clock is not enough to say whether a worker lives.

    Args:
        card: What the worker said at its last renewal.
        silent_s: How long ago that was by the broker's clock; negative when the clock was set back.
        lease_left_s: How long its lease is good by the broker's clock.
    """
    if lease_left_s > 0:
        return silent_s < 0
    return age_by_own_clock_s(card) < silent_s + lease_left_s


def still_silent(connection: SyncConnection, doubted: Collection[str]) -> frozenset[str]:
    """Look a second time; returns those of the workers that do not renew meanwhile.

    Raises:
        BrokerUnavailable: The broker went away.
    """
    first = connection.run(leases.leases()).renewals
    left = frozenset(worker for worker in doubted if worker in first)
    deadline_s = time.monotonic() + _RENEWALS * connection.settings.renew_s
    while left and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)
        now = connection.run(leases.leases()).renewals
        left = frozenset(worker for worker in left if now.get(worker) == first[worker])
    return left
