"""Attempts of steps that are in flight, and processes of steps that have not left yet.

Invariant: an attempt is in flight from its submission until its end was read from the event log.
What the bell or a record says of it is kept beside it: it decides when to look, and only if the log
has no end, which end is written.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..broker import readings
from ..broker.bells import Ring
from ..broker.connection import SyncConnection
from ..broker.readings import Record
from ..config.settings import TaskiqSettings
from ..dagster_internals import names as internals
from ..vocabulary.errors import WaitedTooLong
from ..vocabulary.messages import step_task_id
from ..vocabulary.states import OWNED, State
from .broker_outages import BrokerOutages

#: Readings of the broker in a row without a record: a worker that has it states it meanwhile.
_MISSING_TWICE = 2


@dataclass
class InFlight:
    """One attempt of a step that was submitted and is not closed.

    Args:
        step: Dagster's step.
        task_id: The message.
        attempt: Dagster's attempt, counting from 1.
        position: Where in the log its outputs can begin: at its start, once that was read.
        outputs: Outputs seen of it.
        ring: What the bell said of it, when it rang.
        closing: Its end was written by us and is on its way back with the log.
        announced: The run's log says where it waits.
        missing: How often in a row the broker had no record of it.
        since_s: Monotonic time of its submission.
    """

    step: internals.ExecutionStep
    task_id: str
    attempt: int
    position: int
    outputs: int = 0
    ring: Ring | None = None
    closing: bool = False
    announced: bool = False
    missing: int = 0
    since_s: float = field(default_factory=time.monotonic)

    def take(self, record: Record) -> None:
        """Take what a record says, as if the bell had said it, when the attempt is over."""
        if record.state is not State.QUEUED and record.state not in OWNED:
            self.ring = Ring(self.task_id, record.state, record.worker or "", record.detail)


class Flights:
    """What one run has in flight.

    Args:
        broker: The broker.
        outages: Outlasts the broker's absence.
        run_id: The run.
        settings: The deployment.
    """

    def __init__(
        self,
        broker: SyncConnection,
        outages: BrokerOutages,
        run_id: str,
        settings: TaskiqSettings,
    ) -> None:
        self._broker = broker
        self._outages = outages
        self._run_id = run_id
        self._wait_limit_s = settings.queue_wait_timeout_s
        self._by_step: dict[str, InFlight] = {}
        #: Messages whose step has ended and whose process has not: hooks run after the end.
        self._leaving: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._by_step)

    @property
    def steps(self) -> Sequence[str]:
        """Keys of the steps that are in flight."""
        return sorted(self._by_step)

    @property
    def any_process(self) -> bool:
        """Whether a process of a step may still be there."""
        return bool(self._by_step or self._leaving)

    @property
    def any_leaves(self) -> bool:
        """Whether a step has ended whose process has not left yet."""
        return bool(self._leaving)

    def begin(self, step: internals.ExecutionStep, attempt: int, position: int) -> InFlight:
        """Put an attempt in flight.

        Args:
            step: The step.
            attempt: Dagster's attempt, counting from 1.
            position: Where in the log its events can begin.
        """
        task_id = step_task_id(self._run_id, step.key, attempt)
        flight = self._by_step[step.key] = InFlight(step, task_id, attempt, position)
        return flight

    def of(self, step_key: str | None) -> InFlight | None:
        """Return the attempt of a step that is in flight, if there is one."""
        return self._by_step.get(step_key or "")

    def end(self, flight: InFlight) -> None:
        """Take an attempt out whose end was read from the log; its process may be at its hooks."""
        del self._by_step[flight.step.key]
        if flight.ring is None:
            self._leaving.add(flight.task_id)

    def give_up_ended(self) -> None:
        """Take out every attempt that has ended by what the bell said, whatever the log says."""
        for flight in self.rung():
            del self._by_step[flight.step.key]

    def rung(self) -> Sequence[InFlight]:
        """Return the attempts that have ended by what the bell or their record said."""
        return [flight for flight in self._by_step.values() if flight.ring is not None]

    def closing(self) -> bool:
        """Whether the end of one was written by us and has not come back with the log."""
        return any(flight.closing for flight in self._by_step.values())

    def hear(self, rings: Iterable[Ring]) -> None:
        """Take what the bell said."""
        by_task = {flight.task_id: flight for flight in self._by_step.values()}
        for ring in rings:
            if ring.state in OWNED:
                continue  # an output: the log has it
            self._leaving.discard(ring.task_id)
            if ring.task_id in by_task:
                by_task[ring.task_id].ring = ring

    def forget_gone(self) -> None:
        """Wait no longer for processes that nobody owns: their ring was missed."""
        for task_id in list(self._leaving):
            record = self._outages.through(lambda: readings.fetch(self._broker, task_id))  # noqa: B023
            if record is None or record.state not in OWNED:
                self._leaving.discard(task_id)

    def look_at_records(self) -> Sequence[InFlight]:
        """Look for what the bell did not say; returns what the broker has forgotten for good.

        Raises:
            WaitedTooLong: One has waited in its queue for longer than the deployment allows.
        """
        waiting = [flight for flight in self._by_step.values() if flight.ring is None]
        found = self._outages.through(
            lambda: readings.fetch_all(self._broker, [flight.task_id for flight in waiting])
        )
        forgotten: list[InFlight] = []
        for flight in waiting:
            record = found[flight.task_id]
            flight.missing = flight.missing + 1 if record is None else 0
            if record is not None:
                self._check_wait(flight, record)
                flight.take(record)
            elif flight.missing >= _MISSING_TWICE:  # else its worker may be about to state it
                forgotten.append(flight)
        return forgotten

    def _check_wait(self, flight: InFlight, record: Record) -> None:
        limit_s, waited_s = self._wait_limit_s, time.monotonic() - flight.since_s
        if limit_s is not None and record.state is State.QUEUED and waited_s > limit_s:
            raise WaitedTooLong(f"Step {flight.step.key!r}", record.queue, limit_s)

    def look_at_record(self, flight: InFlight) -> bool:
        """Take what the record of one attempt says; returns whether there is one."""
        record = self._outages.through(lambda: readings.fetch(self._broker, flight.task_id))
        if record is not None:
            flight.take(record)
        return record is not None

    def run_is_cancelled(self) -> bool:
        """Return whether a step was cancelled with its run: our signal may come after the bell."""
        if not any(each.ring and each.ring.state is State.CANCELLED for each in self.rung()):
            return False
        cancelled = self._outages.through(
            lambda: readings.cancelled_runs(self._broker, [self._run_id])
        )
        return self._run_id in cancelled
