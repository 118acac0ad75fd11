"""Who writes what a worker says: a thread, to the stdout and stderr that the worker was given.

Invariant: who logs does not wait for who reads: a reader that stopped reading costs lines, no lease
and no step. Where the log is JSON nothing else leaves the process: what user code, C libraries and
forked processes print on their stdout and stderr is wrapped, line by line.
"""

import logging
import logging.handlers
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import partial
from typing import cast

from ..vocabulary.log_actions import Action
from .log_lines import ConsoleLines, json_line, writes_json

#: Lines that wait for a reader; more are dropped.
_MOST_WAITING = 10_000
#: How long an end of the process waits for a reader.
_LEAVE_WITHIN_S = 2.0
_CHUNK_BYTES = 65_536
_LONGEST_LINE_BYTES = 1_048_576

_STREAMS = {1: "out", 2: "err"}
#: Where lines go: the process's own streams, or what they were before they were wrapped.
_target: dict[int, int] = {1: 1, 2: 2}
Lines = queue.Queue[logging.LogRecord | None]


def write_lines(stream: int, text: str) -> None:
    """Write whole lines; waits for the reader.

    Args:
        stream: 1 for stdout, 2 for stderr.
        text: The lines.
    """
    rest = text.encode(errors="replace")
    with suppress(OSError):
        while rest:
            rest = rest[os.write(_target[stream], rest) :]


class _Waiting(logging.handlers.QueueHandler):
    """Leaves a record to the thread that writes it; drops it when too many wait."""

    def enqueue(self, record: logging.LogRecord) -> None:
        """Leave it."""
        with suppress(queue.Full):
            self.queue.put_nowait(record)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Return it as it is: it stays in this process."""
        return record


@contextmanager
def written_by_a_thread() -> Generator[None, None, None]:
    """Let a thread write the log of this process, which must not fork meanwhile."""
    before = list(logging.root.handlers)
    lines: Lines = queue.Queue(_MOST_WAITING)
    # Without a lock and without a buffer of Python's: the process's end never waits for it.
    write = partial(_write_records, lines, before[0].formatter or ConsoleLines())
    thread = threading.Thread(target=write, name="log", daemon=True)
    logging.root.handlers[:] = [_Waiting(cast("queue.Queue[object]", lines))]
    thread.start()
    try:
        yield
    finally:
        with suppress(queue.Full):
            lines.put(None, timeout=_LEAVE_WITHIN_S)
            thread.join(_LEAVE_WITHIN_S)
        logging.root.handlers[:] = [logging.NullHandler()] if thread.is_alive() else before


def _write_records(lines: Lines, formatter: logging.Formatter) -> None:
    while (record := lines.get()) is not None:
        write_lines(2, f"{formatter.format(record)}\n")


class WrappedStreams:
    """Turns what this process and those it forks print into JSON lines; nothing where none are.

    To be made before the process forks; :meth:`follow` begins a thread, and comes after that.
    """

    def __init__(self) -> None:
        self._read: dict[int, int] = {}
        if not writes_json():
            return
        for stream in _STREAMS:
            read, write = os.pipe()
            _target[stream] = os.dup(stream)
            os.dup2(write, stream)
            os.close(write)
            self._read[read] = stream

    @contextmanager
    def follow(self) -> Generator[None, None, None]:
        """Write what is printed, until the end; then give the streams back."""
        done = threading.Event()
        thread = threading.Thread(target=self._go_on, args=(done,), name="printed", daemon=True)
        if self._read:
            thread.start()
        try:
            yield
        finally:
            if self._read:
                self._give_back()
                done.set()
                thread.join(_LEAVE_WITHIN_S)

    def _give_back(self) -> None:
        for each in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                each.flush()
        for stream in _STREAMS:
            os.dup2(_target[stream], stream)

    def _go_on(self, done: threading.Event) -> None:
        begun = dict.fromkeys(self._read, b"")
        while begun:
            ending = done.is_set()
            readable, _, _ = select.select(list(begun), [], [], 0.0 if ending else 0.2)
            for read in readable:
                chunk = os.read(read, _CHUNK_BYTES)
                *lines, begun[read] = (begun[read] + chunk).split(b"\n")
                if len(begun[read]) > _LONGEST_LINE_BYTES or not chunk:
                    lines, begun[read] = [*lines, begun[read]], b""
                self._say(self._read[read], lines)
                if not chunk:
                    del begun[read]
            if ending and not readable:
                for read, rest in begun.items():
                    self._say(self._read[read], [rest])
                return

    @staticmethod
    def _say(stream: int, lines: list[bytes]) -> None:
        said = {"action": Action.PRINTED.value, "stream": _STREAMS[stream]}
        texts = [
            json_line(time.time(), "info", line.decode(errors="replace"), said)
            for line in lines
            if line.strip()
        ]
        if texts:
            write_lines(stream, "\n".join([*texts, ""]))
