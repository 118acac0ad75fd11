"""The fork server: parent, reaper and deadline-keeper of the children of one code location.

Invariant: it is single-threaded, runs no user code after the import, holds no open connection when
it forks, and nothing in its loop waits for anybody: what worker or child do not take now is sent
later. A child's death is known from ``waitpid`` and nothing else; what it has started ends with it.
When the worker's end of the wire is gone, all children are killed and it leaves. When the
deadline that the worker gave it passes, every child at work is killed: a frozen, swapped-out or
cut-off worker leaves nothing behind that others may execute again.

It imports Dagster and the user's code once, makes and warms one instance, rehearses a step, and
forks children ahead of need; a child inherits all of that. Where children cannot share what the
code began when it was imported, or it wants another interpreter, they import for themselves
(``warmth.py``); the protocol is the same.
"""

import contextlib
import logging
import os
import selectors
import signal
import socket
import time

from ...host.boot_time import boot_time_s
from ...host.process_tree import adopt_orphans, group_lives, kill, kill_group, kill_tree
from ...vocabulary.errors import ProtocolError
from ...vocabulary.log_actions import Action, about
from .children import Child, Crew, Left
from .guardian import Guardian
from .lifecycle import HELPERS_LINGER_S, LINGER_S, when_parent_dies
from .makers import Maker
from .orphans import kill_all_below, kill_orphans
from .protocol import (
    Deadline,
    Done,
    Event,
    Exited,
    Expired,
    Guarded,
    Lingered,
    Packet,
    Party,
    Rested,
    Rests,
    Signal,
    Spare,
    Start,
    Started,
    Stop,
    Vouched,
    check_sender,
)
from .usage import of_kernel
from .wire import PatientWire

logger = logging.getLogger(__name__)

_SPARE_IDLE_S = 300.0
_TICK_S = 1.0
#: Wait so long after a start before forking: the worker is about to say how many spares it wants.
_HOLD_S = 0.01
#: A worker that has so much unread hears no child until it has read it: the child waits, not we.
_MOST_UNSENT_BYTES = 1_048_576
#: What is read of a worker in one turn, in chunks.
_MOST_CHUNKS = 16
#: How long an event that nobody waits for waits for others to go with; whatever waits for it goes
#: after it at once.
_EVENTS_GATHER_S = 0.005
#: How often to look whether what a child left behind has ended.
_HELPERS_LOOK_S = 0.02
#: What the selector knows the wire to the worker and the wake-up of signals by; a child by its pid.
_WORKER, _SIGNALS = -1, -2


