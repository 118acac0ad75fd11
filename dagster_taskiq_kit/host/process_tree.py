"""Who descends from a process, and how all of it is killed.

Invariant: a process that adopts orphans is the parent of whatever below it has lost its own,
however it was started (``setsid``, a double fork). So while it stands, nothing below it can leave
its tree, and it is killed last.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

_PR_SET_CHILD_SUBREAPER = 36
#: How long what was sent SIGKILL may take to be gone: one that waits for a disk takes its time.
_KILL_WITHIN_S = 0.2
_KILL_AGAIN_S = 0.002


def adopt_orphans() -> None:
    """On Linux, become the parent of what loses its own below us (``PR_SET_CHILD_SUBREAPER``)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def children_of(pid: int) -> Sequence[int]:
    """Return the children of a process; none when it is gone."""
    listed: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            listed += [int(word) for word in (task / "children").read_text().split()]
    except OSError:
        # This kernel does not list them, or the process is gone.
        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(pid).children()]
    return listed


def descendants_of(pid: int) -> Iterator[int]:
    """Yield what stands below a process, parents before their children."""
    for child in children_of(pid):
        yield child
        yield from descendants_of(child)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to one process; nothing happens when it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill_group(pid: int) -> None:
    """Kill the process group that a process leads or led; nothing happens when it is empty."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def group_lives(pid: int) -> bool:
    """Return whether there is a process in the group that a process leads or led."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def kill_tree(pid: int) -> None:
    """Kill a process that adopts orphans, and everything below it first.

    It is stopped meanwhile, so that it starts nothing. Takes milliseconds; what does not die in
    0.2 s is left to the kernel.
    """
    kill(pid, signal.SIGSTOP)
    until_s = time.monotonic() + _KILL_WITHIN_S
    while below := [each for each in descendants_of(pid) if _lives(each)]:
        for each in below:
            kill(each)
        if time.monotonic() > until_s:
            break
        time.sleep(_KILL_AGAIN_S)
    kill_group(pid)
    kill(pid)


def _lives(pid: int) -> bool:
    """Return whether a process is there and no zombie: one of a stopped parent stays."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return psutil.pid_exists(pid) if sys.platform != "linux" else False
