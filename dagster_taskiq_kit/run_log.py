"""Reads one run's events, each once, in the order of the log.

Invariant: an event is yielded once, and none is lost to the order in which the database commits. A
row with a lower id can be committed after one with a higher id was read, and the cursor has passed
it then; whoever knows that something must be there asks for :meth:`RunLog.missed_events`.
"""

from collections.abc import Callable, Iterator, Sequence

import dagster as dg

from . import dagster_seam as seam

_PAGE = 1_000
#: Kind of the error of an attempt that was given up while its process may live.
WORKER_LOST = "WorkerLost"

_BEGINNINGS = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_RESTARTED}
_ENDS = {
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_UP_FOR_RETRY,
}
_DECISIVE = {dg.DagsterEventType.STEP_OUTPUT, *_ENDS}
_TELLING = {*_DECISIVE, *_BEGINNINGS}


class RunLog:
    """The events of one run.

    What a process still writes whose attempt was given up as lost is not of the run any more: it is
    told to ``on_stale`` and left out.

    Args:
        instance: The Dagster instance.
        run_id: The run.
        on_stale: Called with each such event.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        run_id: str,
        on_stale: Callable[[dg.DagsterEvent], None] = lambda _event: None,
    ) -> None:
        self._instance = instance
        self._run_id = run_id
        self._on_stale = on_stale
        self._seen: set[int] = set()
        self.cursor: str | None = None
        #: Process that executes the present attempt of a step.
        self._writers: dict[str, int | None] = {}
        #: Steps with a process whose attempt was given up as lost; it may live on somewhere.
        self._stale: set[tuple[str, int | None]] = set()

    def has_begun(self, step_key: str) -> bool:
        """Return whether the present attempt of a step has begun, as far as was read."""
        return step_key in self._writers

    def new_events(self) -> Iterator[dg.DagsterEvent]:
        """Yield every Dagster event that came into the log since the last call."""
        yield from (event for event, _ in self.new_entries())

    def new_entries(self) -> Iterator[tuple[dg.DagsterEvent, float]]:
        """Yield the same with each event's timestamp in seconds."""
        more = True
        while more:
            page = self._instance.get_records_for_run(
                self._run_id, self.cursor, of_type=set(dg.DagsterEventType), limit=_PAGE
            )
            self.cursor, more = page.cursor, page.has_more
            yield from self._unseen(page.records)

    def missed_events(self, cursor: str | None) -> Iterator[dg.DagsterEvent]:
        """Yield outputs and ends of steps after ``cursor`` that the log's own cursor has passed."""
        more = True
        while more:
            page = self._instance.get_records_for_run(
                self._run_id, cursor, of_type=_DECISIVE, limit=_PAGE
            )
            cursor, more = page.cursor, page.has_more
            yield from (event for event, _ in self._unseen(page.records))

    def _unseen(
        self, records: Sequence[dg.EventLogRecord]
    ) -> Iterator[tuple[dg.DagsterEvent, float]]:
        for record in records:
            event = record.event_log_entry.dagster_event
            if record.storage_id not in self._seen and event is not None:
                self._seen.add(record.storage_id)
                if self._is_stale(event):
                    self._on_stale(event)
                else:
                    yield event, record.event_log_entry.timestamp

    def _is_stale(self, event: dg.DagsterEvent) -> bool:
        """Return whether an event is of an attempt that was given up; keep account of attempts."""
        key, pid = event.step_key, event.pid
        if key is None or event.event_type not in _TELLING:
            return False
        if event.event_type in _BEGINNINGS:
            self._writers[key] = pid
            self._stale.discard((key, pid))
        elif (key, pid) in self._stale:
            return True
        elif event.event_type in _ENDS:
            writer = self._writers.pop(key, None)
            if writer is not None and seam.error_kind(event) == WORKER_LOST:
                self._stale.add((key, writer))
        return False
