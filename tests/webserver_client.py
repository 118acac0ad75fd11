"""What the UI does, done through the webserver's own GraphQL API."""

import json
import urllib.request
from collections.abc import Sequence
from typing import Any

_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message stack }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
_CHECKS = """
query Checks($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode { assetChecksOrError { ... on AssetChecks { checks {
      name executionForLatestMaterialization { status evaluation { severity description } }
    } } } }
  }
}
"""


class Webserver:
    """A running webserver, seen as a client.

    Args:
        url: Where it answers.
        location: The code location of what is launched.
    """

    def __init__(self, url: str, location: str) -> None:
        self.url = url
        self._location = location

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/server_info", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"{self.url}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["data"]

    def launch_job(self, job: str) -> str:
        """Do what the Launchpad's button does; returns the run id."""
        return self._launch({"pipelineName": job})

    def execute_check(self, key: Sequence[str], name: str) -> str:
        """Do what a check's Execute button does; returns the run id."""
        check = {"assetKey": {"path": list(key)}, "name": name}
        return self._launch(
            {"pipelineName": "__ASSET_JOB", "assetSelection": [], "assetCheckSelection": [check]}
        )

    def verdict(self, key: Sequence[str], name: str) -> str | None:
        """Return a check as the UI shows it: ``ok``, ``WARN`` or ``ERROR``; None if it never ran."""
        node = self.ask(_CHECKS, key={"path": list(key)})["assetNodeOrError"]
        (check,) = (c for c in node["assetChecksOrError"]["checks"] if c["name"] == name)
        execution = check["executionForLatestMaterialization"]
        if not execution or not execution["evaluation"]:
            return None
        if execution["status"] == "SUCCEEDED":
            return "ok"
        return execution["evaluation"]["severity"]

    def _launch(self, selector: dict[str, Any]) -> str:
        where = {
            "repositoryName": "__repository__", "repositoryLocationName": self._location,
        }  # fmt: skip
        params = {"mode": "default", "selector": {**where, **selector}, "runConfigData": {}}
        launched = self.ask(_LAUNCH, params=params)["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]
