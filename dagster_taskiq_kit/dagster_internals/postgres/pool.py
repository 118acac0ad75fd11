"""An instance's database connections: kept from one statement to the next, and never for long.

Invariant: no pooled connection is open when a process of ours forks, and none is held while user
code runs for an hour. Storages show their engine under a private name only; how it connects is
changed here alone.
"""

import contextlib
import time
from collections.abc import Generator, Sequence
from typing import Any, cast

import dagster as dg

from ...host.polling import readable
from .leaned_on import check_postgres
from .outages import wait_to_connect
from .repeated_statements import repeat_what_broke

#: Long enough for any statement of Dagster's own, and a bound all the same.
_STATEMENT_TIMEOUT_MS = 3_600_000
#: A pooled connection that user code leaves idle is closed by the server after this.
_IDLE_SESSION_MS = 2_000
#: A transaction in which so long nothing was asked is of a process that is frozen.
_FROZEN_MS = 10_000
_POOL_RECYCLE_S = 3_600
_MAX_OVERFLOW = 10
_NO_RUN = "00000000-0000-0000-0000-000000000000"
_POOLED = "_dagster_taskiq_kit_pooled"
_IDLE_SESSION_SINCE = 14  # PostgreSQL's version


def instance_id(instance: dg.DagsterInstance) -> str:
    """Return the run storage id, by which an instance is told from another."""
    run_storage = cast("Any", instance.run_storage)  # the base class does not declare it
    # The first call may make the id, and two processes may do so at once: each would go by the one
    # it made, while storage keeps both. Read once more, both get the same.
    run_storage.get_run_storage_id()
    return str(run_storage.get_run_storage_id())


def _storages(instance: dg.DagsterInstance) -> Sequence[Any]:
    return [instance.run_storage, instance.event_log_storage, instance.schedule_storage]


def _engines(instance: dg.DagsterInstance) -> Sequence[Any]:
    engines = {id(e): e for e in (getattr(s, "_engine", None) for s in _storages(instance)) if e}
    return list(engines.values())


def pool_connections(instance: dg.DagsterInstance) -> None:
    """Make an instance keep its database connection from one statement to the next.

    As shipped, every statement opens one. With a pool a step opens one session in all, because
    the storages share an engine. The pooled session must not be held while user code runs for an
    hour, so PostgreSQL closes it after two idle seconds, and a checkout after more than one makes
    another.
    """
    setattr(instance, _POOLED, True)
    instance.optimize_for_webserver(_STATEMENT_TIMEOUT_MS, _POOL_RECYCLE_S, _MAX_OVERFLOW)
    first = getattr(instance.run_storage, "_engine", None)
    if first is not None and first.dialect.name == "postgresql":
        check_postgres()
    for storage in _storages(instance):
        if first is not None and first.dialect.name == "postgresql":
            engine = getattr(storage, "_engine", None)
            if engine is not None and engine.url == first.url:
                storage._engine = first
    for engine in _engines(instance):
        if engine.dialect.name == "postgresql":
            _set_timeouts_at_once(engine)
            wait_to_connect(engine)
    run_storage: Any = instance.run_storage
    if hasattr(run_storage, "has_run_stats_index_cols"):
        # A table reflection of 30 ms in every get_run_by_id; it cannot change while a step runs.
        answer = run_storage.has_run_stats_index_cols()
        run_storage.has_run_stats_index_cols = lambda: answer


@contextlib.contextmanager
def pooled_connections(instance: dg.DagsterInstance) -> Generator[None, None, None]:
    """Pool an instance's connections for a while, unless they are pooled already.

    For a process that is not ours, such as ``dagster job execute``: it may fork later, so no
    connection is left open behind.
    """
    if getattr(instance, _POOLED, False):
        yield
        return
    pool_connections(instance)
    repeat_what_broke(instance)
    try:
        yield
    finally:
        close_connections(instance)
        setattr(instance, _POOLED, False)


def _set_timeouts_at_once(engine: Any) -> None:
    """Set a session's timeouts in one round trip, and never check out one that timed out."""
    from sqlalchemy import event
    from sqlalchemy.exc import DisconnectionError

    for listener in list(engine.pool.dispatch.connect):
        # Its own way to set one of them takes three round trips: BEGIN, SET and COMMIT.
        if getattr(listener, "__module__", "").startswith("dagster_postgres."):
            event.remove(engine, "connect", listener)

    def on_connect(connection: Any, _record: Any) -> None:
        timeouts = f"SET statement_timeout = {_STATEMENT_TIMEOUT_MS}"
        if connection.server_version // 10_000 >= _IDLE_SESSION_SINCE:
            timeouts += f"; SET idle_session_timeout = {_IDLE_SESSION_MS}"
        with connection.cursor() as cursor:
            cursor.execute(timeouts)
        if not connection.autocommit:
            connection.commit()

    def on_checkin(_connection: Any, record: Any) -> None:
        record.info["idle_since_s"] = time.monotonic()

    def on_checkout(connection: Any, record: Any, _proxy: Any) -> None:
        idle_since_s = record.info.pop("idle_since_s", None)
        if idle_since_s and time.monotonic() - idle_since_s > _IDLE_SESSION_MS / 2_000:
            raise DisconnectionError("idle too long: the server may have closed it")
        if idle_since_s and readable([connection], 0):
            # A server says nothing unasked, but that it goes.
            raise DisconnectionError("the server has closed it")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "checkin", on_checkin)
    event.listen(engine, "checkout", on_checkout)


def end_when_frozen(instance: dg.DagsterInstance) -> None:
    """Have the server end a transaction whose process does not go on, with all that it locks.

    For a process that nobody kills when it is frozen, and that does nothing within a transaction
    but to ask the database.
    """
    from sqlalchemy import event

    def on_connect(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET idle_in_transaction_session_timeout = {_FROZEN_MS}")
        if not connection.autocommit:
            connection.commit()

    for engine in _engines(instance):
        event.listen(engine, "connect", on_connect)


def warm_instance(instance: dg.DagsterInstance) -> None:
    """Use an instance once, read-only, so that what it makes lazily is made before the fork."""
    instance.get_run_by_id(_NO_RUN)
    instance.get_run_step_stats(_NO_RUN, step_keys=["none"])
    instance.get_records_for_run(_NO_RUN, limit=1)
    _ = instance.compute_log_manager
    _ = instance.run_launcher


def close_connections(instance: dg.DagsterInstance) -> None:
    """Close every database connection of an instance; it connects again when it is used."""
    for engine in _engines(instance):
        engine.dispose()


def note_that_shard_exists(instance: dg.DagsterInstance, run_id: str) -> None:
    """Tell an SQLite event log that a run's shard exists, which its orchestrator has seen to.

    Else every child checks the migrations of the shard again, for 30 ms.
    """
    known: set[str] | None = getattr(instance.event_log_storage, "_initialized_dbs", None)
    if known is not None:
        known.add(run_id)
