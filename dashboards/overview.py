"""The overview: is anything wrong, where, since when, and what is it doing now."""

from .panels import SEVERITIES, Dashboard, Panel, Query, Row, label_variable, text_variable

QUEUE = 'queue=~"$queue"'
CHECKS = {"Checks in Dagster": "${dagster}/assets/taskiq/queue/${__field.labels.queue}?view=checks"}
WORKERS_IN_DAGSTER = {"Workers in Dagster": "${dagster}/assets/taskiq/workers?view=checks"}
RUNS_IN_DAGSTER = {"Runs in Dagster": "${dagster}/runs"}
REDIS_IN_DAGSTER = {"Broker in Dagster": "${dagster}/assets/taskiq/redis?view=checks"}
GREEN_OR_RED = ((None, "green"), (1, "red"))


def _counted(metric: str, by: str = "queue") -> str:
    """Return a rate without the doubling of a second exporter."""
    return (
        f"sum by ({by}) (max by (queue, kind) "
        f"(rate(dagster_taskiq_{metric}{{{QUEUE}}}[$__rate_interval])))"
    )


def _quantile(share: float, metric: str) -> str:
    return (
        f"histogram_quantile({share}, sum by (le, queue) (max by (le, queue, kind) "
        f"(rate(dagster_taskiq_{metric}_bucket{{{QUEUE}}}[$__rate_interval]))))"
    )


def _waiting(by: str = "") -> str:
    return (
        f'sum{by} (max by (queue, kind) (dagster_taskiq_queue_messages{{{QUEUE},state="waiting"}}))'
    )


NOW = Row("Now", (
    Panel("Firing alerts", "Alerts of this kit that fire now.",
          (Query('count(ALERTS{alertname=~"DagsterTaskiq.*",alertstate="firing",job=~"$job"}) '
                 "or vector(0)", unscoped=True),),
          "stat", width=3, height=4, thresholds=GREEN_OR_RED),
    Panel("Broker", "Whether Redis or Valkey answers the exporter.",
          (Query("max(dagster_taskiq_up{})"),), "stat", width=3, height=4,
          thresholds=((None, "red"), (1, "green")), links=REDIS_IN_DAGSTER,
          mappings=((0, "red", "away"), (1, "green", "answers"))),
    Panel("Worst wait", "Oldest waiting message, as a share of its queue's objective.",
          (Query(f"max(max by (queue) (dagster_taskiq_queue_oldest_waiting_age_seconds{{{QUEUE}}}) "
                 f"/ on (queue) max by (queue) (dagster_taskiq_queue_slo_seconds{{{QUEUE}}}))"),),
          "stat", "percentunit", 3, 4, thresholds=((None, "green"), (0.5, "orange"), (1, "red"))),
    Panel("Waiting", "Messages that wait, of all kinds.", (Query(_waiting()),), "stat", width=3,
          height=4),
    Panel("Running", "Messages that execute.",
          (Query('sum(max by (queue, kind) '
                 f'(dagster_taskiq_queue_messages{{{QUEUE},state="running"}}))'),),
          "stat", width=3, height=4),
    Panel("Live workers", "Workers that serve any of the queues; one that serves two counts twice.",
          (Query(f'sum(max by (queue) (dagster_taskiq_workers{{{QUEUE},state="alive"}}))'),),
          "stat", width=3, height=4, thresholds=((None, "red"), (1, "green")),
          links=WORKERS_IN_DAGSTER),
    Panel("Slots busy", "Share of all slots for steps and tasks that hold work.",
          (Query('sum(max by (lane) (dagster_taskiq_worker_slots{lane="step",state="busy"})) / '
                 '(sum(max by (lane, state) (dagster_taskiq_worker_slots{lane="step"})) > 0)'),),
          "stat", "percentunit", 3, 4, thresholds=((None, "green"), (0.95, "orange"))),
    Panel("Stuck runs", "Runs that do not get on by themselves; their logs say why.",
          (Query("sum(max by (cause) (dagster_taskiq_dagster_stuck_runs{}))"),), "stat", width=3,
          height=4, thresholds=GREEN_OR_RED, links=RUNS_IN_DAGSTER),
))  # fmt: skip

