"""The report: medians in a table, and their ratios beside their targets.

Invariant: what was not measured is not reported, neither as met nor as missed.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from . import jobs
from .figures import Figures

#: A job and a contender.
Key = tuple[str, str]
_OURS = "taskiq"
_NOISY = 0.15
#: Of whom the report says which processes use the CPU.
_WITH_BUDGET = ("taskiq", "in_process")
_HEADER = (
    "| job | contender | wall a step | lowest to highest | overhead | gap | steps/s | CPU a step "
    "| sessions | orchestrator's memory | runs | load |"
)


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
        lowest_s: Wall seconds a step of the fastest run.
        highest_s: Wall seconds a step of the slowest run.
        overhead_s: Wall seconds a step without what the bodies took by their own word.
        parts_s: CPU seconds a step by part.
        memory_mib: The most memory that an orchestrator had.
    """

    contender: str
    job: str
    runs: int
    wall_s: float
    gap_s: float | None
    cpu_s: float
    sessions: float
    other_load: float
    lowest_s: float
    highest_s: float
    overhead_s: float
    parts_s: Mapping[str, float]
    memory_mib: float


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
            min(each.wall_s / each.steps for each in group),
            max(each.wall_s / each.steps for each in group),
            statistics.median((each.wall_s - each.bodies_s) / each.steps for each in group),
            _median_parts(group),
            max(each.memory_mib for each in group),
        )
        for (job, contender), group in groups.items()
    ]


def _median_parts(group: Sequence[Figures]) -> Mapping[str, float]:
    return {
        part: statistics.median(each.parts_s.get(part, 0.0) / each.steps for each in group)
        for part in group[0].parts_s
    }


def _median_gap(group: Sequence[Figures]) -> float | None:
    gaps_s = [each.gap_s for each in group if each.gap_s is not None]
    return statistics.median(gaps_s) if gaps_s else None


def verdicts(rows: Sequence[Row]) -> Iterator[Verdict]:
    """Yield every target that these rows can decide."""
    found = {(row.job, row.contender): row for row in rows}
    for figure, of, ours, theirs, most in _AT_MOST:
        if ours in found and theirs in found:
            ratio = of(found[ours]) / of(found[theirs])
            yield Verdict(figure, f"<= {most:.3f} x", f"{ratio:.3f} x", ratio <= most)
    for figure, ours, theirs, least in _FASTER:
        if ours in found and theirs in found:
            ratio = found[theirs].wall_s / found[ours].wall_s
            yield Verdict(figure, f">= {least:g} x", f"{ratio:.2f} x", ratio >= least)
    sleeps = found.get(("sleeps", "taskiq_8"))
    if sleeps is not None:
        ideal_s = jobs.SLEEPS * jobs.SLEEP_S / 8
        efficiency = ideal_s / (sleeps.wall_s * jobs.SLEEPS)
        yield Verdict(
            "16 x 1 s on 8 slots, efficiency", ">= 0.90", f"{efficiency:.2f}", efficiency >= 0.90
        )


def _wall(row: Row) -> float:
    return row.wall_s


def _cpu(row: Row) -> float:
    return row.cpu_s


def _orchestrator(row: Row) -> float:
    return row.parts_s["orchestrator"]


