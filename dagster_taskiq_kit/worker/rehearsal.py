"""One trivial step, executed before the first fork so that no child has to execute it first.

Lazy imports and definition caches that every step touches are then inherited: 12 ms a step
(``step_budget.md``, section 1). It runs on an ephemeral instance and says nothing.
"""

import contextlib
import logging
import os

import dagster as dg


@dg.op
def _rehearsed() -> int:
    return 1


@dg.op
def _rehearsed_too(number: int) -> int:
    return number


@dg.job
def _rehearsal() -> None:
    _rehearsed_too(_rehearsed())


def rehearse() -> None:
    """Execute the trivial job in this process."""
    logging.disable(logging.CRITICAL)
    try:
        with (
            dg.DagsterInstance.ephemeral() as instance,
            open(os.devnull, "w") as nowhere,  # noqa: PTH123
            contextlib.redirect_stderr(nowhere),
        ):
            _rehearsal.execute_in_process(instance=instance)
    finally:
        logging.disable(logging.NOTSET)
