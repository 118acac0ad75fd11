"""The Python that a code location wants, and whether it is this one.

Invariant: two virtual environments are two interpreters, though both be links to one binary: what
they import differs.
"""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from ...version import __version__
from ...vocabulary.errors import InterpreterUnfit

_SAY_VERSION = "from dagster_taskiq_kit.version import __version__; print(__version__)"
_SAID_WITHIN_S = 60.0


def is_own(executable: str | None) -> bool:
    """Return whether a location's interpreter is that of this process.

    Args:
        executable: What the workspace names; None for whichever executes it.
    """
    if executable is None:
        return True
    wanted, own = Path(shutil.which(executable) or executable), Path(sys.executable)
    # `python` and `python3` of one folder are one environment; the folder tells it, not the binary.
    return wanted.parent.resolve() == own.parent.resolve() and wanted.resolve() == own.resolve()


def environment_for(executable: str) -> dict[str, str]:
    """Return the environment for a process of another interpreter, as Dagster makes it.

    Its folder comes first in PATH when it is a virtual environment: code finds the programs that
    are installed beside it.
    """
    folder = Path(executable).parent
    if not (folder / "activate").exists():
        return dict(os.environ)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PATH"))))
    return {**os.environ, "PATH": path}


def become_server_of(executable: str, worker: socket.socket, location: str) -> NoReturn:
    """Become a fork server of another interpreter: this process is replaced.

    Args:
        executable: The interpreter.
        worker: The wire to the worker.
        location: The code location, as JSON.

    Raises:
        InterpreterUnfit: It cannot be started, or has not the kit that this worker has.
    """
    path = shutil.which(executable)
    if path is None:
        raise InterpreterUnfit(executable, "there is no such program")
    environment = environment_for(path)
    try:
        asked = subprocess.run(
            [path, "-c", _SAY_VERSION], capture_output=True, text=True, check=False,
            timeout=_SAID_WITHIN_S, env=environment,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InterpreterUnfit(executable, f"it cannot be started ({error})") from error
    said = (asked.stdout if asked.returncode == 0 else asked.stderr).strip().splitlines()
    version = said[-1] if said else "nothing"
    if asked.returncode or version != __version__:
        raise InterpreterUnfit(executable, f"asked for its dagster-taskiq-kit it said: {version}")
    os.set_inheritable(worker.fileno(), True)
    os.execve(  # noqa: S606
        path,
        [
            path, "-m", "dagster_taskiq_kit.worker.process.server_process",
            "server", str(worker.fileno()), location,
        ],
        environment,
    )  # fmt: skip
