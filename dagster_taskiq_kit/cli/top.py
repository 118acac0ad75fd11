"""``dagster-taskiq top``: what executes now, with what it uses, the most of it first.

Invariant: figures are those that workers told at their last look at their own processes, some
seconds ago; a message that began since then has none yet.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import click

from ..broker.connection import SyncConnection
from ..broker.job_names import JobNames
from ..health.snapshot import Snapshot, read_snapshot
from ..vocabulary.errors import BrokerUnavailable
from ..vocabulary.log_actions import of_task
from ..vocabulary.masking import masked
from ..vocabulary.states import Kind
from ..vocabulary.wording import duration
from .main import broker_options, connect, json_option, say
from .option_types import Seconds

_MIB = 1024 * 1024
#: Columns of what no terminal shows: nothing is cut.
_WIDE = 400


@dataclass(frozen=True)
class Executing:
    """One message that executes.

    Args:
        task_id: The message.
        kind: ``run``, ``step`` or ``task``.
        job: Its job; '' when that is not known.
        step_key: The step; '' for others.
        run_id: The run; '' for none.
        queue: Where it waited.
        worker: The worker.
        host: Where that runs.
        state: As its record has it.
        known: Whether its worker is heard; else it was in that state when it was last heard of.
        for_s: For how long.
        cpu_s: Processor time of its process and what that started; None when not known yet.
        memory_bytes: Their memory; None when not known yet.
    """

    task_id: str
    kind: str
    job: str
    step_key: str
    run_id: str
    queue: str
    worker: str
    host: str
    state: str
    known: bool
    for_s: float
    cpu_s: float | None
    memory_bytes: int | None


#: What comes first, by the name of the order.
ORDERS: Mapping[str, Callable[[Executing], float]] = {
    "cpu": lambda each: -(each.cpu_s or 0.0),
    "memory": lambda each: -(each.memory_bytes or 0),
    "age": lambda each: -each.for_s,
}


def executing(snapshot: Snapshot, jobs: Mapping[str, str]) -> Sequence[Executing]:
    """Return what executes, the longest first."""
    found: list[Executing] = []
    for worker in snapshot.workers:
        for held in worker.held:
            said, used = of_task(held.task_id), worker.card.using.get(held.task_id)
            found.append(
                Executing(
                    held.task_id, held.kind, jobs.get(held.task_id, ""), said.get("step_key", ""),
                    said.get("run_id", ""), held.queue, worker.card.name, worker.card.host,
                    held.state, worker.live, held.since_s,
                    used.cpu_s if used else None, used.memory_bytes if used else None,
                )
            )  # fmt: skip
    return sorted(found, key=ORDERS["age"])


def read_executing(connection: SyncConnection, names: JobNames) -> Sequence[Executing]:
    """Return what executes now, the longest first.

    Raises:
        BrokerUnavailable: No answer within ``give_up_s``.
    """
    snapshot = read_snapshot(connection)
    return executing(snapshot, names.of(connection, kinds_of(snapshot)))


def kinds_of(snapshot: Snapshot) -> Mapping[str, Kind]:
    """Return the kind of each message that executes, by its id."""
    return {held.task_id: Kind(held.kind) for each in snapshot.workers for held in each.held}


@click.command()
@broker_options
@json_option
@click.option(
    "-s", "--sort", type=click.Choice(list(ORDERS)), default="cpu", show_default=True,
    help="What comes first: most processor time, most memory, the longest.",
)  # fmt: skip
@click.option(
    "--every", "every_s", type=Seconds(0.2), default=2.0, show_default=True, metavar="SECONDS",
    help="How often to look.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Look once, print and end; so do --json and a pipe.")
def top(as_json: bool, sort: str, every_s: float, once: bool, **broker: Any) -> None:
    """Show what executes and what it uses, live, until Ctrl-C."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    names, console = JobNames(), Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)
    with connect(broker) as connection:
        look = lambda: sorted(read_executing(connection, names), key=ORDERS[sort])  # noqa: E731
        if as_json:
            say([asdict(each) for each in look()], "", as_json=True)
            return
        if once or not console.is_terminal:
            console.print(_table(look()))
            return
        with (
            Live(_table(look()), console=console, screen=True) as live,
            suppress(KeyboardInterrupt),
        ):
            while True:
                time.sleep(every_s)
                try:
                    live.update(_table(look()))
                except BrokerUnavailable as error:
                    live.update(Text(masked(str(error))))


def _table(rows: Sequence[Executing]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{len(rows)} executing", title_justify="left", box=None, pad_edge=False)
    for heading in ("CPU", "MEMORY", "FOR"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("KIND", "JOB", "STEP", "RUN", "QUEUE", "WORKER"):
        table.add_column(heading, overflow="fold")
    for each in rows:
        cells = (
            "-" if each.cpu_s is None else duration(each.cpu_s),
            "-" if each.memory_bytes is None else f"{each.memory_bytes / _MIB:.0f} MiB",
            duration(each.for_s), each.kind, each.job or "-", each.step_key or "-",
            each.run_id[:8] or "-", each.queue, each.worker,
        )  # fmt: skip
        # Not as markup: a step may be called process[file_a].
        table.add_row(*map(Text, cells), style=None if each.known else "red")
    return table
