"""Execute on a check in the UI, through the webserver's real GraphQL API, with nothing alive."""

import json
import os
import sys
import urllib.request

import pytest

from dagster_taskiq_kit.embedded import free_port
from dagster_taskiq_kit.process_group import ProcessGroup

from .conftest import Watching

LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message stack }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""


class Webserver:
    """The real webserver on an instance, ended with the test."""

    def __init__(self, watching: Watching, group: ProcessGroup) -> None:
        self.port = free_port()
        log = (watching.fleet.home / "webserver.log").open("wb")
        command = [sys.executable, "-m", "dagster_webserver", "-h", "127.0.0.1"]
        command += ["-p", str(self.port), "-w", str(watching.workspace_file)]
        environment = {**os.environ, **watching.fleet.environment, "GATE": str(watching.gate)}
        group.start(command, environment=environment, output=log.fileno())
        watching.fleet.wait_for(self.answers, "the webserver to answer", within_s=90)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/server_info", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def ask(self, query: str, **variables):
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"{self.url}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["data"]

    def execute_check(self, *path: str) -> str:
        """Do what the button does; returns the run id."""
        *key, name = path
        selector = {
            "repositoryName": "__repository__", "repositoryLocationName": "health_jobs.py",
            "pipelineName": "__ASSET_JOB", "assetSelection": [],
            "assetCheckSelection": [{"assetKey": {"path": ["taskiq", *key]}, "name": name}],
        }  # fmt: skip
        params = {"mode": "default", "selector": selector, "runConfigData": {}}
        launched = self.ask(LAUNCH, params=params)["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]


@pytest.fixture
def webserver(watching: Watching):
    with ProcessGroup() as group:
        yield Webserver(watching, group)


def test_a_check_executed_by_hand_needs_neither_a_worker_nor_the_broker(
    watching: Watching, webserver: Webserver
):
    watching.broker.kill()
    run = watching.fleet.wait_for_run(webserver.execute_check("redis", "reachable"), 30)
    assert run.status.value == "SUCCESS", watching.fleet.said(run.run_id)
    assert watching.verdict("redis", "reachable") == "ERROR"
    assert any("without the queue" in line for line in watching.fleet.said(run.run_id))
    other = watching.fleet.wait_for_run(webserver.execute_check("queue", "default", "backlog"), 30)
    assert other.status.value == "SUCCESS"
    assert watching.verdict("queue", "default", "backlog") == "WARN"
    assert "Not known" in watching.check("queue", "default", "backlog").description

    watching.broker.start()
    watching.start_worker()
    run = watching.fleet.wait_for_run(webserver.execute_check("redis", "reachable"), 30)
    assert run.status.value == "SUCCESS"
    assert watching.verdict("redis", "reachable") == "ok"
    # It never was in the queue.
    assert not watching.fleet.broker.client.keys(f"*record*{run.run_id}*")


def test_a_run_of_checks_and_nothing_else_is_left_alone_by_monitoring_and_reconciler(
    watching: Watching, webserver: Webserver
):
    run_id = webserver.execute_check("workers", "heartbeats")
    run = watching.fleet.wait_for_run(run_id, 30)
    launcher = watching.instance.run_launcher
    health = launcher.check_run_worker_health(run)
    assert (health.status.value, health.msg) == (
        "RUNNING", "Its code server executes it; it is in no queue.",
    )  # fmt: skip
    assert run.tags["dagster/max_runtime"] == "300"
    assert launcher.terminate(run_id) is False  # it is over
