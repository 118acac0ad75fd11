"""The SLO of one queue: 99 % of what begins has waited no longer than the objective, in 30 days."""

from .overview import CHECKS
from .panels import Dashboard, Panel, Query, Row, label_variable, text_variable

BUDGET = 0.01
QUEUE = 'queue="$queue"'
#: Recording rules know no instance, and their selectors are written out.
RULES = f'{{job=~"$job",{QUEUE}}}'
_LATE = f"job_queue:dagster_taskiq_messages_started_late:ratio_rate%s{RULES}"


def _in(window: str, metric: str) -> str:
    return (
        f"sum(max by (queue, kind) (increase(dagster_taskiq_{metric}_total{{{QUEUE}}}[{window}])))"
    )


SLO = Dashboard(
    "dagster-taskiq-slo",
    "Dagster on taskiq: SLO of a queue",
    "Start latency of one queue against its objective: 99 % begin within it, over 30 days.",
    (
        Row("Budget", (
            Panel("Budget left", "Of the 1 % that may begin late in 30 days. Red: it is spent.",
                  (Query(f"1 - {_in('30d', 'messages_started_late')} / "
                         f"({_in('30d', 'messages_started')} > 0) / {BUDGET}"),),
                  "stat", "percentunit", 6, 6, links=CHECKS,
                  thresholds=((None, "red"), (0, "orange"), (0.25, "green"))),
            Panel("Objective", "Longest acceptable wait.",
                  (Query(f"max(dagster_taskiq_queue_slo_seconds{{{QUEUE}}})"),),
                  "stat", "s", 6, 6),
            Panel("Late in 30 days", "Deliveries that began late.",
                  (Query(_in("30d", "messages_started_late")),), "stat", "short", 6, 6, decimals=0),
            Panel("Started in 30 days", "Deliveries that began.",
                  (Query(_in("30d", "messages_started")),), "stat", "short", 6, 6, decimals=0),
        )),
        Row("Burn", (
            Panel("Burn rate", "1 spends the budget in exactly 30 days. Pages at 14.4 (1 h) and 6 "
                  "(6 h), a ticket at 1 (3 d).",
                  tuple(Query(f"{_LATE % window} / {BUDGET}", window, unscoped=True)
                        for window in ("1h", "6h", "3d")),
                  width=12, height=9,
                  thresholds=((None, "transparent"), (1, "yellow"), (6, "orange"), (14.4, "red"))),
            Panel("Late starts an hour", "When they were.",
                  (Query(_in("1h", "messages_started_late"), "late"),), width=12, height=9),
        )),
        Row("Alerts", (
            Panel("Alerts on this queue", "When which alert fired.",
                  (Query('max by (alertname, severity) (ALERTS{alertname=~"DagsterTaskiq.*",'
                         f'alertstate="firing",job=~"$job",{QUEUE}}})',
                         "{{alertname}} {{severity}}", unscoped=True),),
                  "state-timeline", "short", 24, 7, mappings=((1, "red", "fires"),)),
        )),
        Row("What stands behind it", (
            Panel("Wait", "p50, p95 and p99 of what began; dashed: the objective.",
                  (*(Query(f"job_queue:dagster_taskiq_message_wait_seconds:{name}_rate5m{RULES}",
                           name, unscoped=True) for name in ("p50", "p95", "p99")),
                   Query(f"max(dagster_taskiq_queue_slo_seconds{{{QUEUE}}})", "objective",
                         dashed=True)), unit="s", width=12),
            Panel("Oldest waiting message", "A queue that stands still burns no budget: nothing "
                  "begins. It shows here.",
                  (Query(f"max(dagster_taskiq_queue_oldest_waiting_age_seconds{{{QUEUE}}})",
                         "oldest"),
                   Query(f"max(dagster_taskiq_queue_slo_seconds{{{QUEUE}}})", "objective",
                         dashed=True)), unit="s", width=12),
        )),
    ),
    (
        label_variable(
            "queue", "Queue", 'dagster_taskiq_queue_slo_seconds{job=~"$job"}', several=False
        ),
        text_variable("dagster", "Dagster UI", "http://localhost:3000"),
    ),
    since="now-7d",
    links={
        "Dagster": "${dagster}/assets/taskiq/queue/${queue}?view=checks",
        "Overview": "/d/dagster-taskiq-overview",
    },
)  # fmt: skip
