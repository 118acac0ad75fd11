"""The one description of a deployment; every face of the kit is made from it.

Launcher, executor, resource, worker, exporter and CLI take the same fields with the same defaults
and the same error for a bad value. The order is: an explicit value, then ``DAGSTER_TASKIQ_<FIELD>``
in the environment, then the default.
"""

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from ..vocabulary.errors import ConfigurationError
from ..vocabulary.masking import masked, names_a_secret
from ..vocabulary.seconds import MOST_SECONDS
from .broker_url import parse_broker_url

ENV_PREFIX = "DAGSTER_TASKIQ_"

_QUEUE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@/-]{0,99}")
_LOCATION = "{code_location}"
_NOT_IN_QUEUE_NAMES = re.compile(r"[^A-Za-z0-9_.@/-]")
#: Of a bad value so much is said.
_LONGEST_SHOWN = 120
_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def check_queue_name(name: str) -> str:
    """Return ``name``, or raise ValueError: it must be able to stand inside a Redis key."""
    if not _QUEUE_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a queue name: use 1 to 100 letters, digits and _ . @ / -, "
            "beginning with a letter or digit"
        )
    return name


def _check_namespace(name: str) -> str:
    if not _NAMESPACE.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a namespace: use 1 to 64 letters, digits and _ . -, "
            "beginning with a letter or digit"
        )
    return name


def _check_template(template: str | None) -> str | None:
    if template is not None:
        if _LOCATION not in template:
            raise ValueError(
                f"{template!r} names the same queue for all: put {_LOCATION} into it, or set "
                "default_queue instead"
            )
        check_queue_name(template.replace(_LOCATION, "x"))
    return template


def _check_url(url: str | None) -> str | None:
    if url is not None:
        parse_broker_url(url)
    return url


#: What an executor's config says beside settings, and a launcher's for executors.
LIMITS = (
    "retries", "max_concurrent", "tag_concurrency_limits", "step_dependency_config",
    "worker_lost_retries", "fuse_limit",
)  # fmt: skip

#: Steps that one process executes, one after the other, where steps of a run may share one.
FUSE_LIMIT = 50

