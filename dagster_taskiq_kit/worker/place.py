"""Where a message waited and who took it, as the child writes it into the run's log."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """One delivery, seen from the run's log.

    Args:
        worker: Id of the worker that took it.
        host: Its host.
        queue: Where the message waited.
        waited_ms: For how long, on the broker's clock.
        delivery: Number of the delivery, from 1.
        handed_over: A draining worker gave this run back while it was executing.
        stale: Why its code is older than its files; '' when it is not.
    """

    worker: str
    host: str
    queue: str
    waited_ms: int
    delivery: int
    handed_over: bool
    stale: str = ""

    def __str__(self) -> str:
        again = f", delivery {self.delivery}" if self.delivery > 1 else ""
        return (
            f"Taken from queue {self.queue!r} after {self.waited_ms / 1000:.3f} s by worker "
            f"{self.worker} on {self.host}{again}."
        )

    def metadata(self) -> Mapping[str, str]:
        """Return it as text metadata of an event."""
        return {"worker": self.worker, "host": self.host, "queue": self.queue}
