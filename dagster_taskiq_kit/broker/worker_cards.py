"""The registry of workers: a card for each, good for as long as its lease.

Invariant: a card is keyed by worker instance (never by host or name), and only its own worker
writes it, with every renewal. An expired lease says that nothing was heard, not that the worker is
dead.
"""

import json
import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Literal, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from ..host.boot_time import boot_time_s
from ..version import SCHEMA_VERSION, __version__
from .connection import SyncConnection
from .scripts import Call, OfDeployment, text

_ORDER_TTL_S = 3_600


@with_config(ConfigDict(allow_inf_nan=False, extra="ignore"))
@dataclass(frozen=True)
class InUse:
    """What a message that executes uses.

    Args:
        memory_bytes: Memory of its process and what that started; shared memory in part.
        cpu_s: Processor time of theirs.
    """

    memory_bytes: int
    cpu_s: float


@with_config(ConfigDict(allow_inf_nan=False, extra="ignore"))
@dataclass(frozen=True)
class WorkerCard:
    """What a worker says of itself.

    Args:
        worker_id: Unique id of this worker process.
        name: Its name, for people.
        host: Host name.
        pid: Process id on that host.
        queues: Where it takes work from.
        slots: How many steps and tasks it executes at once.
        run_slots: How many runs.
        locations: Code locations it serves.
        state: ``alive``, ``draining``, or ``unready`` while its code does not load any more: it
            claims nothing then.
        trouble: Why it is unready.
        busy_slots: Slots in use.
        busy_run_slots: Run slots in use.
        executing: Task ids it executes.
        version: Release of the kit.
        schema: Newest schema of messages that it reads.
        dagster_version: Release of Dagster.
        storage_id: Marker in the storage folder of its Dagster instance: two workers that say
            different ones do not share it. Empty when it could not be read.
        storage: That folder, or why it could not be read.
        clock_s: Its own clock when it said this, seconds since 1970.
        boot_s: The same on its host's boot clock.
        modes: How it serves each location: ``warm``, or ``layered`` or ``cold`` with why.
        stale: Why it serves a location with older code than its files, where it does.
        began_s: When it began, by its own clock, seconds since 1970; 0 when it does not say.
        succeeded: How many messages it has executed well.
        failed: How many failed or crashed on it.
        memory_bytes: What it uses with all its processes, at its last look.
        busy_cpus: How many processors they kept busy then, on average.
        using: What each message that executes has used by then, by its id.
    """

    worker_id: str
    name: str
    host: str
    pid: int
    queues: Sequence[str]
    slots: int
    run_slots: int
    locations: Sequence[str]
    state: str = "alive"
    trouble: str = ""
    busy_slots: int = 0
    busy_run_slots: int = 0
    executing: Sequence[str] = field(default_factory=list)
    version: str = __version__
    schema: int = SCHEMA_VERSION
    dagster_version: str = ""
    storage_id: str = ""
    storage: str = ""
    clock_s: float = 0.0
    boot_s: float = 0.0
    modes: Mapping[str, str] = field(default_factory=dict)
    stale: Mapping[str, str] = field(default_factory=dict)
    began_s: float = 0.0
    succeeded: int = 0
    failed: int = 0
    memory_bytes: int = 0
    busy_cpus: float = 0.0
    using: Mapping[str, InUse] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the card as the broker stores it."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, card: str | bytes) -> "WorkerCard":
        """Read a stored card; fields of a newer release are passed over.

        Raises:
            ValueError: It is none.
        """
        try:
            return _reader().validate_json(card, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"a card: {where} {first['msg']}") from None


@cache
def _reader() -> "TypeAdapter[WorkerCard]":
    return TypeAdapter(WorkerCard)


def age_by_own_clock_s(card: WorkerCard) -> float:
    """Return how old a card is by this machine's clocks; as good as they agree with its host's."""
    if card.boot_s and card.host == socket.gethostname() and card.boot_s <= boot_time_s():
        return boot_time_s() - card.boot_s
    return max(0.0, time.time() - card.clock_s)


def new_worker_id(name: str) -> str:
    """Return a worker id that no other process has or will have."""
    return f"{name}-{secrets.token_hex(4)}"


def default_worker_name() -> str:
    """Return the name of a worker that was given none: its host and pid."""
    return f"{socket.gethostname()}-{os.getpid()}"


Order = Literal["revoked", "cancel", "forgotten"]


@dataclass(frozen=True)
class Holding:
    """What a worker says of one message that it holds.

    Args:
        token: Owner token of the delivery.
        began: Whether the broker allowed it to begin.
    """

    token: str
    began: bool


def renew(
    card: WorkerCard,
    lease_s: float,
    held: Mapping[str, Holding],
    instance_id: str,
) -> Call[Mapping[str, Order]]:
    """Renew a worker's lease and fetch orders for what it holds.

    Args:
        card: The card as it is now.
        lease_s: How long the lease is good from now.
        held: Every message it holds, by task id.
        instance_id: The Dagster instance, which a server that forgot everything is told again.

    Returns:
        A call that answers with orders by task id: ``revoked``, ``cancel``, or ``forgotten`` for
        what the broker does not know to be running there.
    """

    def read(answer: Sequence[bytes]) -> Mapping[str, Order]:
        flat = [text(part) for part in answer]
        return cast("Mapping[str, Order]", dict(zip(flat[::2], flat[1::2], strict=True)))

    triples = [
        part
        for task_id, holding in held.items()
        for part in (task_id, holding.token, "1" if holding.began else "0")
    ]
    arguments = [
        card.worker_id, str(int(lease_s * 1000)), card.to_json(), instance_id,
        OfDeployment.OUTCOME_TTL_S, *triples,
    ]  # fmt: skip
    return Call("renew", arguments, read)


def retire(worker_id: str) -> Call[int]:
    """Take a worker that ended cleanly out of the registry; answers what it still holds."""
    return Call("retire", [worker_id], int)


@dataclass(frozen=True)
class LastSeen:
    """A worker's card as it was last written.

    Args:
        card: The card.
        silent_s: Seconds since then, by the broker's clock or ours, whichever says less.
    """

    card: WorkerCard
    silent_s: float


def last_seen(connection: SyncConnection, worker_id: str) -> LastSeen | None:
    """Return a worker's last card; None when it is not kept any more.

    Raises:
        BrokerUnavailable: No answer within ``give_up_s``.
    """

    def ask() -> LastSeen | None:
        key = connection.keys.name("worker", worker_id)
        card, renewed_at = connection.client.hmget(key, "card", "renewed_at")
        if card is None or renewed_at is None:
            return None
        try:
            said, at_s = WorkerCard.from_json(card), int(renewed_at) / 1000
        except ValueError:
            return None
        seconds, micros = connection.client.time()
        silent_s = seconds + micros / 1e6 - at_s
        return LastSeen(said, max(0.0, min(silent_s, age_by_own_clock_s(said))))

    return connection.retrying(ask)


def order(connection: SyncConnection, worker_id: str, what: Literal["drain", "reload"]) -> None:
    """Order a worker to do something.

    Args:
        connection: The broker.
        worker_id: The worker.
        what: ``drain``: to take no new work, to hand over what it can, and to end. ``reload``: to
            load its code again.

    Raises:
        BrokerUnavailable: No answer within ``give_up_s``.
    """
    key = connection.keys.name("orders", worker_id)

    def ask() -> None:
        pipeline = connection.client.pipeline()
        pipeline.xadd(key, {"order": what})
        pipeline.expire(key, _ORDER_TTL_S)
        pipeline.execute()

    connection.retrying(ask)
