"""Whether what somebody wants to steer is there; if not, what it may have been meant to be.

Invariant: no order is given to a name that nothing has, unless it was said to be meant: a mistyped
name is an error that offers the near one, and never a success that changes nothing.
"""

import difflib
from collections.abc import Collection

from ..errors import ConfigurationError
from ..settings import TaskiqSettings, check_queue_name
from .findings import first_few, watched_queues
from .snapshot import Snapshot

_NEAR = 0.6


def not_there(kind: str, name: str, known: Collection[str], advice: str = "") -> ConfigurationError:
    """Return the error for a name that nothing has.

    Args:
        kind: What it should be the name of.
        name: What was said.
        known: The names that there are.
        advice: What to do to mean it all the same.
    """
    near = [each for each in sorted(known) if len(name) > 1 and each.startswith(name)][:1]
    near = near or difflib.get_close_matches(name, sorted(known), 1, _NEAR)
    said = f"There is no {kind} {name!r}"
    if near:
        said += f": did you mean {near[0]!r}?"
    else:
        said += f"; known are: {first_few(sorted(known))}." if known else "; none is known."
    return ConfigurationError(f"{said} {advice}".rstrip(), kind)


def check_queue_is_there(
    snapshot: Snapshot, settings: TaskiqSettings, name: str, advice: str
) -> None:
    """Check that a queue was ever used, is served, is paused, or is declared.

    Raises:
        ConfigurationError: It is none of these, or cannot be the name of a queue.
    """
    try:
        check_queue_name(name)
    except ValueError as error:
        raise ConfigurationError(f"Queue: {error}.", "queue") from None
    known = {queue.name for queue in snapshot.queues}
    known |= {*watched_queues(settings), *snapshot.objectives}
    if name not in known:
        raise not_there("queue", name, known, advice)
