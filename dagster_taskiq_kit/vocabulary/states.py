"""The states of a message's record and its only legal transitions, stated once.

The Lua scripts get this table rendered into their prelude and refuse any other move, so Python and
the broker cannot disagree. The diagram stands in ``docs/architecture.md``.
"""

from enum import Enum


class State(str, Enum):
    """Where one message is in its life; the value is what the broker stores."""

    QUEUED = "queued"
    CLAIMED = "claimed"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CRASHED = "crashed"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    LOST = "lost"


class Kind(str, Enum):
    """What a message asks for: a whole run, one step, or a user's own taskiq task."""

    RUN = "run"
    STEP = "step"
    TASK = "task"


#: A record in one of these never changes again and expires after ``outcome_ttl_s``. LOST is final
#: for steps and tasks, too; a lost run may be queued again, so it is not listed.
TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CRASHED, State.CANCELLED, State.REFUSED})

#: Somebody owns a record in one of these.
OWNED = frozenset({State.CLAIMED, State.RUNNING})

TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.CLAIMED, State.CANCELLED, State.REFUSED}),
    State.CLAIMED: frozenset({State.RUNNING, State.QUEUED, State.CANCELLED, State.REFUSED}),
    State.RUNNING: frozenset(
        {
            State.SUCCEEDED,
            State.FAILED,
            State.CRASHED,
            State.CANCELLED,
            State.REFUSED,
            State.LOST,
            State.QUEUED,
        }
    ),
    State.LOST: frozenset({State.QUEUED, State.CRASHED, State.CANCELLED}),
    **{state: frozenset() for state in TERMINAL},
}

#: The bands of priority, lowest to highest; ten is served first.
BANDS = range(11)


def band_of_priority(priority: int) -> int:
    """Return the band that serves a priority: the same number, clamped to 0..10."""
    return max(BANDS[0], min(BANDS[-1], priority))
