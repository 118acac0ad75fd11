"""The users' own taskiq tasks, submitted and awaited from Dagster's sync side.

Invariant: a task that is part of a run ends with it: whoever stops waiting for it cancels it, and
the run's cancellation does when nobody waits any more. What it raised is raised here, with the
traceback of the process that raised it.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from taskiq import AsyncTaskiqDecoratedTask

from ..broker import readings, records
from ..broker.connection import SyncConnection
from ..broker.readings import Record
from ..broker.results import TRACEBACK_LABEL, read_result
from ..broker.stream_broker import PriorityStreamBroker
from ..config.settings import check_queue_name
from ..health.findings import start_worker
from ..health.snapshot import read_snapshot
from ..host.library_internals import message_of
from ..vocabulary.errors import ConfigurationError, TaskEnded, TaskTimedOut
from ..vocabulary.messages import LOCATION_LABEL, RUN_ID_LABEL
from ..vocabulary.seconds import check_seconds
from ..vocabulary.states import TERMINAL, Kind, State

Task = AsyncTaskiqDecoratedTask[..., Any]

_POLL_FIRST_S = 0.01
_POLL_LAST_S = 0.5
_TELL_EVERY_S = 10.0
_OVER = TERMINAL | {State.LOST}


class RemoteTraceback(Exception):
    """The traceback of the process that executed a task; the cause of what is raised here.

    Args:
        text: The traceback.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


@dataclass(frozen=True)
class RunContext:
    """The run on whose behalf tasks are submitted.

    Args:
        run_id: The run; '' for none.
        location: Its code location, when it is known.
    """

    run_id: str = ""
    location: str | None = None


@dataclass(frozen=True)
class TaskHandle:
    """One submitted task.

    Args:
        task_id: Its id.
        task_name: The task.
        queue: Where it waits.
    """

    task_id: str
    task_name: str
    queue: str
    _tasks: "UserTasks"

    def result(self, timeout_s: float | None = None) -> Any:
        """Wait for the task and return what it returned.

        Args:
            timeout_s: How long to wait; None for as long as it takes. The task is cancelled when
                the wait ends in any other way than by its end.

        Raises:
            Exception: What the task raised, with the remote traceback as its cause.
            TaskEnded: It was cancelled, lost, refused, or its process crashed.
            TaskTimedOut: It did not end within ``timeout_s``.
        """
        return next(self._tasks.results([self], timeout_s))[1]

    @property
    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        record = self._tasks.record(self.task_id)
        return record is None or record.state in _OVER

    def cancel(self) -> None:
        """Have it end: at once when it waits, else by its worker."""
        self._tasks.cancel([self])


