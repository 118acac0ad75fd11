"""Every command and every option against a live fleet, as a person and as a program reads it."""

import ast
import re
import signal
import urllib.request
from pathlib import Path

import click
import dagster as dg
import pytest
import yaml

from dagster_taskiq_kit.broker import readings, records
from dagster_taskiq_kit.version import __version__
from dagster_taskiq_kit.vocabulary.messages import run_task_id
from dagster_taskiq_kit.vocabulary.states import Kind, State

from .conftest import CODE, Live, commands

STATUS = dg.DagsterRunStatus


def submit(live, task_id, *, queue, priority=5, run_id="r1", kind=Kind.STEP, payload=b"{}"):
    live.fleet.broker.run(
        records.submit(
            task_id=task_id, kind=kind, queue=queue, priority=priority, run_id=run_id,
            payload=payload,
        )
    )  # fmt: skip


def hold(live: Live) -> str:
    """Have a worker execute a step that waits at the gate; returns its run."""
    run_id = live.launch("held")
    live.fleet.wait_for(
        lambda: any("STEP_START " in line for line in live.fleet.said(run_id)),
        "the step to run",
        lambda: "\n".join(live.fleet.said(run_id)),
    )
    return run_id


def named(rows, name, key="name"):
    (row,) = [row for row in rows if row[key] == name]
    return row


# -- status


def test_status_for_people_and_for_programs(live: Live):
    live.start_worker()
    run_id = hold(live)
    said = live.cli("status", "--no-dagster").out
    assert "All " in said
    assert " checks pass." in said
    assert "worker-1" in said
    row = next(line for line in said.splitlines() if "waits_at_the_gate" in line)
    assert row.split()[2:] == [
        "step", "held", "waits_at_the_gate", run_id, "default", "worker-1", "running",
    ]  # fmt: skip
    data = live.cli("status", "--json", "--dagster").data
    assert data["severity"] == "ok"
    assert named(data["queues"], "default")["running"] == 2  # the run, and its step
    (worker,) = data["workers"]
    assert {held["task_id"].split(":")[0] for held in worker["held"]} == {"run", "step"}
    with_runs, without = (
        {finding["check"] for finding in live.cli("status", "--json", flag).data["findings"]}
        for flag in ("--dagster", "--no-dagster")
    )
    assert with_runs - without
    live.gate.touch()
    assert live.fleet.wait_for_run(run_id).status is STATUS.SUCCESS


def test_status_watches_until_it_is_interrupted(live: Live):
    live.start_worker()
    with live.started("status", "--watch", "0.2", ready="WORKER") as (process, said):
        live.fleet.wait_for(lambda: said().count("WORKER") > 2, "it to say so again", said)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 1
        process.send_signal = lambda _number: None
        process.wait = lambda _within_s=None: 0


def test_status_ends_with_2_when_something_is_an_error(live: Live):
    submit(live, "step:r1:a:1", queue="forgotten")
    time_is_up = lambda: "ERROR" in live.cli("status", code=None).out  # noqa: E731
    live.fleet.wait_for(time_is_up, "nobody to serve it for too long")
    data = live.cli("status", "--json", code=2).data
    assert data["severity"] == "error"
    away = live.cli("status", "--json", "--url", "redis://127.0.0.1:1", code=2)
    assert away.data["findings"][0]["severity"] == away.data["severity"] == "error"
    assert "Error: Broker redis://127.0.0.1:1: no answer" in away.err


def test_what_a_killed_worker_held_is_not_shown_as_running(live: Live):
    worker = live.start_worker()
    run_id = hold(live)
    worker.kill()
    worker.wait(20)
    listed = lambda: live.cli("worker", "list", "--json").data[0]  # noqa: E731
    live.fleet.wait_for(lambda: not listed()["live"], "its lease to end")
    said = live.cli("status", "--no-dagster", code=2).out
    row = next(line for line in said.splitlines() if "waits_at_the_gate" in line)
    assert run_id in row
    assert "unknown (was running)" in row
    assert "worker-1, silent" in row
    assert "ended, silent for " in live.cli("worker", "list").out
    assert listed()["lease_left_s"] == 0
    assert listed()["silent_s"] > 10
    assert {each["known"] for each in listed()["held"]} == {False}
    assert not re.search(r"(?<![\w-])-\d", said)  # no age below nothing


# -- worker


