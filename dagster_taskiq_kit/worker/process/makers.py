"""How children are made: forked with the user's code, or without it.

Invariant: a child has its own end of the wire and no other descriptor of its fork server's, and
executes no code of the user's before its guardian knows of it.
"""

import json
import os
import socket
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import dagster as dg

from ...code_locations.code_location import CodeLocation
from ...code_locations.source_files import SourceFiles
from ...dagster_internals import code_locations, log_events
from ...dagster_internals.code_locations import LoadedCode
from ...dagster_internals.event_rows import why_not_relayed
from ...dagster_internals.postgres import pool as instance_pool
from ...dagster_internals.postgres.event_insert import store_plain_events_by_one_statement
from ...dagster_internals.postgres.outages import open_instance_through_outages
from ...dagster_internals.postgres.repeated_statements import repeat_what_broke
from ...dagster_internals.relayed_events import RelayedEvents
from ...dagster_internals.step_logging import configure_logging_once
from ...vocabulary.errors import CodeLoadFailed
from ..warm.generators import found_generators, reseed
from ..warm.prepared_jobs import PreparedJobs
from .child import refuse_one, serve
from .event_sender import before_a_process_begins
from .lifecycle import be_guarded, become_child
from .protocol import Guarded, Imported
from .rehearsal import rehearse
from .wire import Wire


@dataclass(frozen=True)
class Base:
    """All that a child needs beside the user's code.

    Args:
        instance: The instance, disconnected.
        relayed: What hands over the events of a child's steps, set up.
        why_not_relayed: Why children store them themselves; '' when they need not.
    """

    instance: dg.DagsterInstance
    relayed: RelayedEvents
    why_not_relayed: str


class Maker(ABC):
    """Forks the children of one code location from this process."""

    def __init__(self) -> None:
        #: What the fork server holds open beside its wires.
        self.inherit_not: list[Any] = []

    def make(self, control: socket.socket, not_theirs: list[Any]) -> int:
        """Make one child that waits on ``control``; returns its pid.

        Args:
            control: The child's end of the wire.
            not_theirs: What it must not hold open.
        """
        pid = os.fork()
        if pid:
            return pid
        try:
            become_child()
            for end in (*not_theirs, *self.inherit_not):
                end.close()
            wire = Wire(control)
            if isinstance(wire.receive(), Guarded):
                be_guarded()
                self._serve(wire)
        finally:
            os._exit(70)

    @abstractmethod
    def _serve(self, control: Wire) -> None:
        """Serve one message in the child; never returns."""


class WarmMaker(Maker):
    """Forks children of a process that has everything loaded.

    Args:
        code: The user's code.
        prepared: Plans of its jobs.
        base: All else.
    """

    def __init__(self, code: LoadedCode, prepared: PreparedJobs, base: Base) -> None:
        super().__init__()
        self._loaded = (code, prepared, base.instance, base.relayed)
        self._generators = found_generators()

    def _serve(self, control: Wire) -> None:
        reseed(self._generators)
        serve(*self._loaded, control)


class LayeredMaker(Maker):
    """Forks children that import the user's code themselves, and all else with it already there.

    Args:
        location: The code location, as JSON.
        base: All else.
    """

    def __init__(self, location: str, base: Base) -> None:
        super().__init__()
        self._location = location
        self._base = base

    def _serve(self, control: Wire) -> None:
        reseed(found_generators())
        began_s = time.monotonic()
        try:
            code, prepared = import_code(self._location, self._base.instance, prepare=False)
        except CodeLoadFailed as error:
            refuse_one(error, control)
        else:
            control.send(Imported(time.monotonic() - began_s))
            serve(code, prepared, self._base.instance, self._base.relayed, control)


def open_base() -> Base:
    """Make all that a child needs beside the user's code.

    To be called before code is loaded: the rehearsal sets Dagster's global DefinitionsLoadContext.
    """
    log_events.write_compute_logs_without_mirror()
    rehearse()
    code_locations.keep_reconstructed_code()
    instance = open_instance_through_outages()
    why_not = why_not_relayed(instance)
    instance_pool.pool_connections(instance)
    instance_pool.warm_instance(instance)
    configure_logging_once(instance)
    store_plain_events_by_one_statement(instance)
    repeat_what_broke(instance)
    relayed = RelayedEvents()
    if not why_not:
        relayed.replace_storing(instance)
        relayed.settle_before_statements()
        before_a_process_begins(relayed.settle)
    instance_pool.close_connections(instance)
    return Base(instance, relayed, why_not)


def import_code(
    location: str, instance: dg.DagsterInstance, *, prepare: bool
) -> tuple[LoadedCode, PreparedJobs]:
    """Import the user's code.

    Args:
        location: The code location, as JSON.
        instance: The instance of :func:`open_base`; it is disconnected afterwards, too.
        prepare: Whether to plan all of its jobs, which is worth it for many children.

    Raises:
        CodeLoadFailed: The code did not import.
    """
    code = code_locations.load_code(CodeLocation(**json.loads(location)), instance)
    code.fingerprint = SourceFiles(code.source_roots()).read().fingerprint
    prepared = PreparedJobs()
    if prepare:
        prepared.prepare(code, instance)
        instance_pool.close_connections(instance)
    return code, prepared
