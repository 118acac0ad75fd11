"""One job for each feature of Dagster that users lean on; the code that the fleet's worker loads.

Invariant: every job exists once and is bound to an executor only by ``build``, so that a run on
workers and its reference differ in nothing else. It imports pandas, as most code does: threads of
its libraries are there when children are forked.
"""

import asset_jobs
import dagster as dg
import graph_jobs
import limit_jobs
import pandas as pd
import surrounding_jobs

from dagster_taskiq_kit import taskiq_executor

FRAME = pd.DataFrame({"number": [1.0, 2.0]}) @ pd.DataFrame([[3.0]], index=["number"])


def build(executor):
    modules = (graph_jobs, limit_jobs, surrounding_jobs)
    made = [job for m in modules for job in vars(m).values() if isinstance(job, dg.JobDefinition)]
    return dg.Definitions(
        assets=asset_jobs.ASSETS,
        asset_checks=asset_jobs.CHECKS,
        jobs=[*made, *asset_jobs.JOBS],
        executor=executor,
    )


def in_process_reference():
    return build(dg.in_process_executor)


def multiprocess_reference():
    return build(dg.multiprocess_executor)


defs = build(taskiq_executor)
