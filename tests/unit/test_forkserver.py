"""The fork server's choices, with children that are nothing but a socket."""

import json
import select
import socket

import pytest

from dagster_taskiq_kit.worker.process.forkserver import ForkServer
from dagster_taskiq_kit.worker.process.protocol import Spare, Start
from dagster_taskiq_kit.worker.process.wire import PatientWire

START = Start("step", {}, relays=True, body=b"body")


class Maker:
    def __init__(self):
        self.children = []

    def make(self, control, _not_theirs):
        self.children.append(control.dup())
        return 2**22 + len(self.children)  # no such process


@pytest.fixture
def maker():
    made = Maker()
    yield made
    for child in made.children:
        child.close()


@pytest.fixture
def server(maker):
    worker, other_end = socket.socketpair()
    made = ForkServer(PatientWire(worker), maker)
    for _ in range(3):
        made._make()
    assert [heard(child) for child in maker.children] == [["guarded"]] * 3
    yield made
    for child in made._children.values():
        child.wire.close()
    worker.close()
    other_end.close()


def heard(child):
    if not select.select([child], [], [], 0)[0]:
        return []
    lines = [line for line in child.recv(65536).splitlines() if line.startswith(b"{")]
    return [json.loads(line)["op"] for line in lines]


def test_no_child_is_made_while_its_number_is_on_its_way(server, maker):
    server._obey(Spare(3))
    assert server._keep_spares() == pytest.approx(1)
    server._obey(START, "a")
    assert 0 < server._keep_spares() <= 0.01
    server._obey(Spare(2))
    assert server._keep_spares() == pytest.approx(1)
    server._obey(Spare(3))
    server._last_start_s -= 0.02
    server._keep_spares()
    assert len(maker.children) == 4


def test_of_too_many_children_the_youngest_goes(server, monkeypatch):
    killed = []
    monkeypatch.setattr("dagster_taskiq_kit.worker.process.forkserver.kill_tree", killed.append)
    server._obey(Spare(2))
    server._keep_spares()
    assert killed == [max(server._children)]


def test_a_server_that_is_asked_for_no_spare_child_and_has_one_waits(server):
    server._obey(Spare(0))
    while len(server._waiting()) > 1:
        server._keep_spares()
    assert server._keep_spares() == pytest.approx(1)
