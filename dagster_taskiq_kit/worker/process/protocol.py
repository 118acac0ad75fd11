"""What worker, fork server and child say to each other: every packet, from whom to whom, and when.

Invariant: what arrives is one of these packets, with its fields and nothing else; a packet of a
delivery comes in an order that the table allows. Anything else is a defect of the kit, is told as
that, and ends the process that said it, instead of being guessed at.

A packet about a delivery carries the delivery's key on the wire, beside its fields: a child does
not know its own, its fork server adds it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from ...vocabulary.errors import ProtocolError

# ---- a worker to its fork server


@dataclass(frozen=True)
class Spare:
    """So many children shall wait ahead of need."""

    count: int


@dataclass(frozen=True)
class Deadline:
    """The children may go on until then; boot time, in seconds."""

    boot_time_s: float


@dataclass(frozen=True)
class Signal:
    """Send a signal to the child of a delivery; SIGKILL goes to all that it has started, too."""

    signal: int


# ---- a worker, through its fork server, to a child


@dataclass(frozen=True)
class Start:
    """Execute a message, once you are allowed to.

    Args:
        kind: What it asks for.
        place: Where it waited and who took it, as data of ``Place``.
        relays: The worker stores the events of its step.
        body: The message, as JSON.
        group: Whose steps one child may execute, one after the other; '' for a child of its own.
        fuse_limit: How many of them at most.
    """

    kind: str
    place: Mapping[str, Any]
    relays: bool
    body: bytes = field(repr=False)
    group: str = ""
    fuse_limit: int = 0


@dataclass(frozen=True)
class Go:
    """You may begin: the record is running, and yours.

    Args:
        body: What a step asks the database first, read by the worker; b"" for: ask it yourself.
    """

    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Stop:
    """You may not begin, or need not stay, and shall leave."""


@dataclass(frozen=True)
class Committed:
    """All events that you said before a barrier are in the log.

    Args:
        number: The barrier's.
        failure: Why they are not; '' when they are.
    """

    number: int
    failure: str = ""


# ---- a fork server to a child


@dataclass(frozen=True)
class Guarded:
    """Your guardian knows of you: from here on you may execute code that starts something."""


# ---- a fork server to its guardian


@dataclass(frozen=True)
class Guard:
    """A child was made, or has ended.

    Args:
        pid: Its process.
        lives: Whether it is there.
    """

    pid: int
    lives: bool


# ---- a child to its fork server, which passes it on to the worker


@dataclass(frozen=True)
class Imported:
    """The user's code was imported in the child itself."""

    seconds: float


@dataclass(frozen=True)
class Begin:
    """May the body begin?"""


@dataclass(frozen=True)
class Runs:
    """A run has begun; it can be handed over to another worker, or not."""

    resumable: bool


@dataclass(frozen=True)
class Event:
    """Store an event of my step, after those that I said before.

    Args:
        body: Its row, packed.
    """

    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Barrier:
    """Tell me when all events that I said are in the log.

    Args:
        number: From 1.
    """

    number: int


@dataclass(frozen=True)
class Output:
    """The step has written an output that others may wait for."""


@dataclass(frozen=True)
class Prints:
    """Where the step prints to: local files by ``out`` and ``err``."""

    files: Mapping[str, str]


@dataclass(frozen=True)
class Done:
    """The message has ended; the process is about to leave, or rests.

    Args:
        outcome: A terminal state.
        detail: What the orchestrator and an operator may want to know.
        used: What it has used, as data of ``Usage``.
    """

    outcome: str
    detail: Mapping[str, Any]
    used: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rests:
    """I am here for another message of the same group; to its fork server alone."""


# ---- a fork server to its worker


@dataclass(frozen=True)
class Ready:
    """It has loaded its code and can take deliveries.

    Args:
        pid: Its process.
        mode: ``warm``, ``layered`` or ``cold``.
        pointers: How messages can name the code.
        tasks: Names of the users' own taskiq tasks in it.
        source: From which files the code was imported, as data.
        dagster: Version of its Dagster.
        why: Why it is not warm.
        stores: Why its children store the events of their steps themselves; '' when they need not.
    """

    pid: int
    mode: str
    pointers: Sequence[str]
    tasks: Sequence[str]
    source: Mapping[str, Any]
    dagster: str
    why: Sequence[str] = ()
    stores: str = ""


@dataclass(frozen=True)
class Failed:
    """Its code did not load; it ends."""

    location: str
    traceback: str


@dataclass(frozen=True)
class Vouched:
    """It has heard a deadline."""


@dataclass(frozen=True)
class Started:
    """A child has the delivery."""

    pid: int


@dataclass(frozen=True)
class Expired:
    """The child is killed: its deadline has passed."""


@dataclass(frozen=True)
class Lingered:
    """The child is killed: it did not leave though its message had ended."""


@dataclass(frozen=True)
class Exited:
    """The child is gone with all that it had started; the last packet of a delivery.

    Args:
        pid: Its process; None when there never was one.
        exit_code: As of ``waitpid``, negative for a signal; None when its fork server died first.
        used: What it has used beside what it told itself, as data of ``Usage``.
    """

    pid: int | None
    exit_code: int | None
    used: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rested:
    """The child stays for another message of its group; the last packet of a delivery.

    Args:
        pid: Its process.
    """

    pid: int


