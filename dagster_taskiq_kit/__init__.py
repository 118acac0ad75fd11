"""Dagster, executed on taskiq, and watched from inside Dagster.

Invariant: importing the package imports neither Dagster nor taskiq; each public name is resolved
when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING

from .version import __version__

if TYPE_CHECKING:
    from .assets import build_taskiq_asset_specs as build_taskiq_asset_specs
    from .broker.stream_broker import PriorityStreamBroker as PriorityStreamBroker
    from .checks import build_queue_depth_checks as build_queue_depth_checks
    from .checks import build_taskiq_health_checks as build_taskiq_health_checks
    from .component import TaskiqHealthComponent as TaskiqHealthComponent
    from .errors import TaskiqKitError as TaskiqKitError
    from .executor import TaskiqExecutor as TaskiqExecutor
    from .executor import taskiq_executor as taskiq_executor
    from .health_definitions import build_taskiq_definitions as build_taskiq_definitions
    from .launcher import TaskiqRunLauncher as TaskiqRunLauncher
    from .resource import TaskiqResource as TaskiqResource
    from .sensors import build_taskiq_health_sensor as build_taskiq_health_sensor
    from .settings import QueueObjective as QueueObjective
    from .settings import TaskiqSettings as TaskiqSettings
    from .stuck_runs import StuckRunPolicy as StuckRunPolicy
    from .stuck_runs import build_taskiq_stuck_run_sensor as build_taskiq_stuck_run_sensor

_HOMES = {
    "PriorityStreamBroker": "broker.stream_broker",
    "QueueObjective": "settings",
    "StuckRunPolicy": "stuck_runs",
    "TaskiqExecutor": "executor",
    "TaskiqHealthComponent": "component",
    "TaskiqKitError": "errors",
    "TaskiqRunLauncher": "launcher",
    "TaskiqResource": "resource",
    "TaskiqSettings": "settings",
    "build_queue_depth_checks": "checks",
    "build_taskiq_asset_specs": "assets",
    "build_taskiq_definitions": "health_definitions",
    "build_taskiq_health_checks": "checks",
    "build_taskiq_health_sensor": "sensors",
    "build_taskiq_stuck_run_sensor": "stuck_runs",
    "taskiq_executor": "executor",
}

__all__ = [
    "PriorityStreamBroker",
    "QueueObjective",
    "StuckRunPolicy",
    "TaskiqExecutor",
    "TaskiqHealthComponent",
    "TaskiqKitError",
    "TaskiqResource",
    "TaskiqRunLauncher",
    "TaskiqSettings",
    "__version__",
    "build_queue_depth_checks",
    "build_taskiq_asset_specs",
    "build_taskiq_definitions",
    "build_taskiq_health_checks",
    "build_taskiq_health_sensor",
    "build_taskiq_stuck_run_sensor",
    "taskiq_executor",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
