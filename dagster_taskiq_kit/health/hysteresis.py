"""What the health sensor remembers between two ticks: verdicts, doubts about them, and reports.

Invariant: a verdict changes only when two readings in a row say so, so that one slow answer neither
alarms nor calms anybody. What cannot be read (an older release's cursor) is begun anew. The cursor
names only what is not fine, since the UI shows all of it: a check of a reported subject that it
does not name is fine, and was reported so.
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

from .findings import Finding, Severity, no_better_than

#: Readings in a row that a change takes.
AGREEING = 2
_VERSION = 3
#: Version 2 had no figures.
_READABLE = (2, _VERSION)


@dataclass
class _Verdict:
    severity: str
    #: How many readings in a row said something else.
    doubts: int = 0
    #: The severity that was last reported to Dagster.
    reported: str = ""


def _fine() -> _Verdict:
    return _Verdict(Severity.OK.value, 0, Severity.OK.value)


@dataclass
class Memory:
    """The sensor's cursor.

    Args:
        verdicts: By subject and check.
        reported_at_s: When each subject was last reported, seconds since 1970.
        figures: Of each subject the counts that were last reported, as one number, and when.
    """

    verdicts: dict[str, _Verdict] = field(default_factory=dict)
    reported_at_s: dict[str, float] = field(default_factory=dict)
    figures: dict[str, tuple[int, float]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, cursor: str | None) -> "Memory":
        """Read a cursor; one that this release does not know counts as none."""
        try:
            raw: Mapping[str, Any] = json.loads(cursor or "{}")
            if raw.get("version") not in _READABLE:
                return cls()
            verdicts = {name: _Verdict(*each) for name, each in raw["not_fine"].items()}
            figures = {
                name: (int(n), float(at)) for name, (n, at) in raw.get("figures", {}).items()
            }
            at_s = {name: float(at) for name, at in raw["reported_at_s"].items()}
            return cls(verdicts, at_s, figures)
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()

    def to_json(self) -> str:
        """Return the cursor."""
        not_fine = {name: astuple(each) for name, each in self.verdicts.items() if each != _fine()}
        reported_at_s = {subject: int(at) for subject, at in self.reported_at_s.items()}
        data = {
            "version": _VERSION,
            "not_fine": not_fine,
            "reported_at_s": reported_at_s,
            "figures": {subject: [n, int(at)] for subject, (n, at) in self.figures.items()},
        }
        return json.dumps(data, separators=(",", ":"))

    def no_better(self, finding: Finding) -> Finding:
        """Return a finding, which is no better than the verdict if it could not be judged."""
        verdict = self.verdicts.get(_name(finding))
        return no_better_than(finding, None if verdict is None else Severity(verdict.severity))

    def take(self, findings: Iterable[Finding]) -> Iterator[tuple[Finding, Severity]]:
        """Take a reading in; yields each verdict that it changes, with the severity before.

        Checks that the reading does not speak of (the broker is away) keep their verdict.
        """
        for finding in findings:
            known = self.verdicts.get(_name(finding))
            if known is None and finding.subject in self.reported_at_s:
                known = self.verdicts[_name(finding)] = _fine()
            if known is None:
                self.verdicts[_name(finding)] = _Verdict(finding.severity.value)
            elif known.severity == finding.severity.value:
                known.doubts = 0
            else:
                known.doubts += 1
                if known.doubts >= AGREEING:
                    before, known.doubts = Severity(known.severity), 0
                    known.severity = finding.severity.value
                    yield finding, before

    def is_settled(self, finding: Finding) -> bool:
        """Return whether a finding is the verdict, and not a doubt about it."""
        known = self.verdicts.get(_name(finding))
        return known is not None and known.severity == finding.severity.value

    def due(self, subjects: Sequence[str], now_s: float, every_s: float) -> Sequence[str]:
        """Return the subjects to report: those with a changed verdict, then the longest silent."""
        changed = {
            name.partition("|")[0]
            for name, each in self.verdicts.items()
            if each.severity != each.reported and not each.doubts
        }
        last = {subject: self.reported_at_s.get(subject, 0.0) for subject in subjects}
        late = [s for s in subjects if s in changed or not 0 <= now_s - last[s] < every_s]
        return sorted(late, key=lambda subject: (subject not in changed, last[subject]))

    def figures_changed(
        self, subject: str, figures: Mapping[str, Any], now_s: float, every_s: float
    ) -> bool:
        """Return whether the counts of a subject are others than were reported, and note these.

        Args:
            subject: The subject.
            figures: Its figures; whole numbers count, not ages and sizes, which never stand still.
            now_s: Now, seconds since 1970.
            every_s: How long what was reported may be old.
        """
        known, at_s = self.figures.get(subject, (None, 0.0))
        if known is None or known == _as_one(figures) or 0 <= now_s - at_s < every_s:
            return False
        self.figures[subject] = (_as_one(figures), now_s)
        return True

    def longest_unchanged(self, subjects: Sequence[str]) -> Sequence[str]:
        """Return subjects, those first whose figures were told longest ago."""
        return sorted(subjects, key=lambda subject: self.figures.get(subject, (0, 0.0))[1])

    def reported(
        self,
        subject: str,
        findings: Iterable[Finding],
        figures: Mapping[str, Any],
        now_s: float,
    ) -> None:
        """Note that a subject, findings on it and its figures were reported."""
        self.reported_at_s[subject] = now_s
        self.figures[subject] = (_as_one(figures), now_s)
        for finding in findings:
            self.verdicts[_name(finding)].reported = finding.severity.value


def _as_one(figures: Mapping[str, Any]) -> int:
    """Return counts as one number; the cursor is shown in the UI, and short."""
    counts = {name: n for name, n in figures.items() if isinstance(n, int) and "bytes" not in name}
    return zlib.crc32(json.dumps(counts, sort_keys=True).encode())


def _name(finding: Finding) -> str:
    return f"{finding.subject}|{finding.check}"
