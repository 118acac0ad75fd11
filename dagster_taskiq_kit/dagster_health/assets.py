"""Broker, queues, workers and runs as external assets of the Dagster catalog.

Invariant: a subject of the health rules is exactly one asset, and its key is made here alone.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from ..config.settings import TaskiqSettings
from ..health.findings import queue_subject, watched_queues

CoercibleToPrefix = str | Sequence[str]

_FRESH_WITHIN = timedelta(minutes=15)


def subjects(settings: TaskiqSettings) -> Sequence[str]:
    """Return the subjects of a deployment in the order of their lineage."""
    queues = [queue_subject(name) for name in watched_queues(settings)]
    return ["redis", *queues, "workers", "runs"]


def subject_key(subject: str, key_prefix: CoercibleToPrefix = "taskiq") -> dg.AssetKey:
    """Return the asset key of a subject: the prefix, then ``redis`` or ``queue``, ``<name>``."""
    prefix = [key_prefix] if isinstance(key_prefix, str) else list(key_prefix)
    return dg.AssetKey([*prefix, *subject.split("/", 1)])


_DESCRIPTIONS = {
    # The catalog cuts what is longer than this.
    "redis": "The server behind all taskiq queues.",
    "queue": "What waits in this queue, and who serves it.",
    "workers": "Who is heard, and what they execute.",
    "runs": "Open runs, and which of them are stuck.",
}


def build_taskiq_asset_specs(
    settings: TaskiqSettings | None = None,
    *,
    key_prefix: CoercibleToPrefix = "taskiq",
    group_name: str = "taskiq",
    owners: Sequence[str] | None = None,
    runbook_url: str | None = None,
    dashboard_url: str | None = None,
    fleet_url: str | None = None,
    fresh_within: timedelta = _FRESH_WITHIN,
) -> Sequence[dg.AssetSpec]:
    """Build the external assets that stand for broker, queues, workers and runs.

    Args:
        settings: The deployment; default what the environment says. Queues with objectives and the
            default queue become assets.
        key_prefix: First part of every key.
        group_name: Their group in the catalog.
        owners: Who is asked when one is red: ``team:platform`` or an e-mail address.
        runbook_url: Link to the runbook; ``#redis``, ``#queue``, ``#workers`` or ``#runs`` is
            appended.
        dashboard_url: Link to the Grafana dashboard.
        fleet_url: Link to the fleet page, which `dagster-taskiq exporter` serves.
        fresh_within: After how long without a report they are not fresh any more.

    Returns:
        The specs, the broker first: it feeds the queues, they feed the workers, those the runs.
    """
    settings = settings or TaskiqSettings.resolve()
    queues = [queue_subject(name) for name in watched_queues(settings)]
    upstream: Mapping[str, Sequence[str]] = {
        "redis": [],
        **{each: ["redis"] for each in queues},
        "workers": queues,
        "runs": ["workers"],
    }

    def links(kind: str) -> dict[str, Any]:
        given = {
            "runbook": runbook_url and f"{runbook_url}#{kind}",
            "dashboard": dashboard_url,
            "fleet": fleet_url,
        }
        return {name: dg.MetadataValue.url(url) for name, url in given.items() if url}

    def spec(subject: str) -> dg.AssetSpec:
        kind = subject.partition("/")[0]
        metadata = links(kind)
        if kind == "queue":
            promised = settings.objective(subject.partition("/")[2])
            metadata["objective"] = (
                f"no message waits longer than {promised.slo_s:g} s; backlog up to "
                f"{promised.backlog_warn}"
            )
        return dg.AssetSpec(
            subject_key(subject, key_prefix),
            deps=[subject_key(each, key_prefix) for each in upstream[subject]],
            description=_DESCRIPTIONS[kind],
            group_name=group_name,
            kinds={"taskiq", "redis"} if kind in ("redis", "queue") else {"taskiq"},
            owners=list(owners) if owners else None,
            metadata=metadata,
            freshness_policy=dg.FreshnessPolicy.time_window(fail_window=fresh_within),
        )

    return [spec(subject) for subject in upstream]
