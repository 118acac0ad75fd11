"""What the code locations of a workspace tell of themselves: whether they load, where outputs go.

Invariant: reading loads them in a code server of their own, which ends with the reading.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from ..dagster_internals.workspaces import workspace_of


@dataclass(frozen=True)
class LoadedLocation:
    """A code location of a workspace, as its code server tells of it.

    Args:
        name: The location.
        error: Why it could not be loaded; None when it was.
        io_manager: Class of its ``io_manager`` with module; Dagster's default when it names none.
        base_dir: The folder that it configures for it.
    """

    name: str
    error: str | None = None
    io_manager: str = "dagster._core.storage.fs_io_manager.PickledObjectFilesystemIOManager"
    base_dir: str | None = None

    @property
    def local_io_manager(self) -> str | None:
        """The class, when it is Dagster's own that writes files."""
        return self._one_of("fs_io_manager")

    @property
    def in_memory_io_manager(self) -> str | None:
        """The class, when it is Dagster's own that keeps outputs in memory."""
        return self._one_of("mem_io_manager")

    @property
    def outputs_in_instance_storage(self) -> bool:
        """Whether a local IO manager writes where the instance says."""
        return self.base_dir is None

    def _one_of(self, module: str) -> str | None:
        where, _, name = self.io_manager.rpartition(".")
        return name if where == f"dagster._core.storage.{module}" else None


def loaded_locations(
    instance: dg.DagsterInstance, workspaces: Sequence[str]
) -> Sequence[LoadedLocation]:
    """Load a workspace and return what its locations tell of themselves.

    Raises:
        ConfigurationError: A workspace file is not there.
    """
    with workspace_of(instance, workspaces) as workspace:
        return [
            _loaded(name, entry)
            for name, entry in sorted(workspace.get_code_location_entries().items())
        ]


def _loaded(name: str, entry: Any) -> LoadedLocation:
    if entry.code_location is None:
        return LoadedLocation(name, entry.load_error.message if entry.load_error else "not loaded")
    for repository in entry.code_location.get_repositories().values():
        for resource in repository.get_resources():
            if resource.name == "io_manager":
                base_dir = resource.configured_values.get("base_dir")
                return LoadedLocation(name, None, resource.resource_type, _said(base_dir))
    return LoadedLocation(name)


def _said(value: object) -> str | None:
    return None if value is None else str(getattr(value, "value", value))
