"""Rows of Dagster's event log that one process composes and another stores.

Invariant: what is stored is what ``store_event`` of the instance's own storage would have stored,
with all that belongs to it. An event that is nothing but a row is inserted, many with one
statement, which is one transaction; any other is given to the storage's own method.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import dagster as dg

from .log_events import ONLY_A_ROW
from .names import SqlEventLogStorageTable, SqliteEventLogStorage, deserialize_value, serdes
from .postgres.event_insert import is_postgres, why_as_shipped
from .postgres.outages import (
    broke,
    impatience,
    is_of_an_outage,
    open_instance_through_outages,
)
from .postgres.pool import end_when_frozen, pool_connections, warm_instance
from .postgres.repeated_statements import StoredOnce

_Type = dg.DagsterEventType

_ONLY_A_ROW = {each.value for each in ONLY_A_ROW}
#: Types that Dagster stores in batches, where all are of one asset.
_BATCHED = {_Type.ASSET_MATERIALIZATION.value, _Type.ASSET_OBSERVATION.value}
#: Types that another event follows at once. Before it code of the user's runs only after
#: RESOURCE_INIT_SUCCESS: what makes the job's loggers.
_FOLLOWED_AT_ONCE = {
    _Type.STEP_WORKER_STARTED.value, _Type.RESOURCE_INIT_SUCCESS.value, _Type.LOGS_CAPTURED.value,
}  # fmt: skip

#: What the known row has beside the event itself and its time.
_COLUMNS = {"run_id", "dagster_event_type", "step_key", "asset_key", "partition"}
#: Classes that every process of the kit can read, loaded before any code of the user's.
_KNOWN_CLASSES = frozenset(
    {*serdes._WHITELIST_MAP.object_deserializers, *serdes._WHITELIST_MAP.enum_serializers}
)
#: Names of classes, and of enums before a dot, in Dagster's JSON.
_CLASSES = re.compile(rb'"__(?:class|enum)__": "(\w+)')
_SAMPLE = dg.EventLogEntry(error_info=None, level=10, user_message="", run_id="", timestamp=0.0)


@dataclass(frozen=True)
class EventRow:
    """One event as a row.

    Args:
        columns: What the log can be searched by; ``timestamp`` in seconds since the epoch.
        event: The event itself, as Dagster's JSON.
    """

    columns: Mapping[str, Any]
    event: bytes = field(repr=False)

    def packed(self) -> bytes:
        """Return it as bytes that whoever passes them on need not understand."""
        return b"\n".join((json.dumps(self.columns).encode(), self.event))

    @classmethod
    def unpacked(cls, packed: bytes) -> "EventRow":
        """Return what was :meth:`packed`."""
        columns, _, event = packed.partition(b"\n")
        return cls(json.loads(columns), event)

    @property
    def type(self) -> str | None:
        """Its type; None for a line that user code logged."""
        return self.columns["dagster_event_type"]

    @property
    def begins_a_body(self) -> bool:
        """Whether it is the last event before user code runs."""
        return self.type == _Type.STEP_START.value

    @property
    def precedes_another(self) -> bool:
        """Whether Dagster says another event next, without waiting for anything."""
        return self.type in _FOLLOWED_AT_ONCE

    @property
    def is_known(self) -> bool:
        """Whether a process without the user's code can store it with what belongs to it."""
        classes = (each.decode() for each in _CLASSES.findall(self.event))
        return self.is_only_a_row or _KNOWN_CLASSES.issuperset(classes)

    @property
    def is_only_a_row(self) -> bool:
        """Whether nothing else is stored with it."""
        return self.type is None or self.type in _ONLY_A_ROW


def row_of(storage: Any, event: dg.EventLogEntry) -> EventRow:
    """Compose an event's row as its storage does.

    Args:
        storage: An event log storage that is known (:func:`why_not_relayed`).
        event: The event.
    """
    row = storage._event_to_row(event)
    text = row.pop("event")
    return EventRow({**row, "timestamp": event.timestamp}, text.encode())


