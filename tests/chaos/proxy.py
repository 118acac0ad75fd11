"""A TCP proxy that a test can cut, stall and mend."""

import contextlib
import socket
import threading
from urllib.parse import parse_qs, urlsplit


class Proxy:
    """Forwards connections to a target, until it is cut.

    A cut proxy refuses and resets; a stalled one accepts and says nothing. One that holds back lets
    through what clients say, and no answer.
    """

    def __init__(self, target: tuple[str, int] | str) -> None:
        self._target = target
        self.target_url = ""
        self.accepted = 0
        self._cut = False
        self._stalled = threading.Event()
        self._answers = threading.Event()
        self._answers.set()
        self._break_at: bytes | None = None
        self._after_it = False
        #: Ends of connections whose next answer is swallowed with the connection.
        self._doomed: set[socket.socket] = set()
        self.broke = threading.Event()
        self._pairs: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @classmethod
    def to(cls, url: str) -> "Proxy":
        parts = urlsplit(url)
        folder = parse_qs(parts.query).get("host")
        # PostgreSQL of the tests listens on a unix socket.
        target = f"{folder[0]}/.s.PGSQL.5432" if folder else (parts.hostname or "", parts.port or 0)
        made = cls(target)
        made.target_url = url
        return made

    def url(self, url: str) -> str:
        """Return ``url``, through the proxy."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        through = parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}")
        return (through._replace(query="") if "host=" in parts.query else through).geturl()

    def _connect(self) -> socket.socket:
        if isinstance(self._target, str):
            upstream = socket.socket(socket.AF_UNIX)
            upstream.connect(self._target)
            return upstream
        return socket.create_connection(self._target)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self.accepted += 1
            if self._cut:
                client.close()
                continue
            try:
                upstream = self._connect()
            except OSError:
                client.close()
                continue
            with self._lock:
                self._pairs |= {client, upstream}
            for source, sink in ((client, upstream), (upstream, client)):
                answers = source is upstream
                threading.Thread(
                    target=self._pump, args=(source, sink, answers), daemon=True
                ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                if answers:
                    self._answers.wait()
                while self._stalled.is_set():
                    threading.Event().wait(0.02)
                if source in self._doomed:
                    self.broke.set()
                    break
                if self._break_at is not None and self._break_at in chunk:
                    self._break_at = None
                    if not self._after_it:
                        self.broke.set()
                        break
                    self._doomed.add(sink)
                sink.sendall(chunk)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
            with self._lock:
                self._pairs.discard(end)

    def reset(self) -> None:
        """Reset every connection; new ones are let through."""
        with self._lock:
            pairs = list(self._pairs)
        for end in pairs:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def break_at(self, said: bytes, *, after_it: bool) -> None:
        """Break the connection on which ``said`` comes next, before it is sent on, or answered.

        Args:
            said: What to wait for in what clients send.
            after_it: Whether the target gets it; its answer is lost.
        """
        self.broke.clear()
        self._after_it = after_it
        self._break_at = said

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        self._cut = True
        self.reset()

    def stall(self) -> None:
        """Hold back everything that is sent."""
        self._stalled.set()

    def hold_back_answers(self) -> None:
        """Let what clients say through, and no answer."""
        self._answers.clear()

    def mend(self) -> None:
        """Let everything through again."""
        self._cut = False
        self._answers.set()
        self._stalled.clear()

    def close(self) -> None:
        self.mend()
        self._server.close()
        self.reset()
