"""The fork server: parent, reaper and guard of the children of one code location.

Invariant: it is single-threaded, runs no user code after the import, and holds no open connection
when it forks. A child's death is known from ``waitpid`` and nothing else. When the worker's end of
the wire is gone, every process group it made is killed and it leaves. When the deadline that the
worker gave it passes, every group at work is killed: a frozen, swapped-out or cut-off worker leaves
nothing behind that others may execute again.

*Warm*: it imports Dagster and the user's code once, makes and warms one instance, rehearses a
step, and forks children ahead of need; a child inherits all of that. *Cold*: for code that leaves a
thread running after its import, or wants another interpreter, it is the parent of children that are
started as fresh processes and import for themselves; the protocol is the same.

What each saving is worth and its trap: ``step_budget.md``.
"""

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..boot_time import boot_time_s
from ..errors import CodeLoadFailed
from .interpreter import environment_for, is_own
from .process import become_child, die_with_parent, signal_group, threads
from .wire import Wire

_SPARE_IDLE_S = 300.0
_TICK_S = 1.0
#: After a start, no child is made for so long: how many are wanted now is on its way.
_HOLD_S = 0.01
#: So soon after a start the next one is near, and the child for it connects ahead.
_NEXT_IS_NEAR_S = 1.0


@dataclass
class Child:
    """One child, waiting or at work.

    Args:
        pid: Its process, which leads its own session and group.
        wire: To it.
        key: The delivery it works on; None while it waits.
        connects: It was told to connect to the database ahead.
        since_s: Monotonic time of its fork.
        leaving: It was told to end, or has ended: no delivery may be given to it any more.
    """

    pid: int
    wire: Wire
    key: str | None = None
    connects: bool = False
    since_s: float = field(default_factory=time.monotonic)
    leaving: bool = False


