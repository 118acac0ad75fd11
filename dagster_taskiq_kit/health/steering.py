"""Whether what somebody wants to steer is there; if not, what it may have been meant to be.

Invariant: no order is given to a name that nothing has, unless it was said to be meant: a mistyped
name is an error that offers the near one, and never a success that changes nothing.
"""

from ..config.settings import TaskiqSettings, check_queue_name
from ..vocabulary.errors import ConfigurationError
from ..vocabulary.wording import not_there
from .findings import watched_queues
from .snapshot import Snapshot


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
