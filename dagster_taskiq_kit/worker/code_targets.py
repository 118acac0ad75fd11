"""From what the options of a worker name to the code locations that it loads.

Invariant: what Dagster's own tools load from the same options in the same folder, a worker loads,
with the folder on the path that they have there. What no worker can load is named, with what to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..code_locations.code_location import CodeLocation
from ..dagster_internals import names as internals
from ..vocabulary.errors import ConfigurationError


@dataclass(frozen=True)
class CodeTargets:
    """What the options of a worker name as its code.

    Args:
        modules: Python modules.
        files: Python files.
        workspaces: Workspace files.
        working_directory: Where modules are looked for that say no other folder; else the current
            one, as for Dagster's own tools.
        location_name: Name of the code location, when there is one module or file.
    """

    modules: Sequence[str] = ()
    files: Sequence[str] = ()
    workspaces: Sequence[str] = ()
    working_directory: str | None = None
    location_name: str | None = None


def code_locations(targets: CodeTargets) -> tuple[Sequence[CodeLocation], Sequence[str]]:
    """Return the code locations that ``-m``, ``-f`` and ``-w`` name, or the workspace here.

    Args:
        targets: What the options name.

    Returns:
        What can be loaded, and a sentence each on what cannot.

    Raises:
        ConfigurationError: A file is not there, the workspace cannot be read, or it names nothing
            that a worker can load.
    """
    for path in (*targets.files, *targets.workspaces):
        if not Path(path).is_file():
            raise ConfigurationError(f"There is no file {path!r} to load definitions from.", path)
    origins = _origins(targets)
    servers = [each for each in origins if isinstance(each, internals.GrpcServerCodeLocationOrigin)]
    loadable = [
        each
        for each in origins
        if isinstance(each, internals.ManagedGrpcPythonEnvCodeLocationOrigin)
    ]
    names = [each.location_name for each in loadable]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(
            f"Two code locations are named {twice[0]!r}: a run could not say which it is of. Name "
            "them apart in a workspace.yaml (location_name), and say -w.",
            twice[0],
        )
    how = "name the code itself with -m MODULE or -f FILE, and its name with --location-name"
    if not loadable:
        said = ", ".join(each.location_name for each in servers)
        raise ConfigurationError(
            f"The workspace names only code servers ({said}), which a worker cannot fork from: "
            f"{how}."
            if servers
            else "The workspace names no code. Name it with -m MODULE, -f FILE or -w WORKSPACE."
        )
    here = str(Path(targets.working_directory or ".").absolute())
    return [_location(each, here) for each in loadable], [
        f"Code location {each.location_name!r} is behind a code server, which a worker cannot fork "
        f"from, so this worker does not serve it. For another worker, {how} "
        f"{each.location_name}."
        for each in servers
    ]


def _origins(targets: CodeTargets) -> Sequence[object]:
    here = str(Path(targets.working_directory or ".").absolute())
    name = targets.location_name
    if name is not None and len(targets.modules) + len(targets.files) != 1:
        raise ConfigurationError(
            "--location-name names the one module or file of -m or -f. Name several in a "
            "workspace.yaml (location_name), and say -w.",
            "location_name",
        )
    found: list[internals.WorkspaceLoadTarget] = [
        *(internals.ModuleTarget(module, None, here, name) for module in targets.modules),
        *(internals.PythonFileTarget(path, None, here, name) for path in targets.files),
    ]
    try:
        if targets.workspaces:
            found.append(internals.WorkspaceFileTarget(list(targets.workspaces)))
        if not found:
            found.append(internals.workspace_opts_to_load_target(internals.WorkspaceOpts()))
        return [origin for target in found for origin in target.create_origins()]
    except Exception as error:
        raise ConfigurationError(
            f"No code to load: {error} Name it with -m MODULE, -f FILE or -w WORKSPACE."
        ) from error


def _location(origin: internals.ManagedGrpcPythonEnvCodeLocationOrigin, here: str) -> CodeLocation:
    """Return a location with the folder that its code server would load it in."""
    target = origin.loadable_target_origin
    folder = str(Path(here, target.working_directory or ""))
    return CodeLocation(
        origin.location_name,
        internals.serialize_value(
            internals.LoadableTargetOrigin(**{**target.as_dict, "working_directory": folder})
        ),
        target.executable_path,
    )
