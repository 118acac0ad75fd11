"""The witness: Dagster's database, asked whether others were given what this worker executes.

Invariant: while the broker is away, a child goes on only as long as a reading of the database that
is not older than ``witness_s`` shows nothing newer for it than itself. A verdict of loss stands in
that database before its replacement can be claimed, so no two bodies of one step overlap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from ...vocabulary.messages import Message, RunMessage, StepMessage

_TELLING = {
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_UP_FOR_RETRY,
    dg.DagsterEventType.STEP_RESTARTED,
}
_PAGE = 1_000


@dataclass(frozen=True)
class Executing:
    """One message that a child of this worker executes.

    Args:
        message: The message.
        pid: The child.
    """

    message: Message
    pid: int | None


class Witness:
    """Reads the event log on behalf of a worker that cannot renew its lease.

    Made anew for each outage: it remembers how far it has read.

    Args:
        instance: The worker's Dagster instance.
    """

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._logs: dict[str, _RunEnds] = {}

    def overtaken(self, executing: Sequence[Executing]) -> Mapping[str, str]:
        """Return why a child must end, by task id, for each that was given to others.

        Raises:
            Exception: Whatever the storage raises when it cannot be read; nothing is known then.
        """
        verdicts: dict[str, str] = {}
        for run_id in {each.message.run_id for each in executing} - {""}:
            run = self._instance.get_run_by_id(run_id)
            ends: _RunEnds | None = None
            for message, pid in (
                (e.message, e.pid) for e in executing if e.message.run_id == run_id
            ):
                if run is None:
                    continue
                if run.is_finished:
                    verdicts[message.task_id] = f"The run is over: {run.status.value}."
                elif isinstance(message, RunMessage):
                    if self._instance.count_resume_run_attempts(run_id) > message.resume_no:
                        verdicts[message.task_id] = "The run was resumed elsewhere."
                elif isinstance(message, StepMessage):
                    if ends is None:
                        ends = self._logs.setdefault(run_id, _RunEnds(self._instance, run_id))
                        ends.read_on()
                    if ends.given_away(message, pid):
                        verdicts[message.task_id] = "Its attempt was closed by others."
        return verdicts


class _RunEnds:
    """How the attempts of one run's steps ended, and who wrote it.

    Args:
        instance: The Dagster instance.
        run_id: The run.
    """

    def __init__(self, instance: dg.DagsterInstance, run_id: str) -> None:
        self._instance = instance
        self._run_id = run_id
        #: Each reading begins where the one before the last ended: rows may be committed late.
        self._cursors: tuple[str | None, str | None] = (None, None)
        self._seen: set[int] = set()
        self._writers: dict[str, list[int | None]] = {}
        self._restarts: dict[str, int] = {}

    def read_on(self) -> None:
        """Read what came into the log."""
        cursor, more = self._cursors[0], True
        while more:
            page = self._instance.get_records_for_run(
                self._run_id, cursor, of_type=_TELLING, limit=_PAGE
            )
            cursor, more = page.cursor, page.has_more
            for record in page.records:
                event = record.event_log_entry.dagster_event
                if record.storage_id not in self._seen and event is not None:
                    self._seen.add(record.storage_id)
                    self._take(event)
        self._cursors = (self._cursors[1], cursor)

    def _take(self, event: dg.DagsterEvent) -> None:
        key = event.step_key or ""
        if event.event_type is dg.DagsterEventType.STEP_RESTARTED:
            self._restarts[key] = self._restarts.get(key, 0) + 1
        else:
            self._writers.setdefault(key, []).append(event.pid)

    def given_away(self, message: StepMessage, pid: int | None) -> bool:
        """Return whether somebody else closed this attempt, or a later one has begun."""
        writers = self._writers.get(message.step_key, [])
        closed_by_others = len(writers) >= message.attempt and writers[message.attempt - 1] != pid
        return closed_by_others or self._restarts.get(message.step_key, 0) >= message.attempt
