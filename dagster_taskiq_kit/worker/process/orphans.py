"""What a fork server kills that is no child of its making.

Invariant: a living child is the parent of its own orphans, so whatever is directly below a fork
server and is neither a child nor a part of its own session was left by a child that has ended.
"""

import contextlib
import os
import time
from collections.abc import Collection

from ...host.process_tree import children_of, kill_tree

_KILL_AGAIN_S = 0.01


def kill_orphans(children: Collection[int], sessions_spared: Collection[int]) -> None:
    """Kill what children that have ended left behind, now children of this process.

    Args:
        children: Pids of the living children.
        sessions_spared: Sessions that may stay; among them this process's own, in which what the
            user's code started lives since it was imported.
    """
    for pid in children_of(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            if pid not in children and os.getsid(pid) not in sessions_spared:
                kill_tree(pid)


def kill_all_below(spared: int | None, leaving: Collection[int], until_s: float) -> None:
    """Kill all that is below this process, until nothing is.

    Args:
        spared: Pid of the one that may stay.
        leaving: Pids of those that were told to leave.
        until_s: Monotonic time at which they are killed, too.
    """
    while pids := [pid for pid in children_of(os.getpid()) if pid != spared]:
        patient = time.monotonic() < until_s
        for pid in pids:
            if not (patient and pid in leaving):
                kill_tree(pid)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(_KILL_AGAIN_S)
