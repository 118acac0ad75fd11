"""One Dagster instance with a broker and workers of its own; see the package."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from ..broker.connection import SyncConnection
from ..config.settings import ENV_PREFIX, TaskiqSettings
from ..dagster_internals.postgres.pool import instance_id
from ..health.snapshot import Snapshot, read_snapshot
from ..host.process_group import ProcessGroup, wait_until
from ..vocabulary.errors import TaskiqKitError

_WITHIN_S = 60.0

OUR_LAUNCHER = {"module": "dagster_taskiq_kit", "class": "TaskiqRunLauncher"}


class FleetError(TaskiqKitError):
    """Something of a fleet did not come about in time."""


class Fleet:
    """Broker, instance and workers.

    Args:
        home: ``DAGSTER_HOME`` of the fleet; its ``dagster.yaml`` is written here.
        url: The broker.
        namespace: Namespace on it; a fleet must have its own.
        launcher: ``run_launcher`` of the instance; ours unless said, None for Dagster's default.
        config: Further keys of ``dagster.yaml``, such as ``storage``.
        settings: Further settings of the whole fleet, such as ``lease_s``.
    """

    def __init__(
        self,
        home: Path,
        url: str,
        namespace: str,
        *,
        launcher: Mapping[str, Any] | None = OUR_LAUNCHER,
        config: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        explicit = {**(settings or {}), "url": url, "namespace": namespace}
        self.settings = TaskiqSettings.resolve(explicit)
        self.broker = SyncConnection(self.settings)
        self._variables = {ENV_PREFIX + name.upper(): str(v) for name, v in explicit.items()}
        self.environment = {
            **os.environ,
            **self._variables,
            "DAGSTER_HOME": str(home),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }
        content: dict[str, Any] = {
            # Without the daemon nobody takes runs from Dagster's own queue.
            "run_coordinator": {
                "module": "dagster._core.run_coordinator",
                "class": "DefaultRunCoordinator",
            },
            "telemetry": {"enabled": False},
            **(config or {}),
        }
        if launcher is not None:
            content["run_launcher"] = dict(launcher)
        (home / "dagster.yaml").write_text(yaml.safe_dump(content))
        self._variables_before: dict[str, str | None] = {}
        self._group = ProcessGroup()
        self._instance: dg.DagsterInstance | None = None
        self._workers: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> "Fleet":
        self._group.__enter__()
        return self

    def __exit__(self, *_error: object) -> None:
        self._group.stop()
        if self._instance is not None:
            self._instance.dispose()
        for name, value in self._variables_before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        self.broker.close()

    @property
    def instance(self) -> dg.DagsterInstance:
        """The Dagster instance; its launcher finds this fleet's broker.

        An executor in the test's own process reads the environment: there the fleet counts whose
        instance was first used last.
        """
        if self._instance is None:
            for name, value in self._variables.items():
                self._variables_before[name] = os.environ.get(name)
                os.environ[name] = value
            self._instance = dg.DagsterInstance.from_config(str(self.home))
            # Made now, while the environment is this fleet's: a second fleet may change it.
            assert self._instance.run_launcher
        return self._instance

    def start_worker(
        self,
        *arguments: str,
        queues: Sequence[str] = (),
        slots: int = 2,
        run_slots: int = 2,
        wait: bool = True,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = (sys.executable, "-m", "dagster_taskiq_kit"),
    ) -> subprocess.Popen[Any]:
        """Start a worker.

        Args:
            arguments: Further arguments, such as ``-m`` with a module of definitions.
            queues: What it serves; default the default queue.
            slots: Steps at once.
            run_slots: Runs at once.
            wait: Whether to wait until it is ready.
            environment: What its environment has beyond the fleet's.
            program: What is started.

        Raises:
            FleetError: It ended, or was not ready in time; with what it said.
        """
        instance_id(self.instance)  # creates storage and id before a worker does
        number = len(self._workers) + 1
        log = self.worker_log(number)
        options = ["--name", f"worker-{number}", "--slots", str(slots)]
        options += ["--run-slots", str(run_slots)]
        options += [part for queue in queues for part in ("-q", queue)]
        command = [*program, "worker", "start"]
        with log.open("wb") as output:
            worker = self._group.start(
                [*command, *options, *arguments],
                environment={**self.environment, **(environment or {})},
                output=output.fileno(),
                stop_within_s=10.0,
            )
        self._workers.append(worker)
        if wait:
            self.wait_for(
                lambda: worker.poll() is not None or self._is_ready(worker.pid),
                f"worker {number} to be ready",
                log.read_text,
            )
            if worker.poll() is not None:
                raise FleetError(f"Worker {number} ended:\n{log.read_text()}")
        return worker

    def worker_log(self, number: int) -> Path:
        """Return the file with what worker ``number`` (from 1) said."""
        return self.home / f"worker-{number}.log"

    def _is_ready(self, pid: int) -> bool:
        return any(worker.card.pid == pid and worker.live for worker in self.snapshot().workers)

    def stop_worker(self, worker: "subprocess.Popen[Any]", within_s: float = _WITHIN_S) -> int:
        """Stop a worker with SIGTERM and return its exit code."""
        worker.send_signal(signal.SIGTERM)
        return worker.wait(within_s)

    def snapshot(self) -> Snapshot:
        """Read queues and workers."""
        return read_snapshot(self.broker)

    def wait_for_run(self, run_id: str, within_s: float = _WITHIN_S) -> dg.DagsterRun:
        """Wait until a run is over and return it.

        Raises:
            FleetError: It was not over in time; with its log.
        """

        def over() -> bool:
            run = self.instance.get_run_by_id(run_id)
            return run is not None and run.is_finished

        self.wait_for(over, f"run {run_id} to end", lambda: "\n".join(self.said(run_id)), within_s)
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def said(self, run_id: str) -> list[str]:
        """Return a run's log as lines, with the first line of each step's error."""
        lines: list[str] = []
        for entry in self.instance.all_logs(run_id):
            event = entry.dagster_event
            kind = event.event_type_value if event else "-"
            text = (event.message if event else None) or entry.user_message
            error = getattr(event.event_specific_data, "error", None) if event else None
            why = f" {error.message.splitlines()[0]}" if entry.step_key and error else ""
            lines.append(f"{entry.step_key or '-'} {kind} {text}{why}")
        return lines

    def wait_for(
        self,
        true: Callable[[], bool],
        what: str,
        explain: Callable[[], str] = lambda: "",
        within_s: float = _WITHIN_S,
    ) -> None:
        """Wait until ``true()``.

        Raises:
            FleetError: It did not come about in time; says what, and what ``explain`` returns.
        """
        if not wait_until(true, within_s):
            raise FleetError(f"Waited {within_s:g} s in vain for {what}.\n{explain()}")
