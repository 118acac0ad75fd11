"""A code location that a worker was started with, and what the worker was told of it.

Invariant: what was said of one location is over what was said of all; a value that can never work,
and a location that is not there, are refused in one sentence.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..vocabulary.errors import ConfigurationError
from ..vocabulary.seconds import check_seconds
from ..vocabulary.wording import not_there

#: What ``--warm`` and ``--reload`` take.
WARM_CHOICES = ("auto", "always", "never")
RELOAD_CHOICES = ("auto", "told", "never")
#: Why a location is served cold that was told so: nobody needs to mend it.
BY_OPTION = "set by --warm never"


@dataclass(frozen=True)
class CodeLocation:
    """One code location, before it is loaded.

    Args:
        name: Its name in the workspace.
        origin: Dagster's description of what to load, as JSON.
        executable: The interpreter it wants, or None for the worker's own.
        warm: Whether children are forked with its code: ``auto``, ``always`` or ``never``.
        reload: When it is loaded again: ``auto`` (its files have changed), ``told`` or ``never``.
        max_code_age_s: At which age it is loaded again in any case; 0 for none.
    """

    name: str
    origin: str
    executable: str | None
    warm: str = "auto"
    reload: str = "auto"
    max_code_age_s: float = 86_400.0


def with_options(
    locations: Sequence[CodeLocation],
    *,
    warm: Sequence[str] = (),
    reload: Sequence[str] = (),
    max_code_age: Sequence[str] = (),
) -> Sequence[CodeLocation]:
    """Return locations with what a worker was told of them.

    Each argument holds ``VALUE`` for all or ``LOCATION=VALUE`` for one, the later over the earlier.

    Args:
        locations: The code locations.
        warm: Of ``--warm``.
        reload: Of ``--reload``.
        max_code_age: Of ``--max-code-age``, in seconds.

    Raises:
        ConfigurationError: There is no such value, or no such location.
    """

    def seconds(value: str) -> float:
        return check_seconds(value, "--max-code-age", least=0)

    given: Sequence[tuple[str, Sequence[str], Callable[[str], Any]]] = (
        ("warm", warm, _one_of("--warm", WARM_CHOICES)),
        ("reload", reload, _one_of("--reload", RELOAD_CHOICES)),
        ("max_code_age_s", max_code_age, seconds),
    )
    names = [location.name for location in locations]
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    for field, said, read in given:
        for each in said:
            name, _, value = each.rpartition("=")
            chosen = read(value)
            if name and name not in names:
                raise not_there("code location", name, names)
            for one in [name] if name else names:
                found[one][field] = chosen
    return [replace(location, **found[location.name]) for location in locations]


def _one_of(option: str, choices: Sequence[str]) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in choices:
            raise ConfigurationError(
                f"{option}: there is no {value!r}. Say {', '.join(choices[:-1])} or {choices[-1]}, "
                "for all locations or as LOCATION=CHOICE.",
                option,
            )
        return value

    return read
