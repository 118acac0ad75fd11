"""A fleet with short leases, a ledger that every step body writes, and gates that they wait at."""

import json
import logging
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from dagster_taskiq_kit.dagster_internals.workspaces import launch_job
from dagster_taskiq_kit.testing import Fleet

from .own_broker import OwnBroker
from .proxy import Proxy

CODE = Path(__file__).parent / "code" / "chaos_jobs.py"
SHORT = {"lease_s": 3, "renew_s": 1, "witness_s": 1}
MONITORING = {
    "run_monitoring": {
        "enabled": True,
        "start_timeout_seconds": 31_536_000,
        "max_resume_run_attempts": 3,
        "poll_interval_seconds": 1,
    }
}


@dataclass(frozen=True)
class Entry:
    """One line of the ledger."""

    run: str
    step: str
    attempt: int
    pid: int
    worker: int
    what: str
    at: float


class Chaos:
    """A fleet under test, its ledger and its gates."""

    def __init__(
        self, fleet: Fleet, folder: Path, context, process_context, code: Path = CODE
    ) -> None:
        self.fleet = fleet
        self.code = code
        self.ledger_file = folder / "ledger"
        self.gates = folder / "gates"
        self._context = context
        self._process_context = process_context

    def start_worker(self, *arguments: str, **options):
        environment = {"LEDGER": str(self.ledger_file), **options.pop("environment", {})}
        return self.fleet.start_worker(
            "-f", str(self.code), *arguments, environment=environment, **options
        )

    def start_orchestrating(self, **options):
        return self.start_worker(slots=0, **options)

    def start_executing(self, **options):
        return self.start_worker(run_slots=0, **options)

    def database_url(self) -> str:
        return self._config()["storage"]["postgres"]["postgres_url"]

    def _config(self) -> dict:
        return yaml.safe_load((self.fleet.home / "dagster.yaml").read_text())

    def home_through(self, home: Path, proxy) -> Path:
        """Make a DAGSTER_HOME of the same instance that reaches its database through a proxy."""
        config = self._config()
        config["storage"]["postgres"]["postgres_url"] = proxy.url(self.database_url())
        home.mkdir()
        (home / "dagster.yaml").write_text(yaml.safe_dump(config))
        return home

    def launch(self, job: str) -> str:
        return launch_job(self.fleet.instance, self._context, job)

    def open_gates(self, *names: str) -> None:
        for name in names:
            (self.gates / name).touch()

    def ledger(self) -> list[Entry]:
        if not self.ledger_file.exists():
            return []
        return [Entry(**json.loads(line)) for line in self.ledger_file.read_text().splitlines()]

    def bodies(self, step: str, what: str = "start") -> list[Entry]:
        return [entry for entry in self.ledger() if (entry.step, entry.what) == (step, what)]

    def wait_for_bodies(self, step: str, count: int = 1, what: str = "start") -> None:
        self.fleet.wait_for(
            lambda: len(self.bodies(step, what)) >= count, f"{count} bodies of {step} to {what}",
            self.explain,
        )  # fmt: skip

    def explain(self) -> str:
        logs = [path.read_text()[-3000:] for path in sorted(self.fleet.home.glob("worker-*.log"))]
        said = [
            line for run in self.fleet.instance.get_runs() for line in self.fleet.said(run.run_id)
        ]
        return "\n".join([*said, *(str(entry) for entry in self.ledger()), *logs])

    def worker_said(self, number: int) -> str:
        return self.fleet.worker_log(number).read_text()

    def monitor(self) -> list:
        """Do one iteration of Dagster's own run monitoring; returns its errors."""
        iteration = execute_run_monitoring_iteration(
            self._process_context, logging.getLogger("monitoring")
        )
        return [error for error in iteration if error is not None]

    def noted(self, name: str) -> list[dict]:
        """What bodies noted under a name, in order."""
        file = self.ledger_file.parent / "pids"
        lines = file.read_text().splitlines() if file.exists() else []
        return [note for note in map(json.loads, lines) if note["name"] == name]

    def wait_for_note(self, name: str, count: int = 1) -> dict:
        self.fleet.wait_for(
            lambda: len(self.noted(name)) >= count, f"{count} notes of {name}", self.explain
        )
        return self.noted(name)[count - 1]

    def kill(self, worker) -> None:
        worker.send_signal(signal.SIGKILL)
        worker.wait(20)

    def overlaps(self, step: str) -> bool:
        """Whether two bodies of a step were at work at once, by pid and time."""
        open_bodies: set[int] = set()
        for entry in sorted(self.ledger(), key=lambda entry: entry.at):
            if entry.step != step:
                continue
            if entry.what == "start":
                if any(psutil.pid_exists(pid) for pid in open_bodies):
                    return True
                open_bodies.add(entry.pid)
            else:
                open_bodies.discard(entry.pid)
        return False


@pytest.fixture
def broker(tmp_path) -> Iterator[OwnBroker]:
    """A Valkey of the test's own, for tests that kill it."""
    made = OwnBroker(tmp_path / "own-broker")
    yield made
    made.stop()


@pytest.fixture
def database(postgres) -> Iterator[Proxy]:
    """A PostgreSQL database behind a proxy that a test can cut."""
    proxy = Proxy.to(postgres())
    yield proxy
    proxy.close()


@pytest.fixture
def chaos(make_chaos) -> Iterator[Chaos]:
    with make_chaos() as made:
        yield made


@pytest.fixture
def make_chaos(make_fleet, tmp_path):
    import contextlib

    @contextlib.contextmanager
    def make(settings=None, code=CODE, **options):
        (tmp_path / "gates").mkdir(exist_ok=True)
        workspace = tmp_path / "workspace.yaml"
        target = {"relative_path": str(code), "location_name": code.name}
        workspace.write_text(yaml.safe_dump({"load_from": [{"python_file": target}]}))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LEDGER", str(tmp_path / "ledger"))
            options.setdefault("config", MONITORING)
            if "storage" not in options["config"]:
                options.setdefault("storage", "postgres")
            with (
                make_fleet(settings={**SHORT, **(settings or {})}, **options) as fleet,
                WorkspaceProcessContext(
                    fleet.instance, WorkspaceFileTarget([str(workspace)]),
                    code_server_log_level="WARNING",
                ) as process_context,
            ):  # fmt: skip
                context = process_context.create_request_context()
                yield Chaos(fleet, tmp_path, context, process_context, code)

    return make
