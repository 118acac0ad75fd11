"""Every Redis key, stated once: its name, type, owner and expiry.

All keys of a namespace share one hash tag, so that a Redis Cluster keeps them on one node and a
script may touch them together. The Lua prelude gets its key functions from this table.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """One family of keys.

    Args:
        parts: The parameters of its name, in order.
        type: Redis type.
        owner: Who writes it.
        expiry: When it goes away by itself.
        meaning: What it holds.
    """

    parts: tuple[str, ...]
    type: str
    owner: str
    expiry: str
    meaning: str


KEYS: dict[str, Key] = {
    "instance": Key(
        (), "string", "first user", "never", "Dagster instance the namespace belongs to"
    ),
    "schema": Key((), "string", "first user", "never", "highest schema version ever written"),
    "born": Key((), "string", "scripts", "never", "server time in ms when the namespace was made"),
    "record": Key(
        ("task_id",), "hash", "scripts", "outcome_ttl_s after its end", "the truth about a message"
    ),
    "result": Key(
        ("task_id",), "string", "its child", "outcome_ttl_s", "what a user's own task returned"
    ),
    "stream": Key(
        ("queue", "kind", "band"),
        "stream",
        "scripts",
        "never",
        "ids of what is queued; XLEN = backlog",
    ),
    "waiting": Key(
        ("queue", "kind"),
        "zset",
        "scripts",
        "never",
        "queued task ids by server ms of their submit; its head is exactly the oldest",
    ),
    "paused": Key((), "set", "operators", "never", "queues from which nothing is handed out"),
    "door": Key(
        ("queue", "kind"),
        "stream",
        "scripts",
        "never",
        "doorbell that wakes idle workers; holds 1 entry",
    ),
    "queues": Key(
        (), "zset", "scripts", "never", "names of all queues in use, by server ms of their first"
    ),
    "claimed": Key(
        ("queue",), "zset", "scripts", "never", "claimed task ids by server ms of the claim"
    ),
    "running": Key(
        ("queue",), "zset", "scripts", "never", "running task ids by server ms of the start"
    ),
    "run": Key(
        ("run_id",), "set", "scripts", "1 year after the last write", "task ids of a run, not ended"
    ),
    "open_runs": Key((), "set", "scripts", "never", "runs with a message that has not ended"),
    "bell": Key(
        ("run_id",),
        "stream",
        "scripts",
        "1 day after the last write",
        "what ended or wrote an output, for the orchestrator",
    ),
    "run_band": Key(
        ("run_id",), "string", "operators", "30 days", "band that a run was moved to by hand"
    ),
    "cancel": Key(("run_id",), "string", "launcher", "1 day", "the run was cancelled"),
    "workers": Key(
        (),
        "zset",
        "scripts",
        "never",
        "worker ids by expected end of lease (server ms), for health; a rescue goes by renewals",
    ),
    "worker": Key(("worker_id",), "hash", "its worker", "1 day after the lease", "a worker's card"),
    "held": Key(
        ("worker_id",), "set", "scripts", "by rescue", "task ids the server thinks it holds"
    ),
    "unnamed": Key(
        ("worker_id",),
        "hash",
        "scripts",
        "1 hour",
        "how often in a row a renewal did not name what the server thinks it holds",
    ),
    "recent": Key(
        ("queue",), "zset", "scripts", "1 hour", "redeliveries and losses of the last hour"
    ),
    "lost_workers": Key(
        (), "zset", "rescue", "1 hour", "workers given up in the last hour, by server ms"
    ),
    "watch": Key((), "string", "health sensor", "4 ticks", "which sensor reports health"),
    "watched": Key((), "string", "health sensor", "never", "server ms of its last tick"),
    "turn": Key(
        ("duty",), "hash", "scripts", "1 day after the last write", "whose turn at a duty it is"
    ),
    "claim": Key(
        ("worker_id", "lane"),
        "hash",
        "scripts",
        "1 hour",
        "answer to a lane's last claim, for a repeated call",
    ),
    "orders": Key(
        ("worker_id",),
        "stream",
        "scripts, commands",
        "1 hour",
        "orders to a worker: cancel, drain, reload",
    ),
    "unserved": Key(
        (), "set", "reconcile", "never", "run|queue for runs told that nobody serves their queue"
    ),
    "counters": Key((), "hash", "scripts", "never", "what happened, by event|queue|kind"),
    "histograms": Key(
        (), "hash", "scripts", "never", "waits and durations, by what|queue|kind|bucket"
    ),
    "objectives": Key(
        (), "hash", "health sensor", "never", "what each declared queue promises, as JSON"
    ),
    "dead": Key((), "stream", "scripts", "never", "dead letters: id, reason, payload"),
    "buried": Key(
        ("queue",), "zset", "scripts", "never", "entry ids of a queue's dead letters by server ms"
    ),
}


class Keys:
    """The key names of one namespace, for the few reads that are not scripts.

    Args:
        namespace: The namespace, without braces.
    """

    def __init__(self, namespace: str) -> None:
        self.prefix = "{" + namespace + "}"

    def name(self, family: str, *parts: str) -> str:
        """Return the name of one key.

        Args:
            family: A key of :data:`KEYS`.
            parts: Its parameters, in order.
        """
        if len(parts) != len(KEYS[family].parts):
            raise ValueError(f"key {family!r} takes {KEYS[family].parts}, got {parts}")
        return ":".join((self.prefix, family, *parts))


def lua_key_functions() -> str:
    """Return Lua source with functions for each family: ``key.record(task_id)`` and so on.

    ``raw.record(task_id)`` is the name alone, for who reads many and bears one of another type.
    """
    lines = ["local key, raw = {}, {}"]
    for family, key in KEYS.items():
        arguments = ", ".join(key.parts)
        name = " .. ':' .. ".join(["KEYS[1]", f"'{family}'", *key.parts])
        # A record of another type is condemned by who finds it: its message must not get lost.
        found = name if family == "record" else f"of_type({name}, '{key.type}')"
        lines.append(f"function key.{family}({arguments}) return {found} end")
        lines.append(f"function raw.{family}({arguments}) return {name} end")
    return "\n".join(lines)
