"""Where a scrape takes its metrics from: the broker at once, anything slow in a period of its own.

Invariant: a source that fails costs its own metrics and nothing else, and says so in metrics of the
exporter. A scrape never waits for a database: it gets what was read last.
"""

import logging
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from ..broker.connection import SyncConnection
from ..broker.histograms import read_histograms
from ..config.settings import TaskiqSettings
from ..health.rules import judge, with_published_objectives
from ..health.snapshot import read_snapshot
from ..version import __version__
from ..vocabulary.errors import BrokerError
from ..vocabulary.log_actions import Action, about
from .collector import MOST_QUEUES, BrokerReading, absent, collect
from .families import Families, together

logger = logging.getLogger(__name__)

#: A scrape has ten seconds by default, and often less: a server that hangs is given up well within
#: them, one that refuses at once.
GIVE_UP_S = 0.5
#: Periods without a new reading after which the last one is not told any more.
_STALE_AFTER_PERIODS = 4
#: How long a reading may take: code locations are loaded in it.
_MAY_TAKE_S = 60.0
_HASTY = {"connect_timeout_s": 2.0, "command_timeout_s": 2.5, "give_up_s": GIVE_UP_S}

Read = Callable[[], Families]


@dataclass(frozen=True)
class Reading:
    """The outcome of one reading of a source.

    Args:
        families: What it said; None when it failed.
        took_s: How long it took.
        at_s: When it ended, seconds since 1970; for people, since that clock may be set.
        ended_s: The same on the monotonic clock.
    """

    families: Families | None
    took_s: float
    at_s: float
    ended_s: float


def read_once(name: str, read: Read) -> Reading:
    """Read a source; what it raises is logged."""
    began_s, families = time.perf_counter(), None
    try:
        families = read()
    except BrokerError as error:
        logger.warning("Collector %s: %s", name, error, extra=about(Action.COLLECTOR_FAILED))
    except Exception:
        logger.exception("Collector %s failed.", name, extra=about(Action.COLLECTOR_FAILED))
    return Reading(families, time.perf_counter() - began_s, time.time(), time.monotonic())


def hasty(settings: TaskiqSettings) -> TaskiqSettings:
    """Return a deployment with the patience of somebody who looks again soon."""
    patience = {name: min(getattr(settings, name), most) for name, most in _HASTY.items()}
    return settings.model_copy(update=patience)


class BrokerSource:
    """The broker, read at each scrape.

    Args:
        settings: The deployment.
        per_worker: Whether to add series for each single worker.
        most_queues: Queues with series of their own.
    """

    def __init__(
        self, settings: TaskiqSettings, *, per_worker: bool = False, most_queues: int = MOST_QUEUES
    ) -> None:
        self._settings = settings
        self._connection = SyncConnection(hasty(settings))
        self._per_worker = per_worker
        self._most_queues = most_queues
        self.server = ""

    def __call__(self) -> Families:
        """Read it.

        Raises:
            BrokerError: It does not answer in time, or refuses us.
        """
        snapshot = read_snapshot(self._connection)
        self.server = snapshot.server.version or ""
        settings = with_published_objectives(snapshot, self._settings)
        reading = BrokerReading(
            snapshot, read_histograms(self._connection), judge(snapshot, settings), settings
        )
        return collect(reading, per_worker=self._per_worker, most_queues=self._most_queues)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class PeriodicSource:
    """A source that a thread reads again and again; a scrape takes what was read last.

    Args:
        name: Its name, for the log.
        read: Reads it.
        every_s: Pause between two readings.
    """

    def __init__(self, name: str, read: Read, every_s: float) -> None:
        self._name = name
        self._read = read
        self._every_s = every_s
        self._stop = threading.Event()
        self._begun = Reading(None, 0.0, time.time(), time.monotonic())
        self._last: Reading | None = None
        self._thread = threading.Thread(target=self._go_on, name=f"collector-{name}", daemon=True)

    @property
    def last(self) -> Reading:
        """What was read last; without families when it is so old that its thread must hang."""
        if self._last is None:
            return replace(self._begun, took_s=time.monotonic() - self._begun.ended_s)
        silent_s = time.monotonic() - self._last.ended_s
        if silent_s > _STALE_AFTER_PERIODS * self._every_s + _MAY_TAKE_S:
            return replace(self._last, families=None)
        return self._last

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; what is being read is read to its end."""
        self._stop.set()

    def _go_on(self) -> None:
        while not self._stop.is_set():
            self._last = read_once(self._name, self._read)
            self._stop.wait(self._every_s)


class Scrape(Collector):
    """Everything that one scrape answers.

    Args:
        broker: The broker.
        others: Further sources by collector name.
    """

    def __init__(
        self, broker: BrokerSource, others: Mapping[str, PeriodicSource] | None = None
    ) -> None:
        self._broker = broker
        self._others = others or {}

    def collect(self) -> Iterator[Metric]:
        """Read the broker, and tell what the others said last."""
        readings = {"broker": read_once("broker", self._broker)}
        readings |= {name: each.last for name, each in self._others.items()}
        told = [readings["broker"].families or absent()]
        told += [each.families for name, each in readings.items() if name != "broker"
                 and each.families is not None]  # fmt: skip
        yield from together([*told, self._about_us(readings)])

    def _about_us(self, readings: Mapping[str, Reading]) -> Families:
        families = Families()
        families.gauge(
            "exporter_build_info", 1, version=__version__, server=self._broker.server,
            python_version=platform.python_version(),
        )  # fmt: skip
        for name, reading in readings.items():
            worked = reading.families is not None
            families.gauge("exporter_collector_duration_seconds", reading.took_s, collector=name)
            families.gauge("exporter_collector_success", worked, collector=name)
            families.gauge("exporter_collector_timestamp_seconds", reading.at_s, collector=name)
        return families

    def is_ready(self) -> bool:
        """Return whether the broker answers."""
        with suppress(BrokerError):
            self._broker()
            return True
        return False
