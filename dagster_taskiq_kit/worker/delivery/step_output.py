"""What steps print, on the worker's own stdout and stderr, where log shippers look.

Invariant: a line appears once and whole, with its run and step in front (or in its JSON object),
and the lines of a stream in their order; also the last ones of a process that was killed. Nobody
waits for it: a reader of our stdout that stopped reading delays no step, no renewal and no end.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

from ...host.daemon_thread import DaemonThread
from ...host.log_lines import json_line, writes_json
from ...host.written_lines import write_lines
from ...vocabulary.log_actions import Action, about
from ...vocabulary.masking import masked
from ...vocabulary.messages import StepMessage

_EVERY_S = 0.5
_DESCRIPTORS = {"out": 1, "err": 2}
#: Of one stream in one look: more comes with the next.
_MOST_BYTES = 1_048_576
#: How long a worker that leaves gives to what is not printed yet.
_LEAVE_WITHIN_S = 2.0


class StepOutput:
    """Copies what one step writes into its files.

    Args:
        step: The step.
        queue: Where it waited.
        files: Its files, by ``out`` and ``err``.
    """

    def __init__(self, step: StepMessage, queue: str, files: Mapping[str, str]) -> None:
        self._prefix = f"[{step.run_id[:8]} {step.step_key}] "
        code = {"job": step.code.job, "location": step.code.location}
        self._said = about(Action.STEP_OUTPUT, step.task_id, queue=queue, **code)
        self._files = files
        self._open: dict[str, BinaryIO] = {}
        self._begun = dict.fromkeys(files, b"")

    def copy(self, *, last: bool = False) -> None:
        """Print the lines that are whole; all that is left, when it is the last time."""
        for stream in self._files:
            written = self._reader(stream)
            while written is not None:
                chunk = written.read(_MOST_BYTES)
                lines = (self._begun[stream] + chunk).split(b"\n")
                self._begun[stream] = lines.pop()
                if last and not chunk and self._begun[stream]:
                    lines.append(self._begun[stream])
                    self._begun[stream] = b""
                self._print(stream, lines)
                if len(chunk) < _MOST_BYTES and not (last and chunk):
                    break

    def _reader(self, stream: str) -> BinaryIO | None:
        """Return a stream's file; kept open, since some managers move it away at the end."""
        if stream not in self._open:
            with contextlib.suppress(OSError):
                self._open[stream] = Path(self._files[stream]).open("rb")  # noqa: SIM115
        return self._open.get(stream)

    def _print(self, stream: str, lines: list[bytes]) -> None:
        if lines:
            write = self._as_json if writes_json() else self._as_text
            texts = [write(stream, line.decode(errors="replace")) for line in lines]
            write_lines(_DESCRIPTORS[stream], "\n".join([*texts, ""]))

    def _as_text(self, _stream: str, line: str) -> str:
        return masked(f"{self._prefix}{line}")

    def _as_json(self, stream: str, line: str) -> str:
        return json_line(time.time(), "info", line, {**self._said, "stream": stream})

    def close(self) -> None:
        """Close its files."""
        for each in self._open.values():
            each.close()


class Printing:
    """Prints what all steps of a worker write, each in a task of its own.

    Args:
        wanted: Whether to print at all.
    """

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        # Of its own: a stdout that nobody reads would hold the threads that others wait for.
        self._thread = DaemonThread("step-output")
        self._tasks: set[asyncio.Task[None]] = set()

    def follow(self, output: StepOutput, gone: asyncio.Event) -> None:
        """Print what a step writes until its process is gone."""
        if self._wanted:
            task = asyncio.create_task(self._follow(output, gone))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Print what is left, for a moment at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LEAVE_WITHIN_S)

    async def _follow(self, output: StepOutput, gone: asyncio.Event) -> None:
        run = asyncio.get_running_loop().run_in_executor
        while not gone.is_set():
            await run(self._thread, output.copy)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(gone.wait(), _EVERY_S)
        await run(self._thread, partial(output.copy, last=True))
        output.close()
