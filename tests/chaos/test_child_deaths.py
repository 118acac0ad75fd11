"""A child dies or exceeds a limit: its step ends with the cause in words, its worker is not touched."""

import time

import dagster as dg
import psutil

from dagster_taskiq_kit.broker import readings
from dagster_taskiq_kit.health.rules import judge
from dagster_taskiq_kit.vocabulary.messages import run_task_id
from dagster_taskiq_kit.vocabulary.states import State

from .conftest import CODE, Chaos

STATUS = dg.DagsterRunStatus


def error_of(chaos: Chaos, run_id: str) -> str:
    (entry,) = chaos.fleet.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    return entry.dagster_event.step_failure_data.error.message


def test_each_death_of_a_child_is_told_with_its_cause_and_touches_nobody_else(chaos: Chaos):
    worker = chaos.start_worker("--max-memory-per-child", "300", slots=3)
    bystander = chaos.launch("one")
    chaos.wait_for_bodies("first")
    sentences = {
        "segfaults": ["killed by SIGSEGV", "Last lines of its stderr", "touch what is not mine"],
        "exits_3": ["left with exit code 3"],
        "eats_memory": ["more than its limit of 300 MiB (--max-memory-per-child"],
        "too_slow": ["longer than its limit of 1 s (tag 'dagster-taskiq/timeout')"],
    }
    for op, said in sentences.items():
        run_id = chaos.launch(f"job_{op}")
        assert chaos.fleet.wait_for_run(run_id).status is STATUS.FAILURE
        error = error_of(chaos, run_id)
        assert [each for each in said if each not in error] == [], error
        (body,) = chaos.bodies(op)
        assert not psutil.pid_exists(body.pid)
    assert worker.poll() is None
    chaos.open_gates("first")
    assert chaos.fleet.wait_for_run(bystander).status is STATUS.SUCCESS


def test_a_grandchild_that_outlives_its_step_is_killed_and_a_flood_of_output_is_kept(chaos: Chaos):
    chaos.start_worker()
    run_id = chaos.launch("job_leaves_a_grandchild")
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    grandchild = int((chaos.ledger_file.parent / "grandchild").read_text())
    chaos.fleet.wait_for(lambda: not psutil.pid_exists(grandchild), "the grandchild to be gone")
    run_id = chaos.launch("job_floods_stdout")
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    written = sum(path.stat().st_size for path in (chaos.fleet.home / "storage").rglob("*.out"))
    assert written >= 20_000_000


def test_a_step_of_four_leases_runs_once(chaos: Chaos):
    chaos.start_worker()
    chaos.start_worker()
    run_id = chaos.launch("one")
    chaos.wait_for_bodies("first")
    (body,) = chaos.bodies("first")
    born = psutil.Process(body.pid).create_time()
    chaos.fleet.wait_for(lambda: time.time() - born > 4 * chaos.fleet.settings.lease_s, "4 leases")
    chaos.open_gates("first")
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    assert len(chaos.bodies("first")) == 1


def test_a_step_whose_fork_server_is_killed_was_lost_and_not_crashed(chaos: Chaos):
    """So has its run, whose process was killed with it: both go on, as after the loss of a worker."""
    worker = chaos.start_worker()
    run_id = chaos.launch("forgiving")
    chaos.wait_for_bodies("first")
    (fork_server,) = psutil.Process(worker.pid).children()
    fork_server.kill()
    record = run_task_id(run_id, 0)
    lost = lambda: readings.fetch(chaos.fleet.broker, record).state is State.LOST  # noqa: E731
    chaos.fleet.wait_for(lost, "the run to be lost", chaos.explain)
    chaos.monitor()
    chaos.wait_for_bodies("first", 2)
    chaos.open_gates("first")
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS, chaos.explain()
    (retry,) = [line for line in chaos.fleet.said(run_id) if " STEP_UP_FOR_RETRY " in line]
    assert "was lost on worker" in retry
    assert "the fork server died" in retry
    assert len(chaos.bodies("first")) == 2


def test_a_worker_whose_code_does_not_load_any_more_claims_nothing_and_says_so(
    make_chaos, tmp_path
):
    """Its fork server dies while the code is broken: others do the work, and it goes on later."""
    with make_chaos(settings={"unserved_note_s": 1}) as chaos:
        _serve_broken_code(chaos, tmp_path)


def _serve_broken_code(chaos: Chaos, tmp_path) -> None:
    code = tmp_path / CODE.name
    code.write_text(CODE.read_text())
    environment = {"LEDGER": str(chaos.ledger_file)}
    worker = chaos.fleet.start_worker("-f", str(code), environment=environment)
    (fork_server,) = psutil.Process(worker.pid).children()
    code.write_text("raise RuntimeError('half a deploy')")
    fork_server.kill()
    chaos.fleet.wait_for(lambda: "half a deploy" in chaos.worker_said(1), "the failed restart")
    fleet = chaos.fleet
    run_id = chaos.launch("one")
    unready = lambda: [w.card.trouble for w in fleet.snapshot().workers if w.state == "unready"]  # noqa: E731
    fleet.wait_for(lambda: "half a deploy" in "".join(unready()), "the card to say it")
    (finding,) = [
        each for each in judge(fleet.snapshot(), fleet.settings) if each.check == "code_loaded"
    ]
    assert not finding.ok
    assert "half a deploy" in finding.sentence
    noted = lambda: [line for line in fleet.said(run_id) if "is not ready" in line]  # noqa: E731
    fleet.wait_for(
        lambda: any("half a deploy" in line for line in noted()), "the run's log", chaos.explain
    )
    record = fleet.broker.keys.name("record", run_task_id(run_id, 0))
    assert fleet.broker.client.hget(record, "deliveries") == b"0"
    # A fleet is not held up by it.
    other = chaos.start_worker()
    chaos.open_gates("first")
    assert fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    assert fleet.broker.client.hget(record, "deliveries") == b"1"
    assert fleet.stop_worker(other) == 0
    code.write_text(CODE.read_text())
    fleet.wait_for(lambda: not unready(), "the code to be loaded again", chaos.explain)
    assert [each.name() for each in psutil.Process(worker.pid).children()] == ["fork server"]
    assert fleet.wait_for_run(chaos.launch("one")).status is STATUS.SUCCESS
