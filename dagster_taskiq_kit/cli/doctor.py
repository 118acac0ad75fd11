"""``dagster-taskiq doctor``: examines an installation and says how to mend what is not fine."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import click

from ..health.findings import Severity, worst
from ..health.snapshot import read_snapshot
from ..vocabulary.errors import ConfigurationError
from .main import broker_options, connect, json_option, open_instance, say, settings_of
from .option_types import WORKSPACE
from .status import verdict_lines


@contextmanager
def _code_servers_log_to_stderr() -> Generator[None, None, None]:
    """Keep stdout for the answer: a code server inherits it and logs there."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@click.command()
@broker_options
@click.option(
    "-w",
    "--workspace",
    "workspaces",
    multiple=True,
    type=WORKSPACE,
    help="workspace.yaml to compare.",
)
@json_option
@click.option(
    "--migrate", metavar="FILE",
    help="Read a dagster.yaml or a worker's YAML of dagster-celery and print it for this kit.",
)  # fmt: skip
@click.option("--acl", is_flag=True, help="Print the least Redis user that the kit works with.")
def doctor(
    workspaces: tuple[str, ...], as_json: bool, migrate: str | None, acl: bool, **broker: Any
) -> None:
    """Examine this installation; exit code 2 when something is an ERROR. Changes nothing."""
    if migrate is not None and as_json:
        raise ConfigurationError("--migrate prints YAML: say it without --json.", "migrate")
    if migrate is not None:
        from .migrate import migrated

        click.echo(migrated(migrate))
        return
    if acl:
        from ..broker.acl import least_user

        settings = settings_of(broker)
        rules = least_user(settings.namespace, cluster="+cluster:" in (settings.url or ""))
        said = f"ACL SETUSER dagster-taskiq on >PASSWORD {rules}"
        say({"namespace": settings.namespace, "rules": rules}, said, as_json=as_json)
        return
    with connect(broker) as connection, open_instance() as instance:
        from ..broker.guards import check_instance
        from ..dagster_health.doctor import examine
        from ..dagster_health.loaded_locations import loaded_locations
        from ..dagster_internals.postgres.pool import instance_id

        check_instance(connection, instance_id(instance))
        with _code_servers_log_to_stderr():
            code = loaded_locations(instance, workspaces) if workspaces else None
        snapshot = read_snapshot(connection)
        findings = examine(instance, snapshot, connection.settings, code)
    data = [{**asdict(f), "severity": f.severity.value} for f in findings]
    say(data, "\n".join(verdict_lines(findings, every=True)), as_json=as_json)
    sys.exit(2 if worst(findings) is Severity.ERROR else 0)
