"""The least user of a Redis or Valkey with which everything of the kit works.

Invariant: it is made from the scripts themselves and from the few commands that are sent without
one; with no more than this a worker, a launcher, the exporter and every command do all they do.
"""

import re
from importlib import resources

from .keys import Keys

_CALL = re.compile(r"redis\.p?call\(\s*'([A-Z]+)'")

#: Sent by readings, bells, orders and results, without a script.
_SENT = {
    "del", "eval", "evalsha", "exec", "exists", "expire", "get", "getdel", "hget",
    "hgetall", "hmget", "multi", "ping", "sadd", "set", "smembers", "srem", "time",
    "ttl", "xadd", "xrange", "xread", "xrevrange", "zcard", "zrange", "zrangebyscore",
}  # fmt: skip
#: Sent by redis-py when it connects.
_CONNECTING = {"client|setname", "client|setinfo", "hello", "select"}
#: Without these the kit works, and doctor and status say what they cannot judge.
OPTIONAL = frozenset({"info"})


def needed_commands() -> frozenset[str]:
    """Return every command that the kit sends, in lower case."""
    folder = resources.files(__package__ or "") / "scripts"
    texts = (file.read_text() for file in folder.iterdir() if file.name.endswith(".lua"))
    called = {name.lower() for text in texts for name in _CALL.findall(text)}
    return frozenset((called | _SENT | _CONNECTING) - OPTIONAL)


def least_user(namespace: str, *, cluster: bool = False) -> str:
    """Return the rules of a user that may do what the kit does in one namespace.

    The scripts name the namespace itself as their key, so that a Cluster finds the node: it has to
    be allowed beside the keys below it.

    Args:
        namespace: The namespace.
        cluster: Whether nodes are asked where the keys are.
    """
    prefix = Keys(namespace).prefix
    names = sorted(needed_commands() | OPTIONAL | ({"cluster|slots"} if cluster else set()))
    commands = " ".join(f"+{name}" for name in names)
    return f"resetkeys ~{prefix} ~{prefix}:* resetchannels -@all {commands}"
