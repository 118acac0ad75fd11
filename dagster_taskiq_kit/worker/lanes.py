"""A lane: the taskiq receiver of one worker for one kind of work.

Invariant: the receiver asks the broker for a message only when it has a slot free for it, and a
slot is free again only when the child's process is gone.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from taskiq import AckableMessage
from taskiq.acks import AcknowledgeType
from taskiq.receiver import Receiver

from ..broker.records import Delivery
from ..broker.stream_broker import DeliveredMessage, PriorityStreamBroker


class LaneReceiver(Receiver):
    """Gives every message of a lane to the worker, in as many tasks as the lane has slots.

    Args:
        broker: The lane's broker; its ``listen`` claims one message at a time.
        slots: How many messages at once.
        execute: Executes one delivery to its end.
    """

    def __init__(
        self,
        broker: PriorityStreamBroker,
        slots: int,
        execute: Callable[[Delivery], Awaitable[None]],
    ) -> None:
        super().__init__(
            broker,
            max_async_tasks=slots,
            max_prefetch=0,
            run_startup=False,
            ack_type=AcknowledgeType.MANUAL,
        )
        self._execute = execute

    async def callback(
        self,
        message: bytes | AckableMessage,
        raise_err: bool = False,  # noqa: ARG002, FBT002  (taskiq's signature)
    ) -> Any:
        """Execute one message in a child; user code never runs in this process."""
        if isinstance(message, DeliveredMessage):
            await self._execute(message.delivery)
