"""From one delivery to its end: child, permission, outcome, record.

Invariant: a delivery leaves the worker by exactly one transition of its record, and that transition
is repeated until the broker answers. The child's own report decides; without one, its death does.
Whatever goes wrong here, a delivery is forgotten only when its process is gone.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Mapping, Sequence

from ...broker import records
from ...broker.connection import AsyncConnection
from ...broker.records import Delivery
from ...broker.worker_cards import Holding
from ...code_locations.code_matching import location_for
from ...config.settings import TaskiqSettings
from ...vocabulary import messages
from ...vocabulary.errors import BrokerError, CodeError, EventsNotStored, MessageError
from ...vocabulary.messages import Message, StepMessage
from ...vocabulary.states import Kind, State
from ...vocabulary.tags import TIMEOUT_TAG
from ..event_relay import EventRelay
from ..place import Place
from ..process.fork_client import ForkServerClient
from ..process.protocol import Begin, Done, Exited, Expired, Lingered, Output, Prints, Runs
from ..reload import Reloading
from . import delivery_log
from .held import Held, death_in_words
from .record_ends import RecordEnds
from .step_output import Printing, StepOutput
from .until_either import until_either
from .verdict import Phase, verdict
from .witness import Executing

#: A run that is cancelled outlives the grace of its steps: it has to write how they ended.
_RUN_OUTLIVES_STEPS_S = 5.0


class Deliveries:
    """All deliveries that this worker holds.

    Args:
        worker_id: The worker that holds them.
        settings: The deployment.
        connection: The broker.
        servers: Fork servers, one a code location.
        changed: Called when a delivery came or went.
        run_killed: Called in a thread with the id of a cancelled run whose process was killed: it
            could not say itself that it ended.
        printing: Prints what steps write.
        reloading: Loads a location again when its files change.
        relay: Stores the events of steps.
    """

    def __init__(
        self,
        worker_id: str,
        settings: TaskiqSettings,
        connection: AsyncConnection,
        servers: Sequence[ForkServerClient],
        changed: Callable[[], None],
        run_killed: Callable[[str], None],
        printing: Printing,
        reloading: Reloading,
        relay: EventRelay,
    ) -> None:
        self._worker_id = worker_id
        self._host = socket.gethostname()
        self._settings = settings
        self._connection = connection
        self._servers = servers
        self._changed = changed
        self._run_killed = run_killed
        self._printing = printing
        self._reloading = reloading
        self._relay = relay
        self._ends = RecordEnds(worker_id, settings, connection)
        #: By owner token: the same message may be claimed again before its last process is gone.
        self._held: dict[str, Held] = {}

    # -- what is held

    def take(self, delivery: Delivery) -> Held:
        """Hold a delivery, from the moment in which its claim was answered."""
        held = Held(delivery)
        for older in self._held.values():
            if older.delivery.task_id != delivery.task_id or older.over:
                continue
            if older.began and not older.ending:
                held.forgotten = older  # the broker forgot that it runs here
            else:
                self._abandon(older)  # it was taken from us, and has come again
        self._held[delivery.token] = held
        self._changed()
        return held

    def holdings(self) -> dict[str, Holding]:
        """Return what is held, by task id."""
        return {
            held.delivery.task_id: Holding(held.delivery.token, held.began)
            for held in self._held.values()
            if not held.over
        }

    def executing(self) -> Sequence[Executing]:
        """Return what has begun and whose record has not ended, for the witness."""
        return [
            Executing(held.message, held.execution.pid)
            for held in self._held.values()
            if held.message is not None
            and held.execution is not None
            and held.began
            and not held.over
        ]

    def busy(self, *kinds: Kind) -> int:
        """Return how many messages of these kinds are held."""
        return sum(held.delivery.kind in kinds for held in self._held.values())

    def ended(self, *outcomes: State) -> int:
        """Return how many messages ended so on this worker."""
        return sum(self._ends.ended[outcome] for outcome in outcomes)

    def _present(self, task_id: str) -> Held | None:
        """Return the last delivery of a message that is not over, or None."""
        for held in reversed(self._held.values()):
            if held.delivery.task_id == task_id and not held.over:
                return held
        return None

    # -- from a claim to the end

    async def execute(self, delivery: Delivery) -> None:
        """Execute one delivery to its end: its process is gone then, and its record ended."""
        held = self._held.get(delivery.token) or self.take(delivery)
        held.followed = True
        try:
            if not await self._is_running_already(held):
                await self._await_older(held)
                await self._execute(held)
        finally:
            if held.timer is not None:
                held.timer.cancel()
            await self._end_process(held)
            self._relay.forget(delivery.token)
            del self._held[delivery.token]
            held.gone.set()
            self._changed()

    async def _is_running_already(self, held: Held) -> bool:
        """State again what runs here and the broker forgot, in the place of its second claim."""
        if held.forgotten is None or held.forgotten.over:
            return False
        older = held.forgotten.delivery
        restate = records.restate(older, self._worker_id, instead_of=held.delivery.token)
        if await self._ends.insist(restate) == "ok":
            held.reach(Phase.OVER)
            return True
        self._abandon(held.forgotten)
        return False

    async def _await_older(self, held: Held) -> None:
        """Wait until no process of an earlier delivery of the same message is left."""
        for older in list(self._held.values()):
            if older is not held and older.delivery.task_id == held.delivery.task_id:
                await older.gone.wait()

    async def _execute(self, held: Held) -> None:
        delivery = held.delivery
        try:
            message = messages.decode(delivery.task_id, delivery.kind, delivery.payload)
            number = self._location_of(message)
        except (MessageError, CodeError) as error:
            delivery_log.log_refused(delivery, error)
            await self._ends.finish(held, State.REFUSED, {"reason": str(error)}, dead=str(error))
            return
        held.message = message
        if not await self._is_served(held, number):
            await self._end_without_process(held)
            return
        server = held.server = self._servers[number]
        place = self._place(delivery, self._reloading.stale().get(server.location.name, ""))
        # Asked while its child gets ready, so that the answers cost no time.
        held.first_answers = asyncio.ensure_future(self._first_answers(message, server))
        held.execution = server.begin(delivery.token, message, place)
        await self._follow(held, server)

    async def _is_served(self, held: Held, number: int) -> bool:
        """Wait until its code is as new as its files, and its fork server can take it.

        Returns:
            False when it shall not be taken, or not soon.
        """
        await until_either(self._reloading.current(number), held.stopped.wait())
        if not held.stopped.is_set():
            ready = self._servers[number].ready()
            await until_either(ready, held.stopped.wait(), self._settings.lease_s)
        return self._servers[number].is_ready and not held.stopped.is_set()

    async def _end_without_process(self, held: Held) -> None:
        if held.cancelled and not held.over:
            await self._ends.finish(held, State.CANCELLED, {"reason": "It had no process yet."})
        elif not held.over:
            # Nothing is wrong with the message: code that does not import any more spends none of
            # its deliveries.
            await self._ends.requeue(held.delivery, "Its fork server did not start.", counts=False)

    async def _end_process(self, held: Held) -> None:
        """Return when nothing of a delivery's process is left; it is killed if it still lives."""
        execution = held.execution
        if execution is None or execution.over:
            return
        held.send(signal.SIGKILL)
        async for _ in execution.packets():
            pass

    def _place(self, delivery: Delivery, stale: str) -> Place:
        return Place(
            self._worker_id,
            self._host,
            delivery.queue,
            delivery.waited_ms,
            delivery.deliveries,
            delivery.handed_over,
            stale,
        )

    def _location_of(self, message: Message) -> int:
        return location_for(message.code, [server.served() for server in self._servers])

    async def _follow(self, held: Held, server: ForkServerClient) -> None:
        assert held.execution is not None
        async for packet in held.execution.packets():
            match packet:
                case Begin():
                    await self._allow(held, server)
                case Runs():
                    held.resumable = packet.resumable
                case Output():
                    await self._relay.stored(held.delivery.token)
                    await self._tell(held)
                case Prints():
                    self._print(held, packet.files)
                case Expired():
                    held.expired = True
                case Lingered():
                    delivery_log.log_lingered(held)
                case Done() if held.began and not held.over:
                    # Said before the process is gone, so that the run goes on while it takes
                    # itself down.
                    await self._end_as_reported(held, packet)
                case Exited() if not held.over:
                    await self._end_without_report(held, packet)
                case _:
                    pass  # of a delivery that is over, or of no concern here

    async def _tell(self, held: Held) -> None:
        """Ring the run's bell; not heard, it costs the orchestrator one slow poll."""
        tell = records.tell_output(held.delivery.task_id, held.delivery.token)
        with contextlib.suppress(BrokerError):
            await self._connection.run(tell, give_up_s=0)

    def _print(self, held: Held, files: Mapping[str, str]) -> None:
        held.output_files = files
        if isinstance(held.message, StepMessage):
            output = StepOutput(held.message, held.delivery.queue, files)
            self._printing.follow(output, held.gone)

    async def _allow(self, held: Held, server: ForkServerClient) -> None:
        """Ask the broker whether the body may begin, and tell its child."""
        delivery = held.delivery
        answer = await self._ends.insist(records.begin(delivery.task_id, delivery.token))
        begins = answer == "ok"
        if begins:
            held.reach(Phase.BEGUN)
            delivery_log.log_began(held)
            self._limit_time(held)
            server.allow(delivery.token, await held.answers_in_time())
        else:
            held.reach(Phase.OVER)
            server.forbid(delivery.token)

    async def _first_answers(self, message: Message, server: ForkServerClient) -> bytes:
        if not server.relays or not isinstance(message, StepMessage):
            return b""
        return await self._relay.first_answers(message.run_id, message.step_key)

    async def _end_as_reported(self, held: Held, packet: Done) -> None:
        held.reach(Phase.ENDING)
        outcome, detail = State(packet.outcome), dict(packet.detail)
        why = await self._relay.stored(held.delivery.token)
        if why:
            outcome, detail = State.CRASHED, {"reason": str(EventsNotStored(why))}
        await self._ends.finish(held, outcome, {**detail, "used": packet.used})
        held.reach(Phase.OVER)

    async def _end_without_report(self, held: Held, packet: Exited) -> None:
        await self._relay.stored(held.delivery.token)
        exit_code, used = packet.exit_code, {"used": packet.used} if packet.used else {}
        delivery, died = held.delivery, death_in_words(exit_code)
        found = verdict(held.facts(exit_code))
        reason = found.why or died
        if found.to is State.QUEUED:
            await self._ends.requeue(delivery, reason, counts=found.counts)
        elif found.to is State.LOST:
            await self._ends.finish(held, State.LOST, self._ends.last_words(reason) | used)
        elif found.to is State.CANCELLED:
            await self._ends.finish(held, State.CANCELLED, {"reason": reason, **used})
            if delivery.kind is Kind.RUN:
                await asyncio.to_thread(self._run_killed, delivery.run_id)
        else:
            reason = f"{held.limit or reason}{held.last_lines()}"
            detail = {"reason": reason, "exit_code": exit_code, **used}
            await self._ends.finish(held, State.CRASHED, detail)

    # -- what others decide about it

    def _limit_time(self, held: Held) -> None:
        timeout_s = getattr(held.message, "timeout_s", None)
        if timeout_s is not None:
            reason = f"It ran longer than its limit of {timeout_s:g} s (tag {TIMEOUT_TAG!r})."
            held.timer = asyncio.get_running_loop().call_later(
                timeout_s, self.exceed, held.delivery.task_id, reason
            )

    def exceed(self, task_id: str, reason: str) -> None:
        """Kill a message that exceeds a limit; its end names the limit."""
        held = self._present(task_id)
        if held is not None and not held.ending:
            held.limit = reason
            held.send(signal.SIGKILL)

    def cancel(self, task_id: str) -> None:
        """Stop one message: SIGTERM now, SIGKILL after the grace."""
        held = self._present(task_id)
        if held is None or held.cancelled:
            return
        held.cancelled = True
        held.send(signal.SIGTERM)
        grace_s = self._settings.cancel_grace_s
        if held.delivery.kind is Kind.RUN:
            grace_s += self._settings.renew_s + _RUN_OUTLIVES_STEPS_S
        asyncio.get_running_loop().call_later(grace_s, held.send, signal.SIGKILL)

    async def restate(self, task_id: str) -> None:
        """Tell a broker that forgot it what really runs here; kill it if it is somebody else's."""
        held = self._present(task_id)
        if held is None or held.ending:
            return
        call = records.restate(held.delivery, self._worker_id)
        if await self._connection.run(call) != "ok":
            self.revoke(task_id)

    def revoke(self, task_id: str) -> None:
        """Kill what is not ours any more, and report nothing for it."""
        held = self._present(task_id)
        if held is None:
            return
        # Also where its child has said all: others may have been given it before it was stored.
        self._relay.drop(held.delivery.token)
        if not held.ending:
            self._abandon(held)

    def _abandon(self, held: Held) -> None:
        self._relay.drop(held.delivery.token)
        held.reach(Phase.OVER)
        held.send(signal.SIGKILL)

    # -- drain

    def hand_over_runs(self) -> None:
        """Let another worker go on with the runs that lose nothing by it."""
        for held in self._held.values():
            if held.delivery.kind is Kind.RUN and (held.resumable or not held.began):
                self._give_back(held)

    async def give_back_all(self) -> None:
        """Kill what is held still, and let another worker have what can be had again."""
        for held in list(self._held.values()):
            self._give_back(held)
            if not held.followed:  # it was claimed in the moment in which the lanes ended
                held.followed = True
                await self.execute(held.delivery)

    @staticmethod
    def _give_back(held: Held) -> None:
        if not held.over:
            held.given_back = True
        # Dagster is not signalled: SIGTERM would make an executor stop its steps.
        held.send(signal.SIGKILL)
