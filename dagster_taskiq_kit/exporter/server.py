"""The exporter over HTTP: /metrics, /-/healthy, /-/ready; with TLS and basic auth where asked for.

Invariant: /metrics answers 200 also when the broker does not, and says so in ``up``: a scrape that
fails looks like an exporter that is gone.
"""

import base64
import binascii
import hmac
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from ..errors import ConfigurationError
from .sources import Scrape

DEFAULT_PORT = 9808

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
        except OSError as error:
            raise ConfigurationError(
                f"The exporter cannot listen on {options.host}:{options.port} ({error.strerror}): "
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
            return self._metrics(environ, respond)
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
    daemon_threads = True
    request_queue_size = 64


class _ServerOnIPv6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    #: A client that sends nothing holds its thread no longer.
    timeout = 10.0

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (its base calls it so)
        """Say nothing: a scrape each few seconds is no news."""