QUEUES = Row("Queues", (
    Panel("Oldest waiting message", "How long it waits; dashed: the objective of its queue.",
          (Query(f"max by (queue) (dagster_taskiq_queue_oldest_waiting_age_seconds{{{QUEUE}}})",
                 "{{queue}}"),
           Query(f"max by (queue) (dagster_taskiq_queue_slo_seconds{{{QUEUE}}})",
                 "{{queue}} objective", dashed=True)),
          unit="s", width=12, links=CHECKS),
    Panel("Messages by state", "Waiting, claimed (taken, not begun) and running.",
          (Query("sum by (state) (max by (queue, kind, state) "
                 f"(dagster_taskiq_queue_messages{{{QUEUE}}}))", "{{state}}"),),
          width=12, stacked=True),
    Panel("Submitted, started and finished", "What comes in, what begins, what ends. "
          "When the first stays above the second, the queue grows.",
          (Query(_counted("messages_submitted_total", ""), "submitted"),
           Query(_counted("messages_started_total", ""), "started"),
           Query(f"sum(max by (queue, kind, outcome) (rate(dagster_taskiq_messages_finished_total"
                 f"{{{QUEUE}}}[$__rate_interval])))", "finished")),
          unit="ops", width=8),
    Panel("Waiting by queue", "Backlog of each queue.",
          (Query(_waiting(" by (queue)"), "{{queue}}"),), width=8, links=CHECKS),
    Panel("Time to drain", "Backlog divided by the rate at which messages begin: how long the last "
          "one would wait if nothing more came.",
          (Query(f"{_waiting(' by (queue)')} / ({_counted('messages_started_total')} > 0)",
                 "{{queue}}"),), unit="s", width=8),
    Panel("Oldest running message", "Hung work shows as a line that only rises.",
          (Query("max by (queue, kind) "
                 f"(dagster_taskiq_queue_oldest_running_age_seconds{{{QUEUE}}})",
                 "{{queue}} {{kind}}"),), unit="s", width=8, links=CHECKS),
    Panel("Workers wanted", "Workers that would keep each queue within its objective, and (dashed) "
          "those that serve it, by lane.",
          (Query(f"max by (queue, lane) (dagster_taskiq_queue_desired_workers{{{QUEUE}}})",
                 "{{queue}} {{lane}}"),
           Query(f"max by (queue, lane) (dagster_taskiq_queue_serving_workers{{{QUEUE}}})",
                 "{{queue}} {{lane}} serving", dashed=True)), width=8, links=CHECKS),
    Panel("Slots wanted and free", "Slots that would keep each queue within its objective, and "
          "(dashed) the free ones of those that serve it.",
          (Query(f"max by (queue, lane) (dagster_taskiq_queue_desired_slots{{{QUEUE}}})",
                 "{{queue}} {{lane}}"),
           Query(f"max by (queue, lane) (dagster_taskiq_queue_free_slots{{{QUEUE}}})",
                 "{{queue}} {{lane}} free", dashed=True)), width=8),
))  # fmt: skip

