"""Writes a step's events into PostgreSQL with one statement each, composed before the fork.

Invariant: the row is the one that Dagster writes, committed before ``store_event`` returns, as
ever. Only events that are nothing but a row are written here; those of assets and checks, and all
of them where ``store_event`` is not the one known here, go Dagster's own way.

As shipped every event composes its INSERT anew and is followed by a NOTIFY in a transaction of its
own, which nothing listens to since Dagster 1.0 ("preserved here to support version skew"): a third
of what a trivial step costs.
"""

import logging
from typing import Any

import dagster as dg

from ...vocabulary.log_actions import Action, about
from ..log_events import ONLY_A_ROW

logger = logging.getLogger(__name__)

#: What the known ``PostgresEventLogStorage.store_event`` mentions; another one is left alone.
_KNOWN_BODY = {
    "ASSET_CHECK_EVENTS", "ASSET_EVENTS", "CHANNEL_NAME", "DagsterInvariantViolationError",
    "EventLogEntry", "SqlEventLogStorageTable", "_connect", "_store_asset_event",
    "_store_asset_event_tags", "asset_key", "c", "check", "close", "dagster_event",
    "dagster_event_type", "db", "execute", "fetchone", "id", "index_transaction", "inst_param",
    "int", "is_dagster_event", "prepare_insert_event", "returning", "run_id",
    "store_asset_check_event", "str", "text",
}  # fmt: skip

_SAMPLE = dg.EventLogEntry(error_info=None, level=10, user_message="", run_id="", timestamp=0.0)


def store_plain_events_by_one_statement(instance: dg.DagsterInstance) -> None:
    """Make an instance of ours store plain events by one prepared statement.

    Where its storage is not the one for which that is known to be the same, nothing changes, and
    the log of the process says why.
    """
    storage: Any = instance.event_log_storage
    why_not = why_as_shipped(instance)
    if not is_postgres(storage) or why_not:
        if why_not:
            logger.warning(
                "Each event is stored as Dagster ships it: %s.", why_not,
                extra=about(Action.AS_SHIPPED),
            )  # fmt: skip
        return
    original = storage.store_event
    statement = str(_insert(storage))

    def store_event(event: dg.EventLogEntry) -> None:
        if event.dagster_event is not None and event.dagster_event.event_type not in ONLY_A_ROW:
            original(event)
            return
        with storage._connect() as connection:
            connection.exec_driver_sql(statement, storage._event_to_row(event))

    storage.store_event = store_event


def why_as_shipped(instance: dg.DagsterInstance) -> str:
    """Return why events are stored in PostgreSQL as Dagster ships it; '' where there is no reason.

    For an instance that nothing has been changed of.
    """
    storage: Any = instance.event_log_storage
    if not is_postgres(storage):
        return ""
    function = getattr(storage.store_event, "__func__", None)
    known = set(getattr(getattr(function, "__code__", None), "co_names", ())) == _KNOWN_BODY
    if known and set(_insert(storage).params) == set(storage._event_to_row(_SAMPLE)):
        return ""
    return "this dagster-postgres stores events in another way than the known one"


def is_postgres(storage: Any) -> bool:
    """Return whether a storage is dagster-postgres's event log."""
    return (
        f"{type(storage).__module__}.{type(storage).__name__}"
        == "dagster_postgres.event_log.event_log.PostgresEventLogStorage"
    )


def _insert(storage: Any) -> Any:
    return storage.prepare_insert_event(_SAMPLE).compile(dialect=storage._engine.dialect)
