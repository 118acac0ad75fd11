"""``dagster-taskiq status``: queues, workers, slots and what runs, as a table or as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from ..health.snapshot import Snapshot, WorkerReading, read_snapshot
from ..text_table import table
from .main import broker_options, connect


@click.command()
@broker_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def status(as_json: bool, **broker: Any) -> None:
    """Show queues, workers and what runs."""
    with connect(broker) as connection:
        snapshot = read_snapshot(connection)
    click.echo(json.dumps(as_data(snapshot), indent=2) if as_json else "\n".join(as_text(snapshot)))


def as_data(snapshot: Snapshot) -> dict[str, Any]:
    """Return a snapshot as plain data, for ``--json``."""
    return {
        "taken_at_ms": snapshot.taken_at_ms,
        "queues": [
            {
                **asdict(queue),
                "backlog": queue.backlog,
                "workers": len(snapshot.servers_of(queue.name)),
            }
            for queue in snapshot.queues
        ],
        "workers": [worker_as_data(worker) for worker in snapshot.workers],
    }


def worker_as_data(worker: WorkerReading) -> dict[str, Any]:
    """Return one worker as plain data, for ``--json``."""
    return {
        **asdict(worker.card),
        "lease_left_s": worker.lease_left_s,
        "live": worker.live,
        "held": list(worker.held),
    }


def worker_rows(workers: Sequence[WorkerReading]) -> Sequence[str]:
    """Return workers as lines of a table."""
    rows = [
        (
            worker.card.name, worker.card.state if worker.live else "expired",
            f"{worker.card.busy_slots}/{worker.card.slots}",
            f"{worker.card.busy_run_slots}/{worker.card.run_slots}",
            _duration(worker.lease_left_s), ",".join(worker.card.queues),
            ",".join(worker.card.locations),
        )
        for worker in workers
    ]  # fmt: skip
    heads = ("WORKER", "STATE", "SLOTS", "RUN SLOTS", "LEASE", "QUEUES", "CODE")
    return table(heads, rows) or ["No worker is registered."]


def as_text(snapshot: Snapshot) -> Sequence[str]:
    """Return a snapshot as lines of tables."""
    queues = [
        (
            queue.name, queue.backlog, _duration(queue.oldest_waiting_s), queue.claimed,
            queue.running, _duration(queue.oldest_running_s), len(snapshot.servers_of(queue.name)),
        )
        for queue in snapshot.queues
    ]  # fmt: skip
    executing = [
        (task_id, worker.card.name) for worker in snapshot.workers for task_id in worker.held
    ]
    heads = ("QUEUE", "WAITING", "OLDEST", "CLAIMED", "RUNNING", "LONGEST", "WORKERS")
    lines = table(heads, queues) or ["No queue was ever used."]
    lines += ["", *worker_rows(snapshot.workers)]
    return [*lines, "", *(table(("EXECUTING", "WORKER"), executing) or ["Nothing executes."])]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
