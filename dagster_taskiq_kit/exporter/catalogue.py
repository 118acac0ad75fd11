"""Every metric of the kit, stated once: name, type, labels and meaning.

Invariant: the collector makes nothing that does not stand here, and everything that does; the table
in docs/metrics.md is made from this list; rules and dashboards use no other names.

Base units, plural unit suffixes, ``_total`` on counters alone: the Prometheus naming conventions,
which ``promtool check metrics`` holds. No label ever carries the id of a run or a task.
"""

from collections.abc import Sequence
from dataclasses import dataclass

PREFIX = "dagster_taskiq_"

GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"

#: Whose period and whose failures: what the broker tells is read at each scrape, what Dagster's
#: database tells in a period of its own, what single workers say only when it is asked for.
BROKER, DAGSTER, PER_WORKER, EXPORTER = "broker", "dagster", "per worker", "exporter"


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        short: Its name without the prefix; a counter's without ``_total``.
        type: ``gauge``, ``counter`` or ``histogram``.
        labels: Its labels, in order.
        meaning: What it says.
        source: Which collector makes it.
    """

    short: str
    type: str
    labels: Sequence[str]
    meaning: str
    source: str = BROKER

    @property
    def family(self) -> str:
        """Its name as prometheus_client wants it."""
        return PREFIX + self.short

    @property
    def name(self) -> str:
        """Its name as one queries it."""
        return self.family + ("_total" if self.type == COUNTER else "")


_CATALOGUE = (
    Metric("up", GAUGE, (), "1 if the broker answered this scrape, else 0."),
    Metric("queue_messages", GAUGE, ("queue", "kind", "state"),
           "Messages by state: waiting (no worker has it), claimed (taken, not begun), running."),
    Metric("queue_oldest_waiting_age_seconds", GAUGE, ("queue", "kind"),
           "How long the longest-waiting message waits since its submit; 0 when none waits."),
    Metric("queue_oldest_running_age_seconds", GAUGE, ("queue", "kind"),
           "How long the longest-running message runs; 0 when none runs."),
    Metric("queue_slo_seconds", GAUGE, ("queue",), "Longest acceptable wait, as declared."),
    Metric("queue_paused", GAUGE, ("queue",), "1 while nothing of the queue is handed out."),
    Metric("queue_free_slots", GAUGE, ("queue", "lane"),
           "Free slots of the live workers that serve the queue; other queues may share them."),
    Metric("queue_desired_slots", GAUGE, ("queue", "lane"),
           "Slots that would keep the queue within its objective: what to scale on."),
    Metric("queue_desired_workers", GAUGE, ("queue", "lane"),
           "Workers that have so many slots, never fewer than the objective's min_workers."),
    Metric("queue_serving_workers", GAUGE, ("queue", "lane"),
           "Workers that take work of the lane from the queue: alive, with slots for it."),
    Metric("messages_submitted", COUNTER, ("queue", "kind"), "Messages put into the queue."),
    Metric("messages_started", COUNTER, ("queue", "kind"), "Deliveries that began."),
    Metric("messages_started_late", COUNTER, ("queue", "kind"),
           "Deliveries that began after a wait longer than the objective."),
    Metric("messages_finished", COUNTER, ("queue", "kind", "outcome"),
           "Messages that ended: succeeded, failed (the user's code), crashed (its process died), "
           "cancelled, refused."),
    Metric("messages_lost", COUNTER, ("queue", "kind"),
           "Messages that ran on a worker that was given up."),
    Metric("messages_redelivered", COUNTER, ("queue", "kind"),
           "Messages handed out again because a delivery ended without an outcome."),
    Metric("dead_letters", COUNTER, ("queue", "kind"), "Messages that became dead letters."),
    Metric("dead_letter_messages", GAUGE, ("queue",), "Dead letters that are kept."),
    Metric("message_wait_seconds", HISTOGRAM, ("queue", "kind"), "From submit to start."),
    Metric("message_duration_seconds", HISTOGRAM, ("queue", "kind"),
           "From start to end of a delivery that had an outcome."),
    Metric("message_cpu_seconds", HISTOGRAM, ("queue", "kind"),
           "CPU that the process of a delivery used, what it had started and waited for included."),
    Metric("message_peak_memory_bytes", HISTOGRAM, ("queue", "kind"),
           "The most resident memory of the process of a delivery, what is shared included."),
    Metric("workers", GAUGE, ("queue", "state"),
           "Workers that serve the queue: alive, unready (their code does not load), draining, or "
           "expired."),
    Metric("workers_lost", COUNTER, (), "Workers that were given up."),
    Metric("worker_slots", GAUGE, ("lane", "state"),
           "Slots of all live workers, busy and free; lane step also serves the users' own tasks."),
    Metric("workers_memory_bytes", GAUGE, (),
           "Memory that all live workers use with all their processes; shared memory once."),
    Metric("workers_busy_cpus", GAUGE, (),
           "Processors that all live workers kept busy with all their processes."),
    Metric("health_check_severity", GAUGE, ("subject", "check"),
           "What the check in Dagster says: 0 fine, 1 WARN, 2 ERROR."),
    Metric("health_report_timestamp_seconds", GAUGE, (),
           "When Dagster's health sensor last looked; 0 when it never did."),
    Metric("redis_memory_used_bytes", GAUGE, (), "Memory that the broker's server uses."),
    Metric("redis_memory_max_bytes", GAUGE, (), "Memory limit of the broker's server; 0 for none."),
    Metric("redis_round_trip_seconds", GAUGE, (), "How long a PING took, there and back."),
    Metric("worker_info", GAUGE, ("worker", "host", "version", "dagster_version"),
           "1 for each worker that was not given up.", PER_WORKER),
    Metric("worker_last_heartbeat_timestamp_seconds", GAUGE, ("worker",),
           "When it last renewed its lease.", PER_WORKER),
    Metric("worker_busy_slots", GAUGE, ("worker", "lane"), "Busy slots of a worker.", PER_WORKER),
    Metric("worker_memory_bytes", GAUGE, ("worker",),
           "Memory that a worker uses with all its processes.", PER_WORKER),
    Metric("worker_busy_cpus", GAUGE, ("worker",), "Processors that it kept busy.", PER_WORKER),
    Metric("dagster_runs", GAUGE, ("status",), "Open runs; QUEUED: in Dagster's own queue.",
           DAGSTER),
    Metric("dagster_oldest_run_age_seconds", GAUGE, ("status",),
           "How long the oldest run is in this status.", DAGSTER),
    Metric("dagster_location_runs", GAUGE, ("location",),
           "Open runs by code location, of the newest 1,000; '' for those without one.", DAGSTER),
    Metric("dagster_pool_slots", GAUGE, ("pool", "state"),
           "Slots of each of Dagster's pools: limit, claimed by running steps.", DAGSTER),
    Metric("dagster_pool_pending_steps", GAUGE, ("pool",),
           "Steps that wait for a slot of the pool.", DAGSTER),
    Metric("dagster_stuck_runs", GAUGE, ("cause",), "Runs that do not get on alone.", DAGSTER),
    Metric("dagster_recent_runs", GAUGE, ("status",), "Runs that ended in the last hour.", DAGSTER),
    Metric("dagster_recent_retried_runs", GAUGE, (),
           "Runs of the last hour that are a retry of another one.", DAGSTER),
    Metric("dagster_run_start_wait_seconds", GAUGE, ("statistic",),
           "From creation to start, of runs that began in the last hour: p50, p95, max.", DAGSTER),
    Metric("dagster_daemon_heartbeat_timestamp_seconds", GAUGE, ("daemon",),
           "Last heartbeat of each of Dagster's daemons.", DAGSTER),
    Metric("dagster_recent_tick_failures", GAUGE, ("instigator",),
           "Failed ticks of sensors and schedules in the last hour.", DAGSTER),
    Metric("dagster_code_location_loaded", GAUGE, ("location",),
           "1 if the code location loads; only with --workspace.", DAGSTER),
    Metric("dagster_database_connections", GAUGE, (),
           "Connections to the instance's PostgreSQL server, of everybody.", DAGSTER),
    Metric("dagster_database_max_connections", GAUGE, (),
           "max_connections of the instance's PostgreSQL server.", DAGSTER),
    Metric("exporter_build_info", GAUGE, ("version", "python_version", "server"),
           "Always 1; releases as labels.", EXPORTER),
    Metric("exporter_collector_duration_seconds", GAUGE, ("collector",),
           "How long the collector's last reading took.", EXPORTER),
    Metric("exporter_collector_success", GAUGE, ("collector",),
           "1 if the collector's last reading worked.", EXPORTER),
    Metric("exporter_collector_timestamp_seconds", GAUGE, ("collector",),
           "When the collector's last reading was; what Dagster tells is as old.", EXPORTER),
)  # fmt: skip

CATALOGUE: dict[str, Metric] = {metric.short: metric for metric in _CATALOGUE}


def as_table() -> str:
    """Return the catalogue as a Markdown table."""
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    rows += [
        f"| `{m.name}` | {m.type} | {', '.join(m.labels)} | {m.meaning}"
        + (" Only with `--per-worker`." if m.source == PER_WORKER else "")
        + " |"
        for m in CATALOGUE.values()
    ]
    return "\n".join(rows) + "\n"
