"""How soon a run begins, a cancelled one ends and a killed step is told; memory of a slot.

Usage: python -m benchmarks.latencies [-n TIMES] [--write PAGE]

Invariant: times are those of the event log. Dagster's own launcher takes part in the same rounds,
on the same servers.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import dagster as dg
import psutil

from dagster_taskiq_kit.host.process_group import ProcessGroup

from . import latency_jobs
from .cpu import CHILD
from .page import write_figures
from .servers import start_postgres, start_valkey
from .site import OUR_LAUNCHER, Site, open_site

_Type = dg.DagsterEventType
_SLOTS = 4


def _launch_s(site: Site, job: str) -> tuple[float, float]:
    run_id = site.run(job)
    began_s = site.at_s(run_id, _Type.PIPELINE_STARTING)
    return (
        site.at_s(run_id, _Type.RUN_START) - began_s,
        site.at_s(run_id, _Type.RUN_SUCCESS) - began_s,
    )


def _cancel_s(site: Site) -> float:
    run_id = site.begin("waits")
    asked_s = time.time()
    site.fleet.instance.run_launcher.terminate(run_id)
    site.fleet.wait_for_run(run_id)
    return site.at_s(run_id, _Type.RUN_CANCELED) - asked_s


def _crash_s(site: Site) -> float:
    run_id = site.run("dies")
    said = [entry.user_message for entry in site.fleet.instance.all_logs(run_id)]
    (dies_at,) = [each for each in said if each.startswith(latency_jobs.DIES_AT)]
    died_s = float(dies_at.removeprefix(latency_jobs.DIES_AT))
    return site.at_s(run_id, _Type.STEP_FAILURE) - died_s


def _children_mib(worker: int) -> list[float]:
    """Return what each child has of memory of its own."""
    found: list[float] = []
    for process in psutil.Process(worker).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.name() == CHILD:
                found.append(process.memory_full_info().uss / 2**20)
    return sorted(found)


def measure(times: int) -> Mapping[str, Sequence[float]]:
    """Return everything that was measured, by what it is; seconds, or MiB where it says so."""
    found: dict[str, list[float]] = {}

    def note(what: str, figure: float) -> None:
        found.setdefault(what, []).append(figure)

    with tempfile.TemporaryDirectory(prefix="latencies-") as name, ProcessGroup() as group:
        directory = Path(name)
        directory.chmod(0o755)
        postgres = start_postgres(group, directory / "postgres")
        _, valkey_url = start_valkey(group, directory / "valkey")
        with (
            open_site(
                directory / "ours", valkey_url, postgres.create_database("ours"), OUR_LAUNCHER,
                latency_jobs.__name__,
            ) as ours,
            open_site(
                directory / "shipped", valkey_url, postgres.create_database("shipped"), None,
                latency_jobs.__name__,
            ) as shipped,
        ):  # fmt: skip
            ours.start_worker(slots=_SLOTS, run_slots=2)
            ours.run("one")
            worker = ours.fleet.snapshot().workers[0].card.pid
            for each in _children_mib(worker):
                note("memory of a child that waits (USS)", each)
            for _ in range(times):
                begins_s, ends_s = _launch_s(ours, "one")
                note("launch: RUN_STARTING to RUN_START", begins_s)
                note("launch: RUN_STARTING to RUN_SUCCESS, one step", ends_s)
                begins_s, ends_s = _launch_s(shipped, "one_in_process")
                note("the same by Dagster's launcher, to RUN_START", begins_s)
                note("the same by Dagster's launcher, to RUN_SUCCESS", ends_s)
                note("cancel: asked to RUN_CANCELED, a step at work", _cancel_s(ours))
                note("crash: SIGKILL of a step's process to STEP_FAILURE", _crash_s(ours))
            ours.begin("waits")
            note("memory of a step's process at work (USS)", _children_mib(worker)[-1])
    return found


def text(found: Mapping[str, Sequence[float]]) -> str:
    """Return the report."""
    lines = ["| what | median | lowest to highest | times |", "|---|---|---|---|"]
    for what, figures in found.items():
        unit = "MiB" if "memory" in what else "s"
        digits = 1 if unit == "MiB" else 3
        middle, low, high = (
            f"{figure:.{digits}f}"
            for figure in (statistics.median(figures), min(figures), max(figures))
        )
        lines.append(f"| {what} | {middle} {unit} | {low} to {high} | {len(figures)} |")
    return "\n".join(lines)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latencies", description=__doc__)
    parser.add_argument("-n", "--times", type=int, default=5, help="repetitions (default: 5)")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put the report into FILE, between its marks"
    )
    options = parser.parse_args()
    report = text(measure(options.times))
    print(report)
    if options.write is not None:
        write_figures(options.write, "latencies", report)


if __name__ == "__main__":
    main()
