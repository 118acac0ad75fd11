"""Outlasts a PostgreSQL that goes away, at rest or in the middle of a statement.

Invariant: in a process of ours no step and no run fails because the database restarts, and an event
is in the log once, whether or not the server said so before it went.

A connection that breaks under a statement leaves open whether the server did it. What only reads,
and what may be done twice, is done again. An event is looked for first: its row is its own proof.
"""

import inspect
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

import dagster as dg

logger = logging.getLogger(__name__)

#: How long a process of ours waits for a database that is away.
_OUTLAST_S = 300.0
_OUTLAST_PAUSE_S = 0.5

_READS = ("get_", "has_", "fetch_", "check_concurrency_claim")
#: Writes that say what shall be, not what shall change: the second does nothing.
_REPEATABLE = (
    "claim_concurrency_slot",
    "free_concurrency_slot_for_step",
    "free_concurrency_slots_for_run",
    "handle_run_event",
)
#: Events that their asset's rows know of.
_ASSET_EVENTS = {
    dg.DagsterEventType.ASSET_FAILED_TO_MATERIALIZE,
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_OBSERVATION,
}
_WRAPPED = "_dagster_taskiq_kit_outlasts"


def wait_to_connect(engine: Any) -> None:
    """Have a new connection wait while the server is away or starts, instead of failing.

    What a step has computed for an hour is not lost because the database restarts when it ends.
    """
    from sqlalchemy import event

    def connect(dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
        deadline_s = time.monotonic() + _OUTLAST_S
        while True:
            try:
                return dialect.loaded_dbapi.connect(*arguments, **options)
            except dialect.loaded_dbapi.OperationalError as error:
                if time.monotonic() > deadline_s or not _may_pass(str(error)):
                    raise
                logger.warning("The database is away; waiting for it: %s", str(error).strip())
            time.sleep(_OUTLAST_PAUSE_S)

    event.listen(engine, "do_connect", connect)


def _may_pass(said: str) -> bool:
    """Return whether what a failed connection said is of an outage, not of a wrong setting."""
    return not any(word in said for word in ("authentication", "does not exist", "pg_hba"))


def repeat_what_broke(instance: dg.DagsterInstance) -> None:
    """Make an instance's storages do again what a broken connection left open.

    Does nothing where storage is not PostgreSQL. Call it last: it wraps what others have replaced.

    Args:
        instance: An instance of ours, whose connections wait (:func:`wait_to_connect`).
    """
    events = instance.event_log_storage
    storages: list[Any] = [instance.run_storage, events, instance.schedule_storage]
    for storage in storages:
        engine = getattr(storage, "_engine", None)
        if engine is None or engine.dialect.name != "postgresql" or hasattr(storage, _WRAPPED):
            continue
        setattr(storage, _WRAPPED, True)
        for name in dir(type(storage)):
            if (name.startswith(_READS) or name in _REPEATABLE) and inspect.isfunction(
                inspect.getattr_static(type(storage), name)
            ):
                setattr(storage, name, _repeated(getattr(storage, name), engine))
        if storage is events:
            storing = _Storing(storage, engine)
            storage.store_event = storing.store_event
            storage.store_event_batch = storing.store_event_batch


def _repeated(call: Callable[..., Any], engine: Any) -> Callable[..., Any]:
    @wraps(call)
    def repeat(*arguments: Any, **options: Any) -> Any:
        return _until_it_holds(engine, partial(call, *arguments, **options))

    return repeat


def _until_it_holds(
    engine: Any, call: Callable[[], Any], again: Callable[[], Any] | None = None
) -> Any:
    """Make a call; where the connection breaks under it, make ``again`` (or the same) instead."""
    deadline_s = time.monotonic() + _OUTLAST_S
    while True:
        try:
            return call()
        except Exception as error:
            if time.monotonic() > deadline_s or not _broke(error, engine):
                raise
            logger.warning(
                "The database went away; asking again: %s", str(error).partition("\n")[0]
            )
        call = again or call
        time.sleep(_OUTLAST_PAUSE_S)


def _broke(error: Exception, engine: Any) -> bool:
    """Return whether a connection ended under a statement."""
    # A connection that is only being set up raises the driver's own error.
    original = getattr(error, "orig", error)
    return bool(engine.dialect.is_disconnect(original, None, None))


class _Storing:
    """Stores events once each, through broken connections."""

    def __init__(self, storage: Any, engine: Any) -> None:
        self._storage = storage
        self._engine = engine
        self._store_one: Callable[[dg.EventLogEntry], None] = storage.store_event
        self._store_batch: Callable[[Sequence[dg.EventLogEntry]], None] = storage.store_event_batch

    def store_event(self, event: dg.EventLogEntry) -> None:
        """As the storage's own."""
        store = partial(self._store_one, event)
        _until_it_holds(self._engine, store, partial(self._complete, event))

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """As the storage's own."""

        def complete() -> None:
            for event in events:
                self._complete(event)

        _until_it_holds(self._engine, partial(self._store_batch, events), complete)

    def _complete(self, event: dg.EventLogEntry) -> None:
        """Store an event that may be there already, and what belongs to it."""
        row_id = self._find(event)
        if row_id is None:
            self._store_one(event)
            return
        if event.dagster_event is None:
            return
        # The rest of PostgresEventLogStorage.store_event.
        kind = event.dagster_event.event_type
        if kind in _ASSET_EVENTS and event.dagster_event.asset_key:
            with self._storage.index_transaction() as connection:
                if not self._has_tags(connection, row_id):
                    self._storage._store_asset_event_tags(connection, [event], [row_id])
                self._storage._store_asset_event(connection, event, row_id)
        elif kind is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            self._storage.store_asset_check_event(event, row_id)

    def _find(self, event: dg.EventLogEntry) -> int | None:
        row = self._storage._event_to_row(event)
        with self._storage._connect() as connection:
            return connection.exec_driver_sql(
                "SELECT id FROM event_logs WHERE run_id = %(run_id)s AND event = %(event)s", row
            ).scalar()

    @staticmethod
    def _has_tags(connection: Any, row_id: int) -> bool:
        query = "SELECT 1 FROM asset_event_tags WHERE event_id = %(id)s LIMIT 1"
        return connection.exec_driver_sql(query, {"id": row_id}).scalar() is not None
