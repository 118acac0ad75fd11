"""Reads one run's events, each once, in the order of the log.

Invariant: an event is yielded once, and none is lost to the order in which the database commits. A
row with a lower id can be committed after one with a higher id was read, and the log's position has
passed it then; whoever knows that something must be there asks for :meth:`RunLog.missed_events`.

What is read twice is bounded: one step's rows, between its start and the present position, and only
if more than one statement read them.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import dagster as dg

from ..dagster_internals import log_events
from ..dagster_internals import names as internals
from ..dagster_internals.log_events import STEP_ENDS

_PAGE = 1_000
_SMALL_PAGE = 100
#: Kind of the error of an attempt that was given up while its process may live.
WORKER_LOST = "WorkerLost"

STEP_STARTS = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_RESTARTED}
_DECISIVE = {
    dg.DagsterEventType.STEP_OUTPUT,
    dg.DagsterEventType.HANDLED_OUTPUT,
    *STEP_ENDS,
}
_TELLING = {*_DECISIVE, *STEP_STARTS}


class LogEntry(NamedTuple):
    """One event of a run, as it stands in the log.

    Args:
        event: The event.
        timestamp_s: When it was written.
        position: Its place in the log; grows with every row.
    """

    event: dg.DagsterEvent
    timestamp_s: float
    position: int


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
        self._page_began = 0
        #: Position of the row that was read last; 0 before the first.
        self.position = 0
        #: Process that executes the present attempt of a step.
        self._writers: dict[str, int | None] = {}
        #: Steps with a process whose attempt was given up as lost; it may live on somewhere.
        self._stale: set[tuple[str, int | None]] = set()

    def has_begun(self, step_key: str) -> bool:
        """Return whether the present attempt of a step has begun, as far as was read."""
        return step_key in self._writers

    def new_events(self) -> Iterator[dg.DagsterEvent]:
        """Yield every Dagster event that came into the log since the last call."""
        yield from (entry.event for entry in self.new_entries())

    def new_entries(self) -> Iterator[LogEntry]:
        """Yield the same with time and position."""
        more = True
        while more:
            self._page_began = self.position
            page = self._read(self.position, set(dg.DagsterEventType), _PAGE)
            more = page.has_more
            for record in page.records:
                self.position = record.storage_id
                yield from self._unseen(record)

    def missed_events(self, step_key: str, since: int) -> Iterator[dg.DagsterEvent]:
        """Yield outputs and ends of a step after ``since`` that the log's position has passed.

        One process writes an attempt's events one after another. So if ``since`` is where the step
        began, and one statement read that row and all that followed, nothing can be missing.
        """
        more = since < self._page_began
        while more:
            page = self._read(since, _DECISIVE, _SMALL_PAGE)
            for record in page.records:
                since = record.storage_id
                if record.event_log_entry.step_key == step_key:
                    yield from (entry.event for entry in self._unseen(record))
            more = page.has_more and since < self.position

    def _read(
        self, after: int, types: set[dg.DagsterEventType], limit: int
    ) -> internals.EventLogPage:
        return self._instance.get_records_for_run(
            self._run_id, log_events.log_cursor(after), of_type=types, limit=limit
        )

    def _unseen(self, record: dg.EventLogRecord) -> Iterator[LogEntry]:
        event = record.event_log_entry.dagster_event
        if record.storage_id not in self._seen and event is not None:
            self._seen.add(record.storage_id)
            if self._is_stale(event):
                self._on_stale(event)
                return
            yield LogEntry(event, record.event_log_entry.timestamp, record.storage_id)

    def _is_stale(self, event: dg.DagsterEvent) -> bool:
        """Return whether an event is of an attempt that was given up; keep account of attempts."""
        key, pid = event.step_key, event.pid
        if key is None or event.event_type not in _TELLING:
            return False
        if event.event_type in STEP_STARTS:
            self._writers[key] = pid
            self._stale.discard((key, pid))
        elif (key, pid) in self._stale:
            return True
        elif event.event_type in STEP_ENDS:
            writer = self._writers.pop(key, None)
            if writer is not None and log_events.error_kind(event) == WORKER_LOST:
                self._stale.add((key, writer))
        return False
