"""The wire between worker, fork server and child: packets on a socket pair.

A packet is one line of JSON, its *header*; where the header says ``size``, so many bytes follow,
its *body*. A message to execute travels as the body, which a fork server passes on unread.

Invariant: a packet is whole or is not there; the end of the stream means that the other side is
gone. Sending and receiving take time that is linear in what is sent, and a :class:`PatientWire`
never waits for the other side.
"""

import json
import socket
from collections import deque
from collections.abc import Iterator
from typing import Any

Packet = dict[str, Any]
_CHUNK_BYTES = 262_144


def pack(*, body: bytes = b"", **header: Any) -> bytes:
    """Return the bytes of one packet.

    Args:
        body: What follows the header.
        header: The header's fields.
    """
    if body:
        header["size"] = len(body)
    return b"".join((json.dumps(header, separators=(",", ":")).encode(), b"\n", body))


class Wire:
    """One end of a wire for a child, which has nothing else to do while it waits.

    Args:
        end: The socket; the wire owns it.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(True)
        self._socket = end
        self._arriving = end.makefile("rb")

    def send(self, **header: Any) -> bool:
        """Send one packet; False when the other side is gone."""
        try:
            self._socket.sendall(pack(**header))
        except OSError:
            return False
        return True

    def receive(self) -> Packet | None:
        """Wait for one packet, its body under ``body``; None when the other side is gone."""
        try:
            line = self._arriving.readline()
            if not line.endswith(b"\n"):
                return None
            packet: Packet = json.loads(line)
            packet["body"] = self._arriving.read(packet.get("size", 0))
        except OSError:
            return None
        return packet


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
        self._header: Packet | None = None

    def fileno(self) -> int:
        """Return the descriptor, to select on."""
        return self._socket.fileno()

    def send(self, *, body: bytes = b"", **header: Any) -> None:
        """Send one packet, or keep it for :meth:`flush`; that the other side is gone is read.

        Args:
            body: What follows the header.
            header: The header's fields.
        """
        packet = pack(body=body, **header)
        self._outbox.append(memoryview(packet))
        self.unsent_bytes += len(packet)
        self.flush()

    def flush(self) -> None:
        """Send what is kept, as far as the socket takes it."""
        while self._outbox:
            try:
                sent = self._socket.send(self._outbox[0])
            except BlockingIOError:
                return
            except OSError:  # the other side is gone: nobody is left to be told
                self._outbox.clear()
                self.unsent_bytes = 0
                return
            self.unsent_bytes -= sent
            if sent == len(self._outbox[0]):
                self._outbox.popleft()
            else:
                self._outbox[0] = self._outbox[0][sent:]

    def arrived(self) -> Iterator[Packet]:
        """Read once what the socket holds; yield whole packets, each with its body under ``body``.

        Raises:
            EOFError: The other side is gone.
            BlockingIOError: Nothing has arrived.
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
            packet = self._header
            if packet is None:
                end = self._arrived.find(b"\n", searched)
                if end < 0:
                    return
                packet = self._header = dict(json.loads(self._arrived[:end]))
                del self._arrived[: end + 1]
            size = packet.get("size", 0)
            if len(self._arrived) < size:
                return
            self._header = None
            packet["body"] = bytes(self._arrived[:size])
            del self._arrived[:size]
            searched = 0
            yield packet

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
