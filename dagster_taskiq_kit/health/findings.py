"""Findings: what one health rule says of a reading, in words and numbers.

Invariant: a finding that is not fine says what to do next.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from ..config.settings import TaskiqSettings
from ..vocabulary.wording import FEW


class Severity(str, Enum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """Return 0 for OK, 1 for WARN, 2 for ERROR."""
        return list(Severity).index(self)


@dataclass(frozen=True)
class Finding:
    """One rule's verdict, in words and numbers.

    Args:
        subject: What it is about: ``redis``, ``queue/<name>``, ``workers`` or ``runs``.
        check: The rule's name.
        severity: How bad it is.
        sentence: What was found.
        remedy: What to do about it; '' when nothing is to be done.
        numbers: The measured figures, by name with unit.
        thresholds: From when it is a WARN or an ERROR, in words.
        known: False if it could not be judged; the last known severity then stays, if worse.
    """

    subject: str
    check: str
    severity: Severity
    sentence: str
    remedy: str = ""
    numbers: Mapping[str, float | int] = field(default_factory=dict)
    thresholds: str = ""
    known: bool = True

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.severity is Severity.OK


def no_better_than(finding: Finding, last: Severity | None) -> Finding:
    """Return a finding that could not be judged with the severity that was last known, if worse.

    Whoever was red stays red until it is known to be fine: silence is no good news.
    """
    if finding.known or last is None or last.rank <= finding.severity.rank:
        return finding
    said = f"{finding.sentence} When it was last known it was {last.value.upper()}."
    return replace(finding, severity=last, sentence=said)


def queue_subject(name: str) -> str:
    """Return the subject of a queue's findings."""
    return f"queue/{name}"


def watched_queues(settings: TaskiqSettings) -> Sequence[str]:
    """Return the queues that a deployment declares: those with objectives, and the default one.

    With a queue for each code location, the default one is not used.
    """
    default = set() if settings.queue_template else {settings.default_queue}
    return sorted(default | set(settings.queues))


def worst(findings: Iterable[Finding]) -> Severity:
    """Return the worst severity of all; OK when there are none."""
    return max((each.severity for each in findings), key=lambda s: s.rank, default=Severity.OK)


def summary(findings: Sequence[Finding]) -> str:
    """Return one line: the worst findings, or that all is well."""
    bad = sorted((f for f in findings if not f.ok), key=lambda f: -f.severity.rank)
    if not bad:
        return f"All {len(findings)} checks pass."
    said = "; ".join(f"{f.severity.value.upper()} {f.subject} {f.check}" for f in bad[:FEW])
    more = f" and {len(bad) - FEW} more" if len(bad) > FEW else ""
    return f"{len(bad)} of {len(findings)} checks fail: {said}{more}."


def start_worker(queue: str) -> str:
    """Return what to do where no worker serves a queue; true in any folder, not that of code."""
    return (
        f"Start one: `dagster-taskiq worker start -q {queue} -w WORKSPACE`, with the path of the "
        "workspace.yaml that has its code."
    )
