"""The wire between worker, fork server and child: one JSON object a line, on a socket pair.

Invariant: a line is whole or is not there; the end of the stream means that the other side is gone.
"""

import json
import socket
from collections.abc import Iterator
from typing import Any

Packet = dict[str, Any]
_CHUNK_BYTES = 65_536


def pack(**packet: Any) -> bytes:
    """Return the bytes of one packet."""
    return json.dumps(packet, separators=(",", ":")).encode() + b"\n"


class Wire:
    """One end of a wire, for code without an event loop.

    Args:
        end: The socket; the wire owns it.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._buffer = bytearray()

    def fileno(self) -> int:
        """Return the descriptor, to select on."""
        return self._socket.fileno()

    def send(self, **packet: Any) -> bool:
        """Send one packet; False when the other side is gone."""
        try:
            self._socket.sendall(pack(**packet))
        except OSError:
            return False
        return True

    def receive(self) -> Packet | None:
        """Wait for one packet; None when the other side is gone."""
        while True:
            line, found, rest = bytes(self._buffer).partition(b"\n")
            if found:
                self._buffer[:] = rest
                return json.loads(line)
            if not self._fill():
                return None

    def arrived(self) -> Iterator[Packet]:
        """Read what the socket holds, which select said is readable; yield whole packets.

        Raises:
            EOFError: The other side is gone.
        """
        if not self._fill():
            raise EOFError
        *lines, rest = bytes(self._buffer).split(b"\n")
        self._buffer[:] = rest
        for line in lines:
            yield json.loads(line)

    def _fill(self) -> bool:
        try:
            chunk = self._socket.recv(_CHUNK_BYTES)
        except OSError:
            return False
        self._buffer += chunk
        return bool(chunk)

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
