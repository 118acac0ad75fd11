"""Records of messages: the transitions that a message can make, as calls.

Invariant: every change of a record is one atomic script on the server's clock. ``begin``,
``tell_output``, ``finish``, ``requeue`` and ``restate`` compare the owner's token. The other
changes are made by whoever steers (cancel, pause, reprioritize) or repairs the fleet; those of
workers that are given up stand in ``leases.py``, those of a renewal in ``worker_cards.py``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from ..version import SCHEMA_VERSION
from ..vocabulary.errors import MessageTooLarge, OlderWorkers
from ..vocabulary.states import Kind, State, band_of_priority
from .scripts import Call, OfDeployment, text

#: Deliveries without an outcome after which a message becomes a dead letter.
MAX_DELIVERIES = 3
#: A message passes through the broker's memory and three processes: data has better places.
MAX_PAYLOAD_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Submitted:
    """The broker's answer to a submit.

    Args:
        created: False when a record of that id already stood there.
        state: The state it is in.
    """

    created: bool
    state: State


@dataclass(frozen=True)
class Delivery:
    """One handing-out of a message to one worker.

    Args:
        task_id: The message.
        token: Owner token of this delivery; every later transition must name it.
        kind: What it asks for.
        queue: Where it waited.
        run_id: The Dagster run, or ''.
        payload: The taskiq message.
        deliveries: How often it was handed out, this time included.
        waited_ms: From submission to this claim, on the server's clock.
        handed_over: A draining worker gave this run back while it was executing.
        band: Its band of priority.
    """

    task_id: str
    token: str
    kind: Kind
    queue: str
    run_id: str
    payload: bytes = field(repr=False)
    deliveries: int
    waited_ms: int
    handed_over: bool
    band: int


@dataclass(frozen=True)
class NothingWaits:
    """The broker's answer to a claim when no message waits.

    Args:
        doors: Last entry id by doorbell key; block on those, and no wake-up is lost.
    """

    doors: Mapping[str, str]


@dataclass(frozen=True)
class Cancelled:
    """What a cancel did.

    Args:
        removed: Messages that were queued and have ended now.
        ordered: Messages whose owner was ordered to stop.
        runs_ordered: Those of the ordered that are run messages.
    """

    removed: int
    ordered: int
    runs_ordered: int


def submit(
    *,
    task_id: str,
    kind: Kind,
    queue: str,
    priority: int,
    run_id: str,
    payload: bytes,
    supersedes: str = "",
) -> Call[Submitted]:
    """Create a record and queue it, unless a record of that id exists.

    Args:
        task_id: Deterministic id; submitting it again is the same submit.
        kind: What the message asks for.
        queue: Where it shall wait.
        priority: Clamped to the bands 0..10.
        run_id: The Dagster run, or '' for a user's own task.
        payload: The taskiq message.
        supersedes: The lost message that this one takes the place of: a run's last execution.

    Returns:
        A call that raises OlderWorkers while workers live that cannot read what this release
        writes.

    Raises:
        MessageTooLarge: The payload has more than :data:`MAX_PAYLOAD_BYTES`.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise MessageTooLarge(task_id, len(payload), MAX_PAYLOAD_BYTES)
    arguments = [
        task_id, kind.value, queue, str(band_of_priority(priority)), run_id, payload,
        OfDeployment.OUTCOME_TTL_S, supersedes, str(SCHEMA_VERSION),
    ]  # fmt: skip

    def read(answer: Sequence[Any]) -> Submitted:
        if answer[0] < 0:
            raise OlderWorkers([text(worker) for worker in answer[1:]])
        return Submitted(bool(answer[0]), State(text(answer[1])))

    return Call("submit", arguments, read)


def claim(
    *,
    worker_id: str,
    lane: str,
    token: str,
    kinds: Sequence[Kind],
    queues: Sequence[str],
    oldest_first: bool,
) -> Call[Delivery | NothingWaits]:
    """Take one message for one free slot.

    Args:
        worker_id: The worker instance.
        lane: Its lane; the answer to a lane's last claim is kept, for a repeated call.
        token: A new owner token; asked again with the same one, the same message comes back.
        kinds: What the lane executes.
        queues: Where it takes work from.
        oldest_first: Take the longest-waiting head of all instead of the highest band.
    """

    def read(answer: Sequence[Any]) -> Delivery | NothingWaits:
        if not answer[0]:
            flat = [text(part) for part in answer[1:]]
            return NothingWaits(dict(zip(flat[::2], flat[1::2], strict=True)))
        _, task_id, kind, queue, run_id, payload, deliveries, waited_ms, handed_over, band = answer
        return Delivery(
            task_id=text(task_id), token=token, kind=Kind(text(kind)), queue=text(queue),
            run_id=text(run_id), payload=payload, deliveries=int(deliveries),
            waited_ms=int(waited_ms), handed_over=text(handed_over) == "1",
            band=int(band),
        )  # fmt: skip

    arguments = [
        worker_id, lane, token, "1" if oldest_first else "0", str(SCHEMA_VERSION), str(len(kinds)),
        *(kind.value for kind in kinds), *queues,
    ]  # fmt: skip
    return Call("claim", arguments, read)


OwnerAnswer = Literal["ok", "cancelled", "revoked"]
Requeued = Literal["queued", "refused", "revoked"]


