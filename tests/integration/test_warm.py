"""What code makes when it is imported is no two steps' at once, and steps are forked where they can."""

import contextlib
import http.server
import re
import socketserver
import threading
from concurrent import futures
from pathlib import Path

import dagster as dg
import grpc
import pytest

from dagster_taskiq_kit.cli.status import worker_rows
from dagster_taskiq_kit.dagster_health.doctor import examine

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
    "requests": ("layered", "a connection to 127.0.0.1:"),
    "boto3": ("layered", "a connection to 127.0.0.1:"),
    "boto3, not used": ("warm", ""),
    "grpc": ("layered", "a thread of a library"),
    "exit handler": ("layered", "an exit handler (ExitHandler.end, registered by"),
    "lock": ("warm", ""),
    "log": ("warm", ""),
    "pandas": ("warm", ""),
    "random": ("warm", ""),
    "random, seeded": ("warm", ""),
    "numpy": ("warm", ""),
    "numpy, seeded": ("warm", ""),
}


#: What is noted by each step: numbers, and that an exit handler was called.
NOTED = ("random", "random, seeded", "numpy", "numpy, seeded", "exit handler")


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


@contextlib.contextmanager
def serving(handler):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@contextlib.contextmanager
def serving_grpc():
    echo = grpc.unary_unary_rpc_method_handler(lambda request, _context: request)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("echo", {"echo": echo})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None)


#: What each that is made connects to.
SERVERS = {
    "socket": lambda: serving(Echo),
    "http": lambda: serving(EchoHttp),
    "requests": lambda: serving(EchoHttp),
    "boto3": lambda: serving(EchoHttp),
    "boto3, not used": lambda: serving(EchoHttp),
    "grpc": serving_grpc,
}


@pytest.fixture
def environment(request, broker_url, postgres):
    made = request.param
    if made == "psycopg2":
        yield {"MADE": made, "MADE_URL": postgres()}
    elif made == "redis":
        yield {"MADE": made, "MADE_URL": broker_url}
    elif made in SERVERS:
        with SERVERS[made]() as port:
            yield {"MADE": made, "MADE_PORT": str(port)}
    else:
        # Threads of numeric libraries, whatever the machine has of cores.
        yield {"MADE": made, "OMP_NUM_THREADS": "2"}


def told_by_doctor(fleet):
    """Return what the doctor says of how code is served."""
    found = examine(fleet.instance, fleet.snapshot(), fleet.settings)
    return next(each for each in found if each.check == "warm")


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
            shown = r"made_at_import\.py"
            if mode == "layered":
                shown += r" \(layered, \d\.\d s of import a step\)"
            rows = lambda: worker_rows(fleet.snapshot().workers)  # noqa: E731
            site.wait_for(lambda: re.search(f"{shown}$", rows()[1]), "its cost on the card")
            assert told_by_doctor(fleet).ok == (mode == "warm")
            if mode == "layered":
                assert found in told_by_doctor(fleet).sentence
                assert f"{found}" in said.partition("is served layered")[2].partition("\n")[0]
                assert "begun by the import of 'made_at_import.py'" in said
            noted = lambda: (fleet.home / "numbers").read_text().split()  # noqa: E731
            if environment["MADE"] in NOTED:
                site.wait_for(lambda: len(noted()) == 3, "each step to note something")
                assert len(set(noted())) == (1 if "seeded" in environment["MADE"] else 3)


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
            site.wait_for(lambda: fleet.snapshot().workers, "its card")
            assert told_by_doctor(fleet).ok
            if choice == "never":
                run_id = site.launch("using")
                assert fleet.wait_for_run(run_id).status is STATUS.SUCCESS, fleet.said(run_id)
