"""``python -m benchmarks.warm``: probes each library in a process of its own; prints a table.

Each is installed into a folder of its own, beside this project's environment.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .libraries import LIBRARIES, Library

ROOT = Path(__file__).resolve().parents[2]
_INSTALLED = ROOT / ".venv-warm"
_PROBE_WITHIN_S = 900
HEADS = (
    "library", "version", "import", "native threads", "threads", "open", "fork hooks",
    "fork after import", "fork after use", "served",
)  # fmt: skip


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.warm", description=__doc__)
    parser.add_argument("names", nargs="*", help="those libraries only")
    options = parser.parse_args()
    print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}", flush=True)
    for library in LIBRARIES:
        if not options.names or library.name in options.names:
            print(f"| {' | '.join(row(library))} |", flush=True)


def row(library: Library) -> tuple[str, ...]:
    """Install and probe one library; returns its row of the table."""
    folder = _install(library)
    if folder is None:
        return (library.name, *["not installable here"], *[""] * (len(HEADS) - 2))
    found = probe(library, folder)
    if "error" in found:
        return (library.name, version(library, folder), found["error"], *[""] * (len(HEADS) - 3))
    computes = bool(library.computes)
    return (
        library.name, version(library, folder), f"{found['import_s']:.2f} s",
        str(found["native_threads"]), str(found["threads"]), ", ".join(found["descriptors"]) or "0",
        str(found["fork_hooks"]), found["after_import"] if computes else "not tried",
        found["after_use"] if computes else "not tried",
        found["served"] + (f" ({'; '.join(found['why'])})" if found["why"] else ""),
    )  # fmt: skip


def probe(library: Library, folder: Path) -> dict[str, Any]:
    """Return what came of importing a library in a process of its own."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.warm.probe"],
        input=json.dumps(asdict(library)), capture_output=True, text=True, check=False,
        timeout=_PROBE_WITHIN_S, cwd=ROOT, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"error": (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]}
    return dict(json.loads(lines[-1]))


def _install(library: Library) -> Path | None:
    folder = _INSTALLED / library.name
    if not (folder / ".installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (_INSTALLED / ".gitignore").write_text("*\n")
        command = [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--target", str(folder), "--upgrade", *library.requirement.split(),
        ]  # fmt: skip
        if subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            return None
        (folder / ".installed").touch()
    return folder


def version(library: Library, folder: Path) -> str:
    """Return the version that was installed of a library."""
    name = library.requirement.split()[0].partition("[")[0].replace("-", "_").lower()
    names = (each.name.removesuffix(".dist-info") for each in folder.glob("*.dist-info"))
    found = [each.split("-")[1] for each in names if each.lower().startswith(f"{name}-")]
    return found[0] if found else ""


if __name__ == "__main__":
    main()