class ForkServer:
    """Forks, hands out, watches and reaps children.

    Args:
        worker: The wire to the worker.
        maker: Makes one child.
    """

    def __init__(self, worker: Wire, maker: "WarmMaker | ColdMaker") -> None:
        self._worker = worker
        self._maker = maker
        self._spare_wanted = 1
        self._last_start_s = time.monotonic()
        self._children: dict[int, Child] = {}
        self._by_key: dict[str, Child] = {}
        #: Boot time at which nobody vouches for the children any more; None when nothing is said.
        self._deadline_s: float | None = None
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        """Serve until the worker is gone; returns when no child is left."""
        wake_read, wake_write = socket.socketpair()
        wake_read.setblocking(False)
        wake_write.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # The worker decides when we end; a Ctrl-C in a terminal reaches it too.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.set_wakeup_fd(wake_write.fileno())
        self._selector.register(wake_read, selectors.EVENT_READ, "signal")
        self._selector.register(self._worker, selectors.EVENT_READ, "worker")
        self._maker.inherit_not = [wake_read, wake_write]
        try:
            while True:
                timeout_s = min(self._keep_spares(), self._patience_s())
                self._connect_the_next()
                arrived = self._selector.select(timeout_s)
                # First of all: after a freeze, what arrived is as old as the freeze.
                self._keep_deadline()
                for event, _ in arrived:
                    if event.data == "signal":
                        with contextlib.suppress(BlockingIOError):
                            wake_read.recv(4096)
                    elif event.data == "worker":
                        for packet in self._worker.arrived():
                            self._obey(packet)
                    else:
                        self._hear(event.data)
                self._reap()
        except EOFError:
            pass
        finally:
            self._kill_all()

    # -- orders of the worker

    def _obey(self, packet: Mapping[str, Any]) -> None:
        operation = packet["op"]
        if operation == "start":
            child = self._take_spare()
            key: str = packet["key"]
            child.key = key
            self._by_key[key] = child
            self._last_start_s = time.monotonic()
            self._worker.send(op="started", key=key, pid=child.pid)
            child.wire.send(**packet)
        elif operation in ("go", "stop"):
            child = self._by_key.get(packet["key"])
            if child is not None:
                child.wire.send(op=operation)
        elif operation == "signal":
            child = self._by_key.get(packet["key"])
            if child is not None:
                signal_group(child.pid, packet["signal"])
        elif operation == "spare":
            self._spare_wanted = packet["count"]
        elif operation == "deadline":
            self._deadline_s = packet["boot_time_s"]
            self._worker.send(op="vouched")

    def _patience_s(self) -> float:
        if self._deadline_s is None:
            return _TICK_S
        return max(0.0, min(_TICK_S, self._deadline_s - boot_time_s()))

    def _keep_deadline(self) -> None:
        if self._deadline_s is None or boot_time_s() < self._deadline_s:
            return
        # What is started after this is vouched for by the next renewal.
        self._deadline_s = None
        for child in self._by_key.values():
            signal_group(child.pid, signal.SIGKILL)
            self._worker.send(op="expired", key=child.key)

    def _take_spare(self) -> Child:
        return self._next_spare() or self._make()

    def _next_spare(self) -> Child | None:
        waiting = self._waiting()
        return min(waiting, key=lambda child: child.since_s) if waiting else None

    def _connect_the_next(self) -> None:
        """Have the child that is next connect while others work; one, so that few sit idle."""
        child = self._next_spare()
        near = time.monotonic() - self._last_start_s < _NEXT_IS_NEAR_S
        if child is not None and near and self._by_key and not child.connects:
            child.connects = True
            child.wire.send(op="connect")

    def _waiting(self) -> list[Child]:
        return [c for c in self._children.values() if c.key is None and not c.leaving]

    # -- children

    def _make(self) -> Child:
        ours, theirs = socket.socketpair()
        pid = self._maker.make(
            theirs, [self._worker, ours, *(c.wire for c in self._children.values())]
        )
        theirs.close()
        child = Child(pid, Wire(ours))
        self._children[pid] = child
        self._selector.register(child.wire, selectors.EVENT_READ, child)
        return child

    def _keep_spares(self) -> float:
        """Make or end one waiting child; return in how many seconds to look again.

        One a turn, so that orders are never kept waiting.
        """
        waiting = self._waiting()
        since_start_s = time.monotonic() - self._last_start_s
        idle = since_start_s > _SPARE_IDLE_S
        wanted = min(1, self._spare_wanted) if idle else self._spare_wanted
        if len(waiting) < wanted:
            if since_start_s < _HOLD_S:
                return _HOLD_S - since_start_s
            self._make()
        elif len(waiting) > max(1, wanted):
            # The oldest is next, and has perhaps connected already.
            youngest = max(waiting, key=lambda child: child.since_s)
            youngest.leaving = True
            signal_group(youngest.pid, signal.SIGKILL)
        return _TICK_S if len(waiting) in (wanted - 1, wanted) else 0.0

    def _hear(self, child: Child) -> None:
        try:
            for packet in child.wire.arrived():
                self._worker.send(**packet, key=child.key)
        except EOFError:
            child.leaving = True
            self._selector.unregister(child.wire)
            child.wire.close()

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is None:
                continue
            # Its last words may still stand in the socket.
            with contextlib.suppress(KeyError, ValueError):
                self._hear(child)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(child.wire)
            child.wire.close()
            signal_group(pid, signal.SIGKILL)  # grandchildren that outlived it
            if child.key is not None:
                del self._by_key[child.key]
                self._worker.send(
                    op="exited",
                    key=child.key,
                    pid=pid,
                    exit_code=os.waitstatus_to_exitcode(status),
                    cpu_s=usage.ru_utime + usage.ru_stime,
                    max_rss_kib=usage.ru_maxrss,
                )

    def _kill_all(self) -> None:
        for child in self._children.values():
            signal_group(child.pid, signal.SIGKILL)
        for child in self._children.values():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child.pid, 0)


class WarmMaker:
    """Forks children of this very process, which has everything loaded.

    Args:
        loaded: What :func:`_load` returned: all that a child inherits.
    """

    def __init__(self, loaded: tuple[Any, Any, Any]) -> None:
        self._loaded = loaded
        self.inherit_not: list[Any] = []

    def make(self, control: socket.socket, not_theirs: list[Any]) -> int:
        """Fork one child that waits on ``control``; returns its pid."""
        from .child import serve_one

        pid = os.fork()
        if pid:
            return pid
        try:
            become_child()
            for end in (*not_theirs, *self.inherit_not):
                end.close()
            serve_one(*self._loaded, Wire(control))
        finally:
            os._exit(70)


