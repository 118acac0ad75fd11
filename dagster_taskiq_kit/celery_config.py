"""dagster-celery's configuration, understood: what means something here, and what to do instead.

Invariant: nothing is dropped in silence. What has a meaning is translated, what is not needed any
more is named in a note, and what cannot work is refused with a sentence that says what to do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import ConfigurationError, without_password

#: What dagster-celery's executor and launcher take beside what the kit takes.
CELERY_FIELDS = ("broker", "backend", "include", "config_source")

#: Of ``config_source``: celery's name to ours.
_SETTINGS = {"task_default_queue": "default_queue", "task_default_priority": "default_priority"}

#: Of ``config_source``: what is not needed here, and why.
_NOT_NEEDED = {
    "worker_prefetch_multiplier": "a worker takes one message when a slot is free",
    "broker_transport_options": "work is leased, not timed out: there is no visibility timeout",
    "broker_connection_retry": "producers and workers reconnect by themselves",
    "broker_connection_retry_on_startup": "producers and workers reconnect by themselves",
    "task_acks_late": "what a dead worker held is handed out again or lost, by its lease",
    "task_reject_on_worker_lost": "what a dead worker held is handed out again or lost",
    "task_track_started": "states are always kept",
    "result_expires": "results are in Dagster's event log; records are kept outcome_ttl_s",
    "result_extended": "`dagster-taskiq worker show` tells it",
    "worker_redirect_stdouts": "compute logs are captured",
    "worker_max_tasks_per_child": "each step has a process of its own",
    "worker_send_task_events": "`dagster-taskiq exporter` has metrics",
    "task_send_sent_event": "`dagster-taskiq exporter` has metrics",
    "task_create_missing_queues": "queues need not be declared",
    "task_queue_max_priority": "priorities are 0 to 10",
    "task_serializer": "messages are JSON",
    "result_serializer": "messages are JSON",
    "accept_content": "messages are JSON",
}
#: Of ``config_source``: what is said in another place here.
_ELSEWHERE = {
    "worker_concurrency": "say --slots (and --run-slots) to `dagster-taskiq worker start`",
    "worker_max_memory_per_child": "say --max-memory-per-child to `dagster-taskiq worker start`",
    "task_time_limit": "put the tag dagster-taskiq/timeout on the op",
    "task_soft_time_limit": "put the tag dagster-taskiq/timeout on the op",
    "task_routes": "put the tag dagster-taskiq/queue on the op, or set queue_template",
    "task_queues": "queues need not be declared; objectives of queues stand in `queues`",
    "task_always_eager": "use Dagster's in_process_executor",
    "broker_use_ssl": "use a rediss:// url",
}


@dataclass(frozen=True)
class Translated:
    """A configuration of dagster-celery in the kit's terms.

    Args:
        settings: Settings by name.
        notes: What it said that is not needed any more, and why.
    """

    settings: Mapping[str, Any]
    notes: Sequence[str] = field(default_factory=list)


def translate(config: Mapping[str, Any], *, where: str, tolerant: bool = False) -> Translated:
    """Translate what dagster-celery's executor or launcher was configured with.

    Args:
        config: The configuration; fields of the kit in it stay what they are.
        where: What it is the configuration of, for the error.
        tolerant: Whether ``backend`` and ``include`` are let pass with a note, as in a project that
            has changed its import line only.

    Raises:
        ConfigurationError: Something in it cannot work here; says what to do instead.
    """
    settings = {name: value for name, value in config.items() if name not in CELERY_FIELDS}
    notes: list[str] = []
    broker = config.get("broker")
    if broker:
        settings.setdefault("url", _redis(str(broker), where))
    for name, why in (
        ("backend", "results are in Dagster's event log and need no backend"),
        ("include", "workers serve the code that -m, -f and -w of `worker start` name"),
    ):
        if config.get(name):
            if not tolerant:
                raise _refused(where, name, f"remove it: {why}")
            notes.append(f"{name} is not needed: {why}.")
    for name, value in (config.get("config_source") or {}).items():
        if name in _SETTINGS:
            settings.setdefault(_SETTINGS[name], value)
        elif name in _NOT_NEEDED:
            notes.append(f"config_source.{name} is not needed: {_NOT_NEEDED[name]}.")
        elif name in _ELSEWHERE:
            raise _refused(where, f"config_source.{name}", _ELSEWHERE[name])
        else:
            raise _refused(
                where,
                f"config_source.{name}",
                "remove it: it is a setting of Celery, not of taskiq",
            )
    return Translated(settings, notes)


def _redis(broker: str, where: str) -> str:
    scheme = broker.partition("://")[0]
    if scheme in ("amqp", "amqps", "pyamqp", "sqs", "memory", "filesystem"):
        raise _refused(
            where,
            f"broker {without_password(broker)!r}",
            "the kit's broker is Redis or Valkey: name one, such as redis://localhost:6379/0",
        )
    return broker


def _refused(where: str, what: str, instead: str) -> ConfigurationError:
    return ConfigurationError(
        f"{where}: {what} has no meaning here; {instead}.", what.split(maxsplit=1)[0]
    )
