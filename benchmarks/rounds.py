"""The runs, in turns: every contender once a round, so that what disturbs one disturbs all.

Invariant: before the first round every contender that has something to warm has executed a job
that is not measured.
"""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from dagster_taskiq_kit.host.process_group import ProcessGroup

from .celery_environment import celery_python
from .contenders import ROOT, Contender, prepare, start_worker
from .figures import Figures
from .measurements import MEASUREMENTS, SLOW_PEERS
from .servers import start_postgres, start_valkey

_RUN_WITHIN_S = 900.0


def run_rounds(python: Path, rounds: int, jobs: Sequence[str], *, peers: bool) -> Sequence[Figures]:
    """Start everything, execute all rounds, end everything.

    Args:
        python: The interpreter of this project's environment.
        rounds: How often each contender executes each job.
        jobs: Which jobs.
        peers: Whether the multiprocess executor takes part; in the first round only, being slow.

    Raises:
        SystemExit: A server or worker did not start, or a run failed.
    """
    chosen = {job: MEASUREMENTS[job] for job in jobs}
    names = [
        name
        for name in dict.fromkeys(name for each in chosen.values() for name in each.contenders)
        if peers or name not in SLOW_PEERS
    ]
    pythons = {
        name: celery_python(ROOT / ".venv-celery") if name == "celery" else python for name in names
    }
    # PostgreSQL may run as another user, who has to come through to its data.
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as name, ProcessGroup() as group:
        directory = Path(name)
        directory.chmod(0o755)
        postgres = start_postgres(group, directory / "postgres")
        valkey_id, valkey_url = start_valkey(group, directory / "valkey")
        contenders = [
            start_worker(prepare(name, path, postgres, valkey_url, directory), group)
            for name, path in pythons.items()
        ]
        servers = {"PostgreSQL": postgres.process_id, "Valkey": valkey_id}
        execution = _Execution(directory, postgres.admin_url, servers)
        for contender in contenders:
            if contender.name not in SLOW_PEERS:  # nothing of it stays warm
                execution.of(contender, "warm_up")
        return [
            execution.of(contender, job)
            for number in range(rounds)
            for job, measurement in chosen.items()
            for contender in contenders
            if contender.name in measurement.contenders
            and number < (1 if contender.name in SLOW_PEERS else measurement.most_rounds)
        ]


class _Execution:
    """Executes single runs, each with an orchestrator of its own.

    Args:
        directory: For logs and results.
        admin_url: Where PostgreSQL's statistics are read.
        servers: Process ids of the servers, by their names.
    """

    def __init__(self, directory: Path, admin_url: str, servers: Mapping[str, int]) -> None:
        self._directory = directory
        self._admin_url = admin_url
        self._servers = servers

    def of(self, contender: Contender, job: str) -> Figures:
        """Execute a job once and return what was measured."""
        result_file, log_file = self._directory / "result.json", self._directory / "run.log"
        result_file.unlink(missing_ok=True)
        roots = {**self._servers, **contender.processes}
        parts = [f"{name}={process_id}" for name, process_id in roots.items()]
        with log_file.open("wb") as log:
            program = subprocess.Popen(
                [
                    str(contender.python), "-m", "benchmarks.orchestrate", contender.name, job,
                    str(result_file), self._admin_url, *parts,
                ],
                env=contender.environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
            try:
                exit_code: int | str = program.wait(_RUN_WITHIN_S)
            except subprocess.TimeoutExpired:
                exit_code = f"no end within {_RUN_WITHIN_S:g} s"
            finally:
                if program.poll() is None:
                    os.killpg(program.pid, signal.SIGKILL)
                    program.wait()
        if exit_code != 0:
            ends = "\n".join(_end(path) for path in (log_file, contender.worker_log))
            raise SystemExit(f"{job} on {contender.name} failed ({exit_code}):\n{ends}")
        figures = Figures(**json.loads(result_file.read_text()))
        print(
            f"{job:16} {contender.name:13} {figures.wall_s:7.2f} s wall {figures.cpu_s:7.2f} s CPU"
            f"  (other work: {figures.other_load:.0%} of the machine)",
            flush=True,
        )
        return figures


def _end(log_file: Path) -> str:
    """Return the last lines of a log; nothing if there is none."""
    if not log_file.exists():
        return ""
    return "\n".join(
        [f"-- {log_file.name}", *log_file.read_text(errors="replace").splitlines()[-40:]]
    )
