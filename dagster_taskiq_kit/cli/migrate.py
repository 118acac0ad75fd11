"""``dagster-taskiq doctor --migrate``: dagster-celery's YAML, written anew for the kit.

Invariant: nothing is written to disk, and a password that stands in the file is not printed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..celery_config import CELERY_FIELDS, translate
from ..errors import ConfigurationError, without_password

_URL = {"env": "DAGSTER_TASKIQ_URL"}

#: What the kit needs of an instance, and why; the shipped dagster.yaml says more.
_INSTANCE: Mapping[str, tuple[str, Any]] = {
    "run_monitoring": (
        "Resumes runs whose worker died. A run that waits in a queue is not stuck: hence the year.",
        {
            "enabled": True, "start_timeout_seconds": 31_536_000, "max_resume_run_attempts": 3,
            "free_slots_after_run_end_seconds": 300, "poll_interval_seconds": 30,
        },
    ),
    "run_retries": (
        "For runs on executors that cannot resume; nothing is retried that does not ask for it.",
        {"enabled": True, "max_retries": 0},
    ),
}  # fmt: skip


def migrated(path: str) -> str:
    """Return the file for this kit, with comments that say what changed and why.

    Raises:
        ConfigurationError: It cannot be read, or nothing of dagster-celery is in it.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"The file {path!r} cannot be read: {error}.", path) from None
    if isinstance(content, Mapping) and "run_launcher" in content:
        return "\n".join(_instance(content))
    if isinstance(content, Mapping) and "execution" in content:
        execution = content["execution"] or {}
        config = (execution.get("celery", execution) or {}).get("config") or {}
        return "\n".join([
            "# For `dagster-taskiq worker start -y FILE`, and for launcher and executor.",
            *_settings(config, indent=""),
        ])  # fmt: skip
    raise ConfigurationError(
        f"In {path!r} there is no run_launcher and no execution block: name the dagster.yaml "
        "or the worker's YAML of your dagster-celery.", path,
    )  # fmt: skip


def _instance(content: Mapping[str, Any]) -> Sequence[str]:
    lines = []
    for name, block in content.items():
        if name == "run_launcher":
            lines += [
                "run_launcher:",
                f"  # was {block.get('module')}.{block.get('class')}",
                "  module: dagster_taskiq_kit",
                "  class: TaskiqRunLauncher",
                "  config:",
                *_settings(block.get("config") or {}, indent="    "),
            ]
        elif name not in _INSTANCE:
            lines += _dumped({name: block}, "")
    for name, (why, block) in _INSTANCE.items():
        lines += [f"# {why}", *_dumped({name: block}, "")]
        if content.get(name):
            lines += [f"# was: {line}" for line in _dumped({name: content[name]}, "")]
    return lines


def _settings(config: Mapping[str, Any], indent: str) -> Sequence[str]:
    """Return the settings of a config; what has no meaning becomes a comment."""
    lines: list[str] = []
    kept = {n: v for n, v in config.items() if n not in CELERY_FIELDS and v is not None}
    broker = config.get("broker")
    if isinstance(broker, Mapping):
        kept["url"] = broker
    else:
        said = without_password(str(broker)) if broker else "not named"
        lines.append(f"# broker was {said}; name a Redis or Valkey in {_URL['env']}.")
        kept["url"] = _URL
    for name in ("backend", "include"):
        if config.get(name):
            note = translate({name: True}, where="", tolerant=True).notes[0]
            lines.append(f"# {note}")
    for name, value in (config.get("config_source") or {}).items():
        try:
            found = translate({"config_source": {name: value}}, where="", tolerant=True)
        except ConfigurationError as error:
            lines.append("# " + str(error).removeprefix(": "))
            continue
        kept |= found.settings
        lines += [f"# {note}" for note in found.notes]
    return [indent + line for line in [*lines, *_dumped(kept, "")]]


def _dumped(block: Mapping[str, Any], indent: str) -> Sequence[str]:
    text = yaml.safe_dump(dict(block), sort_keys=False, default_flow_style=False)
    return [indent + line for line in text.splitlines()]
