"""Programs that end with their owner, also when the owner is killed with SIGKILL.

Invariant: every program started here leads a process group of its own, and a guardian (a tiny
interpreter that holds one end of a pipe) kills every group that is left when the owner's end of the
pipe is gone.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

_GUARDIAN = """
import os, signal, sys
groups = {}
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for line in sys.stdin:
    word, pid = line.split()
    if word == "add":
        groups[int(pid)] = True
    else:
        groups.pop(int(pid), None)
for pid in reversed(list(groups)):
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass
"""


class ProcessGroup:
    """Starts programs and ends them; a context manager.

    Programs are ended in reverse order of their start: what was started last depends on the rest.
    """

    def __init__(self) -> None:
        self._programs: list[tuple[subprocess.Popen[Any], float]] = []
        self._guardian: subprocess.Popen[str] | None = None

    def __enter__(self) -> "ProcessGroup":
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARDIAN],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        output: IO[bytes] | int | None = None,
        stop_within_s: float = 10.0,
    ) -> subprocess.Popen[Any]:
        """Start a program.

        Args:
            command: The program and its arguments.
            environment: Its whole environment; default ours.
            output: Where stdout and stderr go; default ours.
            stop_within_s: How long it may take to end after SIGTERM.
        """
        program = subprocess.Popen(
            list(command),
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
            start_new_session=True,
        )
        self._tell(f"add {program.pid}")
        self._programs.append((program, stop_within_s))
        return program

    def stop(self) -> None:
        """End every program, last started first: SIGTERM, then SIGKILL for its whole group."""
        while self._programs:
            program, within_s = self._programs.pop()
            self._end(program, within_s)
        if self._guardian is not None and self._guardian.stdin is not None:
            with contextlib.suppress(OSError):
                self._guardian.stdin.close()
            self._guardian.wait()
            self._guardian = None

    def _end(self, program: subprocess.Popen[Any], within_s: float) -> None:
        if program.poll() is None:
            program.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(within_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()
        self._tell(f"remove {program.pid}")

    def _tell(self, line: str) -> None:
        if self._guardian is not None and self._guardian.stdin is not None:
            with contextlib.suppress(OSError):
                self._guardian.stdin.write(line + "\n")
                self._guardian.stdin.flush()


def reset_interrupts() -> None:
    """Make SIGINT and SIGTERM end this process again, whatever its parent ignored.

    A shell's ``&`` and some CI runners start programs that ignore SIGINT; Dagster maps SIGTERM onto
    SIGINT's handler and would then be deaf to both.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def wait_until(true: Any, within_s: float, pause_s: float = 0.05) -> bool:
    """Wait until ``true()`` is true; False when the time is up."""
    deadline_s = time.monotonic() + within_s
    while not true():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(pause_s)
    return True
