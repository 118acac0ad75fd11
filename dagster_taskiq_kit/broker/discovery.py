"""Which server holds the namespace, when a url names Sentinels or a Cluster.

Invariant: every new connection asks again, and a connection whose server says that it is not (or no
longer) the right one is closed. All keys of a namespace share one hash slot, so one server always
holds them all, and a failover is to everybody else an ordinary outage of the broker.

Protocols: ``SENTINEL GET-MASTER-ADDR-BY-NAME`` and ``CLUSTER SLOTS``, in their RESP2 shapes.
"""

from dataclasses import dataclass
from typing import Any, cast

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.backoff
import redis.connection
import redis.crc
import redis.exceptions
import redis.retry

from ..config.broker_url import BrokerUrl
from .keys import Keys
from .scripts import text

_MOVED_AWAY = (redis.exceptions.ReadOnlyError, redis.exceptions.MovedError)


@dataclass(frozen=True)
class Discovery:
    """Asks the seeds of a url for the server.

    Args:
        url: The broker's url.
        namespace: Whose keys the server must hold.
        options: redis-py options for a connection to a seed.
    """

    url: BrokerUrl
    namespace: str
    options: dict[str, Any]

    def find(self) -> tuple[str, int]:
        """Return host and port of the server.

        Raises:
            redis.exceptions.ConnectionError: No seed knows one now; says what each said.
        """
        said: list[str] = []
        for host, port in self.url.seeds:
            once = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
            client = redis.Redis(host=host, port=port, retry=once, **self.options)
            with client:
                try:
                    return self._read(client.execute_command(*self._question), (host, port))
                except (redis.exceptions.RedisError, LookupError) as error:
                    said.append(f"{host}:{port}: {error}")
        raise self._nobody_knows(said)

    async def find_async(self) -> tuple[str, int]:
        """Return what :meth:`find` does, from an event loop."""
        said: list[str] = []
        for host, port in self.url.seeds:
            once = redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0)
            client = redis.asyncio.Redis(host=host, port=port, retry=once, **self.options)
            async with client:
                try:
                    return self._read(await client.execute_command(*self._question), (host, port))
                except (redis.exceptions.RedisError, LookupError) as error:
                    said.append(f"{host}:{port}: {error}")
        raise self._nobody_knows(said)

    @property
    def _question(self) -> tuple[str, ...]:
        if self.url.topology == "sentinel":
            return ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.url.service)
        return ("CLUSTER", "SLOTS")

    def _read(self, answer: Any, seed: tuple[str, int]) -> tuple[str, int]:
        if self.url.topology == "sentinel":
            if not answer:
                raise LookupError(f"it does not know {self.url.service!r}")
            return text(answer[0]), int(answer[1])
        slot = redis.crc.key_slot(Keys(self.namespace).prefix.encode())
        for first, last, primary, *_ in answer:
            if first <= slot <= last:
                # An empty host means: the one you asked.
                return text(primary[0] or b"") or seed[0], int(primary[1])
        raise LookupError(f"no node serves slot {slot}")

    def _nobody_knows(self, said: list[str]) -> redis.exceptions.ConnectionError:
        wanted = (
            f"the primary {self.url.service!r}"
            if self.url.topology == "sentinel"
            else f"the node of namespace {self.namespace!r}"
        )
        return redis.exceptions.ConnectionError(f"nobody says where {wanted} is: {'; '.join(said)}")


def discovering_options(
    url: BrokerUrl, namespace: str, options: dict[str, Any], *, asynchronous: bool
) -> tuple[str, dict[str, Any]]:
    """Return the url and the options with which redis-py makes connections that ask where to go.

    Args:
        url: A broker url that names Sentinels or a Cluster.
        namespace: Whose keys the server must hold.
        options: redis-py options for every connection.
        asynchronous: For ``redis.asyncio``.
    """
    of_server = redis.connection.parse_url(url.plain)
    of_seed = {name: value for name, value in of_server.items() if name.startswith("ssl_")}
    if url.topology == "sentinel":
        of_seed |= dict(url.sentinel_options)
    else:
        of_seed |= {name: of_server[name] for name in ("username", "password") if name in of_server}
    kind = {
        (False, False): DiscoveringConnection,
        (False, True): DiscoveringSSLConnection,
        (True, False): DiscoveringAsyncConnection,
        (True, True): DiscoveringAsyncSSLConnection,
    }[asynchronous, url.tls]
    discovery = Discovery(url, namespace, options | of_seed | {"ssl": url.tls})
    # For rediss:// redis-py would put its own class in the place of ours.
    plain = url.plain.replace("rediss:", "redis:", 1)
    return plain, options | {"connection_class": kind, "discovery": discovery}


class _Discovering:
    """A sync connection that asks where to go."""

    def __init__(self, *, discovery: Discovery, **options: Any) -> None:
        super().__init__(**options)
        self._discovery = discovery

    def connect_check_health(self, *arguments: Any, **options: Any) -> None:
        connection: Any = self
        if not connection.is_connected:
            connection.host, connection.port = self._discovery.find()
        super().connect_check_health(*arguments, **options)  # type: ignore[misc]

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().read_response(*arguments, **options)  # type: ignore[misc]
        except _MOVED_AWAY:
            cast("Any", self).disconnect()
            raise


class _DiscoveringAsync:
    """An async connection that asks where to go."""

    def __init__(self, *, discovery: Discovery, **options: Any) -> None:
        super().__init__(**options)
        self._discovery = discovery

    async def connect_check_health(self, *arguments: Any, **options: Any) -> None:
        connection: Any = self
        if not connection.is_connected:
            connection.host, connection.port = await self._discovery.find_async()
        await super().connect_check_health(*arguments, **options)  # type: ignore[misc]

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*arguments, **options)  # type: ignore[misc]
        except _MOVED_AWAY:
            await cast("Any", self).disconnect()
            raise


class DiscoveringConnection(_Discovering, redis.connection.Connection):
    """To where the seeds say."""


class DiscoveringSSLConnection(_Discovering, redis.connection.SSLConnection):
    """To where the seeds say, over TLS."""


class DiscoveringAsyncConnection(_DiscoveringAsync, redis.asyncio.Connection):
    """To where the seeds say."""


class DiscoveringAsyncSSLConnection(_DiscoveringAsync, redis.asyncio.SSLConnection):
    """To where the seeds say, over TLS."""
