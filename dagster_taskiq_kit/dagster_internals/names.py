"""Every private name of Dagster that the kit imports; nothing else imports one.

Invariant: importing this succeeds only on a Dagster that has all of them, else it fails with one
sentence.
"""

import dagster as dg

from ..version import __version__
from .unknown_dagster import unknown_dagster

try:
    from dagster._cli import api as dagster_api
    from dagster._cli.workspace.cli_target import workspace_opts_to_load_target
    from dagster._config.errors import PostProcessingError
    from dagster._core.code_pointer import (
        AutoloadDefsModuleCodePointer,
        CodePointer,
        FileCodePointer,
        ModuleCodePointer,
        PackageCodePointer,
    )
    from dagster._core.definitions.assets.job.asset_job import is_reserved_asset_job_name
    from dagster._core.definitions.config import ConfigMapping
    from dagster._core.definitions.definition_config_schema import (
        ConfiguredDefinitionConfigSchema,
    )
    from dagster._core.definitions.reconstruct import (
        ReconstructableJob,
        ReconstructableRepository,
    )
    from dagster._core.errors import (
        DagsterExecutionInterruptedError,
        DagsterExecutionStepNotFoundError,
        DagsterUserCodeLoadError,
    )
    from dagster._core.event_api import EventLogCursor
    from dagster._core.events import DagsterEventType, EngineEventData
    from dagster._core.execution import compute_logs
    from dagster._core.execution.context.system import IStepContext, PlanOrchestrationContext
    from dagster._core.execution.plan.active import ActiveExecution
    from dagster._core.execution.plan.active import _pool_key_for_step as pool_key_for_step
    from dagster._core.execution.plan.handle import ResolvedFromDynamicStepHandle
    from dagster._core.execution.plan.instance_concurrency_context import (
        InstanceConcurrencyContext,
    )
    from dagster._core.execution.plan.objects import StepFailureData, StepRetryData
    from dagster._core.execution.plan.outputs import StepOutputHandle
    from dagster._core.execution.plan.plan import ExecutionPlan
    from dagster._core.execution.plan.state import KnownExecutionState
    from dagster._core.execution.plan.step import ExecutionStep, UnresolvedMappedExecutionStep
    from dagster._core.execution.retries import RetryMode, get_retries_config
    from dagster._core.execution.stats import STEP_STATS_EVENT_TYPES
    from dagster._core.execution.step_dependency_config import (
        StepDependencyConfig,
        get_step_dependency_config_field,
    )
    from dagster._core.execution.tags import get_tag_concurrency_limits_config
    from dagster._core.executor.in_process import InProcessExecutor
    from dagster._core.executor.init import InitExecutorContext
    from dagster._core.launcher.base import (
        CheckRunHealthResult,
        LaunchRunContext,
        ResumeRunContext,
        RunLauncher,
        WorkerStatus,
    )
    from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
    from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT
    from dagster._core.remote_origin import (
        GrpcServerCodeLocationOrigin,
        ManagedGrpcPythonEnvCodeLocationOrigin,
    )
    from dagster._core.scheduler.instigation import InstigatorStatus, TickStatus
    from dagster._core.secrets.env_file import get_env_var_dict
    from dagster._core.storage.dagster_run import DagsterRun
    from dagster._core.storage.event_log.base import EventLogConnection as EventLogPage
    from dagster._core.storage.event_log.schema import (
        AssetCheckExecutionsTable,
        AssetEventTagsTable,
        AssetKeyTable,
        ConcurrencyLimitsTable,
        PendingStepsTable,
        SqlEventLogStorageTable,
    )
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
    from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
    from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
    from dagster._core.storage.runs.schema import RunsTable, RunTagsTable
    from dagster._core.storage.tags import GRPC_INFO_TAG, MAX_RUNTIME_SECONDS_TAG
    from dagster._core.system_config.objects import ResolvedRunConfig
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
    from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
    from dagster._core.workspace.load_target import (
        ModuleTarget,
        PythonFileTarget,
        WorkspaceFileTarget,
        WorkspaceLoadTarget,
    )
    from dagster._grpc.server import LoadedRepositories
    from dagster._grpc.types import ExecuteStepArgs
    from dagster._serdes import ConfigurableClass, deserialize_value, serialize_value
    from dagster._serdes.config_class import ConfigurableClassData
    from dagster._utils.error import serializable_error_info_from_exc_info
    from dagster._utils.interrupts import (
        capture_interrupts,
        check_captured_interrupt,
        pop_captured_interrupt,
    )
    from dagster_shared.cli import WorkspaceOpts
    from dagster_shared.error import SerializableErrorInfo
    from dagster_shared.libraries import DagsterLibraryRegistry
    from dagster_shared.serdes import serdes
