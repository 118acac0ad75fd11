"""Executes one run and measures it: the same program for every contender, in its environment.

Usage: python -m benchmarks.orchestrate CONTENDER JOB RESULT_FILE ADMIN_URL PART=PROCESS_ID...

Invariant: what is counted begins right before ``execute_job`` and ends when everything that it set
in motion is at rest. This program, its children, and the trees under the process ids are counted.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg2

from . import jobs
from .cpu import machine_busy_s, own_cpu_s, parts_cpu_s
from .figures import Figures, bodies_s, steps_wall_gap
from .measurements import MEASUREMENTS

#: Time for children to leave, spare ones to be made, and PostgreSQL to count its sessions.
_REST_S = 0.7


def measure(
    contender: str,
    job: str,
    instance: dg.DagsterInstance,
    admin_url: str,
    roots: Mapping[str, int],
) -> Figures:
    """Execute a job and measure it.

    Args:
        contender: Who executes it.
        job: Name of the job.
        instance: The contender's instance.
        admin_url: A database that no contender uses, to read the server's statistics from.
        roots: Processes that take part, beside this one, by the name of their part.

    Raises:
        RuntimeError: The run failed.
    """
    job_definition = getattr(jobs, job)
    recon = dg.reconstructable(job_definition)
    admin = psycopg2.connect(admin_url)
    admin.autocommit = True
    database = f"bench_{contender}"
    sessions = _sessions(admin, database)
    began_s, busy_s = time.monotonic(), machine_busy_s()
    before_s, own_s = parts_cpu_s(roots), own_cpu_s()
    with dg.execute_job(recon, instance=instance) as result:
        own_s = own_cpu_s() - own_s
        run_id, success = result.run_id, result.success
        memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if not success:
        raise RuntimeError(f"Run {run_id} of {job} on {contender} failed; see its log above.")
    time.sleep(_REST_S)
    after_s = parts_cpu_s(roots)
    parts_s = {part: after_s[part] - before_s.get(part, 0.0) for part in after_s}
    parts_s["orchestrator"] = own_s
    cpu_s = sum(parts_s.values())
    elapsed_s = (time.monotonic() - began_s) * (os.cpu_count() or 1)
    other_load = max(0.0, machine_busy_s() - busy_s - cpu_s) / elapsed_s
    sessions = _sessions(admin, database) - sessions
    admin.close()
    entries = instance.all_logs(run_id)
    serial = job in MEASUREMENTS and MEASUREMENTS[job].serial
    steps, wall_s, gap_s = steps_wall_gap(entries, serial=serial)
    return Figures(
        contender, job, steps, wall_s, gap_s, cpu_s, sessions, other_load,
        bodies_s=bodies_s(entries), memory_mib=memory_mib, parts_s=parts_s,
    )  # fmt: skip


def _sessions(admin: Any, database: str) -> int:
    with admin.cursor() as cursor:
        cursor.execute("select sessions from pg_stat_database where datname = %s", [database])
        return int(cursor.fetchone()[0])


def main() -> None:
    """Entry point."""
    contender, job, result_file, admin_url, *parts = sys.argv[1:]
    roots = {name: int(pid) for name, _, pid in (part.partition("=") for part in parts)}
    with dg.DagsterInstance.get() as instance:
        figures = measure(contender, job, instance, admin_url, roots)
    Path(result_file).write_text(json.dumps(asdict(figures)))


if __name__ == "__main__":
    main()
