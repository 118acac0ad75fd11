"""How names, counts and durations are told to people; one way everywhere."""

import difflib
from collections.abc import Collection, Sequence

from .errors import ConfigurationError

#: How many of many are named in a sentence.
FEW = 5
#: How alike two names must be for one to be offered for the other, between 0 and 1.
_NEAR = 0.6


def first_few(names: Sequence[str]) -> str:
    """Return the first few of many names, and how many more there are."""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural where it is not one."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def duration(seconds: float) -> str:
    """Return a duration in the unit in which a person would say it."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if abs(seconds) >= 2 * size:
            return f"{round(seconds / size, 1):g} {unit}"
    return f"{seconds:.1f} s"


def not_there(kind: str, name: str, known: Collection[str], advice: str = "") -> ConfigurationError:
    """Return the error for a name that nothing has.

    Args:
        kind: What it should be the name of.
        name: What was said.
        known: The names that there are.
        advice: What to do to mean it all the same.
    """
    near = [each for each in sorted(known) if len(name) > 1 and each.startswith(name)][:1]
    near = near or difflib.get_close_matches(name, sorted(known), 1, _NEAR)
    said = f"There is no {kind} {name!r}"
    if near:
        said += f": did you mean {near[0]!r}?"
    else:
        said += f"; known are: {first_few(sorted(known))}." if known else "; none is known."
    return ConfigurationError(f"{said} {advice}".rstrip(), kind)
