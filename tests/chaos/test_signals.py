"""Who is signalled when a run is cancelled or a worker is told to stop, and what comes of it."""

import signal
from pathlib import Path

import dagster as dg
import pytest

from .own_broker import OwnBroker

STATUS = dg.DagsterRunStatus
CODE = Path(__file__).parent / "code" / "tree_jobs.py"


@pytest.mark.parametrize("job", ["cleaning_here", "cleaning_apart"])
def test_a_cancelled_step_is_interrupted_once_and_ends_its_own_programs(make_chaos, job):
    """On the kit's executor and on Dagster's multiprocess executor."""
    with make_chaos(code=CODE) as chaos:
        chaos.start_worker()
        run_id = chaos.launch(job)
        chaos.wait_for_note("cleaning")
        assert chaos.fleet.instance.run_launcher.terminate(run_id)
        assert chaos.wait_for_note("cleaned")["alive"]
        assert chaos.fleet.wait_for_run(run_id).status is STATUS.CANCELED
        assert not (chaos.ledger_file.parent / "signalled").exists()


def test_a_run_whose_step_is_deaf_says_itself_that_it_is_canceled(make_chaos):
    """The run outlives the grace of its steps, so that nobody else has to find out later."""
    with make_chaos(code=CODE, settings={"cancel_grace_s": 2}) as chaos:
        chaos.start_worker()
        run_id = chaos.launch("deaf")
        chaos.wait_for_note("deaf")
        assert chaos.fleet.instance.run_launcher.terminate(run_id)
        assert chaos.fleet.wait_for_run(run_id).status is STATUS.CANCELED
        (entry,) = chaos.fleet.instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_CANCELED)
        worker = chaos.worker_said(1)
        assert f"pid: {entry.dagster_event.pid}" in "".join(chaos.fleet.said(run_id)), worker


def test_a_drain_gives_up_after_a_lease_while_the_broker_is_away(make_chaos, broker: OwnBroker):
    settings = {"drain_timeout_s": 1}
    with make_chaos(code=CODE, url=broker.url, settings=settings) as chaos:
        worker = chaos.start_worker()
        chaos.launch("held")
        chaos.wait_for_note("body")
        broker.kill()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
        assert "Draining took a lease longer" in chaos.worker_said(1)


def test_a_second_signal_ends_a_worker_at_once(make_chaos):
    with make_chaos(code=CODE, settings={"drain_timeout_s": 300}) as chaos:
        worker = chaos.start_worker()
        chaos.launch("held")
        chaos.wait_for_note("body")
        worker.send_signal(signal.SIGTERM)
        chaos.fleet.wait_for(lambda: "Draining" in chaos.worker_said(1), "the drain")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 128 + signal.SIGTERM
