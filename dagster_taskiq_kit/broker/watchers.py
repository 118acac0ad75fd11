"""Which sensor reports a namespace's health, and when it last did.

Invariant: one at a time. Its lease is renewed by each tick; the time of the last one is what
monitoring watches to know that somebody looks at all.
"""

import json
from dataclasses import asdict, dataclass

from .scripts import Call


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


def take_watch(watch: Watch, lease_s: float) -> Call[Watch]:
    """Take or renew the watch; answers who has it."""
    return Call(
        "watch",
        [json.dumps(asdict(watch)), str(int(lease_s * 1000))],
        lambda answer: Watch(**json.loads(answer)),
    )
