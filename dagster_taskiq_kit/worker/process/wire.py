"""The wire between worker, fork server and child: packets on a socket pair.

A packet (``protocol.py``) is one line of JSON, its *header*; where the header says ``size``, so
many bytes follow, its *body*. A message to execute travels as the body, which a fork server passes
on unread.

Invariant: a packet is whole or is not there; the end of the stream means that the other side is
gone. Sending and receiving take time that is linear in what is sent, and a :class:`PatientWire`
never waits for the other side.
"""

import json
import socket
import threading
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

from ...host.deferred_signals import DeferredSignals
from ...host.polling import readable
from .protocol import Packet, name_of, packet_of, values_of

_CHUNK_BYTES = 262_144
#: Packets that are given to the kernel in one call.
_MOST_AT_ONCE = 64


def pack(packet: Packet, key: str = "") -> bytes:
    """Return the bytes of one packet.

    Args:
        packet: What is said.
        key: The delivery that it is about; '' for none.
    """
    header: dict[str, Any] = {"op": name_of(packet), **values_of(packet)}
    if key:
        header["key"] = key
    body: bytes = header.pop("body", b"")
    if body:
        header["size"] = len(body)
    return b"".join((json.dumps(header, separators=(",", ":")).encode(), b"\n", body))


def unpack(header: dict[str, Any], body: bytes) -> tuple[Packet, str]:
    """Return a packet and the key of the delivery that it is about.

    Raises:
        ProtocolError: There is no such packet.
    """
    name, key = str(header.pop("op", "")), str(header.pop("key", ""))
    if header.pop("size", 0):
        header["body"] = body
    return packet_of(name, header), key


class Wire:
    """One end of a wire for a child, which has nothing else to do while it waits.

    Its threads may send at once.

    Args:
        end: The socket; the wire owns it.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(True)
        self._socket = end
        self._arrived = bytearray()
        # Re-entered by what the garbage collector finalizes, between packets.
        self._sending = threading.RLock()

    def send(self, packet: Packet) -> bool:
        """Send one packet, whole, whatever signal comes; False when the other side is gone."""
        with DeferredSignals():
            return self.send_undisturbed(packet)

    def send_undisturbed(self, *packets: Packet) -> bool:
        """Send packets, for a caller that has deferred signals; False as for :meth:`send`."""
        packed = b"".join([pack(packet) for packet in packets])
        try:
            with self._sending:
                self._socket.sendall(packed)
        except OSError:
            return False
        return True

    def receive(self) -> Packet | None:
        """Wait for one packet; None when the other side is gone.

        Raises:
            ProtocolError: It is no packet that there is.
        """
        while (packet := self._next_arrived()) is None:
            if not self._read():
                return None
        return packet

    def receive_within(self, timeout_s: float) -> Packet | None:
        """Wait a while for one packet; None when none has come.

        Raises:
            EOFError: The other side is gone.
            ProtocolError: It is no packet that there is.
        """
        packet = self._next_arrived()
        if packet is None and readable([self._socket], timeout_s):
            if not self._read():
                raise EOFError
            packet = self._next_arrived()
        return packet

    def _read(self) -> bool:
        try:
            chunk = self._socket.recv(_CHUNK_BYTES)
        except OSError:
            chunk = b""
        self._arrived += chunk
        return bool(chunk)

    def _next_arrived(self) -> Packet | None:
        end = self._arrived.find(b"\n")
        if end < 0:
            return None
        header = dict(json.loads(self._arrived[:end]))
        whole = end + 1 + header.get("size", 0)
        if len(self._arrived) < whole:
            return None
        body = bytes(self._arrived[end + 1 : whole])
        del self._arrived[:whole]
        return unpack(header, body)[0]


class PatientWire:
    """One end of a wire for a select loop: what cannot be sent now is kept until it can.

    Args:
        end: The socket; the wire owns it.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._outbox: deque[memoryview] = deque()
        self.unsent_bytes = 0
        self._arrived = bytearray()
        self._header: dict[str, Any] | None = None

    def fileno(self) -> int:
        """Return the descriptor, to select on."""
        return self._socket.fileno()

    def send(self, packet: Packet, key: str = "", *, keep: bool = False) -> None:
        """Send one packet, or keep it for :meth:`flush`; that the other side is gone is read.

        Args:
            packet: What is said.
            key: The delivery that it is about; '' for none.
            keep: Whether it goes with the next packet, or with :meth:`flush`.
        """
        packed = pack(packet, key)
        self._outbox.append(memoryview(packed))
        self.unsent_bytes += len(packed)
        if not keep:
            self.flush()

    def flush(self) -> None:
        """Send what is kept, as far as the socket takes it."""
        while self._outbox:
            try:
                sent = self._socket.sendmsg(list(islice(self._outbox, _MOST_AT_ONCE)))
            except BlockingIOError:
                return
            except OSError:  # the other side is gone: nobody is left to be told
                self._outbox.clear()
                self.unsent_bytes = 0
                return
            self.unsent_bytes -= sent
            while sent:
                first = self._outbox[0]
                if sent < len(first):
                    self._outbox[0] = first[sent:]
                    break
                sent -= len(first)
                self._outbox.popleft()

    def arrived(self) -> Iterator[tuple[Packet, str]]:
        """Read once what the socket holds; yield whole packets, each with its delivery's key or ''.

        Raises:
            EOFError: The other side is gone.
            BlockingIOError: Nothing has arrived.
            ProtocolError: Something is no packet that there is.
        """
        try:
            chunk = self._socket.recv(_CHUNK_BYTES)
        except BlockingIOError:
            raise
        except OSError:
            chunk = b""
        if not chunk:
            raise EOFError
        searched = len(self._arrived)
        self._arrived += chunk
        while True:
            header = self._header
            if header is None:
                end = self._arrived.find(b"\n", searched)
                if end < 0:
                    return
                header = self._header = dict(json.loads(self._arrived[:end]))
                del self._arrived[: end + 1]
            size = header.get("size", 0)
            if len(self._arrived) < size:
                return
            self._header = None
            body = bytes(self._arrived[:size])
            del self._arrived[:size]
            searched = 0
            yield unpack(header, body)

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