def test_workers_are_listed_and_shown(live: Live):
    assert live.cli("worker", "list").out == "No worker is registered.\n"
    live.start_worker(queues=["default", "bulk"])
    said = live.cli("worker", "list").out
    assert "worker-1" in said
    assert "bulk,default" in said or "default,bulk" in said
    (card,) = live.cli("worker", "list", "--json").data
    assert (card["name"], card["slots"], card["live"]) == ("worker-1", 2, True)
    shown = live.cli("worker", "show", "worker-1").out
    assert f"pid: {card['pid']}" in shown
    assert yaml.safe_load(shown)["queues"] == card["queues"]
    (same,) = live.cli("worker", "show", card["worker_id"], "--json").data
    assert same["worker_id"] == card["worker_id"]


@pytest.mark.parametrize("verb", ["drain", "terminate"])
def test_workers_are_told_to_end_and_end_with_0_when_their_step_has_ended(live: Live, verb):
    first, second = live.start_worker(), live.start_worker()
    if verb == "drain":
        said = live.cli("worker", "drain", "worker-1", "--wait", "60").out
        assert [each.card.name for each in live.fleet.snapshot().workers] == ["worker-2"]
    else:
        said = live.cli("worker", "terminate", "worker-1").out
    assert "Worker worker-1-" in said
    assert first.wait(60) == 0
    assert "Draining: no new work; no step is at work." in live.fleet.worker_log(1).read_text()
    assert second.poll() is None
    if verb == "drain":
        (told,) = live.cli("worker", "drain", "--all", "--json").data
    else:
        (told,) = live.cli("worker", "terminate", "-a", "--json").data
    assert told["name"] == "worker-2"
    assert second.wait(60) == 0
    live.fleet.wait_for(lambda: not live.fleet.snapshot().live_workers, "no worker to live")
    assert live.cli("worker", verb, "--all").out == "No worker was told.\n"


def test_a_drain_that_is_waited_for_says_who_has_not_ended(live: Live):
    live.start_worker()
    run_id = hold(live)
    told = live.cli("worker", "drain", "worker-1", "--wait", "0.5", code=2)
    assert "still there: worker-1-" in told.err
    live.gate.touch()
    live.start_worker()
    assert live.fleet.wait_for_run(run_id).status is STATUS.SUCCESS


def test_what_executes_is_shown_with_what_it_uses(live: Live):
    live.start_worker()
    run_id = hold(live)
    step = lambda: named(live.cli("top", "--json").data, "waits_at_the_gate", "step_key")  # noqa: E731
    live.fleet.wait_for(lambda: step()["memory_bytes"] is not None, "a look of its worker")
    said = step()
    assert (said["job"], said["run_id"], said["worker"]) == ("held", run_id, "worker-1")
    assert said["memory_bytes"] > 1_000_000
    assert said["cpu_s"] >= 0
    shown = live.cli("top", "--once", "--sort", "memory", "--every", "1").out
    assert "2 executing" in shown
    assert "waits_at_the_gate" in shown
    live.gate.touch()
    assert live.fleet.wait_for_run(run_id).status is STATUS.SUCCESS


def test_workers_are_told_to_load_their_code_again(live: Live):
    live.start_worker()
    again = lambda: live.fleet.worker_log(1).read_text().count("again: it was told to")  # noqa: E731
    assert "Worker worker-1-" in live.cli("worker", "reload", "worker-1").out
    live.fleet.wait_for(lambda: again() == 1, "the code to be loaded again")
    (told,) = live.cli("worker", "reload", "--all", "--json").data
    assert told["name"] == "worker-1"
    live.fleet.wait_for(lambda: again() == 2, "the code to be loaded again")
    assert "was told to load its code again" in live.cli("worker", "reload", "-a").out


def test_a_worker_starts_with_every_option(live: Live, tmp_path):
    _ = live.fleet.instance.run_storage
    (tmp_path / "a_module.py").write_text("import dagster as dg\ndefs = dg.Definitions()\n")
    (tmp_path / "a_file.py").write_text("import dagster as dg\ndefs = dg.Definitions()\n")
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump({"url": live.fleet.settings.url, "lease_s": 20}))
    with live.started(
        "worker", "start", "-y", str(file), "--namespace", live.fleet.settings.namespace,
        "-q", "gpu", "--queue", "bulk", "-n", "named", "--slots", "9", "--run-slots", "1",
        "--warm", "auto", "--reload", "told", "--max-code-age", "0", "--mirror-steps", "off",
        "--max-memory-per-child", "900", "--metrics-port", "0", "--metrics-host", "127.0.0.1",
        "-m", "a_module", "-f", str(tmp_path / "a_file.py"), "-w", str(live.workspace_file),
        "--working-directory", str(tmp_path), "-l", "debug", "--log-format", "console", "-A", "dagster_celery.app",
        "-i", "a_module", "--", "--concurrency", "3",
        ready=" is ready", DAGSTER_TASKIQ_URL="",
    ) as (_, said):  # fmt: skip
        (card,) = live.cli("worker", "show", "named", "--json").data
        assert (set(card["queues"]), card["slots"], card["run_slots"]) == ({"gpu", "bulk"}, 3, 1)
        assert {"a_module", "a_file.py"} < set(card["locations"])
        assert "-A dagster_celery.app is not needed" in said()
        assert " DEBUG " in said()
        url = said().partition("Metrics at ")[2].split()[0]
        with urllib.request.urlopen(url) as answer:
            assert b"dagster_taskiq_up 1.0" in answer.read()


