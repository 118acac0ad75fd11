"""A fork server that is forked from its worker, before the worker has a loop, a thread or a lane.

Invariant: it inherits imported code from the worker and nothing that acts: no thread, no handler of
signals or of logs, no connection, no descriptor but its own end of the wire.

It has Dagster already, which to import again costs as much as all else that it does before it is
ready (2 of 5 s of CPU between a worker's start and its first step). Where this cannot be had, a
fork server is started as a fresh process, and so is each one that takes the place of a dead one.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ..dagster_seam import CodeLocation
from .forkserver import main_server
from .process import die_with_parent, show_as, threads
from .wire import Wire


@dataclass
class ForkedServer:
    """A fork server of this process.

    Args:
        pid: Its process id.
        wire: The worker's end of the wire to it.
        returncode: How it ended, once it was waited for.
    """

    pid: int
    wire: socket.socket
    returncode: int | None = None

    async def wait(self) -> int:
        """Wait for its end; returns its exit code, negative for a signal."""
        if self.returncode is None:
            loop, gone = asyncio.get_running_loop(), asyncio.Event()
            descriptor = os.pidfd_open(self.pid)
            loop.add_reader(descriptor, gone.set)
            try:
                await gone.wait()
            finally:
                loop.remove_reader(descriptor)
                os.close(descriptor)
            _, status = os.waitpid(self.pid, 0)  # noqa: ASYNC222  (it has ended)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def kill(self) -> None:
        """Kill it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def fork_servers(locations: Sequence[CodeLocation]) -> Sequence[ForkedServer | None]:
    """Fork a server for each code location; None where it must be a fresh process.

    Args:
        locations: The code locations, in order.
    """
    made: list[ForkedServer | None] = []
    for location in locations:
        same = os.path.realpath(location.executable or sys.executable) == os.path.realpath(
            sys.executable
        )
        forkable = same and sys.platform == "linux" and threads() == 1
        made.append(_fork(location, made) if forkable else None)
    return made


def _fork(location: CodeLocation, others: Sequence[ForkedServer | None]) -> ForkedServer:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        return ForkedServer(pid, ours)
    try:
        os.setsid()
        show_as("fork server")
        for wire in (ours, *(other.wire for other in others if other is not None)):
            wire.close()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        logging.root.handlers.clear()
        logging.root.setLevel(logging.WARNING)
        die_with_parent()
        main_server(Wire(theirs), json.dumps(asdict(location)), cold=False)
    finally:
        os._exit(0)