#: What is compared, by which figure, whose, with whose, and how much of it there may be.
_AT_MOST: Sequence[tuple[str, Callable[[Row], float], Key, Key, float]] = [
    ("chain: wall a step, of in_process's", _wall, ("chain", _OURS), ("chain", "in_process"), 0.45),
    ("chain: CPU a step, of in_process's", _cpu, ("chain", _OURS), ("chain", "in_process"), 0.50),
    ("chain: wall a step, of celery's", _wall, ("chain", _OURS), ("chain", "celery"), 1 / 33),
    ("chain: CPU a step, of celery's", _cpu, ("chain", _OURS), ("chain", "celery"), 1 / 3),
    (
        "chain: wall a step, of multiprocess's", _wall, ("chain", _OURS),
        ("chain", "multiprocess"), 1 / 30,
    ),
    ("fan: CPU a step, of in_process's", _cpu, ("fan", _OURS), ("fan", "in_process"), 0.50),
    ("fused: wall a step, of in_process's", _wall, ("fused", _OURS), ("fused", "in_process"), 0.30),
    ("10,000 lines: wall, of in_process's", _wall, ("lines", _OURS), ("lines", "in_process"), 0.20),
    ("1,000 steps: CPU a step, of 100 steps", _cpu, ("wide", _OURS), ("fan", _OURS), 1.3),
    (
        "1,000 steps: orchestrator's CPU a step, of 100 steps", _orchestrator, ("wide", _OURS),
        ("fan", _OURS), 1.3,
    ),
    (
        "5,000 steps: orchestrator's CPU a step, of 100 steps", _orchestrator, ("widest", _OURS),
        ("fan", _OURS), 1.3,
    ),
    ("5,000 steps: CPU a step, of 100 steps", _cpu, ("widest", _OURS), ("fan", _OURS), 1.3),
    (
        "3,000 dynamic steps: CPU a step, of 100 steps", _cpu, ("dynamic", _OURS),
        ("fan", _OURS), 1.3,
    ),
    (
        "3,000 dynamic steps: orchestrator's CPU a step, of 100 steps", _orchestrator,
        ("dynamic", _OURS), ("fan", _OURS), 1.3,
    ),
]  # fmt: skip
#: Which job is how many times as fast as whose.
_FASTER: Sequence[tuple[str, Key, Key, float]] = [
    ("fan on 4 slots: steps/s, of in_process's", ("fan", _OURS), ("fan", "in_process"), 3.5),
    ("fan on 4 slots: steps/s, of celery's", ("fan", _OURS), ("fan", "celery"), 4),
    ("fan on 4 slots: steps/s, of multiprocess's", ("fan", _OURS), ("fan", "multiprocess"), 20),
]


def _budget(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a table of which process a step's CPU is used by."""
    parts = list(dict.fromkeys(part for row in rows for part in row.parts_s))
    if not parts:
        return
    yield ""
    yield f"| CPU a step, ms | contender | {' | '.join(parts)} |"
    yield "|" + "---|" * (len(parts) + 2)
    for row in rows:
        cells = [f"{1_000 * row.parts_s.get(part, 0.0):.1f}" for part in parts]
        yield f"| {row.job} | {row.contender} | {' | '.join(cells)} |"


def text(figures: Sequence[Figures]) -> str:
    """Return the whole report."""
    rows = medians(figures)
    lines = ["", _HEADER, "|" + "---|" * _HEADER.count(" | ") + "---|"]
    for row in rows:
        gap = "" if row.gap_s is None else f"{row.gap_s:.3f} s"
        cells = [
            row.job, row.contender, f"{row.wall_s:.3f} s",
            f"{row.lowest_s:.3f} to {row.highest_s:.3f} s", f"{row.overhead_s:.3f} s", gap,
            f"{1 / row.wall_s:.1f}", f"{row.cpu_s:.3f} s", f"{row.sessions:.2f}",
            f"{row.memory_mib:.0f} MiB", str(row.runs), f"{row.other_load:.0%}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| figure | target | measured | |", "|---|---|---|---|"]
    for verdict in verdicts(rows):
        met = "met" if verdict.met else "NOT MET"
        lines.append(f"| {verdict.figure} | {verdict.target} | {verdict.measured} | {met} |")
    lines += _budget([row for row in rows if row.contender in _WITH_BUDGET])
    lines.append(
        "\nMedians, a step. Overhead is wall time without what bodies tell that they took; load is "
        "the share of the machine that other work used meanwhile."
    )
    if max(row.other_load for row in rows) > _NOISY:
        lines.append(
            f"Above a load of {_NOISY:.0%} wall times are upper bounds and their ratios mean "
            "little; CPU and sessions still tell. Measure again on a quiet machine."
        )
    return "\n".join(lines)
