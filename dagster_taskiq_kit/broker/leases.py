"""The leases of workers, as whoever rescues reads them, and what is taken when one has ended.

Invariant: a lease is no stamp of a clock. A renewal leaves a value that no other leaves, and who
has seen the same value for a whole lease by its own clock names it in the call that takes: a worker
that has renewed meanwhile is not meant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..vocabulary.states import State
from .records import MAX_DELIVERIES
from .scripts import Call, OfDeployment, text


@dataclass(frozen=True)
class Rescued:
    """A message that was taken from a worker that had not renewed for a lease.

    Args:
        task_id: The message.
        state: ``queued`` again, ``lost``, or ``refused`` after too many deliveries.
        worker_id: From whom.
    """

    task_id: str
    state: State
    worker_id: str


#: Workers that one call rescues at most, so that no script runs for long.
MOST_RESCUED = 20


@dataclass(frozen=True)
class Leases:
    """What the last renewal of each registered worker left behind, at one moment.

    Args:
        at_ms: That moment, on the server's clock.
        renewals: The value by worker id; no two renewals leave the same.
    """

    at_ms: int
    renewals: Mapping[str, str]


def leases() -> Call[Leases]:
    """Read what the last renewal of each registered worker left behind."""

    def read(answer: Sequence[Any]) -> Leases:
        at_ms, *flat = (text(part) for part in answer)
        return Leases(int(at_ms), dict(zip(flat[::2], flat[1::2], strict=True)))

    return Call("leases", [], read)


@dataclass(frozen=True)
class Silent:
    """A worker that does not renew its lease.

    Args:
        worker_id: The worker.
        renewal: What its last renewal left behind; if it has renewed since, it is not meant.
        for_s: For how long the rescuer saw no renewal.
    """

    worker_id: str
    renewal: str
    for_s: float


def rescue(
    silent: Sequence[Silent], seen_at_ms: int, most_s: float
) -> Call[Sequence[Rescued] | None]:
    """Take from silent workers what they held.

    Args:
        silent: Workers that did not renew for a lease.
        seen_at_ms: When that was last read, on the server's clock.
        most_s: How long ago that may be when the call is carried out.

    Returns:
        A call that answers None, and has done nothing, when the last look was not a moment ago by
        the server's clock.
    """

    def read(answer: Sequence[Any]) -> Sequence[Rescued] | None:
        if not answer[0]:
            return None
        flat = [text(part) for part in answer[1:]]
        rows = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        return [Rescued(task_id, State(state), worker) for task_id, state, worker in rows]

    arguments = [
        str(MAX_DELIVERIES), OfDeployment.OUTCOME_TTL_S, str(seen_at_ms), str(int(most_s * 1000)),
        *(part for each in silent for part in (each.worker_id, each.renewal, str(int(each.for_s)))),
    ]  # fmt: skip
    return Call("rescue", arguments, read)
