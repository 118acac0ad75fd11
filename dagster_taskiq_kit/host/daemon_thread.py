"""One thread for calls that may block for ever, which the end of the process does not wait for.

Invariant: what is submitted is called in that order. ``ThreadPoolExecutor`` joins its threads at
the end of the interpreter; one that hangs in a write to a pipe nobody reads would be the end of the
end.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonThread(Executor):
    """An executor of one daemon thread, which begins with the first call.

    Args:
        name: Its name.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._go_on, name=name, daemon=True)
        self._begun = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Have something called."""
        future: Future[T] = Future()
        self._calls.put(partial(_call, future, partial(fn, *args, **kwargs)))
        if not self._begun:
            self._begun = True
            self._thread.start()
        return future

    def _go_on(self) -> None:
        while True:
            self._calls.get()()


def _call(future: "Future[T]", call: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001  (whoever waits for it is told)
        future.set_exception(error)
