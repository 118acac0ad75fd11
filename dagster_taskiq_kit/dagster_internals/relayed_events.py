"""Has a process hand the events of its run to another one, instead of storing them itself.

Invariant: whatever in this process goes to a database by SQLAlchemy, as all of Dagster's storages
that are known here do, first waits until the events that were handed over are stored: it reads its
own writes. Events of other runs, and of processes forked from this one, are stored as ever.
"""

from typing import Any, Protocol

import dagster as dg

from .event_rows import row_of


class TakesEvents(Protocol):
    """Whatever events are handed to."""

    @property
    def is_open(self) -> bool:
        """Whether it takes any."""
        ...

    def send(self, row: bytes, *, more_follows: bool) -> bool:
        """Take an event, packed; False when it is closed."""
        ...

    def settle(self) -> None:
        """Wait until all that it took is stored."""
        ...


class RelayedEvents:
    """Hands the events of a run to what takes them, once it is told to; until then, nothing.

    To be set up before a process forks: its children then only say who takes their events.
    """

    def __init__(self) -> None:
        self._run_id = ""
        self._taker: TakesEvents | None = None

    def begin(self, run_id: str, taker: TakesEvents) -> None:
        """Hand the events of a run to ``taker``, until this process ends."""
        self._run_id, self._taker = run_id, taker

    def settle(self) -> None:
        """Wait until all that was handed over is stored."""
        if self._taker is not None:
            self._taker.settle()

    def settle_before_statements(self) -> None:
        """Have whatever opens a session by SQLAlchemy in this process settle first."""
        from sqlalchemy import event as sqlalchemy_events
        from sqlalchemy.engine import Engine

        sqlalchemy_events.listen(Engine, "engine_connect", lambda _connection: self.settle())

    def replace_storing(self, instance: dg.DagsterInstance) -> None:
        """Have an instance hand over the events that it would store.

        Args:
            instance: The instance, of which :func:`event_rows.why_not_relayed` had nothing to say.
        """
        storage: Any = instance.event_log_storage
        store_here = storage.store_event

        def store_event(event: dg.EventLogEntry) -> None:
            taker = self._taker
            if taker is None or event.run_id != self._run_id or not taker.is_open:
                store_here(event)
                return
            row = row_of(storage, event)
            follows = row.precedes_another or row.begins_a_body
            if not row.is_known or not taker.send(row.packed(), more_follows=follows):
                store_here(event)
            elif row.begins_a_body:
                taker.settle()

        storage.store_event = store_event
