"""Where a run or a step waits: its queue and its priority, from tags, settings and defaults.

Invariant: launcher and orchestrator decide by the same rules, before anything is sent, and a tag
that can never work is an error here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..vocabulary import tags
from ..vocabulary.errors import ConfigurationError
from ..vocabulary.states import band_of_priority
from .settings import TaskiqSettings, check_queue_name


class Tagged(Protocol):
    """A step, as far as routing is concerned."""

    @property
    def key(self) -> str: ...  # noqa: D102

    @property
    def tags(self) -> Mapping[str, str] | None: ...  # noqa: D102


@dataclass(frozen=True)
class Route:
    """Where a message waits.

    Args:
        queue: The queue.
        priority: As asked for; the band is this, clamped to 0..10.
        timeout_s: How long a step may run, or None.
        shares_process: Whether a step may execute in a process that has executed others of its run.
    """

    queue: str
    priority: int
    timeout_s: float | None = None
    shares_process: bool = False

    def __str__(self) -> str:
        band = band_of_priority(self.priority)
        clamped = "" if band == self.priority else f" ({self.priority} is outside of 0..10)"
        return f"queue {self.queue!r} with priority {band}{clamped}"


def run_route(
    settings: TaskiqSettings, run_tags: Mapping[str, str], location: str | None = None
) -> Route:
    """Return where a run waits.

    Args:
        settings: The deployment.
        run_tags: The run's tags.
        location: The code location that it comes from.

    Raises:
        ConfigurationError: A tag of the run can never work.
    """
    queue = tags.read_tag(run_tags, tags.QUEUE_TAG) or settings.home_queue(location)
    priority = tags.read_integer(run_tags, tags.RUN_PRIORITY_TAG, "the run") or 0
    named = tags.name_in(run_tags, tags.QUEUE_TAG)
    return Route(_queue_name(queue, named, "the run"), settings.default_priority + priority)


class StepRoutes:
    """Where the steps of one run wait.

    Args:
        settings: The deployment.
        run_tags: The run's tags.
        location: The code location that it comes from.

    Raises:
        ConfigurationError: A tag of the run can never work.
    """

    def __init__(
        self, settings: TaskiqSettings, run_tags: Mapping[str, str], location: str | None = None
    ) -> None:
        self._default_priority = settings.default_priority
        self._run_tags = run_tags
        self._run_priority = tags.read_integer(run_tags, tags.RUN_PRIORITY_TAG, "the run") or 0
        inherited = tags.read_tag(run_tags, tags.QUEUE_TAG) if settings.inherit_run_queue else None
        named = tags.name_in(run_tags, tags.QUEUE_TAG)
        self._default_queue = _queue_name(
            inherited or settings.home_queue(location), named, "the run"
        )

    def of(self, step: Tagged) -> Route:
        """Return where a step waits: on its own or the run's queue, by step plus run priority.

        Raises:
            ConfigurationError: A tag of the step can never work.
        """
        whose = f"step {step.key!r}"
        step_tags = step.tags or {}
        queue = tags.read_tag(step_tags, tags.QUEUE_TAG)
        priority = tags.step_priority(step_tags, whose, self._default_priority)
        named = tags.name_in(step_tags, tags.QUEUE_TAG)
        return Route(
            _queue_name(queue, named, whose) if queue else self._default_queue,
            priority + self._run_priority,
            tags.step_timeout_s(step_tags, whose),
            tags.shares_process(step_tags, self._run_tags, whose),
        )


def old_tags_note(run_tags: Mapping[str, str], steps: Iterable[Tagged] = ()) -> str | None:
    """Return what to say of the tags of dagster-celery that decide something for a run."""
    aliases = {old: ours for ours, old in tags.CELERY_ALIASES.items()}
    said = ", ".join(f"{name} ({aliases[name]})" for name in _celery_tags(run_tags, steps))
    return f"Tags of dagster-celery are understood; their names here are: {said}." if said else None


def _celery_tags(run_tags: Mapping[str, str], steps: Iterable[Tagged]) -> Sequence[str]:
    aliases = {old: ours for ours, old in tags.CELERY_ALIASES.items()}
    tagged = [run_tags, *(step.tags or {} for step in steps)]
    found = {
        name for each in tagged for name in each if name in aliases and aliases[name] not in each
    }
    return sorted(found)


def _queue_name(queue: str, tag: str, whose: str) -> str:
    try:
        return check_queue_name(queue)
    except ValueError as error:
        raise ConfigurationError(f"Tag {tag!r} of {whose}: {error}.", tag) from None
