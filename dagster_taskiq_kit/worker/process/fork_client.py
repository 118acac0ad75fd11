"""The worker's side of one fork server: starts it, hands it deliveries, hears how they end.

Invariant: every delivery that was started gets exactly one last packet, ``Exited``, also when the
fork server itself dies; whatever the delivery had started is gone then.
"""

import asyncio
import contextlib
import json
import logging
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict

from ...code_locations.code_location import CodeLocation
from ...code_locations.code_matching import Served
from ...host.process_tree import kill_tree
from ...vocabulary.errors import CodeLoadFailed, ProtocolError
from ...vocabulary.messages import Message, kind_of
from ..place import Place
from ..warm.loaded_source import LoadedSource
from .forked_server import ForkedServer
from .leftovers import end_leftovers
from .protocol import (
    Deadline,
    Exited,
    Failed,
    Go,
    Imported,
    Output,
    Packet,
    PacketSequence,
    Party,
    Ready,
    Signal,
    Spare,
    Start,
    Started,
    Stop,
    Vouched,
    check_sender,
)
from .wire import pack, unpack

logger = logging.getLogger(__name__)

_Process = asyncio.subprocess.Process | ForkedServer

_LINE_LIMIT_BYTES = 64 * 1024 * 1024
#: Pauses before a fork server that died, or did not load its code, is started again.
_RESTART_FIRST_S, _RESTART_LAST_S = 1.0, 30.0
#: How long a fork server may take to end.
_GONE_WITHIN_S = 5.0
#: How long its guardian may take then.
_GUARDIAN_S = 1.0
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
        #: Its last packet was taken.
        self.over = False
        self._packets: asyncio.Queue[Packet] = asyncio.Queue()
        self._order = PacketSequence()
        self._told_last = False

    def hear(self, packet: Packet) -> None:
        """Take what the fork server said of it.

        Raises:
            ProtocolError: It may not be said now.
        """
        self._order.check(packet)
        if isinstance(packet, Started):
            self.pid = packet.pid
            return
        tells = isinstance(packet, Output)
        if tells and self._told_last and not self._packets.empty():
            return  # it is told already that there is more in the log
        self._packets.put_nowait(packet)
        self._told_last = tells

    async def packets(self) -> AsyncIterator[Packet]:
        """Yield what happens to it; the last one is ``Exited``."""
        while not self.over:
            packet = await self._packets.get()
            self.over = isinstance(packet, Exited)
            yield packet


