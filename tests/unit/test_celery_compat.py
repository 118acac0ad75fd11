"""dagster-celery's names and configuration: understood, noted, or refused with what to do."""

import dagster as dg
import pytest
import yaml

from dagster_taskiq_kit import TaskiqRunLauncher, celery_compat, taskiq_executor
from dagster_taskiq_kit.config.celery_config import translate
from dagster_taskiq_kit.config.dagster_config import limit_fields
from dagster_taskiq_kit.config.routing import StepRoutes, run_route
from dagster_taskiq_kit.config.settings import LIMITS, TaskiqSettings
from dagster_taskiq_kit.vocabulary.errors import ConfigurationError
from dagster_taskiq_kit.vocabulary.masking import masked

REDIS = "redis://localhost:6379/3"


def test_the_old_names_are_there_under_the_old_values():
    assert celery_compat.DAGSTER_CELERY_QUEUE_TAG == "dagster-celery/queue"
    assert celery_compat.DAGSTER_CELERY_STEP_PRIORITY_TAG == "dagster-celery/priority"
    assert celery_compat.DAGSTER_CELERY_RUN_PRIORITY_TAG == "dagster-celery/run_priority"
    assert celery_compat.celery_executor.name == "celery"
    # What runs carry is the kit's: a project that reads it by the old name reads that.
    assert celery_compat.DAGSTER_CELERY_TASK_ID_TAG == "dagster-taskiq/task_id"
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
        with dg.instance_for_test() as instance:
            config = dg.validate_run_config(job, config)["execution"]
            made = _made(executor, config[executor.name], instance)
    assert made.settings.url == REDIS
    assert made.settings.default_queue == "q"
    assert made.retries.disabled


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


def _made(executor, config, instance):
    """Make an executor of a config that Dagster has validated."""

    class Context:
        executor_config = config

    Context.instance = instance
    return executor.executor_creation_fn(Context())


VARIABLES = {
    "A_URL": REDIS, "A_WORD": "word", "A_NUMBER": "7", "A_FRACTION": "30.5", "A_TRUTH": "false",
}  # fmt: skip
BY_VARIABLE = {
    "broker": {"env": "A_URL"}, "default_queue": {"env": "A_WORD"},
    "default_priority": {"env": "A_NUMBER"}, "inherit_run_queue": {"env": "A_TRUTH"},
    "lease_s": {"env": "A_FRACTION"}, "give_up_s": {"env": "A_NUMBER"},
    "queue_wait_timeout_s": {"env": "A_FRACTION"}, "outcome_ttl_s": 70,
    "queues": {"gpu": {"slo_s": {"env": "A_FRACTION"}, "backlog_warn": {"env": "A_NUMBER"}}},
    "max_concurrent": {"env": "A_NUMBER"}, "worker_lost_retries": {"env": "A_NUMBER"},
    "include": [], "config_source": {"task_default_queue": {"env": "A_WORD"}},
}  # fmt: skip


def _expect(settings):
    assert (settings.url, settings.default_queue, settings.default_priority) == (REDIS, "word", 7)
    assert (settings.lease_s, settings.give_up_s) == (30.5, 7.0)
    assert settings.queue_wait_timeout_s == 30.5
    assert not settings.inherit_run_queue
    assert settings.objective("gpu").slo_s == 30.5
    assert settings.objective("gpu").backlog_warn == 7


def test_a_variable_may_stand_for_each_value_of_the_executor(monkeypatch):
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    executor = taskiq_executor
    graph = dg.GraphDefinition(name="graph")
    job = dg.JobDefinition(name="job", graph_def=graph, executor_def=executor)
    config = dg.validate_run_config(job, {"execution": {"config": BY_VARIABLE}})["execution"]
    with dg.instance_for_test() as instance:
        made = _made(executor, config["taskiq"], instance)
    _expect(made.settings)
    assert (made._limits.max_concurrent, made._limits.worker_lost_retries) == (7, 7)


def test_a_variable_may_stand_for_each_value_of_the_launcher(monkeypatch, tmp_path):
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    block = {"module": "dagster_taskiq_kit", "class": "TaskiqRunLauncher", "config": BY_VARIABLE}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"run_launcher": block}))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        _expect(instance.run_launcher.settings)
        assert instance.run_launcher.explicit_limits["max_concurrent"] == 7


