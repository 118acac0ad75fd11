"""What Dagster does anew for the log of each step, done once before the fork.

Invariant: a step's loggers have the handlers and levels that Dagster gives them.
"""

import logging
from typing import Any

import dagster as dg

#: The parent of Dagster's loggers, whose level it sets again and again to what it is.
_BASE_LOGGER = "dagster"


def configure_logging_once(instance: dg.DagsterInstance) -> None:
    """Have steps of this process and its children not configure what is configured.

    To configure Python's logging without any handlers, and to set a level, visits every logger
    that there is: in a child that is a copy of the page of each. To configure it closes whatever
    handlers the user's code has made, too.
    """
    if not instance.get_python_log_dagster_handler_config():
        changed: Any = instance
        changed.get_yaml_python_handlers = list[logging.Handler]
    logger: Any = logging.getLogger(_BASE_LOGGER)
    set_level = logger.setLevel

    def set_another_level(level: int | str) -> None:
        if level != logger.level:
            set_level(level)

    logger.setLevel = set_another_level
