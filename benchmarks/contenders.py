"""Who is compared, and how each one's workers are started.

Invariant: contenders differ in executor, interpreter and worker only; each has a database and a
``DAGSTER_HOME`` of its own on the same servers.
"""

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from dagster_taskiq_kit.host.process_group import ProcessGroup, wait_until
from dagster_taskiq_kit.worker.process.lifecycle import CHILD

from . import jobs
from .servers import Postgres

ROOT = Path(__file__).resolve().parent.parent
_READY_WITHIN_S = 120.0
#: Of the kit's worker, by contender.
_SLOTS = {"taskiq": jobs.SLOTS, "taskiq_8": 8}


@dataclass(frozen=True)
class Contender:
    """One executor, ready to execute runs.

    Args:
        name: What it is called, also in its database's name.
        python: The interpreter of its environment.
        environment: The environment variables of its orchestrator and of its worker.
        processes: Process id of its worker, if it has one, by the name of that part.
    """

    name: str
    python: Path
    environment: dict[str, str]
    processes: Mapping[str, int] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """Its ``DAGSTER_HOME``."""
        return Path(self.environment["DAGSTER_HOME"])

    @property
    def worker_log(self) -> Path:
        """Where its worker's output goes, if it has one."""
        return self.home / "worker.log"


def prepare(
    name: str, python: Path, postgres: Postgres, valkey_url: str, directory: Path
) -> Contender:
    """Make a contender's database and its ``DAGSTER_HOME``."""
    home = directory / name
    home.mkdir()
    instance = {
        "storage": {"postgres": {"postgres_url": postgres.create_database(f"bench_{name}")}},
        "telemetry": {"enabled": False},
    }
    # JSON is YAML.
    (home / "dagster.yaml").write_text(json.dumps(instance))
    environment = {
        **os.environ,
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": os.pathsep.join(
            [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])]
        ),
        "DAGSTER_HOME": str(home),
        jobs.EXECUTOR: name,
    }
    if name.startswith("taskiq"):
        environment["DAGSTER_TASKIQ_URL"] = f"{valkey_url}/0"
        environment["DAGSTER_TASKIQ_NAMESPACE"] = name
    if name == "celery":
        environment[jobs.CELERY_URL] = f"{valkey_url}/1"
    return Contender(name, python, environment)


def start_worker(contender: Contender, group: ProcessGroup) -> Contender:
    """Start the worker of a contender that has one, and wait until it is ready.

    Raises:
        SystemExit: It is not ready in time, or ended.
    """
    slots = _SLOTS.get(contender.name)
    if slots is not None:
        command, sign = _taskiq_worker(slots), "is ready"
    elif contender.name == "celery":
        command, sign = _celery_worker(contender), " ready."
    else:
        return contender
    log_file = contender.worker_log
    with log_file.open("wb") as log:
        program = group.start(command, environment=contender.environment, output=log)

    def decided() -> bool:
        return program.poll() is not None or sign in log_file.read_text()

    if not wait_until(decided, _READY_WITHIN_S) or program.poll() is not None:
        raise SystemExit(f"The worker of {contender.name} is not ready:\n{log_file.read_text()}")
    if contender.name == "taskiq":
        _print_waiting_memory(program.pid)
    return replace(contender, processes={"worker": program.pid})


def _print_waiting_memory(worker: int) -> None:
    """Print what a child that waits has of memory of its own."""
    found: list[float] = []

    def one_waits() -> bool:
        for process in psutil.Process(worker).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.name() == CHILD:
                    found.append(process.memory_full_info().uss / 2**20)
        return bool(found)

    if wait_until(one_waits, _READY_WITHIN_S):
        print(f"A waiting child has {found[0]:.1f} MiB of memory of its own (USS).", flush=True)


def _taskiq_worker(slots: int) -> list[str]:
    return [
        sys.executable, "-m", "dagster_taskiq_kit", "worker", "start", "-m", jobs.__name__,
        "--working-directory", str(ROOT), "--slots", str(slots), "--run-slots", "1",
        "-q", "default", "--warm", os.environ.get(jobs.WARM, "auto"),
    ]  # fmt: skip


def _celery_worker(contender: Contender) -> list[str]:
    url = contender.environment[jobs.CELERY_URL]
    config = contender.home / "celery.yaml"
    config.write_text(json.dumps({"execution": {"config": {"broker": url, "backend": url}}}))
    return [
        str(contender.python.parent / "dagster-celery"), "worker", "start",
        "-A", "dagster_celery.app", "-y", str(config), "--", f"--concurrency={jobs.SLOTS}",
    ]  # fmt: skip
