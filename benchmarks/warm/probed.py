"""What came of importing a library in a process of its own, as a fork server does.

Invariant: what is not installed here is installed into a folder of its own, never into this
environment.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from .libraries import Library

ROOT = Path(__file__).resolve().parents[2]
_INSTALLED = ROOT / ".venv-warm"
_PROBE_WITHIN_S = 900


class ProbeFailed(Exception):
    """A library cannot be installed here, or its import fails; says why."""


@dataclass(frozen=True)
class Probed:
    """One library, imported.

    Args:
        version: Its version.
        import_s: How long the import took.
        native_threads: Threads of machine code that it left.
        threads: Threads of Python's that it left.
        descriptors: What it left open.
        fork_hooks: How many functions it has called around a fork.
        signal_handlers: How many signals it handles.
        exit_handlers: How many functions it has called at the end.
        served: How a location that imports it is served.
        why: Why not warm.
        after_import: How three children ended that computed at once after the import: exit codes.
        after_use: The same once the parent had computed.
        imported_in_child: The same for children that import it themselves.
    """

    version: str
    import_s: float
    native_threads: int
    threads: int
    descriptors: Sequence[str]
    fork_hooks: int
    signal_handlers: int
    exit_handlers: int
    served: str
    why: Sequence[str]
    after_import: str
    after_use: str
    imported_in_child: str

    @property
    def computes_right(self) -> bool:
        """Whether steps compute right, served as they are."""
        ends = self.after_import if self.served == "warm" else self.imported_in_child
        return set(ends.split()) == {"0"}


def is_here(library: Library) -> bool:
    """Return whether this environment has a library."""
    return _version(library, None) is not None


def probed(library: Library) -> Probed:
    """Import a library in a process of its own, and have children compute with it.

    Raises:
        ProbeFailed: It cannot be installed here, or its import fails.
    """
    folder = None if is_here(library) else _install(library)
    found = [str(folder)] if folder else []
    programs = [f"{folder}/bin"] if folder else []
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*found, str(ROOT)]),
        "PATH": os.pathsep.join([*programs, os.environ["PATH"]]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.warm.probe"],
        input=json.dumps(asdict(library)), capture_output=True, text=True, check=False,
        timeout=_PROBE_WITHIN_S, cwd=ROOT, env=environment,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise ProbeFailed((done.stderr.strip().splitlines() or ["it ended without a word"])[-1])
    return Probed(version=_version(library, folder) or "", **json.loads(lines[-1]))


def _install(library: Library) -> Path:
    # By the name of the folder it is known that nobody's own code is in it.
    folder = _INSTALLED / library.name / "site-packages"
    stamp = folder / ".installed"
    if not stamp.exists() or stamp.read_text() != library.requirement:
        folder.mkdir(parents=True, exist_ok=True)
        (_INSTALLED / ".gitignore").write_text("*\n")
        command = [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--target", str(folder), "--upgrade", *library.requirement.split(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ProbeFailed(f"not installable here: {done.stderr.strip().splitlines()[-1]}")
        stamp.write_text(library.requirement)
    return folder


def _version(library: Library, folder: Path | None) -> str | None:
    if folder is not None:
        name = library.package.replace("-", "_").lower()
        names = [each.name.removesuffix(".dist-info") for each in folder.glob("*.dist-info")]
        return next((n.split("-")[1] for n in names if n.lower().startswith(f"{name}-")), None)
    try:
        return distribution(library.package).version
    except PackageNotFoundError:
        return None
