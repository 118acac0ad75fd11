"""The exporter's server: uvicorn on a socket that was bound before, in a thread of its own.

Invariant: a client that dribbles or says nothing keeps nobody out: who has not sent a request soon
is hung up on, and when very many are sending, who has been at it for longest.
"""

import asyncio
import logging
import socket
import ssl
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..config.settings import TaskiqSettings
from ..vocabulary.errors import ConfigurationError
from .fleet.reader import FleetReader
from .sources import Scrape
from .web import Pages

DEFAULT_PORT = 9808

#: Connections whose request has not arrived as a whole.
MOST_SENDING = 64
_SENT_WITHIN_S = 10.0
#: How long an answer waits for who does not read it.
_READ_WITHIN_S = 20.0
#: What the kernel keeps for who does not read; else it is megabytes for each.
_UNREAD_BYTES = 131_072
#: How long who is being answered may go on when the server ends.
_LEAVE_WITHIN_S = 2


@dataclass(frozen=True)
class ServerOptions:
    """Where and how the exporter answers.

    Args:
        host: Address to bind.
        port: Port; 0 for a free one.
        certificate: File with the TLS certificate chain; None for plain HTTP.
        key: File with its key; None when the certificate's file holds it.
        user: Name for basic auth; None for none.
        password: Password for basic auth.
        links: Where else the page leads: ``ui`` is Dagster's UI.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    certificate: Path | None = None
    key: Path | None = None
    user: str | None = None
    password: str = ""
    links: dict[str, str] = field(default_factory=dict)


class MetricsServer:
    """A running exporter; a context manager.

    Args:
        scrape: What /metrics answers.
        settings: The deployment, for the fleet page.
        options: Where and how.

    Raises:
        ConfigurationError: The port is taken, or the certificate cannot be read.
    """

    def __init__(self, scrape: Scrape, settings: TaskiqSettings, options: ServerOptions) -> None:
        self._options = options
        self._check_certificate()
        self._socket = _bind(options)
        self._fleet = FleetReader(settings, options.links)
        certificate = None if options.certificate is None else str(options.certificate)
        config = uvicorn.Config(
            Pages(scrape, self._fleet, self._is_ending).app(options.user, options.password),
            http=type("_Protocol", (_PatientProtocol,), {"_sending": {}}),
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            log_level=logging.WARNING,
            access_log=False,
            server_header=False,
            ssl_certfile=certificate,
            ssl_keyfile=None if options.key is None else str(options.key),
            timeout_graceful_shutdown=_LEAVE_WITHIN_S,
        )
        self._server = uvicorn.Server(config)
        serve = lambda: self._server.run(sockets=[self._socket])  # noqa: E731
        self._thread = threading.Thread(target=serve, name="http", daemon=True)

    def _check_certificate(self) -> None:
        if self._options.certificate is None:
            return
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._options.certificate, self._options.key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"The certificate {self._options.certificate} cannot be used ({error}): name a PEM "
                "file with the chain, and one with its key.", "tls",
            ) from None  # fmt: skip

    def _is_ending(self) -> bool:
        return self._server.should_exit

    @property
    def url(self) -> str:
        """Where it answers."""
        scheme = "http" if self._options.certificate is None else "https"
        host = f"[{self._options.host}]" if ":" in self._options.host else self._options.host
        return f"{scheme}://{host}:{self._socket.getsockname()[1]}"

    def __enter__(self) -> "MetricsServer":
        self._fleet.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.should_exit = True
        self._thread.join(_LEAVE_WITHIN_S + 3.0)
        self._fleet.__exit__()
        self._socket.close()


def _bind(options: ServerOptions) -> socket.socket:
    """Return a socket that listens; clients wait in it until the server is up."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    made = socket.socket(family)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNREAD_BYTES)
        made.bind((options.host, options.port))
        made.listen(128)
    except (OSError, OverflowError, UnicodeError) as error:
        made.close()
        said = getattr(error, "strerror", None) or "there is no such address"
        raise ConfigurationError(
            f"The exporter cannot listen on {options.host}:{options.port} ({said}): "
            "choose another --host or --port.", "port",
        ) from None  # fmt: skip
    return made


class _PatientProtocol(H11Protocol):
    """One connection; its request must arrive as a whole, and soon."""

    #: Those of one server whose request has not arrived, the oldest first.
    _sending: "dict[_PatientProtocol, None]"
    _too_slow: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for its request."""
        super().connection_made(transport)
        if len(self._sending) >= MOST_SENDING:
            next(iter(self._sending)).hang_up()
        self._sending[self] = None
        self._too_late = self.loop.call_later(_SENT_WITHIN_S, self.hang_up)

    def handle_events(self) -> None:
        """Go on; once its request is being answered, its time is its own."""
        super().handle_events()
        if cast("Any", self).cycle is not None:
            self._has_sent()

    def pause_writing(self) -> None:
        """Wait for who reads, and no longer than it may take."""
        super().pause_writing()
        self._too_slow = self.loop.call_later(_READ_WITHIN_S, self.hang_up)

    def resume_writing(self) -> None:
        """Go on."""
        self._is_reading()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._has_sent()
        self._is_reading()
        super().connection_lost(exc)

    def hang_up(self) -> None:
        """End the connection."""
        self._has_sent()
        self._is_reading()
        self.transport.abort()

    def _is_reading(self) -> None:
        if self._too_slow is not None:
            self._too_slow.cancel()
            self._too_slow = None

    def _has_sent(self) -> None:
        self._too_late.cancel()
        self._sending.pop(self, None)
