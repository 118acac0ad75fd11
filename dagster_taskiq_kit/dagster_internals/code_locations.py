"""Code locations: imported as Dagster's code server does, and how messages name what is in them.

Invariant: a job is found by what a message says and by nothing else; a name that fits several is an
error and never a guess.
"""

import inspect
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import dagster as dg

from ..code_locations.code_location import CodeLocation
from ..code_locations.source_files import Root, roots_of_file, roots_of_module
from ..vocabulary.errors import AmbiguousCode, CodeLoadFailed, ConfigurationError, NotInLoadedCode
from ..vocabulary.messages import CodeName
from .names import (
    DEFAULT_DAGSTER_ENTRY_POINT,
    AutoloadDefsModuleCodePointer,
    CodePointer,
    DagsterRun,
    DagsterUserCodeLoadError,
    FileCodePointer,
    LaunchRunContext,
    LoadableTargetOrigin,
    LoadedRepositories,
    ModuleCodePointer,
    PackageCodePointer,
    ReconstructableJob,
    ReconstructableRepository,
    deserialize_value,
    get_env_var_dict,
    serializable_error_info_from_exc_info,
)


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
    """Return the arguments that this Dagster's function takes; older supported ones lack some."""
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
