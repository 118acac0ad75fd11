"""Stores the events of this worker's steps: one thread, one session, many events a transaction.

Invariant: events of one delivery are stored in the order in which its child said them, each once,
or not at all from some event on. Nothing is stored while this worker's lease may be over, and
nothing more of a delivery that was taken from it. While the database is away all wait for it, and
it is asked again once for all.

There is no timer: while one transaction is under way, the next ones gather.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ..dagster_internals.event_rows import EventRow, EventStore, NotNow
from ..dagster_internals.first_questions import FirstQuestions
from ..vocabulary.log_actions import Action, about

logger = logging.getLogger(__name__)

#: What one transaction takes at most.
_MOST_EVENTS = 500
_MOST_BYTES = 4 * 1024 * 1024
#: How often to ask for a database that is away, and for a lease that may be over.
_AWAY_S = 0.5
_LEASE_S = 0.05

#: A database that is there, and failed so often to store the same events, does so because of them.
_FAILURES_OF_ITS_OWN = 20

#: Called in the event loop, with why events were not stored, or ''.
Then = Callable[[str], None]


@dataclass(frozen=True)
class _Said:
    """An event that a delivery's child has said."""

    key: str
    row: EventRow


@dataclass(frozen=True)
class _Question:
    """What a step would ask the database first."""

    run_id: str
    step_key: str
    answered: "asyncio.Future[bytes]"


@dataclass(frozen=True)
class _Mark:
    """What to do when all that was said before is stored."""

    key: str
    then: Then


