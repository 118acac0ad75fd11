"""Writes a step's events into PostgreSQL with one statement each, composed before the fork.

Invariant: the row is the one that Dagster writes, committed before ``store_event`` returns, as
ever. Only events that are nothing but a row are written here; those of assets and checks, and all
of them where ``store_event`` is not the one known here, go Dagster's own way.

As shipped every event composes its INSERT anew and is followed by a NOTIFY in a transaction of its
own, which nothing listens to since Dagster 1.0 ("preserved here to support version skew"): a third
of what a trivial step costs.
"""

from typing import Any

import dagster as dg

_Type = dg.DagsterEventType

#: Types whose ``store_event`` is an INSERT and the NOTIFY.
_ROW_ONLY = {
    _Type.ENGINE_EVENT,
    _Type.HANDLED_OUTPUT,
    _Type.LOADED_INPUT,
    _Type.LOGS_CAPTURED,
    _Type.OBJECT_STORE_OPERATION,
    _Type.RESOURCE_INIT_FAILURE,
    _Type.RESOURCE_INIT_STARTED,
    _Type.RESOURCE_INIT_SUCCESS,
    _Type.STEP_FAILURE,
    _Type.STEP_INPUT,
    _Type.STEP_OUTPUT,
    _Type.STEP_RESTARTED,
    _Type.STEP_SKIPPED,
    _Type.STEP_START,
    _Type.STEP_SUCCESS,
    _Type.STEP_UP_FOR_RETRY,
    _Type.STEP_WORKER_STARTED,
    _Type.STEP_WORKER_STARTING,
}

#: What the known ``PostgresEventLogStorage.store_event`` mentions; another one is left alone.
_KNOWN_BODY = {
    "ASSET_CHECK_EVENTS", "ASSET_EVENTS", "CHANNEL_NAME", "DagsterInvariantViolationError",
    "EventLogEntry", "SqlEventLogStorageTable", "_connect", "_store_asset_event",
    "_store_asset_event_tags", "asset_key", "c", "check", "close", "dagster_event",
    "dagster_event_type", "db", "execute", "fetchone", "id", "index_transaction", "inst_param",
    "int", "is_dagster_event", "prepare_insert_event", "returning", "run_id",
    "store_asset_check_event", "str", "text",
}  # fmt: skip


def write_events_shortly(instance: dg.DagsterInstance) -> bool:
    """Make an instance of ours store plain events by one prepared statement.

    Returns:
        Whether its storage is one for which that is known to be the same.
    """
    storage: Any = instance.event_log_storage
    original = storage.store_event
    code = getattr(getattr(original, "__func__", None), "__code__", None)
    if (
        f"{type(storage).__module__}.{type(storage).__name__}"
        != "dagster_postgres.event_log.event_log.PostgresEventLogStorage"
        or set(getattr(code, "co_names", ())) != _KNOWN_BODY
    ):
        return False
    dialect = storage._engine.dialect
    sample = dg.EventLogEntry(error_info=None, level=10, user_message="", run_id="", timestamp=0.0)
    compiled = storage.prepare_insert_event(sample).compile(dialect=dialect)
    statement, columns = str(compiled), set(compiled.params)
    if columns != set(storage._event_to_row(sample)):
        return False

    def store_event(event: dg.EventLogEntry) -> None:
        if event.dagster_event is not None and event.dagster_event.event_type not in _ROW_ONLY:
            original(event)
            return
        with storage._connect() as connection:
            connection.exec_driver_sql(statement, storage._event_to_row(event))

    storage.store_event = store_event
    return True
