"""The event relay before deaths of child, worker and database, between said and stored."""

import contextlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import dagster as dg
import psutil
import pytest

from dagster_taskiq_kit.host.process_group import wait_until

from .conftest import Chaos
from .processes import alive, children_named
from .proxy import Proxy

CODE = Path(__file__).parent / "code" / "relay_jobs.py"
STATUS = dg.DagsterRunStatus
KINDS = [
    "STEP_WORKER_STARTED", "STEP_START", "ASSET_MATERIALIZATION", "ASSET_OBSERVATION",
    "STEP_EXPECTATION_RESULT", "HANDLED_OUTPUT", "STEP_SUCCESS",
]  # fmt: skip


class Relay:
    """A fleet of which one worker executes steps, with a proxy before its database."""

    def __init__(self, chaos: Chaos, proxy: Proxy, folder: Path):
        self.chaos, self.proxy = chaos, proxy
        home = chaos.home_through(folder / "through", proxy)
        self.environment = {"DAGSTER_HOME": str(home)}
        chaos.start_orchestrating()

    def start_executing(self, **options):
        return self.chaos.start_executing(environment=self.environment, **options)

    def events(self, run_id, step):
        """What the log has of a step: type or line, and the process that said it."""
        found = []
        for entry in self.chaos.fleet.instance.all_logs(run_id):
            event = entry.dagster_event
            if (entry.step_key or (event and event.step_key)) == step:
                kind = event.event_type_value if event else entry.user_message
                found.append((kind, event.pid if event else None))
        return found


@pytest.fixture
def relay(make_chaos, tmp_path):
    with make_chaos(code=CODE) as chaos:
        url = chaos.database_url()
        proxy = Proxy.to(url)
        yield Relay(chaos, proxy, tmp_path)
        proxy.close()


