"""What can never work says so in one sentence, and whatever was queued is there afterwards."""

import contextlib
import re
import socketserver
import sys
import threading
from pathlib import Path

import dagster as dg
import pytest
import redis

from dagster_taskiq_kit import taskiq_executor
from dagster_taskiq_kit.broker import readings
from dagster_taskiq_kit.dagster_internals.postgres.pool import instance_id
from dagster_taskiq_kit.dev.embedded_broker import free_port, start_embedded
from dagster_taskiq_kit.host.process_group import ProcessGroup
from dagster_taskiq_kit.testing import Fleet
from dagster_taskiq_kit.testing.fleet import OUR_LAUNCHER
from dagster_taskiq_kit.vocabulary.errors import (
    BrokerRefused,
    ConfigurationError,
    TaskiqKitError,
    UnfitServer,
    WrongInstance,
)
from dagster_taskiq_kit.vocabulary.messages import run_task_id
from dagster_taskiq_kit.vocabulary.states import State
from tests import preloaded

CODE = Path(__file__).parent / "code" / "bad_input_jobs.py"
SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE


class Server:
    """A Valkey that a test may spoil.

    Args:
        url: Where it is.
    """

    def __init__(self, url):
        self.url = url
        self.client = redis.Redis.from_url(url)

    def with_password(self, password):
        return self.url.replace("redis://", f"redis://:{password}@")


@pytest.fixture
def server(tmp_path):
    with ProcessGroup() as group:
        made = Server(start_embedded(group, tmp_path / "server"))
        yield made
        made.client.close()


@pytest.fixture
def fleet_at(make_fleet):
    """Makes a fleet at a url, with further options of ``make_fleet``."""
    with contextlib.ExitStack() as stack:
        yield lambda url=None, **options: stack.enter_context(make_fleet(url=url, **options))


def sentence_of_worker(fleet, *arguments, file=CODE, environment=None, **options):
    """Return the one sentence with which a worker that cannot start leaves."""
    worker = fleet.start_worker(
        "-f", str(file), *arguments, environment=environment, wait=False, **options
    )
    assert worker.wait(60) == 1
    said = fleet.worker_log(1).read_text()
    assert "Traceback" not in said
    assert 'File "' not in said
    assert said.count("\nError: ") + said.startswith("Error: ") == 1
    return said.partition("Error: ")[2].strip()


def sentence_of_status(fleet, **environment):
    command = [sys.executable, "-m", "dagster_taskiq_kit", "status"]
    done = preloaded.run(command, env={**fleet.environment, **environment}, within_s=60)
    assert done.returncode == (2 if "no answer" in done.stderr else 1)
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("Error: ").strip()


def refused_launch(site, error, job="fine", tags=None):
    """Launch what the launcher refuses; return its sentence, which the run's own log has too."""
    before = {run.run_id for run in site.instance.get_runs()}
    with pytest.raises(error) as caught:
        site.launch(job, tags)
    (run,) = [run for run in site.instance.get_runs() if run.run_id not in before]
    assert run.status is FAILURE
    sentence = str(caught.value)
    assert any(sentence in line for line in site.fleet.said(run.run_id))
    return sentence


def assert_works(site):
    """Nothing was lost: the same launcher and a new worker do what they are for."""
    worker = site.start_worker(slots=1, run_slots=1)
    assert site.fleet.wait_for_run(site.launch("fine")).status is SUCCESS
    return worker


# -- the broker


def test_a_wrong_password_is_one_sentence_everywhere_and_is_never_shown(
    server, fleet_at, open_site
):
    server.client.config_set("requirepass", "right")
    fleet = fleet_at(server.with_password("hunter2"))
    with open_site(fleet, CODE) as site:
        sentences = {
            sentence_of_worker(fleet),
            sentence_of_status(fleet),
            refused_launch(site, BrokerRefused),
        }
        for sentence in sentences:
            assert "it refused us" in sentence
            assert "Check user and password in the url" in sentence
            assert "hunter2" not in sentence
        server.client.config_set("requirepass", "hunter2")
        assert_works(site)