def _owner_answer(answer: Any) -> OwnerAnswer:
    return cast("OwnerAnswer", text(answer))


def _requeued(answer: Any) -> Requeued:
    return cast("Requeued", text(answer))


def begin(task_id: str, token: str) -> Call[OwnerAnswer]:
    """Ask whether a claimed message may begin; nothing of the user's runs before it says ok."""
    return Call("begin", [task_id, token, OfDeployment.OUTCOME_TTL_S], _owner_answer)


def tell_output(task_id: str, token: str) -> Call[OwnerAnswer]:
    """Ring the run's bell for a step that wrote an output and goes on."""
    return Call("tell_output", [task_id, token], _owner_answer)


def finish(
    task_id: str,
    token: str,
    outcome: State,
    detail: Mapping[str, Any],
    dead_letter: str = "",
) -> Call[OwnerAnswer]:
    """End a message that its owner executed.

    Args:
        task_id: The message.
        token: Owner token of the delivery.
        outcome: A terminal state, or LOST.
        detail: What the orchestrator and an operator may want to know, as JSON.
        dead_letter: Why its payload shall go to the dead letters; '' for not.
    """
    arguments = [
        task_id, token, outcome.value, json.dumps(detail), OfDeployment.OUTCOME_TTL_S, dead_letter,
    ]  # fmt: skip
    return Call("finish", arguments, _owner_answer)


def requeue(task_id: str, token: str, reason: str, *, counts: bool) -> Call[Requeued]:
    """Give a claimed message, or a run that is to be resumed elsewhere, back to its queue.

    Args:
        task_id: The message.
        token: Owner token of the delivery.
        reason: What happened to it, for the dead letter that it becomes after too many deliveries.
        counts: Whether this delivery counts; a drain's does not.
    """
    limit = str(MAX_DELIVERIES if counts else 0)
    return Call("requeue", [task_id, token, limit, reason, OfDeployment.OUTCOME_TTL_S], _requeued)


def cancel(run_id: str, *, whole_run: bool) -> Call[Cancelled]:
    """Cancel a run's messages.

    Args:
        run_id: The Dagster run.
        whole_run: True cancels the run message and every later submit too; False its steps only.
    """
    arguments = [run_id, "1" if whole_run else "0", OfDeployment.OUTCOME_TTL_S]
    return Call("cancel", arguments, lambda answer: Cancelled(*(int(part) for part in answer)))


def cancel_message(task_id: str) -> Call[str]:
    """Cancel one message; answers ``cancelled``, ``ordered`` (its owner stops it) or ``over``."""
    return Call("cancel_message", [task_id, OfDeployment.OUTCOME_TTL_S], text)


def restate(delivery: Delivery, worker_id: str, instead_of: str = "") -> Call[OwnerAnswer]:
    """Write again what a worker really executes and the server forgot.

    Args:
        delivery: What it executes.
        worker_id: Who it is.
        instead_of: Owner token by which the same worker has claimed the message once more.
    """
    arguments = [
        delivery.task_id, delivery.token, worker_id, delivery.kind.value, delivery.queue,
        str(delivery.band), delivery.run_id, delivery.payload, str(delivery.deliveries),
        str(delivery.waited_ms), instead_of,
    ]  # fmt: skip
    return Call("restate", arguments, _owner_answer)


def revive(task_id: str, reason: str) -> Call[State | None]:
    """Hand a lost run out again that had never begun; answers the state that it is in then.

    Args:
        task_id: The message.
        reason: What happened to it, for the dead letter that it becomes after too many deliveries.
    """

    def read(answer: Any) -> State | None:
        return None if text(answer) == "none" else State(text(answer))

    return Call("revive", [task_id, str(MAX_DELIVERIES), reason, OfDeployment.OUTCOME_TTL_S], read)


def take_turn(duty: str, worker_id: str, overdue: str = "") -> Call[str]:
    """Ask for the turn at a duty; who has it keeps it while it is registered.

    Args:
        duty: The duty.
        worker_id: Who asks.
        overdue: A turn that was taken by another so long ago that it shall not be kept; '' for
            none.

    Returns:
        A call that answers '' when the turn is the asker's, else what the turn is: another value
        each time that its holder takes it.
    """
    return Call("turn", [duty, worker_id, overdue], text)


def pause(queue: str, *, paused: bool) -> Call[bool]:
    """Stop handing out a queue's messages, or go on; answers whether that changed anything."""
    return Call("pause", [queue, "1" if paused else "0"], bool)


def reprioritize(run_id: str, band: int) -> Call[int]:
    """Move what a run has queued and will queue to a band; answers how many messages moved."""
    return Call("reprioritize", [run_id, str(band)], int)


#: Messages that one call queues again at most, so that no script runs for long.
_MOST_RESTORED = 500


def restore() -> Call[Sequence[str]]:
    """Queue again what waits by its record and has lost its place in a stream; answers the ids."""
    return Call("restore", [str(_MOST_RESTORED)], lambda answer: [text(each) for each in answer])


def prune(keep_s: float) -> Call[Sequence[str]]:
    """Forget queues that are empty, that no worker serves and that were not used for long.

    Args:
        keep_s: How long a queue is remembered after its last message.

    Returns:
        A call that answers with the queues that are forgotten.
    """
    return Call(
        "prune", [str(int(keep_s * 1000))], lambda answer: [text(queue) for queue in answer]
    )
