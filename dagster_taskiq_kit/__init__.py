"""Dagster, executed on taskiq, and watched from inside Dagster.

Invariant: importing the package imports neither Dagster nor taskiq; each public name is resolved
when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING

from .version import __version__

if TYPE_CHECKING:
    from .broker.stream_broker import PriorityStreamBroker as PriorityStreamBroker
    from .errors import TaskiqKitError as TaskiqKitError
    from .executor import TaskiqExecutor as TaskiqExecutor
    from .executor import taskiq_executor as taskiq_executor
    from .launcher import TaskiqRunLauncher as TaskiqRunLauncher
    from .settings import QueueObjective as QueueObjective
    from .settings import TaskiqSettings as TaskiqSettings

_HOMES = {
    "PriorityStreamBroker": "broker.stream_broker",
    "QueueObjective": "settings",
    "TaskiqExecutor": "executor",
    "TaskiqKitError": "errors",
    "TaskiqRunLauncher": "launcher",
    "TaskiqSettings": "settings",
    "taskiq_executor": "executor",
}

__all__ = [
    "PriorityStreamBroker",
    "QueueObjective",
    "TaskiqExecutor",
    "TaskiqKitError",
    "TaskiqRunLauncher",
    "TaskiqSettings",
    "__version__",
    "taskiq_executor",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
