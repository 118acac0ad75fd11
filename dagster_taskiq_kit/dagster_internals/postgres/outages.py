"""Outlasts a PostgreSQL that is away: whoever needs it waits for it, for a bound.

Invariant: an outage has one deadline, whoever waits for its end and however often. An interrupt
shortens it: a process that was told to end does not outlast a database.

A host that falls silent is taken for away within half a minute, by TCP's own means.
"""

import contextlib
import contextvars
import logging
import time
import weakref
from collections.abc import Callable, Generator
from typing import Any

import dagster as dg

from ...vocabulary.log_actions import Action, about
from .. import names as internals

logger = logging.getLogger(__name__)

#: How long a process of ours waits for a database that is away.
_OUTLAST_S = 300.0
_PAUSE_S = 0.5
#: Failures that are further apart than this belong to two outages.
_QUIET_S = 60.0
#: How long it waits on when it was told to end.
_INTERRUPTED_S = 10.0

#: Options of libpq, where the url does not say otherwise: by itself it waits for hours.
_LIVELINESS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # ms
}
#: A server says so while, and after, another becomes the primary.
_READ_ONLY = "25006"
#: SQLSTATEs by which a server says "not now" (PostgreSQL's manual, appendix A). What it refused so
#: it has not done, and its transaction is rolled back before it is asked again.
_NOT_NOW = {
    _READ_ONLY,
    "40001", "40P01",  # it chose this transaction to give way to another
    "53000", "53100", "53200", "53300", "53400",  # disk, memory, connections, a limit of its own
    "55P03",  # a lock was not to be had in time
    "57P01", "57P02", "57P03", "57P05",  # it stops, crashes, starts, or closes an idle session
    "58000", "58030",  # its disk failed
}  # fmt: skip

_IMPATIENT = contextvars.ContextVar("impatient", default=False)


class Outage:
    """How long a database is to be waited for."""

    def __init__(self) -> None:
        self._deadline_s = 0.0
        self._failed_at_s = float("-inf")

    def wait(self, error: Exception) -> None:
        """Wait a moment, or raise ``error`` where it was waited long enough."""
        now_s = time.monotonic()
        if now_s - self._failed_at_s > _QUIET_S:
            self._deadline_s = now_s + _OUTLAST_S
        if internals.check_captured_interrupt():
            self._deadline_s = min(self._deadline_s, now_s + _INTERRUPTED_S)
        self._failed_at_s = now_s
        if now_s >= self._deadline_s or _IMPATIENT.get():
            raise error
        said = str(error).partition("\n")[0]
        logger.warning(
            "The database is away; waiting for it: %s", said, extra=about(Action.DATABASE_AWAY)
        )
        time.sleep(_PAUSE_S)
        self._failed_at_s = time.monotonic()


_outages: "weakref.WeakKeyDictionary[Any, Outage]" = weakref.WeakKeyDictionary()


def _outage_of(engine: Any) -> Outage:
    return _outages.setdefault(engine, Outage())


@contextlib.contextmanager
def impatience() -> Generator[None, None, None]:
    """Have a database that is away be an error at once, for what makes no sense later."""
    token = _IMPATIENT.set(True)
    try:
        yield
    finally:
        _IMPATIENT.reset(token)


def wait_to_connect(engine: Any) -> None:
    """Have an engine's new connections wait while the server is away or starts.

    What a step has computed for an hour is not lost because the database restarts when it ends.
    """
    from sqlalchemy import event

    outage = _outage_of(engine)

    def connect(dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
        for name, value in _LIVELINESS.items():
            options.setdefault(name, value)
        while True:
            try:
                return dialect.loaded_dbapi.connect(*arguments, **options)
            except dialect.loaded_dbapi.OperationalError as error:
                if not _may_pass(str(error)):
                    raise
                outage.wait(error)

    def leave_a_replica(context: Any) -> None:
        # A session that is kept stays with the server that was the primary: a new one finds who is.
        if getattr(context.original_exception, "pgcode", None) == _READ_ONLY:
            context.is_disconnect = True

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "handle_error", leave_a_replica)


def _may_pass(said: str) -> bool:
    """Return whether what a failed connection said is of an outage, not of a wrong setting."""
    return not any(word in said for word in ("authentication", "does not exist", "pg_hba"))


def open_instance_through_outages() -> dg.DagsterInstance:
    """Open the Dagster instance of this process, as soon as its database is there.

    A child that found it away would die, and spend a delivery of a message that is fine.
    """
    outage = Outage()
    while True:
        try:
            return dg.DagsterInstance.get()
        except Exception as error:
            if not is_of_an_outage(error):
                raise
            outage.wait(error)


def is_of_an_outage(error: BaseException) -> bool:
    """Return whether an error comes from a PostgreSQL that could not be reached."""
    cause: BaseException | None = error
    while cause is not None:
        driver = type(cause)
        if driver.__module__ == "psycopg2" and driver.__name__ == "OperationalError":
            return _may_pass(str(cause))
        cause = cause.__cause__ or cause.__context__
    return False


def repeat_through_outages(
    engine: Any, call: Callable[[], Any], again: Callable[[], Any] | None = None
) -> Any:
    """Make a call; where the connection breaks under it, make ``again`` (or the same) instead."""
    while True:
        try:
            return call()
        except Exception as error:
            if not broke(error, engine):
                raise
            _outage_of(engine).wait(error)
        call = again or call


def broke(error: BaseException, engine: Any) -> bool:
    """Return whether an error is of a connection that ended, or could not be had in time."""
    from sqlalchemy import exc

    if isinstance(error, exc.TimeoutError):
        return True  # other threads of this process wait for the same outage
    if isinstance(error, exc.DBAPIError):
        return error.connection_invalidated or getattr(error.orig, "pgcode", None) in _NOT_NOW
    if type(error).__name__ == "DagsterPostgresException" and error.__cause__ is not None:
        return broke(error.__cause__, engine) or is_of_an_outage(error)
    # A connection that is only being set up raises the driver's own error.
    return bool(engine.dialect.is_disconnect(error, None, None))
