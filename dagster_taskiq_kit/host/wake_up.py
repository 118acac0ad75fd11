"""Makes a signal end a wait.

Invariant: under Dagster's ``capture_interrupts`` a signal only sets a flag, and a blocking read
goes on; the wake-up descriptor becomes readable at that moment, so whoever selects on it loses no
time.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Sequence

from .polling import readable


class WakeUp:
    """A descriptor that becomes readable when a signal arrives; a context manager.

    In a thread other than the main one there is no signal to wake for, and no descriptor.
    """

    def __init__(self) -> None:
        self._ends: tuple[int, int] | None = None
        self._previous = -1

    def __enter__(self) -> "WakeUp":
        if threading.current_thread() is threading.main_thread():
            read, write = os.pipe()
            os.set_blocking(read, False)
            os.set_blocking(write, False)
            self._previous = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
            self._ends = (read, write)
        return self

    def __exit__(self, *_error: object) -> None:
        if self._ends is not None:
            signal.set_wakeup_fd(self._previous)
            for end in self._ends:
                os.close(end)

    def descriptors(self) -> Sequence[int]:
        """Return what to select on beside whatever else one waits for."""
        return [self._ends[0]] if self._ends else []

    def clear(self) -> None:
        """Forget the signals that have arrived."""
        for descriptor in self.descriptors():
            with contextlib.suppress(BlockingIOError):
                os.read(descriptor, 4096)

    def wait(self, timeout_s: float) -> None:
        """Wait for a signal, or until the time is up."""
        readable(self.descriptors(), timeout_s)
        self.clear()
