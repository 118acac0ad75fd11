"""Where a run or a step waits, and what a bad tag says."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_taskiq_kit.config.routing import Route, StepRoutes, run_route
from dagster_taskiq_kit.config.settings import TaskiqSettings
from dagster_taskiq_kit.vocabulary.errors import ConfigurationError
from dagster_taskiq_kit.vocabulary.states import BANDS, band_of_priority


@dataclass
class Step:
    tags: dict[str, str] = field(default_factory=dict)
    key: str = "load"


def settings(**values):
    return TaskiqSettings.resolve(values, {})


def route(step_tags=None, run_tags=None, **values):
    return StepRoutes(settings(**values), run_tags or {}).of(Step(step_tags or {}))


def test_a_step_without_tags_waits_in_the_default_queue_with_the_default_priority():
    assert route() == Route("default", 5)
    assert route(default_queue="work", default_priority=3) == Route("work", 3)


def test_a_steps_own_queue_wins_over_its_runs_queue():
    tags = {"dagster-taskiq/queue": "gpu"}
    assert route(tags, {"dagster-taskiq/queue": "nightly"}).queue == "gpu"
    assert route({}, {"dagster-taskiq/queue": "nightly"}).queue == "nightly"
    assert route({}, {"dagster-taskiq/queue": "n"}, inherit_run_queue=False).queue == "default"


def test_run_priority_is_added_to_step_priority():
    tags, run_tags = {"dagster-taskiq/priority": "7"}, {"dagster-taskiq/run_priority": "-3"}
    assert route(tags, run_tags).priority == 4
    assert run_route(settings(), run_tags) == Route("default", 2)


def test_tags_of_dagster_celery_and_of_dagster_itself_are_honoured():
    assert route({"dagster-celery/queue": "q", "dagster-celery/priority": "9"}) == Route("q", 9)
    # Dagster's default is 0: above it is above a step without a tag.
    assert [route({"dagster/priority": p}).priority for p in ("2", "1", "0", "-1")] == [7, 6, 5, 4]
    assert str(route({"dagster/priority": "9"})).endswith("10 (14 is outside of 0..10)")
    assert route({"dagster/priority": "2", "dagster-taskiq/priority": "8"}).priority == 8


@pytest.mark.parametrize(
    ("step_tags", "run_tags", "sentence"),
    [
        (
            {"dagster-taskiq/priority": "high"},
            {},
            "'dagster-taskiq/priority' of step 'load' is 'high'",
        ),
        (
            {},
            {"dagster-taskiq/run_priority": "x"},
            "'dagster-taskiq/run_priority' of the run is 'x'",
        ),
        (
            {"dagster-taskiq/queue": "a b"},
            {},
            "'dagster-taskiq/queue' of step 'load': 'a b' is not",
        ),
        ({}, {"dagster-taskiq/queue": "a:b"}, "'dagster-taskiq/queue' of the run: 'a:b' is not"),
    ],
)
def test_a_bad_tag_names_the_tag_and_whose_it_is(step_tags, run_tags, sentence):
    with pytest.raises(ConfigurationError, match="queue name|must be an integer") as caught:
        route(step_tags, run_tags)
    assert sentence in str(caught.value)


def test_a_priority_outside_of_the_bands_says_that_it_was_clamped():
    assert str(Route("q", 14)) == "queue 'q' with priority 10 (14 is outside of 0..10)"
    assert str(Route("q", 4)) == "queue 'q' with priority 4"


@given(st.integers())
def test_every_priority_has_a_band_and_higher_is_never_served_later(priority):
    band = band_of_priority(priority)
    assert band in BANDS
    assert band <= band_of_priority(priority + 1)
