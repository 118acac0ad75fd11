"""What a process of ours does first and last; nothing here imports Dagster.

Invariant: a child leads its own session (so its whole group can be killed), ends with its parent,
is the parent of whatever below it has lost its own (so all of it is found), has default signal
handlers, and finalizes only what was registered in itself.
"""

import ctypes
import gc
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from ...host.deferred_signals import undo_after_fork
from ...host.library_internals import forget_exit_handlers, run_exit_handlers
from ...host.process_tree import adopt_orphans

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15

#: What ``ps`` shows.
CHILD, FORK_SERVER, GUARDIAN = "child", "fork server", "guardian"

#: How long the process of a message that has ended may take to leave.
LINGER_S = 10.0
#: How long what it has started may take to end with it, as resource trackers do.
HELPERS_LINGER_S = 1.0


def become_child() -> None:
    """Turn a fresh process into a child that has started nothing and that no guardian knows yet."""
    when_parent_dies(signal.SIGKILL)
    os.setsid()
    show_as(CHILD)
    adopt_orphans()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # What the fork server registered is its own to finalize; what the step registers is ours.
    forget_exit_handlers()
    _give_forks_the_signals_of_a_fresh_process()
    gc.enable()


def be_guarded() -> None:
    """Have the kernel stop this child, instead of kill it, when its fork server dies.

    For a child that its guardian knows of, before it executes any code that may start something:
    whoever kills it then finds all of that below it.
    """
    when_parent_dies(signal.SIGSTOP)


def _give_forks_the_signals_of_a_fresh_process() -> None:
    """Have what a step forks end when it is told to, as a fork of a fresh process does.

    Dagster's own handlers, which only note that they were called, would leave a worker of a pool
    waiting. A signal that comes before they are gone waits: CPython forgets those that a handler
    of its own took in the first moments of a fork.
    """
    ending = {signal.SIGTERM, signal.SIGINT}
    before = threading.local()

    def wait() -> None:
        # Noted first: a handler of the code's may raise as soon as signals are looked at.
        before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        signal.pthread_sigmask(signal.SIG_BLOCK, ending)

    def go_on() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.mask)

    def be_fresh() -> None:
        undo_after_fork()
        defaults = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
        for number, default in defaults.items():
            module = getattr(signal.getsignal(number), "__module__", None) or ""
            if module.startswith("dagster."):
                signal.signal(number, default)
        go_on()

    os.register_at_fork(before=wait, after_in_parent=go_on, after_in_child=be_fresh)


def when_parent_dies(number: int) -> None:
    """On Linux, have the kernel send this process a signal when its parent dies; 0 for none."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def show_as(name: str) -> None:
    """On Linux, give this process a name for ``ps -o comm``; a fork has its parent's.

    Args:
        name: At most 15 bytes.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode())


def threads() -> int:
    """Return how many threads this process has; where it is not known, more than one."""
    return len(list(Path("/proc/self/task").iterdir())) if sys.platform == "linux" else 2


def threads_left() -> list[str]:
    """Return the names of the threads that an interpreter would wait for at its end."""
    return [
        thread.name
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and not thread.daemon
    ]


def leave() -> None:
    """End the process: do what an interpreter does at its end, then leave by ``os._exit``.

    What is left behind by a step can make that last for ever (a thread, an exit handler, a pool, a
    reader of stdout that is gone); its fork server kills it then.
    """
    try:
        run_exit_handlers()
        logging.shutdown()  # it was registered before the fork, and is this process's all the same
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(0)
