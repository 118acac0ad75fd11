"""Turns: one worker does a duty for the whole fleet, and goes on with it.

Invariant: no clock of the broker decides whose turn it is. Who has the turn keeps it, and with it
what it remembers, until it leaves the registry, or has not come back to the duty for three rounds
of another worker's own boot clock.
"""

from collections.abc import Callable

from ...broker import records
from ...broker.scripts import Call
from ...host.boot_time import boot_time_s
from ...host.first_seen import FirstSeen

#: Rounds after which a holder that lives and does not do its duty is not waited for any longer.
_OVERDUE_ROUNDS = 3


class Turn:
    """One worker's part in taking turns.

    Args:
        duty: The duty.
        worker_id: This worker.
        every_s: How often each worker asks.
        clock: Returns seconds; default the boot clock.
    """

    def __init__(
        self,
        duty: str,
        worker_id: str,
        every_s: float,
        clock: Callable[[], float] = boot_time_s,
    ) -> None:
        self._duty = duty
        self._worker_id = worker_id
        self._overdue_s = _OVERDUE_ROUNDS * every_s
        self._seen = FirstSeen(self._overdue_s, clock)
        self._others = ""

    def ask(self) -> Call[bool]:
        """Return the call that asks whether it is this worker's turn."""
        overdue = self._others and self._seen.for_s(self._others) >= self._overdue_s * 0.9
        asking = records.take_turn(self._duty, self._worker_id, self._others if overdue else "")

        def read(answer: bytes) -> bool:
            self._others = asking.read(answer)
            self._seen.look([self._others])
            return not self._others

        return Call(asking.script, asking.arguments, read)
