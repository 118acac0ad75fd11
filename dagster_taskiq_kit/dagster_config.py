"""The Dagster face of the settings: the same fields, as a config schema for executor and launcher.

Invariant: a field exists once, in ``settings.py``; its description and default come from there.
"""

import typing
from collections.abc import Mapping
from typing import Any

import dagster as dg

from .settings import ENV_PREFIX, QueueObjective, TaskiqSettings

_SOURCES = {str: dg.StringSource, int: dg.IntSource, bool: dg.BoolSource}


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
            _SOURCES.get(kind, dg.Noneable(dg.Float) if kind is float else dg.Noneable(str)),
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
        "include": dg.Field([str], is_required=False, description="Not needed any more."),
        "config_source": dg.Field(
            dg.Noneable(dg.Permissive()),
            is_required=False,
            description="Settings of Celery; those with a meaning here are understood.",
        ),
    }


def given_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return those entries of a config that are settings and were given."""
    return {
        name: config[name] for name in TaskiqSettings.model_fields if config.get(name) is not None
    }


def _objective_fields() -> dict[str, dg.Field]:
    return {
        name: dg.Field(
            dg.Float if field.annotation is float else dg.Int,
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
