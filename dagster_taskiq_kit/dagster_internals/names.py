"""The only file that imports private Dagster names; everything we lean on stands here.

Invariant: importing it succeeds only on a Dagster that has all of it, else it fails with one
sentence. Each patch of Dagster is made here, says why, and is made in processes of our own only.
"""

import contextlib
import copy
import inspect
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from ..code_locations.code_location import CodeLocation
from ..code_locations.source_files import Root, roots_of_file, roots_of_module
from ..version import __version__
from ..vocabulary.errors import AmbiguousCode, CodeLoadFailed, ConfigurationError, NotInLoadedCode
from ..vocabulary.messages import CodeName, RunMessage, StepMessage

try:
    import dagster as dg
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
    from dagster._core.execution.plan.active import ActiveExecution, _pool_key_for_step
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
    from dagster._utils.interrupts import capture_interrupts, check_captured_interrupt
    from dagster_shared.cli import WorkspaceOpts
    from dagster_shared.error import SerializableErrorInfo
    from dagster_shared.libraries import DagsterLibraryRegistry
except ImportError as error:
    raise ImportError(
        f"dagster-taskiq-kit {__version__} does not know this Dagster ({error}). It is made for "
        "dagster>=1.13,<1.14: install one of those, or a newer dagster-taskiq-kit."
    ) from error

try:
    from dagster._core.snowflake_partner import set_snowflake_partner_env_var
except ImportError:  # a step of that Dagster sets nothing, since 1.13.26 it does

    def set_snowflake_partner_env_var() -> None:
        """Leave the environment as it is, as this Dagster does."""


__all__ = [
    "GRPC_INFO_TAG",
    "MAX_RUNTIME_SECONDS_TAG",
    "ActiveExecution",
    "CheckRunHealthResult",
    "ConfigurableClass",
    "ConfigurableClassData",
    "DagsterEventType",
    "DagsterExecutionInterruptedError",
    "DagsterRun",
    "DefaultRunLauncher",
    "EngineEventData",
    "EventLogPage",
    "ExecutionPlan",
    "ExecutionStep",
    "GrpcServerCodeLocationOrigin",
    "IStepContext",
    "InProcessExecutor",
    "InitExecutorContext",
    "InstanceConcurrencyContext",
    "InstigatorStatus",
    "KnownExecutionState",
    "LaunchRunContext",
    "LoadableTargetOrigin",
    "ManagedGrpcPythonEnvCodeLocationOrigin",
    "ModuleTarget",
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
    "SerializableErrorInfo",
    "StepDependencyConfig",
    "StepOutputHandle",
    "TickStatus",
    "UnresolvedMappedExecutionStep",
    "WorkerStatus",
    "WorkspaceFileTarget",
    "WorkspaceLoadTarget",
    "WorkspaceOpts",
    "WorkspaceRequestContext",
    "capture_interrupts",
    "check_captured_interrupt",
    "deserialize_value",
    "get_retries_config",
    "get_step_dependency_config_field",
    "get_tag_concurrency_limits_config",
    "is_reserved_asset_job_name",
    "serializable_error_info_from_exc_info",
    "serialize_value",
    "workspace_opts_to_load_target",
]

DagsterLibraryRegistry.register("dagster-taskiq-kit", __version__, is_dagster_package=False)


# ---- code locations


@dataclass
class LoadedCode:
    """A code location, imported and resolved in this process.

    Args:
        location: Its name.
        repositories: Its repositories by name.
        jobs: Jobs that were asked for, by repository and name, so that each is resolved once.
        loaded_at_s: When it was imported, seconds since 1970.
        fingerprint: Of its source files; '' where there are none.
    """

    location: str
    repositories: Mapping[str, ReconstructableRepository]
    jobs: dict[tuple[str, str], ReconstructableJob] = field(default_factory=dict)
    loaded_at_s: float = field(default_factory=time.time)
    fingerprint: str = ""

    def job(self, code: CodeName) -> ReconstructableJob:
        """Return the job that a message names, from this worker's own workspace.

        Raises:
            NotInLoadedCode: This location has no such job.
            AmbiguousCode: The message names no repository, and several have a job of that name.
            CodeLoadFailed: Its file is gone; Dagster looks for it even when it is loaded.
        """
        names = [name for name in self.repositories if code.repository in (None, name)]
        having = [name for name in names if self._definition(name).has_job(code.job)]
        if not having:
            of = f" in repository {code.repository!r}" if code.repository and not names else ""
            raise NotInLoadedCode(f"job {code.job!r}{of}", self.location, self.loaded_at_s)
        if len(having) > 1:
            raise AmbiguousCode(str(code), [f"repository {name!r}" for name in having])
        repository = self.repositories[having[0]]
        return self.jobs.setdefault(
            (having[0], code.job), repository.get_reconstructable_job(code.job)
        )

    def _definition(self, name: str) -> dg.RepositoryDefinition:
        try:
            return self.repositories[name].get_definition()
        except FileNotFoundError as error:
            raise CodeLoadFailed(self.location, str(error)) from error

    def pointers(self) -> Sequence[str]:
        """Return how messages without a location would name this code."""
        return sorted({pointer_name(repo.pointer) for repo in self.repositories.values()})

    def source_roots(self) -> Sequence[Root]:
        """Return where the files that define it are."""
        pointers = [self.repositories[name].pointer for name in sorted(self.repositories)]
        return [root for pointer in pointers for root in source_roots(pointer)]


