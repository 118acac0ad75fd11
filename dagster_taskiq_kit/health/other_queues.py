"""What is said of queues that no objective declares: they have no asset, so one check has them all.

Invariant: a queue that is served or used is seen in Dagster's catalog, declared or not.
"""

from collections.abc import Sequence

from ..config.settings import TaskiqSettings
from ..vocabulary.wording import FEW, counted
from .findings import Finding, Severity, watched_queues, worst
from .queue_rules import QUEUE_RULES
from .snapshot import QueueReading, Snapshot

_DECLARE = "Declare it in `queues`, and it has an asset and an objective of its own."


def other_queues(snapshot: Snapshot, settings: TaskiqSettings) -> Finding:
    """Judge the queues that a deployment does not declare, each as if it had the defaults.

    Args:
        snapshot: What is true.
        settings: What was declared.
    """
    declared = set(watched_queues(settings))
    others = [queue for queue in snapshot.queues if queue.name not in declared]
    found = [rule(queue, snapshot, settings) for queue in others for rule in QUEUE_RULES]
    bad = sorted((each for each in found if not each.ok), key=lambda each: -each.severity.rank)
    severity = worst(bad)
    said = "; ".join(f"{each.subject} {each.check}: {each.sentence}" for each in bad[:FEW])
    more = f" And {len(bad) - FEW} more." if len(bad) > FEW else ""
    return Finding(
        "workers",
        "other_queues",
        severity,
        f"{said}{more}" if bad else _in_use(others),
        "" if severity is Severity.OK else f"{bad[0].remedy} {_DECLARE}",
        {
            "other_queues": len(others),
            "other_backlog": sum(queue.backlog for queue in others),
            "other_running": sum(queue.running for queue in others),
        },
        "the thresholds of queues, with the default objective",
    )


def _in_use(others: Sequence[QueueReading]) -> str:
    if not others:
        return "Every queue has an asset of its own."
    busiest = sorted(others, key=lambda queue: (-queue.backlog - queue.running, queue.name))
    said = ", ".join(
        f"{queue.name} ({queue.backlog} waiting, {queue.running} running)"
        for queue in busiest[:FEW]
    )
    more = f" and {len(others) - FEW} more" if len(others) > FEW else ""
    return f"{counted(len(others), 'queue')} without an asset of their own: {said}{more}."
