"""The guardian of one fork server's children: what ends them when their fork server cannot.

Invariant: when the fork server is gone, every child it had is killed with all that it started, and
then the guardian leaves; so worker and fork server may be killed in one instant and leave nothing
at work beside a retry. The kernel stops a child (SIGSTOP) in the moment in which its fork server
dies: it does nothing more, and is still the parent of whatever below it has lost its own, by which
all of it is found. That the fork server is gone is known from the kernel: a child that dies or is
stopped in its first moment still has every descriptor of its fork server's open, so the end of the
wire alone may never come.

The guardian is a fork of the fork server that runs nothing but this loop. When it dies itself, the
fork server makes another.
"""

import contextlib
import gc
import os
import select
import signal
import socket
from collections.abc import Sequence

from ...host.process_tree import kill, kill_tree
from .lifecycle import GUARDIAN, show_as
from .protocol import Guard
from .wire import PatientWire

#: How long a fork server may take to end what it has, once its worker is gone.
_LEAVING_MS = 1_000
#: How often to look whether the fork server is still there.
_LOOK_MS = 1_000


class Guardian:
    """The fork server's side: makes the guardian and tells it of each child.

    Args:
        worker: The wire to the worker, whose end the guardian sees too.
    """

    def __init__(self, worker: PatientWire) -> None:
        self._worker = worker
        self.pid: int | None = None
        self._wire: PatientWire | None = None

    def begin(self, children: Sequence[int], inherit_not: Sequence[PatientWire]) -> None:
        """Fork it.

        Args:
            children: Pids of the children that there are.
            inherit_not: Wires that are not its business.
        """
        ours, theirs = socket.socketpair()
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                for wire in inherit_not:
                    wire.close()
                _guard(theirs, self._worker.fileno(), server)
            finally:
                os._exit(0)
        theirs.close()
        self.pid, self._wire = pid, PatientWire(ours)
        for child in children:
            self.tell(child, lives=True)

    def tell(self, child: int, *, lives: bool) -> None:
        """Tell it that a child was made or has ended."""
        if self._wire is not None:
            self._wire.send(Guard(child, lives))

    def flush(self) -> None:
        """Tell it what it did not take before."""
        if self._wire is not None:
            self._wire.flush()

    def close(self) -> None:
        """Close the wire to it: in a child, which is not its fork server."""
        if self._wire is not None:
            self._wire.close()


def _guard(end: socket.socket, worker: int, server: int) -> None:
    """Be the guardian; returns when the fork server is gone and nothing of it is left."""
    show_as(GUARDIAN)
    gc.disable()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    wire, children = PatientWire(end), set[int]()
    poll = select.poll()
    poll.register(end, select.POLLIN)
    poll.register(worker, 0)  # its hang-up alone: what it says is the fork server's
    with contextlib.suppress(EOFError):
        while os.getppid() == server:
            for descriptor, _ in poll.poll(_LOOK_MS):
                if descriptor == worker:
                    # A fork server that is frozen does not see it.
                    poll.unregister(worker)
                    poll.poll(_LEAVING_MS)
                    kill(server)
                    continue
                _hear(wire, children)
        _hear(wire, children)
    for child in children:
        kill_tree(child)


def _hear(wire: PatientWire, children: set[int]) -> None:
    with contextlib.suppress(BlockingIOError):
        for packet, _ in wire.arrived():
            assert isinstance(packet, Guard)
            (children.add if packet.lives else children.discard)(packet.pid)
