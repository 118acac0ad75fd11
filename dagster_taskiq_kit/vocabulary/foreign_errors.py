"""What an error of Dagster, a driver or Python says, in words that can be shown.

Invariant: one line of bounded length without a secret, however much the error quotes.
"""

from .masking import masked

_LONGEST = 600


def in_one_line(error: BaseException) -> str:
    """Return what an error of somebody else says, in one line of bounded length, masked."""
    findings = getattr(error, "errors", None)
    # Dagster's own text of a bad config begins with the whole schema.
    several = findings if isinstance(findings, list) else [error]
    said = " ".join(str(getattr(one, "message", "") or one) for one in several)
    said = masked(" ".join(masked(said).partition("Stack Trace:")[0].split()))
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}..."
