"""What a fork server tells its worker of the source files that its code was imported from.

Invariant: it is read after the import. Files that were written meanwhile leave it open what was
imported: then it is not settled, and to be loaded again.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...code_locations.source_files import Reading, Root, SourceFiles, roots_of_imported
from ...dagster_internals.code_locations import LoadedCode

#: How far behind the clock the time of a file that was just written may be.
_COARSE_CLOCK_S = 0.05
_VARIABLES = ".env"


@dataclass(frozen=True)
class LoadedSource:
    """The source files of one import.

    Args:
        roots: Where they are.
        digests: Of each of them, by path.
        fingerprint: Of all of them.
        settled: Whether they are surely what was imported.
        code: Fingerprint of those of the location itself, which a launcher can know, too.
        loaded_at_s: When it was imported, seconds since 1970.
    """

    roots: Sequence[Root]
    digests: Mapping[str, str]
    fingerprint: str
    settled: bool
    code: str
    loaded_at_s: float

    def reading(self) -> Reading:
        """Return what stood in them."""
        return Reading(self.fingerprint, digests=self.digests)

    def as_data(self) -> Mapping[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "LoadedSource":
        """Read what :meth:`as_data` returned."""
        read: dict[str, Any] = {**data, "roots": [Root(**root) for root in data["roots"]]}
        return cls(**read)


def loaded_source(code: LoadedCode, imported: Collection[str]) -> LoadedSource:
    """Return from which files code was imported in this process.

    Args:
        code: The code.
        imported: Names of the modules that were imported with it.
    """
    roots = [
        *code.source_roots(),
        *roots_of_imported(imported),
        Root(str(Path.cwd() / _VARIABLES)),
    ]
    reading = SourceFiles(roots).read()
    return LoadedSource(
        roots,
        reading.digests,
        reading.fingerprint,
        reading.newest_s < code.loaded_at_s - _COARSE_CLOCK_S or code.loaded_at_s > time.time(),
        code.fingerprint,
        code.loaded_at_s,
    )
