"""Processes whose wall clock a test moves, while their other clocks go on.

The library is libfaketime, which the program ``faketime`` brings; it reads the offset from a file at
each look at the clock, so that a clock jumps while its process runs.
"""

import os
import subprocess
from pathlib import Path

from .own_broker import OwnBroker

_SAYS_ITS_LIBRARY = ["faketime", "-m", "-f", "+0", "printenv", "LD_PRELOAD"]


class MovedClock:
    """A wall clock that is as far off as the test says.

    Args:
        file: Where the offset is kept.
        off_s: By how much it is ahead at first.
    """

    def __init__(self, file: Path, off_s: float = 0) -> None:
        self._file = file
        self.jump_to(off_s)
        library = subprocess.run(_SAYS_ITS_LIBRARY, check=True, capture_output=True, text=True)
        self.environment = {
            "LD_PRELOAD": library.stdout.strip(),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def jump_to(self, off_s: float) -> None:
        """Set the clock to so much ahead of the true time."""
        written = self._file.with_suffix(".new")
        written.write_text(f"{off_s:+g}")
        written.replace(self._file)


class BrokerWithClock(OwnBroker):
    """A Valkey of the test's own, whose wall clock the test moves."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._clock = MovedClock(folder / "clock")
        super().__init__(folder, {**os.environ, **self._clock.environment})

    def ahead_s(self, true_s: float) -> float:
        """Return by how much its clock is ahead of a true one."""
        seconds, micros = self.client.time()
        return seconds + micros / 1e6 - true_s

    def jump_to(self, off_s: float) -> None:
        """Set its clock to so much ahead of the true time."""
        self._clock.jump_to(off_s)