def _if_it_takes_them(function: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
    """Return those of the arguments that came later than our oldest Dagster and are there."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in arguments.items() if name in known}


def load_code(location: CodeLocation, instance: dg.DagsterInstance | None = None) -> LoadedCode:
    """Import a code location and resolve its definitions, exactly as Dagster's code server does.

    Args:
        location: The code location.
        instance: Its secrets are in the environment, beside a ``.env`` file's here, when the code
            is imported.

    Raises:
        CodeLoadFailed: The user's code raised; carries its traceback.
    """
    origin = deserialize_value(location.origin, LoadableTargetOrigin)
    if not getattr(sys.flags, "safe_path", False):
        # As `python -m dagster` has it, which a code server is. While code is loaded, Dagster puts
        # its folder in the place of this one; a step finds here what it imports later.
        sys.path[0] = str(Path.cwd())
    os.environ.update(get_env_var_dict(str(Path.cwd())))
    if instance is not None:
        instance.inject_env_vars(location.name)
    loaded_at_s = time.time()
    try:
        loaded = LoadedRepositories(
            origin,
            container_image=None,
            entry_point=DEFAULT_DAGSTER_ENTRY_POINT,
            container_context=None,
            **_if_it_takes_them(LoadedRepositories, code_location_name=location.name),
        )
    except Exception as error:
        wrapped = isinstance(error, DagsterUserCodeLoadError)
        cause = (error.__cause__ if wrapped else None) or error
        info = serializable_error_info_from_exc_info(
            (type(cause), cause, cast("TracebackType", cause.__traceback__))
        )
        raise CodeLoadFailed(location.name, info.to_string()) from error
    code = LoadedCode(location.name, dict(loaded.reconstructables_by_name), loaded_at_s=loaded_at_s)
    for name, definition in loaded.definitions_by_name.items():
        for job in definition.get_all_jobs():
            recon = code.repositories[name].get_reconstructable_job(job.name)
            code.jobs[name, job.name] = recon
            # Resolved here once, a job's config schema is inherited by every child.
            _ = job.run_config_schema
    return code


def keep_reconstructed_code() -> None:
    """Have this process and its children reconstruct a repository once.

    Dagster keeps it for the last job only, which is all that its processes execute. For another one
    every child would call the function that makes the user's definitions again.
    """
    repository_class = cast("Any", ReconstructableRepository)
    reconstruct = repository_class.get_definition
    kept: dict[ReconstructableRepository, dg.RepositoryDefinition] = {}

    def get_definition(self: ReconstructableRepository) -> dg.RepositoryDefinition:
        if self.repository_load_data is not None:
            return reconstruct(self)  # what it is made from can be another with each run
        if self not in kept:
            kept[self] = reconstruct(self)
        return kept[self]

    repository_class.get_definition = get_definition


def pointer_name(pointer: CodePointer) -> str:
    """Return the module or file behind a code pointer, as ``module:NAME`` or ``file:PATH``."""
    if isinstance(pointer, ModuleCodePointer | PackageCodePointer | AutoloadDefsModuleCodePointer):
        return f"module:{pointer.module}"
    if isinstance(pointer, FileCodePointer):
        directory = Path(pointer.working_directory or ".")
        return f"file:{(directory / pointer.python_file).resolve()}"
    return f"pointer:{pointer.describe()}"


def source_roots(pointer: CodePointer) -> Sequence[Root]:
    """Return where the source behind a code pointer is; nothing where it is not on this machine."""
    if isinstance(pointer, ModuleCodePointer | PackageCodePointer | AutoloadDefsModuleCodePointer):
        return roots_of_module(pointer.module, pointer.working_directory)
    if isinstance(pointer, FileCodePointer):
        return roots_of_file(Path(pointer.working_directory or ".") / pointer.python_file)
    return []


def launched_source(context: LaunchRunContext) -> tuple[Sequence[Root], float]:
    """Return where the source of a run's code is, and when its code server loaded it."""
    code, remote = context.job_code_origin, context.dagster_run.remote_job_origin
    if code is None or remote is None or context.workspace is None:
        return [], 0.0
    entry = context.workspace.get_location_entry(remote.location_name)
    roots = source_roots(code.repository_origin.code_pointer)
    return roots, entry.update_timestamp if entry is not None else 0.0


def code_name(run: DagsterRun, job: ReconstructableJob | None = None) -> CodeName:
    """Return how messages of a run name its code.

    Args:
        run: The run.
        job: The job its orchestrator holds, for a run that has no origin of its own.

    Raises:
        ConfigurationError: The run has no origin, so no other process could find its job.
    """
    remote = run.remote_job_origin
    own = run.job_code_origin
    pointer = own.repository_origin.code_pointer if own else job.repository.pointer if job else None
    if remote is None and pointer is None:
        raise ConfigurationError(
            f"Job {run.job_name!r} is not reconstructable: a worker in another process cannot find "
            "it. Launch it from a workspace, or pass dg.reconstructable(function_that_returns_it)."
        )
    return CodeName(
        job=run.job_name,
        location=remote.location_name if remote else None,
        repository=remote.repository_origin.repository_name if remote else None,
        pointer=pointer_name(pointer) if pointer else None,
    )


# ---- places in a log, and pools of steps


def log_cursor(position: int) -> str:
    """Return Dagster's cursor for a place in a run's log, given by the storage id of a row."""
    return EventLogCursor.from_storage_id(position).to_string()


def pool_of(step: ExecutionStep) -> str | None:
    """Return the concurrency pool of a step, or None."""
    return _pool_key_for_step(step)


# ---- ends of steps that their own process did not write


def write_step_failure(context: IStepContext, error: SerializableErrorInfo) -> None:
    """Write STEP_FAILURE for a step whose process is gone."""
    dg.DagsterEvent.step_failure_event(
        step_context=context,
        step_failure_data=StepFailureData(error=error, user_failure_data=None),
    )


def write_step_up_for_retry(
    context: IStepContext, error: SerializableErrorInfo, delay_s: float
) -> None:
    """Write STEP_UP_FOR_RETRY for a step whose process is gone."""
    dg.DagsterEvent.step_retry_event(
        context, StepRetryData(error=error, seconds_to_wait=delay_s or None)
    )


def error_kind(event: dg.DagsterEvent) -> str | None:
    """Return the class name of the error of a STEP_FAILURE or STEP_UP_FOR_RETRY, if it has one."""
    error = getattr(event.event_specific_data, "error", None)
    return error.cls_name if error is not None else None


# ---- compute logs of a child


@contextlib.contextmanager
def _no_tail(_path: str, _stream: Any) -> Generator[tuple[None, None], None, None]:
    yield (None, None)


def write_compute_logs_without_mirror() -> None:
    """Leave out the four processes a step that copy what it writes to files to our own stdout."""
    compute_logs.tail_to_stream = _no_tail


def output_files(instance: dg.DagsterInstance, run_id: str, captured: Any) -> dict[str, str]:
    """Return the local files a step prints to, by ``out`` and ``err``, from its LOGS_CAPTURED."""
    manager: Any = instance.compute_log_manager
    local = getattr(manager, "local_manager", manager)
    if not hasattr(local, "get_captured_local_path"):
        return {}
    key = manager.build_log_key_for_run(run_id, captured.event_specific_data.file_key)
    return {each: str(local.get_captured_local_path(key, each)) for each in ("out", "err")}


# ---- launching a job from a workspace


@contextlib.contextmanager
def workspace_of(
    instance: dg.DagsterInstance, workspaces: Sequence[str]
) -> Generator[WorkspaceRequestContext, None, None]:
    """Load a workspace as the UI does, with a code server of its own for as long as it is used.

    Raises:
        ConfigurationError: A workspace file is not there.
    """
    for path in workspaces:
        if not Path(path).is_file():
            raise ConfigurationError(f"There is no workspace file {path!r}.", path)
    target = WorkspaceFileTarget(list(workspaces))
    with WorkspaceProcessContext(instance, target, code_server_log_level="WARNING") as process:
        yield process.create_request_context()


def launch_job(
    instance: dg.DagsterInstance,
    workspace: WorkspaceRequestContext,
    job_name: str,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Launch a job of a workspace through the instance's run launcher; returns the run id.

    Args:
        instance: The Dagster instance.
        workspace: Where the job is looked for.
        job_name: The job.
        tags: Tags of the run, beside those of the job.

    Raises:
        ConfigurationError: The workspace has no such job, or its code did not load.
    """
    for location in workspace.code_locations:
        for repository in location.get_repositories().values():
            if repository.has_job(job_name):
                job = repository.get_full_job(job_name)
                plan = location.get_execution_plan(job, {}, None, None, instance=instance)
                run = instance.create_run(
                    job_name=job_name,
                    run_id=None,
                    run_config={},
                    status=dg.DagsterRunStatus.NOT_STARTED,
                    tags={**job.run_tags, **(tags or {})},
                    root_run_id=None,
                    parent_run_id=None,
                    step_keys_to_execute=None,
                    execution_plan_snapshot=plan.execution_plan_snapshot,
                    job_snapshot=job.job_snapshot,
                    parent_job_snapshot=job.parent_job_snapshot,
                    asset_selection=None,
                    asset_check_selection=None,
                    resolved_op_selection=None,
                    op_selection=None,
                    remote_job_origin=job.get_remote_origin(),
                    job_code_origin=job.get_python_origin(),
                    asset_graph=repository.asset_graph,
                )
                instance.launch_run(run.run_id, workspace)
                return run.run_id
    errors = [error.to_string() for error in workspace.code_location_errors()]
    raise ConfigurationError(
        "\n".join([f"The workspace has no job {job_name!r}.", *errors]), job_name
    )


# ---- what a step needs of its job, made before the fork

#: A plan for these step keys and the resolved config it was made with; None when there is none that
#: is certain to be the one that Dagster would make.
FindPlan = Callable[
    [dg.JobDefinition, Mapping[str, object], Sequence[str], KnownExecutionState],
    tuple[ExecutionPlan, ResolvedRunConfig] | None,
]


@contextlib.contextmanager
def environment_of_steps(
    instance: dg.DagsterInstance, location: str
) -> Generator[None, None, None]:
    """Set the environment variables that Dagster sets for a step, and take them back."""
    before = dict(os.environ)
    try:
        instance.inject_env_vars(location)
        set_snowflake_partner_env_var()
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def noticing_config_functions() -> Generator[list[object], None, None]:
    """Yield a list of the user's functions that are called while a config is resolved.

    What they return may be another thing the next time.
    """
    called: list[object] = []
    mapping, configured = cast("Any", ConfigMapping), cast("Any", ConfiguredDefinitionConfigSchema)
    unvalidated, validated = (
        mapping.resolve_from_unvalidated_config, mapping.resolve_from_validated_config,
    )  # fmt: skip
    invoke = configured._invoke_user_config_fn

    def noticed(original: Any, function_name: str) -> Any:
        def call(self: Any, config: Any) -> Any:
            function = getattr(self, function_name)
            # What was `.configured` with values, Dagster wraps into a function of its own.
            if getattr(function, "__module__", None) != configured.__module__:
                called.append(function)
            return original(self, config)

        return call

    mapping.resolve_from_unvalidated_config = noticed(unvalidated, "config_fn")
    mapping.resolve_from_validated_config = noticed(validated, "config_fn")
    configured._invoke_user_config_fn = noticed(invoke, "_config_fn")
    try:
        yield called
    finally:
        mapping.resolve_from_unvalidated_config = unvalidated
        mapping.resolve_from_validated_config = validated
        configured._invoke_user_config_fn = invoke


class StepNotThere(BaseException):
    """The job has no such step; no Exception, which Dagster's body calls a framework error."""


@contextlib.contextmanager
def _planned_once(find_plan: FindPlan) -> Generator[None, None, None]:
    """Make Dagster's body of a step resolve its run's config once, and plan with ``find_plan``.

    It resolves the config for the plan and again for the context, and it plans the whole job to
    execute one step of it: half of what a step of a job of a hundred costs.
    """
    # The body imports the name without exporting it.
    bodies, resolved_config = cast("Any", dagster_api), cast("Any", ResolvedRunConfig)
    plan_anew, resolve_anew = bodies.create_execution_plan, resolved_config.build
    known: list[tuple[dg.JobDefinition, Any, ResolvedRunConfig]] = []

    def resolve(job_def: dg.JobDefinition, run_config: Any = None) -> ResolvedRunConfig:
        if not known:
            asked = copy.deepcopy(run_config)
            known.append((job_def, asked, resolve_anew(job_def, run_config)))
            return known[0][2]
        # Dagster asks twice, before any code of the user's; from then on its own way is taken.
        resolved_config.build = staticmethod(resolve_anew)
        job_of_plan, config_of_plan, resolved = known[0]
        same = job_of_plan is job_def and config_of_plan == run_config
        return resolved if same else resolve_anew(job_def, run_config)

    def plan(job: ReconstructableJob, **arguments: Any) -> ExecutionPlan:
        run_config = arguments["run_config"]
        if arguments["repository_load_data"] is None:
            definition = job.get_definition()
            keys, state = arguments["step_keys_to_execute"], arguments["known_state"]
            found = find_plan(definition, run_config, keys, state)
            if found is not None:
                known.append((definition, copy.deepcopy(run_config), found[1]))
                return found[0]
        return plan_anew(job, **arguments)

    def plan_of_steps_there(job: ReconstructableJob, **arguments: Any) -> ExecutionPlan:
        try:
            return plan(job, **arguments)
        except DagsterExecutionStepNotFoundError as error:
            raise StepNotThere from error

    bodies.create_execution_plan = plan_of_steps_there
    resolved_config.build = staticmethod(resolve)
    try:
        yield
    finally:
        bodies.create_execution_plan = plan_anew
        resolved_config.build = staticmethod(resolve_anew)


# ---- bodies of children: Dagster's own, on our own code


#: Where ``taskiq_executor`` and its old name are made; a ``.configured()`` copy is made there too.
_RESUMING_EXECUTORS = (
    "dagster_taskiq_kit.orchestration.executor",
    "dagster_taskiq_kit.celery_compat",
)


@contextlib.contextmanager
def _own_code(job: ReconstructableJob) -> Generator[None, None, None]:
    """Make Dagster's bodies load ``job`` from this worker's workspace.

    They would take the run's own code pointer, with paths of the machine that it was launched on.
    """
    # Patched where the bodies look it up, a module that imports the name without exporting it.
    bodies = cast("Any", dagster_api)
    original = bodies.recon_job_from_origin
    bodies.recon_job_from_origin = lambda _origin: job
    try:
        yield
    finally:
        bodies.recon_job_from_origin = original


def can_resume(job: ReconstructableJob) -> bool:
    """Return whether a job's executor can go on where its log left off; others begin anew."""
    make = job.get_definition().executor_def.executor_creation_fn
    return getattr(make, "__module__", "") in _RESUMING_EXECUTORS


def executor_name(job: ReconstructableJob) -> str:
    """Return the name of a job's executor, for people."""
    return job.get_definition().executor_def.name


def say_where_steps_run(sentence: str, metadata: Mapping[str, str]) -> None:
    """Make the event "Step worker started" tell which worker took the step, in this child only."""
    original = dg.DagsterEvent.step_worker_started

    def step_worker_started(  # Dagster's own parameters
        log_manager: Any, job_name: str, message: str, metadata: Any, step_key: str | None
    ) -> dg.DagsterEvent:
        return original(
            log_manager, job_name, f"{message} {sentence}", {**metadata, **where}, step_key
        )

    where = {name: dg.MetadataValue.text(value) for name, value in metadata.items()}
    dg.DagsterEvent.step_worker_started = staticmethod(step_worker_started)


def step_events(
    instance: dg.DagsterInstance,
    run: DagsterRun,
    message: StepMessage,
    job: ReconstructableJob,
    find_plan: FindPlan,
) -> Iterator[dg.DagsterEvent]:
    """Execute one attempt of one step as ``dagster api execute_step`` does; yields its events.

    The attempt is verified against the event log first (Dagster's ``verify_step``): an attempt that
    was started before yields no STEP_START.

    Raises:
        StepNotThere: The job, as it was loaded here, has no such step.
    """
    if run.job_code_origin is None:
        # It was created in the process that holds its job; Dagster's body wants one of some kind.
        run = run._replace(job_code_origin=job.get_python_origin())
    arguments = ExecuteStepArgs(
        job_origin=job.get_python_origin(),
        run_id=run.run_id,
        step_keys_to_execute=[message.step_key],
        retry_mode=RetryMode(message.retry_mode),
        known_state=deserialize_value(message.known_state, KnownExecutionState),
        should_verify_step=True,
    )
    with _own_code(job), _planned_once(find_plan):
        yield from dagster_api._execute_step_command_body(arguments, instance, run)


def execute_run(
    instance: dg.DagsterInstance, message: RunMessage, job: ReconstructableJob, *, resume: bool
) -> bool:
    """Execute a run, or resume it, as ``dagster api execute_run`` does.

    Returns:
        Whether it ended without a failure.
    """
    body = dagster_api._resume_run_command_body if resume else dagster_api._execute_run_command_body
    with _own_code(job):
        return body(message.run_id, instance, lambda _event: None, True) == 0
