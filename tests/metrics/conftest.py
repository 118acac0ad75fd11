"""A fleet on PostgreSQL with a broker of its own, exporters, and Debian's Prometheus."""

import json
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from dagster_taskiq_kit.dagster_internals.workspaces import launch_job, workspace_of
from dagster_taskiq_kit.dev.embedded_broker import free_port
from dagster_taskiq_kit.host.process_group import ProcessGroup
from dagster_taskiq_kit.testing import Fleet
from tests.chaos.own_broker import OwnBroker

ROOT = Path(__file__).resolve().parents[2]
CODE = Path(__file__).parent / "code" / "metric_jobs.py"
SHORT = {"lease_s": 3, "renew_s": 1, "witness_s": 1}


def get(url: str, timeout_s: float = 10) -> tuple[int, str]:
    """Fetch a page; returns its status and text."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Exporter:
    """One exporter process on a port of its own, which it keeps when it is started again."""

    def __init__(self, site: "Site", *options: str) -> None:
        self._site = site
        self._options = options
        self.port = free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._log = self._site.fleet.home / f"exporter-{self.port}.log"
        command = [sys.executable, "-m", "dagster_taskiq_kit", "exporter"]
        with self._log.open("ab") as output:
            self.process = self._site.group.start(
                [*command, "--port", str(self.port), *self._options],
                environment=self._site.environment, output=output.fileno(),
            )  # fmt: skip
        self._site.fleet.wait_for(self.answers, "the exporter to answer", self._log.read_text)

    def answers(self) -> bool:
        try:
            return get(f"{self.url}/-/healthy")[0] == 200
        except OSError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)

    def text(self) -> str:
        status, text = get(f"{self.url}/metrics")
        assert status == 200
        return text

    def samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """Return one sample; several are added."""
        found = [
            value for (sample, pairs), value in self.samples().items()
            if sample == f"dagster_taskiq_{name}" and labels.items() <= dict(pairs).items()
        ]  # fmt: skip
        assert found, (name, labels)
        return sum(found)


class Prometheus:
    """Debian's Prometheus, scraping exporters each second, with the kit's rules."""

    def __init__(self, site: "Site", folder: Path, exporters: list[Exporter]) -> None:
        folder.mkdir()
        rules = ROOT / "dashboards" / "rules"
        (folder / "recording.yml").write_text((rules / "recording.yml").read_text())
        alerts = yaml.safe_load((rules / "alerts.yml").read_text())
        for rule in alerts["groups"][0]["rules"]:
            # Minutes are for people; what is tried here is whether it fires at all.
            rule["for"] = "2s" if rule.get("for") else "0s"
            rule.pop("keep_firing_for", None)
        (folder / "alerts.yml").write_text(yaml.safe_dump(alerts))
        every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        targets = [f"127.0.0.1:{exporter.port}" for exporter in exporters]
        scrape = {"job_name": "dagster-taskiq", "static_configs": [{"targets": targets}]}
        config = {
            "global": every, "rule_files": ["recording.yml", "alerts.yml"],
            "scrape_configs": [scrape],
        }  # fmt: skip
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._url = f"http://127.0.0.1:{free_port()}"
        log = folder / "log"
        with log.open("wb") as output:
            site.group.start(
                ["prometheus", f"--config.file={folder}/prometheus.yml",
                 f"--storage.tsdb.path={folder}/data",
                 f"--web.listen-address={self._url.removeprefix('http://')}"],
                environment=site.environment, output=output.fileno(),
            )  # fmt: skip
        site.fleet.wait_for(self._answers, "Prometheus to answer", log.read_text)

    def _answers(self) -> bool:
        try:
            return get(f"{self._url}/-/ready")[0] == 200
        except OSError:
            return False

    def api(self, path: str, **parameters: Any) -> Any:
        status, text = get(f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", 30)
        answer = json.loads(text)
        assert status == 200, answer
        return answer["data"]

    def ask(self, expression: str) -> list[dict]:
        return self.api("query", query=expression)["result"]

    def over(self, expression: str, start_s: float, end_s: float) -> list[dict]:
        return self.api("query_range", query=expression, start=start_s, end=end_s, step=1)["result"]

    def value(self, expression: str) -> float | None:
        found = self.ask(expression)
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> set[str]:
        return {each["metric"]["alertname"] for each in self.ask('ALERTS{alertstate="firing"}')}


class Site:
    """A fleet, its broker and its code."""

    def __init__(self, fleet: Fleet, broker: OwnBroker, gate: Path, workspace) -> None:
        self.fleet = fleet
        self.instance = fleet.instance
        self.broker = broker
        self.gate = gate
        self.group = ProcessGroup()
        self.environment = {**fleet.environment, "GATE": str(gate)}
        self._workspace = workspace
        self.workspace_file = fleet.home / "workspace.yaml"

    def start_worker(self, *arguments: str, **options):
        return self.fleet.start_worker(
            "-f", str(CODE), *arguments, environment={"GATE": str(self.gate)}, **options
        )

    def launch(self, job: str) -> str:
        return launch_job(self.instance, self._workspace, job)


@pytest.fixture
def site(make_fleet, tmp_path) -> Iterator[Site]:
    broker, gate = OwnBroker(tmp_path / "own-broker"), tmp_path / "gate"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GATE", str(gate))
        with make_fleet("postgres", url=broker.url, settings=SHORT) as fleet:
            workspace = fleet.home / "workspace.yaml"
            target = {"relative_path": str(CODE), "location_name": "metric_jobs.py"}
            workspace.write_text(yaml.safe_dump({"load_from": [{"python_file": target}]}))
            fleet.instance.event_log_storage.set_concurrency_slots("narrow", 2)
            with workspace_of(fleet.instance, [str(workspace)]) as loaded:
                made = Site(fleet, broker, gate, loaded)
                with made.group:
                    yield made
    broker.stop()
