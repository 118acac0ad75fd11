"""dagster-celery's names for what the kit has: a project runs with its import line changed only.

Invariant: nothing lives here but names and the fields that dagster-celery's configuration had; the
behaviour is that of ``taskiq_executor`` and ``TaskiqRunLauncher``.
"""

from collections.abc import Mapping
from typing import Any, cast

import dagster as dg

from .config.celery_config import translate
from .config.dagster_config import celery_fields
from .dagster_internals import names as internals
from .launching.launcher import TaskiqRunLauncher
from .orchestration.executor import TaskiqExecutor, executor_fields, make_executor
from .vocabulary.tags import CELERY_ALIASES, PRIORITY_TAG, QUEUE_TAG, RUN_PRIORITY_TAG, TASK_ID_TAG

DAGSTER_CELERY_STEP_PRIORITY_TAG = CELERY_ALIASES[PRIORITY_TAG]
DAGSTER_CELERY_RUN_PRIORITY_TAG = CELERY_ALIASES[RUN_PRIORITY_TAG]
DAGSTER_CELERY_QUEUE_TAG = CELERY_ALIASES[QUEUE_TAG]
DAGSTER_CELERY_TASK_ID_TAG = TASK_ID_TAG

__all__ = [
    "DAGSTER_CELERY_QUEUE_TAG",
    "DAGSTER_CELERY_RUN_PRIORITY_TAG",
    "DAGSTER_CELERY_STEP_PRIORITY_TAG",
    "DAGSTER_CELERY_TASK_ID_TAG",
    "CeleryRunLauncher",
    "celery_executor",
]


@dg.executor(
    name="celery",
    config_schema={**executor_fields(), **celery_fields()},
    requirements=dg.multiple_process_executor_requirements(),
)
def celery_executor(context: internals.InitExecutorContext) -> TaskiqExecutor:
    """``taskiq_executor``, with the fields of dagster-celery's ``celery_executor``.

    Raises:
        ConfigurationError: A field cannot work here; says what to do instead.
    """
    config = cast("Mapping[str, Any]", context.executor_config)
    translated = translate(config, where="config of celery_executor", tolerant=True)
    return make_executor(translated, context.instance)


class CeleryRunLauncher(TaskiqRunLauncher):
    """``TaskiqRunLauncher``, with the fields of dagster-celery's launcher.

    Args:
        inst_data: Dagster's own record of the configuration.
        config: Settings, and ``broker``, ``backend``, ``include``, ``config_source``.

    Raises:
        ConfigurationError: A field cannot work here; says what to do instead.
    """

    _tolerant = True
