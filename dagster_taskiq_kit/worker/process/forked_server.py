"""A fork server that is forked from its worker, before the worker has a loop, a thread or a lane.

Invariant: it inherits imported code from the worker and nothing that acts: no thread, no handler of
signals or of logs, no connection, no descriptor but its own end of the wire.

It has Dagster already, which to import again costs as much as all else that it does before it is
ready (2 of 5 s of CPU between a worker's start and its first step). A worker that has a thread by
then starts fresh processes instead, as it does in the place of a fork server that died.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ...code_locations.code_location import CodeLocation
from ...host.log_lines import log_as_a_fork
from .lifecycle import threads
from .server_process import be_server


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
        if self.returncode is None:  # nobody else waited meanwhile
            _, status = os.waitpid(self.pid, 0)  # noqa: ASYNC222  (it has ended)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def kill(self) -> None:
        """Kill it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def fork_servers(locations: Sequence[CodeLocation]) -> Sequence[ForkedServer | None]:
    """Fork a server for each code location; None each where they must be fresh processes.

    Args:
        locations: The code locations, in order.
    """
    if threads() > 1:
        return [None] * len(locations)
    made: list[ForkedServer] = []
    for location in locations:
        made.append(_fork(location, made))
    return made


def _fork(location: CodeLocation, others: Sequence[ForkedServer]) -> ForkedServer:
    ours, theirs = socket.socketpair()
    sys.stdout.flush()  # else both would say it
    pid = os.fork()
    if pid:
        theirs.close()
        return ForkedServer(pid, ours)
    try:
        os.setsid()
        for wire in (ours, *(other.wire for other in others)):
            wire.close()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        log_as_a_fork()
        be_server(theirs, json.dumps(asdict(location)))
    except BaseException:  # noqa: BLE001  (the last word of this process)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(0)
