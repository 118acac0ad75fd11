"""The report as a picture: what a step costs, by job and contender.

Invariant: it shows the medians of the report and nothing else, on a logarithmic axis, each bar with
its figure.
"""

from collections.abc import Sequence
from pathlib import Path

from .report import Row


def write_plot(rows: Sequence[Row], file: Path) -> None:
    """Write a PNG with one group of bars a job.

    Args:
        rows: Medians.
        file: Where to.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    jobs = list(dict.fromkeys(row.job for row in rows))
    contenders = list(dict.fromkeys(row.contender for row in rows))
    height = 0.8 / len(contenders)
    figure, axes = plt.subplots(figsize=(10, 1 + 0.9 * len(jobs)), layout="constrained")
    for index, contender in enumerate(contenders):
        of_it = [row for row in rows if row.contender == contender]
        places = [jobs.index(row.job) + index * height for row in of_it]
        walls_ms = [row.wall_s * 1_000 for row in of_it]
        bars = axes.barh(places, walls_ms, height, label=contender)
        axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
    axes.set_yticks([place + 0.4 - height / 2 for place in range(len(jobs))], jobs)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("wall time a step, ms (logarithmic); one step for the chatty jobs")
    axes.legend()
    figure.savefig(file, dpi=120)
