"""``python -m benchmarks``: measures, prints the report, and fails only if a run failed.

Invariant: whatever ends it, a signal included, everything that it started ends with it.
"""

import argparse
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from dagster_taskiq_kit.code_locations.code_location import WARM_CHOICES

from . import jobs, report
from .measurements import MEASUREMENTS
from .page import write_figures
from .plot import write_plot
from .rounds import run_rounds


def _usual() -> list[str]:
    return [job for job, measurement in MEASUREMENTS.items() if not measurement.if_asked]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compares the kit with Dagster's in-process executor and dagster-celery, on "
        "one PostgreSQL and one Valkey, which it starts and ends itself.",
    )
    parser.add_argument("-n", "--rounds", type=int, default=3, help="repetitions (default: 3)")
    parser.add_argument("--peers", action="store_true", help="the multiprocess executor too: slow")
    parser.add_argument("--job", action="append", choices=MEASUREMENTS, help="that job only")
    parser.add_argument(
        "--imports", default="", metavar="MODULES",
        help="modules that the jobs' code imports, comma-separated, such as pandas",
    )  # fmt: skip
    parser.add_argument(
        "--warm", default="auto", choices=WARM_CHOICES, help="how the kit's worker serves the code"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the medians to a PNG")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put the report into FILE, between its marks"
    )
    parser.add_argument(
        "--marks", default="figures", metavar="NAME", help="which marks (default: figures)"
    )
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    os.environ[jobs.IMPORTS] = options.imports
    os.environ[jobs.WARM] = options.warm
    measured = options.job or _usual()
    os.environ[jobs.MEASURED] = ",".join(measured)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Terminated."))
    figures = run_rounds(Path(sys.executable), options.rounds, measured, peers=options.peers)
    text, rows = report.text(figures), report.medians(figures)
    print(text)
    if options.plot is not None:
        write_plot(rows, options.plot)
    if options.write is not None:
        write_figures(options.write, options.marks, text)
    if options.json is not None:
        everything = {
            "figures": [asdict(each) for each in figures],
            "medians": [asdict(row) for row in rows],
            "verdicts": [asdict(verdict) for verdict in report.verdicts(rows)],
        }
        options.json.write_text(json.dumps(everything, indent=2) + "\n")


if __name__ == "__main__":
    main()