def test_a_missing_password_is_one_sentence(server, fleet_at):
    server.client.config_set("requirepass", "right")
    assert "Check user and password in the url" in sentence_of_worker(fleet_at(server.url))


def test_a_refused_connection_is_one_sentence_within_a_bound(fleet):
    nobody = {"DAGSTER_TASKIQ_URL": f"redis://me:hunter2@127.0.0.1:{free_port()}/0"}
    quickly = {**nobody, "DAGSTER_TASKIQ_GIVE_UP_S": "1"}
    for sentence in (
        sentence_of_worker(fleet, environment=nobody),
        sentence_of_status(fleet, **quickly),
    ):
        assert re.match(r"Broker redis://me:\*\*\*@127.0.0.1:\d+/0: no answer \(", sentence)
        assert sentence.endswith("Is the server running, and is the url right?")


def test_a_launch_without_a_broker_is_told_in_its_log_and_the_next_one_works(
    fleet_at, open_site, tmp_path, monkeypatch
):
    monkeypatch.setenv("DAGSTER_TASKIQ_GIVE_UP_S", "1")
    port = free_port()
    with open_site(fleet_at(f"redis://127.0.0.1:{port}/0"), CODE) as site:
        said = site.fleet.said(site.launch("fine"))
        assert any("Is the server running" in line and "when that is over" in line for line in said)
        with ProcessGroup() as group:
            start_embedded(group, tmp_path / "server", port)
            assert site.fleet.stop_worker(assert_works(site)) == 0


def test_a_server_that_evicts_keys_takes_no_work_until_it_does_not(server, fleet_at, open_site):
    server.client.config_set("maxmemory-policy", "allkeys-lru")
    fleet = fleet_at(server.url)
    with open_site(fleet, CODE) as site:
        for sentence in (sentence_of_worker(fleet), refused_launch(site, UnfitServer)):
            assert "its maxmemory-policy is 'allkeys-lru'" in sentence
            assert sentence.endswith("Set maxmemory-policy to noeviction.")
        assert server.client.dbsize() == 0
        server.client.config_set("maxmemory-policy", "noeviction")
        assert_works(site)


class OldRedis(socketserver.StreamRequestHandler):
    """Answers as Redis 6.2 does, as far as a client gets before it knows the version."""

    INFO = "# Server\r\nredis_version:6.2.14\r\nredis_mode:standalone\r\n"

    def handle(self):
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(size + 2)[:-2].decode().upper())
            self.wfile.write(self.answer(words).encode())

    def answer(self, words):
        self.server.asked.append(" ".join(words))
        if words[0] == "INFO":
            return f"${len(self.INFO)}\r\n{self.INFO}\r\n"
        if words[:2] == ["CONFIG", "GET"]:
            return "*2\r\n$16\r\nmaxmemory-policy\r\n$10\r\nnoeviction\r\n"
        if words[:2] == ["CLIENT", "SETINFO"]:
            return "-ERR Unknown subcommand or wrong number of arguments for 'SETINFO'.\r\n"
        return "+PONG\r\n" if words[0] == "PING" else "+OK\r\n"


@pytest.fixture
def old_server():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), OldRedis) as server:
        server.daemon_threads = True
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_server_that_is_too_old_is_told_its_version_and_asked_for_nothing_else(
    old_server, fleet_at, open_site
):
    fleet = fleet_at(f"redis://127.0.0.1:{old_server.server_address[1]}/0")
    with open_site(fleet, CODE) as site:
        for sentence in (sentence_of_worker(fleet), refused_launch(site, UnfitServer)):
            assert "it is Redis 6.2.14; the kit needs Redis 7.0 or newer." in sentence
            assert sentence.endswith("Update the server.")
    assert not [words for words in old_server.asked if words.startswith("EVAL")]