#: Neither nan nor infinity is one.
Seconds = Annotated[float, Field(ge=0, le=MOST_SECONDS, allow_inf_nan=False)]
#: One that is waited for again and again: without a floor it would be a busy loop.
Pause = Annotated[float, Field(ge=0.001, le=MOST_SECONDS, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]

QueueName = Annotated[str, AfterValidator(check_queue_name)]


class QueueObjective(BaseModel):
    """What a queue promises, and from when its backlog is worth a warning."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slo_s: Pause = Field(
        default=60.0, description="Longest acceptable wait of a message, in seconds."
    )
    backlog_warn: Count = Field(default=50, description="Waiting messages that are worth a WARN.")
    backlog_error: Count = Field(default=200, description="Waiting messages that are an ERROR.")
    min_workers: Count = Field(
        default=1,
        description="Live workers that must serve it also when nothing waits; 0 for a queue whose "
        "workers come and go with its work.",
    )
    redeliveries_warn: Count = Field(
        default=3, ge=1, description="Redelivered and lost messages in an hour that are a WARN."
    )

    @model_validator(mode="after")
    def _error_after_warning(self) -> "QueueObjective":
        if self.backlog_error < self.backlog_warn:
            raise ValueError(
                f"backlog_error ({self.backlog_error}) must not be below backlog_warn "
                f"({self.backlog_warn})"
            )
        return self


class TaskiqSettings(BaseModel):
    """A deployment: which broker, which queues, which timings.

    Durations are in seconds. Build it with :meth:`resolve`, which reads the environment and turns
    what pydantic complains of into one sentence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str | None, AfterValidator(_check_url)] = Field(
        default=None,
        description="Redis or Valkey url: redis://, rediss://, unix://, redis+sentinel:// or "
        "redis+cluster://.",
    )
    namespace: Annotated[str, AfterValidator(_check_namespace)] = Field(
        default="dagster",
        description="Prefix of every key; one namespace belongs to one Dagster instance.",
    )
    default_queue: QueueName = Field(
        default="default", description="Queue of runs and steps that name none."
    )
    queue_template: Annotated[str | None, AfterValidator(_check_template)] = Field(
        default=None,
        description="Queue of runs and steps that name none, by code location: "
        "runs-{code_location}. Workers that are given no queue serve those of their locations.",
    )
    default_priority: int = Field(
        default=5, ge=0, le=10, description="Priority of what names none; 10 is served first."
    )
    inherit_run_queue: bool = Field(
        default=True,
        description="Whether a run's queue tag also routes those of its steps that name no queue.",
    )
    queues: dict[QueueName, QueueObjective] = Field(
        default_factory=dict, description="Objectives of queues, by queue name."
    )
    shared_storage: bool = Field(
        default=True,
        description="Whether workers on all hosts must see the same Dagster storage folder; False "
        "when every IO manager and the compute logs are in a bucket or a database.",
    )
    lease_s: Pause = Field(
        default=15.0, description="How long a worker is trusted after its last renewal."
    )
    renew_s: Pause = Field(default=3.0, description="How often a worker renews its lease.")
    witness_s: Pause = Field(
        default=3.0,
        description="How often a worker that cannot renew asks Dagster's database whether its work "
        "was given to others; what replaces lost work waits 2 s longer than this.",
    )
    unserved_note_s: Pause = Field(
        default=30.0,
        description="After how long a run's log says that no live worker serves its queue.",
    )
    queue_wait_timeout_s: Pause | None = Field(
        default=None,
        description="How long a run or step may wait in a queue before its run fails; no limit "
        "when it is not set.",
    )
    connect_timeout_s: Pause = Field(
        default=2.0, description="Longest wait for a connection to the broker."
    )
    command_timeout_s: Pause = Field(
        default=5.0, description="Longest wait for the reply to one command."
    )
    give_up_s: Pause = Field(
        default=10.0, description="After how long a producer reports the broker as away."
    )
    cancel_grace_s: Seconds = Field(
        default=10.0, description="Time between SIGTERM and SIGKILL for a cancelled child."
    )
    drain_timeout_s: Seconds = Field(
        default=25.0, description="How long a stopping worker lets its steps finish."
    )
    outcome_ttl_s: int = Field(
        default=86_400,
        ge=60,
        le=10 * MOST_SECONDS,
        description="How long the record of an ended message is kept.",
    )

    @model_validator(mode="after")
    def _lease_outlives_renewals(self) -> "TaskiqSettings":
        if self.lease_s < 3 * self.renew_s:
            raise ValueError(
                f"lease_s ({self.lease_s:g}) must be at least three times renew_s "
                f"({self.renew_s:g}), so that one lost renewal does not cost a healthy worker "
                "its work"
            )
        return self

    @classmethod
    def resolve(
        cls,
        explicit: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        *,
        where: str = "settings",
        fallback: Mapping[str, Any] | None = None,
    ) -> "TaskiqSettings":
        """Build settings from explicit values, then the environment, then the defaults.

        Args:
            explicit: Values by field name; a value of None counts as not given.
            environ: The environment to read, default ``os.environ``.
            where: What the explicit values came from, for the error.
            fallback: Values used only if neither default_queue nor queue_template is given.

        Raises:
            ConfigurationError: A field is unknown or a value can never work; says which and why.
        """
        environ = os.environ if environ is None else environ
        said = {name: value for name, value in (explicit or {}).items() if value is not None}
        variables = {name: environ.get(ENV_PREFIX + name.upper()) for name in cls.model_fields}
        given = laid_over({n: v for n, v in variables.items() if v and n != "queues"}, said)
        if fallback and not {"default_queue", "queue_template"} & set(given):
            given |= fallback
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            findings = "; ".join(_sentence(cls, item, given) for item in error.errors())
            raise ConfigurationError(
                f"Bad {where}: {findings}.",
                ".".join(str(part) for part in error.errors()[0]["loc"]) or None,
            ) from None

    def home_queue(self, location: str | None) -> str:
        """Return the queue of runs and steps of a code location that name none.

        A run without a location (``dagster job execute``) waits in the default queue.
        """
        if self.queue_template is None or location is None:
            return self.default_queue
        return self.queue_template.replace(_LOCATION, _NOT_IN_QUEUE_NAMES.sub("-", location))

    def objective(self, queue: str) -> QueueObjective:
        """Return what a queue promises; the defaults for one that the settings do not name."""
        return self.queues.get(queue) or QueueObjective()

    @property
    def settle_s(self) -> float:
        """How long what replaces lost work waits, so that a cut-off worker has seen the verdict."""
        return self.witness_s + 2.0

    def require_url(self) -> str:
        """Return the broker url.

        Raises:
            ConfigurationError: None is configured.
        """
        if self.url is None:
            raise ConfigurationError(
                "No broker url is configured: set DAGSTER_TASKIQ_URL or `url` in the run_launcher "
                "block of dagster.yaml to your Redis or Valkey. To try the kit out without one, "
                "run `dagster-taskiq dev`, which brings its own server.",
                "url",
            )
        return self.url


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of two sources, those of ``above`` being the stronger.

    A default queue says where work goes as a template does: the stronger source's is meant.
    """
    merged = {**below, **above}
    if "default_queue" in above and "queue_template" not in above:
        merged.pop("queue_template", None)
    return merged


def _sentence(
    model: type[TaskiqSettings], error: Mapping[str, Any], given: Mapping[str, Any]
) -> str:
    """Turn one of pydantic's findings into words a person can act on."""
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = ", ".join(sorted(model.model_fields))
        return f"unknown setting {path!r}; known ones are {known}"
    message = str(error["msg"]).removeprefix("Value error, ")
    if not path:
        return message
    if error["type"] == "value_error":
        return f"{path}: {message}"
    value = given.get(path, error.get("input"))
    shown = "***" if names_a_secret(path) else masked(repr(value))
    shown = shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}..."
    return f"{path}={shown}: {message}"
