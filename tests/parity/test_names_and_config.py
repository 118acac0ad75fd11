"""The names, tags and settings of a dagster-celery project, as its runs meet them."""

import ast
import contextlib
import logging
import re
from pathlib import Path

import dagster as dg
import pytest
import yaml

from dagster_taskiq_kit.testing.fleet import OUR_LAUNCHER
from dagster_taskiq_kit.vocabulary.messages import run_task_id

from .conftest import Live, open_live
from .test_upstream_control import TEN_TO_ZERO

CODE = Path(__file__).parent / "code" / "control_jobs.py"
ROOT = Path(__file__).parents[2]
SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE


@pytest.fixture
def open_fleet(make_fleet):
    with contextlib.ExitStack() as stack:

        def open_one(**options) -> Live:
            return stack.enter_context(open_live(stack.enter_context(make_fleet(**options)), CODE))

        yield open_one


def queues(live: Live) -> set[str]:
    return {queue.name for queue in live.fleet.snapshot().queues}


def notes(live: Live, run_id: str) -> list[str]:
    return [line for line in live.fleet.said(run_id) if "Tags of dagster-celery" in line]


def test_a_queue_tag_of_a_run_routes_its_steps_too(open_fleet):
    live = open_fleet()
    live.start_worker(queues=["gpu"])
    run_id = live.launch("subset_job", {"dagster-taskiq/queue": "gpu"})
    run, _, _ = live.ended(run_id)
    assert run.status is SUCCESS
    assert queues(live) == {"gpu"}
    assert notes(live, run_id) == []


def test_without_inheritance_a_queue_tag_of_a_run_is_the_runs_alone(open_fleet):
    live = open_fleet(settings={"inherit_run_queue": False})
    live.start_worker(queues=["gpu", "default"])
    run, _, said = live.ended(live.launch("subset_job", {"dagster-taskiq/queue": "gpu"}))
    assert run.status is SUCCESS
    assert "Queued the run on queue 'gpu'" in said
    assert "Queued step \"emits\" on queue 'default'" in said


def test_a_run_says_which_message_it_is(open_fleet):
    live = open_fleet()
    run_id = live.launch("low_job")
    tags = live.fleet.instance.get_run_by_id(run_id).tags
    assert tags["dagster-taskiq/task_id"] == run_task_id(run_id, 0) == live.record(run_id).task_id


def test_old_tags_of_run_and_steps_are_understood_and_noted_once(open_fleet):
    live = open_fleet()
    live.start_worker(queues=["old", "fooqueue"])
    run_id = live.launch("multiqueue_job", {"dagster-celery/queue": "old"})
    run, _, said = live.ended(run_id)
    assert run.status is SUCCESS
    assert "Queued the run on queue 'old'" in said
    assert "Queued step \"in_fooqueue\" on queue 'fooqueue'" in said
    (note,) = notes(live, run_id)
    assert "dagster-celery/queue" in note


def test_a_template_gives_a_code_location_its_queue_and_workers_subscribe_by_it(open_fleet):
    live = open_fleet(settings={"queue_template": "of-{code_location}"})
    live.start_worker()
    run, _, said = live.run("subset_job")
    assert run.status is SUCCESS
    assert "Queued the run on queue 'of-control_jobs.py'" in said
    (card,) = [worker.card for worker in live.fleet.snapshot().live_workers]
    assert list(card.queues) == ["of-control_jobs.py"]
    assert queues(live) == {"of-control_jobs.py"}


