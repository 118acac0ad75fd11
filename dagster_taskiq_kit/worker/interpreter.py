"""The Python that a code location wants, and whether it is this one.

Invariant: two virtual environments are two interpreters, though both be links to one binary: what
they import differs.
"""

import os
import shutil
import sys
from pathlib import Path


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
