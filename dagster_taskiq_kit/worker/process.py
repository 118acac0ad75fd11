"""What a process of ours does first and last; nothing here imports Dagster.

Invariant: a child leads its own session (so its whole group can be killed), dies with its parent,
has default signal handlers, and finalizes only what was registered in itself.
"""

import atexit
import contextlib
import ctypes
import gc
import multiprocessing.util
import os
import random
import signal
import sys
import threading
import weakref
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


def become_child() -> None:
    """Turn a fresh process into a child."""
    with contextlib.suppress(PermissionError):  # a cold child leads its session already
        os.setsid()
    show_as("child")
    die_with_parent()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # What the fork server registered is its own to finalize; what the step registers is ours.
    atexit._clear()
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    multiprocessing.util._finalizer_registry.clear()  # type: ignore[attr-defined]
    # Every child inherits the same seeds.
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    gc.enable()


def die_with_parent() -> None:
    """On Linux, have the kernel kill this process when its parent dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


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


def leave() -> None:
    """End the process: do what an interpreter does at its end, then leave by ``os._exit``."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        multiprocessing.util._exit_function()  # type: ignore[attr-defined]
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(0)


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a child's whole group; nothing happens when it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            os.kill(pid, number)  # it has not made its group yet
