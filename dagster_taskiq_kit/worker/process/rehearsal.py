"""What a child does with a step, done before the first fork so that no child does it first.

Invariant: it touches nothing of the user's, reads no override from the environment, leaves the
environment as it was, and stops no worker from starting.

Lazy imports, compiled checks and definition caches that every step touches are then inherited, and
so is the code that the interpreter has adapted to it: a child neither does that again nor copies
the pages it would write to. It is a child's own code that executes here, on an ephemeral instance,
with all that its worker would answer said ahead; it says nothing.
"""

import contextlib
import json
import os
import socket
import tempfile
from dataclasses import asdict

import dagster as dg

from ...dagster_internals import names as internals
from ...dagster_internals.code_locations import LoadedCode
from ...dagster_internals.log_events import write_compute_logs_to
from ...dagster_internals.relayed_events import RelayedEvents
from ...vocabulary.messages import CodeName, StepMessage, kind_of
from ..place import Place
from ..warm.prepared_jobs import PreparedJobs
from .body_executor import BodyExecutor
from .protocol import Committed, Go, Start
from .wire import Wire, pack

#: The interpreter adapts code that it has executed a number of times.
_TIMES = 10
#: Above every barrier that one step says.
_ALL = 100
_PLACE = Place("", "", "", 0, 1, handed_over=False)


@dg.op
def _rehearsed() -> int:
    return 1


@dg.op
def _rehearsed_too(number: int) -> int:
    return number


# Named, not left to the default: that is the user's own where the environment says so.
@dg.job(resource_defs={"io_manager": dg.fs_io_manager})
def _rehearsal() -> None:
    _rehearsed_too(_rehearsed())


def rehearse() -> None:
    """Execute the trivial job's steps in this process.

    To be called before code is loaded: it sets Dagster's global DefinitionsLoadContext.
    """
    environment = dict(os.environ)
    try:
        with (
            # What it would have saved is done by the first step then.
            contextlib.suppress(Exception),
            tempfile.TemporaryDirectory(prefix="rehearsal-") as directory,
            dg.DagsterInstance.ephemeral(directory) as instance,
            open(os.devnull, "w") as nowhere,  # noqa: PTH123
            contextlib.redirect_stderr(nowhere),
        ):
            write_compute_logs_to(instance, directory)
            relayed = RelayedEvents()
            relayed.replace_storing(instance)
            for _ in range(_TIMES):
                _execute_steps(instance, relayed)
    finally:
        os.environ.clear()
        os.environ.update(environment)


def _execute_steps(instance: dg.DagsterInstance, relayed: RelayedEvents) -> None:
    job = dg.reconstructable(_rehearsal)
    code = LoadedCode("rehearsal", {"": job.repository})
    run = instance.create_run_for_job(
        _rehearsal, status=dg.DagsterRunStatus.STARTED, job_code_origin=job.get_python_origin()
    )
    for step_key in ("_rehearsed", "_rehearsed_too"):
        message = StepMessage(
            run_id=run.run_id,
            step_key=step_key,
            attempt=1,
            code=CodeName(job=run.job_name),
            retry_mode=internals.RetryMode.ENABLED.value,
            known_state=internals.serialize_value(internals.KnownExecutionState()),
        )
        _execute_step(message, code, instance, run, relayed)


def _execute_step(
    message: StepMessage,
    code: LoadedCode,
    instance: dg.DagsterInstance,
    run: internals.DagsterRun,
    relayed: RelayedEvents,
) -> None:
    first_answers = {
        "run": internals.serialize_value(run),
        "status": run.status.value,
        "stats": [],
        "load_data": None,
    }
    body = json.dumps(asdict(message)).encode()
    start = Start(kind_of(message).value, asdict(_PLACE), relays=True, body=body)
    worker, child = socket.socketpair()
    with worker, child:
        wire = Wire(child)
        for packet in (start, Go(json.dumps(first_answers).encode()), Committed(_ALL)):
            worker.sendall(pack(packet))
        if isinstance(heard := wire.receive(), Start):
            executor = BodyExecutor(code, PreparedJobs(), instance, relayed, wire)
            executor.execute(message, heard)
