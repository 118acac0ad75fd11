"""The taskiq broker: an ordinary ``AsyncBroker`` whose queue is the records and their streams.

Invariant: it hands out one message for one free slot and no more, so an idle worker never waits
behind a busy one that hoards. What taskiq-redis does well (connection pool, formatter, result
backend) is inherited; ``kick``, ``listen`` and the acknowledgement are ours, because the stock ones
claim what a consumer group calls idle, so long work runs twice, and acknowledge before it has
ended, so a crash loses it.
"""

import asyncio
import contextlib
import secrets
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import redis.exceptions
from taskiq import AckableMessage
from taskiq.message import BrokerMessage
from taskiq_redis.redis_broker import BaseRedisBroker

from ..config.settings import TaskiqSettings, check_queue_name
from ..vocabulary.errors import BrokerError, BrokerUnavailable, ConfigurationError
from ..vocabulary.messages import RUN_ID_LABEL
from ..vocabulary.states import Kind
from . import records
from .connection import AsyncConnection, blocking_client, connection_options
from .records import Delivery, NothingWaits
from .results import JsonResultBackend
from .scripts import Call

#: Every tenth claim of a lane takes the longest-waiting message of all, so that nothing starves.
OLDEST_FIRST_EVERY = 10
_DOOR_WAIT_MS = 2_000
#: How often a worker that cannot renew tries again.
_RENEW_AGAIN_S = 1.0


@dataclass(frozen=True)
class Lane:
    """A worker's receiver for a kind of work.

    Args:
        name: ``steps`` or ``runs``.
        worker_id: The worker instance it belongs to.
        kinds: What it executes.
        queues: Where it takes work from.
        slots: How many messages at once.
    """

    name: str
    worker_id: str
    kinds: Sequence[Kind]
    queues: Sequence[str]
    slots: int


class DeliveredMessage(AckableMessage):
    """A taskiq message with the delivery it came by; the worker ends it through its record."""

    delivery: Delivery


async def _acknowledged_by_its_record() -> None:
    """Do nothing: a record is ended by ``finish``, never by an acknowledgement."""


class PriorityStreamBroker(BaseRedisBroker):
    """A taskiq broker with queues, priorities and owners, on Redis or Valkey.

    Labels of a taskiq task choose ``queue`` and ``priority`` (0..10, 10 first). Results are JSON
    and are kept for ``outcome_ttl_s``.

    Args:
        settings: The deployment.
        lane: What ``listen`` takes; None for a broker that only sends.
        on_outage: Called with True when the broker goes away and False when it is back.
        may_claim: Awaited before each claim; returns when what comes can be executed.
        on_claimed: Called with each delivery in the moment in which its claim was answered.
        connection_kwargs: Further options for redis-py.

    Raises:
        ConfigurationError: No url is configured.
    """

    #: Every broker of this process: a child looks for a task in those that its code made.
    made: ClassVar["weakref.WeakSet[PriorityStreamBroker]"] = weakref.WeakSet()

    def __init__(
        self,
        settings: TaskiqSettings,
        lane: Lane | None = None,
        on_outage: Callable[[bool], None] | None = None,
        may_claim: Callable[[], Awaitable[None]] | None = None,
        on_claimed: Callable[[Delivery], object] | None = None,
        **connection_kwargs: Any,
    ) -> None:
        url, options = connection_options(settings, asynchronous=True)
        super().__init__(url, queue_name=settings.default_queue, **(options | connection_kwargs))
        self.settings = settings
        self.result_backend = JsonResultBackend(settings)
        PriorityStreamBroker.made.add(self)
        self.lane = lane
        self.records = AsyncConnection(settings, pool=self.connection_pool)
        self._on_outage = on_outage or (lambda _away: None)
        self._may_claim = may_claim
        self._on_claimed = on_claimed

    async def kick(self, message: BrokerMessage) -> None:
        """Queue a task; repeating a kick of the same task id is the same kick.

        Raises:
            ConfigurationError: A ``queue`` or ``priority`` label can never work.
            BrokerUnavailable: The broker is away.
        """
        labels = message.labels
        try:
            queue = check_queue_name(str(labels.get("queue", self.settings.default_queue)))
            priority = int(labels.get("priority", self.settings.default_priority))
        except ValueError as error:
            raise ConfigurationError(f"Task {message.task_name}: {error}.") from error
        await self.records.run(
            records.submit(
                task_id=message.task_id,
                kind=Kind.TASK,
                queue=queue,
                priority=priority,
                run_id=str(labels.get(RUN_ID_LABEL, "")),
                payload=message.message,
            )
        )

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Yield one message for each time that the receiver asks, waiting without polling.

        Raises:
            ConfigurationError: This broker has no lane.
        """
        lane = self.lane
        if lane is None:
            raise ConfigurationError("This broker only sends: it was made without a lane.")
        claims = 0
        token = secrets.token_hex(8)
        doorbell = blocking_client(self.settings)
        try:
            while True:
                if self._may_claim is not None:
                    await self._may_claim()
                claim = records.claim(
                    worker_id=lane.worker_id,
                    lane=lane.name,
                    token=f"{lane.worker_id}#{token}",
                    kinds=lane.kinds,
                    queues=lane.queues,
                    oldest_first=claims % OLDEST_FIRST_EVERY == OLDEST_FIRST_EVERY - 1,
                )
                answer = await self._claim(claim)
                if isinstance(answer, Delivery):
                    claims += 1
                    if self._on_claimed is not None:
                        self._on_claimed(answer)
                    token = secrets.token_hex(8)
                    yield DeliveredMessage(
                        data=answer.payload, ack=_acknowledged_by_its_record, delivery=answer
                    )
                else:
                    await self._wait_at_doors(doorbell, answer.doors)
        finally:
            await doorbell.aclose()

    async def _claim(self, claim: Call[Delivery | NothingWaits]) -> Delivery | NothingWaits:
        """Claim; a claim that is cut off half-way by a drain is given back, not forgotten."""
        asking = asyncio.ensure_future(self._through_outages(lambda: self.records.run(claim)))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            with contextlib.suppress(asyncio.TimeoutError, BrokerError):
                answer = await asyncio.wait_for(asking, self.settings.command_timeout_s)
                if isinstance(answer, Delivery):
                    await self.records.run(
                        records.requeue(
                            answer.task_id,
                            answer.token,
                            "drained",
                            counts=False,
                        )
                    )
            raise

    async def _through_outages(self, ask: Callable[[], Any]) -> Any:
        """Repeat ``ask`` until the broker answers; say when it went and when it came back."""
        away = False
        while True:
            try:
                answer = await ask()
            except BrokerUnavailable:
                if not away:
                    self._on_outage(True)
                away = True
                await self._until_it_answers()
                # What it forgot is stated again by who executes it, before others may claim it.
                await asyncio.sleep(self.settings.renew_s + _RENEW_AGAIN_S)
                continue
            if away:
                self._on_outage(False)
            return answer

    async def _until_it_answers(self) -> None:
        while True:
            with contextlib.suppress(BrokerUnavailable):
                await self.records.retrying(self.records.client.ping)
                return

    async def _wait_at_doors(self, doorbell: Any, doors: Any) -> None:
        """Block until a message was queued since the claim that found nothing."""
        # An error here is an outage: the next claim finds out and waits for its end.
        with contextlib.suppress(redis.exceptions.RedisError, OSError, asyncio.TimeoutError):
            await asyncio.wait_for(
                doorbell.xread(dict(doors), block=_DOOR_WAIT_MS),
                _DOOR_WAIT_MS / 1000 + self.settings.command_timeout_s,
            )
