"""A deployment's settings from YAML: a file of the kit or of dagster-celery, and ``dagster.yaml``.

Invariant: what is given by options is stronger than a file, a file than the launcher's block of the
instance, the block than the environment. ``{env: X}`` is resolved here and what it stands for is
written nowhere.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..vocabulary.errors import ConfigurationError
from ..vocabulary.masking import masked
from .celery_config import Translated, resolved, translate
from .settings import LIMITS, TaskiqSettings, laid_over
from .yaml_file import loaded

_PACKAGE = "dagster_taskiq_kit"
_COMPATIBLE = "CeleryRunLauncher"


def deployment(
    options: Mapping[str, Any], path: str | None = None
) -> tuple[TaskiqSettings, Sequence[str]]:
    """Return the settings of this process's deployment, and what to say of where they came from.

    Args:
        options: What was given explicitly.
        path: A file with settings.

    Raises:
        ConfigurationError: A bad value, in one of them or in the environment.
    """
    file = read_settings_file(path) if path is not None else Translated({})
    said = laid_over(file.settings, options)
    instance = _read_instance_block(said)
    sources = [*(["options"] if options else []), *([path] if path is not None else [])]
    if instance.settings:
        sources.append("run_launcher block of dagster.yaml")
    settings = TaskiqSettings.resolve(
        laid_over(instance.settings, said),
        where=" or ".join(sources or ["settings"]),
        fallback={**instance.fallback, **file.fallback},
    )
    return settings, [*(f"{path}: {note}" for note in file.notes), *instance.notes]


def read_yaml(path: str) -> Mapping[str, Any]:
    """Return what a YAML file holds by name.

    Raises:
        ConfigurationError: There is no such file, it is no YAML, or holds no names.
    """
    content = loaded(path) or {}
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
        said = masked(repr(found))
        raise ConfigurationError(
            f"{path}: {name!r} must hold settings by name; it is {said}.", path
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
        if value is not None and name not in LIMITS
    }
    return translate(given, where=path, tolerant=True)


def _read_instance_block(said: Mapping[str, Any]) -> Translated:
    """Return what the ``run_launcher`` block of this process's instance says, if it is the kit's.

    A command needs no instance: what cannot be read there is left out with a note, unless it was
    said in a stronger place.
    """
    home = os.environ.get("DAGSTER_HOME")
    path = str(Path(home or "").expanduser() / "dagster.yaml")
    if not home or not Path(path).is_file():
        return Translated({})
    notes: list[str] = []
    given: dict[str, Any] = {}
    try:
        launcher = block(read_yaml(path), "run_launcher", path)
        config = block(launcher, "config", path)
        if str(launcher.get("module", "")).partition(".")[0] != _PACKAGE:
            return Translated({})
        for name, value in config.items():
            if value is None or name in LIMITS:
                continue
            try:
                given[name] = resolved(value, f"{path}: {name} is left out")
            except ConfigurationError as error:
                if name not in said and not (name == "broker" and "url" in said):
                    notes.append(str(error))
        compatible = launcher.get("class") == _COMPATIBLE
        found = translate(given, where=path, tolerant=compatible)
    except ConfigurationError as error:
        return Translated({}, [f"The run_launcher block is left out: {error}"])
    return Translated(found.settings, notes, found.fallback)
