"""What launcher and orchestrator write and workers read, versioned.

Plain JSON and nothing else: nothing is ever unpickled, and no secret and no instance reference
travels (a worker's own ``DAGSTER_HOME`` decides, and must be the namespace's instance). The bytes
are those of an ordinary taskiq message, so any taskiq tool can read a payload.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..version import SCHEMA_VERSION
from .errors import MessageError
from .states import Kind

#: What reading data of a stranger can raise: deep nesting and infinite numbers included.
UNREADABLE = (
    ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError,
)  # fmt: skip
#: Shorter than any step: a limit that nothing could keep.
_SHORTEST_TIMEOUT_S = 0.01

#: Names under which the two Dagster kinds appear as taskiq tasks.
TASK_NAMES = {Kind.RUN: "dagster_taskiq_kit:run", Kind.STEP: "dagster_taskiq_kit:step"}


@dataclass(frozen=True)
class CodeName:
    """How a message names the code it wants executed; never a path to import blindly.

    A worker compares it with the code locations that it was started with and loads those through
    its own workspace and interpreter.

    Args:
        job: Name of the job.
        location: Name of the code location, when the run came from a workspace.
        repository: Name of the repository in it.
        pointer: ``module:NAME`` or ``file:PATH`` for runs without a location.
    """

    job: str
    location: str | None = None
    repository: str | None = None
    pointer: str | None = None

    def __str__(self) -> str:
        if self.location is not None:
            return f"job {self.job!r} of code location {self.location!r}"
        return f"job {self.job!r} of {self.pointer}"


@dataclass(frozen=True)
class RunMessage:
    """Execute a whole run, or resume it.

    Args:
        run_id: The Dagster run.
        code: Whose code to execute.
        resume_no: 0 for the first execution, then the number of the resume attempt.
        settle_s: How long to wait before going on, because the last owner may live still and must
            have had the time to see that it was replaced.
    """

    run_id: str
    code: CodeName
    resume_no: int = 0
    settle_s: float = 0.0

    @property
    def task_id(self) -> str:
        """The message's deterministic id."""
        return run_task_id(self.run_id, self.resume_no)


@dataclass(frozen=True)
class StepMessage:
    """Execute one attempt of one step.

    Args:
        run_id: The Dagster run.
        step_key: The step.
        attempt: Dagster's attempt, counting from 1.
        code: Whose code to execute.
        retry_mode: The retry mode of the plan inside the step, by Dagster's name.
        known_state: Dagster's serialized ``KnownExecutionState``, reduced to what the step needs.
        timeout_s: How long it may run, or None.
        tell_outputs: Whether the run's bell rings at each of its outputs, not only at its end.
        fuse_limit: How many steps of the run and the queue one process may execute, this one among
            them; 0 for a process of its own.
    """

    run_id: str
    step_key: str
    attempt: int
    code: CodeName
    retry_mode: str
    known_state: str
    timeout_s: float | None = None
    tell_outputs: bool = False
    fuse_limit: int = 0

    @property
    def task_id(self) -> str:
        """The message's deterministic id."""
        return step_task_id(self.run_id, self.step_key, self.attempt)


@dataclass(frozen=True)
class TaskMessage:
    """Execute a user's own taskiq task.

    Args:
        task_id: Its id, as taskiq gave it.
        run_id: The Dagster run that it is part of, and ends with; '' for none.
        code: The task's name, and the code location when it is known.
        payload: The taskiq message, as text.
    """

    task_id: str
    run_id: str
    code: CodeName
    payload: str


Message = RunMessage | StepMessage | TaskMessage

#: Labels of a taskiq task by which the kit knows the run it belongs to and the code it is in.
RUN_ID_LABEL = "dagster-taskiq/run_id"
LOCATION_LABEL = "dagster-taskiq/location"
#: Label of a step that may share its process.
FUSE_LIMIT_LABEL = "fuse_limit"


def run_task_id(run_id: str, resume_no: int) -> str:
    """Return the deterministic id of a run message, so that a repeated launch is the same one."""
    return f"run:{run_id}:{resume_no}"


def step_task_id(run_id: str, step_key: str, attempt: int) -> str:
    """Return the deterministic id of a step message, so that a repeated submit is the same one."""
    return f"step:{run_id}:{step_key}:{attempt}"


