"""Outlasts a broker that is away, on behalf of an orchestrator: an outage fails no run.

Invariant: whoever waits here is woken by a signal; the run's log says once when an outage begins
and once when it ends.
"""

from collections.abc import Callable
from typing import Any

from ..broker import records
from ..broker.connection import SyncConnection
from ..dagster_internals import names as internals
from ..host.wake_up import WakeUp
from ..vocabulary.errors import BrokerUnavailable, OlderWorkers

_PROBE_S = 1.0


class BrokerOutages:
    """Waits for the broker of one run.

    Args:
        broker: The broker.
        run_id: The run.
        wake_up: What ends a wait.
        say: Writes a sentence into the run's log.
    """

    def __init__(
        self, broker: SyncConnection, run_id: str, wake_up: WakeUp, say: Callable[[str], None]
    ) -> None:
        self._broker = broker
        self._run_id = run_id
        self._wake_up = wake_up
        self._say = say
        self._said_of_older = ""

    def through(self, ask: Callable[[], Any]) -> Any:
        """Ask until the broker answers.

        Raises:
            DagsterExecutionInterruptedError: The run was interrupted meanwhile.
        """
        while True:
            try:
                return ask()
            except OlderWorkers as error:
                if str(error) != self._said_of_older:
                    self._say(str(error))
                self._said_of_older = str(error)
                self._wake_up.wait(_PROBE_S)
                if internals.check_captured_interrupt():
                    raise internals.DagsterExecutionInterruptedError from error
            except BrokerUnavailable as error:
                self.wait_out(error)

    def wait_out(self, error: BrokerUnavailable) -> None:
        """Wait until the broker can write again.

        Raises:
            DagsterExecutionInterruptedError: The run was interrupted meanwhile.
        """
        self._say(f"{error} Waiting for it; steps that run go on.")
        # A server that loads, fails over or is full answers a ping; it is back when it can write.
        write = records.take_turn("probe", self._run_id)
        while not internals.check_captured_interrupt():
            try:
                self._broker.run(write, give_up_s=0)
            except BrokerUnavailable:
                self._wake_up.wait(_PROBE_S)
            else:
                self._say("The broker is back.")
                return
        raise internals.DagsterExecutionInterruptedError
