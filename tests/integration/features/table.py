"""The table: every feature, and how its job is run.

Invariant: it has a row for each name of ``NAMES`` and no other; importing it fails otherwise, so a
missing row is a failed collection and never a test that silently is not there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import demands
from demands import Demand

NAMES = frozenset(
    {
        "op retries",
        "retry requested",
        "skips",
        "optional outputs",
        "dynamic map and collect",
        "op subset",
        "asset subset",
        "asset job with checks",
        "partitions",
        "backfill",
        "max_concurrent",
        "tag_concurrency_limits",
        "concurrency pools",
        "require_upstream_step_success false",
        "resource init failure",
        "hooks",
        "nested graphs",
        "compute logs",
        "thread left running after import",
    }
)


@dataclass(frozen=True)
class Feature:
    """One row.

    Args:
        name: What it is about; one of ``NAMES``.
        job: The job to run.
        status: How its run must end.
        file: Where its job is defined, beside this file.
        run_config: Run config of the runs on workers, beyond the executor's.
        executor_config: Config of ``taskiq_executor``; the reference's executor has none of it.
        op_selection: As for ``execute_job``.
        asset_selection: As for ``execute_job``, as user strings.
        partition_keys: Run once for each, or once with none.
        backfill: Whether those runs are one backfill.
        prepare: What an instance needs before the run.
        reference: Which definitions of the file say what its events must be.
        demands: What must be true beyond the events.
    """

    name: str
    job: str
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS
    file: str = "jobs.py"
    run_config: Mapping[str, Any] = field(default_factory=dict)
    executor_config: Mapping[str, Any] = field(default_factory=dict)
    op_selection: Sequence[str] | None = None
    asset_selection: Sequence[str] | None = None
    partition_keys: Sequence[str | None] = (None,)
    backfill: bool = False
    prepare: Callable[[dg.DagsterInstance], object] = lambda _instance: None
    reference: str = "in_process_reference"
    demands: Sequence[Demand] = ()

    def whole_run_config(self) -> dict[str, Any]:
        """Return the run config of a run on workers."""
        if not self.executor_config:
            return dict(self.run_config)
        return {**self.run_config, "execution": {"config": dict(self.executor_config)}}


def _one_slot_in_pool_p(instance: dg.DagsterInstance) -> None:
    instance.event_log_storage.set_concurrency_slots("p", 1)


FAILURE = dg.DagsterRunStatus.FAILURE
HEAVY = ["is_heavy_x", "is_heavy_y", "is_heavy_z"]
LIGHT = ["takes_a_while_x", "takes_a_while_y", "takes_a_while_z"]
POOLED = ["uses_the_pool_x", "uses_the_pool_y", "uses_the_pool_z"]

_ROWS = [
    Feature("op retries", "op_retries", FAILURE, demands=[demands.waited("fails_once", 0.3)]),
    Feature(
        "retry requested",
        "retry_requested",
        demands=[demands.waited("asks_for_a_retry", 0.3)],
    ),
    Feature("skips", "skips"),
    Feature("optional outputs", "optional_outputs"),
    Feature("dynamic map and collect", "dynamic"),
    Feature(
        "op subset",
        "chain",
        op_selection=["*second"],
        demands=[demands.only_steps("first", "second")],
    ),
    Feature(
        "asset subset",
        "pages",
        asset_selection=["first_page", "second_page"],
        demands=[demands.only_steps("first_page", "second_page")],
    ),
    Feature("asset job with checks", "checked_assets", FAILURE),
    Feature("partitions", "letters", partition_keys=["x"], demands=[demands.of_its_partition]),
    Feature(
        "backfill",
        "letters",
        partition_keys=["x", "y"],
        backfill=True,
        demands=[demands.of_its_partition, demands.of_a_backfill],
    ),
    Feature(
        "max_concurrent",
        "max_concurrent",
        executor_config={"max_concurrent": 1},
        demands=[demands.never_together(*LIGHT)],
    ),
    Feature(
        "tag_concurrency_limits",
        "tag_concurrency_limits",
        executor_config={
            "tag_concurrency_limits": [{"key": "weight", "value": "heavy", "limit": 1}]
        },
        demands=[demands.never_together(*HEAVY), demands.sometimes_together(*LIGHT)],
    ),
    Feature(
        "concurrency pools",
        "pools",
        prepare=_one_slot_in_pool_p,
        demands=[
            demands.never_together(*POOLED),
            demands.handed_on_within(4.0, *POOLED),
            demands.pool_is_free("p"),
        ],
    ),
    Feature(
        "require_upstream_step_success false",
        "early_start",
        run_config={"ops": {"goes_on_after_its_first_output": {"config": {"patience_s": 5.0}}}},
        executor_config={"step_dependency_config": {"require_upstream_step_success": False}},
        demands=[demands.began_before_the_end_of("begins_early", "goes_on_after_its_first_output")],
    ),
    # In one process resources are made before any step begins, so the run fails without a word of
    # its steps; with a process for each step the step is what fails. The peer is multiprocess.
    Feature(
        "resource init failure",
        "resource_failure",
        FAILURE,
        reference="multiprocess_reference",
    ),
    Feature("hooks", "hooks", FAILURE),
    Feature("nested graphs", "nested_graphs"),
    Feature("compute logs", "compute_logs", demands=[demands.said_the_same("talks")]),
    Feature(
        "thread left running after import",
        "threaded",
        file="threaded_code.py",
        demands=[demands.served_layered("threaded_code.py")],
    ),
]

FEATURES = {row.name: row for row in _ROWS}
assert len(FEATURES) == len(_ROWS), "two rows have one name"
assert FEATURES.keys() == NAMES, f"not the features: {FEATURES.keys() ^ NAMES}"
