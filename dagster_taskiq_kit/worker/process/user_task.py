"""Executes a user's own taskiq task in a child, with taskiq's own receiver.

Invariant: the task is the function that the code location registered under that name, on a
``PriorityStreamBroker`` or taskiq's shared broker; nothing is imported because a message names it.
"""

import asyncio
import signal
from collections.abc import Sequence
from typing import Any

from taskiq import AsyncBroker
from taskiq.message import TaskiqMessage
from taskiq.receiver import Receiver
from taskiq.result import TaskiqResult

from ...broker.stream_broker import PriorityStreamBroker
from ...config.settings import TaskiqSettings
from ...vocabulary.errors import CodeNotServed
from ...vocabulary.messages import TaskMessage


def registered_tasks() -> Sequence[str]:
    """Return the names of all taskiq tasks that the imported code registered."""
    names = set(AsyncBroker.global_task_registry)
    for broker in PriorityStreamBroker.made:
        names |= set(broker.local_task_registry)
    return sorted(names)


def execute_task(message: TaskMessage) -> TaskiqResult[Any]:
    """Execute a task and store its result; returns it.

    Raises:
        CodeNotServed: The code of this location registered no such task.
        KeyboardInterrupt: It was told to end.
    """
    return asyncio.run(_execute(message))


async def _execute(message: TaskMessage) -> TaskiqResult[Any]:
    name = message.code.job
    owners = [b for b in PriorityStreamBroker.made if name in b.local_task_registry]
    broker = owners[0] if owners else PriorityStreamBroker(TaskiqSettings.resolve())
    if broker.find_task(name) is None:
        raise CodeNotServed(str(message.code), [message.code.location or "this location"])
    broker.is_worker_process = True
    receiver = _Remembering(broker, max_async_tasks=1, run_startup=False)
    execution = asyncio.ensure_future(receiver.callback(message.payload.encode(), raise_err=True))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, execution.cancel)
    await broker.startup()
    try:
        await execution
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        await broker.shutdown()
    assert receiver.result is not None
    return receiver.result


class _Remembering(Receiver):
    """A receiver that remembers how its one task ended."""

    result: TaskiqResult[Any] | None = None

    async def run_task(
        self, target: Any, message: TaskiqMessage, ack_controller: Any = None
    ) -> TaskiqResult[Any]:
        self.result = await super().run_task(target, message, ack_controller)
        return self.result
