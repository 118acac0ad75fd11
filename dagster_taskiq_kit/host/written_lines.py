"""Who writes what a worker says: a thread, to the stdout and stderr that the worker was given.

Invariant: the worker does not wait for who reads: a reader that stopped reading costs lines, and no
lease. Where the log is JSON nothing else leaves the process: what user code, C libraries and forked
processes print on their stdout and stderr is wrapped, line by line, and does not wait either.
"""

import json
import logging
import logging.handlers
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar, cast

from ..vocabulary.log_actions import Action
from .log_lines import FIELDS, ConsoleLines, json_line, writes_json

T = TypeVar("T")

#: Lines that wait for a reader; more are dropped.
_MOST_WAITING = 10_000
_MOST_WAITING_BYTES = 16_777_216
#: How long an end of the process waits for a reader.
_LEAVE_WITHIN_S = 2.0
_CHUNK_BYTES = 65_536
_LONGEST_LINE_BYTES = 1_048_576

_STREAMS = {1: "out", 2: "err"}
#: Where lines go: the process's own streams, or what they were before they were wrapped.
_target: dict[int, int] = {1: 1, 2: 2}
_writing = threading.Lock()


def write_lines(stream: int, text: str) -> None:
    """Write whole lines; waits for the reader.

    Args:
        stream: 1 for stdout, 2 for stderr.
        text: The lines.
    """
    rest = text.encode(errors="replace")
    # Both streams may be one pipe: lines of two threads must not land within each other.
    with _writing, suppress(OSError):
        while rest:
            try:
                rest = rest[os.write(_target[stream], rest) :]
            except BlockingIOError:
                select.select([], [_target[stream]], [])


class _Waiting(logging.handlers.QueueHandler):
    """Leaves a record to the thread that writes it."""

    def __init__(self, lines: "_Lines") -> None:
        super().__init__(cast("queue.Queue[object]", lines))
        self._lines = lines

    def enqueue(self, record: logging.LogRecord) -> None:
        """Leave it."""
        self._lines.leave(record)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Return it as it is: it stays in this process."""
        return record


_Line = logging.LogRecord | tuple[int, str] | threading.Event


class _Lines(queue.Queue[_Line | None]):
    """What waits to be written: records of the log, lines for a stream, and who waits for that."""

    def __init__(self) -> None:
        super().__init__(_MOST_WAITING)
        self._text_bytes, self._counting = 0, threading.Lock()

    def leave(self, line: _Line) -> None:
        """Leave a line; it is dropped when too much waits."""
        size = len(line[1]) if isinstance(line, tuple) else 0
        with self._counting, suppress(queue.Full):
            if self._text_bytes + size <= _MOST_WAITING_BYTES:
                self.put_nowait(line)
                self._text_bytes += size

    def write_all(self, formatter: logging.Formatter) -> None:
        """Write what comes until there is None."""
        while (line := self.get()) is not None:
            if isinstance(line, tuple):
                with self._counting:
                    self._text_bytes -= len(line[1])
                write_lines(*line)
            elif isinstance(line, threading.Event):
                line.set()
            else:
                write_lines(2, f"{_formatted(line, formatter)}\n")


def _formatted(record: logging.LogRecord, formatter: logging.Formatter) -> str:
    """Return a record's line; one that cannot be made, as by wrong arguments, says that."""
    try:
        return formatter.format(record)
    except Exception as error:  # noqa: BLE001  (one bad line must not be the last one)
        record.msg = f"{record.msg!r} cannot be written with what it was given ({error!r})."
        record.args, record.exc_info = None, None
        for name in FIELDS:
            record.__dict__.pop(name, None)
        return formatter.format(record)


class LogWriter:
    """Writes the log of this process; in JSON, all that it and those it forks print, too.

    To be made before the process forks; :meth:`running` begins threads, and comes after that.
    """

    def __init__(self) -> None:
        self._lines = _Lines()
        #: Where what is printed arrives, and its stream.
        self._read: dict[int, int] = {}
        for stream in _STREAMS if writes_json() else ():
            read, write = os.pipe()
            _target[stream] = os.dup(stream)
            os.dup2(write, stream)
            os.close(write)
            self._read[read] = stream

    def forking(self, fork: Callable[[], T]) -> T:
        """Call what forks; should it fail, who says why has a stderr to say it on."""
        try:
            return fork()
        except BaseException:
            self._give_back()
            raise

    def flush_within(self, seconds: float) -> None:
        """Have what waits written, for a moment at most."""
        written = threading.Event()
        self._lines.leave(written)
        written.wait(seconds)

    @contextmanager
    def running(self) -> Generator[None, None, None]:
        """Write until the end; then give the streams back."""
        before, done = list(logging.root.handlers), threading.Event()
        # Without a lock and without a buffer of Python's: the process's end never waits for it.
        write = partial(self._lines.write_all, before[0].formatter or ConsoleLines())
        writing = threading.Thread(target=write, name="log", daemon=True)
        reading = threading.Thread(target=self._read_all, args=(done,), name="out", daemon=True)
        logging.root.handlers[:] = [_Waiting(self._lines)]
        writing.start()
        reading.start()
        try:
            yield
        finally:
            self._give_back()
            done.set()
            reading.join(_LEAVE_WITHIN_S)
            with suppress(queue.Full):
                self._lines.put(None, timeout=_LEAVE_WITHIN_S)
                writing.join(_LEAVE_WITHIN_S)
            logging.root.handlers[:] = [logging.NullHandler()] if writing.is_alive() else before

    def _give_back(self) -> None:
        if self._read:
            for each in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    each.flush()
            for stream in _STREAMS:
                os.dup2(_target[stream], stream)

    def _read_all(self, done: threading.Event) -> None:
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

    def _say(self, stream: int, lines: list[bytes]) -> None:
        said = {"action": Action.PRINTED.value, "stream": _STREAMS[stream]}
        decoded = [line.decode(errors="replace") for line in lines if line.strip()]
        texts = [
            line if _is_ours(line) else json_line(time.time(), "info", line, said)
            for line in decoded
        ]
        if texts:
            self._lines.leave((stream, "\n".join([*texts, ""])))


def _is_ours(line: str) -> bool:
    """Return whether a forked process of ours has written a line of the log."""
    if not line.startswith('{"time": '):
        return False
    try:
        return "action" in json.loads(line)
    except ValueError:
        return False
