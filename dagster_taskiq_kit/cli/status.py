"""``dagster-taskiq status``: health, queues, workers and what runs, as tables or as JSON.

Invariant: it renders the findings that the checks in Dagster render, and its exit code is theirs:
0, or 2 when one of them is an ERROR, so that it serves as a readiness probe.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..broker.connection import SyncConnection
from ..broker.job_names import JobNames
from ..broker.worker_cards import WorkerCard
from ..health.findings import Finding, Severity, worst
from ..health.rules import judge, judge_absence
from ..health.snapshot import Snapshot, WorkerReading, read_snapshot
from ..vocabulary.errors import BrokerUnavailable
from ..vocabulary.text_table import table
from ..vocabulary.wording import duration
from .main import broker_options, connect, json_option, open_instance, say
from .option_types import Seconds
from .top import executing, kinds_of

if TYPE_CHECKING:
    import dagster as dg

_ERROR_CODE = 2
_COLOURS = {Severity.OK: "green", Severity.WARN: "yellow", Severity.ERROR: "red"}


@click.command()
@broker_options
@json_option
@click.option(
    "--dagster/--no-dagster", default=None,
    help="Look at Dagster's runs too (default: when DAGSTER_HOME is set).",
)  # fmt: skip
@click.option(
    "--watch", "every_s", type=Seconds(0.1), help="Print again each SECONDS.",
    metavar="SECONDS",
)  # fmt: skip
@click.option("-A", "--app", hidden=True)
def status(
    as_json: bool, dagster: bool | None, every_s: float | None, app: str | None, **broker: Any
) -> None:
    """Show health, queues, workers and what runs; exit code 2 when a check is an ERROR."""
    if app is not None:
        click.echo(f"-A {app} is not needed: the broker itself is asked.", err=True)
    with ExitStack() as stack:
        connection, names = stack.enter_context(connect(broker)), JobNames()
        instance = None
        if os.environ.get("DAGSTER_HOME") if dagster is None else dagster:
            instance = stack.enter_context(open_instance())
        while True:
            began_s = time.monotonic()
            severity = _show(connection, instance, names, as_json=as_json)
            if every_s is None:
                break
            time.sleep(max(0.0, every_s - (time.monotonic() - began_s)))
            click.clear()
    sys.exit(_ERROR_CODE if severity is Severity.ERROR else 0)


def _show(
    connection: SyncConnection,
    instance: "dg.DagsterInstance | None",
    names: JobNames,
    *,
    as_json: bool,
) -> Severity:
    try:
        snapshot = read_snapshot(connection)
    except BrokerUnavailable as error:
        findings = judge_absence(str(error))
        if as_json:
            data = {
                "severity": worst(findings).value,
                "findings": [_finding_as_data(finding) for finding in findings],
            }
            say(data, "", as_json=True)
        click.echo(f"Error: {error}", err=True)
        return Severity.ERROR
    findings = [*judge(snapshot, connection.settings), *_runs(connection, instance, snapshot)]
    text = "\n".join(as_text(snapshot, findings, names.of(connection, kinds_of(snapshot))))
    say(as_data(snapshot, findings), text, as_json=as_json)
    return worst(findings)


def _runs(
    connection: SyncConnection, instance: "dg.DagsterInstance | None", snapshot: Snapshot
) -> Sequence[Finding]:
    if instance is None:
        return []
    from ..dagster_health.run_health import read_run_health
    from ..dagster_health.run_verdict import judge_runs

    no_progress_s = snapshot.judging.get("no_progress_s")
    return [
        judge_runs(read_run_health(instance, connection, snapshot, no_progress_s=no_progress_s))
    ]


def as_data(snapshot: Snapshot, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return a snapshot and its findings as plain data, for ``--json``."""
    return {
        "taken_at_ms": snapshot.taken_at_ms,
        "severity": worst(findings).value,
        "findings": [_finding_as_data(finding) for finding in findings],
        "server": asdict(snapshot.server),
        "queues": queues_as_data(snapshot),
        "workers": [worker_as_data(worker) for worker in snapshot.workers],
    }


def queues_as_data(snapshot: Snapshot) -> Sequence[dict[str, Any]]:
    """Return queues as plain data, for ``--json``."""
    return [
        {
            **asdict(queue),
            "backlog": queue.backlog,
            "oldest_waiting_s": queue.oldest_waiting_s,
            "workers": len(snapshot.workers_of(queue.name)),
        }
        for queue in snapshot.queues
    ]


def _finding_as_data(finding: Finding) -> dict[str, Any]:
    return {**asdict(finding), "severity": finding.severity.value}


