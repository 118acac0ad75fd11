"""``dagster-taskiq exporter``: metrics of broker, queues, workers and runs for Prometheus."""

import logging
import os
import signal
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..config.settings import TaskiqSettings
from ..host.log_lines import LogFormat, configure_logging, writes_json
from ..vocabulary.errors import ConfigurationError
from ..vocabulary.log_actions import Action, about
from .main import broker_options, log_format_option, open_instance, settings_of
from .option_types import AT_LEAST_ONE, PORT, WORKSPACE, Seconds, WebUrl

if TYPE_CHECKING:
    from ..exporter.sources import PeriodicSource

logger = logging.getLogger(__name__)

_PASSWORD = "DAGSTER_TASKIQ_EXPORTER_PASSWORD"  # noqa: S105  (its name)


@click.command()
@broker_options
@log_format_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("-p", "--port", type=PORT, default=9808, show_default=True, help="0 for a free one.")
@click.option("--per-worker", is_flag=True, help="Add series for each single worker.")
@click.option(
    "--max-queues", type=AT_LEAST_ONE, default=100, show_default=True,
    help="Queues with series of their own; the rest is folded into `other`.",
)  # fmt: skip
@click.option(
    "--dagster/--no-dagster", default=None,
    help="Read Dagster's side too (default: when DAGSTER_HOME is set).",
)  # fmt: skip
@click.option(
    "--dagster-interval", "every_s", type=Seconds(1), default=60.0, show_default=True,
    metavar="SECONDS", help="How often Dagster's database is read.",
)  # fmt: skip
@click.option(
    "-w", "--workspace", "workspaces", multiple=True, type=WORKSPACE,
    help="workspace.yaml whose code locations are loaded each time, to tell whether they load.",
)  # fmt: skip
@click.option(
    "--ui-url", metavar="URL", type=WebUrl(), help="Dagster's UI, to which the fleet page leads."
)
@click.option(
    "--assets-prefix",
    default="taskiq",
    show_default=True,
    metavar="PATH",
    help="Where the kit's assets are in it: the key_prefix of build_taskiq_definitions().",
)
@click.option("--tls-cert", type=click.Path(path_type=Path), help="PEM file: answer with HTTPS.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="PEM file with its key.")
@click.option(
    "--basic-auth-user", "user", help=f"Ask for this name, and the password in ${_PASSWORD}."
)
def exporter(
    log_format: LogFormat,
    host: str,
    port: int,
    per_worker: bool,
    max_queues: int,
    dagster: bool | None,
    every_s: float,
    workspaces: tuple[str, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    user: str | None,
    ui_url: str | None,
    assets_prefix: str,
    **broker: Any,
) -> None:
    """Serve the fleet page and /metrics, until SIGTERM. Two of them double nothing."""
    from ..exporter.server import MetricsServer, ServerOptions
    from ..exporter.sources import BrokerSource, Scrape

    configure_logging("info", log_format)
    password = os.environ.get(_PASSWORD, "")
    if user is not None and not password:
        raise ConfigurationError(
            f"--basic-auth-user needs a password: put it into the variable {_PASSWORD}.", _PASSWORD
        )
    settings = settings_of(broker)
    with ExitStack() as stack:
        source = BrokerSource(settings, per_worker=per_worker, most_queues=max_queues)
        stack.callback(source.close)
        others = {}
        if os.environ.get("DAGSTER_HOME") if dagster is None else dagster:
            others["dagster"] = _dagster_source(stack, settings, workspaces, every_s)
        links = {"ui": ui_url, "assets": assets_prefix} if ui_url else {}
        options = ServerOptions(host, port, tls_cert, tls_key, user, password, links)
        server = stack.enter_context(MetricsServer(Scrape(source, others), settings, options))
        where = f"Metrics of namespace {settings.namespace!r} at {server.url}/metrics"
        if writes_json():
            logger.info("%s", where, extra=about(Action.METRICS))
        else:
            click.echo(where)
        _wait_for_a_signal()


def _dagster_source(
    stack: ExitStack, settings: TaskiqSettings, workspaces: tuple[str, ...], every_s: float
) -> "PeriodicSource":
    from ..dagster_health.loaded_locations import loaded_locations
    from ..dagster_health.metrics import read_dagster_metrics
    from ..exporter.sources import PeriodicSource

    instance = stack.enter_context(open_instance())
    locations = (lambda: loaded_locations(instance, workspaces)) if workspaces else None
    source = PeriodicSource(
        "dagster", lambda: read_dagster_metrics(instance, settings, locations), every_s
    )
    source.start()
    stack.callback(source.stop)
    return source


def _wait_for_a_signal() -> None:
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    while not told.wait(0.5):
        pass
