"""What a process becomes when it is a fork server, however it was started.

``server`` and ``layered`` (a fork server that replaced itself by a fresh interpreter, because
children cannot share what the code began when it was imported) are started by this module's command
line; the first fork server of a worker is forked from it and calls :func:`be_server`. A location
that wants another interpreter has a fork server of that one.

Invariant: it says ``ready`` or ``failed`` once, before anything else.
"""

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

import dagster as dg

from ...host.huge_pages import use_huge_pages
from ...vocabulary.errors import CodeLoadFailed, InterpreterUnfit
from ..warm.generators import chosen_seeds_noted
from ..warm.import_effects import ImportWatch
from ..warm.interpreter import become_server_of, is_own
from ..warm.loaded_source import loaded_source
from ..warm.warmth import judge, shareable_modules
from .forkserver import ForkServer
from .lifecycle import FORK_SERVER, show_as, when_parent_dies
from .makers import LayeredMaker, Maker, WarmMaker, import_code, open_base
from .protocol import Failed, Ready
from .user_task import registered_tasks
from .wire import PatientWire, pack

#: By name: as a main module it has another.
_MODULE = "dagster_taskiq_kit.worker.process.server_process"


@dataclass(frozen=True)
class Layers:
    """What a layered fork server is told by the one that it takes the place of.

    Args:
        why: Why its children import the user's code themselves.
        modules: What it imports ahead.
        pointers: How messages can name the code.
        tasks: Names of the users' own taskiq tasks in it.
        source: From which files the code was imported, as data.
    """

    why: Sequence[str]
    modules: Sequence[str]
    pointers: Sequence[str]
    tasks: Sequence[str]
    source: Mapping[str, Any]


def be_server(worker: socket.socket, location: str, layers: Layers | None = None) -> None:
    """Be a fork server; returns when its worker is gone or the code did not load.

    Args:
        worker: The wire to the worker.
        location: The code location, as JSON.
        layers: How to be a layered one, when it was found that children cannot share all.
    """
    show_as(FORK_SERVER)
    when_parent_dies(signal.SIGKILL)  # until it serves: an import can last for ever
    executable = json.loads(location)["executable"]
    if not is_own(executable):
        try:
            become_server_of(executable, worker, location)
        except InterpreterUnfit as error:
            _say_failed(worker, json.loads(location)["name"], str(error))
            return
    maker = (
        _warm_maker(worker, location)
        if layers is None
        else _layered_maker(worker, location, layers)
    )
    if maker is not None:
        ForkServer(PatientWire(worker), maker).serve()


def _warm_maker(worker: socket.socket, location: str) -> Maker | None:
    """Load the code; None when that failed, which was said."""
    try:
        base = open_base()
        before = set(sys.modules)
        with ImportWatch(json.loads(location)["name"]) as watch, chosen_seeds_noted():
            code, prepared = import_code(location, base.instance, prepare=True)
    except CodeLoadFailed as error:
        _say_failed(worker, error.location, error.user_traceback)
        return None
    except Exception as error:  # noqa: BLE001  (the worker says it)
        _say_failed(worker, json.loads(location)["name"], str(error))
        return None
    pointers, tasks = list(code.pointers()), list(registered_tasks())
    source = loaded_source(code, sys.modules.keys() - before).as_data()
    verdict = judge(watch.effects(), json.loads(location)["warm"])
    if not verdict.warm:
        modules = [] if verdict.nothing_ahead else shareable_modules(verdict.unsafe)
        _begin_anew(worker, location, Layers(verdict.why, modules, pointers, tasks, source))
    _keep_pages_shared()
    ready = Ready(
        os.getpid(), "warm", pointers=pointers, tasks=tasks, source=source, dagster=dg.__version__,
        stores=base.why_not_relayed,
    )  # fmt: skip
    worker.sendall(pack(ready))
    return WarmMaker(code, prepared, base)


def _layered_maker(worker: socket.socket, location: str, layers: Layers) -> Maker:
    base = open_base()
    with ImportWatch("ahead") as watch:
        for name in layers.modules:
            # One that wants what is left out here is imported with the user's code.
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    if layers.modules and not judge(watch.effects(), "auto").warm:
        # One of them brought along what shall be left out.
        _begin_anew(worker, location, replace(layers, modules=[]))
    _keep_pages_shared()
    worker.sendall(
        pack(
            Ready(
                os.getpid(), "layered" if layers.modules else "cold",
                why=layers.why, pointers=layers.pointers, tasks=layers.tasks, source=layers.source,
                dagster=dg.__version__, stores=base.why_not_relayed,
            )
        )
    )  # fmt: skip
    return LayeredMaker(location, base)


def _begin_anew(worker: socket.socket, location: str, layers: Layers) -> NoReturn:
    """Become a fresh interpreter: what an import has begun cannot be undone."""
    sys.stdout.flush()
    described = os.memfd_create("layers", 0)
    os.write(described, json.dumps(asdict(layers)).encode())
    os.lseek(described, 0, os.SEEK_SET)
    os.set_inheritable(worker.fileno(), True)
    os.execv(  # noqa: S606
        sys.executable,
        [
            sys.executable, "-m", _MODULE, "layered", str(worker.fileno()), location,
            str(described),
        ],
    )  # fmt: skip


def _keep_pages_shared() -> None:
    sys.stdout.flush()  # what the code printed while it loaded is not each child's to say again
    gc.collect()
    gc.freeze()
    use_huge_pages()
    gc.disable()  # in the fork server only: a collection would copy every page it visits


def _say_failed(worker: socket.socket, location: str, traceback: str) -> None:
    with contextlib.suppress(OSError):
        worker.sendall(pack(Failed(location, traceback)))


def main() -> None:
    """Entry point: ``server|layered DESCRIPTOR LOCATION [LAYERS]``."""
    role, descriptor, location = sys.argv[1:4]
    end = socket.socket(fileno=int(descriptor))
    end.set_inheritable(False)
    if role == "layered":
        with os.fdopen(int(sys.argv[4])) as described:
            layers = Layers(**json.loads(described.read()))
        be_server(end, location, layers)
    else:
        be_server(end, location)


if __name__ == "__main__":
    main()