def test_another_instances_namespace_is_refused_with_both_names_and_its_work_stays(
    site, open_site, tmp_path
):
    waiting = site.launch("fine")
    owner = site.fleet
    other = Fleet(tmp_path / "other", owner.settings.url, owner.settings.namespace)
    with other, open_site(other, CODE) as other_site:
        names = (instance_id(owner.instance), instance_id(other.instance))
        for sentence in (
            sentence_of_worker(other),
            refused_launch(other_site, WrongInstance),
        ):
            assert (
                "belongs to Dagster instance {}, and this is instance {}".format(*names) in sentence
            )
            assert "DAGSTER_TASKIQ_NAMESPACE" in sentence
    assert owner.snapshot().queues[0].backlog == 1
    site.start_worker()
    assert owner.wait_for_run(waiting).status is SUCCESS


# -- dagster.yaml and run config


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"urll": "redis://h"}, "urll"),
        ({"url": {"env": "NOBODY_SET_THIS"}}, "NOBODY_SET_THIS"),
        ({"url": "http://h"}, "'http://h' is not a broker url"),
    ],
)
def test_a_bad_run_launcher_block_is_named_by_worker_and_instance(fleet_at, config, named):
    fleet = fleet_at(launcher={**OUR_LAUNCHER, "config": config})
    with pytest.raises((dg.DagsterError, TaskiqKitError), match=re.escape(named)):
        _ = fleet.instance.run_launcher
    sentence = sentence_of_worker(fleet)
    assert named in sentence
    assert "dagster.yaml" in sentence


def test_an_unknown_key_of_the_executors_config_is_named_before_a_run_is_made(fleet):
    job = dg.reconstructable(a_job)
    with pytest.raises(dg.DagsterInvalidConfigError, match="urll"):
        dg.execute_job(
            job,
            instance=fleet.instance,
            run_config={"execution": {"config": {"urll": "redis://h"}}},
        )
    assert fleet.instance.get_runs_count() == 0


@dg.op
def returns_one() -> int:
    return 1


@dg.job(executor_def=taskiq_executor)
def a_job():
    returns_one()


# -- jobs


def job_made_in_a_function():
    @dg.job(executor_def=taskiq_executor)
    def made_here():
        returns_one()

    return made_here


def test_a_job_that_is_not_reconstructable_works_in_process_and_nowhere_else(fleet):
    job, instance = job_made_in_a_function(), fleet.instance
    assert job.execute_in_process(instance=instance).success
    with pytest.raises(dg.DagsterInvariantViolationError, match="not defined at module scope"):
        dg.reconstructable(job)
    with pytest.raises(Exception, match='Param "job" is not a ReconstructableJob'):
        dg.execute_job(job, instance=instance)
    run = instance.create_run_for_job(job)
    with pytest.raises(ConfigurationError, match="'made_here' is not reconstructable") as caught:
        instance.launch_run(run.run_id, None)
    assert "dg.reconstructable(" in str(caught.value)
    assert instance.get_run_by_id(run.run_id).status is FAILURE
    assert any("is not reconstructable" in line for line in fleet.said(run.run_id))
    assert fleet.snapshot().queues == []


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        (
            {"dagster-taskiq/queue": "a b"},
            "Tag 'dagster-taskiq/queue' of the run: 'a b' is not a queue name: use 1 to 100 letters",
        ),
        (
            {"dagster-taskiq/run_priority": "high"},
            "Tag 'dagster-taskiq/run_priority' of the run is 'high': it must be an integer",
        ),
    ],
)
def test_a_run_tag_that_can_never_work_fails_the_launch_with_its_name(site, tags, sentence):
    assert refused_launch(site, ConfigurationError, tags=tags).startswith(sentence)
    assert site.fleet.snapshot().queues == []


@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        (
            "bad_queue",
            "Tag 'dagster-taskiq/queue' of step 'in_no_queue': 'a b' is not a queue name",
        ),
        ("bad_priority", "Tag 'dagster-taskiq/priority' of step 'of_no_priority' is 'high'"),
    ],
)
def test_a_step_tag_that_can_never_work_fails_the_run_with_its_name(site, job, sentence):
    site.start_worker()
    run_id = site.launch(job)
    assert site.fleet.wait_for_run(run_id).status is FAILURE
    (entry,) = site.instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert sentence in entry.dagster_event.job_failure_data.error.to_string()
    assert not any(" STEP_START " in line for line in site.fleet.said(run_id))
    assert site.fleet.wait_for_run(site.launch("fine")).status is SUCCESS


