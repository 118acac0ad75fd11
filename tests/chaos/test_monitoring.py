"""Dagster's own run monitoring over our launcher: health is what the record says, and no daemon error."""

import time
from dataclasses import replace

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus

from dagster_taskiq_kit.broker import leases, records, worker_cards
from dagster_taskiq_kit.broker.leases import Silent
from dagster_taskiq_kit.broker.worker_cards import Holding, WorkerCard
from dagster_taskiq_kit.version import SCHEMA_VERSION
from dagster_taskiq_kit.vocabulary import messages
from dagster_taskiq_kit.vocabulary.errors import BrokerUnavailable
from dagster_taskiq_kit.vocabulary.states import Kind, State

from .conftest import Chaos
from .own_broker import OwnBroker

STATUS = dg.DagsterRunStatus


@pytest.fixture
def chaos(make_chaos, broker):
    with make_chaos(url=broker.url) as made:
        yield made


class Puppet:
    """A worker whose every call to the broker the test makes itself."""

    def __init__(self, chaos: Chaos) -> None:
        self._connection = chaos.fleet.broker
        self.card = WorkerCard("puppet-1", "puppet", "puppet-host", 4711, ["default"], 1, 1, ["c"])

    def claim(self):
        kinds = [Kind.RUN]
        self.delivery = self._connection.run(
            records.claim(
                worker_id=self.card.worker_id, lane="runs", token="t", kinds=kinds,
                queues=["default"], oldest_first=False,
            )
        )  # fmt: skip

    def renew(self, lease_s: float = 60) -> None:
        held = {self.delivery.task_id: Holding(self.delivery.token, began=False)}
        self._connection.run(worker_cards.renew(self.card, lease_s, held, ""))

    def renew_empty(self, lease_s: float) -> None:
        self._connection.run(worker_cards.renew(self.card, lease_s, {}, ""))

    def begin(self) -> None:
        self._connection.run(records.begin(self.delivery.task_id, self.delivery.token))

    def finish(self, state: State) -> None:
        detail = {"reason": "The puppet says so."}
        call = records.finish(self.delivery.task_id, self.delivery.token, state, detail)
        self._connection.run(call)


def health(chaos: Chaos, run_id: str):
    run = chaos.fleet.instance.get_run_by_id(run_id)
    found = chaos.fleet.instance.run_launcher.check_run_worker_health(run)
    return found.status, found.msg


def test_the_health_of_a_run_is_what_its_record_says(chaos: Chaos, broker: OwnBroker):
    run_id = chaos.launch("one")
    assert health(chaos, run_id) == (
        WorkerStatus.RUNNING, "Waiting in queue 'default' (priority 5).",
    )  # fmt: skip
    puppet = Puppet(chaos)
    puppet.claim()
    puppet.renew()
    status, said = health(chaos, run_id)
    assert (status, said) == (
        WorkerStatus.RUNNING, "Claimed on worker puppet-1 (host puppet-host, pid 4711).",
    )  # fmt: skip
    puppet.begin()
    assert health(chaos, run_id)[0] is WorkerStatus.RUNNING
    assert health(chaos, run_id)[1].startswith("Running on worker puppet-1 ")
    puppet.renew(lease_s=0.001)
    silent = lambda: "which was not heard for" in health(chaos, run_id)[1]  # noqa: E731
    chaos.fleet.wait_for(silent, "the lease to be over")
    assert health(chaos, run_id)[0] is WorkerStatus.RUNNING  # a clock is no verdict
    debug = chaos.fleet.instance.run_launcher.get_run_worker_debug_info(
        chaos.fleet.instance.get_run_by_id(run_id)
    )
    for part in ("puppet-1", "puppet-host", "4711", "not heard for"):
        assert part in debug
    seen = chaos.fleet.broker.run(leases.leases())
    silent = [Silent(worker, renewal, 3) for worker, renewal in seen.renewals.items()]
    rescued = chaos.fleet.broker.run(leases.rescue(silent, seen.at_ms, 60))
    assert [(each.task_id, each.state) for each in rescued] == [
        (messages.run_task_id(run_id, 0), State.LOST)
    ]
    status, said = health(chaos, run_id)
    assert status is WorkerStatus.FAILED
    assert "lost" in said
    assert "puppet-host was not heard for" in said


@pytest.mark.parametrize("state", [State.CRASHED, State.FAILED, State.SUCCEEDED, State.REFUSED])
def test_a_process_that_ended_while_its_run_is_open_has_failed(chaos: Chaos, state):
    run_id = chaos.launch("one")
    puppet = Puppet(chaos)
    puppet.claim()
    puppet.begin()
    puppet.finish(state)
    status, said = health(chaos, run_id)
    assert status is WorkerStatus.FAILED
    assert "The puppet says so." in said


