"""What is measured: each job, who executes it, and in how many rounds.

Invariant: a contender takes part where it can be compared at all; one that needs minutes for a
single run takes part once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_OURS_AND_IN_PROCESS = ("taskiq", "in_process")


@dataclass(frozen=True)
class Measurement:
    """How a job is measured.

    Args:
        contenders: Who executes it.
        most_rounds: In how many rounds at most.
        serial: Whether its steps form a chain.
        if_asked: It is measured only where it is named.
    """

    contenders: Sequence[str]
    most_rounds: int = 1_000
    serial: bool = False
    if_asked: bool = False


#: By job. ``taskiq_8`` is the kit with 8 slots, otherwise it has as many as ``jobs.SLOTS`` says.
MEASUREMENTS: Mapping[str, Measurement] = {
    "chain": Measurement(("taskiq", "in_process", "celery", "multiprocess"), serial=True),
    "fan": Measurement(("taskiq", "taskiq_8", "in_process", "celery", "multiprocess")),
    "sleeps": Measurement(("taskiq_8",)),
    "fused": Measurement(_OURS_AND_IN_PROCESS, most_rounds=1, serial=True),
    "wide": Measurement(("taskiq",), most_rounds=1),
    "widest": Measurement(("taskiq",), most_rounds=1, if_asked=True),
    "dynamic": Measurement(("taskiq",), most_rounds=1, if_asked=True),
    "lines": Measurement(_OURS_AND_IN_PROCESS, most_rounds=1),
    "materializations": Measurement(_OURS_AND_IN_PROCESS, most_rounds=1),
    "metadata": Measurement(_OURS_AND_IN_PROCESS),
    "fibonacci_10": Measurement(_OURS_AND_IN_PROCESS, most_rounds=1, serial=True),
    "fibonacci_40": Measurement(_OURS_AND_IN_PROCESS, serial=True),
}
#: They take part once, and only where they are asked for.
SLOW_PEERS = ("multiprocess",)
