"""The users' own taskiq tasks, executed by the fleet's workers and awaited through the resource."""

import importlib.util
import os
import sys
import traceback
from pathlib import Path

import dagster as dg
import pytest

from dagster_taskiq_kit import TaskiqResource
from dagster_taskiq_kit.testing.local import InProcessTaskiqResource
from dagster_taskiq_kit.vocabulary.errors import ConfigurationError, TaskEnded, TaskTimedOut
from tests import preloaded

CODE = Path(__file__).parent / "code" / "task_jobs.py"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """The module with the tasks, as an importer of the user's package has it."""
    os.environ["GATE"] = str(tmp_path_factory.mktemp("gate") / "gate")
    spec = importlib.util.spec_from_file_location("task_jobs", CODE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["task_jobs"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def site(make_watching):
    with make_watching(code=CODE) as made:
        yield made


@pytest.fixture
def taskiq(site) -> TaskiqResource:
    settings = site.fleet.settings
    return TaskiqResource(url=settings.url, namespace=settings.namespace)


def test_who_waits_for_a_task_in_a_queue_that_nobody_serves_is_told_once(
    taskiq, tasks, caplog, monkeypatch
):
    monkeypatch.setenv("DAGSTER_TASKIQ_UNSERVED_NOTE_S", "1")
    caplog.set_level("INFO")
    said = lambda text: sum(text in line for line in caplog.messages)  # noqa: E731
    with pytest.raises(TaskTimedOut):
        taskiq.submit(tasks.square, 7, queue="nowhere").result(5)
    assert said("No live worker serves queue 'nowhere', in which task ") == 1
    assert said("dagster-taskiq worker start") == 1


def notes(site) -> list[str]:
    file = Path(f"{site.gate}.notes")
    return file.read_text().splitlines() if file.exists() else []


def test_a_task_runs_in_a_child_and_its_result_its_error_and_its_death_come_back(
    site, taskiq, tasks
):
    site.start_worker(slots=2)
    assert taskiq.submit(tasks.square, 7).result(60) == 49
    assert taskiq.submit(tasks.square_later, number=3).result(60) == {"square": 9}
    (line,) = notes(site)
    assert int(line.split()[2]) != os.getpid()
    with pytest.raises(Exception, match="5 is not a square") as caught:
        taskiq.submit(tasks.fails, 5).result(60)
    assert type(caught.value).__name__ == "NotASquare"
    said = "".join(traceback.format_exception(caught.value))
    assert "task_jobs.py" in said
    assert 'raise NotASquare(f"{number} is not a square")' in said
    with pytest.raises(TypeError, match="is not JSON"):
        taskiq.submit(tasks.returns_no_json).result(60)
    with pytest.raises(TaskEnded, match="crashed.*SIGSEGV"):
        taskiq.submit(tasks.dies).result(60)
    with pytest.raises(ConfigurationError, match="is not a taskiq task"):
        taskiq.submit(lambda: 1)


def test_map_is_bounded_ordered_or_not_and_cancels_the_rest_when_one_raises(site, taskiq, tasks):
    site.start_worker(slots=2)
    assert list(taskiq.map(tasks.square, range(9), max_in_flight=3)) == [n * n for n in range(9)]
    unordered = taskiq.map(tasks.square, range(9), max_in_flight=3, ordered=False)
    assert sorted(unordered) == [n * n for n in range(9)]
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield taken[-1]

    with pytest.raises(Exception, match="is not a square"):
        list(taskiq.map(tasks.fails, endless(), max_in_flight=3))
    assert len(taken) <= 3
    site.fleet.wait_for(
        lambda: not any(q.backlog or q.claimed or q.running for q in taskiq.queues()),
        "the rest to be cancelled",
    )


def test_a_task_that_nobody_waits_for_any_more_is_cancelled(site, taskiq, tasks):
    site.start_worker(slots=1)
    handle = taskiq.submit(tasks.waits)
    with pytest.raises(TaskTimedOut, match="did not end within 3 s"):
        handle.result(3)
    site.fleet.wait_for(lambda: handle.done, "the task to be gone")
    with pytest.raises(TaskEnded, match="cancelled"):
        handle.result(10)
    assert "went on" not in notes(site)


def test_a_task_in_a_run_ends_with_the_run(site, taskiq):
    site.start_worker(slots=2)
    run_id = site.launch("waiting_for_task")
    site.fleet.wait_for(lambda: "waits" in notes(site), "the task to begin")
    assert site.instance.run_launcher.terminate(run_id)
    assert site.fleet.wait_for_run(run_id).status is dg.DagsterRunStatus.CANCELED
    site.fleet.wait_for(
        lambda: not any(q.backlog or q.claimed or q.running for q in taskiq.queues()),
        "nothing of it to be left",
    )
    assert "went on" not in notes(site)


def test_an_op_maps_tasks_and_says_how_far_it_is(site):
    site.start_worker(slots=3)
    run = site.fleet.wait_for_run(site.launch("squaring"))
    said = site.fleet.said(run.run_id)
    assert run.status is dg.DagsterRunStatus.SUCCESS, said
    assert any("squares: [0, 1, 4, 9, 16, 25]" in line for line in said)
    assert any("all 6 done" in line for line in said)


def test_a_task_that_no_worker_knows_is_a_dead_letter_that_can_be_requeued(site, taskiq, tasks):
    from taskiq import async_shared_broker

    site.start_worker(slots=1)
    unknown = async_shared_broker.register_task(lambda: 1, task_name="elsewhere:unknown")
    with pytest.raises(TaskEnded, match="refused"):
        taskiq.submit(unknown).result(60)
    (queue,) = [queue for queue in taskiq.queues() if queue.name == "default"]
    assert queue.dead_letters == 1


def test_a_dead_letter_of_a_task_is_executed_once_a_worker_knows_it(site, taskiq, tasks):
    others_code = ["-f", str(CODE.parent / "health_jobs.py")]
    other = site.fleet.start_worker(*others_code, environment={"GATE": str(site.gate)})
    handle = taskiq.submit(tasks.square, 6)
    with pytest.raises(TaskEnded, match="refused"):
        handle.result(60)
    assert site.fleet.stop_worker(other) == 0
    site.start_worker(slots=1)
    command = [sys.executable, "-m", "dagster_taskiq_kit", "dead-letter", "requeue", "--all"]
    done = preloaded.run(command, env=site.fleet.environment, within_s=60)
    assert done.returncode == 0, done.stderr
    assert f"{handle.task_id} waits in queue 'default' again." in done.stdout
    assert handle.result(60) == 36


def test_the_resource_works_in_a_sensor_and_in_a_schedule(site, taskiq, tasks):
    handle = taskiq.submit(tasks.square, 1)
    assert site.tick("backlog_sensor").skip_reason == "1 wait."
    schedule = tasks.defs.schedules[0]
    with dg.build_schedule_context(resources={"taskiq": taskiq}) as context:
        assert schedule.evaluate_tick(context).skip_message == "1 wait."
        site.start_worker(slots=1)
        assert handle.result(60) == 1
        assert len(schedule.evaluate_tick(context).run_requests) == 1


def test_a_paused_queue_hands_nothing_out_until_it_is_resumed(site, taskiq, tasks):
    site.start_worker(slots=1)
    assert taskiq.pause("default")
    handle = taskiq.submit(tasks.square, 2)
    site.fleet.wait_for(lambda: taskiq.queues()[0].backlog == 1, "the task to wait")
    assert not handle.done
    assert taskiq.resume("default")
    assert handle.result(60) == 4
    assert taskiq.ping() > 0
    assert any(finding.check == "reachable" for finding in taskiq.findings())


def test_code_that_uses_the_resource_is_tested_without_a_server(tasks):
    taskiq = InProcessTaskiqResource()
    assert taskiq.submit(tasks.square, 3).result() == 9
    assert list(taskiq.map(tasks.square, [1, 2])) == [1, 4]
    with pytest.raises(ValueError, match="not a square"):
        taskiq.submit(tasks.fails, 1).result()
    assert taskiq.pause("default")
    assert taskiq.snapshot().queue("default").paused
    assert tasks.squares(dg.build_op_context(), taskiq=taskiq) == [0, 1, 4, 9, 16, 25]
