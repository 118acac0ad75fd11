"""Which code the development stack serves: what is named, the workspace here, or what ``dg`` knows.

Invariant: workers, UI and daemon get the same workspace files, so that they serve the same code
locations under the same names, whichever way the code was named.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..vocabulary.errors import ConfigurationError

_HERE = ("workspace.yaml", "workspace.yml")
_WRITTEN = "dev-workspace.yaml"


def dev_workspaces(
    home: Path,
    *,
    workspaces: Sequence[str] = (),
    modules: Sequence[str] = (),
    files: Sequence[str] = (),
) -> Sequence[str]:
    """Return the workspace files of what was named; else of what lies in the working directory.

    What was named otherwise is written as a workspace file into ``home``.

    Args:
        home: ``DAGSTER_HOME`` of the stack.
        workspaces: Workspace files.
        modules: Python modules with definitions.
        files: Python files with definitions.

    Raises:
        ConfigurationError: A file is not there, or nothing is named and nothing is found.
    """
    for path in workspaces:
        if not Path(path).is_file():
            raise ConfigurationError(f"There is no workspace file {path!r}.", path)
    for path in files:
        if not Path(path).is_file():
            raise ConfigurationError(f"There is no file {path!r} to load definitions from.", path)
    here = str(Path.cwd())
    entries: list[dict[str, Any]] = [
        *({"python_module": {"module_name": name, "working_directory": here}} for name in modules),
        *(
            {"python_file": {"relative_path": str(Path(path).resolve()), "working_directory": here}}
            for path in files
        ),
    ]
    if not entries and not workspaces:
        found = [path for path in _HERE if Path(path).is_file()][:1]
        if found:
            return found
        entries = list(_of_dg(Path.cwd()))
    if not entries and not workspaces:
        raise ConfigurationError(
            "There is no code to serve here: no workspace.yaml, and no [tool.dg] or [tool.dagster] "
            "in pyproject.toml. Name it with -m MODULE, -f FILE or -w WORKSPACE.", "workspace",
        )  # fmt: skip
    if not entries:
        return list(workspaces)
    home.mkdir(parents=True, exist_ok=True)
    written = home.resolve() / _WRITTEN
    written.write_text(yaml.safe_dump({"load_from": entries}, sort_keys=False))
    return [*workspaces, str(written)]


def _of_dg(folder: Path) -> Sequence[dict[str, Any]]:
    """Return the code locations of a ``dg`` project, or of each project of a ``dg`` workspace."""
    settings = _dg_settings(folder)
    projects = _below(settings, "workspace").get("projects") or ()
    if projects:
        paths = [folder / str(_mapping(each).get("path", ".")) for each in projects]
        return [entry for path in paths for entry in _project(path, _dg_settings(path))]
    return _project(folder, settings) or _of_dagster(folder)


def _project(folder: Path, settings: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    project = _below(settings, "project")
    root = project.get("root_module")
    if not isinstance(root, str):
        return []
    # The layout of `dg`: the code lies below src, and may not be installed.
    source = folder / "src" if (folder / "src" / root.partition(".")[0]).exists() else folder
    entry: dict[str, Any] = {"working_directory": str(source.resolve())}
    if project.get("code_location_name"):
        entry["location_name"] = str(project["code_location_name"])
    if project.get("autoload_defs"):
        entry["module_name"] = str(project.get("defs_module") or f"{root}.defs")
        return [{"autoload_defs_module": entry}]
    entry["module_name"] = str(project.get("code_location_target_module") or f"{root}.definitions")
    return [{"python_module": entry}]


def _of_dagster(folder: Path) -> Sequence[dict[str, Any]]:
    """Return the code locations of ``[tool.dagster]``, as Dagster's own tools read it."""
    said = _below(_below(_toml(folder / "pyproject.toml"), "tool"), "dagster")
    names = [said.get("module_name"), *(_mapping(m).get("name") for m in said.get("modules") or ())]
    entry: dict[str, Any] = {"working_directory": str(folder.resolve())}
    if said.get("code_location_name"):
        entry["location_name"] = str(said["code_location_name"])
    return [{"python_module": {**entry, "module_name": str(name)}} for name in names if name]


def _dg_settings(folder: Path) -> Mapping[str, Any]:
    """Return what ``dg`` reads: dg.toml, else the block in pyproject.toml."""
    own = _toml(folder / "dg.toml")
    return own or _below(_below(_toml(folder / "pyproject.toml"), "tool"), "dg")


def _toml(path: Path) -> Mapping[str, Any]:
    import tomli

    if not path.is_file():
        return {}
    try:
        return tomli.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        raise ConfigurationError(f"The file {str(path)!r} is no TOML that can be read.") from None


def _below(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return _mapping(content.get(name))


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}
