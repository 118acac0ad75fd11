"""Keeps a signal's handler from raising in the middle of what must be done whole.

Invariant: no handler written in Python runs within the block; each signal that came is raised again
when the block has ended. A packet that is half sent, or sent and not counted, would be the end of
its wire, and user code may install handlers that raise (an alarm for a timeout, say).
"""

import signal
import threading
from types import TracebackType
from typing import Any

_SIGNALS = (
    signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip


class DeferredSignals:
    """Defers signals for a block; no signal is handled but in the main thread."""

    def __init__(self) -> None:
        #: Those that came, in order.
        self.came: list[int] = []
        self._handlers: list[tuple[int, Any]] = []

    def __enter__(self) -> "DeferredSignals":
        if threading.current_thread() is threading.main_thread():
            try:
                for number in _SIGNALS:
                    handler = signal.getsignal(number)
                    if callable(handler):
                        self._handlers.append((number, handler))
                        signal.signal(number, self._note)
            except BaseException:
                self._restore()
                raise
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        try:
            self._restore()
        finally:
            self._raise_again()

    def _raise_again(self) -> None:
        """Raise all that came, also when a handler raises for one of them."""
        if not self.came:
            return
        number = self.came.pop(0)
        try:
            signal.raise_signal(number)
        finally:
            self._raise_again()

    def undo(self) -> None:
        """In a fork that another thread made within the block: have the handlers as they were."""
        for number, handler in self._handlers:
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        self.came.append(number)

    def _restore(self) -> None:
        if not self._handlers:
            return
        number, handler = self._handlers.pop()
        try:
            signal.signal(number, handler)
        finally:
            self._restore()


def undo_after_fork() -> None:
    """Undo what another thread defers in the process that this one was forked from."""
    for number in _SIGNALS:
        deferring = getattr(signal.getsignal(number), "__self__", None)
        if isinstance(deferring, DeferredSignals):
            deferring.undo()
