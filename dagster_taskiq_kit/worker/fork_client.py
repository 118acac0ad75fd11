"""The worker's side of one fork server: starts it, hands it deliveries, hears how they end.

Invariant: every delivery that was started gets exactly one last packet, ``exited``, also when the
fork server itself dies; then its group was killed first.
"""

import asyncio
import contextlib
import json
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Any

from ..code_matching import Served
from ..dagster_seam import CodeLocation
from ..errors import CodeLoadFailed
from ..messages import Message, kind_of
from .forked_server import ForkedServer
from .place import Place
from .process import signal_group
from .wire import Packet, pack

logger = logging.getLogger(__name__)

_LINE_LIMIT_BYTES = 64 * 1024 * 1024
_RESTART_PAUSE_S = 1.0
#: Renewals in a row that a fork server may leave unanswered, a minute of them: then it is killed.
#: Counted, not timed: a worker that was frozen itself has asked once.
_MOST_UNANSWERED = 20


class Execution:
    """One delivery in a child.

    Args:
        key: What worker and fork server call it.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.pid: int | None = None
        self._packets: asyncio.Queue[Packet] = asyncio.Queue()

    def hear(self, packet: Packet) -> None:
        """Take what the fork server said of it."""
        if packet["op"] == "started":
            self.pid = packet["pid"]
        else:
            self._packets.put_nowait(packet)

    async def packets(self) -> AsyncIterator[Packet]:
        """Yield what happens to it; the last one is ``exited``."""
        while True:
            packet = await self._packets.get()
            yield packet
            if packet["op"] == "exited":
                return


async def _next_line(reader: asyncio.StreamReader) -> bytes:
    """Return the next packet, b'' when the other end is gone."""
    try:
        return await reader.readline()
    except ConnectionError:  # it died with orders of ours unread
        return b""


class ForkServerClient:
    """One fork server of this worker.

    Args:
        location: The code location it serves.
        forked: Its first process, when that was forked from this one.
    """

    def __init__(self, location: CodeLocation, forked: ForkedServer | None = None) -> None:
        self.location = location
        self._forked = forked
        self.mode = "starting"
        self.pointers: Sequence[str] = ()
        #: Names of the users' own taskiq tasks in it; a cold server does not know them.
        self.tasks: Sequence[str] = ()
        self._executions: dict[str, Execution] = {}
        self._spare: int | None = None
        self._deadline_s: float | None = None
        self._unanswered = 0
        self._stopping = False
        self._ready = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._process: asyncio.subprocess.Process | ForkedServer | None = None
        self._listener: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises:
            CodeLoadFailed: The user's code did not import.
        """
        reader = await self._launch()
        self._listener = asyncio.create_task(self._listen(reader))

    async def _launch(self) -> asyncio.StreamReader:
        ours = await self._take_forked() or await self._start_fresh()
        reader, self._writer = await asyncio.open_unix_connection(
            sock=ours, limit=_LINE_LIMIT_BYTES
        )
        line = await _next_line(reader)
        packet = (
            json.loads(line) if line else {"op": "failed", "traceback": "It ended without a word."}
        )
        if packet["op"] == "failed":
            assert self._process is not None
            await self._process.wait()
            raise CodeLoadFailed(self.location.name, packet["traceback"])
        self.mode, self.pointers = packet["mode"], packet["pointers"]
        self.tasks = packet.get("tasks", [])
        if self.mode == "cold":
            logger.warning(
                "Code location %r is served cold: it wants another interpreter, or leaves a thread "
                "running after its import, so its steps start as fresh processes and import for "
                "themselves.",
                self.location.name,
            )
        if self._spare is not None:
            self._send(op="spare", count=self._spare)
        if self._deadline_s is not None:
            self._send(op="deadline", boot_time_s=self._deadline_s)
        self._ready.set()
        return reader

    async def _take_forked(self) -> socket.socket | None:
        """Return the wire to the process that was forked; the first time only."""
        if self._forked is None:
            return None
        if self._process is self._forked:  # it died, or hung up
            self._forked.kill()
            await self._forked.wait()
            self._forked = None
            return None
        self._process = self._forked
        return self._forked.wire

    async def _start_fresh(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dagster_taskiq_kit.worker.forkserver",
            "server", str(theirs.fileno()), json.dumps(asdict(self.location)),
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )  # fmt: skip
        theirs.close()
        return ours

    async def is_ready(self, within_s: float) -> bool:
        """Wait until it can take deliveries, which it cannot while it is started again."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._ready.wait(), within_s)
        return self._ready.is_set()

    def served(self) -> Served:
        """Return how messages can name this location."""
        return Served(self.location.name, self.pointers, self.tasks)

    def begin(self, key: str, message: Message, place: Place) -> Execution:
        """Hand a message to a child.

        Args:
            key: What to call it; unique among what runs.
            message: The message.
            place: Where it waited and who took it.
        """
        execution = self._executions[key] = Execution(key)
        if not self._send(
            op="start",
            key=key,
            kind=kind_of(message).value,
            message=asdict(message),
            place=asdict(place),
        ):
            self._lost(execution)
        return execution

    def answer(self, key: str, *, go: bool) -> None:
        """Answer a child that asked whether it may begin."""
        self._send(op="go" if go else "stop", key=key)

    def signal(self, key: str, number: int) -> None:
        """Send a signal to the whole group of a child."""
        self._send(op="signal", key=key, signal=number)

    def keep_spare(self, count: int) -> None:
        """Say how many children shall wait ahead of need."""
        if count != self._spare:
            self._spare = count
            self._send(op="spare", count=count)

    def vouch(self, until_s: float) -> None:
        """Say until which boot time the children may go on."""
        self._deadline_s = until_s
        if self._ready.is_set() and self._send(op="deadline", boot_time_s=until_s):
            self._unanswered += 1
        if self._unanswered > _MOST_UNANSWERED and self._process is not None:
            logger.error("The fork server of %r does not answer: killing it.", self.location.name)
            self._unanswered = 0
            self._process.kill()

    def _send(self, **packet: Any) -> bool:
        if self._writer is None or self._writer.is_closing():
            return False
        self._writer.write(pack(**packet))
        return True

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while line := await _next_line(reader):
            packet = json.loads(line)
            if packet["op"] == "vouched":
                self._unanswered = 0
                continue
            execution = self._executions.get(packet["key"])
            if execution is not None:
                execution.hear(packet)
                if packet["op"] == "exited":
                    del self._executions[packet["key"]]
        self._ready.clear()
        self._unanswered = 0
        for execution in list(self._executions.values()):
            self._lost(execution)
        if not self._stopping:
            logger.error("The fork server of %r died; starting another.", self.location.name)
            await self._restart()

    async def _restart(self) -> None:
        while not self._stopping:
            await asyncio.sleep(_RESTART_PAUSE_S)
            try:
                reader = await self._launch()
            except CodeLoadFailed as error:
                logger.error("%s", error)
                continue
            self._listener = asyncio.create_task(self._listen(reader))
            return

    def _lost(self, execution: Execution) -> None:
        """End an execution whose fork server is gone; its group goes first."""
        if execution.pid is not None:
            signal_group(execution.pid, signal.SIGKILL)
        self._executions.pop(execution.key, None)
        execution.hear(
            {"op": "exited", "key": execution.key, "pid": execution.pid, "exit_code": None}
        )

    async def stop(self) -> None:
        """End the process; it kills the children that are left."""
        self._stopping = True
        if self._writer is not None:
            self._writer.close()
        if self._process is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._process.wait(), 5)
            if self._process.returncode is None:
                self._process.kill()
        if self._listener is not None:
            self._listener.cancel()
