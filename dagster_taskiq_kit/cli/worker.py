"""``dagster-taskiq worker``: start a worker."""

import asyncio
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click

from ..config.settings import TaskiqSettings
from ..host.log_lines import LogFormat, configure_logging
from ..host.written_lines import LogWriter
from ..vocabulary.errors import ConfigurationError
from ..vocabulary.log_actions import Action, about
from . import steer
from .completion import complete_queues
from .main import broker_options, check_queue_option, log_format_option, open_instance, settings_of
from .option_types import MEBIBYTES, PORT, SLOTS, WORKSPACE
from .refusals import tell

logger = logging.getLogger(__name__)

#: Options of dagster-celery that have no meaning any more, and why.
_NOT_NEEDED = {
    "-A": "one worker executes runs, steps and your own tasks",
    "-i": "a worker serves the code that -m, -f and -w name",
}

#: How long an end at once waits for its last words to be written.
_LAST_WORDS_S = 0.5

#: Set for the process that `-d` starts: it is the one that stays.
_IN_BACKGROUND = "_DAGSTER_TASKIQ_IN_BACKGROUND"


@click.group()
def worker() -> None:
    """Start and steer workers."""


for _command in (steer.list_workers, steer.show, steer.drain, steer.terminate, steer.reload_code):
    worker.add_command(_command)


@worker.command()
@broker_options
@click.option(
    "-q", "--queue", "queues", multiple=True, shell_complete=complete_queues,
    help="Queue to take work from; may be repeated.",
)  # fmt: skip
@click.option("-n", "--name", help="Name of the worker (default: host and pid).")
@click.option(
    "--slots", type=SLOTS, default=os.cpu_count() or 1, show_default="cores", help="Steps at once."
)
@click.option("--run-slots", type=SLOTS, default=4, show_default=True, help="Runs at once.")
@click.option(
    "--max-memory-per-child",
    "max_memory_mib",
    type=MEBIBYTES,
    help="Kill a child that uses more memory of its own than this, in MiB.",
)
@click.option(
    "--metrics-port",
    type=PORT,
    help="Serve the fleet page and /metrics here too, for small set-ups; 0: a free one.",
)
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Address for it.")
@click.option("-m", "--module", "modules", multiple=True, help="Python module with definitions.")
@click.option("-f", "--file", "files", multiple=True, help="Python file with definitions.")
@click.option(
    "-w",
    "--workspace",
    "workspaces",
    multiple=True,
    type=WORKSPACE,
    help="workspace.yaml to serve.",
)
@click.option(
    "--working-directory",
    help="Where -m, -f and -w look for modules that name no folder (default: the current one).",
)
@click.option(
    "--location-name", help="Name of the code location that the one -m or -f is in the webserver."
)
@click.option(
    "--warm", "warm", multiple=True, metavar="[LOCATION=]auto|always|never",
    help="Whether steps are forked with their code imported (default: where they can share it).",
)  # fmt: skip
@click.option(
    "--reload", "reload", multiple=True, metavar="[LOCATION=]auto|told|never",
    help="When code is loaded again: when its files have changed (the default), or when told to.",
)  # fmt: skip
@click.option(
    "--max-code-age", "max_code_age", multiple=True, metavar="[LOCATION=]SECONDS",
    help="When code is loaded again in any case (default: 86400, a day; 0: never).",
)  # fmt: skip
@click.option(
    "--mirror-steps", type=click.Choice(["on", "off", "auto"]), default="auto", show_default=True,
    help="Print what steps print, too; auto: where stdout is not a terminal.",
)  # fmt: skip
@log_format_option
@click.option(
    "-l", "--loglevel", default="info", show_default=True,
    type=click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False),
)  # fmt: skip
@click.option(
    "-d", "--background", is_flag=True, help="Start it and leave it running; says where it logs."
)
@click.option("-A", "--app", hidden=True)
@click.option("-i", "--includes", multiple=True, hidden=True)
@click.argument("celery_arguments", nargs=-1, type=click.UNPROCESSED)
def start(
    queues: tuple[str, ...],
    name: str | None,
    slots: int,
    run_slots: int,
    max_memory_mib: int | None,
    metrics_port: int | None,
    metrics_host: str,
    modules: tuple[str, ...],
    files: tuple[str, ...],
    workspaces: tuple[str, ...],
    working_directory: str | None,
    location_name: str | None,
    warm: tuple[str, ...],
    reload: tuple[str, ...],
    max_code_age: tuple[str, ...],
    mirror_steps: str,
    log_format: LogFormat,
    loglevel: str,
    background: bool,
    app: str | None,
    includes: tuple[str, ...],
    celery_arguments: tuple[str, ...],
    **broker: Any,
) -> None:
    """Start a worker; it executes the code that -m, -f and -w name, and nothing else."""
    name = name or _default_name()
    configure_logging(loglevel, log_format, {"worker": name})
    _tell_what_is_not_needed(app, includes)
    settings = settings_of(broker)
    concurrency = _celery_concurrency(celery_arguments)
    slots = slots if concurrency is None else concurrency
    # Its children, and the user's own code in them, find the same deployment.
    os.environ["DAGSTER_TASKIQ_URL"] = settings.require_url()
    os.environ["DAGSTER_TASKIQ_NAMESPACE"] = settings.namespace
    with open_instance() as instance:
        from ..broker.connection import SyncConnection
        from ..broker.guards import check_broker
        from ..code_locations.code_location import with_options
        from ..dagster_internals.postgres.pool import close_connections, instance_id
        from ..launching.launcher import TaskiqRunLauncher
        from ..worker.code_targets import CodeTargets, code_locations
        from ..worker.options import WorkerOptions
        from ..worker.process.forked_server import fork_servers
        from ..worker.process.leftovers import end_leftovers, mark_what_begins
        from ..worker.service import Worker
        from ..worker.warm.thread_counts import share_cores

        locations, not_served = code_locations(
            CodeTargets(modules, files, workspaces, working_directory, location_name)
        )
        for sentence in not_served:
            logger.warning("%s", sentence, extra=about(Action.NOT_SERVED))
        locations = with_options(locations, warm=warm, reload=reload, max_code_age=max_code_age)
        options = WorkerOptions(
            name=name,
            queues=[check_queue_option(queue, repeatable=True) for queue in queues]
            or sorted({settings.home_queue(location.name) for location in locations}),
            slots=slots,
            run_slots=run_slots,
            locations=locations,
            max_memory_mib=max_memory_mib,
            prints_steps=_mirrors(mirror_steps),
        )
        with closing(SyncConnection(settings)) as connection:
            check_broker(connection, instance_id(instance))
        if background and os.environ.pop(_IN_BACKGROUND, None) is None:
            _start_in_background()
            return
        # All is checked but the code itself; now, before anything acts in this process.
        close_connections(instance)
        share_cores(slots)
        mark_what_begins()
        end_leftovers()
        log = LogWriter()
        forked = log.forking(lambda: fork_servers(options.locations))

        async def work() -> None:
            launches = isinstance(instance.run_launcher, TaskiqRunLauncher)
            worker = Worker(settings, options, instance, launches=launches, forked=forked)
            await worker.run(flush=lambda: log.flush_within(_LAST_WORDS_S))

        # Their threads begin after the forks: a process with threads must not fork.
        metrics = _metrics(settings, metrics_host, metrics_port)
        with log.running(), metrics:
            asyncio.run(work())


