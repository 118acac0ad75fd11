"""How many connections the instance's PostgreSQL has and allows: what runs out first.

Invariant: one short query each; another storage than PostgreSQL has no such limit.
"""

from typing import Any

import dagster as dg


def used_database_connections(instance: dg.DagsterInstance) -> int | None:
    """Return how many connections its server has, of everybody; None for another storage."""
    return _ask(instance, "SELECT count(*) FROM pg_stat_activity")


def most_database_connections(instance: dg.DagsterInstance) -> int | None:
    """Return how many connections its server allows; None for another storage."""
    return _ask(instance, "SHOW max_connections")


def _ask(instance: dg.DagsterInstance, question: str) -> int | None:
    storage: Any = instance.run_storage
    if "postgres" not in type(storage).__module__:
        return None
    with storage.connect() as session:
        return int(session.exec_driver_sql(question).scalar())
