"""A fleet under load and faults, scraped by a real Prometheus: figures are those of the event log."""

import sys
import time
from collections import Counter

import dagster as dg
import pytest

from .conftest import Exporter, Prometheus, Site
from .test_dashboards import askable, queries
from .test_rules import alerts

STATUS = dg.DagsterRunStatus
EVENT = dg.DagsterEventType


@pytest.fixture
def exporters(site: Site) -> list[Exporter]:
    options = ["--per-worker", "--dagster-interval", "2", "-w", str(site.workspace_file)]
    return [Exporter(site, *options), Exporter(site)]


@pytest.fixture
def prometheus(site: Site, exporters: list[Exporter], tmp_path) -> Prometheus:
    return Prometheus(site, tmp_path / "prometheus", exporters)


def start_daemon(site: Site) -> None:
    with (site.fleet.home / "daemon.log").open("wb") as output:
        site.group.start(
            [sys.executable, "-m", "dagster._daemon", "run", "-w", str(site.workspace_file)],
            environment=site.environment, output=output.fileno(),
        )  # fmt: skip


def truth(site: Site, run_ids: list[str]) -> Counter:
    """Count in the event log what the exporter counts in the broker."""
    counts: Counter = Counter()
    for run_id in run_ids:
        for entry in site.instance.all_logs(run_id):
            if entry.dagster_event is not None:
                counts[entry.dagster_event.event_type] += 1
    return counts


def wait_for_all(site: Site, run_ids: list[str]) -> None:
    for run_id in run_ids:
        site.fleet.wait_for_run(run_id, 120)


def work_and_die(site: Site, first: Exporter) -> list[str]:
    """Run jobs; a worker dies in the middle of a step, and an exporter too; returns the runs."""
    site.start_worker(slots=2, run_slots=3, queues=["default"])
    doomed = site.start_worker(slots=1, run_slots=0, queues=["gpu"])
    runs = [site.launch("quick") for _ in range(6)] + [site.launch("failing") for _ in range(3)]
    wait_for_all(site, runs)
    lost = site.launch("waiting_on_gpu")
    site.fleet.wait_for(lambda: truth(site, [lost])[EVENT.STEP_START] == 1, "it to run")
    assert first.value("queue_messages", queue="gpu", state="running") == 1
    doomed.kill()
    doomed.wait(20)
    first.kill()
    wait_for_all(site, [lost])
    first.start()
    site.gate.touch()
    site.start_worker(slots=1, run_slots=0, queues=["gpu"])
    more = [site.launch("quick") for _ in range(2)]
    wait_for_all(site, more)
    return [*runs, lost, *more]


def compare_with_the_event_log(site: Site, exporter: Exporter, runs: list[str]) -> int:
    """Compare each count; returns how many steps began."""
    counted, value = truth(site, runs), exporter.value
    started = counted[EVENT.STEP_START]
    assert started == 8 * 3 + 3 * 2 + 1
    ended = {
        "succeeded": counted[EVENT.STEP_SUCCESS],
        "failed": counted[EVENT.STEP_FAILURE] - 1,  # the lost one was closed by its orchestrator
        "crashed": 0, "cancelled": 0, "refused": 0,
    }  # fmt: skip
    assert value("messages_submitted_total", kind="step") == started
    assert value("messages_started_total", kind="step") == started
    assert value("messages_started_total", kind="run") == len(runs)
    for outcome, count in ended.items():
        assert value("messages_finished_total", kind="step", outcome=outcome) == count
    assert value("messages_lost_total", kind="step") == 1
    assert value("workers_lost_total") == 1
    assert value("message_wait_seconds_count", kind="step") == started
    assert value("message_duration_seconds_count", kind="step") == started - 1
    waited_s = sum(wait_by_the_log(site, run_id) for run_id in runs)
    assert abs(value("message_wait_seconds_sum", kind="step") - waited_s) < 0.3 * started
    stats = [s for r in runs for s in site.instance.get_run_step_stats(r) if s.end_time]
    bodies_s = sum(s.end_time - s.start_time for s in stats if s.step_key != "waits_on_gpu")
    assert value("message_duration_seconds_sum", kind="step") >= bodies_s
    return started


