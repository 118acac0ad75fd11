"""The one-command stack: embedded broker, workers, and Dagster's UI and daemon, as one thing.

Invariant: it is up when every part answers, and down when no process of it is left; one part's
unexpected end ends all, and says which.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from ..broker.connection import SyncConnection
from ..config.opened_instance import check_instance_file, opened_instance
from ..config.settings_file import deployment
from ..health.snapshot import read_snapshot
from ..host.log_lines import json_line, writes_json
from ..host.process_group import ProcessGroup, wait_until
from ..vocabulary.errors import ConfigurationError, TaskiqKitError
from ..vocabulary.log_actions import Action
from ..vocabulary.masking import masked
from .embedded_broker import free_port, start_private

_WORKERS_WITHIN_S = 120.0
_UI_WITHIN_S = 120.0
_PUBLIC = ("DAGSTER_HOME", "DAGSTER_TASKIQ_URL", "PATH")
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green")


class PartEnded(TaskiqKitError):
    """A part of the stack ended by itself.

    Args:
        name: The part.
        exit_code: Its exit code.
        last_lines: What it said last.
    """

    def __init__(self, name: str, exit_code: int | None, last_lines: Sequence[str]) -> None:
        said = "\n".join(last_lines)
        super().__init__(f"{name} ended with exit code {exit_code}. It said last:\n{said}")
        self.name = name


@dataclass(frozen=True)
class StackOptions:
    """What the stack consists of.

    Args:
        home: ``DAGSTER_HOME``; a ``dagster.yaml`` in the working directory is copied into it.
        workspaces: Workspace files, for workers, UI and daemon.
        queues: What the workers serve.
        workers: How many.
        slots: Steps at once of each.
        run_slots: Runs at once of each.
        quiet: Print only what parts say as a warning or worse.
    """

    home: Path
    workspaces: Sequence[str]
    queues: Sequence[str]
    workers: int = 2
    slots: int = 2
    run_slots: int = 2
    quiet: bool = False


class DevStack:
    """A running stack; a context manager.

    Args:
        options: What it consists of.
    """

    def __init__(self, options: StackOptions) -> None:
        self._options = options
        self._group = ProcessGroup()
        self._parts: list[tuple[str, subprocess.Popen[bytes], list[str], threading.Thread]] = []
        self.environment: dict[str, str] = dict(os.environ)
        self._environment_before = dict(os.environ)

    def __enter__(self) -> "DevStack":
        self._group.__enter__()
        try:
            self._prepare_home()
            self._start_broker()
            self._create_instance()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def _prepare_home(self) -> None:
        home = self._options.home.resolve()
        home.mkdir(parents=True, exist_ok=True)
        shipped = Path("dagster.yaml")
        check_instance_file(shipped)
        if shipped.is_file() and shipped.resolve() != (home / "dagster.yaml").resolve():
            shutil.copyfile(shipped, home / "dagster.yaml")
        self.environment["DAGSTER_HOME"] = os.environ["DAGSTER_HOME"] = str(home)
        # The Dagster of this environment, also when nobody activated it.
        self.environment["PATH"] = os.pathsep.join(
            [str(Path(sys.executable).parent), self.environment.get("PATH", "")]
        )

    def _start_broker(self) -> None:
        self.settings, _ = deployment({})
        if self.settings.url is None:
            folder = self._options.home.resolve() / "taskiq" / "broker"
            os.environ["DAGSTER_TASKIQ_URL"] = start_private(self._group, folder)
            self.settings, _ = deployment({})
        self.environment["DAGSTER_TASKIQ_URL"] = self.settings.require_url()

    def _create_instance(self) -> None:
        """Create the instance's storage first: two workers at once would trip over each other."""
        os.environ.update(self.public_environment())
        from ..dagster_internals.postgres.pool import instance_id

        with opened_instance(self.environment["DAGSTER_HOME"]) as instance:
            instance_id(instance)

    def public_environment(self) -> Mapping[str, str]:
        """Return what a process needs in its environment to use this instance and broker."""
        return {name: self.environment[name] for name in _PUBLIC}

    def start_workers(self) -> None:
        """Start the workers and wait until each has loaded its code.

        Raises:
            PartEnded: One ended, such as for code that does not import.
        """
        options = self._options
        for number in range(1, options.workers + 1):
            arguments = ["worker", "start", "--name", f"worker-{number}"]
            arguments += ["--log-format", "json" if writes_json() else "console"]
            arguments += ["--slots", str(options.slots), "--run-slots", str(options.run_slots)]
            for queue in options.queues:
                arguments += ["-q", queue]
            for workspace in options.workspaces:
                arguments += ["-w", workspace]
            self._start(
                f"worker-{number}",
                [sys.executable, "-m", "dagster_taskiq_kit", *arguments],
                stop_within_s=self.settings.drain_timeout_s + 10,
            )
        connection = SyncConnection(self.settings)
        mine = {program.pid for _, program, _, _ in self._parts}

        def ready() -> bool:
            self.check()
            cards = [worker.card for worker in read_snapshot(connection).workers if worker.live]
            here = socket.gethostname()
            return len(mine & {card.pid for card in cards if card.host == here}) == options.workers

        try:
            if not wait_until(ready, _WORKERS_WITHIN_S):
                raise ConfigurationError(
                    f"The workers were not ready within {_WORKERS_WITHIN_S:g} s."
                )
        finally:
            connection.close()

    def start_ui(self, port: int | None) -> tuple[str, str]:
        """Start Dagster's webserver and daemon, and the exporter with its fleet page.

        Args:
            port: Port of the UI; default a free one.

        Returns:
            The urls of the UI and of the fleet page.

        Raises:
            PartEnded: One ended, such as for a port that is taken.
            ConfigurationError: dagster-webserver is not installed.
        """
        programs = Path(sys.executable).parent
        if not (programs / "dagster-webserver").exists():
            raise ConfigurationError(
                "dagster-webserver is not installed: install 'dagster-taskiq-kit[webserver]'."
            )
        port = port or free_port()
        workspaces = [part for path in self._options.workspaces for part in ("-w", path)]
        self._start(
            "webserver",
            [str(programs / "dagster-webserver"), "-h", "127.0.0.1", "-p", str(port), *workspaces],
        )
        self._start("daemon", [str(programs / "dagster-daemon"), "run", *workspaces])
        url, fleet_port = f"http://127.0.0.1:{port}", free_port()
        exporter = ["exporter", "--port", str(fleet_port), "--ui-url", url]
        exporter += ["--log-format", "json" if writes_json() else "console"]
        self._start("exporter", [sys.executable, "-m", "dagster_taskiq_kit", *exporter])

        def answers() -> bool:
            self.check()
            return _answers(port) and _answers(fleet_port)

        if not wait_until(answers, _UI_WITHIN_S):
            raise ConfigurationError(f"The UI did not answer within {_UI_WITHIN_S:g} s.")
        return url, f"http://127.0.0.1:{fleet_port}"

    def check(self) -> None:
        """Raise :class:`PartEnded` if a part has ended by itself."""
        for name, program, said, pump in self._parts:
            if program.poll() is not None:
                pump.join(2)
                raise PartEnded(name, program.returncode, said[-30:])

    def stop(self) -> None:
        """End every part, last started first; the workers drain. Give the environment back."""
        self._group.stop()
        for name in _PUBLIC:
            if name in self._environment_before:
                os.environ[name] = self._environment_before[name]
            else:
                os.environ.pop(name, None)

    def _start(self, name: str, command: Sequence[str], stop_within_s: float = 15.0) -> None:
        program = self._group.start(
            [sys.executable, "-c", _WITH_INTERRUPTS, *command],
            environment=self.environment,
            output=subprocess.PIPE,
            stop_within_s=stop_within_s,
        )
        said: list[str] = []
        colour = _COLOURS[len(self._parts) % len(_COLOURS)]
        pump = threading.Thread(
            target=self._pump, args=(name, colour, program, said), name=f"log-{name}", daemon=True
        )
        pump.start()
        self._parts.append((name, program, said, pump))

    def _pump(
        self, name: str, colour: str, program: subprocess.Popen[bytes], said: list[str]
    ) -> None:
        """Print what a part says, each line with its name before it."""
        assert program.stdout is not None
        for raw in program.stdout:
            line = raw.decode(errors="replace").rstrip()
            said.append(line)
            del said[:-200]
            if writes_json():
                line = _with_part(name, line)
            if self._options.quiet and not _worth_saying(line):
                continue
            if not writes_json():
                line = f"{click.style(name.ljust(10), fg=colour)} {masked(line)}"
            click.echo(line, err=True)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


#: A parent that ignores SIGINT (a shell's &, some CI) would make Dagster deaf to SIGTERM as well.
_WITH_INTERRUPTS = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


_WORTH_SAYING = re.compile(
    r" (WARNING|ERROR|CRITICAL) |Error:|\"level\": \"(warning|error|critical)\""
)
_LEVEL = re.compile(r" (DEBUG|INFO|WARNING|ERROR|CRITICAL) ")


def _worth_saying(line: str) -> bool:
    return _WORTH_SAYING.search(line) is not None


def _with_part(part: str, line: str) -> str:
    """Return a line of a part in JSON: a worker's own, or one that is made of what it said."""
    with contextlib.suppress(ValueError, TypeError):
        return json.dumps({**json.loads(line), "part": part}, ensure_ascii=False)
    level = _LEVEL.search(line)
    said = {"action": Action.PRINTED.value, "part": part}
    return json_line(time.time(), level[1].lower() if level else "info", line, said)
