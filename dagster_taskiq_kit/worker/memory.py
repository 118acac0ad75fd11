"""How much memory a child and its own children use.

Invariant: what a forked child shares with its fork server does not count, so a limit means the same
in a warm and in a cold location.
"""

import psutil

_MIB = 1024 * 1024


def used_mib(pid: int) -> float:
    """Return the unshared memory of a process and all below it, in MiB; 0 when it is gone."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0.0
    return sum(_unshared_bytes(member) for member in family) / _MIB


def _unshared_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().uss)
    except psutil.Error:
        return 0
