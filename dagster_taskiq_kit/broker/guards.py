"""What must be true of a server and a namespace before any work is trusted to them.

Invariant: a launcher submits, and a worker claims, nothing before these guards passed once in its
process.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

import redis.exceptions

from ..version import SCHEMA_VERSION
from ..vocabulary.errors import UnfitServer, WrongInstance
from .connection import SyncConnection
from .scripts import Call, text

#: Oldest servers with what the scripts use.
OLDEST_REDIS = (7, 0)
OLDEST_VALKEY = (7, 2)


def bind_namespace(instance_id: str) -> Call[tuple[str, int]]:
    """Bind the namespace to a Dagster instance, or learn to whom it belongs."""
    return Call(
        "guard",
        [instance_id, str(SCHEMA_VERSION)],
        lambda answer: (text(answer[0]), int(answer[1])),
    )


def check_server(url: str, info: Mapping[str, Any], eviction_policy: str | None) -> None:
    """Check what a server says of itself.

    Args:
        url: Its url, for the error.
        info: Its INFO, as redis-py parses it.
        eviction_policy: ``maxmemory-policy``, or None when the server does not tell (ACL).

    Raises:
        UnfitServer: It is too old, or may evict keys.
    """
    name, oldest = (
        ("Valkey", OLDEST_VALKEY) if "valkey_version" in info else ("Redis", OLDEST_REDIS)
    )
    version = str(info.get("valkey_version") or info.get("redis_version") or "0")
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < oldest:
        wanted = ".".join(str(part) for part in oldest)
        raise UnfitServer(
            url,
            f"it is {name} {version}; the kit needs {name} {wanted} or newer. Update the server.",
        )
    if eviction_policy not in (None, "noeviction"):
        raise UnfitServer(
            url,
            f"its maxmemory-policy is {eviction_policy!r}, which throws work away when memory is "
            "full. Set maxmemory-policy to noeviction.",
        )


def check_broker(connection: SyncConnection, instance_id: str) -> None:
    """Check the server, then bind the namespace to this Dagster instance.

    Args:
        connection: The broker.
        instance_id: The run storage id of the Dagster instance.

    Raises:
        UnfitServer: It is too old or may evict keys.
        WrongInstance: The namespace belongs to another instance, or to a newer release.
        BrokerUnavailable: No answer.
        BrokerRefused: Wrong password or missing rights.
    """
    check_server(connection.url, *_said_of_itself(connection))
    owner, schema = connection.run(bind_namespace(instance_id))
    namespace = connection.settings.namespace
    _check_owner(connection, owner, instance_id)
    if schema > SCHEMA_VERSION:
        raise WrongInstance(
            connection.url,
            f"namespace {namespace!r} is written in schema {schema} and this release knows "
            f"{SCHEMA_VERSION}. Update dagster-taskiq-kit here.",
        )


def check_instance(connection: SyncConnection, instance_id: str) -> None:
    """Check that a namespace is of this Dagster instance, before anybody judges one by the other.

    It binds nothing: a namespace that no instance has is nobody else's.

    Args:
        connection: The broker.
        instance_id: The run storage id of the Dagster instance.

    Raises:
        WrongInstance: The namespace belongs to another instance.
        BrokerUnavailable: No answer.
    """
    key = connection.keys.name("instance")
    owner = connection.retrying(lambda: connection.client.get(key))
    if owner is not None:
        _check_owner(connection, text(owner), instance_id)


def _check_owner(connection: SyncConnection, owner: str, instance_id: str) -> None:
    if owner != instance_id:
        raise WrongInstance(
            connection.url,
            f"namespace {connection.settings.namespace!r} belongs to Dagster instance {owner}, and "
            f"this is instance {instance_id}. Give each instance a namespace of its own (setting "
            "`namespace`, or DAGSTER_TASKIQ_NAMESPACE), or point DAGSTER_HOME at the right "
            "instance.",
        )


def _said_of_itself(connection: SyncConnection) -> tuple[Mapping[str, Any], str | None]:
    """Return what the server says of itself; its release alone where it does not tell the rest.

    Managed servers deny INFO or have renamed it. What is unknown is no reason to refuse: status and
    doctor say that they cannot judge it.
    """

    def ask() -> tuple[Mapping[str, Any], str | None]:
        client: Any = connection.client
        with contextlib.suppress(redis.exceptions.ResponseError):
            info = client.info("server", "memory")
            return info, info.get("maxmemory_policy")
        # Scripts know the release since Redis 7.0, and every Valkey says the Redis it grew from.
        release = client.eval("return redis.REDIS_VERSION or '0'", 1, connection.keys.prefix)
        return {"redis_version": text(release)}, None

    return connection.retrying(ask)
