"""The command line as a user has it: a process, its answer, its exit code."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import psutil
import pytest
import yaml
from click.testing import CliRunner

from dagster_taskiq_kit.cli.main import main
from dagster_taskiq_kit.dagster_internals.workspaces import launch_job, workspace_of
from dagster_taskiq_kit.host.process_group import wait_until
from tests import preloaded

CODE = Path(__file__).parent / "code" / "cli_jobs.py"
COMMAND = [sys.executable, "-m", "dagster_taskiq_kit"]


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    out: str
    err: str

    @property
    def data(self):
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """What it said on stderr, which is one line, but for the usage that click adds."""
        *usage, sentence = self.err.strip().splitlines()
        assert not usage or usage[0].startswith("Usage: "), self.err
        return sentence


def ask(environment, *arguments, code=0, stdin="", cwd=None) -> Answer:
    command = [*COMMAND, *arguments]
    if stdin:
        done = subprocess.run(
            command, env=environment, input=stdin, cwd=cwd,
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
    else:
        done = preloaded.run(command, env=environment, cwd=cwd, within_s=90)
    assert code is None or done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return Answer(done.stdout, done.stderr)


def ask_here(environment, *arguments, code=0) -> Answer:
    """The same in this process, for what only asks the broker: it saves an interpreter each."""
    environment = {name: v for name, v in environment.items() if name.startswith("DAGSTER_")}
    done = CliRunner(env=environment).invoke(main, list(arguments))
    assert done.exit_code == code, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return Answer(done.stdout, done.stderr)


def clean_environment() -> dict[str, str]:
    return {name: v for name, v in os.environ.items() if not name.startswith("DAGSTER_")}


@pytest.fixture
def cli(connection):
    """Commands against a namespace with no worker; returns all that was said."""

    def run(*arguments, code=0, url=connection.settings.url, **variables):
        broker = {"DAGSTER_TASKIQ_URL": url} if url else {}
        namespace = {"DAGSTER_TASKIQ_NAMESPACE": connection.settings.namespace}
        environment = {**clean_environment(), **broker, **namespace, **variables}
        answer = ask(environment, *arguments, code=code)
        return answer.out + answer.err

    return run


class Live:
    """A fleet with a worker, its code, and the command line beside it."""

    def __init__(self, fleet, workspace_file: Path, context) -> None:
        self.fleet = fleet
        self.workspace_file = workspace_file
        self.gate = fleet.home / "gate"
        self._context = context
        self.environment = {**fleet.environment, "GATE": str(self.gate)}

    def cli(self, *arguments, code=0, stdin="", cwd=None, **variables) -> Answer:
        environment = {**self.environment, **variables}
        return ask(environment, *arguments, code=code, stdin=stdin, cwd=cwd)

    @contextlib.contextmanager
    def started(self, *arguments, ready: str, **variables) -> Iterator[tuple]:
        """Start a command that goes on, wait until it says ``ready``; SIGTERM ends it with 0."""
        log = self.fleet.home / f"command-{len(list(self.fleet.home.glob('command-*')))}"
        with log.open("wb") as output:
            process = preloaded.start(
                [*COMMAND, *arguments], env={**self.environment, **variables},
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        try:
            assert wait_until(lambda: ready in log.read_text() or process.poll() is not None, 90)
            assert ready in log.read_text(), log.read_text()
            yield process, log.read_text
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, log.read_text()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @contextlib.contextmanager
    def in_background(self, *arguments) -> Iterator[tuple]:
        """Start a worker with ``-d`` and wait until it is ready; yields its card and its log."""
        said = self.cli("worker", "start", *arguments).out
        found = re.search(r"in the background with pid (\d+); it logs to (.*?)\. ", said)
        pid, log = int(found[1]), Path(found[2])
        try:
            live = lambda: [w.card for w in self.fleet.snapshot().live_workers if w.card.pid == pid]  # noqa: E731
            self.fleet.wait_for(lambda: bool(live()), "it to be ready", log.read_text)
            (card,) = live()
            yield card, log
            assert "was told to end" in self.cli("worker", "terminate", card.name).out
            self.fleet.wait_for(lambda: not psutil.pid_exists(pid), "it to end", log.read_text)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def start_worker(self, *arguments, **options):
        return self.fleet.start_worker(
            "-f", str(CODE), *arguments, environment={"GATE": str(self.gate)}, **options
        )

    def launch(self, job, **tags) -> str:
        tags = {name.replace("__", "/"): value for name, value in tags.items()}
        return launch_job(self.fleet.instance, self._context, job, tags)


def commands(group=main, path=()):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


@contextlib.contextmanager
def open_live(fleet) -> Iterator[Live]:
    """Give a fleet the workspace that its jobs are launched from."""
    workspace = fleet.home / "workspace.yaml"
    workspace.write_text(yaml.safe_dump({"load_from": [{"python_file": str(CODE)}]}))
    with workspace_of(fleet.instance, [str(workspace)]) as context:
        yield Live(fleet, workspace, context)


@pytest.fixture
def live(make_fleet) -> Iterator[Live]:
    """A fleet on SQLite without a worker yet."""
    with make_fleet(settings={"unserved_note_s": 1}) as fleet, open_live(fleet) as made:
        yield made
