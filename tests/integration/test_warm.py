"""What code makes when it is imported is no two steps' at once, and steps are forked where they can."""

import http.server
import socketserver
import threading
from pathlib import Path

import dagster as dg
import pytest

CODE = Path(__file__).parent / "code" / "made_at_import.py"
STATUS = dg.DagsterRunStatus

#: By what is made: how the location is served, and what the worker says it found.
SERVED = {
    "socket": ("layered", "a connection to 127.0.0.1:"),
    "http": ("layered", "a connection to 127.0.0.1:"),
    "psycopg2": ("layered", "a socket"),
    "redis": ("layered", "a connection to 127.0.0.1:"),
    "sqlite3": ("layered", "the open file "),
    "tempfile": ("layered", "the open file "),
    "multiprocessing": ("layered", "a pipe"),
    "asyncio": ("layered", "an event loop"),
    "thread": ("layered", "the thread 'Thread-"),
    "log": ("warm", ""),
    "pandas": ("warm", ""),
    "random": ("warm", ""),
    "random, seeded": ("warm", ""),
    "numpy": ("warm", ""),
    "numpy, seeded": ("warm", ""),
}


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


class EchoHttp(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.path)))
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *_) -> None:
        """Say nothing."""


@pytest.fixture
def environment(request, broker_url, postgres):
    made = request.param
    if made == "psycopg2":
        yield {"MADE": made, "MADE_URL": postgres()}
    elif made == "redis":
        yield {"MADE": made, "MADE_URL": broker_url}
    elif made in ("socket", "http"):
        handler = Echo if made == "socket" else EchoHttp
        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield {"MADE": made, "MADE_PORT": str(server.server_address[1])}
            server.shutdown()
    else:
        # Threads of numeric libraries, whatever the machine has of cores.
        yield {"MADE": made, "OMP_NUM_THREADS": "2"}


@pytest.mark.parametrize("environment", SERVED, indirect=True)
def test_what_is_made_at_import_is_no_two_steps_at_once(
    make_fleet, open_site, environment, monkeypatch
):
    mode, found = SERVED[environment["MADE"]]
    with make_fleet() as fleet:
        environment = {**environment, "MADE_FOLDER": str(fleet.home)}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with open_site(fleet, CODE) as site:
            site.start_worker(slots=3, environment=environment)
            run_id = site.launch("using")
            assert fleet.wait_for_run(run_id).status is STATUS.SUCCESS, fleet.said(run_id)
            said = fleet.worker_log(1).read_text()
            assert f"code made_at_import.py ({mode})" in said
            if mode == "layered":
                assert f"{found}" in said.partition("is served layered")[2].partition("\n")[0]
                assert "begun by the import of 'made_at_import.py'" in said
            numbers = fleet.home / "numbers"
            if numbers.exists():
                different = len(set(numbers.read_text().split()))
                assert different == (1 if "seeded" in environment["MADE"] else 3)


@pytest.mark.parametrize(("choice", "mode"), [("always", "warm"), ("never", "cold")])
@pytest.mark.parametrize("environment", ["log", "thread"], indirect=True)
def test_a_worker_serves_a_location_as_it_was_told(
    make_fleet, open_site, environment, monkeypatch, choice, mode
):
    with make_fleet() as fleet:
        environment = {**environment, "MADE_FOLDER": str(fleet.home)}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with open_site(fleet, CODE) as site:
            site.start_worker("--warm", f"made_at_import.py={choice}", environment=environment)
            said = lambda: fleet.worker_log(1).read_text()  # noqa: E731
            site.wait_for(lambda: f"code made_at_import.py ({mode})" in said(), "its mode")
            if choice == "never":
                run_id = site.launch("using")
                assert fleet.wait_for_run(run_id).status is STATUS.SUCCESS, fleet.said(run_id)
