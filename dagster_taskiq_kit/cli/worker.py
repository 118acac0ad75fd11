"""``dagster-taskiq worker``: start a worker."""

import asyncio
import logging
import os
from collections.abc import Generator
from contextlib import closing, contextmanager
from typing import Any

import click

from ..errors import ConfigurationError
from ..settings import TaskiqSettings, check_queue_name
from . import steer
from .main import broker_options, configure_logging, given, open_instance

logger = logging.getLogger(__name__)


@click.group()
def worker() -> None:
    """Start and steer workers."""


for _command in (steer.list_workers, steer.show, steer.drain, steer.terminate):
    worker.add_command(_command)


@worker.command()
@broker_options
@click.option(
    "-q", "--queue", "queues", multiple=True, help="Queue to take work from; may be repeated."
)
@click.option("-n", "--name", help="Name of the worker (default: host and pid).")
@click.option(
    "--slots", type=int, default=os.cpu_count() or 1, show_default="cores", help="Steps at once."
)
@click.option("--run-slots", type=int, default=4, show_default=True, help="Runs at once.")
@click.option(
    "--max-memory-per-child",
    "max_memory_mib",
    type=int,
    help="Kill a child that uses more memory of its own than this, in MiB.",
)
@click.option(
    "--metrics-port",
    type=int,
    help="Serve /metrics of broker, queues and workers here too, for small set-ups; 0: a free one.",
)
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Address for it.")
@click.option("-m", "--module", "modules", multiple=True, help="Python module with definitions.")
@click.option("-f", "--file", "files", multiple=True, help="Python file with definitions.")
@click.option("-w", "--workspace", "workspaces", multiple=True, help="workspace.yaml to serve.")
@click.option("-d", "--working-directory", help="Where -m and -f are resolved.")
@click.option(
    "-l", "--loglevel", default="info", show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
)  # fmt: skip
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
    loglevel: str,
    **broker: Any,
) -> None:
    """Start a worker; it executes the code that -m, -f and -w name, and nothing else."""
    configure_logging(loglevel)
    settings = TaskiqSettings.resolve(given(broker), where="options")
    # Its children, and the user's own code in them, find the same deployment.
    os.environ["DAGSTER_TASKIQ_URL"] = settings.require_url()
    os.environ["DAGSTER_TASKIQ_NAMESPACE"] = settings.namespace
    with open_instance() as instance:
        from .. import dagster_seam as seam
        from ..broker.connection import SyncConnection
        from ..broker.guards import check_broker
        from ..broker.worker_cards import default_worker_name
        from ..instance_pool import close_connections, instance_id
        from ..launcher import TaskiqRunLauncher
        from ..worker.forked_server import fork_servers
        from ..worker.options import WorkerOptions
        from ..worker.service import Worker

        options = WorkerOptions(
            name=name or default_worker_name(),
            queues=[_queue(queue) for queue in queues] or [settings.default_queue],
            slots=slots,
            run_slots=run_slots,
            locations=seam.code_locations(
                modules=modules,
                files=files,
                workspaces=workspaces,
                working_directory=working_directory,
            ),
            max_memory_mib=max_memory_mib,
        )
        connection = SyncConnection(settings)
        check_broker(connection, instance_id(instance))
        connection.close()
        # All is checked; now, before anything acts in this process.
        close_connections(instance)
        forked = fork_servers(options.locations)

        async def work() -> None:
            launches = isinstance(instance.run_launcher, TaskiqRunLauncher)
            await Worker(settings, options, instance, launches=launches, forked=forked).run()

        # Its thread begins after the forks: a process with threads must not fork.
        with _metrics(settings, metrics_host, metrics_port):
            asyncio.run(work())


@contextmanager
def _metrics(settings: TaskiqSettings, host: str, port: int | None) -> Generator[None, None, None]:
    if port is None:
        yield
        return
    from ..exporter.server import MetricsServer, ServerOptions
    from ..exporter.sources import BrokerSource, Scrape

    source = BrokerSource(settings)
    with closing(source), MetricsServer(Scrape(source), ServerOptions(host, port)) as server:
        logger.info("Metrics at %s/metrics", server.url)
        yield


def _queue(name: str) -> str:
    try:
        return check_queue_name(name)
    except ValueError as error:
        raise ConfigurationError(f"--queue: {error}.", "queue") from None
