"""Settings in YAML: a file of the kit or of dagster-celery, and the block of ``dagster.yaml``.

Invariant: ``{env: X}`` is resolved here and what it stands for is written nowhere.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..celery_config import Translated, resolved, translate
from ..errors import ConfigurationError

#: Of an executor's config: what a worker has nothing to do with.
_OF_EXECUTORS = ("retries", "max_concurrent", "tag_concurrency_limits", "step_dependency_config",
                 "worker_lost_retries")  # fmt: skip
_PACKAGE = "dagster_taskiq_kit"
_COMPATIBLE = "CeleryRunLauncher"


def read_yaml(path: str) -> Mapping[str, Any]:
    """Return what a YAML file holds by name.

    Raises:
        ConfigurationError: There is no such file, it is no YAML, or holds no names.
    """
    try:
        content = yaml.safe_load(Path(path).read_text()) or {}
    except OSError as error:
        raise ConfigurationError(
            f"The file {path!r} cannot be read ({error.strerror}).", path
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise ConfigurationError(f"The file {path!r} is not YAML: {said}.", path) from None
    if not isinstance(content, Mapping):
        raise ConfigurationError(f"The file {path!r} holds no settings by name.", path)
    return content


def block(content: Mapping[str, Any], name: str, path: str) -> Mapping[str, Any]:
    """Return one block of a file; an empty one where it says nothing.

    Raises:
        ConfigurationError: There is something else in its place.
    """
    found = content.get(name) or {}
    if not isinstance(found, Mapping):
        raise ConfigurationError(
            f"{path}: {name!r} must hold settings by name; it is {found!r}.", path
        )
    return found


def execution_config(content: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """Return the config below ``execution: config:``, or the older ``execution: celery: config:``.

    Raises:
        ConfigurationError: There is something else in one of these places.
    """
    execution = block(content, "execution", path)
    below = block(execution, "celery", path) if "celery" in execution else execution
    return block(below, "config", path)


def read_settings_file(path: str) -> Translated:
    """Return the settings in a file, flat or below ``execution: config:`` as dagster-celery's.

    Raises:
        ConfigurationError: There is no such file, it is no YAML, or something in it has no meaning.
    """
    content = read_yaml(path)
    config = execution_config(content, path) if "execution" in content else content
    given = {
        name: resolved(value, path)
        for name, value in config.items()
        if value is not None and name not in _OF_EXECUTORS
    }
    return translate(given, where=path, tolerant=True)


def read_instance_settings() -> Mapping[str, Any]:
    """Return what the ``run_launcher`` block of this process's instance says, if it is the kit's.

    Workers, commands and exporter follow it as executors do. Whoever needs the instance itself
    opens it and is told what is wrong with it; here, what cannot be read says nothing.
    """
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        return {}
    path = str(Path(home) / "dagster.yaml")
    try:
        launcher = block(read_yaml(path), "run_launcher", path)
        config = block(launcher, "config", path)
        if str(launcher.get("module", "")).partition(".")[0] != _PACKAGE:
            return {}
        said = {n: v for n, v in config.items() if n not in _OF_EXECUTORS and _is_known(v)}
        given = {name: resolved(value, path) for name, value in said.items()}
        compatible = launcher.get("class") == _COMPATIBLE
        return translate(given, where=path, tolerant=compatible).settings
    except ConfigurationError:
        return {}


def _is_known(value: Any) -> bool:
    """Return whether a value is there: here, or in this environment."""
    if isinstance(value, Mapping) and set(value) == {"env"}:
        return str(value["env"]) in os.environ
    return value is not None
