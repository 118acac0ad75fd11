"""Starts ``python -m dagster_taskiq_kit`` and ``python -m dagster`` without importing Dagster anew.

Most of what a test of a fleet costs is the import of Dagster in each process that it starts. So one
process imports it and forks them: each is a process of its own, with its own session, environment,
folder, arguments and output, and begins with the module's ``main`` as ever. What is started with
another interpreter, with ``PYTHONPATH``, or as another program begins as it always did.
"""

import array
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

_MODULES = ("dagster_taskiq_kit", "dagster")
_SERVER = "from tests.preloaded import serve; serve({descriptor})"
_HEAVY = (
    "dagster", "dagster._cli.api", "dagster._grpc.server", "dagster_postgres",
    "dagster_taskiq_kit.cli.worker", "dagster_taskiq_kit.launching.launcher",
    "dagster_taskiq_kit.worker.service", "dagster_taskiq_kit.worker.process.server_process",
)  # fmt: skip


class Preloaded:
    """The process that forks, seen from the tests."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        self._lock = threading.Lock()
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER.format(descriptor=theirs.fileno())],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        theirs.close()

    def takes(self, command: list[str], options: dict[str, Any]) -> bool:
        environment = options.get("env") or os.environ
        return (
            len(command) > 3
            and command[0] == sys.executable
            and command[1] == "-m"
            and command[2] in _MODULES
            and "PYTHONPATH" not in environment
            and "LD_PRELOAD" not in environment
            and options.get("stdin") in (None, subprocess.DEVNULL)
            and all(_is_file(options.get(name)) for name in ("stdout", "stderr"))
        )

    def start(self, command: list[str], options: dict[str, Any]) -> "Forked":
        out = options.get("stdout")
        err = out if options.get("stderr") == subprocess.STDOUT else options.get("stderr")
        ours, theirs = os.pipe()
        descriptors = [theirs, _descriptor(out, 1), _descriptor(err, 2)]
        request = {
            "arguments": command[2:],
            "environment": dict(options.get("env") or os.environ),
            "folder": str(options.get("cwd") or Path.cwd()),
            "session": bool(options.get("start_new_session")),
        }
        with self._lock:
            self._control.sendmsg(
                [json.dumps(request).encode() + b"\n"],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))],
            )
        os.close(theirs)
        return Forked(command, ours)

    def close(self) -> None:
        self._control.close()
        self._server.wait(30)


#: Of the session's tests, while there is one.
forks: Preloaded | None = None


def start(command: list[str], **options: Any) -> subprocess.Popen:
    """``subprocess.Popen``, forked where that is possible."""
    if forks is not None and forks.takes(command, options):
        return forks.start(command, options)
    return subprocess.Popen(command, **options)


def run(command: list[str], *, within_s: float, **options: Any) -> subprocess.CompletedProcess[str]:
    """``subprocess.run`` without input and with all output as text, forked where possible.

    Raises:
        subprocess.TimeoutExpired: It has not ended within that time; it is killed.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        program = start(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, **options)
        try:
            code = program.wait(within_s)
        except subprocess.TimeoutExpired:
            os.kill(program.pid, signal.SIGKILL)
            program.wait(30)
            raise
        for each in (out, err):
            each.seek(0)
        return subprocess.CompletedProcess(command, code, out.read(), err.read())


def _is_file(value: Any) -> bool:
    return (
        value in (None, subprocess.STDOUT)
        or (isinstance(value, int) and value >= 0)
        or hasattr(value, "fileno")
    )


def _descriptor(value: Any, default: int) -> int:
    return default if value is None else value if isinstance(value, int) else value.fileno()


class Forked(subprocess.Popen):
    """A program that was forked: its parent tells its pid, and how it ended, over a pipe."""

    def __init__(self, args: list[str], told: int) -> None:
        self._told = told
        self.args = args
        self.returncode = None
        self.stdin = self.stdout = self.stderr = None
        self._child_created = False  # nothing for Popen itself to reap
        self.pid = self._next(None)

    def _next(self, timeout_s: float | None) -> int | None:
        poll = select.poll()
        poll.register(self._told, select.POLLIN)
        if not poll.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000):
            return None
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(self._told, 1)
            assert byte, "the process that forks programs has died"
            line += byte
        return int(line)

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = self._next(timeout)
            if self.returncode is None:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            os.close(self._told)
        return self.returncode

    def __del__(self) -> None:
        if self.returncode is None:
            with contextlib.suppress(OSError, AttributeError):
                os.close(self._told)


def serve(descriptor: int) -> None:
    """Fork programs until the tests are gone."""
    import importlib

    for name in _HEAVY:
        importlib.import_module(name)
    control = socket.socket(fileno=descriptor)
    told: dict[int, int] = {}
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write)
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready == wake_read:
                os.read(wake_read, 4096)
                _reap(told)
                continue
            request, descriptors = _received(control)
            if request is None:
                return
            pid = os.fork()
            if pid == 0:
                control.close()
                for each in (wake_read, wake_write, *told.values()):
                    os.close(each)
                _become(request, descriptors)
            told[pid] = descriptors[0]
            os.write(descriptors[0], b"%d\n" % pid)
            for each in descriptors[1:]:
                os.close(each)


def _received(control: socket.socket) -> tuple[dict | None, list[int]]:
    said, descriptors, _, _ = socket.recv_fds(control, 1, 3)
    if not said:
        return None, []
    while not said.endswith(b"\n"):
        said += control.recv(65_536)
    return json.loads(said), list(descriptors)


def _reap(told: dict[int, int]) -> None:
    while told:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        descriptor = told.pop(pid)
        with contextlib.suppress(BrokenPipeError):
            os.write(descriptor, b"%d\n" % os.waitstatus_to_exitcode(status))
        os.close(descriptor)


def _become(request: dict, descriptors: list[int]) -> None:
    """Be the program; never returns."""
    import runpy

    status = 70
    try:
        told, out, err = descriptors
        os.close(told)
        if request["session"]:
            os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(source, target)
        for each in (nothing, out, err):
            os.close(each)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        time.tzset()
        module, *arguments = request["arguments"]
        sys.argv = [module, *arguments]
        sys.path[0] = request["folder"]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        if isinstance(leaving.code, str):
            sys.stderr.write(leaving.code + "\n")
    except KeyboardInterrupt:
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:  # noqa: BLE001  (as an interpreter does)
        import traceback

        traceback.print_exc()
        status = 1
    finally:
        from dagster_taskiq_kit.host.library_internals import run_exit_handlers

        with contextlib.suppress(BaseException):
            run_exit_handlers()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
