"""The one rule on Dagster's open runs.

Invariant: what is not known is never fine.
"""

from ..health.findings import Finding, Severity
from ..vocabulary.wording import FEW, counted
from .run_health import RunHealth


def judge_runs(health: RunHealth) -> Finding:
    """Return the verdict on Dagster's open runs."""
    numbers: dict[str, float | int] = {
        "stuck_runs": len(health.stuck),
        **{f"{status.lower()}_runs": count for status, count in health.counts.items()},
    }
    said = ", ".join(f"{count} {status}" for status, count in health.counts.items() if count)
    sentence = f"Open runs: {said or 'none'}."
    severity, remedy = Severity.OK, ""
    if not health.known:
        severity = Severity.WARN
        sentence += " Whether any is stuck is not known: the broker does not answer."
        remedy = "See the check `reachable`."
    elif health.stuck:
        severity = Severity.ERROR
        named = " ".join(f"{each.name}: {each.sentence}" for each in health.stuck[:FEW])
        sentence = f"Stuck: {counted(len(health.stuck), 'run')}. {named} {sentence}"
        remedy = " ".join(sorted({each.remedy for each in health.stuck}))
    elif health.overlooked > 0:
        severity = Severity.WARN
        sentence += f" The oldest {health.looked_at} were looked at, {health.overlooked} were not."
        remedy = "Look at the newest ones yourself, or limit how many runs are begun at once."
    return Finding(
        "runs", "no_stuck_runs", severity, sentence, remedy, numbers, "error > 0 stuck",
        known=health.known,
    )  # fmt: skip