#: One of them is the last packet of each delivery.
LAST = (Exited, Rested)

Packet = (
    Spare | Deadline | Signal | Start | Go | Stop | Committed | Guarded | Guard | Imported | Begin
    | Runs | Event | Barrier | Output | Prints | Done | Rests | Ready | Failed | Vouched | Started
    | Expired | Lingered | Exited | Rested
)  # fmt: skip


class Party(Enum):
    """Who speaks."""

    WORKER = "worker"
    SERVER = "fork server"
    CHILD = "child"
    GUARDIAN = "guardian"


@dataclass(frozen=True)
class Row:
    """Who says a packet to whom, and what a delivery must have said before.

    Args:
        sender: Who says it.
        receivers: Who hears it; a fork server that only passes it on is left out.
        follows: The previous packet of the same delivery must be one of these; () for no rule.
    """

    sender: Party
    receivers: Sequence[Party]
    follows: Sequence[type] = ()


_OF_A_BODY = (Begin, Event, Barrier, Output, Prints)
_BEFORE_THE_END = (Started, Runs, *_OF_A_BODY)

#: The protocol.
TABLE: Mapping[type, Row] = {
    Ready: Row(Party.SERVER, [Party.WORKER]),
    Failed: Row(Party.SERVER, [Party.WORKER]),
    Spare: Row(Party.WORKER, [Party.SERVER]),
    Deadline: Row(Party.WORKER, [Party.SERVER]),
    Vouched: Row(Party.SERVER, [Party.WORKER]),
    Guarded: Row(Party.SERVER, [Party.CHILD]),
    Guard: Row(Party.SERVER, [Party.GUARDIAN]),
    Imported: Row(Party.CHILD, [Party.WORKER]),
    Start: Row(Party.WORKER, [Party.SERVER, Party.CHILD]),
    Started: Row(Party.SERVER, [Party.WORKER], [Start]),
    Begin: Row(Party.CHILD, [Party.WORKER], [Started]),
    Go: Row(Party.WORKER, [Party.SERVER, Party.CHILD], [Begin]),
    # By itself a fork server says it to a child that has rested for long.
    Stop: Row(Party.WORKER, [Party.SERVER, Party.CHILD], [Begin]),
    Runs: Row(Party.CHILD, [Party.WORKER], [Begin]),
    Event: Row(Party.CHILD, [Party.WORKER], _OF_A_BODY),
    Barrier: Row(Party.CHILD, [Party.WORKER], _OF_A_BODY),
    Committed: Row(Party.WORKER, [Party.SERVER, Party.CHILD], [Barrier]),
    Prints: Row(Party.CHILD, [Party.WORKER], _OF_A_BODY),
    Output: Row(Party.CHILD, [Party.WORKER], _OF_A_BODY),
    Signal: Row(Party.WORKER, [Party.SERVER]),
    # A child that cannot even read its message ends without a question.
    Done: Row(Party.CHILD, [Party.WORKER], _BEFORE_THE_END),
    Rests: Row(Party.CHILD, [Party.SERVER]),
    Rested: Row(Party.SERVER, [Party.WORKER], [Done]),
    Expired: Row(Party.SERVER, [Party.WORKER], [*_BEFORE_THE_END, Done]),
    Lingered: Row(Party.SERVER, [Party.WORKER], [*_BEFORE_THE_END, Done]),
    Exited: Row(Party.SERVER, [Party.WORKER], [Start, *_BEFORE_THE_END, Done]),
}

BY_NAME: Mapping[str, type] = {each.__name__.lower(): each for each in TABLE}
_FIELDS = {each: frozenset(one.name for one in fields(each)) for each in TABLE}


def name_of(packet: Packet) -> str:
    """Return what a packet is called on the wire."""
    return type(packet).__name__.lower()


def values_of(packet: Packet) -> dict[str, Any]:
    """Return the fields of a packet."""
    return {name: getattr(packet, name) for name in _FIELDS[type(packet)]}


def packet_of(name: str, values: Mapping[str, Any]) -> Packet:
    """Return the packet of some name with some fields.

    Raises:
        ProtocolError: There is no such packet, or it has other fields.
    """
    kind = BY_NAME.get(name)
    if kind is None:
        raise ProtocolError(f"there is no packet {name!r}")
    if not values.keys() <= _FIELDS[kind]:
        strange = ", ".join(sorted(values.keys() - _FIELDS[kind]))
        raise ProtocolError(f"packet {name!r} has no field {strange}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ProtocolError(f"packet {name!r}: {error}") from None


def check_sender(packet: Packet, *senders: Party) -> None:
    """Check that a packet may come from where it came from.

    Raises:
        ProtocolError: It may not.
    """
    if TABLE[type(packet)].sender not in senders:
        said = " or ".join(each.value for each in senders)
        raise ProtocolError(f"packet {name_of(packet)!r} is not said by a {said}")
