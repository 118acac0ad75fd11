"""What the exporter answers over HTTP: metrics, probes, and the fleet page with its data.

Invariant: ``/metrics`` answers 200 also when the broker does not, and says so in ``up``: a scrape
that fails looks like an exporter that is gone. Nothing here changes anything. The page loads from
nowhere else, and runs no script but its own.
"""

import asyncio
import base64
import binascii
import gzip
import hmac
import json
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, choose_encoder, generate_latest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .fleet.reader import FleetReader
from .fleet.state import FleetState
from .sources import Scrape

#: Who follows the page at once; more are told to come back.
MOST_FOLLOWERS = 100
_FOLLOW_EVERY_S = 1.0
_FILES = Path(__file__).parent / "fleet" / "page"
_PAGE = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/fleet.js": ("fleet.js", "text/javascript; charset=utf-8"),
    "/fleet.css": ("fleet.css", "text/css; charset=utf-8"),
}
_GUARDS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    # One request each: who has been answered holds nothing here.
    "Connection": "close",
}


class Pages:
    """What is answered.

    Args:
        scrape: What ``/metrics`` answers.
        fleet: What the page shows.
        is_ending: Whether the server ends: who follows is let go then.
    """

    def __init__(self, scrape: Scrape, fleet: FleetReader, is_ending: Callable[[], bool]) -> None:
        self._scrape = scrape
        self._fleet = fleet
        self._is_ending = is_ending
        self._followers = 0
        self._last_said: tuple[tuple[FleetState | None, FleetState], str] | None = None
        # Not asked to describe itself: that would read the broker before anybody scrapes.
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(scrape)

    def app(self, user: str | None, password: str) -> Starlette:
        """Return the application.

        Args:
            user: Name for basic auth; None for none.
            password: Password for basic auth.
        """
        return Starlette(
            routes=[
                Route("/metrics", self._metrics),
                Route("/-/healthy", self._healthy),
                Route("/-/ready", self._ready),
                Route("/api/fleet", self._fleet_data),
                Route("/api/fleet/events", self._follow),
                *(Route(path, self._page) for path in _PAGE),
            ],
            middleware=[Middleware(_Guard, user=user, password=password)],
            exception_handlers={404: _not_found},
        )

    def _metrics(self, request: Request) -> Response:
        return _exposition(self._registry, request)

    def _healthy(self, _request: Request) -> Response:
        return PlainTextResponse("The exporter is up.\n")

    def _ready(self, _request: Request) -> Response:
        if self._scrape.is_ready():
            return PlainTextResponse("The broker answers.\n")
        return PlainTextResponse("The broker does not answer.\n", 503)

    def _page(self, request: Request) -> Response:
        name, kind = _PAGE[request.url.path]
        return Response((_FILES / name).read_bytes(), media_type=kind)

    def _fleet_data(self, _request: Request) -> Response:
        return JSONResponse(self._fleet.watch().as_data())

    async def _follow(self, _request: Request) -> Response:
        if self._followers >= MOST_FOLLOWERS:
            return PlainTextResponse(f"{MOST_FOLLOWERS} pages follow already.\n", 503)
        # A proxy that gathers what is said would say it late.
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(self._events(), media_type="text/event-stream", headers=headers)

    async def _events(self) -> AsyncGenerator[str, None]:
        """Say all there is, then each second what has changed."""
        self._followers += 1
        told: FleetState | None = None
        try:
            while not self._is_ending():
                state = await asyncio.to_thread(self._fleet.watch)
                if state is not told:
                    yield await asyncio.to_thread(self._said, told, state)
                    told = state
                await asyncio.sleep(_FOLLOW_EVERY_S)
        finally:
            self._followers -= 1

    def _said(self, told: FleetState | None, state: FleetState) -> str:
        """Return what is said to who was told one state and is told another; made once for all."""
        key, known = (told, state), self._last_said
        if known is not None and known[0][0] is told and known[0][1] is state:
            return known[1]
        said = f"data: {json.dumps(state.since(told))}\n\n"
        self._last_said = (key, said)
        return said


def _not_found(_request: Request, _error: Exception) -> Response:
    return PlainTextResponse(
        "Try / for the fleet, /api/fleet, /metrics, /-/healthy or /-/ready.\n", 404
    )


def _exposition(registry: CollectorRegistry, request: Request) -> Response:
    """Answer in the format that is asked for; in the plain one where that is not understood."""
    try:
        encode, kind = choose_encoder(request.headers.get("accept", ""))
    except Exception:  # noqa: BLE001  (a version that is no number, a parameter without value)
        encode, kind = generate_latest, CONTENT_TYPE_LATEST
    if names := request.query_params.getlist("name[]"):
        body = encode(registry.restricted_registry(names))
    else:
        body = encode(registry)
    headers = {"Content-Type": kind, "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        body = gzip.compress(body, compresslevel=1)
        headers["Content-Encoding"] = "gzip"
    return Response(body, headers=headers)


class _Guard:
    """Asks for name and password where there are any, and adds the headers that guard a page."""

    def __init__(self, app: ASGIApp, user: str | None, password: str) -> None:
        self._app = app
        self._wanted = None if user is None else f"{user}:{password}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((name.lower().encode(), value.encode()) for name, value in _GUARDS.items()),
                ]
            await send(message)

        app = self._app if self._may(scope) else _ASK
        await app(scope, receive, guarded)

    def _may(self, scope: Scope) -> bool:
        if self._wanted is None or scope["path"] == "/-/healthy":
            return True
        said = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        scheme, _, encoded = said.partition(" ")
        try:
            decoded = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            return False
        return scheme.lower() == "basic" and hmac.compare_digest(decoded, self._wanted)


_ASK = PlainTextResponse(
    "Name and password, please.\n",
    401,
    headers={"WWW-Authenticate": 'Basic realm="dagster-taskiq exporter"'},
)
