"""One description of every call to the broker, which the sync and the async side both execute.

A :class:`Call` is a Lua script with its arguments and the way to read its answer. Every script is
idempotent for (task id, owner token), so a call may be repeated after a lost reply.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib import resources
from typing import Any, Generic, TypeVar

from ..config.settings import TaskiqSettings
from ..vocabulary.states import TRANSITIONS
from .buckets import lua_buckets
from .keys import lua_key_functions

T = TypeVar("T")


@dataclass(frozen=True)
class Script:
    """Lua source as the server gets it.

    Args:
        name: File name without ``.lua``.
        source: Key functions with what they stand on, transition table, prelude and the script.
        sha: SHA-1 of the source, by which the server knows it.
    """

    name: str
    source: str
    sha: str


class OfDeployment(Enum):
    """An argument that the connection fills in from the settings of its deployment."""

    #: How long a record is kept after its end, in seconds.
    OUTCOME_TTL_S = "outcome_ttl_s"


@dataclass(frozen=True)
class Call(Generic[T]):
    """One atomic request to the broker.

    Args:
        script: Name of the Lua script.
        arguments: Its ARGV.
        read: Turns the server's answer into ours.
    """

    script: str
    arguments: Sequence[str | bytes | OfDeployment]
    read: Callable[[Any], T]

    def argv(self, settings: TaskiqSettings) -> Sequence[str | bytes]:
        """Return its arguments for one deployment."""
        return [
            str(getattr(settings, each.value)) if isinstance(each, OfDeployment) else each
            for each in self.arguments
        ]


def _legal_transitions() -> str:
    rows = []
    for state, targets in TRANSITIONS.items():
        cells = ", ".join(f"{target.value} = true" for target in sorted(targets))
        rows.append(f"  {state.value} = {{{cells}}},")
    return "local LEGAL = {\n" + "\n".join(rows) + "\n}"


def _lua_file(name: str) -> str:
    return (resources.files(__package__ or "") / "scripts" / f"{name}.lua").read_text()


@cache
def load_script(name: str) -> Script:
    """Return one script, composed with the prelude it stands on."""
    source = "\n".join(
        [
            _lua_file("key_types"),
            lua_key_functions(),
            _legal_transitions(),
            lua_buckets(),
            _lua_file("prelude"),
            _lua_file(name),
        ]
    )
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


def text(answer: Any) -> str:
    """Read a reply that is text."""
    return answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)
