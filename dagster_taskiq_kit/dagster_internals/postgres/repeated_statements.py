"""Repeats a statement under which the connection to PostgreSQL broke, without doing it twice.

Invariant: an event is in the log once, whether or not the server said so before it went; what
belongs to it (an asset's row, its tags, a check's row) is there as if nothing had happened.

Nobody knows whether the server did what it did not answer. What only reads, and what may be done
twice, is done again. An event is looked for first: its row is its own proof.
"""

import inspect
import time
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

import dagster as dg

from .outages import repeat_through_outages

_READS = ("all_asset_keys", "check_concurrency_claim", "fetch_", "get_", "has_")
#: Idempotent writes.
_REPEATABLE = (
    "add_dynamic_partitions", "add_execution_plan_snapshot", "add_job_snapshot",
    "claim_concurrency_slot", "delete_dynamic_partition", "set_cursor_values",
    "update_asset_cached_status_data", "wipe_asset_cached_status",
)  # fmt: skip

_Type = dg.DagsterEventType
#: Events that their asset's row knows of.
_OF_ASSETS = {
    _Type.ASSET_FAILED_TO_MATERIALIZE,
    _Type.ASSET_MATERIALIZATION,
    _Type.ASSET_MATERIALIZATION_PLANNED,
    _Type.ASSET_OBSERVATION,
}
_OF_CHECKS = {_Type.ASSET_CHECK_EVALUATION, _Type.ASSET_CHECK_EVALUATION_PLANNED}

_WRAPPED = "_dagster_taskiq_kit_repeats"
#: How long an INSERT may still be at work on a server that lost us meanwhile.
_STILL_AT_WORK_S = 60.0
_PAUSE_S = 0.2

_INSERTING = """
    SELECT pid, query_start::text FROM pg_stat_activity
    WHERE state = 'active' AND pid <> pg_backend_pid() AND datname = current_database()
    AND usename = current_user AND query ILIKE 'INSERT INTO event_logs%%'
"""


def repeat_what_broke(instance: dg.DagsterInstance) -> None:
    """Make an instance's storages do again what a broken connection left open.

    Does nothing where storage is not PostgreSQL. Call it last: it wraps what others have replaced.

    Args:
        instance: An instance of ours, whose connections wait.
    """
    storages: list[Any] = [
        instance.run_storage, instance.event_log_storage, instance.schedule_storage,
    ]  # fmt: skip
    for storage in storages:
        engine = getattr(storage, "_engine", None)
        if engine is None or engine.dialect.name != "postgresql" or hasattr(storage, _WRAPPED):
            continue
        setattr(storage, _WRAPPED, True)
        for name in dir(type(storage)):
            if (name.startswith(_READS) or name in _REPEATABLE) and inspect.isfunction(
                inspect.getattr_static(type(storage), name)
            ):
                _wrap(storage, name)
        if storage is instance.run_storage:
            for name in ("add_run_tags", "handle_run_event"):
                _wrap(storage, name, partial(_mend_tags, instance))
        if storage is instance.event_log_storage:
            _wrap(storage, "initialize_concurrency_limit_to_default", instead=_limit_is_there)
            for name in ("free_concurrency_slot_for_step", "free_concurrency_slots_for_run"):
                _wrap(storage, name, lambda *_, **__: _hand_free_slots_on(instance))
            storing = _Storing(storage)
            storage.store_event = storing.store_event
            storage.store_event_batch = storing.store_event_batch


def _wrap(
    storage: Any,
    name: str,
    afterwards: Callable[..., None] | None = None,
    instead: Callable[..., bool] | None = None,
) -> None:
    """Have a method make its call again; ``afterwards`` and ``instead`` are for the repetition."""
    call = getattr(storage, name)

    @wraps(call)
    def repeat(*arguments: Any, **options: Any) -> Any:
        def again() -> Any:
            if instead is not None and instead(storage, *arguments, **options):
                return True
            answer = call(*arguments, **options)
            if afterwards is not None:
                afterwards(*arguments, **options)
            return answer

        return repeat_through_outages(storage._engine, partial(call, *arguments, **options), again)

    setattr(storage, name, repeat)


def _limit_is_there(storage: Any, concurrency_key: str) -> bool:
    """Return whether a pool has its limit already: the statement that makes it cannot run twice."""
    query = "SELECT 1 FROM concurrency_limits WHERE concurrency_key = %(key)s"
    with storage.index_connection() as connection:
        return connection.exec_driver_sql(query, {"key": concurrency_key}).scalar() is not None


def _hand_free_slots_on(instance: dg.DagsterInstance) -> None:
    """Give free slots of pools to steps that wait for them.

    Who frees a slot hands it on, and knows to whom by what it deletes. If it was deleted the first
    time, the second knows nobody, and nobody would ever ask again.
    """
    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:
        waiting = connection.exec_driver_sql(
            "SELECT concurrency_key, count(*) FROM pending_steps "
            "WHERE assigned_timestamp IS NULL GROUP BY concurrency_key"
        ).fetchall()
    for key, count in waiting:
        for _ in range(count):
            if storage.has_unassigned_slots(key):
                storage.assign_pending_steps([key])