except ImportError as error:
    raise unknown_dagster(str(error)) from error

try:
    from dagster._core.snowflake_partner import set_snowflake_partner_env_var
except ImportError:  # a step of that Dagster sets nothing, since 1.13.26 it does

    def set_snowflake_partner_env_var() -> None:
        """Leave the environment as it is, as this Dagster does."""


__all__ = [
    "DEFAULT_DAGSTER_ENTRY_POINT",
    "GRPC_INFO_TAG",
    "MAX_RUNTIME_SECONDS_TAG",
    "STEP_STATS_EVENT_TYPES",
    "SUSPENDED",
    "ActiveExecution",
    "AssetCheckExecutionsTable",
    "AssetEventTagsTable",
    "AssetKeyTable",
    "AutoloadDefsModuleCodePointer",
    "CheckRunHealthResult",
    "CodePointer",
    "ConcurrencyLimitsTable",
    "ConfigMapping",
    "ConfigurableClass",
    "ConfigurableClassData",
    "ConfiguredDefinitionConfigSchema",
    "DagsterEventType",
    "DagsterExecutionInterruptedError",
    "DagsterExecutionStepNotFoundError",
    "DagsterRun",
    "DagsterUserCodeLoadError",
    "DefaultRunLauncher",
    "EngineEventData",
    "EventLogCursor",
    "EventLogPage",
    "ExecuteStepArgs",
    "ExecutionPlan",
    "ExecutionStep",
    "FileCodePointer",
    "GrpcServerCodeLocationOrigin",
    "IStepContext",
    "InProcessExecutor",
    "InitExecutorContext",
    "InstanceConcurrencyContext",
    "InstigatorStatus",
    "KnownExecutionState",
    "LaunchRunContext",
    "LoadableTargetOrigin",
    "LoadedRepositories",
    "LocalComputeLogManager",
    "ManagedGrpcPythonEnvCodeLocationOrigin",
    "ModuleCodePointer",
    "ModuleTarget",
    "PackageCodePointer",
    "PendingStepsTable",
    "PlanOrchestrationContext",
    "PostProcessingError",
    "PythonFileTarget",
    "ReconstructableJob",
    "ReconstructableRepository",
    "ResolvedFromDynamicStepHandle",
    "ResolvedRunConfig",
    "ResumeRunContext",
    "RetryMode",
    "RunLauncher",
    "RunTagsTable",
    "RunsTable",
    "SerializableErrorInfo",
    "SqlEventLogStorage",
    "SqlEventLogStorageTable",
    "SqliteEventLogStorage",
    "StepDependencyConfig",
    "StepFailureData",
    "StepOutputHandle",
    "StepRetryData",
    "TickStatus",
    "UnresolvedMappedExecutionStep",
    "WorkerStatus",
    "WorkspaceFileTarget",
    "WorkspaceLoadTarget",
    "WorkspaceOpts",
    "WorkspaceProcessContext",
    "WorkspaceRequestContext",
    "capture_interrupts",
    "check_captured_interrupt",
    "compute_logs",
    "dagster_api",
    "deserialize_value",
    "get_env_var_dict",
    "get_retries_config",
    "get_step_dependency_config_field",
    "get_tag_concurrency_limits_config",
    "is_reserved_asset_job_name",
    "pool_key_for_step",
    "pop_captured_interrupt",
    "serdes",
    "serializable_error_info_from_exc_info",
    "serialize_value",
    "set_snowflake_partner_env_var",
    "workspace_opts_to_load_target",
]

#: Started, and without a worker on purpose; None in a Dagster older than 1.13.26.
SUSPENDED: dg.DagsterRunStatus | None = getattr(dg.DagsterRunStatus, "SUSPENDED", None)

DagsterLibraryRegistry.register("dagster-taskiq-kit", __version__, is_dagster_package=False)
