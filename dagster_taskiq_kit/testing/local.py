"""A ``TaskiqResource`` without a server, for unit tests of code that uses one.

Invariant: a task is called in the test's own process, with its arguments as JSON would bring them,
so that what could not travel fails here too.
"""

import asyncio
import inspect
import json
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import PrivateAttr

from ..health.snapshot import QueueReading, ServerReading, Snapshot
from ..tasks.resource import TaskiqResource
from ..tasks.user_tasks import Task


class FinishedTask:
    """What ``submit`` returns: a task that has ended already.

    Args:
        returned: What it returned.
        raised: What it raised, or None.
    """

    def __init__(self, returned: Any, raised: Exception | None) -> None:
        self.task_id = uuid.uuid4().hex
        self.done = True
        self._returned = returned
        self._raised = raised

    def result(self, timeout_s: float | None = None) -> Any:  # noqa: ARG002
        """Return what the task returned, or raise what it raised."""
        if self._raised is not None:
            raise self._raised
        return self._returned

    def cancel(self) -> None:
        """Do nothing: it has ended."""


class InProcessTaskiqResource(TaskiqResource):
    """Executes tasks at once, in this process; its queues are empty and can be paused.

    Use it in place of the real one::

        def test_thumbnails():
            assert thumbnails(taskiq=InProcessTaskiqResource()) == [...]
    """

    _paused: set[str] = PrivateAttr(default_factory=set)

    def submit(  # type: ignore[override]
        self, task: Task, *args: Any, queue: str | None = None, priority: int | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> FinishedTask:  # fmt: skip
        """Call a task at once."""
        args, kwargs = json.loads(json.dumps([args, kwargs]))
        try:
            returned = task.original_func(*args, **kwargs)
            if inspect.iscoroutine(returned):
                returned = asyncio.run(returned)
            return FinishedTask(json.loads(json.dumps(returned)), None)
        except Exception as error:  # noqa: BLE001  (the caller's result raises it)
            return FinishedTask(None, error)

    def map(self, task: Task, items: Iterable[Any], **_options: Any) -> Iterator[Any]:
        """Call a task once for each item, one after another."""
        return (self.submit(task, item).result() for item in items)

    def snapshot(self) -> Snapshot:
        """Return a healthy broker with an empty default queue."""
        queues = [QueueReading(name, paused=True) for name in sorted(self._paused)]
        default = self.default_queue or "default"
        if default not in self._paused:
            queues.append(QueueReading(default))
        server = ServerReading("in process", 0.0, append_only=True, eviction_policy="noeviction")
        return Snapshot(0, queues, [], server)

    def pause(self, queue: str, *, create: bool = False) -> bool:  # noqa: ARG002
        """Note that a queue is paused."""
        changed = queue not in self._paused
        self._paused.add(queue)
        return changed

    def resume(self, queue: str) -> bool:
        """Note that a queue is not paused."""
        changed = queue in self._paused
        self._paused.discard(queue)
        return changed
