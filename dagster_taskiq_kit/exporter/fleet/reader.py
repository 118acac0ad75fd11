"""Who looks at the broker for the fleet page: one thread, for all who watch.

Invariant: while nobody watches, the broker is asked once in half a minute (for the history of the
queues); while somebody does, once a second, however many they are. A broker that is away costs the
page its news and not what it showed last.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ...broker import dead_letters
from ...broker.connection import SyncConnection
from ...broker.job_names import JobNames
from ...broker.scripts import text
from ...config.settings import TaskiqSettings
from ...health.rules import judge, with_published_objectives
from ...health.snapshot import LANES, Snapshot, read_snapshot
from ...vocabulary.errors import BrokerError
from ...vocabulary.log_actions import Action, about
from ...vocabulary.states import Kind
from ..sources import hasty
from .history import SAMPLE_EVERY_MS, Histories
from .state import FleetReading, FleetState, WaitingMessage, away, fleet_state

logger = logging.getLogger(__name__)

_EVERY_S = 1.0
_WATCHED_FOR_S = 10.0
_FIRST_WITHIN_S = 5.0
#: Waiting messages that are shown of each queue and kind, and of all.
_MOST_WAITING_OF_ONE = 50
_MOST_WAITING = 500
_MOST_DEAD_LETTERS = 50
_KINDS = tuple(kind for kinds in LANES.values() for kind in kinds)


class FleetReader:
    """Looks at the broker for the page.

    Args:
        settings: The deployment.
        links: Where else to look, see :func:`fleet_state`.
    """

    def __init__(self, settings: TaskiqSettings, links: Mapping[str, str]) -> None:
        self._settings = settings
        self._links = links
        self._connection = SyncConnection(hasty(settings))
        self._histories = Histories()
        self._names = JobNames()
        self._letters: Sequence[dead_letters.DeadLetter] = ()
        self._letters_of = (0, 0)
        self._state: FleetState | None = None
        #: What is known is of now, or as new as can be had.
        self._fresh, self._lock = threading.Event(), threading.Lock()
        self._wanted, self._stopping = threading.Event(), False
        self._watched_until_s = 0.0
        self._thread = threading.Thread(target=self._go_on, name="fleet", daemon=True)

    def __enter__(self) -> "FleetReader":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopping = True
        self._wanted.set()
        self._connection.close()

    def watch(self) -> FleetState:
        """Return what is known; for some seconds from now on it is looked each second.

        Blocks for a moment when nothing was read lately.
        """
        with self._lock:
            watched = time.monotonic() < self._watched_until_s
            self._watched_until_s = time.monotonic() + _WATCHED_FOR_S
            if not watched:
                self._fresh.clear()
                self._wanted.set()
        if self._fresh.wait(_FIRST_WITHIN_S) and self._state is not None:
            return self._state
        why = f"The broker has not answered for {_FIRST_WITHIN_S:g} s."
        return away(self._state, why, self._settings)

    def _go_on(self) -> None:
        while not self._stopping:
            began_s = time.monotonic()
            self._state = self._look()
            self._fresh.set()
            watched = time.monotonic() < self._watched_until_s
            every_s = _EVERY_S if watched else SAMPLE_EVERY_MS / 1000
            self._wanted.wait(max(0.05, every_s - (time.monotonic() - began_s)))
            self._wanted.clear()

    def _look(self) -> FleetState:
        try:
            return fleet_state(self._read(), self._links)
        except BrokerError as error:
            return away(self._state, str(error), self._settings)
        except Exception as error:
            logger.exception("The fleet was not read.", extra=about(Action.COLLECTOR_FAILED))
            return away(self._state, f"It could not be read: {error!r}", self._settings)

    def _read(self) -> FleetReading:
        snapshot = read_snapshot(self._connection)
        settings = with_published_objectives(snapshot, self._settings)
        waiting = self._waiting(snapshot)
        self._read_letters(snapshot)
        held = [each for worker in snapshot.workers for each in worker.held]
        kinds = {each.task_id: Kind(each.kind) for each in (*held, *waiting)}
        jobs = self._names.of(self._connection, kinds)
        return FleetReading(
            snapshot, judge(snapshot, settings), settings, waiting, self._letters, jobs,
            self._histories.saw(snapshot),
        )  # fmt: skip

    def _read_letters(self, snapshot: Snapshot) -> None:
        """Read the newest dead letters, when there are others: each carries its payload."""
        died = sum(n for (event, *_), n in snapshot.counters.items() if event == "dead")
        if (mark := (snapshot.dead_letters, died)) == self._letters_of:
            return
        self._letters = (
            dead_letters.read_all(self._connection, _MOST_DEAD_LETTERS) if mark[0] else ()
        )
        self._letters_of = mark

    def _waiting(self, snapshot: Snapshot) -> Sequence[WaitingMessage]:
        """Return what waits, the longest-waiting first."""
        asked = [
            (queue.name, kind)
            for queue in snapshot.queues
            for kind in _KINDS
            if queue.waiting.get(kind)
        ][:_MOST_WAITING]
        if not asked:
            return ()

        def ask() -> list[Any]:
            pipeline = self._connection.client.pipeline(transaction=False)
            for queue, kind in asked:
                key = self._connection.keys.name("waiting", queue, kind)
                pipeline.zrange(key, 0, _MOST_WAITING_OF_ONE - 1, withscores=True)
            return pipeline.execute(raise_on_error=False)

        found = [
            WaitingMessage(text(task_id), kind, queue, round(score))
            for (queue, kind), answer in zip(asked, self._connection.retrying(ask), strict=True)
            if not isinstance(answer, Exception)
            for task_id, score in cast("list[tuple[bytes, float]]", answer)
        ]
        return sorted(found, key=lambda each: each.since_ms)[:_MOST_WAITING]
