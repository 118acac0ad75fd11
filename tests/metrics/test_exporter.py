"""The exporter: what it serves is the catalogue; what is in its way costs it nothing else."""

import base64
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dagster_taskiq_kit.exporter.catalogue import CATALOGUE, HISTOGRAM
from dagster_taskiq_kit.exporter.server import MOST_SENDING
from tests import preloaded

from .conftest import Exporter, Site, get

SECRET = "not-for-everybody"


def families(text: str) -> dict[str, tuple[str, set[str]]]:
    """Return type and labels of each family, as a parser of the text sees them."""
    found = {}
    for family in text_string_to_metric_families(text):
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        found[family.name] = (family.type, labels)
    return found


def test_the_exposition_is_what_the_catalogue_says_and_promtool_finds_no_fault(site: Site):
    site.start_worker()
    exporter = Exporter(
        site, "--per-worker", "--dagster-interval", "1", "-w", str(site.workspace_file)
    )
    site.instance.add_daemon_heartbeat(_heartbeat())
    site.fleet.wait_for(
        lambda: "daemon_heartbeat" in exporter.text(), "Dagster's side to be read", exporter.text
    )
    text = exporter.text()
    assert families(text) == {
        metric.family: (metric.type, set(metric.labels)) for metric in CATALOGUE.values()
    }
    helps = dict(
        line.removeprefix("# HELP ").split(" ", 1) for line in text.splitlines() if "# HELP" in line
    )
    for metric in CATALOGUE.values():
        name = metric.family if metric.type == HISTOGRAM else metric.name
        assert helps[name] == metric.meaning
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert exporter.value("dagster_code_location_loaded", location="metric_jobs.py") == 1
    assert exporter.value("dagster_database_connections") > 0


def _heartbeat():
    from dagster._daemon.types import DaemonHeartbeat

    return DaemonHeartbeat(1_795_000_000.0, "SENSOR", "a-daemon", [])


def test_every_label_set_is_there_with_zero_before_anything_happened(site: Site):
    site.start_worker(queues=["default", "gpu"])
    exporter = Exporter(site, "--no-dagster")
    for queue in ("default", "gpu"):
        for kind in ("run", "step", "task"):
            for outcome in ("succeeded", "failed", "crashed", "cancelled", "refused"):
                labels = {"queue": queue, "kind": kind, "outcome": outcome}
                assert exporter.value("messages_finished_total", **labels) == 0
            for counter in ("submitted", "started", "started_late", "lost", "redelivered"):
                assert exporter.value(f"messages_{counter}_total", queue=queue, kind=kind) == 0
            assert exporter.value("dead_letters_total", queue=queue, kind=kind) == 0
    assert exporter.value("workers_lost_total") == 0
    assert exporter.value("workers", queue="gpu", state="alive") == 1


def test_without_the_broker_it_answers_200_up_0_and_is_not_ready(site: Site):
    exporter = Exporter(site)
    read = lambda: exporter.value("exporter_collector_success", collector="dagster") == 1  # noqa: E731
    site.fleet.wait_for(read, "Dagster's side to be read")
    assert get(f"{exporter.url}/-/ready")[0] == 200
    site.broker.kill()
    assert exporter.value("up") == 0
    assert get(f"{exporter.url}/-/healthy")[0] == 200
    assert get(f"{exporter.url}/-/ready")[0] == 503
    assert exporter.value("exporter_collector_success", collector="broker") == 0
    assert exporter.value("exporter_collector_success", collector="dagster") == 1
    assert get(f"{exporter.url}/nowhere")[0] == 404
    assert "metrics" in get(f"{exporter.url}/")[1]
    site.broker.start()
    site.fleet.wait_for(lambda: exporter.value("up") == 1, "the broker to be seen again")


def test_whatever_a_client_says_or_does_not_say_the_next_scrape_is_answered(site: Site):
    exporter = Exporter(site, "--no-dagster")
    for accept in (
        "application/openmetrics-text;version=x", "application/openmetrics-text;version=1.0.0;escaping=",
        "application/openmetrics-text;version=", "text/plain;version=1.0.0;escaping=nonsense", ";;;=,=",
        "text/plain;version=\u00e9", "application/openmetrics-text; version=1.0.0.0.0-post", "x" * 9000,
    ):  # fmt: skip
        asked = urllib.request.Request(f"{exporter.url}/metrics", headers={"Accept": accept})
        with urllib.request.urlopen(asked, timeout=20) as answer:
            assert b"dagster_taskiq_up 1.0" in answer.read(), accept
    clients = lambda: len(psutil.Process(exporter.process.pid).net_connections("tcp"))  # noqa: E731
    with contextlib.ExitStack() as open_for_long:
        for number in range(3 * MOST_SENDING):
            client = socket.create_connection(("127.0.0.1", exporter.port), 20)
            open_for_long.enter_context(contextlib.closing(client))
            client.sendall(b"GET /metrics HTTP/1.1\r\n" if number % 2 else b"G")
        assert "dagster_taskiq_up 1.0" in exporter.text()
        assert clients() <= MOST_SENDING + 5