LATENCY = Row("Latency", (
    Panel("Wait p50, p95, p99", "From submit to start, over all queues.",
          tuple(Query(f"histogram_quantile({share}, sum by (le) (max by (le, queue, kind) "
                      f"(rate(dagster_taskiq_message_wait_seconds_bucket{{{QUEUE}}}"
                      "[$__rate_interval]))))", name)
                for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))),
          unit="s", width=8),
    Panel("Wait", "How many deliveries began after which wait.",
          (Query("sum by (le) (max by (le, queue, kind) (increase("
                 f"dagster_taskiq_message_wait_seconds_bucket{{{QUEUE}}}[$__rate_interval])))",
                 "{{le}}", heatmap=True),), "heatmap", "s", 8),
    Panel("Duration p50 and p95", "From start to end of steps, tasks and runs, by queue.",
          (Query(_quantile(0.5, "message_duration_seconds"), "{{queue}} p50"),
           Query(_quantile(0.95, "message_duration_seconds"), "{{queue}} p95")),
          unit="s", width=8),
    Panel("Late starts", "Share of what began after a wait longer than the objective.",
          (Query(f"{_counted('messages_started_late_total')} / "
                 f"({_counted('messages_started_total')} > 0)", "{{queue}}"),),
          unit="percentunit", width=12, top=1),
    Panel("Mean duration", "Busy time divided by what ended, by queue.",
          (Query("sum by (queue) (max by (queue, kind) (rate("
                 f"dagster_taskiq_message_duration_seconds_sum{{{QUEUE}}}[$__rate_interval]))) / "
                 "(sum by (queue) (max by (queue, kind) (rate("
                 f"dagster_taskiq_message_duration_seconds_count{{{QUEUE}}}[$__rate_interval]"
                 "))) > 0)", "{{queue}}"),), unit="s", width=12),
    Panel("CPU p50 and p95", "What the process of a step, task or run used, by queue.",
          (Query(_quantile(0.5, "message_cpu_seconds"), "{{queue}} p50"),
           Query(_quantile(0.95, "message_cpu_seconds"), "{{queue}} p95")),
          unit="s", width=12),
    Panel("Peak memory p50 and p95", "The most memory of such a process, code that is shared with "
          "others included.",
          (Query(_quantile(0.5, "message_peak_memory_bytes"), "{{queue}} p50"),
           Query(_quantile(0.95, "message_peak_memory_bytes"), "{{queue}} p95")),
          unit="bytes", width=12),
))  # fmt: skip

WORKERS = Row("Workers", (
    Panel("Slots", "Slots of all live workers by lane.",
          (Query("max by (lane, state) (dagster_taskiq_worker_slots{})", "{{lane}} {{state}}"),),
          width=8, stacked=True, links=WORKERS_IN_DAGSTER),
    Panel("Workers by state", "Expired: silent, and not given up yet.",
          (Query(f"max by (queue, state) (dagster_taskiq_workers{{{QUEUE}}})",
                 "{{queue}} {{state}}"),), width=8, links=WORKERS_IN_DAGSTER),
    Panel("Workers lost", "Workers that were given up, in an hour.",
          (Query("max(increase(dagster_taskiq_workers_lost_total{}[1h]))", "lost"),), width=8),
    Panel("Single workers", "Last heartbeat of each worker; needs an exporter with --per-worker.",
          (Query("time() - max by (worker) "
                 "(dagster_taskiq_worker_last_heartbeat_timestamp_seconds{}) * on (worker) "
                 "group_right () max by (worker, host, version, dagster_version) "
                 "(dagster_taskiq_worker_info{})", instant=True),), "table", "s", 12),
    Panel("Memory of workers", "All of them, and (dashed, with --per-worker) each one.",
          (Query("max(dagster_taskiq_workers_memory_bytes{})", "all"),
           Query("max by (worker) (dagster_taskiq_worker_memory_bytes{})", "{{worker}}",
                 dashed=True)), unit="bytes", width=12),
    Panel("Processors of workers", "Kept busy by all of them, and (dashed, with --per-worker) "
          "by each one.",
          (Query("max(dagster_taskiq_workers_busy_cpus{})", "all"),
           Query("max by (worker) (dagster_taskiq_worker_busy_cpus{})", "{{worker}}",
                 dashed=True)), width=12),
    Panel("Busy slots by worker", "Needs an exporter with --per-worker.",
          (Query("max by (worker, lane) (dagster_taskiq_worker_busy_slots{})",
                 "{{worker}} {{lane}}"),), width=12),
))  # fmt: skip

