"""Which source files a code location is made of, and a fingerprint of what stands in them.

Invariant: nothing is imported and nothing is written. The same files say the same fingerprint on
every machine, in whatever folder they stand; one that was only touched says the same as before.
"""

import hashlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

#: What definitions are written in.
_SUFFIXES = (".py", ".yaml", ".yml")
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_NOT_SOURCE = _INSTALLED | {"__pycache__", "node_modules"}
#: More than that is no code of one project: the rest is not watched.
_MOST_FILES = 20_000
_DIGEST_CHARACTERS, _SHOWN_CHARACTERS = 16, 8


@dataclass(frozen=True, order=True)
class Root:
    """Where source files are.

    Args:
        path: A folder, or one file.
        deep: Whether in the folders below, too: a package; else beside a script.
    """

    path: str
    deep: bool = False


@dataclass(frozen=True)
class Reading:
    """What stands in source files.

    Args:
        fingerprint: Of all of it; '' when there is no file.
        newest_s: When the last of them was changed, seconds since 1970.
        digests: Of each file, by path.
    """

    fingerprint: str = ""
    newest_s: float = 0.0
    digests: Mapping[str, str] = field(default_factory=dict)

    def changed_since(self, other: "Reading") -> Sequence[str]:
        """Return the files that are another, new, or gone."""
        paths = self.digests.keys() | other.digests.keys()
        return sorted(p for p in paths if self.digests.get(p) != other.digests.get(p))


class SourceFiles:
    """The source files below some roots; reads again only what was written since.

    Args:
        roots: Where they are.
    """

    def __init__(self, roots: Iterable[Root]) -> None:
        self._roots = _outermost(roots)
        self._digests: dict[str, tuple[tuple[int, int, int], str]] = {}

    def read(self) -> Reading:
        """Return what stands in them now."""
        whole, newest_ns, digests = hashlib.sha256(), 0, dict[str, str]()
        for number, path, name in self._files():
            try:
                status = Path(path).stat()
                key = (status.st_mtime_ns, status.st_size, status.st_ino)
                known = self._digests.get(path)
                digest = known[1] if known and known[0] == key else _digest(path)
            except OSError:
                continue  # it went meanwhile
            self._digests[path] = (key, digest)
            newest_ns = max(newest_ns, status.st_mtime_ns)
            digests[path] = digest
            whole.update(f"{number}:{name}:{digest}\n".encode(errors="surrogateescape"))
        if not digests:
            return Reading()
        return Reading(whole.hexdigest()[:_SHOWN_CHARACTERS], newest_ns / 1e9, digests)

    def _files(self) -> Iterator[tuple[int, str, str]]:
        left = _MOST_FILES
        for number, root in enumerate(self._roots):
            for path in sorted(_below(root)):
                left -= 1
                if left < 0:
                    return
                yield number, path, os.path.relpath(path, root.path)


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:_DIGEST_CHARACTERS]


def _below(root: Root) -> Iterator[str]:
    folders = [root.path]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except NotADirectoryError:
            yield folder
            continue
        except OSError:
            continue  # it is not there, or not for us
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _NOT_SOURCE:
                continue
            if entry.name.endswith(_SUFFIXES) and entry.is_file():
                yield entry.path
            elif root.deep and entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)


def _outermost(roots: Iterable[Root]) -> Sequence[Root]:
    """Return roots in their order, without those that others hold already."""
    given = list(dict.fromkeys(roots))
    deep = [root for root in given if root.deep]
    return [
        root
        for root in given
        if not any(Path(root.path).is_relative_to(d.path) for d in deep if d != root)
    ]


def roots_of_module(name: str, working_directory: str | None) -> Sequence[Root]:
    """Return where a module's source is, without importing it; nothing where it is not found.

    Args:
        name: The module.
        working_directory: Where it is looked for first, as Dagster has it on the path.
    """
    top = name.partition(".")[0]
    spec = PathFinder.find_spec(top, [working_directory]) if working_directory else None
    try:
        spec = spec or importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return []
    return _roots_of_spec(spec)


def _roots_of_spec(spec: ModuleSpec | None) -> Sequence[Root]:
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        folders = spec.submodule_search_locations
        return [Root(str(Path(folder).absolute()), deep=True) for folder in folders]
    return roots_of_file(Path(spec.origin)) if spec.origin and spec.has_location else []


def roots_of_file(path: Path) -> Sequence[Root]:
    """Return where the source of a file is: beside it; nothing where it is not there."""
    return [Root(str(path.absolute().parent))] if path.is_file() else []


def roots_of_imported(names: Iterable[str]) -> Sequence[Root]:
    """Return where those modules of this process come from that are nobody's installed package.

    Args:
        names: Names of modules that were imported.
    """
    found: list[Root] = []
    for name in names:
        file = getattr(sys.modules.get(name), "__file__", None)
        if not isinstance(file, str) or not is_own_source(file):
            continue
        folders = getattr(sys.modules.get(name.partition(".")[0]), "__path__", ())
        packages = [
            Root(str(Path(folder).absolute()), deep=True)
            for folder in folders
            if Path(file).is_relative_to(folder)
        ]
        found += packages or roots_of_file(Path(file))
    return sorted(set(found))


def is_installed(file: str) -> bool:
    """Return whether a module's file is of an installed package."""
    return not _INSTALLED.isdisjoint(Path(file).parts)


def is_own_source(file: str) -> bool:
    """Return whether a module's file is the user's: not installed, not Python's, not the kit's."""
    path = Path(file)
    if _NOT_SOURCE & set(path.parts) or path.is_relative_to(Path(__file__).parents[1]):
        return False
    standard = (sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib"))
    return path.is_absolute() and not any(path.is_relative_to(each) for each in standard)
