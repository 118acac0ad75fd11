"""What the worker's log says of the messages it executes: when each began, and how it ended.

Invariant: each delivery that began has two lines, and both name message, run, job, step, attempt,
queue and code location, so that a search for any of them finds both.
"""

import logging
from typing import Any

from ...broker.records import Delivery
from ...vocabulary.log_actions import Action, about
from ...vocabulary.messages import Message
from ...vocabulary.states import State
from .held import Held

logger = logging.getLogger(__name__)

_FINE = (State.SUCCEEDED, State.CANCELLED)


def _about(action: Action, delivery: Delivery, message: Message | None, **more: Any) -> Any:
    code = None if message is None else message.code
    run_id = delivery.run_id or None
    said = about(action, delivery.task_id, kind=delivery.kind.value, queue=delivery.queue, **more)
    if code is not None:
        said |= {"job": code.job, "location": code.location}
    return {"run_id": run_id, **said}


def log_began(held: Held) -> None:
    """Say that a body was allowed to begin."""
    delivery = held.delivery
    said = _about(Action.BEGAN, delivery, held.message)
    logger.info("%s began (queue %s).", delivery.task_id, delivery.queue, extra=said)


def log_ended(held: Held, outcome: State, detail: dict[str, Any]) -> None:
    """Say how a message ended, and why where it did not end well."""
    delivery, seconds, reason = held.delivery, held.ran_s, detail.get("reason", "")
    said = _about(
        Action.ENDED, delivery, held.message, state=outcome.value, seconds=round(seconds, 3)
    )
    level = logging.INFO if outcome in _FINE else logging.WARNING
    logger.log(
        level, "%s %s after %.3f s.%s", delivery.task_id, outcome.value, seconds,
        f" {reason}" if reason else "", extra=said,
    )  # fmt: skip


def log_requeued(delivery: Delivery, reason: str) -> None:
    """Say that a delivery was given back to its queue."""
    said = _about(Action.REQUEUED, delivery, None)
    logger.warning("%s is queued again: %s", delivery.task_id, reason, extra=said)


def log_refused(delivery: Delivery, error: Exception) -> None:
    """Say that a message cannot be executed."""
    logger.error("%s", error, extra=_about(Action.REFUSED, delivery, None))


def log_lingered(held: Held) -> None:
    """Say that a process is still there after its end."""
    logger.warning(
        "The process of %s was still there some seconds after its end (a thread, an exit "
        "handler or a pool that it left): killing it.",
        held.delivery.task_id,
        extra=_about(Action.LINGERED, held.delivery, held.message),
    )