def wait_by_the_log(site: Site, run_id: str) -> float:
    """Return how long the steps of a run waited: from what queues them to what takes them."""
    at_s: dict[EVENT, float] = {EVENT.STEP_WORKER_STARTING: 0.0, EVENT.STEP_WORKER_STARTED: 0.0}
    for entry in site.instance.all_logs(run_id, of_type=set(at_s)):
        at_s[entry.dagster_event.event_type] += entry.timestamp
    return at_s[EVENT.STEP_WORKER_STARTED] - at_s[EVENT.STEP_WORKER_STARTING]


def ask_every_panel_and_rule(site: Site, prometheus: Prometheus, began_s: float) -> None:
    def answered(what: str, asked: str) -> None:
        # Dagster's daemon and the collectors take their time to begin.
        site.fleet.wait_for(
            lambda: bool(prometheus.over(asked, began_s, time.time())), f"{what}: {asked}"
        )

    for _, title, target in queries():
        answered(title, askable(target["expr"]).replace("[1m]", "[10s]"))
    groups = prometheus.api("rules")["groups"]
    found = [rule for group in groups for rule in group["rules"]]
    assert {rule["health"] for rule in found} == {"ok"}, found
    assert {rule["name"] for rule in found} >= {rule["alert"] for rule in alerts()}
    for rule in found:
        if rule["type"] == "recording":
            answered("a recording rule", rule["name"])


def test_figures_are_those_of_the_event_log_through_deaths_of_worker_exporter_and_broker(
    site: Site, exporters: list[Exporter], prometheus: Prometheus
):
    began_s, first = time.time(), exporters[0]
    start_daemon(site)
    runs = work_and_die(site, first)
    site.fleet.wait_for(
        lambda: first.value("messages_finished_total", kind="run") == len(runs),
        "the last run's process to end", first.text,
    )  # fmt: skip
    (started,) = {compare_with_the_event_log(site, exporter, runs) for exporter in exporters}

    # Prometheus saw no counter go back, and two exporters double nothing.
    prometheus_has = lambda: prometheus.value(  # noqa: E731
        "sum(max by (queue, kind) (dagster_taskiq_messages_started_total{kind='step'}))"
    )
    site.fleet.wait_for(lambda: prometheus_has() == started, "Prometheus to have scraped it")
    took_s = int(time.time() - began_s) + 5
    for counter in ("submitted", "started", "finished", "lost"):
        resets = prometheus.ask(f"max(resets(dagster_taskiq_messages_{counter}_total[{took_s}s]))")
        assert float(resets[0]["value"][1]) == 0
    site.fleet.wait_for(
        lambda: "DagsterTaskiqWorkersLost" in prometheus.firing(), "the lost worker's alert",
        lambda: str(prometheus.firing()),
    )  # fmt: skip
    ask_every_panel_and_rule(site, prometheus, began_s)

    # The broker dies: 200 and up 0, and the alert.
    site.broker.kill()
    site.fleet.wait_for(
        lambda: "DagsterTaskiqRedisUnreachable" in prometheus.firing(), "the broker's alert"
    )
    assert first.value("up") == 0
    assert not [name for name, _ in first.samples() if name.startswith("dagster_taskiq_queue")]
    site.broker.start()
    site.fleet.wait_for(lambda: first.value("up") == 1, "the broker to be back")
    site.fleet.wait_for(
        lambda: "DagsterTaskiqRedisUnreachable" not in prometheus.firing(), "the alert to end"
    )
    for exporter in exporters:
        assert exporter.value("messages_started_total", kind="step") == started
    for alert in prometheus.api("alerts")["alerts"]:
        assert "error" not in alert["annotations"]["description"], alert
