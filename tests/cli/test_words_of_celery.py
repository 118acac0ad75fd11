"""The commands with what dagster-celery's took: flags, YAML, and the words for what has no meaning."""

import re
import subprocess
import sys

import click
import pytest
import redis
import yaml

from dagster_taskiq_kit.broker import records
from dagster_taskiq_kit.cli.main import main
from dagster_taskiq_kit.dev.embedded_broker import start_embedded
from dagster_taskiq_kit.host.process_group import ProcessGroup
from dagster_taskiq_kit.vocabulary.states import Kind

from .conftest import CODE, open_live

SECRET = "hidden-word"  # what must be printed nowhere


def submit(connection, task_id, *, queue="default", priority=5, run_id="r1", kind=Kind.STEP):
    connection.run(
        records.submit(
            task_id=task_id, kind=kind, queue=queue, priority=priority, run_id=run_id,
            payload=b"{}",
        )
    )  # fmt: skip


def next_of(connection, token):
    return connection.run(
        records.claim(
            worker_id="w", lane="steps", token=token, kinds=[Kind.STEP], queues=["default"],
            oldest_first=False,
        )
    )  # fmt: skip


BROKER = {"env": "OLD_BROKER"}
ROUTES = {"broker_transport_options": {"visibility_timeout": 18000}, "task_default_queue": "old"}
NULLS = {"broker": BROKER, "backend": None, "include": None, "config_source": None}
FORMS = {
    "empty": {},
    "partial": {"execution": {"config": NULLS}},
    "partial_legacy": {"execution": {"celery": {"config": NULLS}}},
    "whole": {"execution": {"config": {"broker": BROKER, "config_source": ROUTES}}},
    "whole_legacy": {
        "execution": {"celery": {"config": {"broker": BROKER, "config_source": ROUTES}}}
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_the_old_yaml_starts_a_worker(live, tmp_path, form):
    """Upstream: test_start_worker_config_from_empty_yaml, test_start_worker_config_from_partial_yaml,
    test_start_worker_config_from_partial_yaml_legacy, test_start_worker_config_from_yaml,
    test_start_worker_config_from_yaml_legacy.
    """
    _ = live.fleet.instance.run_storage
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump(FORMS[form]))
    url = live.fleet.settings.url
    variables = {"DAGSTER_TASKIQ_URL": url} if form == "empty" else {"DAGSTER_TASKIQ_URL": ""}
    with live.started(
        "worker", "start", "-y", str(file), "-n", "w", "-f", str(CODE),
        ready=" is ready", OLD_BROKER=url, **variables,
    ):  # fmt: skip
        (card,) = live.cli("worker", "show", "w", "--json").data
        # Where the old configuration names the broker, the default queue is the old one.
        queues = {"empty": "default", "partial": "dagster", "whole": "old"}
        assert card["queues"] == [queues[form.removesuffix("_legacy")]]


def test_a_password_is_printed_nowhere_and_written_nowhere(make_fleet, tmp_path):
    """Upstream: test_config_value_from_env_yaml, whose library writes the value to a file."""
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump(FORMS["whole"]))
    with ProcessGroup() as group:
        plain = start_embedded(group, tmp_path / "broker")
        with redis.Redis.from_url(plain) as client:
            client.config_set("requirepass", SECRET)
        with (
            make_fleet(url=plain.replace("//", f"//:{SECRET}@")) as fleet,
            open_live(fleet) as live,
            live.started(
                "worker", "start", "-y", str(file), "-l", "debug", "-f", str(CODE),
                "-q", "default", ready=" is ready",
                OLD_BROKER=fleet.settings.url, DAGSTER_TASKIQ_URL="",
            ),
        ):  # fmt: skip
            run_id = live.launch("quick")
            assert fleet.wait_for_run(run_id).status.value == "SUCCESS"
            said = [*fleet.said(run_id), live.cli("status").out, live.cli("worker", "list").out]
            said.append(live.cli("doctor", code=None).out)
            written = [path.read_bytes() for path in fleet.home.rglob("*") if path.is_file()]
            assert len(written) > 3
    assert not any(SECRET in each for each in said)
    assert not any(SECRET.encode() in each for each in written)


