"""``dagster-taskiq doctor --migrate``: dagster-celery's YAML, written anew for the kit.

Invariant: nothing is written to disk, and no password that stands in the file is printed. What the
file says of other things stays what it is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ..config.celery_config import CELERY_FIELDS, OLD_DEFAULT_QUEUE, translate
from ..config.settings_file import block, execution_config, read_yaml
from ..vocabulary.errors import ConfigurationError
from ..vocabulary.masking import HIDDEN, masked, masked_url, names_a_secret

_URL = {"env": "DAGSTER_TASKIQ_URL"}

#: Blocks by which a dagster.yaml is known.
_OF_INSTANCES = {
    "storage", "run_storage", "event_log_storage", "schedule_storage", "run_launcher",
    "run_coordinator", "compute_logs", "run_monitoring", "telemetry", "local_artifact_storage",
    "code_servers", "concurrency", "retention", "schedules", "sensors",
}  # fmt: skip

#: What the kit needs of an instance, and why; the shipped dagster.yaml says more.
_RUN_MONITORING = {
    "enabled": True, "start_timeout_seconds": 31_536_000, "max_resume_run_attempts": 3,
    "free_slots_after_run_end_seconds": 300, "poll_interval_seconds": 30,
}  # fmt: skip
_WHY_MONITORING = (
    "# Resumes runs whose worker died. A run that waits in a queue is not stuck: hence the year."
)
_WHY_RETRIES = (
    "# For runs on executors that cannot resume; nothing is retried that does not ask for it."
)


def migrated(path: str) -> str:
    """Return the file for this kit, with comments that say what changed and why.

    Raises:
        ConfigurationError: It cannot be read, or nothing of dagster-celery is in it.
    """
    content = read_yaml(path)
    if _OF_INSTANCES & set(content):
        lines = _instance(content, path)
    elif set(content) == {"execution"}:
        lines = [
            "# For `dagster-taskiq worker start -y FILE`, and for the run_launcher block.",
            *_settings(execution_config(content, path), indent=""),
        ]
    elif "execution" in content:
        rest = {name: value for name, value in content.items() if name != "execution"}
        config = _settings(execution_config(content, path), indent="    ")
        lines = ["execution:", "  config:", *config, *_dumped(rest)]
    else:
        raise ConfigurationError(
            f"In {path!r} there is no block of a dagster.yaml and no execution block: name the "
            "dagster.yaml, the worker's YAML or a run's config of your dagster-celery.", path,
        )  # fmt: skip
    if any(HIDDEN in line for line in lines):
        lines = [f"# Passwords are not printed: put yours back for {HIDDEN}.", *lines]
    return "\n".join(["# The comments of the old file are not carried over.", *lines])


def _instance(content: Mapping[str, Any], path: str) -> Sequence[str]:
    lines = []
    for name, value in content.items():
        if name == "run_launcher":
            launcher = block(content, name, path)
            lines += [
                "run_launcher:",
                f"  # was {launcher.get('module')}.{launcher.get('class')}",
                "  module: dagster_taskiq_kit",
                "  class: TaskiqRunLauncher",
                "  config:",
                *_settings(block(launcher, "config", path), indent="    "),
            ]
        elif name not in ("run_monitoring", "run_retries"):
            lines += _dumped({name: value})
    if "run_launcher" not in content:
        lines.append(
            "# Without a run_launcher block runs are launched as before, and taskiq_executor has "
            "its steps executed by workers. With TaskiqRunLauncher runs wait in queues too."
        )
    lines += [_WHY_MONITORING, *_dumped({"run_monitoring": _RUN_MONITORING})]
    if content.get("run_monitoring"):
        lines += [
            f"# was: {line}" for line in _dumped({"run_monitoring": content["run_monitoring"]})
        ]
    retries = {"enabled": True, "max_retries": 0, **block(content, "run_retries", path)}
    return [*lines, _WHY_RETRIES, *_dumped({"run_retries": retries})]


def _settings(config: Mapping[str, Any], indent: str) -> Sequence[str]:
    """Return the settings of a config; what has no meaning becomes a comment."""
    lines: list[str] = []
    kept = {n: v for n, v in config.items() if n not in CELERY_FIELDS and v is not None}
    broker = config.get("broker")
    if isinstance(broker, Mapping):
        kept["url"] = broker
    else:
        said = masked_url(str(broker)) if broker else "not named"
        lines.append(f"# broker was {said}; name a Redis or Valkey in {_URL['env']}.")
        kept["url"] = _URL
    for name in ("backend", "include"):
        if config.get(name):
            note = translate({name: True}, where="", tolerant=True).notes[0]
            lines.append(f"# {note}")
    source = config.get("config_source") or {}
    if not isinstance(source, Mapping):
        translate({"config_source": source}, where="config_source")
    for name, value in source.items():
        # A value that is a variable stays one: it is not what is looked at here.
        value = 0 if isinstance(value, Mapping) else value  # noqa: PLW2901
        try:
            found = translate({"config_source": {name: value}}, where="", tolerant=True)
        except ConfigurationError as error:
            lines.append("# " + str(error).removeprefix(": "))
            continue
        kept |= {ours: source[name] for ours in found.settings if ours not in kept}
        lines += [f"# {note}" for note in found.notes]
    if "default_queue" not in kept:
        lines.append("# The default queue of dagster-celery; without it, it is `default`.")
        kept["default_queue"] = OLD_DEFAULT_QUEUE
    return [indent + line for line in [*lines, *_dumped(kept)]]


def _dumped(content: Mapping[str, Any]) -> Sequence[str]:
    text = yaml.safe_dump(_without_secrets(content), sort_keys=False, default_flow_style=False)
    return text.splitlines()


def _without_secrets(value: Any, name: str = "") -> Any:
    if isinstance(value, Mapping):
        return {each: _without_secrets(below, str(each)) for each, below in value.items()}
    if isinstance(value, list):
        return [_without_secrets(each, name) for each in value]
    if value is not None and names_a_secret(name):
        return HIDDEN
    if not isinstance(value, str):
        return value
    return masked_url(value) if "://" in value else masked(value)
