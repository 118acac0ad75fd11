"""How a line of a log is written: for people, or as one JSON object for machines.

Invariant: no line holds a secret, and in JSON each record is one line.
"""

import json
import logging
import re
import socket
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Literal

from ..vocabulary.masking import masked, masked_data

LogFormat = Literal["json", "console", "auto"]
LOG_FORMATS: tuple[LogFormat, ...] = ("json", "console", "auto")

#: What a record may say beside its sentence; the order in which a line says it.
FIELDS = (
    "run_id", "job", "step_key", "attempt", "task_id", "kind", "queue", "location", "stream",
    "state", "seconds", "order", "worker_id", "part",
)  # fmt: skip
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def is_json(chosen: LogFormat) -> bool:
    """Return whether lines are JSON: by choice, or since no terminal shows them."""
    return chosen == "json" or (chosen == "auto" and not sys.stderr.isatty())


#: What each line of this process says in JSON, once it does: its host, and a worker its name.
_always: dict[str, str] = {}


def writes_json() -> bool:
    """Return whether this process writes its log in JSON."""
    return bool(_always)


def json_line(at_s: float, level: str, event: str, said: Mapping[str, Any]) -> str:
    """Return one line.

    Args:
        at_s: When, seconds since 1970.
        level: ``debug``, ``info``, ``warning``, ``error`` or ``critical``.
        event: The sentence.
        said: What else is said, by name; what is None is left out.
    """
    at = datetime.fromtimestamp(at_s, timezone.utc).isoformat(timespec="milliseconds")
    data = {
        "time": at.replace("+00:00", "Z"),
        "level": level,
        "event": masked(_COLOURS.sub("", event)),
        "action": said.get("action"),
    }
    rest = {name: value for name, value in said.items() if name not in data and value is not None}
    return json.dumps({**data, **masked_data(rest), **_always}, default=str, ensure_ascii=False)


class ConsoleLines(logging.Formatter):
    """Lines for people, without secrets."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return masked(super().format(record))


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        said: dict[str, Any] = {"action": getattr(record, "action", None)}
        said |= {name: record.__dict__.get(name) for name in FIELDS}
        said["logger"] = record.name
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json_line(record.created, record.levelname.lower(), record.getMessage(), said)


def log_as_a_fork() -> None:
    """Leave what user code logs and warns of here to Python; the kit's lines are as before."""
    logging.captureWarnings(False)
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)
    if writes_json():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonLines())
        logging.getLogger(__name__.partition(".")[0]).addHandler(handler)


def configure_logging(
    level: str, log_format: LogFormat = "console", always: Mapping[str, str] | None = None
) -> None:
    """Send logs to stderr.

    Args:
        level: From which level on.
        log_format: How lines are written.
        always: What each line says beside, in JSON.
    """
    _always.clear()
    if is_json(log_format):
        _always.update({**(always or {}), "host": socket.gethostname()})
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if writes_json() else ConsoleLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(writes_json())
    logging.getLogger("alembic").setLevel(logging.WARNING)