FAILURES = Row("Failures", (
    Panel("Outcomes", "Failed: the user's code raised. Crashed: its process died.",
          (Query("sum by (outcome) (max by (queue, kind, outcome) "
                 f"(rate(dagster_taskiq_messages_finished_total{{{QUEUE}}}[$__rate_interval])))",
                 "{{outcome}}"),), unit="ops", width=8, stacked=True),
    Panel("Redelivered and lost", "Handed out again as nobody began it, and lost while it ran.",
          (Query(_counted("messages_redelivered_total"), "{{queue}} redelivered"),
           Query(_counted("messages_lost_total"), "{{queue}} lost")), unit="ops", width=8,
          links=CHECKS),
    Panel("Dead letters", "Held now, and (dashed) new ones in an hour.",
          (Query(f"max by (queue) (dagster_taskiq_dead_letter_messages{{{QUEUE}}})", "{{queue}}"),
           Query("sum by (queue) (max by (queue, kind) "
                 f"(increase(dagster_taskiq_dead_letters_total{{{QUEUE}}}[1h])))",
                 "{{queue}} new", dashed=True)), width=8, links=CHECKS),
    Panel("Alerts", "When which alert fired.",
          (Query('max by (alertname, queue) (ALERTS{alertname=~"DagsterTaskiq.*",'
                 'alertstate="firing",job=~"$job"})', "{{alertname}} {{queue}}", unscoped=True),),
          "state-timeline", "short", 24, 8, mappings=((1, "red", "fires"),)),
    Panel("Health checks", "What the checks in Dagster say.",
          (Query("max by (subject, check) (dagster_taskiq_health_check_severity{})",
                 "{{subject}} {{check}}"),), "state-timeline", "short", 24, 10,
          mappings=SEVERITIES,
          links={"In Dagster": "${dagster}/assets/taskiq/${__field.labels.subject}?view=checks"}),
))  # fmt: skip

DAGSTER = Row("Dagster", (
    Panel("Open runs", "QUEUED: in Dagster's own queue. STARTING: in a queue of the kit.",
          (Query("max by (status) (dagster_taskiq_dagster_runs{})", "{{status}}"),), width=8,
          stacked=True, links=RUNS_IN_DAGSTER),
    Panel("Oldest open run", "How long the oldest run is in its status.",
          (Query("max by (status) (dagster_taskiq_dagster_oldest_run_age_seconds{})",
                 "{{status}}"),), unit="s", width=8, links=RUNS_IN_DAGSTER),
    Panel("Open runs by location", "Of the newest 1,000 open runs.",
          (Query("max by (location) (dagster_taskiq_dagster_location_runs{})", "{{location}}"),),
          width=8, stacked=True, links=RUNS_IN_DAGSTER),
    Panel("Pools", "Slots of Dagster's pools: claimed, and (dashed) their limit.",
          (Query('max by (pool) (dagster_taskiq_dagster_pool_slots{state="claimed"})', "{{pool}}"),
           Query('max by (pool) (dagster_taskiq_dagster_pool_slots{state="limit"})',
                 "{{pool}} limit", dashed=True)), width=8,
          links={"Pools": "${dagster}/deployment/concurrency"}),
    Panel("Steps that wait for a pool", "They are not submitted before a slot is theirs.",
          (Query("max by (pool) (dagster_taskiq_dagster_pool_pending_steps{})", "{{pool}}"),),
          width=8, links={"Pools": "${dagster}/deployment/concurrency"}),
    Panel("Stuck runs by cause", "Runs that do not get on by themselves.",
          (Query("max by (cause) (dagster_taskiq_dagster_stuck_runs{})", "{{cause}}"),), width=8,
          links=RUNS_IN_DAGSTER),
    Panel("Runs of the last hour", "Those that ended, and (dashed) those that are retries.",
          (Query("max by (status) (dagster_taskiq_dagster_recent_runs{})", "{{status}}"),
           Query("max(dagster_taskiq_dagster_recent_retried_runs{})", "retries", dashed=True)),
          width=8, links=RUNS_IN_DAGSTER),
    Panel("Creation to start", "Of the runs that began in the last hour.",
          (Query("max by (statistic) (dagster_taskiq_dagster_run_start_wait_seconds{})",
                 "{{statistic}}"),), unit="s", width=8),
    Panel("Daemons", "Age of the last heartbeat of each of Dagster's daemons.",
          (Query("time() - max by (daemon) "
                 "(dagster_taskiq_dagster_daemon_heartbeat_timestamp_seconds{})", "{{daemon}}"),),
          unit="s", width=8, links={"Daemons": "${dagster}/deployment/daemons"}),
    Panel("Failed ticks", "Of sensors and schedules, in the last hour.",
          (Query("max by (instigator) (dagster_taskiq_dagster_recent_tick_failures{})",
                 "{{instigator}}"),), width=8, links={"Automation": "${dagster}/automation"}),
    Panel("Code locations", "Whether each loads; needs an exporter with --workspace.",
          (Query("max by (location) (dagster_taskiq_dagster_code_location_loaded{})",
                 "{{location}}"),), "state-timeline", width=8,
          mappings=((0, "red", "does not load"), (1, "green", "loads")),
          links={"Locations": "${dagster}/deployment/locations"}),
    Panel("Database connections", "Of everybody to the instance's PostgreSQL; dashed: its limit.",
          (Query("max(dagster_taskiq_dagster_database_connections{})", "in use"),
           Query("max(dagster_taskiq_dagster_database_max_connections{})", "limit",
                 dashed=True)), width=8),
))  # fmt: skip

