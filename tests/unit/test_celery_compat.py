"""dagster-celery's names and configuration: understood, noted, or refused with what to do."""

import dagster as dg
import pytest

from dagster_taskiq_kit import TaskiqRunLauncher, celery_compat, taskiq_executor
from dagster_taskiq_kit.celery_config import translate
from dagster_taskiq_kit.errors import ConfigurationError
from dagster_taskiq_kit.routing import StepRoutes, run_route
from dagster_taskiq_kit.settings import TaskiqSettings

REDIS = "redis://localhost:6379/3"


def test_the_old_names_are_there_under_the_old_values():
    assert celery_compat.DAGSTER_CELERY_QUEUE_TAG == "dagster-celery/queue"
    assert celery_compat.DAGSTER_CELERY_STEP_PRIORITY_TAG == "dagster-celery/priority"
    assert celery_compat.DAGSTER_CELERY_RUN_PRIORITY_TAG == "dagster-celery/run_priority"
    assert celery_compat.celery_executor.name == "celery"
    assert issubclass(celery_compat.CeleryRunLauncher, TaskiqRunLauncher)


def test_an_old_launcher_block_is_understood():
    launcher = celery_compat.CeleryRunLauncher(
        broker=REDIS, backend="rpc://", default_queue="long-queue", include=["my_module"],
        config_source={"worker_prefetch_multiplier": 1, "task_default_priority": 7},
    )  # fmt: skip
    assert launcher.settings.url == REDIS
    assert launcher.settings.default_queue == "long-queue"
    assert launcher.settings.default_priority == 7
    assert TaskiqRunLauncher(broker=REDIS).settings.url == REDIS


@pytest.mark.parametrize("executor", [celery_compat.celery_executor, taskiq_executor])
def test_an_old_executor_block_is_understood(executor):
    job = dg.JobDefinition(
        name="job", graph_def=dg.GraphDefinition(name="graph"), executor_def=executor
    )
    config = {"execution": {"config": {
        "broker": {"env": "THE_BROKER"}, "retries": {"disabled": {}},
        "config_source": {"task_default_queue": "q", "result_expires": 60},
    }}}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THE_BROKER", REDIS)
        assert dg.validate_run_config(job, config)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"broker": "pyamqp://guest:hidden@rabbit//"}, "Redis or Valkey: name one"),
        ({"backend": "rpc://"}, "backend has no meaning here; remove it"),
        ({"include": ["m"]}, "include has no meaning here; remove it: workers serve the code"),
        ({"config_source": {"worker_concurrency": 4}}, "say --slots"),
        ({"config_source": {"task_routes": {}}}, "dagster-taskiq/queue"),
        ({"config_source": {"beat_schedule": {}}}, "it is a setting of Celery"),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_do(config, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        TaskiqRunLauncher(**config)
    assert "hidden" not in str(caught.value)


def test_what_is_not_needed_any_more_is_noted():
    found = translate(
        {"backend": "rpc://", "config_source": {"task_acks_late": True}}, where="it", tolerant=True
    )
    assert len(found.notes) == 2
    assert "by its lease" in found.notes[1]


def test_a_template_makes_one_queue_a_code_location():
    settings = TaskiqSettings.resolve({"queue_template": "loc-{code_location}"}, {})
    assert run_route(settings, {}, "etl.py").queue == "loc-etl.py"
    assert run_route(settings, {}, "my team's code").queue == "loc-my-team-s-code"
    assert run_route(settings, {}, None).queue == "default"
    assert run_route(settings, {"dagster-taskiq/queue": "gpu"}, "etl.py").queue == "gpu"

    class Step:
        key = "load"
        tags: dict = {}  # noqa: RUF012

    assert StepRoutes(settings, {}, "etl.py").of(Step()).queue == "loc-etl.py"
    with pytest.raises(ConfigurationError, match="names the same queue for all"):
        TaskiqSettings.resolve({"queue_template": "all"}, {})
