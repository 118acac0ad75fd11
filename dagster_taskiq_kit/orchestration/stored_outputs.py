"""When an output of a step lets others begin: when it is stored, not when it is announced.

Dagster writes STEP_OUTPUT before an IO manager stores the value and HANDLED_OUTPUT after it. Where
a step may begin before the one above it has ended, it would look for an input that is not there.

Invariant: an output is passed on once, at the first event that proves it stored: its
HANDLED_OUTPUT, the next output of the same step, or the step's success. What is not stored at all
(a ``Nothing``, the result of an asset check) is passed on at once. An output whose step failed
while it was being stored is never passed on.
"""

from collections.abc import Callable, Iterator

import dagster as dg

from ..dagster_internals import names as internals

_Type = dg.DagsterEventType
_FAILURES = {_Type.STEP_FAILURE, _Type.STEP_UP_FOR_RETRY}


class StoredOutputs:
    """Holds back what is announced and not stored, for all steps of a run.

    Args:
        step: Returns a step of the plan by its key.
    """

    def __init__(self, step: Callable[[str], internals.ExecutionStep]) -> None:
        self._step = step
        self._announced: dict[str, dg.DagsterEvent] = {}

    def pass_on(self, event: dg.DagsterEvent) -> Iterator[dg.DagsterEvent]:
        """Yield what the state machine of the plan shall see now, in order.

        Args:
            event: An event of the run's log.
        """
        key = event.step_key or ""
        kind = event.event_type
        if kind in _FAILURES:
            self._announced.pop(key, None)
        elif kind in (_Type.STEP_OUTPUT, _Type.HANDLED_OUTPUT, _Type.STEP_SUCCESS):
            before = self._announced.pop(key, None)
            if before is not None:
                yield before
        if kind is not _Type.STEP_OUTPUT or not self._is_stored(event):
            yield event
        else:
            self._announced[key] = event

    def _is_stored(self, event: dg.DagsterEvent) -> bool:
        name = event.step_output_data.step_output_handle.output_name
        output = self._step(event.step_key or "").step_output_named(name)
        return output.dagster_type_key != "Nothing" and output.properties.asset_check_key is None
