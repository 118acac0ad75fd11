"""``dagster-taskiq``: the command group, and what is the same for every command.

Invariant: what is refused leaves as one sentence on stderr and exit code 1; a traceback means a
defect of the kit. Exit code 2 is a verdict of ``status`` or ``doctor`` and nothing else. Neither
Dagster nor taskiq is imported to show help.
"""

import contextlib
import importlib
import json
import os
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

import click

from ..host.log_lines import LOG_FORMATS
from ..version import __version__
from ..vocabulary.errors import ConfigurationError
from ..vocabulary.masking import masked, masked_data
from .refusals import refusals, tell

if TYPE_CHECKING:
    import dagster as dg

    from ..broker.connection import SyncConnection
    from ..config.settings import TaskiqSettings

#: Where each command lives, module and attribute, and what it says of itself in the list of all.
_COMMANDS = {
    "dead-letter": ("dead_letter", "dead_letter", "List, show, requeue and purge dead letters."),
    "dev": ("dev", "dev", "Start broker, workers, UI and daemon; one Ctrl-C ends all of it."),
    "doctor": ("doctor", "doctor", "Examine this installation; exit code 2 on an ERROR."),
    "exporter": ("exporter", "exporter", "Serve the fleet page and /metrics, until SIGTERM."),
    "queue": ("queue", "queue", "List, pause, resume, purge and reorder queues."),
    "status": ("status", "status", "Show health, queues, workers and what runs."),
    "top": ("top", "top", "Show what executes and what it uses, live."),
    "worker": ("worker", "worker", "Start and steer workers."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of all commands."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return one command."""
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(
            importlib.import_module(f".{module}", __package__), attribute
        )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of all commands, without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, said) for name, (*_, said) in sorted(_COMMANDS.items())])

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:  # fmt: skip
        """Parse the command line."""
        with refusals():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with refusals():
            return super().invoke(ctx)


@click.group(cls=LazyGroup, context_settings={"auto_envvar_prefix": "DAGSTER_TASKIQ"})
@click.version_option(__version__, package_name="dagster-taskiq-kit")
def main() -> None:
    """Dagster, executed on taskiq workers."""


def broker_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which broker a command talks to."""
    for option in (
        click.option(
            "-y",
            "--config-yaml",
            metavar="PATH",
            help="YAML file with settings, of the kit or as dagster-celery took it.",
        ),
        click.option("--namespace", help="Prefix of every key (default: dagster)."),
        click.option("--url", help="Broker url (default: DAGSTER_TASKIQ_URL)."),
    ):
        command = option(command)
    return command


log_format_option = click.option(
    "--log-format", type=click.Choice(LOG_FORMATS), default="console", show_default=True,
    help="How lines of the log are written; auto: json where no terminal shows them.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def say(data: Any, text: str, *, as_json: bool) -> None:
    """Print a command's answer: data for programs, text for people."""
    click.echo(json.dumps(masked_data(data), indent=2) if as_json else masked(text))


@contextlib.contextmanager
def connect(options: Mapping[str, Any]) -> "Generator[SyncConnection]":
    """Connect to the broker that a command's options name.

    Raises:
        ConfigurationError: No url is given, or a bad one.
    """
    from ..broker.connection import SyncConnection

    with contextlib.closing(SyncConnection(settings_of(options))) as connection:
        yield connection


def settings_of(options: Mapping[str, Any]) -> "TaskiqSettings":
    """Return the deployment: a command's options over its file, over the instance's launcher.

    Raises:
        ConfigurationError: A bad value, here or in the environment.
    """
    from ..config.settings_file import deployment

    found = given(options)
    settings, notes = deployment(found, found.pop("config_yaml", None))
    for note in notes:
        tell(note)
    return settings


def check_queue_option(name: str, *, repeatable: bool = False) -> str:
    """Return the name of a queue as the command line gave it, by an option that may be repeated.

    Raises:
        ConfigurationError: It cannot be one.
    """
    from ..config.settings import check_queue_name

    try:
        return check_queue_name(name)
    except ValueError as error:
        several = " Name several by several -q." if repeatable and "," in name else ""
        raise ConfigurationError(f"Queue: {error}.{several}", "queue") from None


@contextlib.contextmanager
def open_instance() -> "Generator[dg.DagsterInstance]":
    """Open the Dagster instance of this process, from its own ``DAGSTER_HOME``."""
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        raise ConfigurationError(
            "DAGSTER_HOME is not set: the Dagster instance is not known. "
            "Set it to the folder of your dagster.yaml.",
            "DAGSTER_HOME",
        )
    from ..config.opened_instance import opened_instance

    instance = opened_instance(home)
    with instance:
        yield instance


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}
