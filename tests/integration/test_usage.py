"""What each step used is what the kernel's accounting says, in its record, the log and the metrics."""

from pathlib import Path

import dagster as dg
import pytest

from dagster_taskiq_kit.broker import readings
from dagster_taskiq_kit.broker.histograms import read_histograms
from dagster_taskiq_kit.vocabulary.messages import step_task_id

CODE = Path(__file__).parent / "code" / "using_jobs.py"
STATUS = dg.DagsterRunStatus
#: What Dagster and the kit do in a step beside its body, on a busy machine.
BESIDE_CPU_S = 1.0


@pytest.fixture(scope="module")
def site(make_fleet, open_site):
    with make_fleet("postgres") as fleet, open_site(fleet, CODE) as site:
        site.start_worker()
        yield site


def execute(site, job: str, ends=STATUS.SUCCESS) -> str:
    run_id = site.launch(job)
    assert site.fleet.wait_for_run(run_id).status is ends
    return run_id


def used(site, run_id: str, step: str, attempt: int = 1) -> tuple[float, float]:
    """Return CPU seconds and MiB by the record."""
    record = readings.fetch(site.fleet.broker, step_task_id(run_id, step, attempt))
    told = record.detail["used"]
    return told["user_s"] + told["system_s"], told["peak_kib"] / 1024


def said_at_the_end(site, run_id: str) -> list[dg.DagsterEvent]:
    entries = site.instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    events = [entry.dagster_event for entry in entries]
    return [each for each in events if "slowest" in each.engine_event_data.metadata]


def rows(event: dg.DagsterEvent, table: str) -> list[dict]:
    return [record.data for record in event.engine_event_data.metadata[table].records]


def test_cpu_and_memory_of_a_step_are_those_that_the_kernel_counts(site):
    run_id = execute(site, "uses")
    (measured,) = (
        float(entry.user_message.split()[-1])
        for entry in site.instance.all_logs(run_id)
        if entry.user_message.startswith("own measure ")
    )
    cpu_s, mib = used(site, run_id, "burns")
    assert measured <= cpu_s <= measured + BESIDE_CPU_S
    idle_cpu_s, idle_mib = used(site, run_id, "does_nothing")
    assert 0 < idle_cpu_s < BESIDE_CPU_S
    assert used(site, run_id, "holds_memory")[1] >= idle_mib + 250
    assert mib < idle_mib + 250
    # A program that it has started and waited for counts as well.
    assert 1.0 <= used(site, run_id, "starts_a_program")[0] <= 1.0 + 2 * BESIDE_CPU_S


def test_of_steps_that_share_a_process_each_is_told_its_own_part(site):
    run_id = execute(site, "shares")
    pids = {
        entry.dagster_event.pid
        for entry in site.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_START)
    }
    assert len(pids) == 1
    assert used(site, run_id, "burns")[0] >= 1.5
    cpu_s, mib = used(site, run_id, "does_nothing")
    assert cpu_s < BESIDE_CPU_S
    assert used(site, run_id, "holds_memory")[1] >= mib + 250


def test_what_a_step_had_used_whose_process_died_is_told_too(site):
    run_id = execute(site, "crashes", STATUS.FAILURE)
    cpu_s, mib = used(site, run_id, "dies")
    assert 1.0 <= cpu_s <= 1.0 + BESIDE_CPU_S
    assert mib > 10


def test_one_event_a_run_says_what_its_steps_used(site):
    (event,) = said_at_the_end(site, execute(site, "uses"))
    assert "Slowest: 'burns'" in event.message or "Slowest: 'starts_a_program'" in event.message
    assert "Largest: 'holds_memory'" in event.message
    largest, slowest = rows(event, "largest"), rows(event, "slowest")
    assert {row["step"] for row in largest} == {
        "burns", "does_nothing", "holds_memory", "starts_a_program"
    }  # fmt: skip
    assert largest[0]["step"] == "holds_memory"
    assert [row["ran_s"] for row in slowest] == sorted((r["ran_s"] for r in slowest), reverse=True)
    assert all(row["waited_s"] >= 0 for row in slowest)


def test_each_attempt_of_a_step_has_its_row(site):
    (event,) = said_at_the_end(site, execute(site, "retries"))
    told = {(row["step"], row["attempt"]) for row in rows(event, "slowest")}
    assert told == {("fails_once", 1), ("fails_once", 2), ("does_nothing", 1)}


def test_histograms_count_what_steps_and_runs_used(site):
    before = read_histograms(site.fleet.broker)
    execute(site, "uses")
    after = read_histograms(site.fleet.broker)

    def more(what: str, kind: str) -> tuple[int, float]:
        now, then = after[what, "default", kind], before.get((what, "default", kind))
        return now.total - (then.total if then else 0), now.sum - (then.sum if then else 0)

    steps, cpu_s = more("cpu", "step")
    assert steps == 4
    assert 2.5 <= cpu_s <= 2.5 + 5 * BESIDE_CPU_S
    steps, held_bytes = more("peak_memory", "step")
    assert steps == 4
    assert held_bytes > 300 * 2**20
    assert more("cpu", "run")[0] <= 1  # the run's own process ends after its last event
