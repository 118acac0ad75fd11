"""Attributes of Dagster that the kit reads, calls, overrides or patches, beside imported names.

Invariant: each is looked for before it is used. A Dagster that has renamed one is refused with one
sentence that says which, instead of doing silently what the kit has taken for changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from . import names
from .unknown_dagster import unknown_dagster


@dataclass(frozen=True)
class RequiredAttribute:
    """One attribute that the kit leans on.

    Args:
        owner: The module, class or table that has it.
        name: The attribute.
        of_objects: It is set in the ``__init__`` of the class, not an attribute of the class.
    """

    owner: Any
    name: str
    of_objects: bool = False

    def __str__(self) -> str:
        owner = self.owner
        return f"{getattr(owner, '__name__', None) or getattr(owner, 'name', owner)}.{self.name}"

    def holds(self) -> bool:
        """Return whether it is there."""
        columns = getattr(self.owner, "c", None)
        if columns is not None:
            return self.name in columns
        if self.of_objects:
            return any(
                self.name in each.__init__.__code__.co_names
                for each in self.owner.__mro__
                if hasattr(vars(each).get("__init__"), "__code__")
            )
        return hasattr(self.owner, self.name)


def required(owner: Any, *attributes: str, of_objects: bool = False) -> Sequence[RequiredAttribute]:
    """Return what is leaned on of one owner."""
    return [RequiredAttribute(owner, each, of_objects) for each in attributes]


#: Of every process of the kit that knows Dagster.
LEANED_ON: Sequence[RequiredAttribute] = [
    # Bodies of ``dagster api``, and what they look up that is put in its place.
    *required(
        names.dagster_api,
        "_execute_run_command_body", "_execute_step_command_body", "_resume_run_command_body",
        "create_execution_plan", "recon_job_from_origin",
    ),
    *required(names.compute_logs, "tail_to_stream"),
    *required(dg.DagsterInstance, "_compute_log_manager", of_objects=True),
    *required(
        dg.DagsterInstance, "get_python_log_dagster_handler_config", "get_yaml_python_handlers"
    ),
    *required(names.serdes, "_WHITELIST_MAP"),
    *required(names.ResolvedRunConfig, "build"),
    *required(names.ReconstructableRepository, "get_definition", "repository_load_data"),
    *required(
        names.ConfigMapping,
        "config_fn", "resolve_from_unvalidated_config", "resolve_from_validated_config",
    ),
    *required(names.ConfiguredDefinitionConfigSchema, "_invoke_user_config_fn"),
    *required(names.ConfiguredDefinitionConfigSchema, "_config_fn", of_objects=True),
    *required(dg.DagsterEvent, "step_worker_started"),
    # The state of a plan in execution, which a replay sets.
    *required(
        names.ActiveExecution,
        "_executable", "_failed", "_in_flight", "_instance_concurrency_context", "_max_concurrent",
        "_plan", "_tag_concurrency_limits", "_waiting_to_retry",
        of_objects=True,
    ),
    *required(
        names.InstanceConcurrencyContext, "_instance", "_pending_timeouts", "_run_id",
        of_objects=True,
    ),
    *required(names.SqliteEventLogStorage, "_initialized_dbs", of_objects=True),
    *required(
        names.SqlEventLogStorage,
        "_event_insert_timestamp", "_event_to_row", "_store_asset_event",
        "_store_asset_event_tags", "index_connection", "index_transaction", "prepare_insert_event",
        "run_connection",
        "store_asset_check_event", "store_event", "store_event_batch",
    ),
    # Columns of its schema that statements of the kit name.
    *required(
        names.SqlEventLogStorageTable,
        "asset_key", "dagster_event_type", "event", "partition", "run_id", "step_key", "timestamp",
    ),
    *required(names.AssetEventTagsTable, "event_id"),
    *required(names.AssetKeyTable, "asset_key"),
    *required(names.AssetCheckExecutionsTable, "evaluation_event_storage_id"),
    *required(names.ConcurrencyLimitsTable, "concurrency_key"),
    *required(names.PendingStepsTable, "assigned_timestamp", "concurrency_key"),
    *required(names.RunsTable, "run_body", "run_id", "status"),
    *required(names.RunTagsTable, "id", "key", "run_id", "value"),
]  # fmt: skip


def check(leaned_on: Sequence[RequiredAttribute]) -> None:
    """Look whether all of it is there.

    Raises:
        ImportError: Something is not.
    """
    missing = [str(each) for each in leaned_on if not each.holds()]
    if missing:
        raise unknown_dagster(f"it has no {', '.join(missing)}")


check(LEANED_ON)