def test_a_worker_in_the_background_says_where_it_logs_and_can_be_terminated(live: Live):
    """Upstream: test_start_worker."""
    _ = live.fleet.instance.run_storage
    with live.in_background(
        "-d", "-n", "quiet", "-f", str(CODE), "--location-name", "renamed", "--slots", "1"
    ) as (card, log):
        assert (card.name, card.slots, list(card.locations)) == ("quiet", 1, ["renamed"])
        assert "is ready" in log.read_text()


def test_one_worker_takes_any_number_of_queues(live: Live):
    """Upstream: test_start_worker_too_many_queues, which refused a fifth."""
    queues = [f"q{number}" for number in range(6)]
    live.start_worker(queues=queues)
    (card,) = live.cli("worker", "show", "worker-1", "--json").data
    assert sorted(card["queues"]) == queues


# -- queue


def test_a_queue_is_listed_paused_and_resumed(live: Live):
    assert live.cli("queue", "list").out == "No queue was ever used.\n"
    live.start_worker()
    assert live.cli("queue", "pause", "default").out == "Queue 'default' is paused.\n"
    again = live.cli("queue", "pause", "default", "--json").data
    assert again == {"queue": "default", "paused": True, "changed": False}
    run_id = live.launch("quick")
    row = named(live.cli("queue", "list", "--json").data, "default")
    assert (row["paused"], row["backlog"], row["workers"]) == (True, 1, 1)
    assert "paused" in live.cli("queue", "list").out
    assert live.cli("queue", "resume", "default").out == "Queue 'default' is handed out.\n"
    assert live.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    assert live.cli("queue", "resume", "default", "--json").data["changed"] is False


def test_a_purged_queue_ends_its_runs_as_cancelled_and_its_steps_for_good(live: Live):
    run_id = live.launch("quick", **{"dagster-taskiq__queue": "full"})
    submit(live, "step:r1:a:1", queue="full")
    kept = live.cli("queue", "purge", "full", code=1, stdin="n\n")
    assert "End 2 messages of queue 'full'?" in kept.err
    assert named(live.cli("queue", "list", "--json").data, "full")["backlog"] == 2
    assert "Ended 2 messages" in live.cli("queue", "purge", "full", stdin="y\n").out
    assert live.fleet.wait_for_run(run_id).status is STATUS.CANCELED
    assert readings.fetch(live.fleet.broker, "step:r1:a:1").state is State.CANCELLED
    assert live.cli("queue", "purge", "full").out == "Nothing waits in queue 'full'.\n"
    submit(live, "step:r1:b:1", queue="full")
    assert live.cli("queue", "purge", "full", "--yes", "--json").data == {
        "queue": "full", "ended": 1,
    }  # fmt: skip


def test_a_run_is_reprioritized(live: Live):
    early, late = (live.launch("quick", **{"dagster-taskiq__queue": "one"}) for _ in range(2))
    said = live.cli("queue", "reprioritize", late, "9").out
    assert said == f"Run {late} has priority 9 from now on; moved 1 queued message.\n"
    data = live.cli("queue", "reprioritize", early, "7", "--json").data
    assert data == {"run_id": early, "priority": 7, "moved": 1}
    live.start_worker(queues=["one"], run_slots=1)
    for run_id in (early, late):
        assert live.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    began_s = [live.fleet.instance.get_run_stats(run_id).start_time for run_id in (late, early)]
    assert began_s == sorted(began_s)