EXPORTER = Row("Broker and exporter", (
    Panel("Memory of the broker", "Dashed: its own limit, 0 for none.",
          (Query("max(dagster_taskiq_redis_memory_used_bytes{})", "used"),
           Query("max(dagster_taskiq_redis_memory_max_bytes{})", "maxmemory", dashed=True)),
          unit="bytes", width=6, links=REDIS_IN_DAGSTER),
    Panel("Round trip", "How long a PING takes from the exporter.",
          (Query("max(dagster_taskiq_redis_round_trip_seconds{})", "PING"),), unit="s", width=6),
    Panel("Readings", "How long each collector's last reading took.",
          (Query("max by (collector) (dagster_taskiq_exporter_collector_duration_seconds{})",
                 "{{collector}}"),), unit="s", width=6),
    Panel("Age of readings", "Of what each collector tells, and of the health sensor's last look.",
          (Query("time() - max by (collector) "
                 "(dagster_taskiq_exporter_collector_timestamp_seconds{})", "{{collector}}"),
           Query("time() - (max(dagster_taskiq_health_report_timestamp_seconds{}) > 0)",
                 "health sensor")), unit="s", width=6),
    Panel("Collectors", "Whether each one's last reading worked.",
          (Query("min by (collector) (dagster_taskiq_exporter_collector_success{})",
                 "{{collector}}"),), "state-timeline", width=12,
          mappings=((0, "red", "failed"), (1, "green", "worked"))),
    Panel("Builds", "Releases of exporter, Python and server.",
          (Query("max by (version, python_version, server) (dagster_taskiq_exporter_build_info{})",
                 instant=True),), "table", "short", 12),
))  # fmt: skip

OVERVIEW = Dashboard(
    "dagster-taskiq-overview",
    "Dagster on taskiq",
    "Broker, queues, workers and runs of dagster-taskiq-kit.",
    (NOW, QUEUES, LATENCY, WORKERS, FAILURES, DAGSTER, EXPORTER),
    (
        label_variable("queue", "Queue", 'dagster_taskiq_queue_slo_seconds{job=~"$job"}'),
        text_variable("dagster", "Dagster UI", "http://localhost:3000"),
    ),
    links={"Dagster": "${dagster}/assets", "SLO": "/d/dagster-taskiq-slo"},
)
