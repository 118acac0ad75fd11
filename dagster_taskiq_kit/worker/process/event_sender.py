"""A child's side of the event relay: events of its step are stored by its worker.

Invariant: what a child has said is stored in the order in which it said it, or not at all from some
event on. Nothing that reads Dagster's database by SQLAlchemy here, no fork of this process and no
program that it starts goes on before all that was said is in the log; nor does the body of a step
before its STEP_START is. A child has at most so much unstored: then it waits.
"""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from ...dagster_internals import names as internals
from ...host.deferred_signals import DeferredSignals
from ...vocabulary.errors import EventsNotStored
from .protocol import Barrier, Committed, Event, Packet
from .wire import Wire

#: What a child may have said that is not known to be stored.
_MOST_EVENTS = 1_000
_MOST_BYTES = 4 * 1024 * 1024
_LOOK_S = 0.2
#: How long a child that was told to end waits for a database that is away.
_INTERRUPTED_S = 10.0


class EventSender:
    """Says events to the worker.

    Args:
        wire: To the fork server, which passes them on.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._pid = os.getpid()
        # Re-entered by what the garbage collector finalizes, which may log.
        self._lock = threading.RLock()
        self._unstored, self._unstored_bytes = 0, 0
        #: Said together with the next one.
        self._held: list[Packet] = []
        #: Numbers of the last barrier that was said, and of the last one that was answered.
        self._barriers, self._answered = 0, 0
        self._failure = ""
        self._open = False

    @property
    def is_open(self) -> bool:
        """Whether events of this process go this way: of a step, and not in a fork."""
        return self._open and os.getpid() == self._pid

    def open(self) -> None:
        """Say the events of a step, which has just been allowed to begin."""
        self._unstored, self._unstored_bytes, self._failure = 0, 0, ""
        self._open = True

    def send(self, row: bytes, *, more_follows: bool = False) -> bool:
        """Say an event; False when this process has to store it itself.

        Args:
            row: The event, packed.
            more_follows: Another one is said at once, before any code of the user's runs, and
                this one goes with it: each send wakes another process.

        Raises:
            EventsNotStored: The database refused an earlier one.
        """
        full = self._unstored_bytes + len(row) > _MOST_BYTES or self._unstored >= _MOST_EVENTS
        if full:
            self.settle()
        with DeferredSignals(), self._lock:
            if not self.is_open:
                return False
            self._unstored += 1
            self._unstored_bytes += len(row)
            self._held.append(Event(row))
            if not more_follows:
                self._send_held()
            return True

    def settle(self) -> None:
        """Wait until all that was said is in the log.

        Raises:
            EventsNotStored: The database refused an event.
            DagsterExecutionInterruptedError: This process was told to end, and the database is
                away.
        """
        if not self._unstored or not self.is_open:
            return
        with DeferredSignals() as signals:
            stored = self._settle(signals)
        if not stored:
            raise internals.DagsterExecutionInterruptedError
        if self._failure:
            raise EventsNotStored(self._failure)

    def close(self) -> None:
        """Say nothing, whatever thread has something to say: the end of the step is said next."""
        with DeferredSignals(), self._lock:
            if self.is_open:
                self._send_held()
            self._open = False

    def _send_held(self, *, with_it: Sequence[Packet] = ()) -> None:
        packets = [*self._held, *with_it]
        self._held.clear()
        if packets:
            self._wire.send_undisturbed(*packets)

    def _settle(self, signals: DeferredSignals) -> bool:
        """Return whether an answer came; without one, this process shall end."""
        patience = _Patience(signals)
        while not self._lock.acquire(timeout=_LOOK_S):
            if patience.is_over():
                return False
        try:
            if not self._unstored:  # another thread has waited for it
                return True
            self._barriers += 1
            number, events, size = self._barriers, self._unstored, self._unstored_bytes
            self._send_held(with_it=[Barrier(number)])
            while self._answered < number:
                if patience.is_over():
                    return False
                answer = self._wire.receive_within(_LOOK_S)
                if isinstance(answer, Committed):
                    self._answered = answer.number
                    self._failure = answer.failure
            self._unstored -= events
            self._unstored_bytes -= size
            return True
        except EOFError:  # its fork server is gone, and this process is about to be
            return False
        finally:
            self._lock.release()


class _Patience:
    """How long to wait for a database: for ever, until a signal says that it is enough."""

    def __init__(self, signals: DeferredSignals) -> None:
        self._signals = signals
        self._until_s = float("inf")

    def is_over(self) -> bool:
        told = self._signals.came or internals.check_captured_interrupt()
        if told and self._until_s == float("inf"):
            self._until_s = time.monotonic() + _INTERRUPTED_S
        return time.monotonic() > self._until_s


def before_a_process_begins(settle: Callable[[], None]) -> None:
    """Have something done before this process forks or starts a program, in any way Python has.

    Not by a hook of ``os.register_at_fork``: what is raised there, as when this process is told to
    end, would be lost. A process begins all the same when events could not be stored: that is told
    where it matters. One that runs already, as a pool's, is not waited for.
    """
    from multiprocessing.process import BaseProcess

    starting: list[tuple[Any, str]] = [
        (os, "fork"), (os, "forkpty"), (os, "posix_spawn"), (os, "posix_spawnp"), (os, "system"),
        (subprocess.Popen, "__init__"), (BaseProcess, "start"),
    ]  # fmt: skip
    for owner, name in starting:
        setattr(owner, name, _settled(getattr(owner, name), settle))


def _settled(start: Callable[..., Any], settle: Callable[[], None]) -> Callable[..., Any]:
    @wraps(start)
    def start_settled(*arguments: Any, **options: Any) -> Any:
        with contextlib.suppress(EventsNotStored):
            settle()
        return start(*arguments, **options)

    return start_settled