def _mend_tags(
    instance: dg.DagsterInstance, run_id: str, *_arguments: Any, **_options: Any
) -> None:
    """Make the index of a run's tags what the run says: it is written beside it, not with it."""
    run = instance.get_run_by_id(run_id)
    if run is None:
        return
    storage: Any = instance.run_storage
    with storage.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT id, key FROM run_tags WHERE run_id = %(run_id)s ORDER BY id",
            {"run_id": run_id},
        ).fetchall()
        first = {key: row_id for row_id, key in reversed(rows)}
        for row_id, key in rows:
            if first[key] != row_id:
                connection.exec_driver_sql("DELETE FROM run_tags WHERE id = %(id)s", {"id": row_id})
        for key in run.tags.keys() - first.keys():
            connection.exec_driver_sql(
                "INSERT INTO run_tags (run_id, key, value) VALUES (%(run_id)s, %(key)s, %(value)s)",
                {"run_id": run_id, "key": key, "value": run.tags[key]},
            )


class _Storing:
    """Stores events once each, through broken connections.

    Args:
        storage: The storage as Dagster ships it.
    """

    def __init__(self, storage: Any) -> None:
        self._once = StoredOnce(storage)
        self._engine = storage._engine
        self._store_one: Callable[[dg.EventLogEntry], None] = storage.store_event
        self._store_batch: Callable[[Sequence[dg.EventLogEntry]], None] = storage.store_event_batch
        #: Events of a batch that failed: Dagster stores them one by one then.
        self._uncertain: list[dg.EventLogEntry] = []

    def store_event(self, event: dg.EventLogEntry) -> None:
        """As the storage's own."""
        complete = partial(self._once.complete, event)
        uncertain = any(event is each for each in self._uncertain)
        first = complete if uncertain else partial(self._store_one, event)
        repeat_through_outages(self._engine, first, complete)
        self._uncertain = [each for each in self._uncertain if each is not event]

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """As the storage's own."""

        def complete() -> None:
            for event in events:
                found = event.dagster_event
                if not (found and found.event_type is _Type.ASSET_FAILED_TO_MATERIALIZE):
                    self._once.complete(event)  # batches leave those out

        try:
            repeat_through_outages(self._engine, partial(self._store_batch, events), complete)
        except Exception:
            self._uncertain = list(events)
            raise


class StoredOnce:
    """Stores events that are perhaps in the log already.

    Args:
        storage: The storage as Dagster ships it.
    """

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._store_one: Callable[[dg.EventLogEntry], None] = storage.store_event

    def complete(self, event: dg.EventLogEntry) -> None:
        """Store an event that may be there already, and what belongs to it."""
        row = self._storage._event_to_row(event)
        row_id = self.find(row["run_id"], row["event"])
        if row_id is None:
            self._store_one(event)
            return
        found = event.dagster_event
        if found is None:
            return
        # The rest of PostgresEventLogStorage.store_event.
        if found.event_type in _OF_ASSETS and found.asset_key:
            self._index_asset(event, found, row_id)
        elif found.event_type in _OF_CHECKS and not self._knows_check(row_id):
            self._storage.store_asset_check_event(event, row_id)

    def find(self, run_id: str, event: str) -> int | None:
        """Return the id of an event's row, or None.

        Args:
            run_id: Its run.
            event: The event, as Dagster's JSON.
        """
        with self._storage._connect() as connection:
            self._await_inserts(connection)
            return connection.exec_driver_sql(
                "SELECT id FROM event_logs WHERE run_id = %(run_id)s AND event = %(event)s",
                {"run_id": run_id, "event": event},
            ).scalar()

    @staticmethod
    def _await_inserts(connection: Any) -> None:
        """Wait until whoever was writing events before now has ended.

        A server that did not notice that it lost us is still at work on our statement, perhaps.
        """
        before = set(connection.exec_driver_sql(_INSERTING).fetchall())
        deadline_s = time.monotonic() + _STILL_AT_WORK_S
        while before and time.monotonic() < deadline_s:
            time.sleep(_PAUSE_S)
            before &= set(connection.exec_driver_sql(_INSERTING).fetchall())

    def _index_asset(self, event: dg.EventLogEntry, found: dg.DagsterEvent, row_id: int) -> None:
        key = found.asset_key
        assert key is not None
        ours = {"key": key.to_string(), "id": row_id, "type": found.event_type_value}
        with self._storage.index_transaction() as connection:
            tagged = connection.exec_driver_sql(
                "SELECT 1 FROM asset_event_tags WHERE event_id = %(id)s LIMIT 1", ours
            ).scalar()
            if not tagged:
                self._storage._store_asset_event_tags(connection, [event], [row_id])
            # Its row tells the newest event. While the database was away, others wrote newer ones.
            connection.exec_driver_sql(
                "SELECT 1 FROM asset_keys WHERE asset_key = %(key)s FOR UPDATE", ours
            )
            newer = connection.exec_driver_sql(
                "SELECT 1 FROM event_logs WHERE asset_key = %(key)s AND id > %(id)s "
                "AND dagster_event_type = %(type)s LIMIT 1",
                ours,
            ).scalar()
            if not newer:
                self._storage._store_asset_event(connection, event, row_id)

    def _knows_check(self, row_id: int) -> bool:
        query = (
            "SELECT 1 FROM asset_check_executions "
            "WHERE evaluation_event_storage_id = %(id)s LIMIT 1"
        )
        with self._storage.index_connection() as connection:
            return connection.exec_driver_sql(query, {"id": row_id}).scalar() is not None