def test_steering_what_is_not_there_changes_nothing_unless_it_is_meant(live: Live):
    run_id = live.launch("quick")
    said = live.cli("queue", "pause", "defalt", code=1).sentence
    assert "did you mean 'default'?" in said
    assert [row["name"] for row in live.cli("queue", "list", "--json").data] == ["default"]
    assert live.cli("queue", "pause", "coming", "--create").out == "Queue 'coming' is paused.\n"
    assert live.cli("queue", "resume", "coming").out == "Queue 'coming' is handed out.\n"
    said = live.cli("queue", "reprioritize", run_id[:8], "9", code=1).sentence
    assert f"There is no open run '{run_id[:8]}': did you mean '{run_id}'? Say --yes" in said
    key = live.fleet.broker.keys.name("run_band", run_id[:8])
    assert not live.fleet.broker.client.exists(key)
    assert "has priority 9" in live.cli("queue", "reprioritize", run_id[:8], "9", "--yes").out
    live.start_worker()
    assert live.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    said = live.cli("queue", "reprioritize", run_id, "9", code=1).sentence
    assert f"Run {run_id} is over (SUCCESS)" in said


# -- dead-letter


def test_dead_letters_are_listed_shown_requeued_and_purged(live: Live, tmp_path):
    assert live.cli("dead-letter", "list").out == "There are no dead letters.\n"
    assert live.cli("dead-letter", "requeue", "--all").out == "Nothing was requeued.\n"
    other = tmp_path / "other.py"
    other.write_text("import dagster as dg\ndefs = dg.Definitions()\n")
    wrong = live.fleet.start_worker("-f", str(other))
    runs = [live.launch("quick") for _ in range(3)]
    letters = lambda: live.cli("dead-letter", "list", "--json").data  # noqa: E731
    live.fleet.wait_for(lambda: len(letters()) == 3, "them to die")
    assert "This worker does not serve job 'quick'" in live.cli("dead-letter", "list").out
    by_run = {letter["task_id"]: letter["entry_id"] for letter in letters()}
    first, second, third = (by_run[run_task_id(run_id, 0)] for run_id in runs)
    shown = live.cli("dead-letter", "show", first).out
    assert yaml.safe_load(shown)["task_id"] == run_task_id(runs[0], 0)
    data = live.cli("dead-letter", "show", first, "--json").data
    assert runs[0] in data["payload"]
    assert data["queue"] == "default"

    live.fleet.stop_worker(wrong)
    live.start_worker()
    said = live.cli("dead-letter", "requeue", first).out
    assert said == f"{run_task_id(runs[0], 0)} waits in queue 'default' again.\n"
    assert live.cli("dead-letter", "purge", second, "--json").data == {"deleted": 1}
    (done,) = live.cli("dead-letter", "requeue", "--all", "--json").data
    assert done == {"letter": third, "task_id": run_task_id(runs[2], 0), "outcome": "queued"}
    assert live.cli("dead-letter", "purge", "--all").out == "Deleted 0 dead letters.\n"
    live.fleet.wait_for(
        lambda: (
            readings.fetch(live.fleet.broker, run_task_id(runs[2], 0)).state is not State.QUEUED
        ),
        "a worker to take it",
    )
    assert letters() == []


# -- doctor, exporter, dev


def test_the_doctor_answers_people_and_programs(live: Live, tmp_path):
    live.start_worker()
    said = live.cli("doctor", "-w", str(live.workspace_file), code=2).out
    assert said.startswith("ERROR ")  # SQLite is not for several machines
    findings = live.cli("doctor", "--workspace", str(live.workspace_file), "--json", code=2).data
    assert {"check", "subject", "severity", "sentence", "remedy"} <= set(findings[0])
    assert len(findings) == len(said.splitlines())
    old = tmp_path / "old.yaml"
    old.write_text("run_launcher: {module: dagster_celery, class: CeleryRunLauncher, config: {}}")
    assert "TaskiqRunLauncher" in live.cli("doctor", "--migrate", str(old)).out


def test_the_exporter_serves_with_every_option(live: Live):
    live.start_worker()
    with live.started(
        "exporter", "--host", "127.0.0.1", "-p", "0", "--per-worker", "--max-queues", "1",
        "--dagster", "--dagster-interval", "1", "-w", str(live.workspace_file),
        "--basic-auth-user", "prometheus", "--ui-url", "http://127.0.0.1:3000", "--assets-prefix", "ops/taskiq",
        "--log-format", "console",
        ready="Metrics of namespace", DAGSTER_TASKIQ_EXPORTER_PASSWORD="pass-word",
    ) as (_, said):  # fmt: skip
        url = said().partition(" at ")[2].split()[0]
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        passwords.add_password(None, url, "prometheus", "pass-word")
        ask = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords)).open
        seen = lambda: b"dagster_taskiq_dagster_code_location_loaded{" in ask(url).read()  # noqa: E731
        live.fleet.wait_for(seen, "Dagster to be read")
        text = ask(url).read().decode()
        assert "dagster_taskiq_up 1.0" in text
        assert 'worker="worker-1' in text
        assert "pass-word" not in said()
    with (
        live.started("exporter", "--port", "0", "--no-dagster", ready="Metrics of namespace") as (
            _,
            said,
        ),
        urllib.request.urlopen(said().partition(" at ")[2].split()[0]) as answer,
    ):
        assert b"dagster_taskiq_dagster_code_location_loaded{" not in answer.read()


