"""The commands of the README, as make runs them: the demo's verdicts, and nothing left behind."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from dagster_taskiq_kit.host.process_group import wait_until

ROOT = Path(__file__).resolve().parents[2]


def command_of(target, home):
    """Return what ``make TARGET`` runs last, in this environment and on a home of its own."""
    # `make test` runs us: what it passes to a make below it is not what a person's make gets.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    shown = subprocess.run(
        ["make", "-n", target], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    program, *arguments = shlex.split(shown.stdout.strip().splitlines()[-1])
    assert Path(program).name == "dagster-taskiq"
    return [sys.executable, "-m", "dagster_taskiq_kit", *arguments, "--home", str(home)]


def run_demo(home, **environment):
    return subprocess.run(
        command_of("demo", home),
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def processes_of(home):
    """Return every process that has this home in its environment or its command line."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), process.environ().get("DAGSTER_HOME", "")]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(home) in word for word in words):
            found.append(process)
    return found


def test_make_demo_publishes_the_real_totals_twice_and_leaves_nothing(tmp_path):
    for _ in range(2):
        done = run_demo(tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "flights 336776, published 336776" in done.stdout
        assert "carriers 16, published 16" in done.stdout
        assert "departed 328521, mean_delay_min 12.64" in done.stdout
        assert "heavy" in done.stdout
        # Nothing is cut without a word: each month of the year, each carrier.
        rows = [line.split() for line in done.stdout.splitlines() if line.startswith("    ")]
        firsts = [row[0] for row in rows if row]
        assert {f"2013-{month:02}" for month in range(1, 13)} <= set(firsts)
        assert (
            sum(
                bool(re.fullmatch(r"[0-9A-Z]{2}", first)) and not first.isdigit()
                for first in firsts
            )
            == 16
        )
        # Progress says when, where, and how far it is.
        assert re.search(
            r"^ +\d+\.\d s  begins  \S+ on worker-[12]  \[\d+ of \d+ done\]$",
            done.stdout,
            re.MULTILINE,
        )
        finished = re.findall(r"\[(\d+) of (\d+) done\]$", done.stdout, re.MULTILINE)[-1]
        assert finished[0] == finished[1]
        assert processes_of(tmp_path) == []


def test_the_demo_without_one_month_fails_and_names_the_check(tmp_path):
    done = run_demo(tmp_path, DEMO_DROP_MONTH="3")
    assert done.returncode != 0
    assert "check every_flight_counted: FAILED (ERROR)" in done.stdout
    assert "every_flight_counted" in done.stderr
    assert processes_of(tmp_path) == []


def start_dev(tmp_path):
    """Start the stack with its UI and wait until it is up; returns it and its log."""
    log = tmp_path / "log"
    with log.open("wb") as output:
        stack = subprocess.Popen(
            [*command_of("dev", tmp_path), "--port", "0"],
            cwd=ROOT,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    assert wait_until(lambda: "UI   " in log.read_text(), 120), log.read_text()
    return stack, log


def test_a_killed_stack_leaves_no_process_behind(tmp_path):
    stack, _ = start_dev(tmp_path)
    assert len(processes_of(tmp_path)) > 5
    stack.send_signal(signal.SIGKILL)
    stack.wait()
    assert wait_until(lambda: processes_of(tmp_path) == [], 30), processes_of(tmp_path)


def test_one_interrupt_ends_the_whole_stack(tmp_path):
    stack, log = start_dev(tmp_path)
    stack.send_signal(signal.SIGINT)
    assert stack.wait(90) == 0, log.read_text()
    assert wait_until(lambda: processes_of(tmp_path) == [], 30), processes_of(tmp_path)
