"""One delivery that a worker holds, from its claim to its end, and what was decided about it.

Invariant: a delivery is held from the moment in which its claim was answered, so that a renewal
names it, a cancel finds it and a drain gives it back, whether or not it has a process yet.
"""

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from ...broker.records import Delivery
from ...host.boot_time import boot_time_s
from ...vocabulary.messages import Message
from ...vocabulary.states import Kind
from ..process.execution import Execution
from ..process.fork_client import ForkServerClient
from .until_either import until_either
from .verdict import Facts, Phase

#: A database that takes longer to answer is away.
_ANSWERS_WITHIN_S = 5.0
_LAST_BYTES = 4_096
_LAST_LINES = 10


class Held:
    """One delivery and what was decided about it so far.

    Args:
        delivery: What was claimed.
    """

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.message: Message | None = None
        self.server: ForkServerClient | None = None
        #: Its process, once it has one.
        self.execution: Execution | None = None
        #: What its step will ask the database first, read by this worker.
        self.first_answers: asyncio.Future[bytes] | None = None
        #: The delivery by which the message runs here already, when the broker forgot that.
        self.forgotten: Held | None = None
        #: Somebody follows it to its end.
        self.followed = False
        self._phase = Phase.CLAIMED
        #: Its body was allowed to begin.
        self.began = False
        self._began_s = 0.0
        self.cancelled = False
        #: A run whose executor can go on elsewhere where its log left off.
        self.resumable = False
        self.given_back = False
        #: The fork server killed it because nobody renewed the lease.
        self.expired = False
        #: Why it was killed for exceeding a limit.
        self.limit = ""
        self.timer: asyncio.TimerHandle | None = None
        #: Where its step writes ``out`` and ``err``, once it does.
        self.output_files: Mapping[str, str] = {}
        #: It was decided that it shall not go on.
        self.stopped = asyncio.Event()
        #: Its process is gone and nothing of it is held any more.
        self.gone = asyncio.Event()

    def reach(self, phase: Phase) -> None:
        """Go on to a phase; one that was left behind is not gone back to."""
        if phase is Phase.BEGUN and not self.began:
            self.began, self._began_s = True, boot_time_s()
        if phase.value > self._phase.value:
            self._phase = phase

    @property
    def ran_s(self) -> float:
        """For how long it has run; 0 before it has begun."""
        return boot_time_s() - self._began_s if self.began else 0.0

    @property
    def ending(self) -> bool:
        """Whether its outcome is on its way to the broker, or there."""
        return self._phase.value >= Phase.ENDING.value

    @property
    def over(self) -> bool:
        """Whether nothing more is to be written for it."""
        return self._phase is Phase.OVER

    def facts(self, exit_code: int | None) -> Facts:
        """Return what is known of it, now that its process is gone.

        Args:
            exit_code: As of ``waitpid``; None when its fork server died first.
        """
        return Facts(
            begun=self.began,
            is_run=self.delivery.kind is Kind.RUN,
            cancelled=self.cancelled,
            expired=self.expired,
            given_back=self.given_back,
            over_limit=bool(self.limit),
            with_fork_server=exit_code is None,
        )

    def send(self, number: int) -> None:
        """Send a signal to its process; without one, have it not begin."""
        self.stopped.set()
        if self.server is not None and self.execution is not None:
            self.server.signal(self.execution.key, number)

    async def answers_in_time(self) -> bytes:
        """Return what its child would ask first; b"" when it had better ask itself."""
        answers = self.first_answers
        if answers is None:
            return b""
        await until_either(asyncio.wait([answers]), self.stopped.wait(), _ANSWERS_WITHIN_S)
        return answers.result() if answers.done() else b""

    def last_lines(self) -> str:
        """Return the end of what its step wrote to stderr, for whoever asks why it died."""
        if "err" not in self.output_files:
            return ""
        try:
            with Path(self.output_files["err"]).open("rb") as written:
                written.seek(0, os.SEEK_END)
                written.seek(max(0, written.tell() - _LAST_BYTES))
                lines = written.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return "\nLast lines of its stderr:\n" + "\n".join(lines[-_LAST_LINES:]) if lines else ""


def death_in_words(exit_code: int | None) -> str:
    """Return how a process died that said nothing itself.

    Args:
        exit_code: As of ``waitpid``, negative for a signal; None when its fork server died first.
    """
    if exit_code is None:
        return "Its process was killed because the fork server died or did not answer."
    if exit_code >= 0:
        return f"Its process left with exit code {exit_code} and without a word."
    name = signal.Signals(-exit_code).name
    hint = " The kernel does that when memory runs out." if name == "SIGKILL" else ""
    return f"Its process was killed by {name}.{hint}"
