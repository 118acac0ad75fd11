"""Imports one library in this process, as a fork server does, and says what came of it, as JSON.

``python -m benchmarks.warm.probe``; reads a library as JSON from its stdin.
"""

import atexit
import contextlib
import json
import os
import signal
import sys
import time
from typing import Any

from dagster_taskiq_kit.worker.warm.import_effects import ImportWatch
from dagster_taskiq_kit.worker.warm.warmth import judge

_CHILDREN = 3
_WITHIN_S, _LOOK_EVERY_S = 60, 0.02


def main() -> None:
    """Entry point."""
    library: dict[str, str] = json.load(sys.stdin)
    space: dict[str, Any] = {"__name__": "probed"}
    imported_in_child = _fork(f"{library['imports']}\n{library['computes']}", dict(space))
    hooks, handlers, exits = _count_fork_hooks(), _handlers(), atexit._ncallbacks()
    began_s = time.perf_counter()
    with ImportWatch(library["name"]) as watch:
        exec(library["imports"], space)
    took_s, effects = time.perf_counter() - began_s, watch.effects()
    verdict = judge(effects, "auto")
    found: dict[str, Any] = {
        "import_s": took_s, "threads": len(effects.threads),
        "native_threads": len(effects.native_threads),
        "descriptors": [each.what for each in effects.descriptors],
        "fork_hooks": len(hooks), "signal_handlers": len(_handlers() ^ handlers),
        "exit_handlers": atexit._ncallbacks() - exits,
        "served": "warm" if verdict.warm else "layered", "why": list(verdict.why),
        "after_import": _fork(library["computes"], space),
        "imported_in_child": imported_in_child,
    }  # fmt: skip
    try:
        exec(library["computes"], space)
        found["after_use"] = _fork(library["computes"], space)
    except Exception as error:  # noqa: BLE001  (it is the finding)
        found["after_use"] = " ".join(f"{type(error).__name__}: {error}".split())
    sys.__stdout__.write(json.dumps(found) + "\n")
    sys.__stdout__.flush()
    os._exit(0)


def _count_fork_hooks() -> list[Any]:
    """Note each fork hook that is registered from now on."""
    noted: list[Any] = []
    register = os.register_at_fork

    def noting(**hooks: Any) -> None:
        noted.append(hooks)
        register(**hooks)

    os.register_at_fork = noting  # type: ignore[assignment]
    return noted


def _handlers() -> set[tuple[int, str]]:
    return {(int(n), repr(signal.getsignal(n))) for n in signal.valid_signals()}


def _fork(computes: str, space: dict[str, Any]) -> str:
    """Return how some children ended that compute at once: exit codes, or that they hang."""
    pids = []
    for _ in range(_CHILDREN):
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                exec(computes, space)
                os._exit(0)
            os._exit(1)
        pids.append(pid)
    until_s = time.monotonic() + _WITHIN_S
    return " ".join(_end_of(pid, until_s) for pid in pids)


def _end_of(pid: int, until_s: float) -> str:
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return str(os.waitstatus_to_exitcode(status))
        if time.monotonic() > until_s:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "hang"
        time.sleep(_LOOK_EVERY_S)


if __name__ == "__main__":
    main()
