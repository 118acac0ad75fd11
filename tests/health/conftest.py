"""A fleet with a broker of its own, a project that shows its health, and real daemon ticks."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.sensor import execute_sensor_iteration

from dagster_taskiq_kit.dagster_internals.workspaces import launch_job
from dagster_taskiq_kit.testing import Fleet
from tests.chaos.own_broker import OwnBroker

CODE = Path(__file__).parent / "code" / "health_jobs.py"
SHORT = {"lease_s": 3, "renew_s": 1, "witness_s": 1, "unserved_note_s": 1,
         "cancel_grace_s": 2}  # fmt: skip
SENSORS = ("taskiq_health_sensor", "taskiq_stuck_run_sensor")


@contextlib.contextmanager
def workspace_of(fleet: Fleet, code: Path, location: str) -> Iterator[WorkspaceProcessContext]:
    """A workspace of one code location, written beside the instance."""
    workspace = fleet.home / ("workspace.yaml" if location == code.name else f"{location}.yaml")
    target = {"relative_path": str(code), "location_name": location}
    workspace.write_text(yaml.safe_dump({"load_from": [{"python_file": target}]}))
    with WorkspaceProcessContext(
        fleet.instance, WorkspaceFileTarget([str(workspace)]), code_server_log_level="WARNING"
    ) as process_context:
        yield process_context


class Watching:
    """A fleet, its broker, and the project that watches it."""

    def __init__(
        self, fleet: Fleet, broker: OwnBroker, gate: Path, process_context, code: Path
    ) -> None:
        self.fleet = fleet
        self.instance = fleet.instance
        self.broker = broker
        self.gate = gate
        self.process_context = process_context
        self.code = code
        self.workspace_file = fleet.home / "workspace.yaml"

    def start_worker(self, **options):
        environment = {"GATE": str(self.gate), **options.pop("environment", {})}
        return self.fleet.start_worker("-f", str(self.code), environment=environment, **options)

    def launch(self, job: str) -> str:
        return launch_job(self.instance, self.process_context.create_request_context(), job)

    def sensor_origin(self, name: str):
        workspace = self.process_context.create_request_context()
        (location,) = workspace.code_locations
        (repository,) = location.get_repositories().values()
        return repository.get_sensor(name)

    def tick(self, name: str = "taskiq_health_sensor"):
        """Have the real daemon's code evaluate the sensor once more; returns its tick."""
        sensor = self.sensor_origin(name)
        before = self.ticks(name)

        def ticked() -> bool:
            list(
                execute_sensor_iteration(
                    self.process_context, logging.getLogger("daemon"), None, None
                )
            )
            return len(self.ticks(name)) > len(before)

        self.fleet.wait_for(ticked, f"a tick of {name}")
        tick = self.ticks(name)[0]
        assert tick.status.value in ("SKIPPED", "SUCCESS"), (sensor.name, tick.error)
        return tick

    def ticks(self, name: str):
        sensor = self.sensor_origin(name)
        return self.instance.get_ticks(sensor.get_remote_origin().get_id(), sensor.selector_id)

    def check(self, *path: str):
        """Return the newest evaluation of a check: path of the asset, then its name."""
        *key, name = path
        check = dg.AssetCheckKey(dg.AssetKey(["taskiq", *key]), name)
        history = self.instance.event_log_storage.get_asset_check_execution_history(check, limit=1)
        return history[0].event.dagster_event.asset_check_evaluation_data if history else None

    def history(self, *path: str):
        *key, name = path
        check = dg.AssetCheckKey(dg.AssetKey(["taskiq", *key]), name)
        return self.instance.event_log_storage.get_asset_check_execution_history(check, limit=1000)

    def verdict(self, *path: str) -> str | None:
        """``ok``, ``WARN`` or ``ERROR``, as Dagster stores it; None when never evaluated."""
        found = self.check(*path)
        return None if found is None else "ok" if found.passed else found.severity.value

    def ticks_until(self, true, most: int = 10) -> int:
        """Tick until something is true; returns how many ticks that took."""
        for count in range(1, most + 1):
            self.tick()
            if true():
                return count
        raise AssertionError(f"{most} ticks were not enough")

    @contextlib.contextmanager
    def in_location(self, name: str) -> "Iterator[Watching]":
        """The same project on the same instance and broker, in a code location of another name."""
        with workspace_of(self.fleet, self.code, name) as process_context:
            yield Watching(self.fleet, self.broker, self.gate, process_context, self.code)

    def transitions(self) -> list[str]:
        file = Path(f"{self.gate}.transitions")
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def broker(tmp_path) -> Iterator[OwnBroker]:
    made = OwnBroker(tmp_path / "own-broker")
    yield made
    made.stop()


@pytest.fixture
def make_watching(make_fleet, broker, tmp_path):
    @contextlib.contextmanager
    def make(settings=None, environment=None, code=CODE, **options):
        gate = tmp_path / "gate"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GATE", str(gate))
            for name, value in (environment or {}).items():
                patch.setenv(name, value)
            with (
                make_fleet(
                    url=broker.url, settings={**SHORT, **(settings or {})}, **options
                ) as fleet,
                workspace_of(fleet, code, code.name) as process_context,
            ):
                yield Watching(fleet, broker, gate, process_context, code)

    return make


@pytest.fixture
def watching(make_watching) -> Iterator[Watching]:
    with make_watching() as made:
        yield made
