"""What a server's refusals mean: whether one waits, asks for other rights, or needs another server.

Invariant: each code that a server answers with stands once in the table, and every connection goes
by it. A server that has let this process in before, and does not now, is about to be let in again:
a password or an ACL is being rotated. Only who was never let in is refused at once.
"""

from collections.abc import Mapping

import redis.exceptions

from ..vocabulary.errors import BrokerError, BrokerRefused, BrokerUnavailable, UnfitServer

_LATER = "it cannot take writes now"
_ROTATED = (
    "it refuses us, which it did not before. Waiting: if a password or an ACL was rotated, give "
    "this process the new one and restart it"
)
_REFUSED = "it refused us"
_RIGHTS = "Check user and password in the url, and the user's ACL."

#: Somebody wrote to a key of ours: scripts set it aside when they next come by.
WRONG_TYPE = "WRONGTYPE"

#: Codes by which a server says "not now", and what to say of them.
TRANSIENT: Mapping[str, str] = {
    "ASK": _LATER,
    "BUSY": "somebody's script keeps it busy; SCRIPT KILL ends one that has written nothing",
    "CLUSTERDOWN": _LATER,
    "FAILOVER": _LATER,
    "LOADING": "it is loading its data",
    "MASTERDOWN": _LATER,
    "MISCONF": "it cannot save to its disk and refuses writes: free space there",
    "MOVED": _LATER,
    "NOREPLICAS": "it wants more replicas than it has before it takes writes",
    "OOM": "its memory is full: give it more, or drain it",
    "READONLY": "it is a replica now",
    "TRYAGAIN": _LATER,
    "UNBLOCKED": _LATER,
    WRONG_TYPE: "a key of the kit's is of another type; a worker sets it aside when it comes by",
}
#: Codes by which it says "not you".
REFUSED = frozenset({"DENIED", "NOAUTH", "NOPERM", "WRONGPASS"})

#: redis-py takes these codes off the sentence and makes a class of each.
_OF_CLASSES: Mapping[type[Exception], str] = {
    redis.exceptions.AskError: "ASK",
    redis.exceptions.AuthenticationError: "WRONGPASS",
    redis.exceptions.AuthenticationWrongNumberOfArgsError: "WRONGPASS",
    redis.exceptions.AuthorizationError: "NOPERM",
    redis.exceptions.BusyLoadingError: "LOADING",
    redis.exceptions.ClusterDownError: "CLUSTERDOWN",
    redis.exceptions.MasterDownError: "MASTERDOWN",
    redis.exceptions.MovedError: "MOVED",
    redis.exceptions.NoPermissionError: "NOPERM",
    redis.exceptions.OutOfMemoryError: "OOM",
    redis.exceptions.ReadOnlyError: "READONLY",
    redis.exceptions.TryAgainError: "TRYAGAIN",
}


def code_of(error: Exception) -> str:
    """Return the code that a server answered with; '' when it answered with none that is known."""
    for its_class, code in _OF_CLASSES.items():
        if type(error) is its_class:
            return code
    for its_class, code in _OF_CLASSES.items():
        if isinstance(error, its_class):
            return code
    # Inside a script some servers put words of their own before it.
    known = TRANSIENT.keys() | REFUSED
    words = str(error).replace("-", " ").replace(":", " ").split()
    return next((word for word in words if word in known), "")


def as_our_error(url: str, error: Exception, *, let_in: bool = False) -> BrokerError:
    """Return our error for one that redis-py raised.

    Args:
        url: The broker.
        error: What redis-py raised, or the operating system.
        let_in: Whether that broker has let this process in before.
    """
    said = str(error) or type(error).__name__
    code = code_of(error)
    if code in REFUSED:
        if let_in:
            return BrokerUnavailable(url, f"{_ROTATED} ({said}).")
        return BrokerRefused(url, f"{_REFUSED} ({said}). {_RIGHTS}")
    if code in TRANSIENT:
        return BrokerUnavailable(url, f"{TRANSIENT[code]} ({said}).")
    if isinstance(error, redis.exceptions.ResponseError):
        return UnfitServer(url, f"it cannot execute our scripts ({said}).")
    return BrokerUnavailable(
        url, f"no answer ({said}). Is the server running, and is the url right?"
    )