class UserTasks:
    """Submits tasks and waits for them.

    Args:
        connection: The broker.
        run: On whose behalf.
        tell: Called with sentences for who waits: progress, and queues that nobody serves.
    """

    def __init__(
        self, connection: SyncConnection, run: RunContext, tell: Callable[[str], None]
    ) -> None:
        self._broker = connection
        self._settings = connection.settings
        self._run = run
        self._tell = tell
        #: Queues of which it was told that nobody serves them.
        self._unserved: set[str] = set()
        # What was imported may belong to taskiq's shared broker, which sends nothing by itself.
        self._sender = PriorityStreamBroker(self._settings)

    def submit(
        self,
        task: Task,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        queue: str | None = None,
        priority: int | None = None,
    ) -> TaskHandle:
        """Queue one call of a task.

        Raises:
            ConfigurationError: What was given is no taskiq task, or its queue can never work.
            BrokerError: The broker cannot take it.
        """
        if not isinstance(task, AsyncTaskiqDecoratedTask):
            raise ConfigurationError(
                f"{task!r} is not a taskiq task: decorate the function with @broker.task of a "
                "PriorityStreamBroker, or with @async_shared_broker.task."
            )
        labels: dict[str, Any] = {RUN_ID_LABEL: self._run.run_id} if self._run.run_id else {}
        if self._run.location is not None:
            labels[LOCATION_LABEL] = self._run.location
        chosen = queue or task.labels.get("queue") or self._settings.default_queue
        level = task.labels.get("priority") if priority is None else priority
        try:
            check_queue_name(str(chosen))
            band = int(self._settings.default_priority if level is None else level)
        except ValueError as error:
            raise ConfigurationError(f"Task {task.task_name}: {error}.") from error
        kicker = task.kicker().with_broker(self._sender).with_labels(**labels)
        message = message_of(kicker, *args, **kwargs)
        self._broker.run(
            records.submit(
                task_id=message.task_id,
                kind=Kind.TASK,
                queue=str(chosen),
                priority=band,
                run_id=self._run.run_id,
                payload=self._sender.formatter.dumps(message).message,
            )
        )
        return TaskHandle(message.task_id, task.task_name, str(chosen), self)

    def record(self, task_id: str) -> Record | None:
        """Return a task's record."""
        return readings.fetch(self._broker, task_id)

    def cancel(self, handles: Iterable[TaskHandle]) -> None:
        """Have tasks end."""
        for handle in handles:
            call = records.cancel_message(handle.task_id)
            self._broker.run(call)

    def results(
        self, handles: Sequence[TaskHandle], timeout_s: float | None = None
    ) -> Iterator[tuple[TaskHandle, Any]]:
        """Yield each task with what it returned, as they end; errors as for one."""
        left = {handle.task_id: handle for handle in handles}
        if timeout_s is not None:
            timeout_s = check_seconds(timeout_s, "timeout_s", least=0)
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            while left:
                for task_id in self._wait_for_some(left, deadline_s, timeout_s):
                    handle = left.pop(task_id)
                    yield handle, self._value(handle)
        finally:
            # Also when the step that waits is interrupted, or an earlier task raised.
            self.cancel(left.values())

    def map(
        self,
        task: Task,
        items: Iterable[Any],
        *,
        max_in_flight: int,
        ordered: bool,
        timeout_s: float | None,
        queue: str | None,
    ) -> Iterator[Any]:
        """Call a task for each item, at most ``max_in_flight`` at once; yields the results."""
        if timeout_s is not None:
            timeout_s = check_seconds(timeout_s, "timeout_s", least=0)
        if max_in_flight < 1:
            raise ConfigurationError(
                f"max_in_flight is {max_in_flight}: it must be 1 or more.", "max_in_flight"
            )
        feed = enumerate(items)
        in_flight: dict[str, tuple[int, TaskHandle, float]] = {}
        finished: dict[int, Any] = {}
        done, following, told_s = 0, 0, time.monotonic()
        try:
            while True:
                for number, item in itertools.islice(feed, max_in_flight - len(in_flight)):
                    handle = self.submit(task, (item,), {}, queue=queue)
                    in_flight[handle.task_id] = (number, handle, time.monotonic())
                if not in_flight:
                    break
                oldest_s = min(at_s for _, _, at_s in in_flight.values())
                deadline_s = None if timeout_s is None else oldest_s + timeout_s
                handles = {task_id: handle for task_id, (_, handle, _) in in_flight.items()}
                for task_id in self._wait_for_some(handles, deadline_s, timeout_s):
                    number, handle, _ = in_flight.pop(task_id)
                    finished[number] = self._value(handle)
                    done += 1
                if time.monotonic() - told_s > _TELL_EVERY_S:
                    told_s = time.monotonic()
                    self._tell(f"{task.task_name}: {done} done, {len(in_flight)} in flight.")
                while following in finished or (finished and not ordered):
                    number = following if ordered else next(iter(finished))
                    yield finished.pop(number)
                    following += 1
        finally:
            self.cancel(handle for _, handle, _ in in_flight.values())
        self._tell(f"{task.task_name}: all {done} done.")

    def _wait_for_some(
        self, handles: Mapping[str, TaskHandle], deadline_s: float | None, timeout_s: float | None
    ) -> Sequence[str]:
        pause_s, looked_s = _POLL_FIRST_S, time.monotonic()
        while True:
            found = readings.fetch_all(self._broker, list(handles))
            over = [id_ for id_, record in found.items() if not record or record.state in _OVER]
            if over:
                return over
            if time.monotonic() - looked_s > self._settings.unserved_note_s:
                looked_s = time.monotonic()
                self._tell_who_serves(handles, found)
            if deadline_s is not None and time.monotonic() > deadline_s:
                first = next(iter(handles.values()))
                raise TaskTimedOut(first.task_name, first.queue, timeout_s or 0.0)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _POLL_LAST_S)

    def _tell_who_serves(
        self, handles: Mapping[str, TaskHandle], found: Mapping[str, Record | None]
    ) -> None:
        """Say once of a queue that nobody takes what waits in it, and once that somebody does."""
        waiting = {
            handles[task_id].queue: handles[task_id]
            for task_id, record in found.items()
            if record is not None and record.state is State.QUEUED
        }
        if not waiting and not self._unserved:
            return
        snapshot = read_snapshot(self._broker)
        unserved = {
            each.name for each in snapshot.queues if "step" in snapshot.unserved_lanes(each)
        }
        for queue in sorted((unserved & waiting.keys()) - self._unserved):
            self._unserved.add(queue)
            self._tell(
                f"No live worker serves queue {queue!r}, in which task "
                f"{waiting[queue].task_name!r} waits. {start_worker(queue)}"
            )
        for queue in sorted(self._unserved - unserved):
            self._unserved.discard(queue)
            self._tell(f"A worker serves queue {queue!r} again.")

    def _value(self, handle: TaskHandle) -> Any:
        record = self.record(handle.task_id)
        key = self._broker.keys.name("result", handle.task_id)
        ask = self._broker.client.get
        stored = cast("bytes | None", self._broker.retrying(lambda: ask(key)))
        ended_itself = record is None or record.state in (State.SUCCEEDED, State.FAILED)
        if stored is None or not ended_itself:
            state = record.state.value if record else "unknown"
            reason = str(record.detail.get("reason", "")) if record else ""
            raise TaskEnded(handle.task_name, handle.task_id, state, reason)
        result = read_result(stored)
        if result.error is not None:
            raise result.error from RemoteTraceback(str(result.labels.get(TRACEBACK_LABEL, "")))
        return result.return_value
