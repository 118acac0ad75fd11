"""What a feature demands of a run beyond its events being those of the reference.

Invariant: a demand reads only what the run, the instance and the worker wrote, and fails with what
it read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, pairwise

import dagster as dg
from observed import KIND, Observed

from dagster_taskiq_kit.testing import Fleet


@dataclass(frozen=True)
class Case:
    """One run on workers and what it is held against.

    Args:
        run: The run.
        reference: The run that says what is right.
        fleet: Where the run ran.
    """

    run: Observed
    reference: Observed
    fleet: Fleet


Demand = Callable[[Case], None]


def waited(step_key, seconds):
    """Between two attempts of a step its delay passed."""

    def demand(case):
        (_, first_end), (second_begin, _) = case.run.spans(step_key)
        assert second_begin - first_end >= seconds

    return demand


def only_steps(*step_keys):
    """These steps began and no other."""

    def demand(case):
        assert case.run.begun() == set(step_keys)

    return demand


def of_its_partition(case):
    """Every materialization is of the run's partition."""
    key = case.run.run.tags["dagster/partition"]
    made = [
        entry.dagster_event.partition
        for entry in case.run.entries
        if entry.dagster_event.event_type is KIND.ASSET_MATERIALIZATION
    ]
    assert made == [key, key]


def of_a_backfill(case):
    """The run belongs to a backfill, and the backfill has a run for each partition."""
    tag = "dagster/backfill"
    runs = case.run.instance.get_runs(dg.RunsFilter(tags={tag: case.run.run.tags[tag]}))
    assert sorted(run.tags["dagster/partition"] for run in runs) == ["x", "y"]


def _together(case, step_keys):
    spans = {key: case.run.spans(key) for key in step_keys}
    return [
        (one, other, first, second)
        for one, other in combinations(spans, 2)
        for first in spans[one]
        for second in spans[other]
        if first[0] < second[1] and second[0] < first[1]
    ]


def never_together(*step_keys):
    """No two of these steps ran at once."""

    def demand(case):
        assert _together(case, step_keys) == []

    return demand


def sometimes_together(*step_keys):
    """Two of these steps ran at once, so the limits held back only what they name."""

    def demand(case):
        assert _together(case, step_keys), {key: case.run.spans(key) for key in step_keys}

    return demand


def handed_on_within(seconds, *step_keys):
    """When one of these steps ended, the next began soon: nothing slept on a free slot."""

    def demand(case):
        spans = sorted(span for key in step_keys for span in case.run.spans(key))
        gaps = [begin - end for (_, end), (begin, _) in pairwise(spans)]
        assert max(gaps) < seconds, gaps

    return demand


def pool_is_free(pool):
    """No step holds a slot of a pool, or waits for one."""

    def demand(case):
        info = case.run.instance.event_log_storage.get_concurrency_info(pool)
        assert (info.slot_count, info.active_slot_count, info.pending_step_count) == (1, 0, 0)

    return demand


def began_before_the_end_of(early, upstream):
    """A step began while its upstream step was still running."""

    def demand(case):
        ((began, _),), ((_, ended),) = case.run.spans(early), case.run.spans(upstream)
        assert began < ended, f"{early} began {began - ended:.1f} s after {upstream} had ended"

    return demand


def said_the_same(step_key):
    """The step's captured output is that of the reference."""

    def demand(case):
        assert case.run.said(step_key) == case.reference.said(step_key)
        stdout, stderr = case.run.said(step_key)
        assert stdout == b"said: print\nsaid: descriptor\nsaid: child\n"
        assert stderr == [b"said: print to stderr", b"said: child to stderr"]

    return demand


def served_layered(location):
    """The worker has said that it serves a location layered."""

    def demand(case):
        assert f"{location} (layered)" in case.fleet.worker_log(1).read_text()

    return demand
