"""The worker: lanes, fork servers, heartbeat and orders in one event loop.

Invariant: no user code runs in this process. It takes work only while it is fit to execute it, and
when it is told to stop it takes nothing new, lets steps finish for ``drain_timeout_s``, gives the
rest back, and leaves the registry.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial

import dagster as dg

from ..broker import worker_cards
from ..broker.connection import AsyncConnection
from ..broker.stream_broker import Lane, PriorityStreamBroker
from ..broker.worker_cards import WorkerCard
from ..config.settings import TaskiqSettings
from ..dagster_internals.event_rows import EventStore, open_to_store_events
from ..dagster_internals.first_questions import FirstQuestions
from ..dagster_internals.postgres.pool import instance_id
from ..host.boot_time import boot_time_s
from ..vocabulary.errors import BrokerError, BrokerUnavailable
from ..vocabulary.log_actions import Action, about
from ..vocabulary.states import Kind, State
from ..vocabulary.wording import counted
from .delivery.deliveries import Deliveries
from .delivery.step_output import Printing
from .delivery.witness import Witness
from .duties.fleet import Duty, fleet_duties, perform
from .duties.heartbeat import Heartbeat
from .event_relay import EventRelay
from .footprint import LOOK_S, Footprint
from .lanes import LaneReceiver
from .memory import watch_memory
from .options import WorkerOptions
from .orders import Orders
from .process.fork_client import ForkServerClient
from .process.forked_server import ForkedServer
from .reload import Reloading
from .storage_marker import read_marker
from .supervision import Supervision, cancelled

logger = logging.getLogger(__name__)

_LOOK_AGAIN_S = 1.0
_LINES = {"steps": (Kind.STEP, Kind.TASK), "runs": (Kind.RUN,)}
_STORAGE_LOOK_S = 60.0

#: What a kill may take between the fork server's deadline and the last process being gone.
_KILL_MARGIN_S = 0.5


class Worker:
    """One worker process.

    Args:
        settings: The deployment.
        options: What the operator chose.
        instance: The Dagster instance whose runs it executes.
        launches: Whether that instance launches its runs through ``TaskiqRunLauncher``.
        forked: Fork servers that were forked from this process, one a location; None for a fresh
            process.
    """

    def __init__(
        self,
        settings: TaskiqSettings,
        options: WorkerOptions,
        instance: dg.DagsterInstance,
        *,
        launches: bool,
        forked: Sequence[ForkedServer | None],
    ) -> None:
        self._launches = launches
        self._settings = settings
        self._options = options
        self._instance = instance
        self.worker_id = worker_cards.new_worker_id(options.name)
        self._forked = forked
        self._servers: list[ForkServerClient] = []
        self._finish = asyncio.Event()
        self._supervision, self._footprint = Supervision(), Footprint()
        self._printing = Printing(wanted=options.prints_steps)
        self._stop = asyncio.Event()
        self._state = "alive"
        self._good_until_s, self._storage = 0.0, ("", "")

    async def run(self, flush: Callable[[], None] = logging.shutdown) -> None:
        """Work until SIGTERM or SIGINT; returns when drained.

        Args:
            flush: Writes the last words of a worker that ends at once.

        Raises:
            CodeLoadFailed: A code location did not import.
            WorkerFailed: It could not renew its lease for a lease, for no fault of the broker's.
        """
        self._flush, loop = flush, asyncio.get_running_loop()
        instance = await asyncio.to_thread(open_to_store_events)
        relay = (
            EventRelay(None, None, self._may_store)
            if instance is None
            else EventRelay(EventStore(instance), FirstQuestions.of(instance), self._may_store)
        )
        self._servers += [
            ForkServerClient(location, server, relay)
            for location, server in zip(self._options.locations, self._forked, strict=True)
        ]
        self._reloading = Reloading(self._servers, self._server_replaced)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop, number)
        if not os.isatty(0):  # else it says that the terminal was closed
            loop.add_signal_handler(signal.SIGHUP, self._reloading.tell)
        self._transitions = AsyncConnection(self._settings)
        self._deliveries = Deliveries(
            self.worker_id, self._settings, self._transitions, self._servers, self._slots_changed,
            self._report_canceled, self._printing, self._reloading, relay,
        )  # fmt: skip
        orders = {"drain": self._stop.set, "reload": self._reloading.tell}
        self._orders = Orders(self.worker_id, self._settings, self._deliveries, orders)
        self._heartbeat = Heartbeat(
            AsyncConnection(self._settings),
            self._settings,
            instance_id(self._instance),
            self._card,
            self._deliveries.holdings,
            self._orders.obey,
            self._vouch,
        )
        try:
            await asyncio.gather(*(server.start() for server in self._servers))
            await self._work()
        finally:
            await self._reloading.stop()
            await asyncio.gather(*(server.stop() for server in self._servers))
            await self._printing.finish()

    def _told_to_stop(self, number: int) -> None:
        """Drain at the first signal; end at once at the second, as if killed: others rescue."""
        if self._stop.is_set():
            logger.warning(
                "Told to stop again: ending at once; what runs here is killed.",
                extra=about(Action.STOPPED_AT_ONCE),
            )
            self._flush()
            os._exit(128 + number)
        self._stop.set()

    async def _work(self) -> None:
        self._slots_changed()
        await self._look_at_storage()
        await self._renew_once()
        logger.info(
            "Worker %s is ready: queues %s, %d slots, %d run slots, code %s.",
            self.worker_id,
            ", ".join(self._options.queues),
            self._options.slots,
            self._options.run_slots,
            ", ".join(f"{server.location.name} ({server.mode})" for server in self._servers),
            extra=about(Action.READY, worker_id=self.worker_id),
        )
        keep, for_ever = self._supervision.keep, asyncio.Event()
        renewing = asyncio.create_task(
            keep("Its heartbeat", self._renew, for_ever, hopeless=self._lease_is_over)
        )
        background = [
            renewing,
            asyncio.create_task(keep("Its hearing of orders", self._orders.hear, for_ever)),
            asyncio.create_task(keep("Its watch over memory", self._watch_memory, for_ever)),
            asyncio.create_task(keep("Its watch over code", self._reloading.watch, for_ever)),
            *(asyncio.create_task(perform(duty)) for duty in self._duties()),
        ]
        lanes = [
            asyncio.create_task(keep(f"Lane {name}", partial(self._listen, make), self._finish))
            for name, make in self._receivers()
        ]
        stopping = asyncio.create_task(self._stop.wait())
        try:
            ends = [stopping, renewing, *lanes]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            await self._drain(lanes)
        finally:
            stopping.cancel()
            await cancelled(background)
            with contextlib.suppress(BrokerError):
                await self._transitions.run(worker_cards.retire(self.worker_id), give_up_s=1)
        if not renewing.cancelled():
            renewing.result()

    async def _watch_memory(self) -> None:
        await watch_memory(self._deliveries, self._options.max_memory_mib)

    def _may_store(self) -> bool:
        """Whether nobody else can have been given yet what runs here."""
        return not self._lease_is_over()

    def _lease_is_over(self) -> bool:
        return boot_time_s() > self._good_until_s

    async def _listen(self, make: Callable[[], LaneReceiver]) -> None:
        await make().listen(self._finish)

    def _receivers(self) -> Sequence[tuple[str, Callable[[], LaneReceiver]]]:
        """Return what makes the receiver of each lane, by its name."""
        slots = {"steps": self._options.slots, "runs": self._options.run_slots}

        def making(name: str, kinds: Sequence[Kind]) -> Callable[[], LaneReceiver]:
            lane = Lane(name, self.worker_id, kinds, self._options.queues, slots[name])
            return lambda: LaneReceiver(
                PriorityStreamBroker(
                    self._settings,
                    lane,
                    on_outage=self._say_outage,
                    may_claim=self._can_serve,
                    on_claimed=self._deliveries.take,
                ),
                slots[name],
                self._deliveries.execute,
            )

        return [(name, making(name, kinds)) for name, kinds in _LINES.items() if slots[name]]

    async def _drain(self, lanes: Sequence[asyncio.Task[None]]) -> None:
        self._state = "draining"
        self._finish.set()
        busy = self._deliveries.busy(Kind.STEP)
        logger.info(
            "Draining: no new work; %s.",
            f"{counted(busy, 'step')} may take up to {self._settings.drain_timeout_s:g} s more"
            if busy
            else "no step is at work",
            extra=about(Action.DRAINING, worker_id=self.worker_id),
        )
        self._deliveries.hand_over_runs()
        _, unfinished = await asyncio.wait(lanes, timeout=self._settings.drain_timeout_s)
        giving_back = asyncio.create_task(self._give_back(unfinished))
        _, waiting = await asyncio.wait([giving_back], timeout=self._settings.lease_s)
        if waiting:
            logger.warning(
                "Draining took a lease longer than its time; leaving. Other workers take over what "
                "was not given back when the lease of this one has ended.",
                extra=about(Action.DRAIN_GIVEN_UP, worker_id=self.worker_id),
            )
            await cancelled([giving_back, *unfinished])

    async def _give_back(self, lanes: Collection[asyncio.Task[None]]) -> None:
        await self._deliveries.give_back_all()
        if lanes:
            await asyncio.wait(lanes)

    async def _can_serve(self) -> None:
        """Wait until every fork server can take what a claim may bring."""
        for number in range(len(self._servers)):
            while not self._servers[number].is_ready:
                with contextlib.suppress(asyncio.TimeoutError):
                    # Another may take its place meanwhile.
                    await asyncio.wait_for(self._servers[number].ready(), _LOOK_AGAIN_S)

    def _report_canceled(self, run_id: str) -> None:
        """Write the end of a cancelled run whose own process was killed before it could."""
        run = self._instance.get_run_by_id(run_id)
        if run is not None and run.status is dg.DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(run)

    # -- heartbeat and orders

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._settings.renew_s)
            try:
                await self._heartbeat.tick()
            except BrokerError as error:
                logger.warning("%s", error, extra=about(Action.BROKER_AWAY))
                await self._outlast_outage()

    async def _outlast_outage(self) -> None:
        """Renew as soon as the broker answers; until then ask the database about what runs."""
        witness = Witness(self._instance)
        asking = asyncio.create_task(self._ask(witness))
        try:
            while True:
                await asyncio.sleep(min(1.0, self._settings.renew_s))
                with contextlib.suppress(BrokerError):
                    await self._heartbeat.tick()
                    return
        finally:
            asking.cancel()

    async def _ask(self, witness: Witness) -> None:
        """Kill what the database says was given to others; vouch for the rest."""
        while True:
            began_s = boot_time_s()
            executing = self._deliveries.executing()
            try:
                overtaken = await asyncio.to_thread(witness.overtaken, executing)
            except Exception as error:  # noqa: BLE001  (whatever a storage raises)
                logger.warning(
                    "The database cannot be asked: %s", error, extra=about(Action.DATABASE_AWAY)
                )
            else:
                for task_id, reason in overtaken.items():
                    logger.warning(
                        "%s is killed: %s", task_id, reason, extra=about(Action.KILLED, task_id)
                    )
                    self._deliveries.revoke(task_id)
                # What replaces lost work begins no earlier than ``settle_s`` after the verdict.
                self._vouch(began_s + self._settings.settle_s - _KILL_MARGIN_S)
            await asyncio.sleep(max(0.1, self._settings.witness_s - (boot_time_s() - began_s)))

    def _vouch(self, until_s: float) -> None:
        # A clean reading in the first seconds of an outage must not shorten the lease.
        self._good_until_s = max(self._good_until_s, until_s)
        for server in (*self._servers, *self._reloading.retired):
            server.vouch(self._good_until_s)

    def _duties(self) -> Sequence[Duty]:
        return [
            Duty(self._look_at_storage, _STORAGE_LOOK_S),
            Duty(self._look_at_footprint, LOOK_S),
            *fleet_duties(
                self._instance, self._settings, self.worker_id, self._heartbeat.contact_s,
                launches=self._launches,
            ),
        ]  # fmt: skip

    async def _look_at_footprint(self) -> None:
        executing = self._deliveries.executing()
        pids = {each.message.task_id: each.pid for each in executing if each.pid is not None}
        await asyncio.to_thread(self._footprint.look, pids)

    async def _look_at_storage(self) -> None:
        self._storage = await asyncio.to_thread(read_marker, self._instance)

    async def _renew_once(self) -> None:
        while True:
            try:
                return await self._heartbeat.tick()
            except BrokerUnavailable as error:
                logger.warning("%s", error, extra=about(Action.BROKER_AWAY))
                await asyncio.sleep(1)

    # -- what others see of it

    def _server_replaced(self) -> None:
        self._vouch(self._good_until_s)
        self._slots_changed()

    def _slots_changed(self) -> None:
        busy = self._deliveries.busy(*Kind)
        free = max(0, self._options.slots + self._options.run_slots - busy)
        share = min(free, max(1, free // len(self._servers)))
        for server in self._servers:
            # A child that imports costs too much to make and end it with each step.
            server.keep_spare(share if server.mode == "warm" else min(share, 1))

    def _card(self) -> WorkerCard:
        return WorkerCard(
            worker_id=self.worker_id,
            name=self._options.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=list(self._options.queues),
            slots=self._options.slots,
            run_slots=self._options.run_slots,
            locations=[server.location.name for server in self._servers],
            modes={server.location.name: server.mode_in_words for server in self._servers},
            stale=self._reloading.stale(),
            state=self._state_now(),
            trouble=self._trouble(),
            busy_slots=self._deliveries.busy(Kind.STEP, Kind.TASK),
            busy_run_slots=self._deliveries.busy(Kind.RUN),
            executing=list(self._deliveries.holdings()),
            dagster_version=dg.__version__,
            storage_id=self._storage[0],
            storage=self._storage[1],
            clock_s=time.time(),
            boot_s=boot_time_s(),
            succeeded=self._deliveries.ended(State.SUCCEEDED),
            failed=self._deliveries.ended(State.FAILED, State.CRASHED),
            **self._footprint.on_card(),
        )

    def _state_now(self) -> str:
        return "unready" if self._state == "alive" and self._trouble() else self._state

    def _trouble(self) -> str:
        code = [f"{s.location.name}: {s.trouble}" for s in self._servers if s.trouble]
        return " ".join(filter(None, [*code, self._supervision.trouble]))

    def _say_outage(self, away: bool) -> None:
        action = Action.BROKER_AWAY if away else Action.BROKER_BACK
        said = "away; waiting for it" if away else "back"
        logger.warning("The broker is %s.", said, extra=about(action))
