"""How a run becomes a message.

Invariant: a run's message has a deterministic id, so launching twice is launching once, whether the
launcher does it or the reconciler after an outage.
"""

from collections.abc import Mapping

import dagster as dg

from ..broker import readings, records
from ..broker.connection import SyncConnection
from ..config.routing import run_route
from ..config.settings import TaskiqSettings
from ..dagster_internals import code_locations
from ..dagster_internals import names as internals
from ..vocabulary import messages
from ..vocabulary.messages import RunMessage
from ..vocabulary.states import Kind, State
from ..vocabulary.tags import TASK_ID_TAG


class RunSubmission:
    """Submits runs of one instance.

    Args:
        instance: The Dagster instance.
        broker: The broker.
        settings: The deployment.
    """

    def __init__(
        self, instance: dg.DagsterInstance, broker: SyncConnection, settings: TaskiqSettings
    ) -> None:
        self._instance = instance
        self._broker = broker
        self._settings = settings

    def submit(
        self,
        run: internals.DagsterRun,
        resume_no: int,
        by: type,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Queue a run, and say so in its log.

        Args:
            run: The run.
            resume_no: 0 for its first execution, then the number of the resume.
            by: The class on whose behalf it is said.
            tags: What its tags shall say of it, too.

        Raises:
            ConfigurationError: A tag can never work, or the run has no origin.
            BrokerError: The broker cannot take it now.
        """
        code = code_locations.code_name(run)
        route = run_route(self._settings, run.tags, code.location)
        before = self._before(run.run_id, resume_no)
        uncertain = before is not None and before.state is State.LOST and not before.gone
        message = RunMessage(
            run.run_id,
            code,
            resume_no,
            settle_s=self._settings.settle_s if uncertain else 0.0,
        )
        if run.tags.get(TASK_ID_TAG) != message.task_id:
            # Not later: who executes it writes the run's row too.
            self._instance.add_run_tags(run.run_id, {TASK_ID_TAG: message.task_id, **(tags or {})})
        self._broker.run(
            records.submit(
                task_id=message.task_id,
                kind=Kind.RUN,
                queue=route.queue,
                priority=route.priority,
                run_id=run.run_id,
                payload=messages.encode(message),
                supersedes=before.task_id if before else "",
            )
        )
        self._instance.report_engine_event(
            f"Queued the run on {route}.",
            run,
            internals.EngineEventData(
                metadata={
                    "queue": dg.MetadataValue.text(route.queue),
                    "priority": dg.MetadataValue.int(route.priority),
                    "task_id": dg.MetadataValue.text(message.task_id),
                }
            ),
            cls=by,
        )

    def _before(self, run_id: str, resume_no: int) -> readings.Record | None:
        """Return the record of the execution that this one takes the place of."""
        ids = [messages.run_task_id(run_id, number) for number in reversed(range(resume_no))]
        found = readings.fetch_all(self._broker, ids)
        return next((record for record in found.values() if record is not None), None)
