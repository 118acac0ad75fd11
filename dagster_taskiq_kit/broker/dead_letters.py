"""Dead letters: messages that nobody could execute, kept with the reason until an operator decides.

Invariant: a message becomes a dead letter in the same script that ends its record, so none is lost
between the two; the newest ten thousand or so are kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from .connection import SyncConnection
from .scripts import Call, text


@dataclass(frozen=True)
class DeadLetter:
    """One dead letter.

    Args:
        entry_id: Its id, by which an operator names it; begins with the server's time in ms.
        task_id: The message.
        queue: Where it waited.
        kind: What it asked for.
        run_id: The Dagster run, or ''.
        reason: Why nobody could execute it.
        payload: The message's bytes.
    """

    entry_id: str
    task_id: str
    queue: str
    kind: str
    run_id: str
    reason: str
    payload: bytes = field(repr=False)

    @property
    def died_at_ms(self) -> int:
        """When it died, on the server's clock."""
        return int(self.entry_id.partition("-")[0])


def read_all(connection: SyncConnection, most: int = 1000) -> Sequence[DeadLetter]:
    """Return the newest dead letters, newest first.

    Raises:
        BrokerUnavailable: No answer within ``give_up_s``.
    """
    key = connection.keys.name("dead")
    ask = connection.client.xrevrange
    entries = cast(
        "list[tuple[bytes, dict[bytes, bytes]]]", connection.retrying(lambda: ask(key, count=most))
    )
    return [_read(text(entry_id), values) for entry_id, values in entries]


def _read(entry_id: str, values: Mapping[bytes, bytes]) -> DeadLetter:
    """Return a letter; what was written by another hand lacks what a letter has."""

    def said(name: str) -> str:
        return text(values.get(name.encode(), b""))

    return DeadLetter(
        entry_id, said("id"), said("queue"), said("kind"), said("run_id"),
        said("reason") or "It is not a dead letter of ours.", values.get(b"payload", b""),
    )  # fmt: skip


Requeueing = Literal["queued", "none", "alive", "unreadable"]


def requeue(entry_id: str) -> Call[Requeueing]:
    """Put a dead letter back into its queue, with no deliveries spent."""
    return Call("requeue_dead_letter", [entry_id], lambda answer: cast("Requeueing", text(answer)))


def purge(entry_ids: Sequence[str]) -> Call[int]:
    """Delete dead letters; answers how many there were."""
    return Call("purge", list(entry_ids), int)
