"""What it costs to ask a command for its help: ours, dagster-celery's, and the interpreter alone.

Usage: python -m benchmarks.cli

Invariant: all are asked in turns in this run, each in a process of its own, as a user asks.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .celery_environment import celery_python
from .contenders import ROOT

ROUNDS = 11
_TARGET_S = 0.5


def measure(commands: Mapping[str, Sequence[str]], rounds: int = ROUNDS) -> Mapping[str, float]:
    """Return the median seconds of each command.

    Raises:
        SystemExit: One of them failed.
    """
    took_s: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            began_s = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise SystemExit(f"{name} failed:\n{done.stderr}")
            if number > 0:  # the first fills caches
                took_s[name].append(time.perf_counter() - began_s)
    return {name: statistics.median(each) for name, each in took_s.items()}


def main() -> None:
    """Entry point."""
    ours = [sys.executable, "-m", "dagster_taskiq_kit"]
    celery = str(Path(celery_python(ROOT / ".venv-celery")).parent / "dagster-celery")
    found = measure(
        {
            "python -c pass": [sys.executable, "-c", "pass"],
            "dagster-taskiq --help": [*ours, "--help"],
            "dagster-taskiq worker start --help": [*ours, "worker", "start", "--help"],
            "dagster-celery --help": [celery, "--help"],
            "dagster-celery worker start --help": [celery, "worker", "start", "--help"],
        }
    )
    print("| command | median | of dagster-celery's |\n|---|---|---|")
    for name, took_s in found.items():
        peer = found.get(name.replace("dagster-taskiq", "dagster-celery"))
        ratio = f"{took_s / peer:.2f} x" if peer is not None else ""
        print(f"| `{name}` | {took_s:.3f} s | {ratio} |")
    slowest_s = max(took_s for name, took_s in found.items() if "taskiq" in name)
    print(
        f"\nTarget: under {_TARGET_S} s; {'met' if slowest_s < _TARGET_S else 'NOT MET'}. "
        f"Medians of {ROUNDS}."
    )


if __name__ == "__main__":
    main()
