"""The worker's side of one fork server: starts it, hands it deliveries, hears how they end.

Invariant: every delivery that was started gets exactly one last packet, also when the fork
server itself dies. That is ``Exited``, and whatever the delivery had started is gone then; or
``Rested``, where its run shares processes.
"""

import asyncio
import contextlib
import json
import logging
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict

import dagster as dg

from ...code_locations.code_location import CodeLocation
from ...code_locations.code_matching import Served
from ...host.process_tree import kill_tree
from ...vocabulary.errors import CodeLoadFailed, ProtocolError
from ...vocabulary.log_actions import Action, about
from ...vocabulary.messages import Message, StepMessage, kind_of
from ..event_relay import EventRelay
from ..place import Place
from ..warm.loaded_source import LoadedSource
from .execution import Execution, next_packet
from .forked_server import ForkedServer
from .leftovers import end_leftovers
from .protocol import (
    LAST,
    Barrier,
    Committed,
    Deadline,
    Event,
    Exited,
    Failed,
    Go,
    Imported,
    Packet,
    Ready,
    Signal,
    Spare,
    Start,
    Stop,
    Vouched,
)
from .wire import pack

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


class ForkServerClient:
    """One fork server of this worker.

    Args:
        location: The code location it serves.
        forked: Its first process, when that was forked from this one.
        relay: Stores the events of its steps, where it can.
    """

    def __init__(
        self,
        location: CodeLocation,
        forked: ForkedServer | None = None,
        relay: EventRelay | None = None,
    ) -> None:
        self.location = location
        self.relay = relay
        #: Its children say the events of their steps to this worker.
        self.relays = False
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
        heard = await next_packet(reader)
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
                extra=about(Action.NOT_WARM, location=self.location.name),
            )  # fmt: skip
        self._choose_who_stores(packet)
        self._unanswered = 0
        if self._spare is not None:
            self._send(Spare(self._spare))
        if self._deadline_s is not None:
            self._send(Deadline(self._deadline_s))
        self.trouble = ""
        self._ready.set()
        return reader

    def _choose_who_stores(self, ready: Ready) -> None:
        other = ready.dagster != dg.__version__
        why = f"its Dagster is {ready.dagster}" if other else ready.stores
        self.relays = self.relay is not None and self.relay.has_store and not why
        if why:
            logger.info(
                "Steps of code location %r store their events themselves, each in a database "
                "session of its own: %s.", self.location.name, why,
                extra=about(Action.STORES_ITSELF, location=self.location.name),
            )  # fmt: skip

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
        relays = self.relays and isinstance(message, StepMessage)
        fuse_limit = message.fuse_limit if isinstance(message, StepMessage) else 0
        group = f"{message.run_id} on {place.queue}" if fuse_limit > 1 else ""
        start = Start(kind_of(message).value, asdict(place), relays, body, group, fuse_limit)
        if not self._send(start, key):
            self._lost(execution)
        return execution

    def allow(self, key: str, first_answers: bytes = b"") -> None:
        """Let a child begin that asked.

        Args:
            key: What it executes.
            first_answers: What it would ask the database first.
        """
        self._send(Go(first_answers), key)

    def forbid(self, key: str) -> None:
        """Have a child leave that asked whether it may begin."""
        self._send(Stop(), key)

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
            self._log_death("The fork server of %r does not answer: killing it.")
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
            while heard := await next_packet(reader):
                self._take(*heard)
        except ProtocolError as error:
            self._log_death(f"The fork server of %r is killed: {error}")
            self._process.kill()
        self._ready.clear()
        self._writer.close()
        await ending
        await self._end_executions()
        if not self._stopping:
            self._log_death("The fork server of %r died; starting another.")
            await self._restart()

    def _take(self, packet: Packet, key: str) -> None:
        if isinstance(packet, Vouched):
            self._unanswered = 0
        elif isinstance(packet, Imported):
            self._import_s = packet.seconds
        elif (execution := self._executions.get(key)) is not None:
            execution.check(packet)
            if isinstance(packet, Event | Barrier):
                self._relay_on(packet, key)
                return
            execution.hear(packet)
            if isinstance(packet, LAST):
                del self._executions[key]

    def _relay_on(self, packet: Event | Barrier, key: str) -> None:
        if self.relay is None:
            raise ProtocolError("a child said an event though nobody stores it")
        if isinstance(packet, Event):
            self.relay.take(key, packet.body)
        else:
            number = packet.number
            self.relay.when_stored(key, lambda why: self._committed(key, number, why))

    def _committed(self, key: str, number: int, why: str) -> None:
        self._send(Committed(number, why), key)

    async def _end_executions(self) -> None:
        """End what the fork server, which is gone, had at work, and what it leaves behind."""
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
                said = about(Action.CODE_NOT_LOADED, location=self.location.name)
                logger.error("%s", error, extra=said)
                self.trouble = error.cause
                continue
            self._listener = asyncio.create_task(self._listen(reader))
            return

    def _log_death(self, sentence: str) -> None:
        name = self.location.name
        logger.error(sentence, name, extra=about(Action.FORK_SERVER_DIED, location=name))

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
        """End the process; it kills the children that are left."""
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
    """End the stream of a process that is gone: others may hold its end of the wire open."""
    await process.wait()
    # Its guardian does, until it has killed what there was; it takes milliseconds.
    await asyncio.sleep(_GUARDIAN_S)
    reader.feed_eof()


def _kill_trees(pids: Sequence[int]) -> None:
    for pid in pids:
        kill_tree(pid)
    end_leftovers()
