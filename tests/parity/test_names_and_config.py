"""The names, tags and settings of a dagster-celery project, as its runs meet them."""

import ast
import contextlib
import re
from pathlib import Path

import dagster as dg
import pytest
import yaml

from dagster_taskiq_kit.messages import run_task_id

from .conftest import Live, open_live

CODE = Path(__file__).parent / "code" / "control_jobs.py"
ROOT = Path(__file__).parents[2]
SUCCESS = dg.DagsterRunStatus.SUCCESS


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
    live.start_worker(queues=["from-launcher"])
    run, _, said = live.run("subset_job")
    assert run.status is SUCCESS
    assert "Queued the run on queue 'from-launcher' with priority 7" in said
    assert "Queued step \"emits\" on queue 'from-launcher' with priority 7" in said


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
