"""Nothing in a fork server's loop waits: for a frozen worker, for a descendant, for a large message."""

import asyncio
import signal
import time
from pathlib import Path

import dagster as dg
import psutil
import pytest
from taskiq.exceptions import SendTaskError
from taskiq.kicker import AsyncKicker

from dagster_taskiq_kit import PriorityStreamBroker
from dagster_taskiq_kit.broker.records import MAX_PAYLOAD_BYTES
from dagster_taskiq_kit.vocabulary.errors import MessageTooLarge

from .conftest import Chaos

STATUS = dg.DagsterRunStatus
CODE = Path(__file__).parent / "code" / "tree_jobs.py"


@pytest.fixture
def loop(make_chaos):
    with make_chaos(code=CODE) as chaos:
        yield chaos


def test_a_frozen_worker_with_chatty_steps_keeps_its_deadline(loop: Chaos):
    """Three steps write an output each 10 ms, which their worker does not read any more."""
    loop.start_orchestrating()
    frozen = loop.start_executing(slots=4)
    run_id = loop.launch("chatty")
    quiet = loop.wait_for_note("quiet")
    loop.wait_for_note("body", 3)
    frozen.send_signal(signal.SIGSTOP)
    loop.fleet.wait_for(lambda: not psutil.pid_exists(quiet["pid"]), "its children to be killed")
    loop.start_executing(slots=4)
    second = loop.wait_for_note("quiet", 2)
    assert second["attempt"] == 2
    frozen.send_signal(signal.SIGCONT)
    assert loop.fleet.instance.run_launcher.terminate(run_id)
    assert loop.fleet.wait_for_run(run_id).status in (STATUS.CANCELED, STATUS.FAILURE)
    assert loop.fleet.stop_worker(frozen) == 0


def test_a_large_message_delays_nobody_and_one_beyond_the_limit_is_refused(loop: Chaos):
    loop.start_worker(slots=4)
    run_id = loop.launch("held")
    body = loop.wait_for_note("body")
    broker = PriorityStreamBroker(loop.fleet.settings)
    size = MAX_PAYLOAD_BYTES - 4_096

    async def measure(length: int) -> int:
        sent = await AsyncKicker("tree_jobs:measure", broker, {}).kiq("x" * length)
        return (await sent.wait_result(check_interval=0.1, timeout=100)).return_value

    async def all_of_it() -> None:
        await broker.startup()
        assert await asyncio.gather(*(measure(size) for _ in range(3))) == [size] * 3
        with pytest.raises(SendTaskError) as refused:
            await measure(MAX_PAYLOAD_BYTES)
        assert isinstance(refused.value.__cause__, MessageTooLarge)
        assert "Put the data into a file" in str(refused.value.__cause__)
        await broker.shutdown()

    asyncio.run(all_of_it())
    assert psutil.pid_exists(body["pid"])
    loop.open_gates("slow")
    assert loop.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    assert len(loop.noted("body")) == 1


def test_the_process_of_a_step_that_has_ended_leaves_whatever_it_left_behind(loop: Chaos):
    """A thread, a pool, an exit handler, a stdout that nobody reads: one slot, four steps."""
    worker = loop.start_worker(slots=1)
    run_id = loop.launch("lingering")
    assert loop.fleet.wait_for_run(run_id, 200).status is STATUS.SUCCESS
    told = [line for line in loop.fleet.said(run_id) if "(poller)" in line]
    assert len(told) == 1
    assert "left threads running" in told[0]
    assert "The process of step:" in loop.worker_said(1)
    assert loop.fleet.stop_worker(worker) == 0


def test_a_fork_server_that_shall_keep_no_child_waiting_rests(loop: Chaos):
    """All slots are full, and the child that was made ahead stands by: none more is wanted."""
    worker = loop.start_worker(slots=1)
    loop.launch("held")
    loop.wait_for_note("body")
    (server,) = psutil.Process(worker.pid).children()
    used_s = lambda: sum(server.cpu_times()[:2])  # noqa: E731
    until_s = time.monotonic() + 3  # it has made what it makes after a start
    loop.fleet.wait_for(lambda: time.monotonic() > until_s, "it to come to rest")
    before_s, until_s = used_s(), time.monotonic() + 3
    loop.fleet.wait_for(lambda: time.monotonic() > until_s, "three seconds of rest")
    assert used_s() - before_s < 1
    loop.open_gates("slow")
