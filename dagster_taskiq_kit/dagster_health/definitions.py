"""``build_taskiq_definitions``: resource, assets, checks and sensors of the kit in one call.

Invariant: what it returns can be merged into any project; in two locations of one instance the
second one's sensor sees the first one's watch and stays quiet.
"""

import os
from collections.abc import Sequence
from datetime import timedelta

import dagster as dg

from ..config.settings import ENV_PREFIX, TaskiqSettings
from ..tasks.resource import TaskiqResource
from .assets import CoercibleToPrefix, build_taskiq_asset_specs
from .checks import build_taskiq_health_checks
from .sensors import OnTransition, build_taskiq_health_sensor
from .stuck_runs import StuckRunPolicy, build_taskiq_stuck_run_sensor


def build_taskiq_definitions(
    settings: TaskiqSettings | None = None,
    *,
    key_prefix: CoercibleToPrefix = "taskiq",
    group_name: str = "taskiq",
    owners: Sequence[str] | None = None,
    runbook_url: str | None = None,
    dashboard_url: str | None = None,
    fleet_url: str | None = None,
    fresh_within: timedelta = timedelta(minutes=15),
    stuck_run_policy: StuckRunPolicy | str = StuckRunPolicy.REPORT,
    no_progress_s: float | None = None,
    minimum_interval_seconds: int = 30,
    report_interval_seconds: int = 300,
    on_transition: OnTransition | None = None,
    resource_key: str | None = "taskiq",
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.RUNNING,
) -> dg.Definitions:
    """Build everything that shows the health of a deployment inside Dagster.

    Merge it into a project::

        defs = dg.Definitions.merge(my_defs, build_taskiq_definitions())

    Args:
        settings: The deployment, with an objective a queue; default what the environment says.
        key_prefix: First part of the keys of the assets.
        group_name: Their group in the catalog.
        owners: Who is asked when one is red: ``team:platform`` or an e-mail address.
        runbook_url: Link to the runbook.
        dashboard_url: Link to the Grafana dashboard.
        fleet_url: Link to the fleet page, which `dagster-taskiq exporter` serves.
        fresh_within: After how long without a report the assets are not fresh any more.
        stuck_run_policy: What is done about stuck runs: ``report``, ``resume``, ``cancel`` or
            ``re_execute``.
        no_progress_s: How long a run with a live worker may say nothing; None for no limit.
        minimum_interval_seconds: How often the sensors look.
        report_interval_seconds: After how long an unchanged verdict is reported again.
        on_transition: Called with a finding and the severity that it had before.
        resource_key: Name of the ``TaskiqResource``; None for none.
        default_status: Whether the sensors run without being switched on.

    Raises:
        ConfigurationError: A value can never work.
    """
    settings = settings or TaskiqSettings.resolve()
    given = settings.model_dump(include={"url", "namespace", "default_queue"})
    if given["url"] == os.environ.get(f"{ENV_PREFIX}URL"):
        # The webserver shows what a resource is configured with: the password stays out of it.
        given["url"] = None
    resource = {} if resource_key is None else {resource_key: TaskiqResource(**given)}
    return dg.Definitions(
        resources=resource,
        assets=build_taskiq_asset_specs(
            settings,
            key_prefix=key_prefix,
            group_name=group_name,
            owners=owners,
            runbook_url=runbook_url,
            dashboard_url=dashboard_url,
            fleet_url=fleet_url,
            fresh_within=fresh_within,
        ),
        asset_checks=[build_taskiq_health_checks(settings, key_prefix=key_prefix)],
        sensors=[
            build_taskiq_health_sensor(
                settings,
                key_prefix=key_prefix,
                minimum_interval_seconds=minimum_interval_seconds,
                report_interval_seconds=report_interval_seconds,
                no_progress_s=no_progress_s,
                on_transition=on_transition,
                default_status=default_status,
            ),
            build_taskiq_stuck_run_sensor(
                settings,
                policy=stuck_run_policy,
                minimum_interval_seconds=minimum_interval_seconds,
                no_progress_s=no_progress_s,
                default_status=default_status,
            ),
        ],
    )
