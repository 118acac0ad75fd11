"""The Dagster instance of this process, opened so that what is wrong with it is told at once.

Invariant: whatever is wrong with a dagster.yaml, the error is one sentence: the file is read as
every YAML file before Dagster sees it, and the parts that Dagster makes late are made now.
"""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from ..vocabulary.errors import ConfigurationError
from ..vocabulary.foreign_errors import in_one_line
from .yaml_file import loaded

#: Parts of an instance that Dagster makes when they are first used.
_MADE_LATE = (
    "run_launcher", "run_coordinator", "run_storage", "event_log_storage", "compute_log_manager",
)  # fmt: skip


def opened_instance(home: str) -> dg.DagsterInstance:
    """Return the instance of a ``DAGSTER_HOME``, which is this process's.

    Raises:
        ConfigurationError: It cannot be used; says why and what to do.
    """
    file = Path(home).expanduser() / "dagster.yaml"
    check_instance_file(file)
    try:
        instance = dg.DagsterInstance.get()
        for part in _MADE_LATE:
            getattr(instance, part)
        instance.get_concurrency_config()
    except Exception as error:  # a module, a type, a database: whatever a dagster.yaml can name
        remedy = (
            "Correct its dagster.yaml, or set what it takes from the environment."
            if file.is_file()
            else "Set DAGSTER_HOME to a folder that exists and holds your dagster.yaml."
        )
        raise ConfigurationError(
            f"The Dagster instance in {home} cannot be used: {in_one_line(error).rstrip('.')}. "
            f"{remedy}",
            "DAGSTER_HOME",
        ) from error
    return instance


def check_instance_file(path: Path) -> None:
    """Refuse a dagster.yaml that Dagster would print in an error, or never finish reading.

    Raises:
        ConfigurationError: It is no YAML, or holds no settings by name.
    """
    if path.is_file():
        content = loaded(str(path))
        if content is not None and not isinstance(content, Mapping):
            raise ConfigurationError(f"The file {str(path)!r} holds no settings by name.")
