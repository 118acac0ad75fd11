"""The child: the process in which runs, steps and tasks really execute.

Invariant: a child executes one message, or steps of one run that shares its processes, one after
the other; the user's modules may have been imported before. It leaves by ``os._exit``: nothing that
it inherited is finalized twice.
"""

import json
import os
import time

import dagster as dg

from ...broker.connection import treat_refusals_as_outages
from ...dagster_internals.code_locations import LoadedCode
from ...dagster_internals.postgres.outages import open_instance_through_outages
from ...dagster_internals.relayed_events import RelayedEvents
from ...vocabulary.errors import CodeError, ProtocolError
from ...vocabulary.messages import Message, StepMessage, TaskMessage, from_data
from ...vocabulary.states import Kind, State
from ..warm.prepared_jobs import PreparedJobs
from .body_executor import MOST_SAID, BodyExecutor, NotAllowed, fail_run, wait_for_go
from .lifecycle import LINGER_S, leave, threads_left
from .protocol import Begin, Done, Rests, Start, Stop, name_of
from .wire import Wire

_LEFT_PAUSE_S = 0.1
#: Threads that are about to end when their step does are nothing to speak of.
_THREADS_MAY_TAKE_S = 1.0


def serve(
    code: LoadedCode,
    prepared: PreparedJobs,
    instance: dg.DagsterInstance,
    relayed: RelayedEvents,
    wire: Wire,
) -> None:
    """Execute what comes, report, and leave the process; never returns.

    That is one message, or several steps of one run where it wants its steps to share processes.

    Args:
        code: The code location, already loaded.
        prepared: Plans of its jobs.
        instance: The Dagster instance, without open connections.
        relayed: What hands over the events of its steps, where the worker stores them.
        wire: To the fork server.
    """
    executor = BodyExecutor(code, prepared, instance, relayed, wire)
    message: Message | None = None
    try:
        executed, goes_on = 0, True
        while goes_on:
            start = _wait_for_start(wire)
            treat_refusals_as_outages()  # the broker has let this worker in
            message = message_of(start)
            ended_well = executor.execute(message, start)
            executed += 1
            goes_on = ended_well and start.group != "" and executed < start.fuse_limit
            if goes_on:
                wire.send(Rests())
    except NotAllowed:
        pass
    finally:
        try:
            _say_what_is_left(instance, message)
        finally:
            leave()


def message_of(start: Start) -> Message:
    """Return the message that is to be executed."""
    return from_data(Kind(start.kind), json.loads(start.body))


def refuse_one(error: CodeError, wire: Wire) -> None:
    """Wait for one message, say why it cannot be executed here, and leave; never returns.

    Args:
        error: Why the code location could not be loaded.
        wire: To the fork server.
    """
    try:
        start = _wait_for_start(wire)
        message = message_of(start)
        wire.send(Begin())
        wait_for_go(wire)
        try:
            with open_instance_through_outages() as instance:
                reason = fail_run(instance, message, str(error))
        except Exception as also:  # noqa: BLE001  (an instance that cannot be opened)
            reason = f"{error}\nIts run is not told: {also}"
        wire.send(Done(State.REFUSED.value, {"reason": reason[-MOST_SAID:]}))
    except NotAllowed:
        pass
    finally:
        leave()


def _say_what_is_left(instance: dg.DagsterInstance, message: Message | None) -> None:
    """Say in the run's log which threads keep this process from leaving, once."""
    if message is None or isinstance(message, TaskMessage):
        return
    until_s = time.monotonic() + _THREADS_MAY_TAKE_S
    while (left := threads_left()) and time.monotonic() < until_s:
        time.sleep(_LEFT_PAUSE_S)
    run = instance.get_run_by_id(message.run_id) if left else None
    step_key = message.step_key if isinstance(message, StepMessage) else None
    if run is not None:
        whose = f"Step {step_key!r}" if step_key else "The run"
        instance.report_engine_event(
            f"{whose} has ended and left threads running ({', '.join(left)}): its process "
            f"{os.getpid()} is killed after {LINGER_S:g} s. Stop them, or make them daemons.",
            run,
            step_key=step_key,
        )


def _wait_for_start(wire: Wire) -> Start:
    """Wait for a message; leaves the process when the other side is gone.

    Raises:
        NotAllowed: There is none for this process any more.
        ProtocolError: Something else came.
    """
    packet = wire.receive()
    if packet is None:
        os._exit(0)
    if isinstance(packet, Stop):  # it has rested for long
        raise NotAllowed
    if not isinstance(packet, Start):
        raise ProtocolError(f"packet {name_of(packet)!r} came to a child that waits")
    return packet