def test_no_record_is_a_failure_only_in_an_old_namespace(chaos: Chaos, broker: OwnBroker):
    run_id = chaos.launch("one")
    client, keys = chaos.fleet.broker.client, chaos.fleet.broker.keys
    client.delete(keys.name("record", messages.run_task_id(run_id, 0)))
    client.set(keys.name("born"), int(time.time() * 1000))
    assert health(chaos, run_id)[0] is WorkerStatus.RUNNING
    # Neither an old namespace alone is enough, nor one from the future too much.
    client.set(keys.name("born"), int((time.time() - 60) * 1000))
    assert health(chaos, run_id)[0] is WorkerStatus.RUNNING
    client.set(keys.name("born"), int((time.time() + 3600) * 1000))
    failed = (WorkerStatus.FAILED, "The broker has no record of this run.")
    chaos.fleet.wait_for(lambda: health(chaos, run_id) == failed, "the verdict")


def test_an_absent_broker_is_no_verdict_and_is_said_fast(chaos: Chaos, broker: OwnBroker):
    run_id = chaos.launch("one")
    assert health(chaos, run_id)[0] is WorkerStatus.RUNNING
    broker.kill()
    for _ in range(3):
        with pytest.raises(BrokerUnavailable):
            health(chaos, run_id)
    with pytest.raises(BrokerUnavailable, match="did not answer a moment ago"):
        health(chaos, run_id)
    broker.start()


def test_real_monitor_iterations_over_every_status_are_free_of_errors(chaos: Chaos):
    waiting = chaos.launch("one")
    assert chaos.fleet.instance.get_run_by_id(waiting).status is STATUS.STARTING
    assert chaos.monitor() == []
    worker = chaos.start_worker()
    chaos.wait_for_bodies("first")
    assert chaos.monitor() == []
    assert chaos.fleet.instance.count_resume_run_attempts(waiting) == 0
    chaos.kill(worker)
    assert chaos.fleet.instance.run_launcher.terminate(waiting)
    assert chaos.fleet.instance.get_run_by_id(waiting).status is STATUS.CANCELING
    assert chaos.monitor() == []
    assert chaos.fleet.instance.count_resume_run_attempts(waiting) == 0


def test_a_resume_that_the_broker_could_not_take_is_queued_later_and_spends_one_attempt(
    chaos: Chaos,
):
    first = chaos.start_worker()
    run_id = chaos.launch("one")
    chaos.wait_for_bodies("first")
    chaos.kill(first)
    chaos.start_worker(queues=["elsewhere"])
    chaos.fleet.wait_for(
        lambda: health(chaos, run_id)[0] is WorkerStatus.FAILED, "the rescue", chaos.explain
    )
    puppet = Puppet(chaos)
    puppet.card = replace(puppet.card, schema=SCHEMA_VERSION - 1)
    puppet.renew_empty(lease_s=600)
    schema = chaos.fleet.broker.keys.name("schema")
    chaos.fleet.broker.client.set(schema, SCHEMA_VERSION - 1)
    for _ in range(4):
        assert chaos.monitor() == []
    assert chaos.fleet.instance.count_resume_run_attempts(run_id) == 1
    assert any(
        "older workers cannot read it: puppet-1" in line for line in chaos.fleet.said(run_id)
    )
    status, said = health(chaos, run_id)
    assert (status, said) == (
        WorkerStatus.RUNNING, "Resume 1 is to be queued by a worker's reconciler.",
    )  # fmt: skip
    puppet.renew_empty(lease_s=0.001)
    chaos.start_worker()
    chaos.open_gates("first")
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.FAILURE  # its step was lost
    assert any("Resuming on taskiq workers" in line for line in chaos.fleet.said(run_id))


def test_a_run_longer_than_its_maximum_runtime_ends_as_failure(make_chaos):
    config = {
        "run_monitoring": {
            "enabled": True, "max_runtime_seconds": 1, "start_timeout_seconds": 31_536_000,
            "max_resume_run_attempts": 3,
        }
    }  # fmt: skip
    with make_chaos(config=config) as chaos:
        chaos.start_worker()
        run_id = chaos.launch("one")
        chaos.wait_for_bodies("first")
        run = lambda: chaos.fleet.instance.get_run_record_by_id(run_id)  # noqa: E731
        chaos.fleet.wait_for(lambda: time.time() - run().start_time > 2, "its time to be over")
        assert chaos.monitor() == []
        chaos.fleet.wait_for(
            lambda: not any(w.held for w in chaos.fleet.snapshot().workers), "its end",
            chaos.explain,
        )  # fmt: skip
        assert not chaos.bodies("first", "end")
        assert any("aximum runtime of 1 seconds" in line for line in chaos.fleet.said(run_id))
        assert run().dagster_run.status is STATUS.FAILURE, chaos.explain()
        said = chaos.fleet.said(run_id)
        assert not any("will be resumed" in line for line in said)
        assert any("already in a failure state" in line for line in said), chaos.explain()
