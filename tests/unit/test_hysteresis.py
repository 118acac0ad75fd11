"""The health sensor's memory: two readings make a change, and an old cursor does no harm."""

import json

import pytest

from dagster_taskiq_kit.health.findings import Finding, Severity
from dagster_taskiq_kit.health.hysteresis import Memory

OK, WARN, ERROR = Severity.OK, Severity.WARN, Severity.ERROR


def finding(severity: Severity, check: str = "backlog") -> Finding:
    return Finding("queue/q", check, severity, "A sentence.", "" if severity is OK else "Do it.")


def changes(readings: list[Severity]) -> list[tuple[str, str]]:
    """Take readings in, each through a cursor as the daemon stores it; returns the changes."""
    cursor, found = None, []
    for severity in readings:
        memory = Memory.from_json(cursor)
        found += [
            (before.value, after.severity.value)
            for after, before in memory.take([finding(severity)])
        ]
        cursor = memory.to_json()
    return found


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ([OK, OK, OK], []),
        ([OK, ERROR, OK, ERROR, OK], []),
        ([OK, ERROR, ERROR], [("ok", "error")]),
        ([OK, WARN, ERROR], [("ok", "error")]),
        ([OK, ERROR, ERROR, OK, ERROR, OK, OK], [("ok", "error"), ("error", "ok")]),
        ([ERROR, OK], []),
        ([ERROR, OK, OK], [("error", "ok")]),
    ],
)
def test_a_verdict_changes_when_two_readings_in_a_row_say_so(readings, expected):
    assert changes(readings) == expected


def test_a_check_that_a_reading_does_not_speak_of_keeps_its_verdict():
    memory = Memory()
    list(memory.take([finding(ERROR), finding(OK, "dead_letters")]))
    list(memory.take([finding(ERROR)]))
    list(memory.take([finding(ERROR)]))
    assert memory.is_settled(finding(OK, "dead_letters"))
    assert memory.is_settled(finding(ERROR))
    assert not memory.is_settled(finding(OK))


@pytest.mark.parametrize(
    "cursor",
    [None, "", "nonsense", "[]", '"text"', "17", json.dumps({"version": 0, "checks": {}}),
     json.dumps({"version": 2}), json.dumps({"version": 2, "not_fine": {"a": [1, 2, 3, 4]}}),
     json.dumps({"version": 3, "not_fine": {}, "reported_at_s": {"a": "soon"}, "figures": {}})],
)  # fmt: skip
def test_a_cursor_of_another_release_is_begun_anew(cursor):
    assert Memory.from_json(cursor) == Memory()


def test_changed_subjects_are_reported_first_then_the_longest_silent():
    memory = Memory()
    subjects = ["redis", "queue/q", "workers"]
    list(memory.take([finding(OK)]))
    memory.reported("queue/q", [finding(OK)], {}, 100.0)
    memory.reported("redis", [], {}, 90.0)
    memory.reported("workers", [], {}, 80.0)
    assert memory.due(subjects, 110.0, every_s=300) == []
    assert memory.due(subjects, 385.0, every_s=300) == ["workers"]
    assert memory.due(subjects, 500.0, every_s=300) == ["workers", "redis", "queue/q"]
    for _ in range(2):
        list(memory.take([finding(WARN)]))
    assert memory.due(subjects, 500.0, every_s=300) == ["queue/q", "workers", "redis"]
    assert memory.due(subjects, 110.0, every_s=300) == ["queue/q"]


def test_a_doubt_is_not_reported():
    memory = Memory()
    list(memory.take([finding(OK)]))
    memory.reported("queue/q", [finding(OK)], {}, 100.0)
    list(memory.take([finding(ERROR)]))
    assert memory.due(["queue/q"], 110.0, every_s=300) == []


def test_the_cursor_names_only_what_is_not_fine_and_a_new_check_begins_as_fine():
    memory = Memory()
    checks = [finding(OK, f"check_{number}") for number in range(50)]
    list(memory.take([*checks, finding(WARN)]))
    memory.reported("queue/q", [*checks, finding(WARN)], {}, 100.0)
    stored = json.loads(memory.to_json())
    assert list(stored["not_fine"]) == ["queue/q|backlog"]
    later = Memory.from_json(memory.to_json())
    assert list(later.take([*checks, finding(WARN)])) == []
    assert later.due(["queue/q"], 110.0, every_s=300) == []
    assert list(later.take([finding(ERROR, "check_7")])) == []
    ((changed, before),) = later.take([finding(ERROR, "check_7")])
    assert (changed.check, before) == ("check_7", OK)


def test_counts_that_changed_are_told_after_a_while_and_sizes_and_ages_never():
    memory = Memory()
    list(memory.take([finding(OK)]))
    figures = {"backlog": 1, "oldest_waiting_s": 1.5, "used_bytes": 10}
    memory.reported("queue/q", [finding(OK)], figures, 100.0)
    memory = Memory.from_json(memory.to_json())
    changed = lambda figures, at_s: memory.figures_changed("queue/q", figures, at_s, 45.0)  # noqa: E731
    assert not changed({**figures, "oldest_waiting_s": 9.5, "used_bytes": 20}, 200.0)
    assert not changed({**figures, "backlog": 2}, 120.0)
    assert changed({**figures, "backlog": 2}, 150.0)
    assert not changed({**figures, "backlog": 2}, 300.0)
    assert not memory.figures_changed("never reported", figures, 300.0, 45.0)
