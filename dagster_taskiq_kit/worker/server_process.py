"""What a process becomes when it is a fork server, however it was started.

``server``, ``cold`` (a fork server that replaced itself by a fresh interpreter) and ``child`` (of a
cold one) are started by this module's command line; the first fork server of a worker is forked
from it and calls :func:`be_server`.

Invariant: it says ``ready`` or ``failed`` once, before anything else.
"""

import contextlib
import gc
import json
import os
import signal
import socket
import sys

from ..errors import CodeLoadFailed
from .forkserver import ForkServer
from .interpreter import is_own
from .makers import ColdMaker, WarmMaker, load
from .process import FORK_SERVER, become_child, show_as, threads, when_parent_dies
from .wire import PatientWire, Wire, pack

#: By name: as a main module it has another.
_MODULE = "dagster_taskiq_kit.worker.server_process"


def be_server(worker: socket.socket, location: str, *, cold: bool = False) -> None:
    """Be a fork server; returns when its worker is gone or the code did not load.

    Args:
        worker: The wire to the worker.
        location: The code location, as JSON.
        cold: Whether it was found already that its children cannot be forked.
    """
    show_as(FORK_SERVER)
    when_parent_dies(signal.SIGKILL)  # until it serves: an import can last for ever
    executable = json.loads(location)["executable"] or sys.executable
    cold = cold or not is_own(executable)
    maker = _cold_maker(worker, location, executable) if cold else _warm_maker(worker, location)
    if maker is not None:
        ForkServer(PatientWire(worker), maker).serve()


def _cold_maker(worker: socket.socket, location: str, executable: str) -> ColdMaker:
    from .. import dagster_seam as seam

    pointers = list(seam.pointers_of(seam.CodeLocation(**json.loads(location))))
    worker.sendall(pack(op="ready", pid=os.getpid(), mode="cold", pointers=pointers))
    return ColdMaker(location, executable)


def _warm_maker(worker: socket.socket, location: str) -> WarmMaker | None:
    """Load the code; None when that failed, which was said."""
    try:
        loaded = load(location)
    except CodeLoadFailed as error:
        _say_failed(worker, error.location, error.user_traceback)
        return None
    except Exception as error:  # noqa: BLE001  (the worker says it)
        _say_failed(worker, json.loads(location)["name"], str(error))
        return None
    if threads() > 1:
        # The code left a thread running: a fork of this process would not be safe.
        os.set_inheritable(worker.fileno(), True)
        os.execv(  # noqa: S606
            sys.executable,
            [sys.executable, "-m", _MODULE, "cold", str(worker.fileno()), location],
        )
    sys.stdout.flush()  # what the code printed while it loaded is not each child's to say again
    gc.collect()
    gc.freeze()
    gc.disable()  # in the fork server only: a collection would copy every page it visits
    from .user_task import registered_tasks

    pointers, tasks = list(loaded[0].pointers()), list(registered_tasks())
    worker.sendall(pack(op="ready", pid=os.getpid(), mode="warm", pointers=pointers, tasks=tasks))
    return WarmMaker(loaded)


def _say_failed(worker: socket.socket, location: str, traceback: str) -> None:
    with contextlib.suppress(OSError):
        worker.sendall(pack(op="failed", location=location, traceback=traceback))


def _be_child(control: Wire, location: str) -> None:
    from .child import refuse_one, serve_one

    become_child()
    try:
        loaded = load(location)
    except CodeLoadFailed as error:
        refuse_one(error, control)
    else:
        serve_one(*loaded, control)


def main() -> None:
    """Entry point: ``server|cold|child DESCRIPTOR LOCATION``."""
    role, descriptor, location = sys.argv[1:4]
    end = socket.socket(fileno=int(descriptor))
    end.set_inheritable(False)
    if role == "child":
        _be_child(Wire(end), location)
    else:
        be_server(end, location, cold=role == "cold")


if __name__ == "__main__":
    main()
