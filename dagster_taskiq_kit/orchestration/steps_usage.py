"""What the steps of a run have used, said once at its end.

Invariant: it is one event however many steps there are, and nothing waits for it: where the broker
does not answer at once, or knows nothing of an attempt, that is left out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import dagster as dg

from ..broker import readings
from ..broker.connection import SyncConnection
from ..broker.readings import Record
from ..vocabulary.errors import BrokerError
from ..vocabulary.messages import step_task_id
from .run_log import STEP_STARTS

#: Records that are asked for in one round trip.
_AT_ONCE = 500
_MOST_ROWS = 20
_COLUMNS = [
    dg.TableColumn("step", "string"),
    dg.TableColumn("attempt", "int"),
    dg.TableColumn("waited_s", "float"),
    dg.TableColumn("ran_s", "float"),
    dg.TableColumn("cpu_s", "float"),
    dg.TableColumn("peak_mib", "float"),
]


@dataclass(frozen=True)
class StepUsage:
    """What one attempt of a step took.

    Args:
        step: The step.
        attempt: Dagster's attempt, counting from 1.
        waited_s: From submit to start.
        ran_s: From start to end.
        cpu_s: CPU of its process and of what that had started and waited for.
        peak_mib: The most resident memory of one of them, what is shared included.
    """

    step: str
    attempt: int
    waited_s: float
    ran_s: float
    cpu_s: float
    peak_mib: float

    @classmethod
    def of(cls, step: str, attempt: int, record: Record) -> "StepUsage | None":
        """Read it from a record; None when that does not tell."""
        used, began_ms, ended_ms = record.detail.get("used"), record.began_at_ms, record.ended_at_ms
        if not isinstance(used, dict) or began_ms is None or ended_ms is None:
            return None
        try:
            cpu_s = float(used["user_s"]) + float(used["system_s"])
            peak_mib = float(used["peak_kib"]) / 1024
        except (KeyError, TypeError, ValueError):  # of another release
            return None
        waited_s, ran_s = (began_ms - record.queued_at_ms) / 1000, (ended_ms - began_ms) / 1000
        return cls(step, attempt, waited_s, ran_s, cpu_s, peak_mib)


class StepsUsage:
    """Knows which attempts a run had, and reads what they took.

    Args:
        broker: The broker.
        run_id: The run.
    """

    def __init__(self, broker: SyncConnection, run_id: str) -> None:
        self._broker = broker
        self._run_id = run_id
        self._attempts: dict[str, int] = {}

    def see(self, event: dg.DagsterEvent) -> None:
        """Take in an event of the run's log."""
        if event.event_type in STEP_STARTS and event.step_key is not None:
            self._attempts[event.step_key] = self._attempts.get(event.step_key, 0) + 1

    def read(self) -> Sequence[StepUsage]:
        """Return what each attempt took, as far as it is known now."""
        attempts = {
            step_task_id(self._run_id, step, attempt): (step, attempt)
            for step, total in self._attempts.items()
            for attempt in range(1, total + 1)
        }
        task_ids, found = list(attempts), list[StepUsage]()
        try:
            for first in range(0, len(task_ids), _AT_ONCE):
                some = task_ids[first : first + _AT_ONCE]
                records = readings.fetch_all(self._broker, some, give_up_s=0)
                for task_id, record in records.items():
                    used = StepUsage.of(*attempts[task_id], record) if record else None
                    if used:
                        found.append(used)
        except BrokerError:
            pass  # what is known says enough
        return found


def in_words(used: Sequence[StepUsage]) -> str:
    """Return one sentence about all steps."""
    slowest = max(used, key=lambda each: each.ran_s)
    largest = max(used, key=lambda each: each.peak_mib)
    return (
        f"Steps used {sum(each.cpu_s for each in used):.2f} s of CPU. Slowest: {slowest.step!r}, "
        f"{slowest.ran_s:.2f} s. Largest: {largest.step!r}, {largest.peak_mib:.0f} MiB."
    )


def tables(used: Sequence[StepUsage]) -> dict[str, dg.MetadataValue]:
    """Return tables of the slowest and of the largest, for the event's metadata."""
    return {
        "slowest": _table(sorted(used, key=lambda each: -each.ran_s)),
        "largest": _table(sorted(used, key=lambda each: -each.peak_mib)),
    }


def _table(used: Iterable[StepUsage]) -> dg.TableMetadataValue:
    records = [
        dg.TableRecord(
            {
                "step": each.step,
                "attempt": each.attempt,
                "waited_s": round(each.waited_s, 3),
                "ran_s": round(each.ran_s, 3),
                "cpu_s": round(each.cpu_s, 3),
                "peak_mib": round(each.peak_mib, 1),
            }
        )
        for each in list(used)[:_MOST_ROWS]
    ]
    return dg.MetadataValue.table(records, dg.TableSchema(_COLUMNS))