def test_an_old_dagster_yaml_needs_its_module_changed_only(open_fleet, broker_url, monkeypatch):
    """Its executor says nothing and takes what the launcher's block says."""
    monkeypatch.setenv("THE_BROKER", broker_url)
    old = {
        "module": "dagster_taskiq_kit.celery_compat",  # was dagster_celery
        "class": "CeleryRunLauncher",
        "config": {
            "broker": {"env": "THE_BROKER"}, "backend": {"env": "THE_BROKER"},
            "default_queue": "from-launcher",
            "config_source": {"task_default_priority": 7, "worker_prefetch_multiplier": 1},
        },
    }  # fmt: skip
    live = open_fleet(launcher=old)
    written = yaml.safe_load((live.fleet.home / "dagster.yaml").read_text())
    assert written["run_launcher"]["config"]["broker"] == {"env": "THE_BROKER"}
    live.start_worker(environment={"DAGSTER_TASKIQ_URL": ""})
    (card,) = [worker.card for worker in live.fleet.snapshot().live_workers]
    assert list(card.queues) == ["from-launcher"]
    run, _, said = live.run("subset_job")
    assert run.status is SUCCESS
    assert "Queued the run on queue 'from-launcher' with priority 7" in said
    assert "Queued step \"emits\" on queue 'from-launcher' with priority 7" in said


def test_what_an_executor_does_not_say_it_takes_from_the_launchers_block(open_fleet):
    """Its limits too; and a limit lets the more urgent steps begin, by any of the tags."""
    limits = {"max_concurrent": 1, "retries": {"disabled": {}}}
    live = open_fleet(launcher={**OUR_LAUNCHER, "config": limits})
    live.start_worker(slots=3)
    run_id = live.launch("simple_priority_job")
    assert live.ended(run_id)[0].status is SUCCESS
    assert live.order(run_id) == TEN_TO_ZERO
    run, counts, _ = live.run("retried_job")
    assert run.status is FAILURE
    assert counts["STEP_UP_FOR_RETRY"] == 0


@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        ("late_bad_tag_job", "Tag 'dagster-celery/priority' of step 'takes' is 'soon'"),
        ("words_as_priority_job", "Tag 'dagster/priority' of step 'emits' is 'high'"),
    ],
)
def test_a_bad_tag_is_told_by_the_name_it_has_before_the_first_step_begins(
    open_fleet, job, sentence
):
    live = open_fleet()
    live.start_worker()
    run, counts, _ = live.run(job)
    assert run.status is FAILURE
    assert counts["STEP_START"] == 0
    failed = {dg.DagsterEventType.RUN_FAILURE}
    (entry,) = live.fleet.instance.all_logs(run.run_id, of_type=failed)
    assert (
        f"{sentence}: it must be an integer" in entry.dagster_event.job_failure_data.error.message
    )


@pytest.mark.parametrize("job", ["low_job", "multiqueue_job"])
def test_old_tags_are_one_warning_a_run_whatever_executes_it(open_fleet, job):
    live = open_fleet()
    live.start_worker(queues=["default", "fooqueue"])
    run, _, _ = live.run(job)
    entries = live.fleet.instance.all_logs(run.run_id)
    (note,) = [entry for entry in entries if "Tags of dagster-celery" in entry.user_message]
    assert note.level == logging.WARNING


def test_what_an_executors_config_says_that_is_not_needed_is_said_in_the_log(open_fleet, tmp_path):
    live = open_fleet()
    live.start_worker()
    file = tmp_path / "run.yaml"
    source = {"worker_prefetch_multiplier": 1}
    file.write_text(yaml.safe_dump({"execution": {"config": {"config_source": source}}}))
    run = live.launch_by_command("subset_job", "-c", str(file))
    _, _, said = live.ended(run.run_id)
    assert said.count("config_source.worker_prefetch_multiplier is not needed: ") == 1


def test_each_test_of_dagster_celery_is_named_by_one_of_ours():
    page = (ROOT / "docs" / "migrating-from-celery.md").read_text()
    rows = re.findall(r"^\| \*(test_\w+)\* \| ([^|]+) \|([^|]*)\|$", page, flags=re.MULTILINE)
    assert len(rows) == len({name for name, *_ in rows}) == 39
    said: dict[str, str] = {}
    for file in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                said[node.name] = ast.get_docstring(node) or ""
    for name, verdict, ours in rows:
        if verdict.startswith("not applicable: "):
            continue
        tests = re.findall(r"`(test_\w+)`", ours)
        assert any(re.search(rf"\b{name}\b", said[test]) for test in tests), name