# -- code


WARM = CODE.read_text()
LAYERED = (
    WARM
    + "\nimport threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
)
BROKEN = LAYERED.replace(
    "import dagster as dg", "import dagster as dg\nraise RuntimeError('my own mistake')"
)


@pytest.fixture
def written(tmp_path):
    """A definitions file that a test may change while a worker serves it."""
    file = tmp_path / "written.py"
    file.write_text(WARM)
    return file


def test_a_definitions_file_that_is_gone_at_run_time_fails_the_run_until_it_is_back(
    fleet, open_site, written
):
    with open_site(fleet, written) as site:
        site.start_worker()
        written.unlink()
        run_id = site.launch("fine")
        assert fleet.wait_for_run(run_id).status is FAILURE
        said = "\n".join(repr(entry) for entry in fleet.instance.all_logs(run_id))
        assert "No such file or directory" in said
        assert str(written) in said
        written.write_text(WARM)
        assert fleet.wait_for_run(site.launch("fine")).status is SUCCESS


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (Path.unlink, "No such file or directory"),
        (lambda file: file.write_text(BROKEN), "RuntimeError: my own mistake"),
    ],
    ids=["gone", "does_not_import"],
)
def test_code_that_a_layered_worker_cannot_load_any_more_fails_the_run_with_the_users_own_error(
    fleet, open_site, written, change, cause
):
    written.write_text(LAYERED)
    with open_site(fleet, written) as site:
        site.start_worker(slots=1, run_slots=1)
        assert fleet.wait_for_run(site.launch("fine")).status is SUCCESS
        change(written)
        # What waited ahead of need has loaded what was there before: at most one a slot.
        runs = [fleet.wait_for_run(site.launch("fine")) for _ in range(4)]
        assert runs[-1].status is FAILURE
        said = "\n".join(fleet.said(runs[-1].run_id))
        assert "Code location 'written.py' failed to load. Its own error was:" in said
        assert cause in said


def test_a_run_of_code_that_no_worker_serves_is_refused_with_a_sentence_and_kept(site, written):
    fleet = site.fleet
    fleet.start_worker("-f", str(written))
    run_id = site.launch("fine")
    task_id = run_task_id(run_id, 0)
    fleet.wait_for(
        lambda: readings.fetch(fleet.broker, task_id).state is State.REFUSED,
        "the run to be refused",
    )
    sentence = readings.fetch(fleet.broker, task_id).detail["reason"]
    assert "This worker does not serve job 'fine' of code location" in sentence
    assert "it was started with written.py. Start a worker with that code location" in sentence
    ((_, letter),) = fleet.broker.client.xrange(fleet.broker.keys.name("dead"))
    assert (letter[b"id"].decode(), letter[b"reason"].decode()) == (task_id, sentence)
    assert letter[b"payload"]
    launcher = site.instance.run_launcher
    health = launcher.check_run_worker_health(site.instance.get_run_by_id(run_id))
    assert (health.status.value, sentence in health.msg) == ("FAILED", True)
    assert sentence in fleet.worker_log(1).read_text()


def test_a_step_of_code_that_its_worker_does_not_serve_fails_with_a_sentence(site, written):
    site.start_worker(slots=0, run_slots=1)
    site.fleet.start_worker("-f", str(written), slots=1, run_slots=0)
    run_id = site.launch("fine")
    assert site.fleet.wait_for_run(run_id).status is FAILURE
    (entry,) = site.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    error = entry.dagster_event.step_failure_data.error.to_string()
    assert 'Step "one" was refused' in error
    assert "This worker does not serve job 'fine'" in error


# -- options


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--run-slots", "-1"], "'--run-slots': -1 is not in the range"),
        (["--slots", "0", "--run-slots", "0"], "executes nothing"),
        (["--namespace", "a b"], "'a b' is not a namespace"),
    ],
)
def test_an_option_that_can_never_work_is_one_sentence(fleet, arguments, sentence):
    assert sentence in sentence_of_worker(fleet, *arguments)