def kind_of(message: Message) -> Kind:
    """Return the kind under which a message is queued."""
    if isinstance(message, TaskMessage):
        return Kind.TASK
    return Kind.RUN if isinstance(message, RunMessage) else Kind.STEP


def encode(message: RunMessage | StepMessage) -> bytes:
    """Return the bytes of a taskiq message that carries ``message`` as its only argument."""
    data, labels = asdict(message), {}
    # What a worker of an earlier release may leave undone is a label: it refuses fields.
    if fuse_limit := data.pop("fuse_limit", 0):
        labels[FUSE_LIMIT_LABEL] = str(fuse_limit)
    body = {
        "task_id": message.task_id,
        "task_name": TASK_NAMES[kind_of(message)],
        "labels": {"schema": str(SCHEMA_VERSION), **labels},
        "labels_types": None,
        "args": [data],
        "kwargs": {},
    }
    return json.dumps(body, separators=(",", ":")).encode()


_CLASSES: Mapping[Kind, type[Message]] = {
    Kind.RUN: RunMessage,
    Kind.STEP: StepMessage,
    Kind.TASK: TaskMessage,
}


def from_data(kind: Kind, data: Mapping[str, Any]) -> Message:
    """Build a message from the plain data that ``dataclasses.asdict`` made of it.

    Raises:
        TypeError: A field is missing or unknown, or is not what it must be.
        ValueError: A number is out of its range.
        KeyError: It names no code.
    """
    values: dict[str, Any] = {**data, "code": CodeName(**data["code"])}
    message = _CLASSES[kind](**values)
    _check(message)
    _check(message.code)
    return message


_TYPES: Mapping[str, tuple[type, ...]] = {
    "attempt": (int,), "code": (CodeName,), "fuse_limit": (int,), "resume_no": (int,),
    "settle_s": (int, float), "tell_outputs": (bool,), "timeout_s": (int, float, type(None)),
    "location": (str, type(None)), "repository": (str, type(None)), "pointer": (str, type(None)),
}  # fmt: skip


def _check(data: Message | CodeName) -> None:
    for field in fields(data):
        value, wanted = getattr(data, field.name), _TYPES.get(field.name, (str,))
        if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
            raise TypeError(f"{field.name} is a {type(value).__name__}")
        if isinstance(value, int | float) and not 0 <= value < float("inf"):
            raise ValueError(f"{field.name} is {value}")
        if field.name == "timeout_s" and value is not None and value < _SHORTEST_TIMEOUT_S:
            raise ValueError(f"timeout_s is {value}")


def decode(task_id: str, kind: Kind, payload: bytes) -> Message:
    """Read the bytes that :func:`encode` wrote.

    Raises:
        MessageError: They are not a message of that kind, or are newer than this release.
    """
    if kind is Kind.TASK:
        return _decode_task(task_id, payload)
    try:
        body = json.loads(payload)
        schema = int(body["labels"]["schema"])
        task_name = body["task_name"]
    except UNREADABLE as error:
        raise MessageError(
            f"Message {task_id} is not a taskiq message of ours ({type(error).__name__}: {error}).",
            task_id,
        ) from error
    if schema > SCHEMA_VERSION:
        raise MessageError(
            f"Message {task_id} is of schema {schema}, newer than this worker's "
            f"{SCHEMA_VERSION}: update the worker.",
            task_id,
        )
    if task_name != TASK_NAMES.get(kind):
        raise MessageError(f"Message {task_id} asks for unknown task {task_name!r}.", task_id)
    try:
        (data,) = body["args"]
        if kind is Kind.STEP and FUSE_LIMIT_LABEL in body["labels"]:
            data = {**data, "fuse_limit": int(body["labels"][FUSE_LIMIT_LABEL])}
        return from_data(kind, data)
    except UNREADABLE as error:
        raise MessageError(f"Message {task_id} is not a {kind.value}: {error}.", task_id) from error


def _decode_task(task_id: str, payload: bytes) -> TaskMessage:
    try:
        said = payload.decode()
        body = json.loads(said)
        labels, name = dict(body["labels"]), str(body["task_name"])
    except UNREADABLE as error:
        raise MessageError(
            f"Message {task_id} is not a taskiq message ({type(error).__name__}: {error}).", task_id
        ) from error
    code = CodeName(name, location=labels.get(LOCATION_LABEL))
    return TaskMessage(task_id, str(labels.get(RUN_ID_LABEL, "")), code, said)
