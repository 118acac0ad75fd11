"""What is fine: the list of health rules, and their verdict on a snapshot.

Invariant: a rule looks at the snapshot and the settings and at nothing else, so that every face
(checks, sensor, exporter, CLI) says the same of the same reading. A rule that cannot know says so
as a warning; it never guesses ``ok``.
"""

from collections.abc import Mapping, Sequence

from ..config.settings import TaskiqSettings
from .findings import Finding, Severity, watched_queues
from .other_queues import other_queues
from .queue_rules import QUEUE_RULES
from .server_rules import SERVER_RULES
from .snapshot import Snapshot
from .worker_rules import WORKER_RULES

#: Every rule, by kind of subject, with what it watches; the faces are made from this list.
RULES: Mapping[str, Mapping[str, str]] = {
    "redis": {
        "reachable": "The broker answers, and soon.",
        "durability": "The broker loses nothing when it restarts or its memory is full.",
        "memory": "The broker has memory and connections left.",
    },
    "queue": {
        "oldest_waiting_age": "No message waits longer than the queue's objective.",
        "backlog": "Not more messages wait than the queue's objective allows.",
        "has_live_worker": "A live worker takes work from the queue.",
        "redeliveries": "Messages are not handed out again and again, and not lost.",
        "dead_letters": "There is no message that nobody could execute.",
    },
    "workers": {
        "heartbeats": "No worker is silent while it holds work.",
        "code_loaded": "Every live worker can load its code, and takes work.",
        "code_fresh": "Every live worker serves the code that stands in its files.",
        "slots_free": "A slot is free, or nothing waits for one.",
        "version_skew": "All live workers run the same release, and their clocks agree.",
        "shared_storage": "Workers on different hosts see the same Dagster storage folder.",
        "other_queues": "Queues that have no asset of their own are served, and do not wait.",
    },
    "runs": {"no_stuck_runs": "No run is stuck."},
}


def with_published_objectives(snapshot: Snapshot, settings: TaskiqSettings) -> TaskiqSettings:
    """Return the settings with the objectives of the deployment.

    Who declares none (a CLI on some host, the exporter) judges by those that the health sensor
    published, so that all faces say the same.
    """
    if settings.queues or not snapshot.objectives:
        return settings
    storage = snapshot.judging.get("shared_storage", settings.shared_storage)
    return settings.model_copy(
        update={"queues": dict(snapshot.objectives), "shared_storage": storage}
    )


def judge(snapshot: Snapshot, settings: TaskiqSettings) -> Sequence[Finding]:
    """Return the verdict of every rule that needs no more than a snapshot.

    Args:
        snapshot: What is true.
        settings: What was promised; without objectives, those that the sensor published.
    """
    settings = with_published_objectives(snapshot, settings)
    names = sorted({*watched_queues(settings), *(queue.name for queue in snapshot.queues)})
    found = [rule(snapshot, settings) for rule in (*SERVER_RULES, *WORKER_RULES, other_queues)]
    for name in names:
        queue = snapshot.queue(name)
        found += [rule(queue, snapshot, settings) for rule in QUEUE_RULES]
    return found


def judge_absence(reason: str) -> Sequence[Finding]:
    """Return what is known while the broker does not answer: that it does not.

    Args:
        reason: The error's sentence.
    """
    return [
        Finding(
            "redis",
            "reachable",
            Severity.ERROR,
            reason,
            "Start the server, or correct the url; runs and workers go on by themselves when it "
            "is back. What other checks say of this broker is stale until then.",
        )
    ]
