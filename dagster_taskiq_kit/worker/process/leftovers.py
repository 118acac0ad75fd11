"""What is left of a worker on this host that was killed in one instant with all that guards it.

Invariant: a process is killed here only if nobody is left who would do it. A program that a step
has started carries the mark of its worker in its environment, and that worker is gone: its pid is
free, or belongs to a process that began later. A child is stopped and has lost its fork server. The
mark names the pid namespace, so that the workers of two containers that see each other's processes
never judge each other.

A fork of a step that never started a program, in a session of its own, shows no mark: it is found
only below its child.
"""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ...host.process_tree import kill_tree
from ...vocabulary.log_actions import Action, about
from .lifecycle import CHILD, FORK_SERVER

logger = logging.getLogger(__name__)

MARK = "_DAGSTER_TASKIQ_WORKER"
_ACTION = about(Action.LEFTOVER)


def mark_what_begins() -> None:
    """Mark this worker process; to be called before it forks and loads code."""
    os.environ[MARK] = f"{_pid_namespace()}/{os.getpid()}/{_began_at(os.getpid())}"


def end_leftovers() -> None:
    """Kill what workers of this host and user left behind; each is told in the log."""
    if sys.platform != "linux":
        return
    for pid in _orphaned_children():
        logger.warning("Child %d has lost its fork server: killing it.", pid, extra=_ACTION)
        kill_tree(pid)
    for pid, worker in _marked():
        said = "Process %d was started by a step of worker process %d, which is gone: killing it."
        logger.warning(said, pid, worker, extra=_ACTION)
        kill_tree(pid)


def _orphaned_children() -> Iterator[int]:
    """Yield children that the kernel stopped when their fork server died, and nobody has killed."""
    own = Path("/proc/self/exe").resolve()
    for pid in _processes():
        try:
            _, _, said = Path(f"/proc/{pid}/stat").read_text().partition(" (")
            name, _, rest = said.rpartition(") ")
            state, parent, _, session = rest.split()[:4]
            orphaned = (
                name == CHILD
                and state == "T"
                and session == str(pid)
                and Path(f"/proc/{pid}/exe").resolve() == own
                and Path(f"/proc/{parent}/comm").read_text().strip() != FORK_SERVER
            )
        except OSError:  # gone, or another user's
            continue
        if orphaned:
            yield pid


def _marked() -> Iterator[tuple[int, int]]:
    """Yield each process that carries the mark of a worker that is gone, and that worker's pid."""
    prefix = f"{MARK}=".encode()
    for pid in _processes():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:  # gone, or another user's
            continue
        marks = [each for each in environment if each.startswith(prefix)]
        if marks:
            worker = _worker_that_is_gone(marks[0][len(prefix) :].decode(errors="replace"))
            if worker is not None:
                yield pid, worker


def _processes() -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            yield int(folder.name)


def _worker_that_is_gone(mark: str) -> int | None:
    namespace, _, rest = mark.partition("/")
    pid, _, began_at = rest.partition("/")
    if namespace != _pid_namespace() or not pid.isdigit():
        return None
    return None if _began_at(int(pid)) == began_at else int(pid)


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return "unknown"


def _began_at(pid: int) -> str:
    """Return when a process began, in ticks since boot; '' if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
