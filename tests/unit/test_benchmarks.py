"""The benchmarks: every job that is measured is there and explained, and a target is told as it is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks import at_once, cpu, jobs, plot, report
from benchmarks.figures import Figures
from benchmarks.measurements import MEASUREMENTS
from benchmarks.page import write_figures
from dagster_taskiq_kit.worker.process import lifecycle

README = Path(program.__file__).parent / "README.md"


def figures(contender, job="chain", wall_s=1.0, **others):
    values = {"steps": 20, "gap_s": None, "cpu_s": 1.0, "sessions": 1, "other_load": 0.0, **others}
    return Figures(contender, job, wall_s=wall_s, **values)


def test_the_location_loads():
    """Every op of every job is resolved, however deep the stack was when it was imported."""
    program = (
        "from benchmarks import jobs\n"
        "for job in jobs.defs.get_repository_def().get_all_jobs():\n"
        "    print(job.name, len(job.get_subset().nodes_in_topological_order))\n"
    )
    measured = {jobs.MEASURED: ",".join(MEASUREMENTS)}
    said = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **measured}, cwd=README.parent.parent,
        check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    assert {"fused 1000", "wide 1002", "widest 5002", "dynamic 3", "chain 20"} <= set(said)


def test_each_job_that_is_measured_is_there_and_explained():
    defined = {job.name for job in jobs.defs.jobs}
    explained = README.read_text()
    for job in MEASUREMENTS:
        assert job in defined
        assert f"`{job}`" in explained


@pytest.mark.parametrize(("wall_s", "met"), [(0.44, True), (0.46, False)])
def test_a_target_is_met_or_is_not(wall_s, met):
    rows = report.medians([figures("taskiq", wall_s=wall_s), figures("in_process")])
    verdict = next(each for each in report.verdicts(rows) if "chain: wall" in each.figure)
    assert verdict.met is met
    assert f"{wall_s:.3f} x" in verdict.measured


def test_what_was_not_measured_is_not_reported():
    rows = report.medians([figures("taskiq")])
    assert not list(report.verdicts(rows))


def test_the_report_tells_the_spread_and_the_overhead():
    said = report.text([figures("taskiq", wall_s=each, bodies_s=0.5) for each in (1, 2, 3)])
    assert "0.050 to 0.150 s" in said
    assert "| 0.075 s |" in said


def test_the_report_tells_which_process_uses_how_much():
    said = report.text(
        [figures("taskiq", parts_s={"worker": each, "children": 1}) for each in (1, 3)]
    )
    assert "| chain | taskiq | 100.0 | 50.0 |" in said


def test_parts_are_told_apart_by_the_names_that_the_processes_have():
    assert (cpu.FORK_SERVER, cpu.CHILD) == (lifecycle.FORK_SERVER, lifecycle.CHILD)
    mine = cpu.parts_cpu_s({"tests": os.getpid()})
    assert 0 < mine["tests"] <= sum(mine.values())


def test_the_report_tells_the_most_memory_of_an_orchestrator():
    said = report.text([figures("taskiq", memory_mib=each) for each in (200.0, 300.0)])
    assert "| 300 MiB |" in said


@pytest.mark.parametrize(
    ("cpu_s", "met"), [(12.9, "1.29 x (target <= 1.3 x): met"), (14, "NOT MET")]
)
def test_many_runs_at_once_are_compared_with_one_by_the_step(cpu_s, met):
    one = at_once.Measured(runs=1, wall_s=4.0, cpu_s=10.0, worker_mib=300.0)
    assert met in at_once.text(one, at_once.Measured(50, 200.0, 50 * cpu_s, 4_000.0))


def test_a_loaded_machine_is_told():
    assert "Measure again" in report.text([figures("taskiq", other_load=0.5)])


def test_the_report_is_written_between_its_marks_and_replaces_what_was_there(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(README.read_text())
    for marks in ("latencies", "scale", "at once"):
        write_figures(page, marks, f"of {marks}")
    write_figures(page, "figures", "one")
    write_figures(page, "figures", "two")
    said = page.read_text()
    assert "two" in said
    assert all(f"of {marks}" in said for marks in ("latencies", "scale", "at once"))
    assert "\none\n" not in said
    assert said.startswith("# Benchmarks")
    assert said.count("<!-- figures -->") == said.count("<!-- end of figures -->") == 1


def test_the_plot_is_a_picture(tmp_path):
    rows = report.medians([figures("taskiq"), figures("in_process"), figures("taskiq", "fan")])
    plot.write_plot(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
