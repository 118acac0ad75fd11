"""What is measured of one run, and how it is read from the run's event log.

Invariant: wall time goes from RUN_START to RUN_SUCCESS by the log's own timestamps, so starting an
interpreter and importing Dagster count for nobody.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg

from . import jobs


@dataclass(frozen=True)
class Figures:
    """One run of one contender.

    Args:
        contender: Who executed it.
        job: Which job.
        steps: How many steps it has.
        wall_s: From RUN_START to RUN_SUCCESS.
        gap_s: Median time from a step's end to the next one's start; of the chain only.
        cpu_s: CPU of every process that takes part, both servers included.
        sessions: PostgreSQL sessions that were opened.
        other_load: Share of the machine that other work used meanwhile.
        memory_mib: The most memory that its orchestrator had (RSS).
        parts_s: That CPU by part: orchestrator, servers, worker, fork server, children.
        bodies_s: How long the bodies took by their own word; 0 where they do nothing.
    """

    contender: str
    job: str
    steps: int
    wall_s: float
    gap_s: float | None
    cpu_s: float
    sessions: int
    other_load: float
    bodies_s: float = 0.0
    memory_mib: float = 0.0
    parts_s: Mapping[str, float] = field(default_factory=dict)


def steps_wall_gap(
    entries: Sequence[dg.EventLogEntry], *, serial: bool
) -> tuple[int, float, float | None]:
    """Return number of steps, wall seconds and median gap in seconds of a run.

    Args:
        entries: The run's event log.
        serial: Whether its steps form a chain; else there is no gap to speak of.
    """
    at_s: dict[dg.DagsterEventType, list[float]] = {}
    for entry in entries:
        if entry.dagster_event is not None:
            at_s.setdefault(entry.dagster_event.event_type, []).append(entry.timestamp)
    starts_s = sorted(at_s[dg.DagsterEventType.STEP_START])
    ends_s = sorted(at_s[dg.DagsterEventType.STEP_SUCCESS])
    wall_s = at_s[dg.DagsterEventType.RUN_SUCCESS][0] - at_s[dg.DagsterEventType.RUN_START][0]
    gaps_s = [start - end for end, start in zip(ends_s, starts_s[1:], strict=False)]
    return len(ends_s), wall_s, statistics.median(gaps_s) if serial else None


def bodies_s(entries: Sequence[dg.EventLogEntry]) -> float:
    """Return how long the bodies of a run took, where they told."""
    total_s = 0.0
    for entry in entries:
        event = entry.dagster_event
        if event is not None and event.event_type is dg.DagsterEventType.STEP_OUTPUT:
            told = event.step_output_data.metadata.get(jobs.BODY)
            total_s += float(told.value) if isinstance(told, dg.FloatMetadataValue) else 0.0
    return total_s
