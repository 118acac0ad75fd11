"""Reads one run's events, each once, in the order of the log.

Invariant: an event is yielded once, and none is lost to the order in which the database commits. A
row with a lower id can be committed after one with a higher id was read, and the cursor has passed
it then; whoever knows that something must be there asks for :meth:`RunLog.missed_events`.
"""

from collections.abc import Iterator, Sequence

import dagster as dg

_PAGE = 1_000
_DECISIVE = {
    dg.DagsterEventType.STEP_OUTPUT,
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_UP_FOR_RETRY,
}


class RunLog:
    """The events of one run.

    Args:
        instance: The Dagster instance.
        run_id: The run.
    """

    def __init__(self, instance: dg.DagsterInstance, run_id: str) -> None:
        self._instance = instance
        self._run_id = run_id
        self._seen: set[int] = set()
        self.cursor: str | None = None

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
                yield event, record.event_log_entry.timestamp
