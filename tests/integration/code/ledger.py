"""What op bodies leave behind: a line for each time that one ran, and gates that they wait at."""

import os
import time
from pathlib import Path

import dagster as dg

_GATE_WITHIN_S = 150.0


def _home() -> Path:
    return Path(os.environ["DAGSTER_HOME"])


def note(context: dg.OpExecutionContext) -> None:
    """Write down that the body of this attempt runs."""
    step_key = context.get_step_execution_context().step.key
    line = f"{context.run_id} {step_key} {context.retry_number} {os.getpid()}\n"
    with (_home() / "ledger").open("a") as ledger:
        ledger.write(line)


def wait_at_gate(name: str) -> None:
    """Wait until the test has opened a gate."""
    deadline_s = time.monotonic() + _GATE_WITHIN_S
    while not (_home() / name).exists():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"Nobody opened the gate {name!r}.")
        time.sleep(0.02)
