"""Results of the users' own taskiq tasks: JSON with a time to live, in taskiq-redis's backend.

Invariant: nothing is ever unpickled. What a task raised comes back as an exception of the same name
with the traceback of the process that raised it.
"""

import traceback
from typing import Any

from taskiq.result import TaskiqResult
from taskiq.serializers import JSONSerializer
from taskiq_redis import RedisAsyncResultBackend

from ..config.settings import TaskiqSettings
from .connection import AsyncConnection, connection_options
from .keys import Keys

#: Label of a result under which the traceback travels.
TRACEBACK_LABEL = "dagster-taskiq/traceback"


#: How long a result waits for the broker.
_OUTLAST_S = 300.0


class JsonResultBackend(RedisAsyncResultBackend[Any]):
    """Keeps results beside the records of their messages, for as long as those.

    Args:
        settings: The deployment.

    Raises:
        ConfigurationError: No url is configured.
    """

    def __init__(self, settings: TaskiqSettings) -> None:
        url, options = connection_options(settings, asynchronous=True)
        super().__init__(
            url,
            result_ex_time=settings.outcome_ttl_s,
            serializer=JSONSerializer(),
            prefix_str=Keys(settings.namespace).name("result", "").rstrip(":"),
            **options,
        )
        self._broker = AsyncConnection(settings)

    async def _store(self, task_id: str, result: TaskiqResult[Any]) -> None:
        """Store a result; the task is over, so a broker that is away is waited for."""
        store = super().set_result
        await self._broker.retrying(lambda: store(task_id, result), _OUTLAST_S)

    async def set_result(self, task_id: str, result: TaskiqResult[Any]) -> None:
        """Store a result; one that is not JSON is an error that says so."""
        if result.error is not None:
            lines = traceback.format_exception(result.error)
            result.labels[TRACEBACK_LABEL] = "".join(lines)
        try:
            await self._store(task_id, result)
        except (TypeError, ValueError) as error:
            sentence = (
                f"Task {task_id} returned what is not JSON ({error}). Return numbers, text, lists "
                "and dictionaries, or where you wrote the rest."
            )
            refused: TaskiqResult[Any] = TaskiqResult(
                is_err=True,
                return_value=None,
                execution_time=result.execution_time,
                labels={TRACEBACK_LABEL: sentence},
                error=TypeError(sentence),
            )
            await super().set_result(task_id, refused)


def read_result(stored: bytes) -> TaskiqResult[Any]:
    """Read a stored result."""
    return TaskiqResult[Any].model_validate(JSONSerializer().loadb(stored))
