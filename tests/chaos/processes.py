"""Looks at processes that may end while they are looked at: what has ended is not there."""

import contextlib

import psutil


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def children_named(process: psutil.Process, name: str) -> list[psutil.Process]:
    found = []
    for child in process.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.name() == name:
                found.append(child)
    return found


def kill(*processes: psutil.Process) -> None:
    """In one instant, as far as one can."""
    for process in processes:
        process.suspend()
    for process in processes:
        process.kill()