_IN_PROCESS = """
import json
import dagster as dg
import relay_jobs
with dg.DagsterInstance.ephemeral() as instance:
    result = relay_jobs.all_kinds.execute_in_process(instance=instance)
    said = [
        event.event_type_value if event else entry.user_message
        for entry in instance.all_logs(result.run_id)
        if (event := entry.dagster_event) is None or event.step_key
        if (entry.step_key or (event and event.step_key)) == "says_all"
    ]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def in_process(tmp_path_factory):
    """What the step says when Dagster executes it as it is shipped."""
    folder = tmp_path_factory.mktemp("in_process")
    (folder / "gates").mkdir()
    (folder / "gates" / "says_all").touch()
    environment = {**os.environ, "LEDGER": str(folder / "ledger"), "PYTHONPATH": str(CODE.parent)}
    program = [sys.executable, "-c", _IN_PROCESS]
    done = subprocess.run(
        program, env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(done.stdout.splitlines()[-1])


def load_classes_of_the_jobs():
    """Import the jobs, so that this process can read metadata of a class that only they have."""
    found = importlib.util.spec_from_file_location("relay_jobs", CODE)
    found.loader.exec_module(importlib.util.module_from_spec(found))


def explain(relay):
    return relay.chaos.explain()


def test_a_step_says_what_it_says_in_process_in_that_order(relay: Relay, in_process):
    relay.start_executing()
    relay.chaos.open_gates("says_all")
    run_id = relay.chaos.launch("all_kinds")
    assert relay.chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS, explain(relay)
    ours = [kind for kind, _ in relay.events(run_id, "says_all")]
    about_workers = {"STEP_WORKER_STARTING", "STEP_WORKER_STARTED", "ENGINE_EVENT"}
    about_resources = {"RESOURCE_INIT_STARTED", "RESOURCE_INIT_SUCCESS", "LOGS_CAPTURED"}
    ours = [kind for kind in ours if kind not in about_workers | about_resources]
    expected = [kind for kind in in_process if kind not in about_workers | about_resources]
    # In process its output goes to memory, and no line says to which file.
    assert [kind for kind in ours if not kind.startswith("Writing file at")] == expected


def test_a_step_reads_what_it_has_written_whoever_reads(relay: Relay):
    relay.start_executing()
    run_id = relay.chaos.launch("own")
    assert relay.chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS, explain(relay)
    seen = {note["number"]: note["seen"] for note in relay.chaos.noted("read")}
    assert seen == dict.fromkeys(range(5), True)


def test_children_of_trivial_steps_open_no_database_session(relay: Relay):
    relay.start_executing(slots=4)
    assert relay.chaos.fleet.wait_for_run(relay.chaos.launch("many")).status is STATUS.SUCCESS
    before = relay.proxy.accepted
    run_id = relay.chaos.launch("many")
    assert relay.chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS, explain(relay)
    # Its writer and its reader connect again when they were idle for two seconds.
    assert relay.proxy.accepted - before < 22 / 2, relay.proxy.first_said


@pytest.mark.parametrize("after_it", [False, True], ids=["before", "before_its_answer"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_session_that_breaks_at_any_event_costs_nothing_and_doubles_nothing(
    relay: Relay, kind, after_it
):
    relay.start_executing()
    relay.chaos.open_gates("says_all")
    relay.proxy.break_at(f"'{kind}'".encode(), after_it=after_it)
    run_id = relay.chaos.launch("all_kinds")
    assert relay.chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS, explain(relay)
    assert relay.proxy.broke.is_set()
    said = Counter(kind for kind, _ in relay.events(run_id, "says_all"))
    assert said["STEP_UP_FOR_RETRY"] == 0
    for each, count in {"ASSET_MATERIALIZATION": 2, "ASSET_OBSERVATION": 1, "STEP_START": 1,
                        "STEP_SUCCESS": 1, "HANDLED_OUTPUT": 1, "line 7": 1}.items():  # fmt: skip
        assert said[each] == count, (each, said)
    latest = relay.chaos.fleet.instance.get_latest_materialization_event(dg.AssetKey("said"))
    assert latest.dagster_event.partition == "p"


def test_a_child_that_says_too_much_while_the_database_is_silent_waits_and_can_be_cancelled(
    relay: Relay,
):
    relay.start_executing()
    run_id = relay.chaos.launch("talks")
    relay.chaos.wait_for_note("said")
    relay.proxy.cut()
    noted = relay.chaos.noted
    relay.chaos.fleet.wait_for(lambda: _still(lambda: len(noted("said"))), "the step to wait")
    assert len(noted("said")) * 50 < 3_000
    assert relay.chaos.fleet.instance.run_launcher.terminate(run_id)
    (body,) = relay.chaos.bodies("chatty")
    relay.chaos.fleet.wait_for(lambda: not alive(body.pid), "its child to end", within_s=60)
    relay.proxy.mend()
    assert relay.chaos.fleet.wait_for_run(run_id).status is STATUS.CANCELED, explain(relay)
    lines = [kind for kind, _ in relay.events(run_id, "chatty") if kind.startswith("line ")]
    assert lines == [f"line {number}" for number in range(len(lines))]


def _still(count, for_s=1.0):
    before, until_s = count(), time.monotonic() + for_s
    wait_until(lambda: count() != before or time.monotonic() > until_s, for_s + 1)
    return count() == before


@pytest.mark.parametrize("job", ["refused", "refused_last"])
def test_an_event_that_the_database_refuses_fails_the_step_with_its_sentence(relay: Relay, job):
    relay.start_executing()
    run_id = relay.chaos.launch(job)
    assert relay.chaos.fleet.wait_for_run(run_id).status is STATUS.FAILURE, explain(relay)
    (failure,) = relay.chaos.fleet.instance.all_logs(
        run_id, of_type=dg.DagsterEventType.STEP_FAILURE
    )
    said = failure.dagster_event.step_failure_data.error.message
    assert "could not be stored in Dagster's database" in said, said
    assert "maximum size is" in said
    # The worker goes on, and so do others' steps.
    relay.chaos.open_gates("says_all")
    other = relay.chaos.launch("all_kinds")
    assert relay.chaos.fleet.wait_for_run(other).status is STATUS.SUCCESS, explain(relay)


def test_metadata_of_a_class_that_only_the_code_has_is_stored_in_its_place(relay: Relay):
    load_classes_of_the_jobs()
    relay.start_executing()
    run_id = relay.chaos.launch("own_class")
    assert relay.chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS, explain(relay)
    said = [kind for kind, _ in relay.events(run_id, "says_a_class_of_its_own")]
    at = said.index("before it")
    assert said[at : at + 3] == ["before it", "ASSET_MATERIALIZATION", "after it"]
    latest = relay.chaos.fleet.instance.get_latest_materialization_event(dg.AssetKey("painted"))
    assert latest.asset_materialization.metadata["colour"].name == "red"


def test_a_thread_that_goes_on_logging_when_its_step_ends_disturbs_nobody(relay: Relay):
    worker = relay.start_executing()
    (server,) = children_named(psutil.Process(worker.pid), "fork server")
    for _ in range(3):
        run_id = relay.chaos.launch("talked")
        assert relay.chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS, explain(relay)
    assert children_named(psutil.Process(worker.pid), "fork server") == [server]


@pytest.mark.parametrize("seed", range(4))
def test_whoever_is_killed_between_said_and_stored_the_log_is_a_whole_beginning(
    relay: Relay, in_process, seed
):
    """Answers of the database are held back at a random moment, then a process is killed."""
    chance = random.Random(seed)
    victim = ("child", "worker")[seed % 2]
    worker = relay.start_executing()
    run_id = relay.chaos.launch("all_kinds")
    relay.chaos.wait_for_bodies("says_all")
    (body,) = relay.chaos.bodies("says_all")
    relay.proxy.hold_back_answers()
    relay.chaos.open_gates("says_all")
    wait_until(lambda: False, chance.random() * 0.2)
    if victim == "child":
        with contextlib.suppress(ProcessLookupError):  # it has said all, and has left
            os.kill(body.pid, signal.SIGKILL)
    else:
        relay.chaos.kill(worker)
    relay.chaos.fleet.wait_for(lambda: not alive(body.pid), "its child to end")
    relay.proxy.reset()
    relay.proxy.mend()
    if victim == "worker":
        relay.start_executing()
    assert relay.chaos.fleet.wait_for_run(run_id, 90).status in (STATUS.SUCCESS, STATUS.FAILURE), (
        explain(relay)
    )
    check_log(relay, in_process, run_id, body.pid)


def check_log(relay: Relay, in_process, run_id, first_pid):
    """Of the first attempt there is a whole beginning, each event once, and none after its end."""
    said = relay.events(run_id, "says_all")
    of_first = [kind for kind, pid in said if pid == first_pid]
    expected = [kind for kind in in_process if kind in KINDS]
    beginning = [kind for kind in of_first if kind in KINDS and kind != "STEP_WORKER_STARTED"]
    assert beginning == expected[: len(beginning)], (beginning, expected, explain(relay))
    closed_at = next(
        (n for n, (kind, pid) in enumerate(said)
         if kind in ("STEP_FAILURE", "STEP_UP_FOR_RETRY") and pid != first_pid), len(said),
    )  # fmt: skip
    assert not any(pid == first_pid for _, pid in said[closed_at:]), said
    ends = [kind for kind, _ in said if kind in ("STEP_SUCCESS", "STEP_FAILURE")]
    assert len(ends) == 1
    if ends == ["STEP_SUCCESS"]:
        assert "HANDLED_OUTPUT" in [kind for kind, _ in said]


def test_a_worker_that_is_frozen_and_thaws_stores_nothing_of_what_it_has_lost(
    relay: Relay, in_process
):
    frozen = relay.start_executing()
    run_id = relay.chaos.launch("all_kinds")
    relay.chaos.wait_for_bodies("says_all")
    (body,) = relay.chaos.bodies("says_all")
    relay.proxy.stall()  # what it says now, it still has when it is frozen
    relay.chaos.open_gates("says_all")
    relay.chaos.wait_for_bodies("says_all", what="end")
    psutil.Process(frozen.pid).suspend()
    relay.chaos.fleet.wait_for(lambda: not alive(body.pid), "its child to end")
    relay.proxy.reset()
    relay.proxy.mend()
    relay.start_executing()
    relay.chaos.wait_for_bodies("says_all", 2)
    psutil.Process(frozen.pid).resume()
    assert relay.chaos.fleet.wait_for_run(run_id, 90).status is STATUS.SUCCESS, explain(relay)
    check_log(relay, in_process, run_id, body.pid)
    assert relay.chaos.fleet.stop_worker(frozen) == 0


_ACKNOWLEDGES_EARLY = """
import sys
from dagster_taskiq_kit.cli.main import main
from dagster_taskiq_kit.worker.event_relay import EventRelay
EventRelay.when_stored = lambda self, key, then: self._loop.call_soon(then, "")
sys.argv[0] = "dagster-taskiq"
main()
"""


def test_a_relay_that_acknowledged_before_the_commit_would_be_seen(relay: Relay, in_process):
    """The check of the kills above, on a worker that is patched to do so: it must fail."""
    relay.start_executing(program=(sys.executable, "-c", _ACKNOWLEDGES_EARLY))
    run_id = relay.chaos.launch("all_kinds")
    relay.chaos.wait_for_bodies("says_all")
    (body,) = relay.chaos.bodies("says_all")
    relay.proxy.hold_back_answers()
    relay.chaos.open_gates("says_all")
    relay.chaos.fleet.wait_for(
        lambda: any(kind == "STEP_UP_FOR_RETRY" for kind, _ in relay.events(run_id, "says_all")),
        "the orchestrator to close a step whose end is not in the log", relay.chaos.explain,
    )  # fmt: skip
    relay.proxy.mend()
    relay.chaos.fleet.wait_for(
        lambda: ("STEP_SUCCESS", body.pid) in relay.events(run_id, "says_all"),
        "what was said to be stored", relay.chaos.explain,
    )  # fmt: skip
    with pytest.raises(AssertionError):
        check_log(relay, in_process, run_id, body.pid)
