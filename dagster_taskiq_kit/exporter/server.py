"""The exporter over HTTP: /metrics, /-/healthy, /-/ready; with TLS and basic auth where asked for.

Invariant: /metrics answers 200 also when the broker does not, and says so in ``up``: a scrape that
fails looks like an exporter that is gone.
"""

import base64
import binascii
import contextlib
import hmac
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import choose_encoder

from ..vocabulary.errors import ConfigurationError
from .sources import Scrape

DEFAULT_PORT = 9808

#: Prometheus scrapes with one connection each; the rest is for people, probes and second scrapers.
MOST_THREADS = 16
#: How long a new request waits for the thread of one that was hung up on.
_ROOM_WITHIN_S = 1.0

Respond = Callable[..., Any]

_INDEX = b"""<!doctype html><title>dagster-taskiq exporter</title>
<h1>dagster-taskiq exporter</h1>
<ul><li><a href="metrics">metrics</a><li><a href="-/healthy">healthy</a>
<li><a href="-/ready">ready</a></ul>
"""


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
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    certificate: Path | None = None
    key: Path | None = None
    user: str | None = None
    password: str = ""


class MetricsServer:
    """A running exporter; a context manager.

    Args:
        scrape: What /metrics answers.
        options: Where and how.

    Raises:
        ConfigurationError: The port is taken, or the certificate cannot be read.
    """

    def __init__(self, scrape: Scrape, options: ServerOptions) -> None:
        # Not asked to describe itself: that would read the broker before anybody scrapes.
        registry = CollectorRegistry(auto_describe=False)
        registry.register(scrape)
        self._metrics = make_wsgi_app(registry)
        self._scrape = scrape
        self._options = options
        self._server = self._bind()
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def _bind(self) -> WSGIServer:
        options = self._options
        server_class = _ServerOnIPv6 if ":" in options.host else _Server
        try:
            server = make_server(options.host, options.port, self._answer, server_class, _Handler)
        except (OSError, OverflowError, UnicodeError) as error:
            said = getattr(error, "strerror", None) or "there is no such address"
            raise ConfigurationError(
                f"The exporter cannot listen on {options.host}:{options.port} ({said}): "
                "choose another --host or --port.", "port",
            ) from None  # fmt: skip
        if options.certificate is not None:
            try:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(options.certificate, options.key)
            except (OSError, ssl.SSLError) as error:
                server.server_close()
                raise ConfigurationError(
                    f"The certificate {options.certificate} cannot be used ({error}): name a PEM "
                    "file with the chain, and one with its key.", "tls",
                ) from None  # fmt: skip
            # The handshake belongs to the thread of its request: a slow client stops nobody.
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        return server

    @property
    def url(self) -> str:
        """Where it answers."""
        scheme = "http" if self._options.certificate is None else "https"
        host = f"[{self._options.host}]" if ":" in self._options.host else self._options.host
        return f"{scheme}://{host}:{self._server.server_port}"

    def __enter__(self) -> "MetricsServer":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], respond: Respond) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/")
        if path == "/-/healthy":
            return _say(respond, "200 OK", b"The exporter is up.\n")
        if not self._may(environ.get("HTTP_AUTHORIZATION", "")):
            challenge = ("WWW-Authenticate", 'Basic realm="dagster-taskiq exporter"')
            return _say(respond, "401 Unauthorized", b"Name and password, please.\n", challenge)
        if path == "/metrics":
            return self._expose(environ, respond)
        if path == "/":
            return _say(respond, "200 OK", _INDEX, ("Content-Type", "text/html; charset=utf-8"))
        if path != "/-/ready":
            return _say(respond, "404 Not Found", b"Try /metrics, /-/healthy or /-/ready.\n")
        ready = self._scrape.is_ready()
        return _say(
            respond,
            "200 OK" if ready else "503 Service Unavailable",
            b"The broker answers.\n" if ready else b"The broker does not answer.\n",
        )

    def _expose(self, environ: dict[str, Any], respond: Respond) -> Iterable[bytes]:
        """Answer in the format that is asked for; in the plain one where that is not understood."""
        try:
            choose_encoder(environ.get("HTTP_ACCEPT", ""))
        except Exception:  # noqa: BLE001  (a version that is no number, a parameter without value)
            environ["HTTP_ACCEPT"] = ""
        return self._metrics(environ, respond)

    def _may(self, authorization: str) -> bool:
        if self._options.user is None:
            return True
        scheme, _, encoded = authorization.partition(" ")
        try:
            said = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            return False
        wanted = f"{self._options.user}:{self._options.password}".encode()
        return scheme.lower() == "basic" and hmac.compare_digest(said, wanted)


def _say(respond: Respond, status: str, body: bytes, *headers: tuple[str, str]) -> Iterable[bytes]:
    if not any(name == "Content-Type" for name, _ in headers):
        headers = (*headers, ("Content-Type", "text/plain; charset=utf-8"))
    respond(status, [*headers, ("Content-Length", str(len(body)))])
    return [body]


class _Server(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread of its own, and at most so many at once.

    When all are taken, who has been sending its request for longest is hung up on: a client that
    dribbles cannot keep others out, and one that is being answered is not disturbed.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._free = threading.BoundedSemaphore(MOST_THREADS)
        self._lock = threading.Lock()
        self._sending: dict[int, socket.socket] = {}
        super().__init__(*arguments, **options)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the request a thread, or hang up."""
        if not self._free.acquire(blocking=False):
            self._hang_up_on_the_slowest()
            if not self._free.acquire(timeout=_ROOM_WITHIN_S):
                self.shutdown_request(request)
                return
        with self._lock:
            self._sending[id(request)] = request
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.is_sent(request)
            self._free.release()

    def is_sent(self, request: Any) -> None:
        """Note that a request has arrived as a whole: it is being answered."""
        with self._lock:
            self._sending.pop(id(request), None)

    def _hang_up_on_the_slowest(self) -> None:
        with self._lock:
            slowest = next(iter(self._sending.values()), None)
        if slowest is not None:
            with contextlib.suppress(OSError):
                slowest.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away or spoke no TLS: that is its affair."""


class _ServerOnIPv6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    #: A client that sends nothing holds its thread no longer.
    timeout = 10.0

    def get_environ(self) -> dict[str, Any]:
        """Return what the request says; it has arrived then."""
        cast("_Server", self.server).is_sent(self.request)
        return super().get_environ()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (its base calls it so)
        """Say nothing: a scrape each few seconds is no news."""
