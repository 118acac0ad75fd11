"""What a worker hears of one delivery from its fork server, packet by packet.

Invariant: a packet that may not be said, or not now, is an error and not a guess.
"""

import asyncio
import json
from collections.abc import AsyncIterator

from ...vocabulary.errors import ProtocolError
from .protocol import (
    LAST,
    TABLE,
    Expired,
    Lingered,
    Output,
    Packet,
    Party,
    Start,
    Started,
    check_sender,
    name_of,
)
from .wire import unpack

#: Said by a fork server on its own account, whatever its child has said and still says.
_BESIDE = (Expired, Lingered)


class PacketSequence:
    """The order of what is said of one delivery, as its worker hears it."""

    def __init__(self) -> None:
        self._last: type = Start

    def check(self, packet: Packet) -> None:
        """Check that a packet may come now.

        Raises:
            ProtocolError: It may not.
        """
        kind = type(packet)
        follows = TABLE[kind].follows
        if follows and self._last not in follows:
            raise ProtocolError(
                f"packet {name_of(packet)!r} came after {self._last.__name__.lower()!r}"
            )
        if follows and kind not in _BESIDE:
            self._last = kind


class Execution:
    """One delivery in a child.

    Args:
        key: What worker and fork server call it.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.pid: int | None = None
        #: Its last packet was taken.
        self.over = False
        self._packets: asyncio.Queue[Packet] = asyncio.Queue()
        self._order = PacketSequence()
        self._told_last = False

    def check(self, packet: Packet) -> None:
        """Check that a packet may be said of it now.

        Raises:
            ProtocolError: It may not.
        """
        self._order.check(packet)

    def hear(self, packet: Packet) -> None:
        """Take what the fork server said of it."""
        if isinstance(packet, Started):
            self.pid = packet.pid
            return
        tells = isinstance(packet, Output)
        if tells and self._told_last and not self._packets.empty():
            return  # it is told already that there is more in the log
        self._packets.put_nowait(packet)
        self._told_last = tells

    async def packets(self) -> AsyncIterator[Packet]:
        """Yield what happens to it; the last one is one of ``LAST``."""
        while not self.over:
            packet = await self._packets.get()
            self.over = isinstance(packet, LAST)
            yield packet


async def next_packet(reader: asyncio.StreamReader) -> tuple[Packet, str] | None:
    """Return the next packet and the key of its delivery; None when the other end is gone.

    Raises:
        ProtocolError: It is no packet that a fork server or its child may say.
    """
    try:
        line = await reader.readline()
    except ConnectionError:  # it died with orders of ours unread
        return None
    if not line:
        return None
    header = json.loads(line)
    size = header.get("size", 0)
    try:
        body = await reader.readexactly(size) if size else b""
    except (ConnectionError, asyncio.IncompleteReadError):
        return None
    packet, key = unpack(header, body)
    check_sender(packet, Party.SERVER, Party.CHILD)
    return packet, key
