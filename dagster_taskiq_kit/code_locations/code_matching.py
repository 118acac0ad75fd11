"""Which of some code locations a message is for; delivery and doctor ask here.

Invariant: a message that names a code location is for the location of that name and for no other,
whatever names their modules, files, repositories and jobs share. One that names none is for the
only location that fits; when several fit, it is refused and they are named.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..vocabulary.errors import AmbiguousCode, CodeNotServed
from ..vocabulary.messages import CodeName


@dataclass(frozen=True)
class Served:
    """One code location of a worker, as far as messages can name it.

    Args:
        location: Its name.
        pointers: Modules and files that it was loaded from, as messages name them.
        tasks: Names of the users' own tasks in it.
    """

    location: str
    pointers: Sequence[str] = ()
    tasks: Sequence[str] = ()


def _fits(code: CodeName, served: Served) -> bool:
    if code.location is not None:
        return code.location == served.location
    if code.pointer is not None:
        return code.pointer in served.pointers
    return code.job in served.tasks


def location_for(code: CodeName, served: Sequence[Served]) -> int:
    """Return the place in ``served`` of the location that a message is for.

    Args:
        code: How the message names its code.
        served: The code locations of one worker; no two have one name.

    Raises:
        CodeNotServed: None of them is it.
        AmbiguousCode: The message names no location, and several fit.
    """
    fitting = [number for number, each in enumerate(served) if _fits(code, each)]
    if not fitting:
        # Never instead of the location that a message names: only to tell people what is near.
        near = [each.location for each in served if code.pointer in each.pointers]
        raise CodeNotServed(str(code), [each.location for each in served], near)
    if len(fitting) > 1:
        raise AmbiguousCode(str(code), [served[number].location for number in fitting])
    return fitting[0]


def is_served(location: str, served: Sequence[Served]) -> bool:
    """Return whether a run of a code location would be taken by one of these."""
    return any(_fits(CodeName("", location=location), each) for each in served)
