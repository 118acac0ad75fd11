"""``dagster-taskiq dev``: the whole stack in one command; with ``--run JOB``, for one job."""

import os
import signal
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from ..dev.served_code import dev_workspaces
from ..dev.stack import DevStack, StackOptions
from ..host.log_lines import LogFormat, configure_logging, writes_json
from ..host.process_group import reset_interrupts
from ..vocabulary.masking import masked
from .main import check_queue_option, log_format_option
from .option_types import AT_LEAST_ONE, PORT, WORKSPACE
from .refusals import tell

_DEFAULT_HOME = ".dagster_home"
_JOB_WITHIN_S = 900.0


@click.command()
@click.option(
    "-w", "--workspace", "workspaces", multiple=True, type=WORKSPACE,
    help="workspace.yaml to serve (default: the one here, else what `dg` knows).",
)  # fmt: skip
@click.option("-m", "--module", "modules", multiple=True, help="Python module with definitions.")
@click.option("-f", "--file", "files", multiple=True, help="Python file with definitions.")
@click.option(
    "-q",
    "--queue",
    "queues",
    multiple=True,
    default=["default"],
    show_default=True,
    help="Queue that the workers serve; may be repeated.",
)
@click.option("--workers", type=AT_LEAST_ONE, default=2, show_default=True)
@click.option(
    "--slots",
    type=AT_LEAST_ONE,
    default=2,
    show_default=True,
    help="Steps at once of each worker.",
)
@click.option(
    "--run-slots",
    type=AT_LEAST_ONE,
    default=2,
    show_default=True,
    help="Runs at once of each worker.",
)
@click.option(
    "--home",
    type=click.Path(path_type=Path),
    help=f"DAGSTER_HOME (default: the environment's, else {_DEFAULT_HOME}).",
)
@click.option(
    "-p",
    "--port",
    type=PORT,
    default=3000,
    show_default=True,
    help="Port of the UI; 0 for a free one.",
)
@click.option("--run", "job", help="Launch this job, show what happens, stop everything: no UI.")
@log_format_option
def dev(
    workspaces: tuple[str, ...],
    modules: tuple[str, ...],
    files: tuple[str, ...],
    queues: tuple[str, ...],
    workers: int,
    slots: int,
    run_slots: int,
    home: Path | None,
    port: int,
    job: str | None,
    log_format: LogFormat,
) -> None:
    """Start broker, workers, UI and daemon; one Ctrl-C ends all of it."""
    configure_logging("warning", log_format)
    for queue in queues:
        check_queue_option(queue, repeatable=True)
    home = home or Path(os.environ.get("DAGSTER_HOME") or _DEFAULT_HOME)
    code = dev_workspaces(home, workspaces=workspaces, modules=modules, files=files)
    reset_interrupts()
    options = StackOptions(
        home=home,
        workspaces=code,
        queues=queues,
        workers=workers,
        slots=slots,
        run_slots=run_slots,
        quiet=job is not None,
    )
    with _until_told() as told, DevStack(options) as stack:
        _say(f"broker    {stack.settings.url}")
        stack.start_workers()
        _say(f"workers   {workers} ready, serving {', '.join(queues)}")
        if job is not None:
            succeeded = _run_job(stack, job, code)
        else:
            ui, fleet = stack.start_ui(port or None)
            _say(f"fleet     {fleet}")
            _say(f"UI        {ui}   (Ctrl-C ends everything)")
            while not told.wait(0.5):
                stack.check()
            succeeded = True
        _say("Stopping; workers finish what they execute ...")
    if not succeeded:
        raise click.exceptions.Exit(1)


def _say(text: str, level: str = "info") -> None:
    """Say something: a line of the log where that is JSON, else for who reads the terminal."""
    if writes_json():
        tell(text, level)
    else:
        click.echo(masked(text), err=level == "error")


@contextmanager
def _until_told() -> Generator[threading.Event, None, None]:
    """Turn the first SIGINT or SIGTERM into an event; a second one interrupts."""
    told = threading.Event()

    def on_signal(number: int, _frame: object) -> None:
        if told.is_set():
            raise KeyboardInterrupt
        told.set()
        signal.signal(number, on_signal)

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_job(stack: DevStack, job: str, workspaces: Sequence[str]) -> bool:
    """Launch one job, tell what happens, and print what it published and where it ran."""
    import dagster as dg

    from ..broker.connection import SyncConnection
    from ..dagster_internals.workspaces import launch_job, workspace_of
    from ..dev.job_watch import JobWatch, trace_table

    began_s = time.monotonic()
    with (
        dg.DagsterInstance.get() as instance,
        workspace_of(instance, workspaces) as workspace,
    ):
        run_id = launch_job(instance, workspace, job)
        _say(f"launched  {job} as run {run_id}")
        broker = SyncConnection(stack.settings)
        watch = JobWatch(instance, run_id, _say, broker)
        succeeded = watch.follow(stack.check, _JOB_WITHIN_S)
        _say("\n".join(["", *watch.results, "", *trace_table(list(watch.traces(broker))), ""]))
        broker.close()
    took_s = time.monotonic() - began_s
    if succeeded:
        _say(f"Run {run_id} succeeded in {took_s:.1f} s.")
    else:
        _say("\n".join([f"Run {run_id} failed:", *watch.failures]), "error")
    return succeeded