class EventRelay:
    """Takes events of deliveries, by their keys.

    Args:
        store: Where they go; None where children store them.
        questions: What asks the database for steps.
        may_store: Whether this worker's lease is good, called in that thread.
    """

    def __init__(
        self,
        store: EventStore | None,
        questions: FirstQuestions | None,
        may_store: Callable[[], bool],
    ) -> None:
        self._store = store
        self._questions = questions
        self._may_store = may_store
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[_Said | _Mark | _Question] = deque()
        self._more = threading.Event()
        #: Deliveries that have said something; in the event loop.
        self._known: set[str] = set()
        self._dropped: set[str] = set()
        self._failed: dict[str, str] = {}
        self._away = False
        if store is not None:
            threading.Thread(
                target=self._work, args=[store], name="event-relay", daemon=True
            ).start()

    # -- in the event loop

    @property
    def has_store(self) -> bool:
        """Whether it can take events."""
        return self._store is not None

    def take(self, key: str, row: bytes) -> None:
        """Store an event of a delivery, packed, after those that came before."""
        self._known.add(key)
        self._put(_Said(key, EventRow.unpacked(row)))

    def when_stored(self, key: str, then: Then) -> None:
        """Call ``then`` when all that came of a delivery is stored, or cannot be."""
        if key in self._known:
            self._put(_Mark(key, then))
        else:
            then("")  # whatever others wait for

    async def stored(self, key: str) -> str:
        """Wait until all that came of a delivery is stored.

        Returns:
            Why it was not; '' when it was.
        """
        answered: asyncio.Future[str] = self._loop.create_future()
        self.when_stored(key, lambda why: None if answered.done() else answered.set_result(why))
        return await answered

    def drop(self, key: str) -> None:
        """Store nothing more of a delivery: it was taken from this worker."""
        self._dropped.add(key)

    def forget(self, key: str) -> None:
        """Know nothing more of a delivery whose process is gone."""

        def forget(_why: str) -> None:
            self._known.discard(key)
            self._dropped.discard(key)
            self._failed.pop(key, None)

        self.when_stored(key, forget)

    async def first_answers(self, run_id: str, step_key: str) -> bytes:
        """Return what a step asks the database first; b"" when it has to ask itself."""
        if self._questions is None:
            return b""
        answered: asyncio.Future[bytes] = self._loop.create_future()
        self._put(_Question(run_id, step_key, answered))
        return await answered

    def _put(self, said: _Said | _Mark | _Question) -> None:
        self._arrived.append(said)
        self._more.set()

    # -- in its thread

    def _work(self, store: EventStore) -> None:
        while True:
            self._more.wait()
            self._more.clear()
            while self._arrived:
                said, others = self._next_batch()
                try:
                    for group in self._groups(said, store):
                        self._store_group(group, store)
                except Exception as error:  # noqa: BLE001  (a defect; nobody waits for ever for it)
                    for each in said:
                        self._fail(each, error)
                answers = [self._answer_to(each) for each in others]
                if answers:
                    with contextlib.suppress(RuntimeError):  # the loop has ended
                        self._loop.call_soon_threadsafe(_tell, answers)

    def _answer_to(self, asked: _Mark | _Question) -> Callable[[], None]:
        """Return what tells the answer, to be called in the event loop."""
        if isinstance(asked, _Mark):
            return partial(asked.then, self._failed.get(asked.key, ""))
        answers = b""
        try:
            if self._questions is not None:
                answers = self._questions.ask(asked.run_id, asked.step_key)
        except Exception as error:  # noqa: BLE001  (whatever a storage raises: its child asks itself)
            logger.warning(
                "The database could not be asked for a step: %s", error,
                extra=about(Action.DATABASE_AWAY),
            )  # fmt: skip
        return partial(_set, asked.answered, answers)

    def _next_batch(self) -> tuple[Sequence[_Said], Sequence[_Mark | _Question]]:
        said: list[_Said] = []
        others: list[_Mark | _Question] = []
        size = 0
        while self._arrived and len(said) < _MOST_EVENTS and size < _MOST_BYTES:
            each = self._arrived.popleft()
            if isinstance(each, _Said):
                said.append(each)
                size += len(each.row.event)
            else:
                others.append(each)
        return said, others

    @staticmethod
    def _groups(said: Sequence[_Said], store: EventStore) -> Iterator[Sequence[_Said]]:
        group: list[_Said] = []
        for each in said:
            if group and not store.go_together(group[0].row, each.row):
                yield group
                group = []
            group.append(each)
        if group:
            yield group

    def _store_group(
        self, group: Sequence[_Said], store: EventStore, *, again: bool = False
    ) -> None:
        """Store events that go together; returns when they are, or are not to be.

        Args:
            group: The events.
            store: Where they go.
            again: They are perhaps stored already.
        """
        failures = 0
        while wanted := [each for each in group if self._is_wanted(each.key)]:
            if not self._may_store():
                time.sleep(_LEASE_S)
                continue
            try:
                store.store(
                    [each.row for each in wanted], again=again, may_store=partial(self._may, wanted)
                )
            except NotNow:
                again = True
            except Exception as error:  # noqa: BLE001  (whatever a storage raises)
                failures += 1
                again = again or store.is_of_an_outage(error) or not wanted[0].row.is_only_a_row
                if store.is_of_an_outage(error) and not self._breaks_it(failures, store):
                    self._wait_for_database(error)
                elif len(wanted) == 1:
                    self._fail(wanted[0], error)
                else:
                    for each in wanted:  # whose fault is it?
                        self._store_group([each], store, again=again)
                    return
            else:
                self._say_away(None)
                return

    def _may(self, wanted: Sequence[_Said]) -> bool:
        return self._may_store() and all(self._is_wanted(each.key) for each in wanted)

    @staticmethod
    def _breaks_it(failures: int, store: EventStore) -> bool:
        """Return whether it is the events themselves that end each session that stores them."""
        return failures % _FAILURES_OF_ITS_OWN == 0 and store.answers()

    def _is_wanted(self, key: str) -> bool:
        return key not in self._dropped and key not in self._failed

    def _fail(self, said: _Said, error: Exception) -> None:
        logger.error(
            "An event of %s could not be stored.", said.key, exc_info=error,
            extra=about(Action.EVENT_NOT_STORED),
        )  # fmt: skip
        self._failed[said.key] = str(error).partition("\n")[0] or type(error).__name__

    def _wait_for_database(self, error: Exception) -> None:
        self._say_away(error)
        time.sleep(_AWAY_S)

    def _say_away(self, error: Exception | None) -> None:
        if error is not None and not self._away:
            said = str(error).partition("\n")[0]
            logger.warning(
                "The database is away; events wait for it: %s", said,
                extra=about(Action.DATABASE_AWAY),
            )  # fmt: skip
        elif error is None and self._away:
            logger.warning("The database is back.", extra=about(Action.DATABASE_BACK))
        self._away = error is not None


def _set(answered: "asyncio.Future[bytes]", answers: bytes) -> None:
    if not answered.done():
        answered.set_result(answers)


def _tell(answers: Sequence[Callable[[], None]]) -> None:
    for each in answers:
        each()
