"""Make the virtual environment of this repository, once; says in one sentence what is missing.

Usage: python3 tools/setup_venv.py VENV EXTRA

Runs on any Python 3, to be able to say that it is the wrong one. Idempotent: what was installed is
remembered by a hash of what decides about it.
"""

import hashlib
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
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
        "Installing what `%s` needs into %s (once; a few minutes) ..." % (extra, venv.name),
        flush=True,
    )
    run(
        [
            str(venv / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
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


if __name__ == "__main__":
    main()
