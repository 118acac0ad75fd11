"""dagster-celery's configuration, understood: what means something here, and what to do instead.

Invariant: nothing is dropped in silence. What has a meaning is translated, what is not needed any
more is named in a note, and what cannot work is refused with a sentence that says what to do.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..vocabulary.errors import ConfigurationError
from ..vocabulary.masking import masked, masked_url

#: dagster-celery's default queue. Where its configuration is read, it is what it was.
OLD_DEFAULT_QUEUE = "dagster"

#: What dagster-celery's executor and launcher take beside what the kit takes.
CELERY_FIELDS = ("broker", "backend", "include", "config_source")

#: What Celery's urls say of certificates, and redis-py's.
_CERTIFICATES = {"CERT_NONE": "none", "CERT_OPTIONAL": "optional", "CERT_REQUIRED": "required"}

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
    "worker_max_memory_per_child": "say --max-memory-per-child to `dagster-taskiq worker start`, "
    "in MiB (Celery counts KiB)",
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
        fallback: What it implies where nobody says otherwise.
    """

    settings: Mapping[str, Any]
    notes: Sequence[str] = ()
    fallback: Mapping[str, Any] = field(default_factory=dict)


def translate(config: Mapping[str, Any], *, where: str, tolerant: bool = False) -> Translated:
    """Translate what dagster-celery's executor or launcher was configured with.

    Args:
        config: The configuration; fields of the kit in it stay what they are.
        where: What it is the configuration of, for the error.
        tolerant: Whether it may be as dagster-celery's was, as in a project that has changed its
            import line only: ``backend`` and ``include`` are let pass with a note, and where
            ``broker`` names the server, the default queue is dagster-celery's.

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
    found = _source(config.get("config_source") or {}, where)
    settings = {**found.settings, **settings}
    fallback = {"default_queue": OLD_DEFAULT_QUEUE} if broker and tolerant else {}
    return Translated(settings, [*notes, *found.notes], fallback)


def _source(source: Any, where: str) -> Translated:
    """Translate ``config_source``, which holds settings of Celery."""
    if not isinstance(source, Mapping):
        said = masked(repr(source))
        raise _refused(where, f"config_source {said}", "it must hold settings by name")
    settings, notes = dict[str, Any](), list[str]()
    for name, value in source.items():
        if name in _SETTINGS:
            settings[_SETTINGS[name]] = resolved(value, where)
        elif name in _NOT_NEEDED:
            notes.append(f"config_source.{name} is not needed: {_NOT_NEEDED[name]}.")
        else:
            instead = _ELSEWHERE.get(name, "remove it: it is a setting of Celery, not of taskiq")
            raise _refused(where, f"config_source.{name}", instead)
    return Translated(settings, notes)


def resolved(value: Any, where: str) -> Any:
    """Return a value with each ``{env: X}`` in it replaced by what the variable says.

    Raises:
        ConfigurationError: It is not set, or empty.
    """
    if not isinstance(value, Mapping):
        return [resolved(each, where) for each in value] if isinstance(value, list) else value
    if set(value) == {"env"}:
        name = str(value["env"])
        if not os.environ.get(name):
            raise ConfigurationError(
                f"{where}: the variable {name} is not set in the environment.", name
            )
        return os.environ[name]
    return {name: resolved(each, where) for name, each in value.items()}


def _redis(broker: str, where: str) -> str:
    scheme, _, rest = broker.partition("://")
    if scheme == "sentinel":
        raise _refused(
            where, f"broker {masked_url(broker)!r}",
            "write redis+sentinel://host1:26379,host2:26379/name-of-the-primary/0",
        )  # fmt: skip
    if scheme in ("redis+socket", "socket"):
        path = rest.partition("?")[0]
        raise _refused(where, f"broker {masked_url(broker)!r}", f"write unix://{path}?db=0")
    for old, ours in _CERTIFICATES.items():
        broker = broker.replace(f"ssl_cert_reqs={old}", f"ssl_cert_reqs={ours}")
    if scheme in ("amqp", "amqps", "pyamqp", "sqs", "memory", "filesystem"):
        raise _refused(
            where,
            f"broker {masked_url(broker)!r}",
            "the kit's broker is Redis or Valkey: name one, such as redis://localhost:6379/0",
        )
    return broker


def _refused(where: str, what: str, instead: str) -> ConfigurationError:
    return ConfigurationError(
        f"{where}: {what} has no meaning here; {instead}.", what.split(maxsplit=1)[0]
    )
