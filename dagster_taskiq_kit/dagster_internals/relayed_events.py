"""Has a process hand the events of its run to another one, instead of storing them itself.

Invariant: whatever in this process goes to a database by SQLAlchemy, as all of Dagster's storages
that are known here do, first waits until the events that were handed over are stored: it reads its
own writes. Events of other runs, and of processes forked from this one, are stored as ever.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import dagster as dg

from .event_rows import row_of


class TakesEvents(Protocol):
    """Whatever events are handed to."""

    @property
    def is_open(self) -> bool:
        """Whether it takes any."""
        ...

    def send(self, columns: Mapping[str, Any], event: bytes) -> bool:
        """Take an event; False when it is closed."""
        ...

    def settle(self) -> None:
        """Wait until all that it took is stored."""
        ...


def relay_events(instance: dg.DagsterInstance, run_id: str, taker: TakesEvents) -> None:
    """Hand the events of a run to ``taker``, until this process ends.

    Args:
        instance: The instance, of which :func:`event_rows.why_not_relayed` had nothing to say.
        run_id: The run.
        taker: What takes them.
    """
    from sqlalchemy import event as sqlalchemy_events
    from sqlalchemy.engine import Engine

    storage: Any = instance.event_log_storage
    store_here = storage.store_event

    def store_event(event: dg.EventLogEntry) -> None:
        if event.run_id != run_id or not taker.is_open:
            store_here(event)
            return
        row = row_of(storage, event)
        if not row.is_known or not taker.send(row.columns, row.event):
            store_here(event)
        elif row.begins_a_body:
            taker.settle()

    def settle(_connection: object) -> None:
        taker.settle()

    storage.store_event = store_event
    sqlalchemy_events.listen(Engine, "engine_connect", settle)