@pytest.mark.parametrize(
    "form",
    [
        {"execution": {"config": {"broker": {"env": "OLD_BROKER"}, "backend": "rpc://"}}},
        {"execution": {"celery": {"config": {"broker": {"env": "OLD_BROKER"}, "retries": {}}}}},
        {"url": {"env": "OLD_BROKER"}},
        {"execution": {"config": {"broker": {"env": "OLD_BROKER"}, "backend": None,
                                  "include": None, "config_source": None}}},
    ],
)  # fmt: skip
def test_the_same_yaml_file_as_before_is_read(cli, connection, tmp_path, form):
    """Upstream: test_config_value_from_yaml."""
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump(form))
    submit(connection, "step:r1:a:1")
    said = cli("queue", "list", "-y", str(file), url=None, OLD_BROKER=connection.settings.url)
    assert "default  1" in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("execution: {config: {broker: {env: NOT_SET}}}", "the variable NOT_SET is not set"),
        ("execution: {config: {bogus: 1}}", "unknown setting 'bogus'"),
        ("execution: {config: {broker: 'amqp://me:hidden-word@rabbit'}}", "Redis or Valkey"),
        ("[1, 2]", "holds no settings by name"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_bad_yaml_file_is_one_sentence(cli, tmp_path, content, words):
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    said = cli("status", "-y", str(file), code=1)
    assert words in said
    assert SECRET not in said
    assert "cannot be read" in cli("status", "-y", str(tmp_path / "nowhere.yaml"), code=1)


def test_an_empty_yaml_file_says_nothing(cli, tmp_path):
    """Upstream: test_config_value_from_empty_yaml."""
    file = tmp_path / "empty.yaml"
    file.write_text("")
    assert "No queue was ever used." in cli("queue", "list", "-y", str(file))


def test_what_a_worker_of_celery_was_told_is_explained(cli, tmp_path):
    start = ("worker", "start", "-A", "dagster_celery.app", "-i", "my_module",
             "--run-slots", "0")  # fmt: skip
    said = cli(*start, "--", "--concurrency", "0", code=1, DAGSTER_HOME=str(tmp_path))
    assert "-A dagster_celery.app is not needed: one worker executes" in said
    assert "-i my_module is not needed: a worker serves the code that -m, -f and -w name" in said
    said = cli("worker", "start", "--", "--uid", "7", code=1, DAGSTER_HOME=str(tmp_path))
    assert "'--uid' is an argument of Celery's worker" in said


def test_purging_a_queue_ends_what_waits_and_nothing_else(cli, connection):
    for name in ("a", "b"):
        submit(connection, f"step:r1:{name}:1")
    submit(connection, "step:r1:other:1", queue="other")
    assert "Ended 2 messages of queue 'default'." in cli("queue", "purge", "default", "--yes")
    assert "Nothing waits in queue 'default'." in cli("queue", "purge", "default", "--yes")
    assert not hasattr(next_of(connection, "t1"), "task_id")
    assert "other" in cli("queue", "list")


def test_a_run_that_is_reprioritized_is_served_before_and_after(cli, connection):
    submit(connection, "step:r1:early:1", run_id="r1")
    submit(connection, "step:r2:late:1", run_id="r2")
    said = cli("queue", "reprioritize", "r2", "9")
    assert "Run r2 has priority 9 from now on; moved 1 queued message." in said
    submit(connection, "step:r1:high:1", run_id="r1", priority=8)
    submit(connection, "step:r2:next:1", run_id="r2", priority=1)
    order = [next_of(connection, f"t{n}").task_id for n in range(4)]
    assert order == [
        "step:r2:late:1", "step:r2:next:1", "step:r1:high:1", "step:r1:early:1",
    ]  # fmt: skip
    assert "11" in cli("queue", "reprioritize", "r2", "11", code=1)


def test_an_old_dagster_yaml_is_printed_for_this_kit(cli, tmp_path):
    old = tmp_path / "dagster.yaml"
    old.write_text(
        yaml.safe_dump(
            {
                "run_launcher": {
                    "module": "dagster_celery.launcher",
                    "class": "CeleryRunLauncher",
                    "config": {
                        "broker": f"pyamqp://me:{SECRET}@rabbit//", "default_queue": "long",
                        "config_source": {"worker_concurrency": 3, "task_default_priority": 4},
                    },
                },
                "storage": {"postgres": {"postgres_url": {"env": "PG"}}},
            }
        )
    )  # fmt: skip
    said = cli("doctor", "--migrate", str(old))
    assert SECRET not in said
    new = yaml.safe_load(said)
    assert new["run_launcher"] == {
        "module": "dagster_taskiq_kit", "class": "TaskiqRunLauncher",
        "config": {
            "url": {"env": "DAGSTER_TASKIQ_URL"}, "default_queue": "long", "default_priority": 4,
        },
    }  # fmt: skip
    assert new["storage"] == {"postgres": {"postgres_url": {"env": "PG"}}}
    assert new["run_monitoring"]["max_resume_run_attempts"] == 3
    assert "say --slots" in said
    other = tmp_path / "other.yaml"
    other.write_text("a: 1")
    assert "no block of a dagster.yaml and no execution block" in cli(
        "doctor", "--migrate", str(other), code=1
    )


def test_names_are_completed_in_the_shell(cli, connection):
    submit(connection, "step:r1:a:1", queue="gpu-large")
    completing = {"_DAGSTER_TASKIQ_COMPLETE": "bash_complete", "COMP_CWORD": "3"}
    words = {"COMP_WORDS": "dagster-taskiq queue pause gpu"}
    done = cli(**completing, **words)
    assert "gpu-large" in done


@pytest.mark.parametrize("asked", [["--help"], ["worker", "start", "--help"]])
def test_help_imports_nothing_heavy(asked):
    code = (
        "import sys\n"
        "from dagster_taskiq_kit.cli.main import main\n"
        f"try:\n    main({asked})\nexcept SystemExit:\n    pass\n"
        "heavy = {'dagster', 'taskiq', 'redis', 'prometheus_client'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_list_of_all_commands_says_what_each_says_of_itself():
    said = subprocess.run(
        [sys.executable, "-m", "dagster_taskiq_kit", "--help"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    listed = dict(re.findall(r"^  ([a-z-]+)  +(.*)$", said, flags=re.MULTILINE))
    assert set(main.list_commands(click.Context(main))) <= set(listed)
    for name in main.list_commands(click.Context(main)):
        help_text = main.get_command(click.Context(main), name).help
        assert help_text.startswith(listed[name].split(";")[0].rstrip(".")), name


def test_what_an_instance_says_of_other_things_stays_and_no_password_is_printed(cli, tmp_path):
    old = tmp_path / "dagster.yaml"
    old.write_text(
        yaml.safe_dump(
            {
                "storage": {"postgres": {"postgres_db": {"username": "u", "password": SECRET}}},
                "run_retries": {"enabled": True, "max_retries": 3},
                "telemetry": {"enabled": False},
                "run_launcher": {
                    "module": "dagster_celery", "class": "CeleryRunLauncher",
                    "config": {
                        "broker": f"redis://:p@{SECRET}@host/0",
                        "config_source": {"task_default_priority": {"env": "P"}},
                    },
                },
            }
        )
    )  # fmt: skip
    said = cli("doctor", "--migrate", str(old))
    assert SECRET not in said
    assert "Passwords are not printed: put yours back" in said
    new = yaml.safe_load(said)
    assert new["run_retries"] == {"enabled": True, "max_retries": 3}
    assert new["telemetry"] == {"enabled": False}
    assert new["run_launcher"]["config"]["default_queue"] == "dagster"
    assert new["run_launcher"]["config"]["default_priority"] == {"env": "P"}


def test_an_instance_without_a_launcher_and_a_runs_config_are_migrated_too(cli, tmp_path):
    old = tmp_path / "dagster.yaml"
    old.write_text("storage: {sqlite: {base_dir: here}}")
    said = cli("doctor", "--migrate", str(old))
    assert yaml.safe_load(said)["storage"] == {"sqlite": {"base_dir": "here"}}
    assert "Without a run_launcher block" in said
    old.write_text(
        yaml.safe_dump(
            {
                "execution": {"config": {"broker": {"env": "B"}, "retries": {"disabled": {}}}},
                "ops": {"load": {"config": {"rows": 3}}},
            }
        )
    )
    new = yaml.safe_load(cli("doctor", "--migrate", str(old)))
    assert new["ops"] == {"load": {"config": {"rows": 3}}}
    assert new["execution"]["config"]["url"] == {"env": "B"}
    assert new["execution"]["config"]["retries"] == {"disabled": {}}
    assert "say it without --json" in cli("doctor", "--migrate", str(old), "--json", code=1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("execution: redis://x", "'execution' must hold settings by name"),
        ("execution: {config: [1]}", "'config' must hold settings by name"),
        ("execution: {config: {config_source: abc}}", "config_source"),
        ("execution: {celery: 7}", "'celery' must hold settings by name"),
        ("run_launcher: 7", "'run_launcher' must hold settings by name"),
    ],
)
def test_a_file_of_the_wrong_shape_is_one_sentence(cli, tmp_path, content, words):
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    assert words in cli("doctor", "--migrate", str(file), code=1)
    if content.startswith("execution"):
        assert words in cli("queue", "list", "-y", str(file), code=1)


def test_what_is_not_needed_any_more_is_said_by_the_command_that_reads_it(cli, tmp_path):
    file = tmp_path / "old.yaml"
    source = {"worker_prefetch_multiplier": 1}
    config = {"backend": "rpc://", "include": ["m"], "config_source": source}
    file.write_text(yaml.safe_dump({"execution": {"config": config}}))
    said = cli("queue", "list", "-y", str(file))
    for name in ("backend", "include", "config_source.worker_prefetch_multiplier"):
        assert f"{name} is not needed: " in said


def test_flags_as_fingers_know_them(cli, tmp_path):
    assert "-A dagster_celery.app is not needed" in cli(
        "status", "-A", "dagster_celery.app", code=2
    )
    home = {"DAGSTER_HOME": str(tmp_path)}
    said = cli("worker", "start", "-q", "a,b", code=1, **home)
    assert "Name several by several -q." in said
    said = cli("worker", "start", "--", "--max-memory-per-child", "200000", code=1, **home)
    assert "in MiB (Celery counts KiB)" in said


def test_flags_in_one_word_start_one_worker_in_the_background(live):
    _ = live.fleet.instance.run_storage
    with live.in_background("-dn", "bundled", "-f", str(CODE), "--", "-c3") as (card, _):
        assert (card.name, card.slots) == ("bundled", 3)
        assert len(list(live.fleet.home.glob("taskiq-worker-*.log"))) == 1


@pytest.mark.parametrize("arguments", [["-q", "a b"], ["--", "--uid", "7"], ["-f", "/nowhere.py"]])
def test_nothing_is_started_in_the_background_that_would_end_at_once(live, arguments):
    said = live.cli("worker", "start", "-d", *arguments, code=1)
    assert "Error: " in said.err
    assert "in the background" not in said.out
    assert (
        "DAGSTER_HOME is not set" in live.cli("worker", "start", "-d", code=1, DAGSTER_HOME="").err
    )


def test_workers_and_commands_follow_the_launchers_block(make_fleet, monkeypatch):
    """As executors do: a team that says it there says it once."""
    with make_fleet() as fleet:
        monkeypatch.setenv("THE_BROKER", fleet.settings.url)
        config = {
            "url": {"env": "THE_BROKER"}, "namespace": fleet.settings.namespace,
            "queue_template": "of-{code_location}", "lease_s": {"env": "THE_LEASE"},
            "retries": {"disabled": {}},
        }  # fmt: skip
        home = fleet.home / "dagster.yaml"
        content = yaml.safe_load(home.read_text())
        content["run_launcher"]["config"] = config
        home.write_text(yaml.safe_dump(content))
        monkeypatch.setenv("THE_LEASE", "21")
        for name in ("DAGSTER_TASKIQ_URL", "DAGSTER_TASKIQ_NAMESPACE"):
            fleet.environment.pop(name)
        fleet.environment |= {"THE_BROKER": fleet.settings.url, "THE_LEASE": "21"}
        with open_live(fleet) as live:
            live.start_worker()
            (card,) = live.cli("worker", "list", "--json").data
            assert card["queues"] == ["of-cli_jobs.py"]
            run_id = live.launch("quick")
            assert fleet.wait_for_run(run_id).status.value == "SUCCESS"
            lease = live.cli("worker", "list", "--json").data[0]["lease_left_s"]
            assert 15 < lease <= 21


def test_what_cannot_be_read_of_the_launchers_block_is_left_out_alone_and_said(live):
    home = live.fleet.home / "dagster.yaml"
    content = yaml.safe_load(home.read_text())
    queues = {"etl": {"slo_s": {"env": "NOT_SET"}}}
    content["run_launcher"]["config"] = {"url": live.fleet.settings.url, "queues": queues}
    home.write_text(yaml.safe_dump(content))
    answer = live.cli("queue", "list", DAGSTER_TASKIQ_URL="redis://127.0.0.1:1")
    assert "queues is left out: the variable NOT_SET is not set" in answer.err
    assert answer.out == "No queue was ever used.\n"
    content["run_launcher"]["config"] = {"lease_s": 5, "renew_s": 3}
    home.write_text(yaml.safe_dump(content))
    said = live.cli("queue", "list", code=1).sentence
    assert "Bad run_launcher block of dagster.yaml: lease_s" in said
