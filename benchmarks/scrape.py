"""What metrics cost: a scrape by queues and workers, and the counters in each transition.

Usage: python -m benchmarks.scrape

Invariant: one server, one process, both sides of each ratio measured in turns in this run.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from dagster_taskiq_kit.broker import records, scripts, worker_cards
from dagster_taskiq_kit.broker.connection import SyncConnection
from dagster_taskiq_kit.broker.worker_cards import WorkerCard
from dagster_taskiq_kit.config.settings import TaskiqSettings
from dagster_taskiq_kit.dev.embedded_broker import start_embedded
from dagster_taskiq_kit.exporter.sources import BrokerSource, Scrape
from dagster_taskiq_kit.host.process_group import ProcessGroup
from dagster_taskiq_kit.vocabulary.states import Kind, State

SIZES = ((10, 10), (100, 10), (10, 1000), (100, 1000))
WAITING_EACH = 20
SCRAPES = 15
CYCLES, TURNS = 2000, 7


@dataclass(frozen=True)
class Cost:
    """What one scrape cost.

    Args:
        queues: Queues.
        workers: Workers.
        wall_ms: Median, with the text made.
        server_ms: CPU of the server.
        commands: Commands that the server executed, also inside scripts.
        kib: Length of the text.
    """

    queues: int
    workers: int
    wall_ms: float
    server_ms: float
    commands: float
    kib: float


def server_cpu_ms(connection: SyncConnection) -> float:
    """Return the CPU that the server has used."""
    info = connection.client.info("cpu")
    return 1000 * (info["used_cpu_user"] + info["used_cpu_sys"])


def fill(connection: SyncConnection, queues: int, workers: int) -> None:
    """Make a namespace with work that waits and workers that live."""
    for queue in range(queues):
        for number in range(WAITING_EACH):
            submit(connection, f"step:r{queue}:{number}:1", f"queue-{queue}")
    for number in range(workers):
        served = [f"queue-{(number + k) % queues}" for k in range(3)]
        card = WorkerCard(f"worker-{number}", f"worker-{number}", "host", 1, served, 8, 4, ["code"])
        connection.run(worker_cards.renew(card, lease_s=3600, held={}, instance_id="bench"))


def submit(connection: SyncConnection, task_id: str, queue: str) -> None:
    """Queue one step."""
    connection.run(
        records.submit(
            task_id=task_id, kind=Kind.STEP, queue=queue, priority=5, run_id="", payload=b"{}",
        )
    )  # fmt: skip


def scrape_cost(url: str, queues: int, workers: int) -> Cost:
    """Measure scrapes of one size."""
    settings = TaskiqSettings(url=url, namespace=f"scrape-{queues}-{workers}")
    connection = SyncConnection(settings)
    fill(connection, queues, workers)
    registry, source = CollectorRegistry(auto_describe=False), BrokerSource(settings)
    registry.register(Scrape(source))
    text = generate_latest(registry)
    walls_ms, cpu_ms = [], server_cpu_ms(connection)
    commands = connection.client.info("stats")["total_commands_processed"]
    for _ in range(SCRAPES):
        began_s = time.perf_counter()
        text = generate_latest(registry)
        walls_ms.append(1000 * (time.perf_counter() - began_s))
    commands = connection.client.info("stats")["total_commands_processed"] - commands - 1
    cpu_ms = server_cpu_ms(connection) - cpu_ms
    source.close()
    connection.close()
    return Cost(
        queues, workers, statistics.median(walls_ms), cpu_ms / SCRAPES, commands / SCRAPES,
        len(text) / 1024,
    )  # fmt: skip


def cycles(connection: SyncConnection, prefix: str) -> float:
    """Take messages through a whole life; returns the server's CPU for one, in microseconds."""
    began_ms = server_cpu_ms(connection)
    for number in range(CYCLES):
        submit(connection, f"step:{prefix}:{number}:1", "life")
        delivery = connection.run(
            records.claim(
                worker_id="w", lane="steps", token=f"{prefix}#{number}", kinds=[Kind.STEP],
                queues=["life"], oldest_first=False,
            )
        )  # fmt: skip
        connection.run(records.begin(delivery.task_id, delivery.token))
        connection.run(records.finish(delivery.task_id, delivery.token, State.SUCCEEDED, {}))
    return 1000 * (server_cpu_ms(connection) - began_ms) / CYCLES


def without_counting(read: Callable[[str], str]) -> Callable[[str], str]:
    """Return the scripts without what they count and measure."""

    def stripped(name: str) -> str:
        source = read(name)
        for call in ("  count(state, record)\n", "  measure(record, before, at)\n"):
            source = source.replace(call, "")
        return source

    return stripped


def counting_overhead(url: str) -> tuple[float, float]:
    """Return the server's CPU for one message's life, with and without counting, in us."""
    connection = SyncConnection(TaskiqSettings(url=url, namespace="overhead"))
    cycles(connection, "warm")
    read = scripts._lua_file
    variants = {"counted": read, "bare": without_counting(read)}
    found: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(TURNS):
        for name in sorted(variants, reverse=bool(turn % 2)):
            scripts._lua_file = variants[name]
            scripts.load_script.cache_clear()
            found[name].append(cycles(connection, f"{name}{turn}"))
    scripts._lua_file = read
    scripts.load_script.cache_clear()
    connection.close()
    counted, bare = found["counted"], found["bare"]
    return statistics.median(counted), statistics.median(bare)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder, ProcessGroup() as group:
        url = start_embedded(group, Path(folder))
        print(
            "| queues | workers | scrape ms | server CPU ms | commands, also inside scripts | KiB |"
        )
        print("|---|---|---|---|---|---|")
        costs = [scrape_cost(url, *size) for size in SIZES]
        for cost in costs:
            print(
                f"| {cost.queues} | {cost.workers} | {cost.wall_ms:.1f} | {cost.server_ms:.1f} "
                f"| {cost.commands:.1f} | {cost.kib:.0f} |"
            )
        counted_us, bare_us = counting_overhead(url)
        print(
            f"\nOne message's life costs the server {counted_us:.0f} us of CPU with its counters "
            f"and histograms, {bare_us:.0f} us without: x {counted_us / bare_us:.2f}."
        )


if __name__ == "__main__":
    main()
