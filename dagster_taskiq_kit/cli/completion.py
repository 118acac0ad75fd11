"""Names of workers and queues in the shell, read from the broker.

Invariant: completion says nothing rather than fail or wait: it gives up after half a second.
"""

from collections.abc import Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import click

from ..vocabulary.errors import TaskiqKitError

if TYPE_CHECKING:
    from ..health.snapshot import Snapshot

_GIVE_UP_S = 0.5


def _snapshot() -> "Snapshot | None":
    from ..broker.connection import SyncConnection
    from ..config.settings_file import deployment
    from ..health.snapshot import read_snapshot

    with suppress(TaskiqKitError):
        settings, _ = deployment({})
        hasty = {"connect_timeout_s": _GIVE_UP_S, "command_timeout_s": _GIVE_UP_S, "give_up_s": 0.0}
        with closing(SyncConnection(settings.model_copy(update=hasty))) as connection:
            return read_snapshot(connection, give_up_s=0)
    return None


def complete_workers(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> Sequence[str]:
    """Return the names of workers that begin so."""
    found = _snapshot()
    names = {worker.card.name for worker in found.workers} if found else set[str]()
    return sorted(name for name in names if name.startswith(incomplete))


def complete_queues(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> Sequence[str]:
    """Return the names of queues that begin so."""
    found = _snapshot()
    names = {queue.name for queue in found.queues} if found else set[str]()
    return sorted(name for name in names if name.startswith(incomplete))
