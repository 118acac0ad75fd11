"""The one description of a deployment: order of sources, and one sentence for a bad value."""

import pytest

from dagster_taskiq_kit.config.settings import QueueObjective, TaskiqSettings
from dagster_taskiq_kit.vocabulary.errors import ConfigurationError
from dagster_taskiq_kit.vocabulary.masking import masked


def resolve(explicit=None, environ=None):
    return TaskiqSettings.resolve(explicit, environ or {}, where="test settings")


def test_an_explicit_value_wins_over_the_environment_and_that_over_the_default():
    environ = {"DAGSTER_TASKIQ_LEASE_S": "30", "DAGSTER_TASKIQ_NAMESPACE": "from-env"}
    settings = resolve({"namespace": "explicit", "default_queue": None}, environ)
    assert (settings.namespace, settings.lease_s, settings.renew_s) == ("explicit", 30.0, 3.0)
    assert settings.default_queue == "default"


@pytest.mark.parametrize(
    ("explicit", "sentence"),
    [
        ({"url": "http://localhost"}, "'http://localhost' is not a broker url: it must look like"),
        ({"url": "redis://"}, "is not a broker url"),
        ({"namespace": "a b"}, "'a b' is not a namespace"),
        ({"default_queue": "a b"}, "'a b' is not a queue name"),
        ({"queues": {"x:y": {}}}, "'x:y' is not a queue name"),
        ({"default_priority": 11}, "default_priority=11: Input should be less than or equal to 10"),
        ({"renew_s": 10}, "lease_s (15) must be at least three times renew_s (10)"),
        ({"lease": 3}, "unknown setting 'lease'; known ones are"),
        ({"lease_s": "soon"}, "lease_s='soon'"),
        ({"url": "ftp://u:hunter2@h/0"}, "ftp://u:***@h/0"),
    ],
)
def test_a_value_that_can_never_work_is_one_sentence(explicit, sentence):
    with pytest.raises(ConfigurationError) as caught:
        resolve(explicit)
    said = str(caught.value)
    assert said.startswith("Bad test settings: ")
    assert sentence in said
    assert "hunter2" not in said


def test_no_url_says_how_to_get_one():
    with pytest.raises(ConfigurationError, match="DAGSTER_TASKIQ_URL.*dagster-taskiq dev"):
        resolve().require_url()


@pytest.mark.parametrize(
    "url", ["redis://h:1/0", "rediss://user:pw@h:6380/1", "unix:///run/valkey.sock"]
)
def test_good_urls_pass(url):
    assert resolve({"url": url}).require_url() == url


def test_passwords_are_never_shown():
    assert masked("redis://:pw@h and redis://u:pw@h") == "redis://:***@h and redis://u:***@h"


def test_settings_made_by_hand_leave_open_what_the_environment_says(monkeypatch):
    from dagster_taskiq_kit.dagster_health.health_reading import completed_by_environment

    monkeypatch.setenv("DAGSTER_TASKIQ_URL", "redis://there:1/0")
    monkeypatch.setenv("DAGSTER_TASKIQ_NAMESPACE", "staging")
    made = TaskiqSettings(queues={"gpu": QueueObjective(slo_s=5)}, lease_s=30)
    found = completed_by_environment(made)
    assert (found.url, found.namespace, found.lease_s) == ("redis://there:1/0", "staging", 30)
    assert found.queues == made.queues
    assert completed_by_environment(TaskiqSettings(namespace="mine")).namespace == "mine"
