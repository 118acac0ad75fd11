"""A Redis that allows less, as managed ones do: everything works, and what is not known is said."""

import re
import urllib.request

import pytest
import redis

from dagster_taskiq_kit.broker.acl import least_user, needed_commands
from dagster_taskiq_kit.broker.scripts import load_script
from dagster_taskiq_kit.dev.embedded_broker import find_server, free_port
from dagster_taskiq_kit.host.process_group import ProcessGroup, wait_until
from tests.chaos.own_broker import OwnBroker

from .conftest import ask, clean_environment, open_live
from .test_commands import STATUS, hold

UNTOLD = "Not judged: the server does not tell"


@pytest.fixture
def own_broker(tmp_path):
    broker = OwnBroker(tmp_path / "own-broker")
    yield broker
    broker.stop()


def everything_works(live):
    """Worker, launcher, cancel, steering, exporter, status and doctor; returns what two said."""
    live.start_worker()
    run_id = hold(live)
    live.gate.touch()
    assert live.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    assert live.cli("queue", "pause", "default").out == "Queue 'default' is paused.\n"
    queued = live.launch("quick")
    assert "moved 1" in live.cli("queue", "reprioritize", queued, "9").out
    assert "Ended 1" in live.cli("queue", "purge", "default", "--yes").out
    assert live.fleet.wait_for_run(queued).status is STATUS.CANCELED
    live.cli("queue", "resume", "default")
    live.cli("dead-letter", "list")
    with live.started("exporter", "--port", "0", "--no-dagster", ready="Metrics of") as (_, said):
        url = said().partition(" at ")[2].split()[0]
        with urllib.request.urlopen(url, timeout=20) as answer:
            assert b"dagster_taskiq_up 1.0" in answer.read()
    status, doctor = live.cli("status").out, live.cli("doctor", code=2).out
    (worker,) = live.fleet._workers
    live.cli("worker", "drain", "worker-1")
    assert worker.wait(60) == 0
    return status, doctor


@pytest.mark.parametrize("info", ["+info", "-info"])
def test_the_user_that_the_doctor_prints_is_enough_for_all_that_the_kit_does(
    make_fleet, own_broker, namespace, info
):
    environment = {**clean_environment(), "DAGSTER_TASKIQ_NAMESPACE": namespace}
    said = ask(environment, "doctor", "--acl").out
    assert ask(environment, "doctor", "--acl", "--json").data["rules"] == least_user(namespace)
    assert f"~{{{namespace}}} ~{{{namespace}}}:* " in said
    client = own_broker.client
    client.execute_command(*said.replace(">PASSWORD", ">a-password").split(), info)
    client.execute_command("ACL", "LOG", "RESET")
    url = own_broker.url.replace("//", "//dagster-taskiq:a-password@")
    with make_fleet(url=url, namespace=namespace) as fleet, open_live(fleet) as live:
        status, doctor = everything_works(live)
    for text in (status, doctor):
        assert (text.count(UNTOLD) == 2) == (info == "-info"), text
        assert "a-password" not in text
    words = redis.Redis(
        port=client.connection_pool.connection_kwargs["port"], decode_responses=True
    )
    refused = {entry["object"] for entry in words.acl_log()}
    assert refused == ({"info"} if info == "-info" else set())


def test_a_server_whose_commands_are_renamed_away_works_and_says_what_it_cannot_judge(
    make_fleet, tmp_path
):
    port = free_port()
    file = tmp_path / "server.conf"
    renamed = "\n".join(
        f'rename-command {name} ""' for name in ("CONFIG", "INFO", "KEYS", "FLUSHALL")
    )
    file.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nappendonly yes\n{renamed}\nlogfile {tmp_path}/log\n"
    )
    with ProcessGroup() as group:
        group.start([find_server(), str(file)])
        log = tmp_path / "log"
        assert wait_until(lambda: log.exists() and "Ready to accept" in log.read_text(), 30)
        with make_fleet(url=f"redis://127.0.0.1:{port}/0") as fleet, open_live(fleet) as live:
            status, doctor = everything_works(live)
    for text in (status, doctor):
        assert text.count(UNTOLD) == 2, text
        assert "memory is full" not in text


def test_every_command_of_every_script_is_one_that_the_user_gets():
    for name in ("snapshot", "claim", "finish", "renew", "rescue", "submit", "watch"):
        source = load_script(name).source
        calls = re.findall(r"redis\.p?call\(\s*(['\w]+)", source)
        assert calls
        for command in calls:
            assert command.startswith("'"), f"{name}.lua calls {command}: name the command itself"
            assert command.strip("'").lower() in needed_commands() | {"info"}
