"""The Dagster face of the settings: the same fields, as a config schema for executor and launcher.

Invariant: a setting exists once, in ``settings.py``; its description and default come from there.
Beside them stand what limits a run's steps, and what dagster-celery's configuration had.
"""

import os
import typing
from collections.abc import Mapping
from typing import Any

import dagster as dg

from ..dagster_internals import names as internals
from ..vocabulary.tags import ISOLATION_TAG
from .settings import ENV_PREFIX, FUSE_LIMIT, LIMITS, QueueObjective, TaskiqSettings


class _FloatSource(dg.ScalarUnion):
    """A number, or the name of the variable that holds it; Dagster has the others."""

    def __init__(self) -> None:
        env = dg.Selector({"env": str})
        super().__init__(scalar_type=dg.Float, non_scalar_schema=env, _key="TaskiqFloatSource")

    def post_process(self, value: Any) -> Any:
        """Return the number.

        Raises:
            PostProcessingError: The variable is not set, or holds no number.
        """
        if not isinstance(value, Mapping):
            return value
        name = value["env"]
        said = os.environ.get(name)
        try:
            return float(said or "")
        except ValueError:
            raise internals.PostProcessingError(
                f"The environment variable {name} must hold a number; it is "
                + ("not set." if said is None else f"{said!r}.")
            ) from None


_FLOAT_SOURCE = _FloatSource()
_SOURCES: Mapping[type, Any] = {
    str: dg.StringSource,
    int: dg.IntSource,
    bool: dg.BoolSource,
    float: dg.Noneable(_FLOAT_SOURCE),
}


def settings_fields() -> dict[str, dg.Field]:
    """Return one optional Dagster field for each setting; ``{env: X}`` works in each."""
    fields: dict[str, dg.Field] = {}
    for name, field in TaskiqSettings.model_fields.items():
        if name == "queues":
            fields[name] = dg.Field(
                dg.Map(str, dg.Shape(_objective_fields()), key_label_name="queue"),
                is_required=False,
                description=field.description,
            )
            continue
        kind = _plain_type(field.annotation)
        default = "no default" if field.default is None else f"default {field.default!r}"
        fields[name] = dg.Field(
            _SOURCES[kind],
            is_required=False,
            description=f"{field.description} ({default}; {ENV_PREFIX}{name.upper()})",
        )
    return fields


def celery_fields() -> dict[str, dg.Field]:
    """Return the fields of dagster-celery, each optional: see ``celery_config.py``."""
    return {
        "broker": dg.Field(
            dg.Noneable(dg.StringSource), is_required=False, description="Old name of `url`."
        ),
        "backend": dg.Field(
            dg.Noneable(dg.StringSource), is_required=False, description="Not needed any more."
        ),
        "include": dg.Field(
            [dg.StringSource], is_required=False, description="Not needed any more."
        ),
        "config_source": dg.Field(
            dg.Noneable(dg.Permissive()),
            is_required=False,
            description="Settings of Celery; those with a meaning here are understood.",
        ),
    }


def limit_fields() -> dict[str, dg.Field]:
    """Return the fields that say how a run's steps may be executed, each optional."""
    return {
        "retries": dg.Field(
            internals.get_retries_config().config_type,
            is_required=False,
            description="Whether retries are enabled (default) or disabled.",
        ),
        "max_concurrent": dg.Field(
            dg.Noneable(dg.IntSource),
            is_required=False,
            description="Steps of one run at once; null for no limit (default).",
        ),
        "tag_concurrency_limits": internals.get_tag_concurrency_limits_config(),
        "step_dependency_config": internals.get_step_dependency_config_field(),
        "worker_lost_retries": dg.Field(
            dg.IntSource,
            is_required=False,
            description="Retries of a step beyond its own retry policy when its worker was lost "
            "(killed, out of memory, reclaimed); default 0.",
        ),
        "fuse_limit": dg.Field(
            dg.IntSource,
            is_required=False,
            description="Steps that one process may execute, one after the other, where the tag "
            f"{ISOLATION_TAG} is 'run'; default {FUSE_LIMIT}.",
        ),
    }


def given_limits(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return those entries of a config that are of :func:`limit_fields` and were given."""
    return {name: config[name] for name in LIMITS if name in config}


def given_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return those entries of a config that are settings and were given."""
    return {
        name: config[name] for name in TaskiqSettings.model_fields if config.get(name) is not None
    }


def _objective_fields() -> dict[str, dg.Field]:
    return {
        name: dg.Field(
            _FLOAT_SOURCE if field.annotation is float else dg.IntSource,
            is_required=False,
            default_value=field.default,
            description=field.description,
        )
        for name, field in QueueObjective.model_fields.items()
    }


def _plain_type(annotation: Any) -> type:
    """Return the plain type under Annotated and ``| None``."""
    for part in typing.get_args(annotation):
        if isinstance(part, type) and part is not type(None):
            return _plain_type(part)
        if typing.get_args(part):
            return _plain_type(part)
    return annotation if isinstance(annotation, type) else str
