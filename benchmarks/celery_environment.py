"""The environment of the one contender whose pins need not meet ours: dagster-celery.

Invariant: it holds the release of dagster-celery that belongs to our Dagster, really installed, and
is made once for each set of requirements.
"""

import importlib.metadata
import subprocess
import sys
from pathlib import Path


def requirements() -> list[str]:
    """Return what the environment needs; versions are those that this one runs."""
    dagster, library = (importlib.metadata.version(n) for n in ("dagster", "dagster-postgres"))
    return [
        f"dagster=={dagster}",
        f"dagster-celery[redis]=={library}",
        f"dagster-postgres=={library}",
        "sqlalchemy<2.1",
        "psutil>=6",
        f"pandas=={importlib.metadata.version('pandas')}",
    ]


def celery_python(venv: Path) -> Path:
    """Return the interpreter of the environment; makes it if it is not there.

    Raises:
        SystemExit: It cannot be made.
    """
    python, stamp = venv / "bin" / "python", venv / ".installed-benchmark"
    wanted = "\n".join([sys.version, *requirements()])
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"Installing dagster-celery into {venv.name} (once; a minute) ...", flush=True)
    venv.mkdir(exist_ok=True)
    (venv / ".gitignore").write_text("*\n")
    for command in (
        [sys.executable, "-m", "venv", str(venv)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         *requirements()],
    ):  # fmt: skip
        if subprocess.call(command) != 0:
            raise SystemExit("The environment of dagster-celery could not be made (see above).")
    stamp.write_text(wanted)
    return python
