"""Which sensor reports a namespace's health, and when it last did.

Invariant: one at a time. Its lease is renewed by each tick; the time of the last one is what
monitoring watches to know that somebody looks at all. It alone publishes the objectives of the
queues, so that exporter and scripts judge by what the checks judge by.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..config.settings import QueueObjective
from .scripts import Call

#: Field of the objectives, no queue's name: further parameters of the checks (``shared_storage``,
#: ``no_progress_s``).
JUDGING = ""


@dataclass(frozen=True)
class Watch:
    """One health sensor.

    Args:
        location: Its code location.
        sensor: Its name.
    """

    location: str
    sensor: str

    def __str__(self) -> str:
        return f"Sensor {self.sensor!r} of code location {self.location!r}"


def take_watch(
    watch: Watch,
    lease_s: float,
    objectives: Mapping[str, QueueObjective],
    judging: Mapping[str, Any] | None = None,
) -> Call[Watch]:
    """Take or renew the watch and publish by what is judged; answers who has it.

    Args:
        watch: Who asks.
        lease_s: How long it is the one that reports.
        objectives: What the queues promise.
        judging: What else the checks go by, as JSON.
    """
    promised = [(name, each.model_dump_json()) for name, each in sorted(objectives.items())]
    promised.append((JUDGING, json.dumps(judging or {})))
    return Call(
        "watch",
        [
            json.dumps(asdict(watch)),
            str(int(lease_s * 1000)),
            *(part for pair in promised for part in pair),
        ],
        lambda answer: Watch(**json.loads(answer)),
    )
