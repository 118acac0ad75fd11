"""Rules on the Redis or Valkey server.

Invariant: what the server does not tell is a warning, never ``ok``.
"""

from collections.abc import Callable, Sequence

from ..config.settings import TaskiqSettings
from .findings import Finding, Severity
from .snapshot import Snapshot

LATENCY_WARN_S = 0.25
MEMORY_WARN, MEMORY_ERROR = 0.75, 0.9
CLIENTS_WARN = 0.9


def _reachable(snapshot: Snapshot, _settings: TaskiqSettings) -> Finding:
    latency_s = snapshot.server.latency_s
    slow = latency_s > LATENCY_WARN_S
    return Finding(
        "redis",
        "reachable",
        Severity.WARN if slow else Severity.OK,
        f"{snapshot.server.version or 'The broker'} answered in {latency_s * 1000:.1f} ms.",
        "Look for slow commands (SLOWLOG GET), swapping, or a long way there." if slow else "",
        {"latency_ms": round(latency_s * 1000, 3)},
        f"warn > {LATENCY_WARN_S * 1000:.0f} ms, error when it does not answer",
    )


def _durability(snapshot: Snapshot, _settings: TaskiqSettings) -> Finding:
    server = snapshot.server
    thresholds = "warn without append-only file, error when keys may be evicted or writes fail"

    def verdict(
        severity: Severity, sentence: str, remedy: str = "", *, known: bool = True
    ) -> Finding:
        return Finding("redis", "durability", severity, sentence, remedy, {}, thresholds, known)

    if server.eviction_policy not in (None, "noeviction"):
        return verdict(
            Severity.ERROR,
            f"maxmemory-policy is {server.eviction_policy!r}: queued work is thrown away when "
            "memory is full.",
            "Set maxmemory-policy to noeviction.",
        )
    if server.last_write_ok is False:
        return verdict(
            Severity.ERROR,
            "The last write of the append-only file failed: the server refuses writes.",
            "Free space on the server's disk.",
        )
    if server.append_only is None:
        return verdict(
            Severity.WARN,
            "Not judged: the server does not tell whether it keeps an append-only file and "
            "whether it evicts keys (INFO is denied or renamed).",
            "Allow +info to this user, or see to it yourself that appendonly is yes and "
            "maxmemory-policy noeviction.",
            known=False,
        )
    if not server.append_only:
        return verdict(
            Severity.WARN,
            "Append-only persistence is off: a restart of the server forgets what is queued.",
            "Set appendonly yes.",
        )
    return verdict(Severity.OK, "Append-only persistence is on and nothing is evicted.")


def _memory(snapshot: Snapshot, _settings: TaskiqSettings) -> Finding:
    server = snapshot.server
    used, own_limit = server.used_memory_bytes, server.max_memory_bytes
    limit = own_limit or server.system_memory_bytes
    thresholds = (
        f"warn > {MEMORY_WARN:.0%} of memory or > {CLIENTS_WARN:.0%} of connections, "
        f"error > {MEMORY_ERROR:.0%} of memory"
    )
    if used is None or not limit:
        return Finding(
            "redis",
            "memory",
            Severity.WARN,
            "Not judged: the server does not tell how much memory it uses and how many connections "
            "it has (INFO is denied or renamed).",
            "Allow +info to this user, or watch its memory where it is managed.",
            {},
            thresholds,
            known=False,
        )
    share = used / limit
    whose = "maxmemory" if own_limit else "its host's memory"
    sentence = f"{_mib(used)} used, {share:.0%} of {whose} ({_mib(limit)})."
    numbers: dict[str, float | int] = {
        "used_memory_mib": round(used / 2**20, 1), "used_memory_percent": round(100 * share, 1),
    }  # fmt: skip
    crowded = False
    if server.clients is not None and server.max_clients:
        numbers["clients"] = server.clients
        crowded = server.clients > CLIENTS_WARN * server.max_clients
        sentence += f" {server.clients} of {server.max_clients} connections."
    full = share > MEMORY_WARN
    severity = (
        Severity.ERROR if share > MEMORY_ERROR
        else Severity.WARN if full or crowded else Severity.OK
    )  # fmt: skip
    remedies = ["Give the server more memory, or purge what nobody needs."] if full else []
    remedies += ["Raise maxclients, or stop processes that connect too often."] if crowded else []
    return Finding("redis", "memory", severity, sentence, " ".join(remedies), numbers, thresholds)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.0f} MiB"


SERVER_RULES: Sequence[Callable[[Snapshot, TaskiqSettings], Finding]] = (
    _reachable, _durability, _memory,
)  # fmt: skip
