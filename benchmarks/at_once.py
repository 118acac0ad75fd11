"""Many runs at once: what a step of fifty runs of a hundred steps costs, beside that of one run.

Usage: python -m benchmarks.at_once [-n RUNS] [--write PAGE]

Invariant: both are launched alike, on the same worker, and everything is counted that takes part
beside this program: the worker's whole tree, PostgreSQL and Valkey.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from dagster_taskiq_kit.host.process_group import ProcessGroup

from . import jobs
from .cpu import parts_cpu_s
from .page import write_figures
from .servers import start_postgres, start_valkey
from .site import OUR_LAUNCHER, Site, open_site

_JOB, _STEPS = "fan", jobs.FAN_WIDTH + 2
_AT_MOST = 1.3
_WITHIN_S = 1_800.0
#: Until children have left and spare ones are made.
_REST_S = 0.7


@dataclass(frozen=True)
class Measured:
    """Some runs of the job at once.

    Args:
        runs: How many.
        wall_s: From the first launch to the last end.
        cpu_s: CPU of all that take part.
        worker_mib: Memory of the worker's whole tree (PSS), the highest that was seen.
    """

    runs: int
    wall_s: float
    cpu_s: float
    worker_mib: float

    @property
    def cpu_a_step_s(self) -> float:
        """CPU seconds a step."""
        return self.cpu_s / (self.runs * _STEPS)


def measure(runs: int) -> tuple[Measured, Measured]:
    """Execute one run, then many at once; returns both."""
    os.environ[jobs.EXECUTOR] = "taskiq"
    with tempfile.TemporaryDirectory(prefix="at-once-") as name, ProcessGroup() as group:
        directory = Path(name)
        directory.chmod(0o755)
        postgres = start_postgres(group, directory / "postgres")
        valkey, url = start_valkey(group, directory / "valkey")
        database = postgres.create_database("at_once")
        with open_site(
            directory / "at-once", url, database, OUR_LAUNCHER, jobs.__name__
        ) as site:  # fmt: skip
            worker = site.start_worker(slots=jobs.SLOTS, run_slots=runs)
            parts = {"PostgreSQL": postgres.process_id, "Valkey": valkey, "worker": worker}
            site.run("warm_up")
            return _executed(site, parts, 1), _executed(site, parts, runs)


def _executed(site: Site, parts: Mapping[str, int], runs: int) -> Measured:
    before_s, began_s = sum(parts_cpu_s(parts).values()), time.monotonic()
    run_ids = [site.launch(_JOB) for _ in range(runs)]
    most_mib = 0.0
    for run_id in run_ids:
        most_mib = max(most_mib, _tree_mib(parts["worker"]))
        run = site.fleet.wait_for_run(run_id, _WITHIN_S)
        if not run.is_success:
            raise SystemExit(f"A run failed:\n{chr(10).join(site.fleet.said(run_id))}")
    wall_s = time.monotonic() - began_s
    time.sleep(_REST_S)
    return Measured(runs, wall_s, sum(parts_cpu_s(parts).values()) - before_s, most_mib)


def _tree_mib(worker: int) -> float:
    """Return the memory of a worker and all below it, what is shared counted once."""
    total_bytes = 0
    root = psutil.Process(worker)
    for process in (root, *root.children(recursive=True)):
        try:
            total_bytes += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue  # it ended a moment ago
    return total_bytes / 2**20


def text(one: Measured, many: Measured) -> str:
    """Return the report."""
    lines = ["| runs at once | wall | steps/s | CPU a step | memory of the worker |"]
    lines.append("|---|---|---|---|---|")
    for each in (one, many):
        cells = [
            str(each.runs), f"{each.wall_s:.1f} s", f"{each.runs * _STEPS / each.wall_s:.1f}",
            f"{each.cpu_a_step_s:.3f} s", f"{each.worker_mib:.0f} MiB",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    ratio = many.cpu_a_step_s / one.cpu_a_step_s
    met = "met" if ratio <= _AT_MOST else "NOT MET"
    lines += ["", f"CPU a step, of one run's: {ratio:.2f} x (target <= {_AT_MOST} x): {met}."]
    return "\n".join(lines)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.at_once", description=__doc__)
    parser.add_argument("-n", "--runs", type=int, default=50, help="runs at once (default: 50)")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put the report into FILE, between its marks"
    )
    options = parser.parse_args()
    report = text(*measure(options.runs))
    print(report)
    if options.write is not None:
        write_figures(options.write, "at once", report)


if __name__ == "__main__":
    main()
