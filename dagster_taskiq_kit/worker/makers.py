"""How children are made: forked from a process that has everything loaded, or started fresh.

Invariant: a child has its own end of the wire and no other descriptor of its fork server's.
"""

import json
import os
import socket
import subprocess
from typing import Any

from .interpreter import environment_for
from .process import become_child
from .wire import Wire


class WarmMaker:
    """Forks children of this very process, which has everything loaded.

    Args:
        loaded: What :func:`load` returned: all that a child inherits.
    """

    def __init__(self, loaded: tuple[Any, Any, Any]) -> None:
        self._loaded = loaded
        self.inherit_not: list[Any] = []

    def make(self, control: socket.socket, not_theirs: list[Any]) -> int:
        """Fork one child that waits on ``control``; returns its pid."""
        from .child import serve_one

        pid = os.fork()
        if pid:
            return pid
        try:
            become_child()
            for end in (*not_theirs, *self.inherit_not):
                end.close()
            serve_one(*self._loaded, Wire(control))
        finally:
            os._exit(70)


class ColdMaker:
    """Starts children as fresh processes that import for themselves.

    Args:
        location: The code location, as this module's ``main`` takes it.
        executable: The interpreter to start.
    """

    def __init__(self, location: str, executable: str) -> None:
        self._location = location
        self._executable = executable
        self.inherit_not: list[Any] = []

    def make(self, control: socket.socket, not_theirs: list[Any]) -> int:  # noqa: ARG002
        """Start one child that loads the code, then waits on ``control``; returns its pid."""
        process = subprocess.Popen(
            [
                self._executable, "-m", "dagster_taskiq_kit.worker.server_process",
                "child", str(control.fileno()), self._location,
            ],
            env=environment_for(self._executable),
            pass_fds=[control.fileno()],
            start_new_session=True,
        )  # fmt: skip
        # Its end is read by our own waitpid; the object must not try as well.
        process.returncode = 0
        return process.pid


def load(location: str) -> tuple[Any, Any, Any]:
    """Import the code, plan its jobs, and make, warm and disconnect the instance.

    Args:
        location: The code location, as JSON.

    Raises:
        CodeLoadFailed: The code did not import.
    """
    from .. import dagster_seam as seam
    from .. import instance_pool
    from ..broken_statements import repeat_what_broke
    from ..database_outages import open_instance_through_outages
    from ..event_writing import write_events_shortly
    from ..prepared_jobs import PreparedJobs
    from .rehearsal import rehearse

    seam.write_compute_logs_without_mirror()
    rehearse()
    seam.keep_reconstructed_code()
    instance = open_instance_through_outages()
    code = seam.load_code(seam.CodeLocation(**json.loads(location)), instance)
    instance_pool.pool_connections(instance)
    instance_pool.warm_instance(instance)
    write_events_shortly(instance)
    repeat_what_broke(instance)
    prepared = PreparedJobs()
    prepared.prepare(code, instance)
    instance_pool.close_connections(instance)
    return code, prepared, instance