async def _next_packet(reader: asyncio.StreamReader) -> tuple[Packet, str] | None:
    """Return the next packet and the key of its delivery; None when the other end is gone.

    Raises:
        ProtocolError: It is no packet that a fork server or its child may say.
    """
    try:
        line = await reader.readline()
    except ConnectionError:  # it died with orders of ours unread
        return None
    if not line:
        return None
    packet, key = unpack(json.loads(line), b"")
    check_sender(packet, Party.SERVER, Party.CHILD)
    return packet, key


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
        #: Why its steps import its code for themselves; '' when they do not.
        self.why = ""
        self.pointers: Sequence[str] = ()
        #: Names of the users' own taskiq tasks in it.
        self.tasks: Sequence[str] = ()
        #: How long its last child imported for itself; None when none does.
        self._import_s: float | None = None
        #: From which files its code was imported; None before it was.
        self.source: LoadedSource | None = None
        #: Why it serves nothing now; '' when it does, or is only being started.
        self.trouble = ""
        self._executions: dict[str, Execution] = {}
        self._spare: int | None = None
        self._deadline_s: float | None = None
        self._unanswered = 0
        self._stopping = False
        self._ready = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._process: _Process | None = None
        self._listener: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises:
            CodeLoadFailed: The user's code did not import.
        """
        reader = await self._launch()
        self._listener = asyncio.create_task(self._listen(reader))

    async def _launch(self) -> asyncio.StreamReader:
        process, ours = self._take_forked() or await self._start_fresh()
        self._process = process
        reader, self._writer = await asyncio.open_unix_connection(
            sock=ours, limit=_LINE_LIMIT_BYTES
        )
        heard = await _next_packet(reader)
        packet = heard[0] if heard else Failed(self.location.name, "It ended without a word.")
        if not isinstance(packet, Ready):
            await process.wait()
            raise CodeLoadFailed(self.location.name, getattr(packet, "traceback", str(packet)))
        self.mode, self.pointers, self.tasks = packet.mode, packet.pointers, packet.tasks
        self.source = LoadedSource.from_data(packet.source)
        self.why = "; ".join(packet.why)
        if self.mode != "warm":
            logger.warning(
                "Code location %r is served %s, its steps import it for themselves: %s.",
                self.location.name, self.mode, self.why,
            )  # fmt: skip
        self._unanswered = 0
        if self._spare is not None:
            self._send(Spare(self._spare))
        if self._deadline_s is not None:
            self._send(Deadline(self._deadline_s))
        self.trouble = ""
        self._ready.set()
        return reader

    def _take_forked(self) -> tuple[_Process, socket.socket] | None:
        """Return the process that was forked and the wire to it; the first time only."""
        forked, self._forked = self._forked, None
        return None if forked is None else (forked, forked.wire)

    async def _start_fresh(self) -> tuple[_Process, socket.socket]:
        ours, theirs = socket.socketpair()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dagster_taskiq_kit.worker.process.server_process",
            "server", str(theirs.fileno()), json.dumps(asdict(self.location)),
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )  # fmt: skip
        theirs.close()
        return process, ours

    @property
    def mode_in_words(self) -> str:
        """How it serves its location, what each step imports first, and why not warm."""
        took = "" if self._import_s is None else f", {self._import_s:.1f} s of import a step"
        return f"{self.mode}{took}: {self.why}" if self.why else self.mode

    @property
    def is_ready(self) -> bool:
        """Whether it can take deliveries, which it cannot while it is started again."""
        return self._ready.is_set()

    async def ready(self) -> None:
        """Wait until it can take deliveries."""
        await self._ready.wait()

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
        body = json.dumps(asdict(message)).encode()
        if not self._send(Start(kind_of(message).value, asdict(place), body), key):
            self._lost(execution)
        return execution

    def answer(self, key: str, *, go: bool) -> None:
        """Answer a child that asked whether it may begin."""
        self._send(Go() if go else Stop(), key)

    def signal(self, key: str, number: int) -> None:
        """Send a signal to a child; SIGKILL goes to all that it has started, too."""
        self._send(Signal(number), key)

    def keep_spare(self, count: int) -> None:
        """Say how many children shall wait ahead of need."""
        if count != self._spare:
            self._spare = count
            self._send(Spare(count))

    def vouch(self, until_s: float) -> None:
        """Say until which boot time the children may go on."""
        self._deadline_s = until_s
        if self._ready.is_set() and self._send(Deadline(until_s)):
            self._unanswered += 1
        if self._unanswered > _MOST_UNANSWERED and self._process is not None:
            logger.error("The fork server of %r does not answer: killing it.", self.location.name)
            self._unanswered = 0
            self._process.kill()

    def _send(self, packet: Packet, key: str = "") -> bool:
        if self._writer is None or self._writer.is_closing():
            return False
        self._writer.write(pack(packet, key))
        return True

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        assert self._process is not None
        assert self._writer is not None
        ending = asyncio.create_task(_end_with(self._process, reader))
        try:
            while heard := await _next_packet(reader):
                self._take(*heard)
        except ProtocolError as error:
            logger.error("%s", error)
            self._process.kill()
        self._ready.clear()
        self._writer.close()
        await ending
        await self._end_executions()
        if not self._stopping:
            logger.error("The fork server of %r died; starting another.", self.location.name)
            await self._restart()

    def _take(self, packet: Packet, key: str) -> None:
        if isinstance(packet, Vouched):
            self._unanswered = 0
        elif isinstance(packet, Imported):
            self._import_s = packet.seconds
        elif (execution := self._executions.get(key)) is not None:
            execution.hear(packet)
            if isinstance(packet, Exited):
                del self._executions[key]

    async def _end_executions(self) -> None:
        """Party what the fork server, which is gone, had at work, and what it leaves behind."""
        pids = [each.pid for each in self._executions.values() if each.pid is not None]
        await asyncio.to_thread(_kill_trees, pids)
        for execution in list(self._executions.values()):
            self._lost(execution)

    async def _restart(self) -> None:
        pause_s = _RESTART_FIRST_S
        while not self._stopping:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _RESTART_LAST_S)
            try:
                reader = await self._launch()
            except CodeLoadFailed as error:
                logger.error("%s", error)
                self.trouble = error.cause
                continue
            self._listener = asyncio.create_task(self._listen(reader))
            return

    def _lost(self, execution: Execution) -> None:
        """Say that an execution has ended whose fork server is gone."""
        self._executions.pop(execution.key, None)
        execution.hear(Exited(execution.pid, None))

    @property
    def is_idle(self) -> bool:
        """Whether nothing executes in it."""
        return not self._executions

    def retire(self) -> None:
        """Make no more children: another takes its place. What executes here goes on."""
        self._stopping = True
        self.keep_spare(0)

    async def stop(self) -> None:
        """Party the process; it kills the children that are left."""
        self._stopping = True
        if self._writer is not None:
            self._writer.close()
        if self._process is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._process.wait(), _GONE_WITHIN_S)
            if self._process.returncode is None:
                self._process.kill()
        if self._listener is not None:
            self._listener.cancel()
        await self._end_executions()


async def _end_with(process: _Process, reader: asyncio.StreamReader) -> None:
    """Party the stream of a process that is gone: others may hold its end of the wire open."""
    await process.wait()
    # Its guardian does, until it has killed what there was; it takes milliseconds.
    await asyncio.sleep(_GUARDIAN_S)
    reader.feed_eof()


def _kill_trees(pids: Sequence[int]) -> None:
    for pid in pids:
        kill_tree(pid)
    end_leftovers()
