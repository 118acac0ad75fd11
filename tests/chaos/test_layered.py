"""A location whose children import its code themselves is as safe as one that is forked with it."""

import os
import signal

import dagster as dg
import psutil
import pytest

from .conftest import Chaos

STATUS = dg.DagsterRunStatus
#: What the import leaves, so that nobody may fork after it.
LAYERED = {"LEAVE_A_THREAD": "1"}


def child(chaos: Chaos) -> int:
    return chaos.bodies("patient")[0].pid


def fork_server(chaos: Chaos) -> int:
    return psutil.Process(child(chaos)).ppid()


def worker(chaos: Chaos) -> int:
    return chaos.bodies("patient")[0].worker


@pytest.mark.parametrize("victim", [child, fork_server, worker])
def test_whatever_is_killed_a_step_of_a_layered_location_is_retried_and_never_twice_at_once(
    chaos: Chaos, victim
):
    chaos.start_orchestrating(environment=LAYERED)
    chaos.start_executing(environment=LAYERED)
    for card in [each.card for each in chaos.fleet.snapshot().workers]:
        (mode,) = card.modes.values()
        assert mode.startswith("layered")
        assert "the thread 'left'" in mode
    run_id = chaos.launch("retried")
    chaos.wait_for_bodies("patient")
    pid = child(chaos)
    os.kill(victim(chaos), signal.SIGKILL)
    chaos.start_executing(environment=LAYERED)
    chaos.wait_for_bodies("patient", 2)
    chaos.open_gates("patient")
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS, chaos.explain()
    assert [entry.attempt for entry in chaos.bodies("patient")] == [1, 2]
    assert len(chaos.bodies("patient", "end")) == 1
    assert not chaos.overlaps("patient")
    assert not psutil.pid_exists(pid)
