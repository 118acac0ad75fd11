"""Dagster, executed on taskiq, and watched from inside Dagster.

Invariant: importing the package imports neither Dagster nor taskiq; each public name is resolved
when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING

from .version import __version__

if TYPE_CHECKING:
    from .broker.stream_broker import PriorityStreamBroker as PriorityStreamBroker
    from .config.settings import QueueObjective as QueueObjective
    from .config.settings import TaskiqSettings as TaskiqSettings
    from .dagster_health.assets import build_taskiq_asset_specs as build_taskiq_asset_specs
    from .dagster_health.checks import build_queue_depth_checks as build_queue_depth_checks
    from .dagster_health.checks import build_taskiq_health_checks as build_taskiq_health_checks
    from .dagster_health.component import TaskiqHealthComponent as TaskiqHealthComponent
    from .dagster_health.definitions import build_taskiq_definitions as build_taskiq_definitions
    from .dagster_health.sensors import build_taskiq_health_sensor as build_taskiq_health_sensor
    from .dagster_health.stuck_runs import StuckRunPolicy as StuckRunPolicy
    from .dagster_health.stuck_runs import (
        build_taskiq_stuck_run_sensor as build_taskiq_stuck_run_sensor,
    )
    from .launching.launcher import TaskiqRunLauncher as TaskiqRunLauncher
    from .orchestration.executor import TaskiqExecutor as TaskiqExecutor
    from .orchestration.executor import taskiq_executor as taskiq_executor
    from .tasks.resource import TaskiqResource as TaskiqResource
    from .vocabulary.errors import TaskiqKitError as TaskiqKitError

_HOMES = {
    "PriorityStreamBroker": "broker.stream_broker",
    "QueueObjective": "config.settings",
    "StuckRunPolicy": "dagster_health.stuck_runs",
    "TaskiqExecutor": "orchestration.executor",
    "TaskiqHealthComponent": "dagster_health.component",
    "TaskiqKitError": "vocabulary.errors",
    "TaskiqRunLauncher": "launching.launcher",
    "TaskiqResource": "tasks.resource",
    "TaskiqSettings": "config.settings",
    "build_queue_depth_checks": "dagster_health.checks",
    "build_taskiq_asset_specs": "dagster_health.assets",
    "build_taskiq_definitions": "dagster_health.definitions",
    "build_taskiq_health_checks": "dagster_health.checks",
    "build_taskiq_health_sensor": "dagster_health.sensors",
    "build_taskiq_stuck_run_sensor": "dagster_health.stuck_runs",
    "taskiq_executor": "orchestration.executor",
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