class ColdMaker:
    """Starts children as fresh processes that import for themselves.

    Args:
        location: The code location, as this module's ``main`` takes it.
        executable: The interpreter to start.
    """

    def __init__(self, location: str, executable: str) -> None:
        self._location = location
        self._executable = executable
        self.inherit_not: list[Any] = []

    def make(self, control: socket.socket, not_theirs: list[Any]) -> int:  # noqa: ARG002
        """Start one child that loads the code, then waits on ``control``; returns its pid."""
        process = subprocess.Popen(
            [
                self._executable, "-m", "dagster_taskiq_kit.worker.forkserver",
                "child", str(control.fileno()), self._location,
            ],
            env=environment_for(self._executable),
            pass_fds=[control.fileno()],
            start_new_session=True,
        )  # fmt: skip
        # Its end is read by our own waitpid; the object must not try as well.
        process.returncode = 0
        return process.pid


def _load(location: str) -> tuple[Any, Any, Any]:
    """Import the code, plan its jobs, and make, warm and disconnect the instance."""
    from .. import dagster_seam as seam
    from .. import instance_pool
    from ..broken_statements import repeat_what_broke
    from ..database_outages import open_instance_through_outages
    from ..event_writing import write_events_shortly
    from ..prepared_jobs import PreparedJobs
    from .rehearsal import rehearse

    seam.write_compute_logs_without_mirror()
    rehearse()
    seam.keep_reconstructed_code()
    instance = open_instance_through_outages()
    code = seam.load_code(seam.CodeLocation(**json.loads(location)), instance)
    instance_pool.pool_connections(instance)
    instance_pool.warm_instance(instance)
    write_events_shortly(instance)
    repeat_what_broke(instance)
    prepared = PreparedJobs()
    prepared.prepare(code, instance)
    instance_pool.close_connections(instance)
    return code, prepared, instance


def main_server(worker: Wire, location: str, *, cold: bool) -> None:
    """Be a fork server; returns when its worker is gone or the code did not load."""
    executable = json.loads(location)["executable"] or sys.executable
    cold = cold or not is_own(executable)
    if cold:
        maker: WarmMaker | ColdMaker = ColdMaker(location, executable)
        from .. import dagster_seam as seam

        pointers = list(seam.pointers_of(seam.CodeLocation(**json.loads(location))))
        worker.send(op="ready", pid=os.getpid(), mode="cold", pointers=pointers)
    else:
        try:
            loaded = _load(location)
        except Exception as error:  # noqa: BLE001  (the worker says it)
            said = error.user_traceback if isinstance(error, CodeLoadFailed) else str(error)
            worker.send(op="failed", location=json.loads(location)["name"], traceback=said)
            return
        if threads() > 1:
            # The code left a thread running: a fork of this process would not be safe.
            os.set_inheritable(worker.fileno(), True)
            os.execv(  # noqa: S606
                sys.executable,
                [sys.executable, "-m", __spec__.name, "cold", str(worker.fileno()), location],
            )
        die_with_parent()
        sys.stdout.flush()  # what the code printed while it loaded is not each child's to say again
        gc.collect()
        gc.freeze()
        gc.disable()  # in the fork server only: a collection would copy every page it visits
        maker = WarmMaker(loaded)
        from .user_task import registered_tasks

        ours = {"pointers": list(loaded[0].pointers()), "tasks": list(registered_tasks())}
        worker.send(op="ready", pid=os.getpid(), mode="warm", **ours)
    ForkServer(worker, maker).serve()


def _main_child(control: Wire, location: str) -> None:
    from .child import refuse_one, serve_one

    become_child()
    try:
        loaded = _load(location)
    except CodeLoadFailed as error:
        refuse_one(error, control)
    else:
        serve_one(*loaded, control)


def main() -> None:
    """Entry point: ``server|cold|child DESCRIPTOR LOCATION``."""
    role, descriptor, location = sys.argv[1:4]
    end = socket.socket(fileno=int(descriptor))
    end.set_inheritable(False)
    if role == "child":
        _main_child(Wire(end), location)
    else:
        main_server(Wire(end), location, cold=role == "cold")


if __name__ == "__main__":
    main()
