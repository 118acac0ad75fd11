"""Every tag the kit reads or writes, stated once, and how a value in one is understood.

A bad value is an error at submission that names the tag and whose it is; it never surfaces as a
traceback inside the executor's loop.
"""

from collections.abc import Mapping

from .errors import ConfigurationError
from .seconds import check_seconds

QUEUE_TAG = "dagster-taskiq/queue"
PRIORITY_TAG = "dagster-taskiq/priority"
RUN_PRIORITY_TAG = "dagster-taskiq/run_priority"
TIMEOUT_TAG = "dagster-taskiq/timeout"
#: On a run or an op: whether its steps share processes; ``step`` (default) or ``run``.
ISOLATION_TAG = "dagster-taskiq/isolation"
TASK_ID_TAG = "dagster-taskiq/task_id"
#: Fingerprint of the source files of the code that a run was launched with.
CODE_TAG = "dagster-taskiq/code"

#: On an op of asset checks: execute it without the queue. The health checks carry it.
INLINE_TAG = "dagster-taskiq/inline"

#: On a run: what the stuck-run sensor did to it, and to which of its attempts.
STUCK_ACTION_TAG = "dagster-taskiq/stuck_action"

#: Dagster's own priority tag; honoured where ours is absent.
DAGSTER_PRIORITY_TAG = "dagster/priority"

#: dagster-celery's names for the same things; honoured where ours is absent.
CELERY_ALIASES = {
    QUEUE_TAG: "dagster-celery/queue",
    PRIORITY_TAG: "dagster-celery/priority",
    RUN_PRIORITY_TAG: "dagster-celery/run_priority",
}


def name_in(tags: Mapping[str, str], name: str) -> str:
    """Return the name under which a tag is there: ours, or its dagster-celery alias."""
    alias = CELERY_ALIASES.get(name, name)
    return alias if name not in tags and alias in tags else name


def read_tag(tags: Mapping[str, str], name: str) -> str | None:
    """Return a tag's value, or that of its dagster-celery alias, or None."""
    return tags.get(name_in(tags, name))


def read_integer(tags: Mapping[str, str], name: str, whose: str) -> int | None:
    """Return a tag's value as an integer, or None when it is absent.

    Args:
        tags: The tags of a run or of a step.
        name: Our name of the tag.
        whose: Whose tags these are, for the error: ``op 'load'`` or ``the run``.

    Raises:
        ConfigurationError: The value is not an integer.
    """
    found = name_in(tags, name)
    value = tags.get(found)
    if value is None:
        return None
    try:
        return int(value)
    except ValueError:
        raise ConfigurationError(
            f'Tag {found!r} of {whose} is {value!r}: it must be an integer such as "5".', found
        ) from None


def step_priority(step_tags: Mapping[str, str], whose: str, default: int) -> int:
    """Return a step's own priority: our tag, else ``default`` with Dagster's added to it.

    Dagster's own default is 0, so its tag says how much more or less urgent a step is than one
    without.

    Raises:
        ConfigurationError: One of them is not an integer. Dagster's own is asked for also where
            ours decides: Dagster reads it in every process that executes a step.
    """
    dagsters = read_integer(step_tags, DAGSTER_PRIORITY_TAG, whose)
    ours = read_integer(step_tags, PRIORITY_TAG, whose)
    if ours is not None:
        return ours
    return default + (dagsters or 0)


def shares_process(step_tags: Mapping[str, str], run_tags: Mapping[str, str], whose: str) -> bool:
    """Return whether a step may execute in a process that has executed others of its run.

    Raises:
        ConfigurationError: The tag of the step, or else of the run, is neither of its two values.
    """
    value, of = step_tags.get(ISOLATION_TAG), whose
    if value is None:
        value, of = run_tags.get(ISOLATION_TAG, "step"), "the run"
    if value not in ("step", "run"):
        raise ConfigurationError(
            f"Tag {ISOLATION_TAG!r} of {of} is {value!r}: it must be 'step' (a process of its own "
            "for each step) or 'run' (steps of the run may share one).", ISOLATION_TAG,
        )  # fmt: skip
    return value == "run"


def step_timeout_s(step_tags: Mapping[str, str], whose: str) -> float | None:
    """Return how long a step may run, or None for no limit.

    Raises:
        ConfigurationError: The tag is not a positive number of seconds.
    """
    value = step_tags.get(TIMEOUT_TAG)
    if value is None:
        return None
    return check_seconds(value, f"Tag {TIMEOUT_TAG!r} of {whose}")