def _default_name() -> str:
    from ..broker.worker_cards import default_worker_name

    return default_worker_name()


def _tell_what_is_not_needed(app: str | None, includes: tuple[str, ...]) -> None:
    for option, said in (("-A", app), ("-i", ", ".join(includes) or None)):
        if said is not None:
            tell(f"{option} {said} is not needed: {_NOT_NEEDED[option]}.")


def _mirrors(chosen: str) -> bool:
    return chosen == "on" or (chosen == "auto" and not sys.stdout.isatty())


@contextmanager
def _metrics(settings: TaskiqSettings, host: str, port: int | None) -> Generator[None, None, None]:
    if port is None:
        yield
        return
    from ..exporter.server import MetricsServer, ServerOptions
    from ..exporter.sources import BrokerSource, Scrape

    source, options = BrokerSource(settings), ServerOptions(host, port)
    with closing(source), MetricsServer(Scrape(source), settings, options) as server:
        logger.info("Metrics at %s/metrics", server.url, extra=about(Action.METRICS))
        yield


def _start_in_background() -> None:
    """Start this command again, as it was given, as a process of its own session."""
    home = os.environ.get("DAGSTER_HOME")
    log = Path(home or tempfile.gettempdir()) / f"taskiq-worker-{os.getpid()}.log"
    with log.open("ab") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", "dagster_taskiq_kit", *sys.argv[1:]],
            env={**os.environ, _IN_BACKGROUND: "1"},
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    click.echo(
        f"Worker started in the background with pid {worker.pid}; it logs to {log}. "
        "`dagster-taskiq worker list` shows it when its code has loaded."
    )


def _celery_concurrency(arguments: tuple[str, ...]) -> int | None:
    """Return what Celery's ``--concurrency`` said: of its arguments the one with a meaning here.

    Raises:
        ConfigurationError: Another one was given.
    """
    found: int | None = None
    rest = [
        part
        for each in arguments
        for part in ([each[:2], each[2:]] if re.fullmatch(r"-c\d+", each) else each.split("=", 1))
    ]
    while rest:
        name = rest.pop(0)
        if name == "--max-memory-per-child":
            raise ConfigurationError(
                "--max-memory-per-child is an option of `dagster-taskiq worker start` itself, "
                "in MiB (Celery counts KiB): say it before the `--`.", name,
            )  # fmt: skip
        if name not in ("-c", "--concurrency") or not rest or not rest[0].isdecimal():
            raise ConfigurationError(
                f"{name!r} is an argument of Celery's worker and has no meaning here; "
                "`dagster-taskiq worker start --help` lists what there is.", name,
            )  # fmt: skip
        found = SLOTS.convert(int(rest.pop(0)), None, None)
    return found
