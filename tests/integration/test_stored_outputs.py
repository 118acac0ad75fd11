"""With require_upstream_step_success false a step begins when its input is stored, not before."""

from pathlib import Path

import dagster as dg

CODE = Path(__file__).parent / "code" / "stored_jobs.py"
STATUS = dg.DagsterRunStatus


def events(site, run_id, kind):
    return list(site.instance.all_logs(run_id, of_type=kind))


def test_a_step_begins_when_its_input_is_stored_whatever_kind_of_output_it_is(site):
    site.start_worker(slots=6)
    run_id = site.launch("every_kind")
    home = site.fleet.home
    # All is announced, and the Nothing has let its step begin.
    for step in ("plain", "several", "many"):
        site.wait_for((home / f"storing-{step}").exists, f"{step} to be stored", run_id)
    assert (home / "began-of_signal").exists()
    before = {
        e.dagster_event.step_key for e in events(site, run_id, dg.DagsterEventType.STEP_START)
    }
    assert before == {"plain", "several", "many", "of_signal"}
    site.open_gate("store")
    assert site.fleet.wait_for_run(run_id).status is STATUS.SUCCESS, site.fleet.said(run_id)
    assert len(events(site, run_id, dg.DagsterEventType.STEP_SUCCESS)) == 8


def test_a_step_does_not_begin_when_storing_its_input_failed(site):
    site.open_gate("store")
    site.start_worker()
    run_id = site.launch("fails_to_store")
    assert site.fleet.wait_for_run(run_id).status is STATUS.FAILURE
    assert not (site.fleet.home / "began-of_bad").exists()
    errors = events(site, run_id, dg.DagsterEventType.STEP_FAILURE)
    assert [e.dagster_event.step_key for e in errors] == ["bad"]