def why_not_relayed(instance: dg.DagsterInstance) -> str:
    """Return why events of an instance are stored by the process that makes them; '' if not.

    For an instance that nothing has been changed of.
    """
    storage: Any = instance.event_log_storage
    if is_postgres(storage):
        why = why_as_shipped(instance)
    elif isinstance(storage, SqliteEventLogStorage):
        why = "a worker that is frozen while it writes would keep an SQLite locked for everybody"
    else:
        why = f"the event log is a {type(storage).__name__}"
    if not why and set(storage._event_to_row(_SAMPLE)) != _COLUMNS | {"event", "timestamp"}:
        why = "this Dagster's rows of events have other columns"
    return why


class NotNow(Exception):
    """Events may not be stored any more: so far as they were not, they are not."""


class EventStore:
    """Stores rows of events that others have composed.

    It has no patience with a database that is away: whoever calls it waits, for all at once.

    Args:
        instance: An instance with pooled connections, of which nothing else has been changed.
    """

    def __init__(self, instance: dg.DagsterInstance) -> None:
        from sqlalchemy import event

        self._storage: Any = instance.event_log_storage
        self._may_store: Callable[[], bool] | None = None
        # A connection may be long in coming, and what was asked before it is old then.
        event.listen(self._storage._engine, "before_cursor_execute", self._check)
        self._once = StoredOnce(self._storage)
        self._insert = SqlEventLogStorageTable.insert()

    @staticmethod
    def go_together(one: EventRow, other: EventRow) -> bool:
        """Return whether two events may be stored at once."""
        if one.is_only_a_row or other.is_only_a_row:
            return one.is_only_a_row and other.is_only_a_row
        same_asset = one.columns["asset_key"] == other.columns["asset_key"]
        return one.type in _BATCHED and one.type == other.type and same_asset

    def _check(self, *_statement: object) -> None:
        if self._may_store is not None and not self._may_store():
            raise NotNow

    def store(
        self, rows: Sequence[EventRow], *, again: bool, may_store: Callable[[], bool]
    ) -> None:
        """Store rows that go together, with what belongs to them.

        Args:
            rows: At least one.
            again: It was tried before, and is perhaps done.
            may_store: Asked before each statement whether they may be stored still.

        Raises:
            NotNow: They may not.
            Exception: Whatever the storage raises.
        """
        self._may_store = may_store
        try:
            self._store(rows, again=again)
        finally:
            self._may_store = None

    def _store(self, rows: Sequence[EventRow], *, again: bool) -> None:
        with impatience():
            if rows[0].is_only_a_row:
                if not (again and self._is_there(rows[0])):
                    self._insert_all(rows)
                return
            events = [deserialize_value(row.event.decode(), dg.EventLogEntry) for row in rows]
            if again:
                for event in events:
                    self._once.complete(event)
            elif len(events) > 1:
                self._storage.store_event_batch(events)
            else:
                self._storage.store_event(events[0])

    def _insert_all(self, rows: Sequence[EventRow]) -> None:
        values = [
            {
                **row.columns,
                "event": row.event.decode(),
                "timestamp": self._storage._event_insert_timestamp(
                    SimpleNamespace(timestamp=row.columns["timestamp"])
                ),
            }
            for row in rows
        ]
        with self._storage._connect() as connection:
            connection.execute(self._insert, values)

    def _is_there(self, row: EventRow) -> bool:
        """Return whether a row was stored, and so all that were inserted with it."""
        return self._once.find(row.columns["run_id"], row.event.decode()) is not None

    def answers(self) -> bool:
        """Return whether the database answers now."""
        try:
            with impatience(), self._storage._connect() as connection:
                connection.exec_driver_sql("SELECT 1")
        except Exception:  # noqa: BLE001  (whatever a driver raises)
            return False
        return True

    def is_of_an_outage(self, error: Exception) -> bool:
        """Return whether an error tells that the database is away for a while."""
        return broke(error, self._storage._engine) or is_of_an_outage(error)


def open_to_store_events() -> dg.DagsterInstance | None:
    """Open this process's instance once more, for a relay alone; waits for its database.

    Returns:
        None where whoever makes events stores them (:func:`why_not_relayed`).
    """
    instance = open_instance_through_outages()
    if why_not_relayed(instance):
        instance.dispose()
        return None
    pool_connections(instance)
    end_when_frozen(instance)
    warm_instance(instance)
    return instance