def test_dev_runs_a_job(live: Live, tmp_path):
    """Its UI: test_one_interrupt_ends_the_whole_stack, and the tests in a browser."""
    environment = {"DAGSTER_TASKIQ_URL": "", "DAGSTER_TASKIQ_NAMESPACE": "", "DAGSTER_HOME": ""}
    done = live.cli(
        "dev", "-w", str(live.workspace_file), "-q", "default", "--queue", "more",
        "--workers", "1", "--slots", "1", "--run-slots", "1", "--home", str(tmp_path / "home"),
        "-p", "0", "--log-format", "console", "--run", "quick", **environment,
    )  # fmt: skip
    assert "workers   1 ready, serving default, more" in done.out
    assert " succeeded in " in done.out


@pytest.mark.parametrize("named", ["-m", "-f", "dg", "dg workspace"])
def test_dev_takes_code_in_every_way_that_dagsters_tools_do(live: Live, tmp_path, named):
    project = tmp_path / "projects" / "one" if named == "dg workspace" else tmp_path
    package = project / "src" / "shop"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "definitions.py").write_text(CODE.read_text())
    block = '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "shop"\n'
    if named.startswith("dg"):
        (project / "pyproject.toml").write_text(block)
    if named == "dg workspace":
        (tmp_path / "dg.toml").write_text(
            'directory_type = "workspace"\n[[workspace.projects]]\npath = "projects/one"\n'
        )
    (tmp_path / "mine.py").write_text(CODE.read_text())
    environment = {"DAGSTER_TASKIQ_URL": "", "DAGSTER_TASKIQ_NAMESPACE": "", "DAGSTER_HOME": ""}
    code = {"-m": ["dev", "-m", "mine"], "-f": ["dev", "-f", str(package / "definitions.py")]}.get(
        named, ["dev"]
    )
    done = live.cli(
        *code, "--workers", "1", "--home", str(tmp_path / "home"), "--run", "quick",
        cwd=tmp_path, **environment,
    )  # fmt: skip
    assert " succeeded in " in done.out
    (tmp_path / "empty").mkdir()
    said = live.cli("dev", "--run", "quick", code=1, cwd=tmp_path / "empty", **environment).sentence
    assert "no workspace.yaml, and no [tool.dg]" in said
    assert "-m MODULE, -f FILE or -w WORKSPACE" in said


def test_version_and_help(live: Live):
    """Upstream: test_version, test_invoke_entrypoint."""
    assert __version__ in live.cli("--version").out
    assert "worker" in live.cli("--help").out
    assert "Start a worker" in live.cli("worker", "start", "--help").out


def test_the_page_of_commands_names_every_command_and_every_option():
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
    for path, command in commands():
        assert re.search(rf"[`(]{' '.join(path)}\b", page), path
        for option in command.params:
            if isinstance(option, click.Option):
                for name in (*option.opts, *option.secondary_opts):
                    assert re.search(rf"(?<![\w-]){name}(?![\w-])", page), (path, name)


def test_these_files_drive_every_command_and_every_option():
    driven: dict[tuple[str, ...], set[str]] = {}
    known = dict(commands())
    text = "\n".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    for node in ast.walk(ast.parse(text)):
        parts = node.args if isinstance(node, ast.Call) else getattr(node, "elts", [])
        words = [p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str)]
        if getattr(getattr(node, "func", None), "attr", "") == "in_background":
            words = ["worker", "start", *words]
        path = next((tuple(words[:n]) for n in (1, 2) if tuple(words[:n]) in known), None)
        if path is not None:
            driven.setdefault(path, set()).update(word for word in words if word.startswith("-"))
    assert set(driven) == set(known)
    of_the_broker = {"--url", "--namespace", "-y"}  # of every command, in test_refusals.py
    for path, command in known.items():
        for option in command.params:
            if isinstance(option, click.Option) and not of_the_broker & set(option.opts):
                assert driven[path] & {*option.opts, *option.secondary_opts}, (path, option.opts)
