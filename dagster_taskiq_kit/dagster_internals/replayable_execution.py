"""A plan in execution that can be brought to where a run's log left off.

Invariant: after a replay the plan is in the state in which the former orchestrator left it: nothing
that ended begins again, a delayed retry is due when it was due, and a pool's slots are held by
exactly those steps of the run that are in flight.
"""

import time
from collections.abc import Iterable, Sequence
from typing import Any, cast

import dagster as dg

from . import names as internals
from .log_events import pool_of


class ReplayableExecution(internals.ActiveExecution):
    """Dagster's state machine of a plan, which can be brought to where a log left off.

    Dagster's own ``rebuild_from_events`` raises on a skip, on a delayed retry and on a full pool.
    """

    def replay(
        self, events: Iterable[tuple[dg.DagsterEvent, float]]
    ) -> Sequence[internals.ExecutionStep]:
        """Replay a run's prior events, without claiming pools and without waiting.

        Args:
            events: Every Dagster event of the run with its timestamp, in order.

        Returns:
            Steps whose present attempt was handed to a worker and has no end in the log.
        """
        limits = (
            self._instance_concurrency_context, self._max_concurrent, self._tag_concurrency_limits,
        )  # fmt: skip
        self._instance_concurrency_context = None
        self._max_concurrent, self._tag_concurrency_limits = None, []
        started: set[str] = set()
        for event, timestamp_s in events:
            self.get_steps_to_execute()
            key = event.step_key
            if key is not None and event.is_step_skipped:
                self._replay_skip(key)
            elif key is not None:
                self._replay_attempt(event, key, timestamp_s, started)
        for key in list(self._in_flight - started):
            self._in_flight.remove(key)
            self._executable.append(key)
        (
            self._instance_concurrency_context, self._max_concurrent, self._tag_concurrency_limits,
        ) = limits  # fmt: skip
        self._take_over_pools()
        return [self.get_step_by_key(key) for key in sorted(self._in_flight)]

    @property
    def has_failures(self) -> bool:
        """Whether a step has failed."""
        return bool(self._failed)

    def due_in_s(self) -> float | None:
        """Return in how many seconds a retry or a claim of a pool is due; None when neither waits.

        Dagster's own ``sleep_interval`` says 0 both for "now" and for "nothing", and its pool
        context never says more than 0.
        """
        due_s = list(self._waiting_to_retry.values())
        if self._instance_concurrency_context is not None:
            due_s += self._instance_concurrency_context._pending_timeouts.values()
        return max(0.0, min(due_s) - time.time()) if due_s else None

    def _take_over_pools(self) -> None:
        """Hold the pool slots of steps in flight as our own; give back those of steps that ended.

        The claims of the former orchestrator are known to the storage only.
        """
        ours = self._instance_concurrency_context
        found = (pool_of(cast("internals.ExecutionStep", step)) for step in self._plan.steps)
        pools = {pool for pool in found if pool is not None}
        if ours is None or not pools:
            return
        storage, run_id = cast("Any", ours._instance.event_log_storage), ours._run_id
        if not storage.supports_global_concurrency_limits:
            return
        for pool in sorted(pools):
            info = storage.get_concurrency_info(pool)
            known = {(slot.run_id, slot.step_key) for slot in info.claimed_slots}
            known |= {(step.run_id, step.step_key) for step in info.pending_steps}
            for key in sorted(key for run, key in known if run == run_id):
                if key in self._in_flight:
                    ours.claim(pool, key)
                elif key not in self._executable:
                    storage.free_concurrency_slot_for_step(run_id, key)

    def _replay_skip(self, key: str) -> None:
        self.get_steps_to_skip()
        if key in self._in_flight:
            self.mark_skipped(key)

    def _replay_attempt(
        self, event: dg.DagsterEvent, key: str, timestamp_s: float, started: set[str]
    ) -> None:
        if event.event_type is dg.DagsterEventType.ENGINE_EVENT:
            return  # of a step that waits for its pool: nobody has begun it
        if key in self._waiting_to_retry:
            # An event of the next attempt: its wait was over.
            self._waiting_to_retry[key] = 0.0
            self.get_steps_to_execute()
        if key not in self._in_flight:
            return
        started.add(key)
        if event.is_resource_init_failure:
            return  # followed by the terminal event of the attempt
        self.handle_event(event)
        if event.is_step_up_for_retry:
            started.discard(key)
            if key in self._waiting_to_retry:
                wait_s = event.step_retry_data.seconds_to_wait or 0
                self._waiting_to_retry[key] = timestamp_s + wait_s
