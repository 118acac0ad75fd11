"""What becomes of a delivery whose process is gone and has said nothing: a pure function.

Invariant: what has begun is never handed out again by its worker; it ends as lost or crashed, and
the orchestrator decides about a retry. The exception is a run that a drain hands over to another
worker. What has not begun goes back to its queue.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from ...vocabulary.states import State


class Phase(Enum):
    """How far a delivery is. It goes forward only."""

    #: It is held; nothing of the user's has run for it.
    CLAIMED = 1
    #: The broker has said that its body may begin.
    BEGUN = 2
    #: Its outcome is on its way to the broker.
    ENDING = 3
    #: Its record has ended, or is not ours: nothing more is to be written for it.
    OVER = 4


@dataclass(frozen=True)
class Facts:
    """What is known of a delivery when its process is gone.

    Args:
        begun: Its body was allowed to begin.
        is_run: It executes a run.
        cancelled: It was told to stop.
        expired: Its fork server killed it because nobody renewed the lease.
        given_back: A drain killed it.
        over_limit: It was killed for exceeding a limit.
        with_fork_server: Its fork server died before it, so nobody knows how it ended.
    """

    begun: bool
    is_run: bool
    cancelled: bool
    expired: bool
    given_back: bool
    over_limit: bool
    with_fork_server: bool


@dataclass(frozen=True)
class Transition:
    """How its record goes on.

    Args:
        to: The state: QUEUED gives it back to its queue.
        counts: For QUEUED: whether this delivery counts towards ``MAX_DELIVERIES``.
        why: What to say, where it is not how the process died.
    """

    to: State
    counts: bool = True
    why: str = ""


#: The first that holds decides.
_RULES: Sequence[tuple[Callable[[Facts], bool], Transition]] = (
    (lambda f: f.cancelled, Transition(State.CANCELLED)),
    (
        lambda f: f.expired and f.begun,
        Transition(State.LOST, why="Its worker could not renew its lease in time."),
    ),
    (lambda f: f.expired, Transition(State.QUEUED, counts=False)),
    (
        lambda f: f.given_back and f.begun and not f.is_run,
        Transition(State.LOST, why="Its worker was shut down before it ended."),
    ),
    (lambda f: f.given_back, Transition(State.QUEUED, counts=False)),
    (lambda f: not f.begun, Transition(State.QUEUED)),
    # Not by anything that it did itself: it was lost as with its whole worker.
    (lambda f: f.with_fork_server and not f.over_limit, Transition(State.LOST)),
    (lambda _: True, Transition(State.CRASHED)),
)


def verdict(facts: Facts) -> Transition:
    """Return how the record of a delivery goes on whose process has ended without a word."""
    return next(transition for holds, transition in _RULES if holds(facts))
