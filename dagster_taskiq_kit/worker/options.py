"""What an operator chooses for one worker.

Invariant: options that can never work are refused before the worker connects to anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..code_locations.code_location import CodeLocation
from ..vocabulary.errors import ConfigurationError

MEMORY_OPTION = "--max-memory-per-child"


@dataclass(frozen=True)
class WorkerOptions:
    """What an operator chooses for one worker.

    Args:
        name: Its name, for people.
        queues: Where it takes work from.
        slots: Steps at once; 0 for a worker that executes none.
        run_slots: Runs at once; 0 for a worker that executes none.
        locations: The code it may execute.
        max_memory_mib: Memory of its own at which a child is killed, in MiB; None for no limit.
        prints_steps: Whether what steps print is printed by the worker, too.

    Raises:
        ConfigurationError: A number is negative, or both are 0.
    """

    name: str
    queues: Sequence[str]
    slots: int
    run_slots: int
    locations: Sequence[CodeLocation]
    max_memory_mib: int | None = None
    prints_steps: bool = True

    def __post_init__(self) -> None:
        for option, number in (("--slots", self.slots), ("--run-slots", self.run_slots)):
            if number < 0:
                raise ConfigurationError(f"{option} is {number}: it must be 0 or more.", option)
        if self.max_memory_mib is not None and self.max_memory_mib <= 0:
            raise ConfigurationError(
                f"{MEMORY_OPTION} is {self.max_memory_mib}: it must be above 0 (MiB).",
                MEMORY_OPTION,
            )
        if self.slots + self.run_slots == 0:
            raise ConfigurationError("A worker with 0 --slots and 0 --run-slots executes nothing.")
