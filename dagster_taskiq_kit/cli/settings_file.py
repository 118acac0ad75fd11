"""A YAML file with settings: the kit's own fields, or what dagster-celery's ``-y`` took.

Invariant: ``{env: X}`` is resolved here and what it stands for is written nowhere.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..celery_config import translate
from ..errors import ConfigurationError

#: Of an executor's config: what a worker has nothing to do with.
_OF_EXECUTORS = ("retries", "max_concurrent", "tag_concurrency_limits", "step_dependency_config",
                 "worker_lost_retries")  # fmt: skip


def read_settings_file(path: str) -> Mapping[str, Any]:
    """Return the settings in a file, flat or below ``execution: config:`` as dagster-celery's.

    Raises:
        ConfigurationError: There is no such file, it is no YAML, or something in it has no meaning.
    """
    file = Path(path)
    try:
        content = yaml.safe_load(file.read_text()) or {}
    except OSError as error:
        raise ConfigurationError(
            f"The file {path!r} cannot be read ({error.strerror}).", path
        ) from None
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise ConfigurationError(f"The file {path!r} is not YAML: {said}.", path) from None
    if not isinstance(content, Mapping):
        raise ConfigurationError(f"The file {path!r} holds no settings by name.", path)
    config: Any = content
    if "execution" in content:
        execution = content["execution"] or {}
        below = execution.get("celery", execution) or {}
        config = below.get("config") or {}
    given = {
        name: _resolved(value, path)
        for name, value in config.items()
        if value is not None and name not in _OF_EXECUTORS
    }
    return translate(given, where=path, tolerant=True).settings


def _resolved(value: Any, path: str) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {"env"}:
            name = str(value["env"])
            if name not in os.environ:
                raise ConfigurationError(
                    f"{path}: the variable {name} is not set in the environment.", name
                )
            return os.environ[name]
        return {name: _resolved(each, path) for name, each in value.items()}
    return value
