"""A project that merged the kit's health into its definitions, as a user does."""

import os
import time
from datetime import timedelta
from pathlib import Path

import dagster as dg

from dagster_taskiq_kit import (
    QueueObjective,
    TaskiqSettings,
    build_taskiq_definitions,
    taskiq_executor,
)

GATE = Path(os.environ["GATE"])
TRANSITIONS = Path(os.environ["GATE"] + ".transitions")


@dg.op
def waits(_context) -> None:
    while not GATE.exists():
        time.sleep(0.05)


@dg.op(tags={"dagster-taskiq/queue": "slow"})
def waits_in_slow(_context) -> None:
    while not GATE.exists():
        time.sleep(0.05)


@dg.job
def waiting() -> None:
    waits()


@dg.job
def waiting_in_slow() -> None:
    waits_in_slow()


def note_transition(finding, before) -> None:
    with TRANSITIONS.open("a") as notes:
        notes.write(f"{finding.subject} {finding.check} {before.value} {finding.severity.value}\n")


defs = dg.Definitions.merge(
    dg.Definitions(jobs=[waiting, waiting_in_slow], executor=taskiq_executor),
    build_taskiq_definitions(
        TaskiqSettings.resolve(
            {"queues": {"default": QueueObjective(backlog_warn=2, backlog_error=4)}}
        ),
        owners=["team:platform"],
        runbook_url="https://example.org/runbook",
        dashboard_url="https://example.org/grafana",
        fleet_url="https://example.org/fleet",
        stuck_run_policy=os.environ.get("STUCK_POLICY", "report"),
        no_progress_s=float(os.environ.get("NO_PROGRESS_S", "1000000")),
        minimum_interval_seconds=1,
        fresh_within=timedelta(seconds=int(os.environ.get("FRESH_WITHIN_S", "900"))),
        report_interval_seconds=int(os.environ.get("REPORT_INTERVAL_S", "300")),
        on_transition=note_transition,
    ),
)
