"""What becomes of a delivery whose process has ended without a word, for all that can be known of it."""

import itertools

import pytest

from dagster_taskiq_kit.vocabulary.states import TRANSITIONS, State
from dagster_taskiq_kit.worker.delivery.verdict import Facts, Phase, Transition, verdict

NOTHING = Facts(
    begun=False, is_run=False, cancelled=False, expired=False, given_back=False,
    over_limit=False, with_fork_server=False,
)  # fmt: skip
BACK, BACK_UNCOUNTED = Transition(State.QUEUED), Transition(State.QUEUED, counts=False)
NAMES = [*vars(NOTHING)]
EVERYTHING = [
    Facts(**dict(zip(NAMES, values, strict=True)))
    for values in itertools.product([False, True], repeat=len(NAMES))
]


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ("", BACK),
        ("with_fork_server", BACK),
        ("begun", Transition(State.CRASHED)),
        ("begun with_fork_server", Transition(State.LOST)),
        ("begun with_fork_server over_limit", Transition(State.CRASHED)),
        ("begun over_limit", Transition(State.CRASHED)),
        ("given_back", BACK_UNCOUNTED),
        ("given_back begun is_run", BACK_UNCOUNTED),
        (
            "given_back begun",
            Transition(State.LOST, why="Its worker was shut down before it ended."),
        ),
        ("expired", BACK_UNCOUNTED),
        ("expired given_back", BACK_UNCOUNTED),
        (
            "expired begun",
            Transition(State.LOST, why="Its worker could not renew its lease in time."),
        ),
        ("cancelled", Transition(State.CANCELLED)),
        ("cancelled begun expired given_back", Transition(State.CANCELLED)),
    ],
)
def test_verdicts(known, expected):
    facts = Facts(**{name: name in known.split() for name in NAMES})
    assert verdict(facts) == expected


def test_there_are_facts_of_every_kind():
    assert len(EVERYTHING) == 128


@pytest.mark.parametrize(
    "facts", EVERYTHING, ids=lambda f: " ".join(n for n in NAMES if getattr(f, n))
)
def test_every_verdict_keeps_what_the_fleet_relies_on(facts):
    found = verdict(facts)
    # What has begun is handed out again by nobody but a drain that hands a run over.
    if facts.begun and found.to is State.QUEUED:
        assert facts.given_back
        assert facts.is_run
    # What a worker itself has stopped spends none of the deliveries of a message.
    if found.to is State.QUEUED and (facts.expired or facts.given_back):
        assert not found.counts
    # Who cancels hears that it was cancelled.
    assert (found.to is State.CANCELLED) == facts.cancelled
    # Nothing ends as crashed or lost that never began.
    if not facts.begun:
        assert found.to in (State.QUEUED, State.CANCELLED)
    # The record allows it.
    assert found.to in TRANSITIONS[State.RUNNING if facts.begun else State.CLAIMED]


def test_phases_are_in_the_order_in_which_they_are_reached():
    assert [phase.name for phase in sorted(Phase, key=lambda each: each.value)] == [
        "CLAIMED", "BEGUN", "ENDING", "OVER",
    ]  # fmt: skip