@pytest.mark.parametrize(("value", "said"), [(None, "is not set"), ("soon", "'soon'")])
def test_a_variable_without_a_number_is_named(monkeypatch, tmp_path, value, said):
    if value is not None:
        monkeypatch.setenv("A_FRACTION", value)
    block = {"module": "dagster_taskiq_kit", "class": "TaskiqRunLauncher",
             "config": {"lease_s": {"env": "A_FRACTION"}}}  # fmt: skip
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"run_launcher": block}))
    with (
        dg.DagsterInstance.from_config(str(tmp_path)) as instance,
        pytest.raises(dg.DagsterInvalidConfigError, match=f"A_FRACTION must hold a number.*{said}"),
    ):
        _ = instance.run_launcher


def test_where_the_old_configuration_names_the_broker_the_default_queue_is_the_old_one():
    def queue(config, launcher=celery_compat.CeleryRunLauncher):
        return launcher(**config).settings.home_queue("here")

    assert queue({"broker": REDIS}) == "dagster"
    assert queue({"broker": REDIS, "default_queue": "mine"}) == "mine"
    assert queue({"broker": REDIS, "config_source": {"task_default_queue": "mine"}}) == "mine"
    assert queue({"broker": REDIS, "queue_template": "of-{code_location}"}) == "of-here"
    assert queue({"url": REDIS}) == "default"
    assert queue({"broker": REDIS}, TaskiqRunLauncher) == "default"


@pytest.mark.parametrize(
    ("block", "config", "environment", "expected"),
    [
        ({"default_queue": "short"}, {"broker": REDIS}, {}, "short"),
        ({"queue_template": "of-{code_location}"}, {"broker": REDIS}, {}, "of-here"),
        ({}, {"broker": REDIS}, {"DAGSTER_TASKIQ_DEFAULT_QUEUE": "mine"}, "mine"),
        ({"broker": REDIS}, {}, {}, "dagster"),
        ({"queue_template": "of-{code_location}"}, {"default_queue": "etl"}, {}, "etl"),
        ({}, {"default_queue": "etl"}, {"DAGSTER_TASKIQ_QUEUE_TEMPLATE": "x-{code_location}"}, "etl"),
        ({"default_queue": "etl"}, {}, {"DAGSTER_TASKIQ_QUEUE_TEMPLATE": "x-{code_location}"}, "etl"),
    ],
)  # fmt: skip
def test_where_work_goes_is_what_the_strongest_source_says(
    monkeypatch, tmp_path, block, config, environment, expected
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    launcher = {"module": "dagster_taskiq_kit.celery_compat", "class": "CeleryRunLauncher"}
    (tmp_path / "dagster.yaml").write_text(
        yaml.safe_dump({"run_launcher": {**launcher, "config": block}})
    )
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        made = _made(celery_compat.celery_executor, config, instance)
    assert made.settings.home_queue("here") == expected


def test_an_executor_lifts_the_launchers_limit_by_saying_so(tmp_path):
    block = {"module": "dagster_taskiq_kit", "class": "TaskiqRunLauncher",
             "config": {"max_concurrent": 4}}  # fmt: skip
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"run_launcher": block}))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert _made(taskiq_executor, {}, instance)._limits.max_concurrent == 4
        assert (
            _made(taskiq_executor, {"max_concurrent": None}, instance)._limits.max_concurrent
            is None
        )


def test_the_limits_are_named_once_for_those_who_cannot_import_dagster():
    assert tuple(limit_fields()) == LIMITS


@pytest.mark.parametrize(
    ("broker", "words"),
    [
        ("sentinel://:hidden@h:26379", r"write redis\+sentinel://"),
        ("redis+socket:///run/redis.sock?virtual_host=1", "write unix:///run/redis.sock"),
        ("redis://a:6379/0;redis://b:6379/0", "one url only"),
        ("rediss://h/0?ssl_cert_reqs=MAYBE", "ssl_cert_reqs must be one of none"),
        ("redis://h/0?socket_timeout=abc", "socket_timeout must be a number of seconds"),
    ],
)
def test_a_broker_as_celery_writes_it_is_refused_with_what_to_write(broker, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        celery_compat.CeleryRunLauncher(broker=broker)
    assert "hidden" not in str(caught.value)


def test_celerys_words_for_certificates_are_understood():
    launcher = celery_compat.CeleryRunLauncher(broker="rediss://h/0?ssl_cert_reqs=CERT_NONE")
    assert launcher.settings.url == "rediss://h/0?ssl_cert_reqs=none"


@pytest.mark.parametrize(
    "text",
    [
        "redis://:p@hidden-word@host/0", "redis://u:hidden-word@h", "x redis://:hidden-word@h y",
        "redis+sentinel://h/svc/0?sentinel_password=hidden-word&a=1", "redis://h?password=hidden-word",
    ],
)  # fmt: skip
def test_no_form_of_a_password_is_shown(text):
    shown = masked(text)
    assert "hidden" not in shown
    assert "***" in shown
