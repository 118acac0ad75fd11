"""A fork server that dies while a child is in its first moment leaves neither child nor guardian."""

import signal
import socket
import subprocess
import sys

import psutil
import pytest

from dagster_taskiq_kit.host.process_group import wait_until

from .processes import alive

WITHIN_S = 20.0

#: A fork server whose children wait before they have closed what is not theirs.
SERVER = """
import signal, socket, sys
from dagster_taskiq_kit.worker import process
from dagster_taskiq_kit.worker.process.forkserver import ForkServer
from dagster_taskiq_kit.worker.process.makers import Maker
from dagster_taskiq_kit.worker.process.wire import PatientWire

moment = sys.argv[2]
process.CHILD = "not to sweep"  # workers of other tests look for what lost its fork server


class WorkerWire(PatientWire):
    def close(self):
        if moment == "before it has closed what is not its own":
            signal.pause()
        super().close()


class Children(Maker):
    def _serve(self, control):
        if moment == "when it waits for a message":
            control.receive()


ForkServer(WorkerWire(socket.socket(fileno=int(sys.argv[1]))), Children()).serve()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
@pytest.mark.parametrize(
    "moment", ["before it has closed what is not its own", "when it waits for a message"]
)
def test_nothing_is_left_of_a_fork_server_that_dies_in_a_childs_first_moment(moment, number):
    worker, theirs = socket.socketpair()
    command = [sys.executable, "-c", SERVER, str(theirs.fileno()), moment]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as server:
        theirs.close()
        process = psutil.Process(server.pid)
        assert wait_until(lambda: len(process.children()) == 2, WITHIN_S)  # a child and a guardian
        below = [child.pid for child in process.children()]
        server.send_signal(number)
        if number == signal.SIGSTOP:
            worker.close()  # a frozen one is killed when its worker is gone
        try:
            assert wait_until(lambda: not any(alive(pid) for pid in below), WITHIN_S)
        finally:
            worker.close()
            server.kill()
            for pid in filter(alive, below):
                psutil.Process(pid).kill()
