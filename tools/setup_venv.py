"""Make the virtual environment of this repository, once; says in one sentence what is missing.

Usage: python3 tools/setup_venv.py VENV EXTRA

Runs on any Python 3, to be able to say that it is the wrong one. Idempotent: what was installed is
remembered by a hash of what decides about it.
"""

import hashlib
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
_STEPS = ("Collecting", "Downloading", "Building", "Preparing", "Using cached")
_EVERY_S = 3.0
OLDEST, NEWEST = (3, 10), (3, 13)


def main() -> None:
    """Create or update the environment."""
    venv, extra = pathlib.Path(sys.argv[1]), sys.argv[2]
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        raise SystemExit(
            "Python %d.%d cannot run this project: it needs 3.10 to 3.13. "
            "Name one with `make PYTHON=python3.12 ...`." % sys.version_info[:2]
        )
    stamp = venv / (".installed-" + extra)
    wanted = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        wanted.update((ROOT / name).read_bytes())
    wanted.update(sys.version.encode())
    if stamp.exists() and stamp.read_text() == wanted.hexdigest():
        return
    if not (venv / "bin" / "python").exists():
        run(
            [sys.executable, "-m", "venv", str(venv)],
            "The venv module is missing: install it "
            "(on Debian: apt-get install python3-venv), then try again.",
        )
    print(
        "Installing what `%s` needs into %s (once; a few minutes; each package is named) ..."
        % (extra, venv.name),
        flush=True,
    )
    tell(
        [
            str(venv / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--progress-bar=off",
            "-c",
            str(ROOT / "constraints.txt"),
            "-e",
            "%s[%s]" % (ROOT, extra),
        ],
        "The dependencies could not be installed (see above): is there a network, and does pip "
        "reach its package index?",
    )
    stamp.write_text(wanted.hexdigest())


def run(command: "list[str]", sentence: str) -> None:
    """Run a command; if it fails, end with a sentence."""
    if subprocess.call(command, cwd=str(ROOT)) != 0:
        raise SystemExit(sentence)


def tell(command: "list[str]", sentence: str) -> None:
    """Run pip and say what it is at, a line every few seconds; if it fails, what it said last."""
    began_s = told_s = time.monotonic()
    last = []  # type: list[str]
    pip = subprocess.Popen(
        command, cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for line in pip.stdout or ():
        last = [*last[-30:], line]
        step = line.strip().split(" (from ")[0]
        now_s = time.monotonic()
        installs = step.startswith(("Installing", "Successfully"))
        if installs or (step.startswith(_STEPS) and now_s - told_s > _EVERY_S):
            told_s = now_s
            print("%5d s  %s" % (now_s - began_s, step[:90]), flush=True)
    if pip.wait() != 0:
        raise SystemExit("".join(last) + sentence)


if __name__ == "__main__":
    main()
