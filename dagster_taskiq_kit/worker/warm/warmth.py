"""How the children of a code location are made: forked with its code, or without it.

*Warm*: a child is forked from a process that has imported everything. *Layered*: it is forked from
one that has imported Dagster and those third parties that can be shared, and imports the user's
modules itself. *Cold*: from one that has imported Dagster and nothing else.

Invariant: what an import left open is never shared by two children, unless it was said to be meant.
Children of a warm location inherit no connection, no pipe, no open file and no thread that they
would miss; whether a library's own threads bear a fork is tried before the first child is made.
"""

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from ...code_locations.code_location import BY_OPTION
from ...code_locations.source_files import is_installed
from .import_effects import Effects
from .trials import TRIALS, failed_packages


@dataclass(frozen=True)
class ServingMode:
    """How a location is served.

    Args:
        why: Why its children are not forked with its code; empty when they are.
        unsafe: Packages that may not be imported before the fork.
        nothing_ahead: Nothing but Dagster may be imported before the fork.
    """

    why: Sequence[str] = field(default_factory=list)
    unsafe: Collection[str] = frozenset()
    nothing_ahead: bool = False

    @property
    def warm(self) -> bool:
        """Whether children are forked with everything."""
        return not self.why


def judge(effects: Effects, choice: str) -> ServingMode:
    """Return how a location is served whose code this process has just imported.

    Args:
        effects: What the import left.
        choice: What the worker was told.
    """
    if choice == "always":
        return ServingMode()
    if choice == "never":
        return ServingMode([BY_OPTION], nothing_ahead=True)
    if sys.platform != "linux":
        why = "this system does not show what an import began"
        return ServingMode([why], nothing_ahead=True)
    found = [*effects.descriptors, *effects.threads, *effects.exit_handlers]
    why, unsafe = [str(each) for each in found], {each.package for each in found}
    if effects.native_threads:
        tried = {name for name in TRIALS if name in sys.modules}
        failed = failed_packages(tried)
        why += [f"{name}: {wrong}" for name, wrong in failed.items()]
        unsafe |= failed.keys()
        # Some libraries have their machine code in a package of another name.
        unknown = [each for each in effects.native_threads if not each.packages & tried]
        why += [f"{each}, for which the kit has no trial" for each in unknown]
        unsafe |= {each.package for each in unknown}
    return ServingMode(sorted(set(why)), unsafe)


def shareable_modules(unsafe: Collection[str]) -> Sequence[str]:
    """Return the third-party modules of this process that a layered fork server may import ahead.

    Args:
        unsafe: Packages to leave out.
    """
    return [
        name
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] not in unsafe and _is_third_party(module)
    ]


def _is_third_party(module: object) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and is_installed(file)
