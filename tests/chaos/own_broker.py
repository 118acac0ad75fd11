"""A Valkey of one test's own, which it may kill, start again, and make forget."""

import signal
import subprocess
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dagster_taskiq_kit.dev.embedded_broker import find_server, free_port, start_embedded
from dagster_taskiq_kit.host.process_group import ProcessGroup


class OwnBroker:
    """A Valkey on a port that stays the same."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        self._folder = folder
        self._environment = environment
        self._port = free_port()
        self._group = ProcessGroup()
        self._group.__enter__()
        self.url = start_embedded(self._group, folder, self._port, environment)

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self._port, retry=Retry(NoBackoff(), 0))

    def kill(self) -> None:
        program, _ = self._group._programs[-1]
        program.send_signal(signal.SIGKILL)
        program.wait(20)
        self._group.stop()

    def signal(self, number: int) -> None:
        program, _ = self._group._programs[-1]
        program.send_signal(number)

    def start(self) -> None:
        self._group.__enter__()
        start_embedded(self._group, self._folder, self._port, self._environment)

    def start_loading_slowly(self) -> None:
        """Start it so that it answers -LOADING until ``key-load-delay`` is set to 0."""
        self._group.__enter__()
        options = {
            "port": self._port, "bind": "127.0.0.1", "dir": self._folder, "appendonly": "yes",
            "save": "", "key-load-delay": 1_000,
            "loading-process-events-interval-bytes": 1024,
        }  # fmt: skip
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self._group.start([find_server(), *arguments], output=subprocess.DEVNULL)

    def _journal(self) -> Path:
        return max((self._folder / "appendonlydir").glob("*.incr.aof"))

    def size(self) -> int:
        """The length of the append-only file: what a crash now would leave."""
        return self._journal().stat().st_size

    def forget_since(self, size: int) -> None:
        """Kill it, cut the append-only file, and start it again."""
        self.kill()
        with self._journal().open("r+b") as journal:
            journal.truncate(size)
        self.start()

    def stop(self) -> None:
        self._group.stop()

    close = stop
