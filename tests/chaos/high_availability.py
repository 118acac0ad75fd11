"""A Valkey with a replica under a Sentinel, and a Cluster of two nodes, of one test's own."""

import contextlib
import subprocess
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dagster_taskiq_kit.dev.embedded_broker import find_server, free_port
from dagster_taskiq_kit.host.process_group import ProcessGroup, wait_until

PASSWORD = "open-sesame"


def client_of(port: int, **options) -> redis.Redis:
    return redis.Redis(port=port, retry=Retry(NoBackoff(), 0), socket_timeout=5, **options)


class Servers:
    """Servers that end with the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._group = ProcessGroup()
        self._group.__enter__()
        self._programs: dict[int, subprocess.Popen] = {}
        self.bus_ports: dict[int, int] = {}

    def start(self, *arguments: str, **options: str) -> int:
        """Start a server on a port of its own; returns the port."""
        port = free_port()
        folder = self._folder / str(port)
        folder.mkdir(parents=True)
        given = {"port": str(port), "bind": "127.0.0.1", "dir": str(folder), **options}
        if "cluster-enabled" in options:  # else it is the port + 10,000, which may not exist
            given["cluster-port"] = str(self.bus_ports.setdefault(port, free_port()))
        flags = [part for name, value in given.items() for part in (f"--{name}", *value.split())]
        command = [find_server(), *arguments, *flags, "--logfile", str(folder / "server.log")]
        self._programs[port] = self._group.start(command, output=subprocess.DEVNULL)
        return port

    def wait_for(self, port: int, **options) -> redis.Redis:
        client = client_of(port, **options)
        assert until(client.ping), f"server on {port} did not start"
        return client

    def kill(self, port: int) -> None:
        self._programs[port].kill()
        self._programs[port].wait(20)

    def stop(self) -> None:
        self._group.stop()


def until(condition) -> bool:
    def holds() -> bool:
        with contextlib.suppress(redis.RedisError, IndexError):
            return bool(condition())
        return False

    return wait_until(holds, 60)


class SentinelPair:
    """A primary with a password and its replica, watched by one Sentinel."""

    def __init__(self, folder: Path) -> None:
        self.servers = Servers(folder)
        options = {"appendonly": "yes", "save": "", "requirepass": PASSWORD}
        options |= {"masterauth": PASSWORD, "maxmemory-policy": "noeviction"}
        self.primary = self.servers.start(**options | {"save": '""'})
        self.servers.wait_for(self.primary, password=PASSWORD)
        replica_of = {"replicaof": f"127.0.0.1 {self.primary}", "save": '""'}
        self.replica = self.servers.start(**options | replica_of)
        replica = self.servers.wait_for(self.replica, password=PASSWORD)
        assert until(lambda: replica.info("replication")["master_link_status"] == "up")
        file = folder / "sentinel.conf"
        file.write_text(
            f"sentinel monitor mine 127.0.0.1 {self.primary} 1\n"
            f"sentinel auth-pass mine {PASSWORD}\n"
            "sentinel down-after-milliseconds mine 1000\n"
            "sentinel failover-timeout mine 5000\n"
        )
        self.sentinel = self.servers.start(str(file), "--sentinel")
        watching = self.servers.wait_for(self.sentinel)
        assert until(lambda: watching.sentinel_slaves("mine")), "the Sentinel saw no replica"
        self.url = f"redis+sentinel://:{PASSWORD}@127.0.0.1:{self.sentinel}/mine/0"


class ClusterOfTwo:
    """Two primaries, half of the slots each, and a replica of the one that holds a namespace."""

    def __init__(self, folder: Path, namespace: str) -> None:
        self.servers = Servers(folder)
        options = {"cluster-enabled": "yes", "appendonly": "yes", "save": '""'}
        options |= {"maxmemory-policy": "noeviction", "cluster-node-timeout": "5000"}
        ports = [self.servers.start(**options) for _ in range(3)]
        clients = [self.servers.wait_for(port) for port in ports]
        slot = clients[0].execute_command("CLUSTER", "KEYSLOT", "{" + namespace + "}")
        halves = [(0, 8191), (8192, 16383)]
        if slot > 8191:
            halves.reverse()
        # The first node holds the namespace, the third repeats it; the seed is the second.
        for client, (low, high) in zip(clients[:2], halves, strict=True):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", low, high)
        for port in ports[1:]:
            bus_port = self.servers.bus_ports[port]
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port, bus_port)
        first = clients[0].execute_command("CLUSTER", "MYID")
        replicate = ("CLUSTER", "REPLICATE", first)
        assert until(lambda: clients[2].execute_command(*replicate)), "no replica"
        for client in clients[:2]:
            assert until(lambda c=client: b"cluster_state:ok" in raw_cluster_info(c))
        assert until(lambda: clients[2].info("replication")["master_link_status"] == "up")
        self.owner, self.seed, self.replica = ports
        self.take_over = lambda: clients[2].execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
        self.url = f"redis+cluster://127.0.0.1:{self.seed}"


def raw_cluster_info(client: redis.Redis) -> bytes:
    answer = client.execute_command("CLUSTER", "INFO")
    return answer if isinstance(answer, bytes) else str(answer).encode()
