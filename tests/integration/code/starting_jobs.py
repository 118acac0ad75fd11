"""Steps that start things, each in every way that code does; and steps that change their process.

Each of the first asserts its own result. Each of ``changes`` changes something that the process
has, and ``sees_nothing`` fails when the next step finds it changed.
"""

import asyncio
import concurrent.futures
import ctypes
import decimal
import faulthandler
import functools
import gc
import locale
import math
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from multiprocessing import shared_memory
from pathlib import Path

import dagster as dg

from dagster_taskiq_kit import taskiq_executor

NOTES = Path(os.environ["STARTING_FOLDER"])
WANTED = [math.factorial(n) for n in range(8)]


def pool_of(method: str) -> None:
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        assert list(pool.map(math.factorial, range(8))) == WANTED
    with context.Pool(2) as pool:
        assert pool.map(math.factorial, range(8)) == WANTED


def manager() -> None:
    with multiprocessing.Manager() as made:
        shared = made.dict()
        process = multiprocessing.Process(target=shared.update, args=({"answer": 42},))
        process.start()
        process.join()
        assert dict(shared) == {"answer": 42}


def shared_memory_that_is_freed() -> None:
    memory = shared_memory.SharedMemory(create=True, size=16)
    memory.buf[0] = 7
    again = shared_memory.SharedMemory(memory.name)
    assert again.buf[0] == 7
    again.close()
    memory.close()
    memory.unlink()


def shared_memory_that_is_left() -> None:
    """Free nothing: the resource tracker does, when the process has ended."""
    memory = shared_memory.SharedMemory(create=True, size=16)
    NOTES.joinpath("left_memory").write_text(memory.name)


def queue_and_process() -> None:
    queue = multiprocessing.Queue()
    process = multiprocessing.Process(target=queue.put, args=(42,))
    process.start()
    assert queue.get(timeout=30) == 42
    process.join()


def joblib_pool() -> None:
    import joblib

    calls = (joblib.delayed(math.factorial)(n) for n in range(8))
    assert joblib.Parallel(n_jobs=2)(calls) == WANTED


def event_loop() -> None:
    async def main() -> bytes:
        process = await asyncio.create_subprocess_exec("echo", "42", stdout=subprocess.PIPE)
        said, _ = await process.communicate()
        results = await asyncio.gather(*(asyncio.to_thread(math.factorial, n) for n in range(8)))
        assert results == WANTED
        return said

    assert asyncio.run(main()) == b"42\n"


def subprocesses() -> None:
    assert subprocess.check_output(["echo", "42"]) == b"42\n"
    assert subprocess.run("exit 3", shell=True, check=False).returncode == 3
    assert os.system("exit 4") >> 8 == 4
    assert os.popen("echo 42").read() == "42\n"
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        assert cat.communicate(b"42")[0] == b"42"
    own = subprocess.Popen(["sleep", "60"], start_new_session=True)
    own.terminate()
    assert own.wait() == -signal.SIGTERM
    code = "import sys; sys.exit(5)"
    assert subprocess.call([sys.executable, "-c", code]) == 5
    assert os.spawnlp(os.P_WAIT, "sh", "sh", "-c", "exit 6") == 6


def plain_fork() -> None:
    """A process that is forked ends when it is told to, as one that was never Dagster's."""
    pid = os.fork()
    if pid == 0:
        as_usual = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        os._exit(7 if as_usual else 8)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def forks_that_are_told_to_end_in_their_first_moment() -> None:
    """As a pool does that is closed before all of its workers have begun."""
    for _ in range(100):
        pid = os.fork()
        if pid == 0:
            time.sleep(20)
            os._exit(9)
        os.kill(pid, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM


def threads() -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(math.factorial, range(8))) == WANTED
    found = []
    thread = threading.Thread(target=lambda: found.append(threading.current_thread().name))
    thread.start()
    thread.join()
    timer = threading.Timer(0.01, functools.partial(found.append, "timer"))
    timer.start()
    timer.join()
    assert len(found) == 2
    threading.Thread(target=time.sleep, args=(3_600,), daemon=True).start()


