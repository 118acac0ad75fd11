"""The report: medians in a table, and their ratios beside the targets of the design, section 10.

Invariant: what was not measured is not reported, neither as met nor as missed.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .figures import Figures

Medians = dict[str, "Row"]
_OURS = "taskiq"
_NOISY = 0.15


@dataclass(frozen=True)
class Row:
    """Medians of one contender's runs of one job, a step.

    Args:
        contender: Who.
        job: Which job.
        runs: How many runs.
        wall_s: Wall seconds a step.
        gap_s: Seconds from a step's end to the next one's start, if they form a chain.
        cpu_s: CPU seconds a step.
        sessions: PostgreSQL sessions opened a step.
        other_load: Share of the machine that other work used meanwhile.
    """

    contender: str
    job: str
    runs: int
    wall_s: float
    gap_s: float | None
    cpu_s: float
    sessions: float
    other_load: float


@dataclass(frozen=True)
class Verdict:
    """One target and what was measured.

    Args:
        figure: What is compared, with what.
        target: What it should be.
        measured: What it is.
        met: Whether it is.
    """

    figure: str
    target: str
    measured: str
    met: bool


def medians(figures: Sequence[Figures]) -> Sequence[Row]:
    """Return one row for each job and contender, in the order in which they were measured."""
    groups: dict[tuple[str, str], list[Figures]] = {}
    for each in figures:
        groups.setdefault((each.job, each.contender), []).append(each)
    return [
        Row(
            contender,
            job,
            len(group),
            statistics.median(each.wall_s / each.steps for each in group),
            _median_gap(group),
            statistics.median(each.cpu_s / each.steps for each in group),
            statistics.median(each.sessions / each.steps for each in group),
            statistics.median(each.other_load for each in group),
        )
        for (job, contender), group in groups.items()
    ]


def _median_gap(group: Sequence[Figures]) -> float | None:
    gaps_s = [each.gap_s for each in group if each.gap_s is not None]
    return statistics.median(gaps_s) if gaps_s else None


def verdicts(rows: Sequence[Row]) -> Iterator[Verdict]:
    """Yield every target that these rows can decide."""

    def wall(row: Row) -> float:
        return row.wall_s

    def cpu(row: Row) -> float:
        return row.cpu_s

    chain = {row.contender: row for row in rows if row.job == "chain"}
    fan = {row.contender: row for row in rows if row.job == "fan"}
    yield from _at_most("chain: wall a step", wall, chain, {"celery": 1 / 12, "in_process": 1})
    for job, found in (("chain", chain), ("fan", fan)):
        yield from _at_most(f"{job}: CPU a step", cpu, found, {"in_process": 1, "celery": 1 / 3})
    for peer, factor in {"celery": 4, "in_process": 1.8, "multiprocess": 20}.items():
        if peer in fan and _OURS in fan:
            ratio = fan[peer].wall_s / fan[_OURS].wall_s
            yield Verdict(
                f"fan: steps/s, of {peer}'s", f">= {factor:g} x", f"{ratio:.2f} x", ratio >= factor
            )
    for job, found in (("chain", chain), ("fan", fan)):
        if _OURS in found:
            sessions = found[_OURS].sessions
            yield Verdict(f"{job}: sessions a step", "<= 2", f"{sessions:.2f}", sessions <= 2)


def _at_most(
    figure: str, value: Callable[[Row], float], found: Medians, limits: dict[str, float]
) -> Iterator[Verdict]:
    for peer, limit in limits.items():
        if peer in found and _OURS in found:
            ratio = value(found[_OURS]) / value(found[peer])
            yield Verdict(
                f"{figure}, of {peer}'s", f"<= {limit:.3f} x", f"{ratio:.3f} x", ratio <= limit
            )


def text(figures: Sequence[Figures]) -> str:
    """Return the whole report."""
    rows = medians(figures)
    lines = [
        "",
        "| job | contender | wall a step | gap | steps/s | CPU a step | sessions | runs | load |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        gap = "" if row.gap_s is None else f"{row.gap_s:.3f} s"
        lines.append(
            f"| {row.job} | {row.contender} | {row.wall_s:.3f} s | {gap} | {1 / row.wall_s:.1f} "
            f"| {row.cpu_s:.3f} s | {row.sessions:.2f} | {row.runs} | {row.other_load:.0%} |"
        )
    lines += ["", "| figure | target | measured | |", "|---|---|---|---|"]
    for verdict in verdicts(rows):
        met = "met" if verdict.met else "NOT MET"
        lines.append(f"| {verdict.figure} | {verdict.target} | {verdict.measured} | {met} |")
    lines.append("\nMedians; load is the share of the machine that other work used meanwhile.")
    if max(row.other_load for row in rows) > _NOISY:
        lines.append(
            f"Above a load of {_NOISY:.0%} wall times are upper bounds and their ratios mean "
            "little; CPU and sessions still tell. Measure again on a quiet machine."
        )
    return "\n".join(lines)
