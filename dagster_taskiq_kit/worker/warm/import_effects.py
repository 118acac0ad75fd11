"""What importing code leaves in a process: threads, open descriptors, exit handlers; and of whom.

Invariant: it looks, and changes nothing. What is found is named by the innermost module that was
being imported when it appeared.

Threads and descriptors are read from ``/proc``, so on Linux only; elsewhere every location is
served cold.
"""

import atexit
import contextlib
import fcntl
import inspect
import os
import socket
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from ...code_locations.source_files import is_own_source

#: Harmless to share: children do not talk to anybody over them.
_HARMLESS = ("/dev/null", "/dev/urandom", "/dev/random", "/dev/pts/", "/dev/tty", "/proc/", "/sys/")


@dataclass(frozen=True)
class Effect:
    """One thing that an import left.

    Args:
        what: What it is, in words.
        importing: The modules that were being imported when it appeared, the innermost last.
    """

    what: str
    importing: tuple[str, ...]

    @property
    def module(self) -> str:
        """The innermost module."""
        return self.importing[-1]

    @property
    def package(self) -> str:
        """The package of the innermost module."""
        return self.module.partition(".")[0]

    @property
    def packages(self) -> frozenset[str]:
        """The packages of all of them."""
        return frozenset(each.partition(".")[0] for each in self.importing)

    def __str__(self) -> str:
        return f"{self.what}, begun by the import of {self.module!r}"


@dataclass(frozen=True)
class Effects:
    """All that an import left.

    Args:
        threads: Threads of Python's: who forks has none of them in the child.
        native_threads: Threads of libraries: some end and begin them around a fork.
        descriptors: Connections, pipes and files that children would share.
        exit_handlers: What the user's own code has done at the end of its process: who forks does
            not know whether that is for each child, or for what all of them share.
    """

    threads: Sequence[Effect] = field(default_factory=list)
    native_threads: Sequence[Effect] = field(default_factory=list)
    descriptors: Sequence[Effect] = field(default_factory=list)
    exit_handlers: Sequence[Effect] = field(default_factory=list)


class ImportWatch:
    """Watches what appears while modules are imported; used with ``with``.

    Args:
        root: What to call code that is loaded from a file, without being imported by a name.
    """

    def __init__(self, root: str) -> None:
        #: Modules that are being imported, the innermost last.
        self._importing = [root]
        self._threads: dict[int, tuple[str, ...]] = {}
        self._descriptors: dict[int, tuple[str, ...]] = {}
        self._exit_handlers: list[Effect] = []
        self._register = atexit.register
        self._known_threads: set[int] = set()
        self._known_descriptors: set[int] = set()

    def __enter__(self) -> "ImportWatch":
        self._known_threads, self._known_descriptors = _threads(), _descriptors()
        sys.meta_path.insert(0, self)
        atexit.register = self._noting
        return self

    def __exit__(self, *_error: object) -> None:
        self._look()
        sys.meta_path.remove(self)
        atexit.register = self._register

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module as everybody else does, with a loader that says when it begins and ends."""
        others = sys.meta_path[sys.meta_path.index(self) + 1 :]
        for finder in others:
            spec = finder.find_spec(name, path, target) if hasattr(finder, "find_spec") else None
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = _Telling(spec.loader, self)
                return spec
        return None

    @contextlib.contextmanager
    def importing(self, name: str) -> Generator[None, None, None]:
        """Take what appears meanwhile, and was not begun by an import within, as this module's."""
        self._look()
        self._importing.append(name)
        try:
            yield
        finally:
            self._look()
            self._importing.pop()

    def _noting(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        frame = inspect.currentframe()
        caller = frame.f_back if frame is not None else None
        by = str(caller.f_globals.get("__name__", "?")) if caller is not None else "?"
        # Python's own modules finalize what is theirs; libraries, what they have for themselves.
        if by.partition(".")[0] not in sys.stdlib_module_names and self._is_users_import():
            name = getattr(function, "__qualname__", repr(function))
            what = f"an exit handler ({name}, registered by {by!r})"
            self._exit_handlers.append(Effect(what, tuple(self._importing)))
        return self._register(function, *args, **kwargs)

    def _is_users_import(self) -> bool:
        file = getattr(sys.modules.get(self._importing[-1]), "__file__", None)
        return len(self._importing) == 1 or (isinstance(file, str) and is_own_source(file))

    def _look(self) -> None:
        for thread in _threads() - self._known_threads - self._threads.keys():
            self._threads[thread] = tuple(self._importing)
        for descriptor in _descriptors() - self._known_descriptors - self._descriptors.keys():
            self._descriptors[descriptor] = tuple(self._importing)

    def effects(self) -> Effects:
        """Return what is still there of all that appeared."""
        names = {thread.native_id: thread.name for thread in threading.enumerate()}
        there = {t: modules for t, modules in self._threads.items() if t in _threads()}
        return Effects(
            threads=[
                Effect(f"the thread {names[t]!r}", modules)
                for t, modules in there.items()
                if t in names
            ],
            native_threads=[
                Effect("a thread of a library", modules)
                for t, modules in there.items()
                if t not in names
            ],
            descriptors=list(self._shared()),
            exit_handlers=list(self._exit_handlers),
        )

    def _shared(self) -> Iterator[Effect]:
        connections = _connections()
        for descriptor, modules in self._descriptors.items():
            with contextlib.suppress(OSError):
                shown = str(Path(f"/proc/self/fd/{descriptor}").readlink())
                appends = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND
                if not appends and not shown.startswith(_HARMLESS):
                    yield Effect(_in_words(shown, connections), modules)


class _Telling(Loader):
    """A module's loader, for as long as it loads: afterwards the module has its own again."""

    def __init__(self, loader: Any, watch: ImportWatch) -> None:
        self._loader = loader
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        # Who asks for a spec while code is imported may ask its loader for sources and data, too.
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        with self._watch.importing(spec.name):  # an extension module begins its threads here
            return cast("ModuleType | None", self._loader.create_module(spec))

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        with self._watch.importing(module.__name__):
            self._loader.exec_module(module)


def _threads() -> set[int]:
    if sys.platform != "linux":
        return set()
    return {int(each.name) for each in Path("/proc/self/task").iterdir()}


def _descriptors() -> set[int]:
    if sys.platform != "linux":
        return set()
    # The one by which they are listed is among them, and closed by then.
    listed = [int(each.name) for each in Path("/proc/self/fd").iterdir()]
    return {each for each in listed if _is_open(each)}


def _is_open(descriptor: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def _connections() -> Mapping[str, str]:
    """Return the other end of each TCP connection of this machine, by inode."""
    found: dict[str, str] = {}
    for file in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(file).read_text().splitlines()[1:]:
                columns = line.split()
                found[columns[9]] = _address(columns[2])
    return found


def _address(hexadecimal: str) -> str:
    host, _, port = hexadecimal.partition(":")
    # Each word of four bytes is written as the machine has it.
    words = [bytes.fromhex(host[i : i + 8])[::-1] for i in range(0, len(host), 8)]
    raw = b"".join(words)
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6  # noqa: PLR2004
    return f"{socket.inet_ntop(family, raw)}:{int(port, 16)}"


def _in_words(shown: str, connections: Mapping[str, str]) -> str:
    if shown.startswith("socket:["):
        peer = connections.get(shown[8:-1])
        return f"a connection to {peer}" if peer else "a socket"
    if shown.startswith("pipe:"):
        return "a pipe"
    if shown.startswith("anon_inode:"):
        return f"an event loop ({shown.removeprefix('anon_inode:').strip('[]')})"
    return f"the open file {shown.removesuffix(' (deleted)')}"