def signals() -> None:
    assert threading.current_thread() is threading.main_thread()
    heard = []
    before = signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    signal.pause()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    assert heard


def fault_handler() -> None:
    with tempfile.TemporaryFile() as file:
        faulthandler.enable(file)
        faulthandler.dump_traceback(file)
        file.seek(0)
        assert b"fault_handler" in file.read()
        faulthandler.disable()


def sockets_and_files() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            with accepted:
                accepted.sendall(b"42")
            assert client.recv(2) == b"42"
    with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile(dir=folder) as file:
        assert Path(file.name).exists()


STARTS = {
    "pool_spawn": functools.partial(pool_of, "spawn"),
    "pool_fork": functools.partial(pool_of, "fork"),
    "pool_forkserver": functools.partial(pool_of, "forkserver"),
    "manager": manager,
    "shared_memory_freed": shared_memory_that_is_freed,
    "shared_memory_left": shared_memory_that_is_left,
    "queue": queue_and_process,
    "joblib": joblib_pool,
    "event_loop": event_loop,
    "subprocesses": subprocesses,
    "fork": plain_fork,
    "forks_told_to_end": forks_that_are_told_to_end_in_their_first_moment,
    "threads": threads,
    "signals": signals,
    "fault_handler": fault_handler,
    "sockets_and_files": sockets_and_files,
}


def starting(name: str):
    @dg.op(name=name)
    def starts() -> None:
        STARTS[name]()

    return starts


@dg.job
def starting_everything():
    for name in STARTS:
        starting(name)()


def state() -> dict[str, object]:
    """Return what a process has that code may change."""
    umask = os.umask(0)
    os.umask(umask)
    return {
        "folder": str(Path.cwd()),
        "environment": {k: v for k, v in os.environ.items() if not k.startswith("DAGSTER_")},
        "path": list(sys.path),
        "modules": "left_behind" in sys.modules,
        "umask": umask,
        "limit": resource.getrlimit(resource.RLIMIT_NOFILE),
        "nice": os.nice(0),
        "handlers": [str(signal.getsignal(n)) for n in (signal.SIGUSR1, signal.SIGALRM)],
        "locale": locale.setlocale(locale.LC_ALL),
        "precision": decimal.getcontext().prec,
        "recursion": sys.getrecursionlimit(),
        "collector": gc.get_threshold(),
        "threads": threading.active_count(),
        "faults": faulthandler.is_enabled(),
        "warnings": len(warnings.filters),
        "builtin": hasattr(math, "left_behind"),
        "name": Path("/proc/self/comm").read_text(),
    }


@dg.op(out=dg.Out(dict))
def looks():
    return state()


@dg.op(ins={"before": dg.In(dict)}, out=dg.Out(dict))
def changes(before):
    os.chdir("/")
    os.environ["LEFT_BEHIND"] = "1"
    del os.environ["STARTING_FOLDER"]
    sys.path.insert(0, "/left_behind")
    sys.modules["left_behind"] = math
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, 500))
    os.nice(5)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    locale.setlocale(locale.LC_ALL, "C.UTF-8" if before["locale"] == "C" else "C")
    decimal.getcontext().prec = 3
    sys.setrecursionlimit(5_000)
    gc.set_threshold(1)
    faulthandler.enable(Path(os.devnull).open("w"))  # noqa: SIM115  (it stays open)
    warnings.simplefilter("error")
    math.left_behind = True
    ctypes.CDLL(None).prctl(15, b"changed")
    threading.Thread(target=time.sleep, args=(3_600,), daemon=True).start()
    after = state()
    same = [name for name in before if before[name] == after[name]]
    assert same == [], f"nothing was changed of {same}"
    warnings.simplefilter("default")
    return before


@dg.op(ins={"before": dg.In(dict)})
def sees_nothing(before):
    after = state()
    changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    assert changed == {}, changed


@dg.job
def changing_everything():
    sees_nothing(changes(looks()))


defs = dg.Definitions(jobs=[starting_everything, changing_everything], executor=taskiq_executor)
