"""A worker's log is an API: JSON lines that say message, run, job, step, queue, worker and host."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import dagster as dg

from dagster_taskiq_kit.vocabulary.log_actions import Action

CODE = Path(__file__).parent / "code" / "logged_jobs.py"
PRINTING = Path(__file__).parent / "code" / "printing_jobs.py"
UNREAD = Path(__file__).parent / "code" / "unread.py"
STATUS = dg.DagsterRunStatus


def lines_of(site) -> list[dict]:
    return [json.loads(line) for line in site.fleet.worker_log(1).read_text().splitlines()]


def test_each_line_of_a_worker_in_json_is_one_object_and_says_what_it_is_about(site):
    worker = site.start_worker("--log-format", "json")
    run_id = site.launch("logged")
    assert site.fleet.wait_for_run(run_id).status is STATUS.FAILURE
    assert site.fleet.stop_worker(worker) == 0
    lines = lines_of(site)
    for line in lines:
        assert {"time", "level", "event", "action", "worker", "host"} <= set(line), line
        assert (line["worker"], line["host"]) == ("worker-1", socket.gethostname())
        assert line["action"] is None or Action(line["action"])
    of_the_step = {
        "run_id": run_id, "job": "logged", "step_key": "talks", "attempt": 1, "queue": "default",
        "location": "logged_jobs.py", "task_id": f"step:{run_id}:talks:1",
    }  # fmt: skip
    about_it = [line for line in lines if line.get("task_id") == of_the_step["task_id"]]
    for line in about_it:
        assert of_the_step.items() <= line.items(), line
    assert about_it[0]["action"] == "began"
    assert [line["action"] for line in about_it].count("ended") == 1
    said = {(line.get("stream"), line["event"]) for line in about_it}
    assert {("out", "two"), ("out", "lines"), ("err", "in red")} <= said
    assert ("out", "redis://someone:***@somewhere/0") in said
    states = {
        line["step_key"]: line["state"]
        for line in lines
        if line["action"] == "ended" and "step_key" in line
    }
    assert states == {"talks": "succeeded", "fails": "failed", "dies": "crashed"}
    printed = {line["event"] for line in lines if line["action"] == "printed"}
    assert {"printed at import", "written past Python"} <= printed
    assert "hunter2" not in site.fleet.worker_log(1).read_text()


def test_jq_reads_a_workers_log(site):
    jq = shutil.which("jq")
    assert jq, "jq is not installed on this machine"
    worker = site.start_worker("--log-format", "json")
    run_id = site.launch("logged")
    assert site.fleet.wait_for_run(run_id).status is STATUS.FAILURE
    assert site.fleet.stop_worker(worker) == 0
    asked = 'select(.action == "ended" and .step_key == "dies") | "\\(.state) \\(.run_id)"'
    log = str(site.fleet.worker_log(1))
    answer = subprocess.run([jq, "-r", asked, log], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == [f"crashed {run_id}"]


def test_a_worker_whose_log_nobody_reads_executes_and_ends_all_the_same(fleet, open_site):
    program = [sys.executable, str(UNREAD), sys.executable, "-m", "dagster_taskiq_kit"]
    with open_site(fleet, PRINTING) as site:
        worker = site.start_worker("--log-format", "json", program=program)
        for _ in range(2):
            run_id = site.launch("talking")
            assert fleet.wait_for_run(run_id).status is STATUS.SUCCESS
        assert fleet.stop_worker(worker) == 0
