"""The marker in a Dagster instance's storage folder, by which hosts learn whether they share it.

Invariant: the marker is made once and never changed; two workers that read different ones do not
see each other's files, and steps that pass data through them would fail late.
"""

import contextlib
import secrets
from pathlib import Path

import dagster as dg

_NAME = ".dagster-taskiq-storage"


def read_marker(instance: dg.DagsterInstance) -> tuple[str, str]:
    """Return the marker and its folder; on an error '' and what is wrong.

    Args:
        instance: The instance whose storage folder is looked into.
    """
    folder = Path(instance.storage_directory())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Who comes second finds the first one's marker.
        with contextlib.suppress(FileExistsError), (folder / _NAME).open("x") as made:
            made.write(secrets.token_hex(8))
        return (folder / _NAME).read_text(), str(folder)
    except OSError as error:
        return "", f"{folder}: {error.strerror or error}"
