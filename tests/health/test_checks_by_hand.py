"""Execute on a check in the UI, through the webserver's real GraphQL API, with nothing alive."""

import os
import sys

import pytest

from dagster_taskiq_kit.dev.embedded_broker import free_port
from dagster_taskiq_kit.health.hysteresis import AGREEING
from dagster_taskiq_kit.host.process_group import ProcessGroup
from tests.webserver_client import Webserver

from .conftest import Watching


@pytest.fixture
def webserver(watching: Watching):
    port = free_port()
    command = [sys.executable, "-m", "dagster_webserver", "-h", "127.0.0.1"]
    command += ["-p", str(port), "-w", str(watching.workspace_file)]
    environment = {**os.environ, **watching.fleet.environment, "GATE": str(watching.gate)}
    made = Webserver(f"http://127.0.0.1:{port}", "health_jobs.py")
    with ProcessGroup() as group, (watching.fleet.home / "webserver.log").open("wb") as log:
        group.start(command, environment=environment, output=log.fileno())
        watching.fleet.wait_for(made.answers, "the webserver to answer", within_s=90)
        yield made


def test_a_check_executed_by_hand_needs_neither_a_worker_nor_the_broker(
    watching: Watching, webserver: Webserver
):
    watching.broker.kill()
    run = watching.fleet.wait_for_run(webserver.execute_check(["taskiq", "redis"], "reachable"), 30)
    assert run.status.value == "SUCCESS", watching.fleet.said(run.run_id)
    assert watching.verdict("redis", "reachable") == "ERROR"
    assert any("without the queue" in line for line in watching.fleet.said(run.run_id))
    other = watching.fleet.wait_for_run(
        webserver.execute_check(["taskiq", "queue", "default"], "backlog"), 30
    )
    assert other.status.value == "SUCCESS"
    assert watching.verdict("queue", "default", "backlog") == "WARN"
    assert "Not known" in watching.check("queue", "default", "backlog").description

    watching.broker.start()
    watching.start_worker()
    run = watching.fleet.wait_for_run(webserver.execute_check(["taskiq", "redis"], "reachable"), 30)
    assert run.status.value == "SUCCESS"
    assert watching.verdict("redis", "reachable") == "ok"
    # It never was in the queue.
    assert not watching.fleet.broker.client.keys(f"*record*{run.run_id}*")


def test_what_is_not_known_is_never_shown_as_better_than_what_was_last_known(
    watching: Watching, webserver: Webserver
):
    for _ in range(3):
        watching.launch("waiting")
    red = [("runs", "no_stuck_runs"), ("queue", "default", "has_live_worker")]
    watching.ticks_until(lambda: all(watching.verdict(*path) == "ERROR" for path in red), 30)
    watching.broker.kill()
    watching.ticks_until(lambda: watching.verdict("redis", "reachable") == "ERROR")
    for _ in range(AGREEING + 1):
        watching.tick()
    for *subject, check in red:  # executed by hand it is as red as the sensor left it
        assert watching.verdict(*subject, check) == "ERROR"
        run_id = webserver.execute_check(["taskiq", *subject], check)
        assert watching.fleet.wait_for_run(run_id, 30).status.value == "SUCCESS"
        assert watching.verdict(*subject, check) == "ERROR"
        said = watching.check(*subject, check).description
        assert "ot known" in said
        assert "When it was last known it was ERROR." in said
    watching.gate.touch()
    watching.broker.start()
    watching.start_worker()
    watching.ticks_until(lambda: all(watching.verdict(*path) == "ok" for path in red), 30)


def test_a_run_of_checks_and_nothing_else_is_left_alone_by_monitoring_and_reconciler(
    watching: Watching, webserver: Webserver
):
    run_id = webserver.execute_check(["taskiq", "workers"], "heartbeats")
    run = watching.fleet.wait_for_run(run_id, 30)
    launcher = watching.instance.run_launcher
    health = launcher.check_run_worker_health(run)
    assert (health.status.value, health.msg) == (
        "RUNNING", "Its code server executes it; it is in no queue.",
    )  # fmt: skip
    assert run.tags["dagster/max_runtime"] == "300"
    assert launcher.terminate(run_id) is False  # it is over
