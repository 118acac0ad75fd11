"""What a number of seconds may be, wherever somebody says one.

Invariant: what passes is finite and at most a year: sockets, scripts and a server's clock take it,
and nobody waits for ever for a value that was mistyped.
"""

from typing import Any

from .errors import ConfigurationError

MOST_SECONDS = 31_536_000
_LONGEST_SHOWN = 60


def check_seconds(value: Any, what: str, *, least: float = 0.001) -> float:
    """Return a number of seconds that sockets, scripts and the server's clock can take.

    Args:
        value: A number, or text with one.
        what: Where it stands, for the error.
        least: The smallest that makes sense.

    Raises:
        ConfigurationError: It is none: no number, not finite, or out of range.
    """
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = -1.0
    if not least <= seconds <= MOST_SECONDS:
        shown = repr(value)[:_LONGEST_SHOWN]
        raise ConfigurationError(
            f"{what} is {shown}: it must be a positive number of seconds such as 300, and at most "
            f"{MOST_SECONDS} (a year).", what,
        )  # fmt: skip
    return seconds