def worker_as_data(worker: WorkerReading) -> dict[str, Any]:
    """Return one worker as plain data, for ``--json``."""
    return {
        **asdict(worker.card),
        "lease_left_s": max(0.0, worker.lease_left_s),
        "silent_s": worker.silent_s,
        "live": worker.live,
        "held": [{**asdict(each), "known": worker.live} for each in worker.held],
    }


def queue_rows(snapshot: Snapshot) -> Sequence[str]:
    """Return queues as lines of a table."""
    queues = [
        (
            queue.name, queue.backlog, _short(queue.oldest_waiting_s), queue.claimed,
            queue.running, _short(queue.oldest_running_s), len(snapshot.workers_of(queue.name)),
            "paused" if queue.paused else "",
        )
        for queue in snapshot.queues
    ]  # fmt: skip
    heads = ("QUEUE", "WAITING", "OLDEST", "CLAIMED", "RUNNING", "LONGEST", "WORKERS", "")
    return table(heads, queues) or ["No queue was ever used."]


def worker_rows(workers: Sequence[WorkerReading]) -> Sequence[str]:
    """Return workers as lines of a table."""
    rows = [
        (
            worker.card.name, worker.card.host, worker.state,
            f"{worker.card.busy_slots}/{worker.card.slots}",
            f"{worker.card.busy_run_slots}/{worker.card.run_slots}",
            worker.card.succeeded, worker.card.failed, _uptime(worker.card), _lease(worker),
            worker.card.version, ",".join(worker.card.queues),
            ",".join(_served(worker.card, location) for location in worker.card.locations),
        )
        for worker in workers
    ]  # fmt: skip
    heads = (
        "WORKER", "HOST", "STATE", "SLOTS", "RUN SLOTS", "DONE", "FAILED", "UP", "LEASE",
        "VERSION", "QUEUES", "CODE",
    )  # fmt: skip
    lines = table(heads, rows)
    if not lines:
        return ["No worker is registered."]
    shown = zip(workers, lines[1:], strict=True)
    return [lines[0], *(line if w.live else click.style(line, fg="red") for w, line in shown)]


def _uptime(card: WorkerCard) -> str:
    return duration(max(0.0, card.clock_s - card.began_s)) if card.began_s else "-"


def _served(card: WorkerCard, location: str) -> str:
    """Return a location, and what is not usual in how it is served."""
    mode = card.modes.get(location, "").partition(":")[0]
    said = [mode] if mode not in ("", "warm") else []
    said += ["older code"] if location in card.stale else []
    return f"{location} ({', '.join(said)})" if said else location


def as_text(
    snapshot: Snapshot, findings: Sequence[Finding], jobs: Mapping[str, str]
) -> Sequence[str]:
    """Return findings that are not fine, and a snapshot, as lines of tables."""
    rows = [
        (
            _short(each.for_s) if each.known else "-",
            each.kind, each.job or "-", each.step_key or each.task_id, each.run_id or "-",
            each.queue,
            each.worker if each.known else f"{each.worker}, silent",
            # A silent worker's work was in this state when it was last heard of; nobody knows more.
            each.state if each.known else f"unknown (was {each.state})",
        )
        for each in executing(snapshot, jobs)
    ]  # fmt: skip
    lines = [
        *verdict_lines(findings),
        "",
        *queue_rows(snapshot),
        "",
        *worker_rows(snapshot.workers),
    ]
    heads = ("EXECUTING", "KIND", "JOB", "STEP", "RUN", "QUEUE", "WORKER", "STATE")
    executes = table(heads, rows)
    return [*lines, "", *(executes or ["Nothing executes."])]


def verdict_lines(findings: Sequence[Finding], *, every: bool = False) -> Sequence[str]:
    """Return findings as lines, the worst first; those that are fine only when asked for."""
    shown = sorted((f for f in findings if every or not f.ok), key=lambda f: -f.severity.rank)
    if not shown:
        return [click.style(f"All {len(findings)} checks pass.", fg=_COLOURS[Severity.OK])]
    return [
        f"{click.style(f.severity.value.upper(), fg=_COLOURS[f.severity])} {f.subject} {f.check}: "
        f"{f.sentence} {f.remedy}".rstrip()
        for f in shown
    ]


def _lease(worker: WorkerReading) -> str:
    if worker.live:
        return duration(worker.lease_left_s)
    return f"ended, silent for {duration(worker.silent_s)}"


def _short(seconds: float | None) -> str:
    return "-" if seconds is None else duration(seconds)
