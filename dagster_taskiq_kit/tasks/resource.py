"""``TaskiqResource``: the broker inside an asset, op, sensor or schedule.

Invariant: it connects when it is first used and never before, so definitions load without a broker.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from ..broker import records
from ..broker.connection import SyncConnection
from ..config.settings import TaskiqSettings
from ..health.findings import Finding
from ..health.rules import judge, judge_absence
from ..health.snapshot import QueueReading, Snapshot, WorkerReading, read_snapshot
from ..health.steering import check_queue_is_there
from ..vocabulary.errors import BrokerUnavailable
from .user_tasks import RunContext, Task, TaskHandle, UserTasks

logger = logging.getLogger(__name__)


class TaskiqResource(dg.ConfigurableResource[Any]):
    """Health of the broker, and your own taskiq tasks on its workers.

    Put it on your definitions::

        resources = {"taskiq": TaskiqResource(url=dg.EnvVar("DAGSTER_TASKIQ_URL"))}

    and use it::

        @dg.asset
        def thumbnails(taskiq: TaskiqResource) -> list[str]:
            return list(taskiq.map(make_thumbnail, paths, max_in_flight=32))

    Args:
        url: The broker; default ``DAGSTER_TASKIQ_URL``.
        namespace: Its namespace; default ``DAGSTER_TASKIQ_NAMESPACE``, then ``dagster``.
        default_queue: Where tasks wait that name no queue.

    To test code that uses it without a server, give it ``InProcessTaskiqResource`` from
    ``dagster_taskiq_kit.testing``.
    """

    url: str | None = None
    namespace: str | None = None
    default_queue: str | None = None

    _connection: SyncConnection | None = PrivateAttr(default=None)
    _user_tasks: UserTasks | None = PrivateAttr(default=None)
    _run: RunContext = PrivateAttr(default_factory=RunContext)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Remember the run, whose end is the end of the tasks that it submits."""
        run = context.run
        if run is not None:
            origin = run.remote_job_origin
            location = origin.location_name if origin else None
            self._run = RunContext(run.run_id, location)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """Close the connection."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = self._user_tasks = None

    @property
    def settings(self) -> TaskiqSettings:
        """The deployment.

        Raises:
            ConfigurationError: A value can never work.
        """
        given = {
            "url": self.url, "namespace": self.namespace, "default_queue": self.default_queue,
        }  # fmt: skip
        return TaskiqSettings.resolve(given, where="TaskiqResource")

    # -- health

    def snapshot(self) -> Snapshot:
        """Read queues, workers and server at one moment.

        Raises:
            BrokerError: The broker does not answer.
        """
        return read_snapshot(self._broker())

    def queues(self) -> Sequence[QueueReading]:
        """Read every queue; errors as for :meth:`snapshot`."""
        return self.snapshot().queues

    def workers(self) -> Sequence[WorkerReading]:
        """Read every worker; errors as for :meth:`snapshot`."""
        return self.snapshot().workers

    def findings(self) -> Sequence[Finding]:
        """Return the verdict of every health rule; an absent broker is one of them."""
        try:
            return judge(self.snapshot(), self.settings)
        except BrokerUnavailable as error:
            return judge_absence(str(error))

    def ping(self) -> float:
        """Return how long the broker takes to answer, in seconds.

        Raises:
            BrokerError: It does not answer.
        """
        return self.snapshot().server.latency_s

    def pause(self, queue: str, *, create: bool = False) -> bool:
        """Hand out nothing of a queue until it is resumed; returns whether that changed it.

        Args:
            queue: The queue.
            create: Whether it may be one that was never used and is not served.

        Raises:
            ConfigurationError: There is no such queue; offers the near name.
            BrokerError: The broker does not answer.
        """
        if not create:
            self._check_queue(queue, "Say create=True to pause it before it is used.")
        return self._broker().run(records.pause(queue, paused=True))

    def resume(self, queue: str) -> bool:
        """Hand out a paused queue's messages again; errors as for :meth:`pause`."""
        self._check_queue(queue, "")
        return self._broker().run(records.pause(queue, paused=False))

    def _check_queue(self, queue: str, advice: str) -> None:
        check_queue_is_there(self.snapshot(), self.settings, queue, advice)

    # -- your own tasks

    def submit(
        self,
        task: Task,
        *args: Any,
        queue: str | None = None,
        priority: int | None = None,
        **kwargs: Any,
    ) -> TaskHandle:
        """Queue one call of a taskiq task; its arguments must be JSON.

        Args:
            task: A function that ``@broker.task`` of a ``PriorityStreamBroker``, or taskiq's
                ``@async_shared_broker.task``, has decorated.
            args: Positional arguments of the call.
            queue: Where it waits; default the task's label ``queue``, then the default queue.
            priority: 0 to 10, 10 first; default the task's label ``priority``, then 5.
            kwargs: Keyword arguments of the call.

        Raises:
            ConfigurationError: It is no taskiq task, or its queue can never work.
            BrokerError: The broker cannot take it.
        """
        return self._tasks().submit(task, args, kwargs, queue=queue, priority=priority)

    def map(
        self,
        task: Task,
        items: Iterable[Any],
        *,
        max_in_flight: int = 16,
        ordered: bool = True,
        timeout_s: float | None = None,
        queue: str | None = None,
    ) -> Iterator[Any]:
        """Call a task once for each item and yield what the calls return.

        Args:
            task: As for :meth:`submit`.
            items: The one argument of each call; read only as far as calls are in flight.
            max_in_flight: Calls that wait or run at once.
            ordered: Yield in the order of the items; else as they end.
            timeout_s: How long one call may take, waiting included.
            queue: As for :meth:`submit`.

        Raises:
            Exception: What a call raised; all others are cancelled then.
            TaskEnded: A call was cancelled, lost, refused, or its process crashed.
            TaskTimedOut: A call did not end in time.
        """
        return self._tasks().map(
            task,
            items,
            max_in_flight=max_in_flight,
            ordered=ordered,
            timeout_s=timeout_s,
            queue=queue,
        )

    def _tell(self, sentence: str) -> None:
        context = self.get_resource_context() if self._run.run_id else None
        log = context.log if context is not None and context.log is not None else logger
        log.info(sentence)

    def _tasks(self) -> UserTasks:
        if self._user_tasks is None:
            self._user_tasks = UserTasks(self._broker(), self._run, self._tell)
        return self._user_tasks

    def _broker(self) -> SyncConnection:
        if self._connection is None:
            self._connection = SyncConnection(self.settings)
        return self._connection
