"""What a writer to the broker, a neighbour on the server, and another user of the machine can do."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import redis

from dagster_taskiq_kit.broker import readings, records
from dagster_taskiq_kit.broker.acl import least_user
from dagster_taskiq_kit.broker.connection import SyncConnection
from dagster_taskiq_kit.config.settings import TaskiqSettings
from dagster_taskiq_kit.dev.embedded_broker import start_private
from dagster_taskiq_kit.host.process_group import ProcessGroup
from dagster_taskiq_kit.vocabulary.errors import BrokerError
from dagster_taskiq_kit.vocabulary.messages import CodeName, RunMessage, StepMessage, encode
from dagster_taskiq_kit.vocabulary.states import TERMINAL, Kind
from tests.chaos.own_broker import OwnBroker

CODE = Path(__file__).parent / "code" / "fleet_jobs.py"


def hostile_payloads(mark: Path, evil: Path):
    """Messages that name code which no worker serves, or that would be code if they were unpickled."""
    pickled = f"cos\nsystem\n(S'touch {mark}'\ntR.".encode()
    names = [
        "os:system",
        "builtins:eval",
        "subprocess:run",
        "evil:touch",
        str(evil),
        "dagster_taskiq_kit.run",
    ]
    codes = [
        CodeName("__repository__", "fleet_jobs.py", "__repository__", f"file:{evil}"),
        CodeName("evil", None, None, f"file:{evil}"), CodeName("evil", None, None, "module:evil"),
        CodeName("evil", str(evil)), CodeName("../evil", "fleet_jobs.py", "../../evil"),
        CodeName("os.system", "fleet_jobs.py"),
    ]  # fmt: skip
    for number, name in enumerate(names):
        body = {
            "task_id": f"t{number}",
            "task_name": name,
            "labels": {},
            "args": [f"touch {mark}"],
            "kwargs": {},
        }
        yield Kind.TASK, f"t{number}", json.dumps(body).encode()
    for number, code in enumerate(codes):
        run, step = (
            RunMessage(f"r{number}", code),
            StepMessage(f"s{number}", "x", 1, code, "disabled", "{}"),
        )
        yield Kind.RUN, run.task_id, encode(run)
        yield Kind.STEP, step.task_id, encode(step)
    state = json.dumps({"__class__": "os.system", "__args__": [f"touch {mark}"]})
    step = StepMessage("s-state", "x", 1, CodeName("nothing", "fleet_jobs.py"), "disabled", state)
    yield Kind.STEP, step.task_id, encode(step)
    for kind in Kind:
        yield kind, f"{kind.value}:pickled:1", pickled


def test_a_payload_never_makes_a_worker_run_code_that_it_does_not_serve(fleet, tmp_path):
    mark, evil = tmp_path / "mark", tmp_path / "evil.py"
    evil.write_text(
        f"import pathlib; pathlib.Path({str(mark)!r}).touch()\n"
        "import dagster as dg\n@dg.job\ndef evil(): ...\ndef touch(*_): ...\n"
    )
    worker = fleet.start_worker("-f", str(CODE), environment={"PYTHONPATH": str(tmp_path)})
    queued = []
    for kind, task_id, payload in hostile_payloads(mark, evil):
        queued.append(task_id)
        fleet.broker.run(records.submit(
            task_id=task_id, kind=kind, queue="default", priority=5, run_id="", payload=payload,
        ))  # fmt: skip
    over = lambda: all(  # noqa: E731
        record is None or record.state in TERMINAL
        for record in readings.fetch_all(fleet.broker, queued).values()
    )
    fleet.wait_for(over, "all of them to be refused", fleet.worker_log(1).read_text)
    states = {
        record.state.value for record in readings.fetch_all(fleet.broker, queued).values() if record
    }
    assert states <= {"refused", "failed", "crashed", "cancelled"}
    assert not mark.exists()
    assert worker.poll() is None


@pytest.fixture
def own_broker(tmp_path):
    broker = OwnBroker(tmp_path / "own-broker")
    yield broker
    broker.stop()


def test_the_least_user_of_one_namespace_cannot_touch_another_one(own_broker):
    own_broker.client.execute_command(
        "ACL", "SETUSER", "one", "on", ">pw", *least_user("one").split()
    )
    url = own_broker.url.replace("//", "//one:pw@")
    mine, other = (
        SyncConnection(TaskiqSettings.resolve({"url": url, "namespace": name, "give_up_s": 0.5}))
        for name in ("one", "other")
    )
    assert mine.run(records.pause("q", paused=True)) == 1
    for ask in (
        lambda: other.run(records.pause("q", paused=True)), lambda: readings.fetch(other, "run:r:0"),
        lambda: other.retrying(lambda: other.client.set("other", "x")),
        lambda: mine.retrying(mine.client.flushall), lambda: mine.retrying(lambda: mine.client.keys("*")),
        lambda: mine.retrying(lambda: mine.client.config_get("*")),
    ):  # fmt: skip
        with pytest.raises(BrokerError) as caught:
            ask()
        assert "pw" not in str(caught.value)
    assert not own_broker.client.exists("other")


@pytest.mark.parametrize("depth", [1, 40])
def test_the_server_of_dev_is_open_to_its_user_alone(tmp_path, depth):
    folder = tmp_path.joinpath(*["deep"] * depth)
    with ProcessGroup() as group:
        url = start_private(group, folder)
        assert url.startswith("unix://")
        path = Path(url.removeprefix("unix://").partition("?")[0])
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        connection = SyncConnection(TaskiqSettings.resolve({"url": url}))
        assert connection.client.ping()
        (program, _), *_ = group._programs
        listening = [
            c for c in psutil.Process(program.pid).net_connections("inet") if c.status == "LISTEN"
        ]
        assert listening == []
        connection.close()
    code = f"import redis; redis.Redis.from_url({url!r}).ping()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode
    assert redis.__version__
