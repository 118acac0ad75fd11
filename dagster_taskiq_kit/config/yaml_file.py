"""One YAML file of somebody else's, read so that nothing in it can do harm.

Invariant: what is returned is a tree of bounded size and depth, so that whoever walks it ends; an
error says where the fault is and quotes nothing of the file, which may be a password.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from ..vocabulary.errors import ConfigurationError

_MOST_BYTES = 2**20
_MOST_DEPTH = 50
_MOST_VALUES = 100_000
_QUOTED = re.compile(
    r"'[^']{2,}'|\"[^\"]{2,}\"|(?<=tag ).*|(?<=alias ).*|(?<=anchor ).*", re.DOTALL
)


def loaded(path: str) -> Any:
    """Return what a YAML file holds.

    Raises:
        ConfigurationError: It cannot be read, is no YAML, too large, too deep, or holds itself.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123  (a Path would take /dev/stdin's name apart)
            content = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"The file {path!r} cannot be read ({said}).", path) from None
    if len(content) > _MOST_BYTES:
        raise ConfigurationError(
            f"The file {path!r} is larger than 1 MiB: name a file with settings.", path
        )
    try:
        found = yaml.safe_load(content.decode())
    except yaml.YAMLError as error:
        raise ConfigurationError(f"The file {path!r} is not YAML: {_fault(error)}.", path) from None
    except (ValueError, OverflowError, TypeError):
        # What looks like a date or a number and is none; Python's own words would quote it.
        raise ConfigurationError(
            f"The file {path!r} is not YAML in UTF-8, or holds a date or a number that is none: "
            "put it in quotes.", path,
        ) from None  # fmt: skip
    except RecursionError:
        raise _too_deep(path) from None
    _check(found, path)
    return found


def _fault(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
    said = _QUOTED.sub("...", " ".join(str(problem).split()))
    mark = getattr(error, "problem_mark", None)
    return said if mark is None else f"{said}, line {mark.line + 1}, column {mark.column + 1}"


def _too_deep(path: str) -> ConfigurationError:
    return ConfigurationError(
        f"The file {path!r} is nested deeper than {_MOST_DEPTH} levels, holds itself, or more than "
        f"{_MOST_VALUES} values: write settings by name.", path,
    )  # fmt: skip


def _check(root: Any, path: str) -> None:
    """Refuse what an alias makes endless; an alias that is only used twice is counted twice."""
    level, values = [root], 0
    for _ in range(_MOST_DEPTH):
        below: list[Any] = []
        for each in level:
            if isinstance(each, Mapping):
                below += each.values()
            elif isinstance(each, list | tuple | set):
                below += each
            values += 1
            if len(below) + values > _MOST_VALUES:
                raise _too_deep(path)
        if not below:
            return
        level = below
    raise _too_deep(path)