class ForkServer:
    """Forks, hands out, watches and reaps children.

    Args:
        worker: The wire to the worker.
        maker: Makes one child.
    """

    def __init__(self, worker: PatientWire, maker: Maker) -> None:
        self._worker = worker
        self._maker = maker
        self._spare_wanted = 1
        self._last_start_s = time.monotonic()
        self._children: dict[int, Child] = {}
        self._crew = Crew(self._children)
        self._by_key: dict[str, Child] = {}
        #: Children that left by themselves, whose helpers have a moment to do so, by pid.
        self._leaving: dict[int, Left] = {}
        #: Boot time at which nobody vouches for the children any more; None when nothing is said.
        self._deadline_s: float | None = None
        self._selector = selectors.DefaultSelector()
        self._guardian = Guardian(worker)
        #: Monotonic time until which events wait for others to go with; None when none does.
        self._events_go_s: float | None = None

    def serve(self) -> None:
        """Serve until the worker is gone; returns when no child is left."""
        adopt_orphans()
        # From here on the end of the wire tells that the worker is gone: the kernel's signal would
        # leave no time to kill what the children have started.
        when_parent_dies(0)
        wake_read, wake_write = socket.socketpair()
        wake_read.setblocking(False)
        wake_write.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # The worker decides when we end; a Ctrl-C in a terminal reaches it too.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        self._selector.register(wake_read, selectors.EVENT_READ, _SIGNALS)
        self._maker.inherit_not = [wake_read, wake_write]
        self._guardian.begin([], [])
        try:
            while True:
                timeout_s = min(self._keep_spares(), self._patience_s())
                if self._leaving:
                    timeout_s = min(timeout_s, _HELPERS_LOOK_S)
                timeout_s = min(timeout_s, self._send_events())
                self._choose_interests()
                ready = {event.data: mask for event, mask in self._selector.select(timeout_s)}
                if ready.pop(_SIGNALS, 0):
                    with contextlib.suppress(BlockingIOError):
                        wake_read.recv(4096)
                # First of all: after a freeze, what arrived is as old as the freeze.
                self._hear_worker(ready.pop(_WORKER, 0))
                for pid, mask in ready.items():
                    self._attend_to(self._children[pid], mask)
                self._end_the_lingering()
                self._reap()
                self._end_helpers()
                self._guardian.flush()
        except EOFError:
            pass
        finally:
            self._kill_all()

    def _send_events(self) -> float:
        """Send events that have waited long enough; return in how many seconds others have."""
        if self._events_go_s is None:
            return _TICK_S
        left_s = self._events_go_s - time.monotonic()
        if left_s > 0 and self._worker.unsent_bytes < _MOST_UNSENT_BYTES:
            return left_s
        self._events_go_s = None
        self._worker.flush()
        return _TICK_S

    def _choose_interests(self) -> None:
        """Select for reading where we read, and for writing where something is unsent."""
        full = self._worker.unsent_bytes >= _MOST_UNSENT_BYTES
        unsent = self._worker.unsent_bytes > 0 and self._events_go_s is None
        self._select_for(self._worker, _WORKER, reads=True, writes=unsent)
        for child in self._children.values():
            wire = child.wire
            reads, writes = not full and not child.deaf, wire.unsent_bytes > 0
            self._select_for(wire, child.pid, reads=reads, writes=writes)

    def _select_for(self, wire: PatientWire, data: int, *, reads: bool, writes: bool) -> None:
        events = (selectors.EVENT_READ if reads else 0) | (selectors.EVENT_WRITE if writes else 0)
        known = self._selector.get_map().get(wire.fileno())
        if known is None:
            if events:
                self._selector.register(wire, events, data)
        elif not events:
            self._selector.unregister(wire)
        elif events != known.events:
            self._selector.modify(wire, events, data)

    def _attend_to(self, child: Child, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            child.wire.flush()
        if mask & selectors.EVENT_READ:
            self._hear(child)

    # -- orders of the worker

    def _hear_worker(self, mask: int) -> None:
        """Take what the worker said, deadlines first: one may be newer than that which passed.

        Raises:
            EOFError: The worker is gone.
        """
        heard: list[tuple[Packet, str]] = []
        if mask & selectors.EVENT_WRITE:
            self._worker.flush()
        if mask & selectors.EVENT_READ:
            with contextlib.suppress(BlockingIOError):
                for _ in range(_MOST_CHUNKS):
                    heard += self._worker.arrived()
        for packet, _ in heard:
            if isinstance(packet, Deadline):
                self._deadline_s = packet.boot_time_s
                self._worker.send(Vouched())
        self._keep_deadline()
        for packet, key in heard:
            self._obey(packet, key)

    def _obey(self, packet: Packet, key: str = "") -> None:
        check_sender(packet, Party.WORKER)
        if isinstance(packet, Start):
            self._start(packet, key)
        elif isinstance(packet, Spare):
            self._spare_wanted = packet.count
        elif (child := self._by_key.get(key)) is None:
            return  # a deadline, or for a child that is gone
        elif isinstance(packet, Signal):
            if packet.signal == signal.SIGKILL:
                kill_tree(child.pid)
            else:
                # To it alone: it ends what it has started, in its own order.
                kill(child.pid, packet.signal)
        else:
            child.wire.send(packet)
            if isinstance(packet, Stop):
                child.gone_by_s = time.monotonic() + LINGER_S

    def _start(self, packet: Start, key: str) -> None:
        child = self._crew.take(packet.group) or self._make()
        child.key, child.group = key, packet.group
        self._by_key[key] = child
        self._last_start_s = time.monotonic()
        self._worker.send(Started(child.pid), key)
        child.wire.send(packet)

    def _patience_s(self) -> float:
        if self._deadline_s is None:
            return _TICK_S
        return max(0.0, min(_TICK_S, self._deadline_s - boot_time_s()))

    def _keep_deadline(self) -> None:
        if self._deadline_s is None or boot_time_s() < self._deadline_s:
            return
        # What is started after this is vouched for by the next renewal.
        self._deadline_s = None
        for key, child in self._by_key.items():
            kill_tree(child.pid)
            self._worker.send(Expired(), key)
        for child in self._crew.resting():  # something that it has begun may go on in it
            kill_tree(child.pid)

    # -- children

    def _make(self) -> Child:
        ours, theirs = socket.socketpair()
        pid = self._maker.make(
            theirs,
            [self._worker, self._guardian, ours, *(c.wire for c in self._children.values())],
        )
        self._guardian.tell(pid, lives=True)
        theirs.close()
        child = Child(pid, PatientWire(ours))
        self._children[pid] = child
        child.wire.send(Guarded())
        return child

    def _keep_spares(self) -> float:
        """Make or end one waiting child; return in how many seconds to look again.

        One a turn, so that orders are never kept waiting.
        """
        waiting = self._crew.spare()
        since_start_s = time.monotonic() - self._last_start_s
        idle = since_start_s > _SPARE_IDLE_S
        least = min(1, self._spare_wanted) if idle else self._spare_wanted
        # One more than is wanted may stay: it is there already.
        missing, too_many = least - len(waiting), len(waiting) - max(1, least)
        if missing > 0:
            if since_start_s < _HOLD_S:
                return _HOLD_S - since_start_s
            self._make()
        elif too_many > 0:
            # The oldest is next, and has perhaps connected already.
            youngest = max(waiting, key=lambda child: child.since_s)
            youngest.leaving = True
            kill_tree(youngest.pid)
        return 0.0 if missing > 1 or too_many > 1 else _TICK_S

    def _hear(self, child: Child) -> bool:
        """Pass on what a child said; returns whether there was anything."""
        try:
            for packet, _ in child.wire.arrived():
                check_sender(packet, Party.CHILD)
                if isinstance(packet, Event):
                    self._worker.send(packet, child.key or "", keep=True)
                    if self._events_go_s is None:
                        self._events_go_s = time.monotonic() + _EVENTS_GATHER_S
                    continue
                if isinstance(packet, Rests):
                    self._let_rest(child)
                    continue
                self._events_go_s = None
                self._worker.send(packet, child.key or "")
                if isinstance(packet, Done):
                    child.gone_by_s = time.monotonic() + LINGER_S
                    child.told = child.told.plus(packet.used)
        except BlockingIOError:
            return False
        except EOFError:
            child.leaving = child.deaf = True
            return False
        except ProtocolError as error:
            logger.error("%s", error, extra=about(Action.KILLED))
            child.leaving = child.deaf = True
            kill_tree(child.pid)
            return False
        return True

    def _let_rest(self, child: Child) -> None:
        if child.key is None:
            raise ProtocolError("a child rests that has had nothing to do")
        del self._by_key[child.key]
        self._worker.send(Rested(child.pid), child.key)
        child.key, child.gone_by_s, child.rests_since_s = None, None, time.monotonic()

    def _end_the_lingering(self) -> None:
        """Have children leave that rest in vain; kill those that do not leave."""
        for child in self._crew.rested_enough():
            child.leaving, child.gone_by_s = True, time.monotonic() + LINGER_S
            child.wire.send(Stop())
        for child in self._children.values():
            if child.gone_by_s is not None and time.monotonic() > child.gone_by_s:
                child.gone_by_s = None
                if child.key is not None:
                    self._worker.send(Lingered(), child.key)
                kill_tree(child.pid)

    def _reap(self) -> None:
        """Take in which children have ended."""
        ended = False
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            ended = True
            if pid == self._guardian.pid:
                self._guardian.begin(
                    list(self._children), [child.wire for child in self._children.values()]
                )
            child = self._children.pop(pid, None)
            if child is not None:
                self._take_leave(child)
                by_itself = (child.key or child.group) and status == 0
                by_s = time.monotonic() + (HELPERS_LINGER_S if by_itself else 0.0)
                self._leaving[pid] = Left(child, status, usage, by_s)
        if ended:
            self._end_helpers()
            self._kill_orphans()

    def _take_leave(self, child: Child) -> None:
        # Its last words may still stand in the socket, which others may hold open.
        while not child.deaf and self._hear(child):
            pass
        with contextlib.suppress(KeyError):
            self._selector.unregister(child.wire)
        child.wire.close()

    def _end_helpers(self) -> None:
        """Kill what children that have ended left in their group, after a moment to end itself."""
        for pid, left in list(self._leaving.items()):
            if time.monotonic() < left.by_s and group_lives(pid):
                continue
            kill_group(pid)
            del self._leaving[pid]
            self._guardian.tell(pid, lives=False)
            if left.child.key is not None:
                del self._by_key[left.child.key]
                exited = Exited(
                    pid,
                    os.waitstatus_to_exitcode(left.status),
                    of_kernel(left.usage).since(left.child.told).data(),
                )
                self._worker.send(exited, left.child.key)
            self._kill_orphans()

    def _kill_orphans(self) -> None:
        """Kill what children that have ended left behind; it is a child of ours now."""
        # What is of a session whose leader has just left has a moment.
        kill_orphans(self._children, sessions_spared={os.getsid(0), *self._leaving})

    def _kill_all(self) -> None:
        """Kill what is below, until nothing is; the guardian leaves by itself.

        A child that rests executes nothing, so it may leave as an interpreter does.
        """
        resting = self._crew.resting()
        for child in resting:
            child.wire.send(Stop())
        until_s = time.monotonic() + HELPERS_LINGER_S
        kill_all_below(self._guardian.pid, [child.pid for child in resting], until_s)
        for pid in self._children:
            self._guardian.tell(pid, lives=False)