def test_twenty_thousand_queue_names_are_scraped_before_prometheus_gives_up(site: Site):
    exporter = Exporter(site, "--no-dagster")
    client, keys = site.broker.client, site.fleet.broker.keys
    names = {f"queue-{number:05}": number + 1 for number in range(20_000)}
    client.zadd(keys.name("queues"), names)
    client.hset(keys.name("counters"), mapping={f"submitted|{name}|step": 1 for name in names})
    status, text = get(f"{exporter.url}/metrics", timeout_s=60)
    assert (status, "dagster_taskiq_up 1.0" in text) == (200, True)
    assert len(text) < 3_000_000
    # Of the same scrape: on a busy machine another one may come too late for its own time limit.
    counted = [
        float(line.split()[-1])
        for line in text.splitlines()
        if line.startswith("dagster_taskiq_messages_submitted_total{")
        and 'queue="other"' in line
        and 'kind="step"' in line
    ]
    assert sum(counted) >= 20_000 - 100


def test_with_a_broker_that_hangs_it_answers_within_a_scrapes_timeout(site: Site):
    exporter = Exporter(site, "--no-dagster")
    assert exporter.value("up") == 1
    site.broker.signal(signal.SIGSTOP)
    try:
        status, text = get(f"{exporter.url}/metrics", timeout_s=9)  # Prometheus waits for ten
        assert (status, "dagster_taskiq_up 0.0" in text) == (200, True)
    finally:
        site.broker.signal(signal.SIGCONT)
    site.fleet.wait_for(lambda: exporter.value("up") == 1, "the broker to be seen again")


@pytest.fixture
def certificate(tmp_path):
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-out", paths[0],
         "-keyout", paths[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return paths


def test_with_tls_and_a_password_only_who_knows_it_reads_metrics(site: Site, certificate):
    cert, key = certificate
    site.environment["DAGSTER_TASKIQ_EXPORTER_PASSWORD"] = SECRET
    context = ssl.create_default_context(cafile=str(cert))

    class Guarded(Exporter):
        @property
        def url(self) -> str:
            return f"https://127.0.0.1:{self.port}"

        def ask(self, path: str, said: str | None = None) -> int:
            request = urllib.request.Request(f"{self.url}{path}")
            if said is not None:
                encoded = base64.b64encode(said.encode()).decode()
                request.add_header("Authorization", f"Basic {encoded}")
            try:
                with urllib.request.urlopen(request, timeout=10, context=context) as answer:
                    return answer.status
            except urllib.error.HTTPError as error:
                return error.code

        def answers(self) -> bool:
            try:
                return self.ask("/-/healthy") == 200
            except OSError:
                return False

    options = ["--tls-cert", str(cert), "--tls-key", str(key), "--basic-auth-user", "prometheus"]
    exporter = Guarded(site, "--no-dagster", *options)
    assert exporter.ask("/metrics") == 401
    assert exporter.ask("/metrics", "prometheus:guess") == 401
    assert exporter.ask("/-/ready", "nobody:" + SECRET) == 401
    assert exporter.ask("/metrics", f"prometheus:{SECRET}") == 200
    said = (site.fleet.home / f"exporter-{exporter.port}.log").read_text()
    assert "https://127.0.0.1" in said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--basic-auth-user", "me"], "DAGSTER_TASKIQ_EXPORTER_PASSWORD"),
        (["--tls-cert", "/nowhere.pem"], "The certificate /nowhere.pem cannot be used"),
        (["--host", "203.0.113.7"], "cannot listen on 203.0.113.7"),
        (["--dagster"], "DAGSTER_HOME is not set"),
        (["--url", "http://nowhere"], "url"),
    ],
)
def test_a_bad_option_of_the_exporter_is_one_sentence(options, words, broker_url):
    environment = {name: v for name, v in os.environ.items() if not name.startswith("DAGSTER_")}
    environment["DAGSTER_TASKIQ_URL"] = broker_url
    command = [sys.executable, "-m", "dagster_taskiq_kit", "exporter", "--port", "0", *options]
    done = preloaded.run(command, env=environment, within_s=60)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_worker_serves_metrics_too(site: Site):
    from dagster_taskiq_kit.dev.embedded_broker import free_port

    port = free_port()
    site.start_worker("--metrics-port", str(port))
    status, text = get(f"http://127.0.0.1:{port}/metrics")
    assert status == 200
    assert 'dagster_taskiq_workers{queue="default",state="alive"} 1.0' in text
    run_id = site.launch("failing")
    site.fleet.wait_for_run(run_id)
    counted = 'dagster_taskiq_messages_started_total{kind="step",queue="default"} 2.0'
    assert counted in get(f"http://127.0.0.1:{port}/metrics")[1]
