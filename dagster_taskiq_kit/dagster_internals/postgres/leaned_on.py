"""Attributes of dagster-postgres that the kit leans on, looked for when an instance is pooled."""

from functools import cache

from ..leaned_on import RequiredAttribute, check, required


def leaned_on_of_postgres() -> list[RequiredAttribute]:
    """Return what is leaned on of its three storages."""
    from dagster_postgres import PostgresEventLogStorage, PostgresRunStorage
    from dagster_postgres.schedule_storage import PostgresScheduleStorage

    storages = (PostgresRunStorage, PostgresEventLogStorage, PostgresScheduleStorage)
    engines = [each for one in storages for each in required(one, "_engine", of_objects=True)]
    return [
        *engines,
        *required(PostgresRunStorage, "connect", "get_run_storage_id", "optimize_for_webserver"),
        *required(PostgresEventLogStorage, "_connect", "optimize_for_webserver", "store_event"),
    ]


@cache
def check_postgres() -> None:
    """Look whether all of it is there.

    Raises:
        ImportError: Something is not.
    """
    check(leaned_on_of_postgres())
