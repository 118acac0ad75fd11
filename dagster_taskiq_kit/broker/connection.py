"""The two connections to the broker: a sync one for Dagster's side, an async one for the worker.

Invariant: nothing here waits without a bound. Connecting takes at most ``connect_timeout_s``, a
command at most ``command_timeout_s``, a call is repeated for at most ``give_up_s``; what redis-py
raises leaves as one of our errors, in one sentence. The sync connection is *the* bridge of
Dagster-facing code: it may be shared by threads and used after a fork (redis-py's pool notices).
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.backoff
import redis.exceptions
import redis.retry

from ..config.broker_url import parse_broker_url
from ..config.settings import TaskiqSettings
from ..vocabulary.errors import BrokerError, BrokerUnavailable
from .discovery import discovering_options
from .keys import Keys
from .replies import as_our_error
from .scripts import Call, load_script

T = TypeVar("T")

#: Pauses between two tries to reach the broker.
_BACKOFF_FIRST_S = 0.1
_BACKOFF_LAST_S = 5.0
_IDLE_CHECK_S = 15

#: Brokers that have let this process in; None in it stands for any.
_let_in: set[str | None] = set()


def treat_refusals_as_outages() -> None:
    """Wait through refusals from the start: this process works for one that was let in."""
    _let_in.add(None)


def connection_options(
    settings: TaskiqSettings, *, asynchronous: bool
) -> tuple[str, dict[str, Any]]:
    """Return the url and the options with which redis-py makes every connection of the kit."""
    url = parse_broker_url(settings.require_url())
    options: dict[str, Any] = {
        "socket_connect_timeout": settings.connect_timeout_s,
        "socket_timeout": settings.command_timeout_s,
        "health_check_interval": _IDLE_CHECK_S,
        "protocol": 2,
        "client_name": "dagster-taskiq-kit",
    } | ({} if url.plain.startswith("unix:") else {"socket_keepalive": True})
    if url.topology == "single":
        return url.plain, options
    return discovering_options(url, settings.namespace, options, asynchronous=asynchronous)


def blocking_client(settings: TaskiqSettings) -> redis.asyncio.Redis:
    """Return a client for commands that block on the server; who uses it bounds the wait."""
    url, options = connection_options(settings, asynchronous=True)
    options["socket_timeout"] = None
    return redis.asyncio.Redis.from_url(url, **options)


def understand(url: str, error: Exception) -> BrokerError:
    """Return our error for one that redis-py raised on a connection of this process."""
    return as_our_error(url, error, let_in=bool(_let_in & {url, None}))


class _Tries:
    """The tries of one call: after which error it is made again, and when.

    Args:
        settings: The deployment.
        give_up_s: For how long to try; None for what the deployment says.
    """

    def __init__(self, settings: TaskiqSettings, give_up_s: float | None) -> None:
        self._url = settings.require_url()
        self._pause_s = _BACKOFF_FIRST_S
        give_up_s = settings.give_up_s if give_up_s is None else give_up_s
        self._deadline_s = time.monotonic() + give_up_s

    def answered(self, answer: T) -> T:
        """Note that the broker has let this process in; returns its answer."""
        _let_in.add(self._url)
        return answer

    def pause_s_after(self, error: Exception) -> float:
        """Return after how long to try again; pauses grow, and vary so that not all come at once.

        Raises:
            BrokerError: It makes no sense to try again, or was tried for long enough.
        """
        ours = understand(self._url, error)
        pause_s = self._pause_s * random.uniform(0.5, 1.0)
        self._pause_s = min(self._pause_s * 2, _BACKOFF_LAST_S)
        if not isinstance(ours, BrokerUnavailable) or time.monotonic() + pause_s > self._deadline_s:
            raise ours from error
        return pause_s


class SyncConnection:
    """Calls to the broker from Dagster's sync side; thread-safe, and safe after a fork.

    Args:
        settings: The deployment.
    """

    def __init__(self, settings: TaskiqSettings) -> None:
        self.settings = settings
        self.url = settings.require_url()
        self.keys = Keys(settings.namespace)
        url, options = connection_options(settings, asynchronous=False)
        self.client: redis.Redis = redis.Redis.from_url(
            url, retry=redis.retry.Retry(redis.backoff.NoBackoff(), 1), **options
        )

    def run(self, call: Call[T], give_up_s: float | None = None) -> T:
        """Execute one call, repeating it while the broker is away.

        Args:
            call: What to ask.
            give_up_s: For how long to repeat; default ``settings.give_up_s``, 0 for one try.

        Raises:
            BrokerUnavailable: No answer within ``give_up_s``. Since every script is idempotent, the
                call may have been carried out and may be repeated.
            BrokerRefused: Wrong password or missing rights.
            UnfitServer: The server cannot execute the script.
        """
        return self.retrying(lambda: self._once(call), give_up_s)

    def run_all(self, calls: Sequence[Call[T]], give_up_s: float | None = None) -> Sequence[T]:
        """Execute calls in their order with one exchange; each is atomic, all of them are not.

        Raises:
            BrokerError: As for :meth:`run`. Some may have been carried out, and all be repeated.
        """
        return self.retrying(lambda: self._all_once(calls), give_up_s)

    def retrying(self, ask: Callable[[], T], give_up_s: float | None = None) -> T:
        """Repeat ``ask`` while the broker is away; errors as for :meth:`run`."""
        tries = _Tries(self.settings, give_up_s)
        while True:
            try:
                return tries.answered(ask())
            except (redis.exceptions.RedisError, OSError) as error:
                pause_s = tries.pause_s_after(error)
            time.sleep(pause_s)

    def _once(self, call: Call[T]) -> T:
        script, argv = load_script(call.script), call.argv(self.settings)
        try:
            answer = self.client.evalsha(script.sha, 1, self.keys.prefix, *argv)
        except redis.exceptions.NoScriptError:
            answer = self.client.eval(script.source, 1, self.keys.prefix, *argv)
        return call.read(answer)

    def _all_once(self, calls: Sequence[Call[T]]) -> Sequence[T]:
        try:
            answers = self._ask_together(calls)
        except redis.exceptions.NoScriptError:
            return [self._once(call) for call in calls]
        return [call.read(answer) for call, answer in zip(calls, answers, strict=True)]

    def _ask_together(self, calls: Sequence[Call[T]]) -> Sequence[Any]:
        with self.client.pipeline(transaction=False) as pipeline:
            for call in calls:
                argv = call.argv(self.settings)
                pipeline.evalsha(load_script(call.script).sha, 1, self.keys.prefix, *argv)
            return pipeline.execute()

    def close(self) -> None:
        """Close every connection; the next call opens new ones."""
        self.client.close()


class AsyncConnection:
    """Calls to the broker from the worker's event loop.

    Args:
        settings: The deployment.
        pool: Connection pool to share, such as a taskiq broker's; default one of its own.
    """

    def __init__(self, settings: TaskiqSettings, pool: Any | None = None) -> None:
        self.settings = settings
        self.url = settings.require_url()
        self.keys = Keys(settings.namespace)
        self.client: redis.asyncio.Redis
        if pool is not None:
            self.client = redis.asyncio.Redis(connection_pool=pool)
        else:
            url, options = connection_options(settings, asynchronous=True)
            # A break must be seen: repeating is for :meth:`retrying`, and a heartbeat counts it.
            once = redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0)
            self.client = redis.asyncio.Redis.from_url(url, retry=once, **options)

    async def run(self, call: Call[T], give_up_s: float | None = None) -> T:
        """Execute one call; the same contract as :meth:`SyncConnection.run`."""

        async def once() -> T:
            script, argv = load_script(call.script), call.argv(self.settings)
            try:
                answer = await self.client.evalsha(script.sha, 1, self.keys.prefix, *argv)
            except redis.exceptions.NoScriptError:
                answer = await self.client.eval(script.source, 1, self.keys.prefix, *argv)
            return call.read(answer)

        return await self.retrying(once, give_up_s)

    async def retrying(self, ask: Callable[[], Awaitable[T]], give_up_s: float | None = None) -> T:
        """Repeat ``ask`` while the broker is away; errors as for :meth:`SyncConnection.run`."""
        tries = _Tries(self.settings, give_up_s)
        while True:
            try:
                return tries.answered(await ask())
            except (redis.exceptions.RedisError, OSError) as error:
                pause_s = tries.pause_s_after(error)
            await asyncio.sleep(pause_s)

    async def close(self) -> None:
        """Close every connection of its own pool."""
        await self.client.aclose()
