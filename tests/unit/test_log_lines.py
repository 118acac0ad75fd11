"""One line of a log: one JSON object with the fields that are documented, and no secret."""

import ast
import json
import logging
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dagster_taskiq_kit.cli.refusals import tell
from dagster_taskiq_kit.host import log_lines
from dagster_taskiq_kit.host.log_lines import FIELDS, JsonLines
from dagster_taskiq_kit.vocabulary.log_actions import Action, about, of_task
from dagster_taskiq_kit.vocabulary.masking import masked

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "dagster_taskiq_kit"
#: Rooms whose code logs in worker, exporter or stack, and in no process of Dagster's alone.
LOGGING_ROOMS = ("worker", "broker", "exporter", "health", "dagster_internals", "cli", "dev")


def line_of(message: str, *args: object, **extra: object) -> dict:
    logger = logging.getLogger("dagster_taskiq_kit.some.room")
    written: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(JsonLines().format(record))

    keeping = Keep()
    logger.addHandler(keeping)
    try:
        logger.warning(message, *args, **extra)  # type: ignore[arg-type]
    finally:
        logger.removeHandler(keeping)
    (line,) = written
    assert "\n" not in line
    return json.loads(line)


def test_a_line_says_when_how_bad_what_and_about_whom():
    said = about(Action.ENDED, "step:r1:a.b[x:y]:2", queue="q", state="failed", seconds=1.5)
    line = line_of("%s failed", "it", extra=said)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "warning", "event": "it failed", "action": "ended", "run_id": "r1",
        "step_key": "a.b[x:y]", "attempt": 2, "task_id": "step:r1:a.b[x:y]:2", "queue": "q",
        "state": "failed", "seconds": 1.5, "logger": "dagster_taskiq_kit.some.room",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("task_id", "said"),
    [
        ("run:r1:0", {"run_id": "r1"}),
        ("step:r1:key:10", {"run_id": "r1", "step_key": "key", "attempt": 10}),
        ("step:r1:key", {}),
        ("0f3e", {}),
        ("run:", {}),
    ],
)
def test_an_id_says_run_step_and_attempt_where_it_has_them(task_id, said):
    assert of_task(task_id) == {"task_id": task_id, **said}


def test_a_traceback_is_a_field_of_its_line():
    line = line_of("it failed", exc_info=ValueError("of two\nlines"))
    assert "of two\nlines" in line["traceback"]
    assert "ValueError" in line["traceback"]


def test_no_field_shows_a_secret():
    url = "redis://someone:hunter2@somewhere/0"
    line = line_of("%s", url, exc_info=ValueError(url), extra={"queue": url})
    assert "hunter2" not in json.dumps(line)


def test_the_documented_actions_and_fields_are_those_that_there_are():
    page = (ROOT / "docs" / "logs.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page, flags=re.MULTILINE))
    assert [action.value for action in Action if action.value not in rows] == []
    documented = set(rows) - set(FIELDS) - {"logger", "traceback"}
    assert documented == {action.value for action in Action}
    assert [name for name in FIELDS if name not in rows] == []


def test_everything_that_the_kit_logs_names_its_action():
    silent = []
    for room in LOGGING_ROOMS:
        for path in sorted((PACKAGE / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and isinstance(node.func.value, ast.Name)
                    and node.func.value.id == "logger"
                    and not any(keyword.arg == "extra" for keyword in node.keywords)
                ):
                    silent.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert silent == []


def test_what_a_command_says_in_json_is_one_object_whatever_stands_in_it(capsys, monkeypatch):
    monkeypatch.setattr(log_lines, "_always", {"worker": "celery@w1", "host": "h"})
    for sentence in ('Bad: password="abc def"', "redis://localhost:6379/0 does not answer (late)."):
        tell(sentence, "critical", action=Action.CANNOT_GO_ON.value)
        said = json.loads(capsys.readouterr().err)
        assert (said["action"], said["worker"]) == ("cannot_go_on", "celery@w1")
        assert "abc" not in said["event"]
    assert said["event"].startswith("redis://localhost:6379/0 does not answer")


def test_one_record_that_cannot_be_written_is_not_the_last_one():
    code = """
import logging, sys
from dagster_taskiq_kit.cli.refusals import tell
from dagster_taskiq_kit.host import log_lines
from dagster_taskiq_kit.host.log_lines import configure_logging
from dagster_taskiq_kit.host.written_lines import LogWriter
configure_logging("info", sys.argv[1], {"worker": "w"})
log = LogWriter()
with log.running():
    logging.info("value %d", "x")
    logging.info("bad state", extra={"state": {(1, 2): 0}})
    print("printed")
    logging.info("after them")
"""
    for form in ("console", "json"):
        command = [sys.executable, "-c", code, form]
        said = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "after them" in said.stderr
        assert "cannot be written with what it was given" in said.stderr
        assert "printed" in said.stdout
        if form == "json":
            lines = [json.loads(line) for line in (said.stderr + said.stdout).splitlines()]
            assert {line["worker"] for line in lines} == {"w"}


def test_a_second_signal_has_its_last_words():
    code = """
import logging, os
from dagster_taskiq_kit.cli.refusals import tell
from dagster_taskiq_kit.host import log_lines
from dagster_taskiq_kit.host.log_lines import configure_logging
from dagster_taskiq_kit.host.written_lines import LogWriter
configure_logging("info", "json", {"worker": "w"})
log = LogWriter()
with log.running():
    logging.warning("Told to stop again.")
    log.flush_within(30)
    os._exit(0)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(said.stderr)["event"] == "Told to stop again."


def test_a_line_is_masked_in_time_that_is_linear_in_its_length():
    """A step may print a megabyte without a blank; a worker that masks it holds up its lease."""
    for begins in ("token: ", "see http://x ", "%41 ", "a.secret-"):
        line = begins + "0123456789abcdef." * 60_000
        began_s = time.process_time()
        masked(line)
        long_s = time.process_time() - began_s
        began_s = time.process_time()
        for _ in range(10):
            masked(line[:100_000])
        assert long_s < 10 * (time.process_time() - began_s) + 0.5, begins
