"""``TaskiqHealthComponent``: what a ``dg`` project writes in YAML instead of Python.

Invariant: it says nothing by itself; :func:`build_taskiq_definitions` makes everything from it.
"""

from collections.abc import Sequence
from datetime import timedelta

import dagster as dg
from pydantic import Field

from ..config.settings import QueueObjective, TaskiqSettings
from .definitions import build_taskiq_definitions
from .stuck_runs import StuckRunPolicy


class Objective(QueueObjective, dg.Resolvable):
    """What a queue promises, as a component's YAML says it."""


class TaskiqHealthComponent(dg.Component, dg.Model, dg.Resolvable):
    """Broker, queues, workers and open runs as assets with checks, and the sensors that watch them.

    Attributes are settings of the deployment and arguments of
    :func:`~.definitions.build_taskiq_definitions`; what is left out has its defaults, and url and
    namespace may come from ``DAGSTER_TASKIQ_URL`` and ``DAGSTER_TASKIQ_NAMESPACE``.
    """

    url: str | None = None
    namespace: str | None = None
    default_queue: str | None = None
    queues: dict[str, Objective] = Field(default_factory=dict)
    shared_storage: bool | None = None
    key_prefix: str = "taskiq"
    group_name: str = "taskiq"
    owners: Sequence[str] | None = None
    runbook_url: str | None = None
    dashboard_url: str | None = None
    fleet_url: str | None = None
    fresh_within_s: int = 900
    stuck_run_policy: str = StuckRunPolicy.REPORT.value
    no_progress_s: float | None = None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build the definitions.

        Raises:
            ConfigurationError: A value can never work.
        """
        del context  # everything is said by the attributes
        settings = TaskiqSettings.resolve(
            {
                "url": self.url,
                "namespace": self.namespace,
                "default_queue": self.default_queue,
                "queues": self.queues or None,
                "shared_storage": self.shared_storage,
            },
            where="attributes of TaskiqHealthComponent",
        )
        return build_taskiq_definitions(
            settings,
            key_prefix=self.key_prefix,
            group_name=self.group_name,
            owners=self.owners,
            runbook_url=self.runbook_url,
            dashboard_url=self.dashboard_url,
            fleet_url=self.fleet_url,
            fresh_within=timedelta(seconds=self.fresh_within_s),
            stuck_run_policy=self.stuck_run_policy,
            no_progress_s=self.no_progress_s,
        )
