"""The fork server's choices, with children that are nothing but a socket."""

import re
import select
import socket
import time
from dataclasses import replace

import pytest

from dagster_taskiq_kit.worker.process.forkserver import ForkServer
from dagster_taskiq_kit.worker.process.protocol import Done, Rests, Spare, Start
from dagster_taskiq_kit.worker.process.wire import PatientWire, pack

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
    return [name.decode() for name in re.findall(rb'"op":"(\w+)"', child.recv(65536))]


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
    while len(server._crew.spare()) > 1:
        server._keep_spares()
    assert server._keep_spares() == pytest.approx(1)


FUSED = Start("step", {}, relays=True, body=b"body", group="run on default", fuse_limit=5)


def rest(server, child):
    """The child says that its message has ended and that it stays."""
    for packet in (Done("succeeded", {}), Rests()):
        child.sendall(pack(packet))
    (its,) = (each for each in server._children.values() if each.key == "a")
    assert server._hear(its)
    return its


def test_a_child_that_rests_is_given_the_next_step_of_its_run(server, maker):
    server._obey(FUSED, "a")
    its = rest(server, maker.children[0])
    server._obey(FUSED, "b")
    assert its.key == "b"
    assert heard(maker.children[0]) == ["start", "start"]


@pytest.mark.parametrize("other", [START, replace(FUSED, group="another run on default")])
def test_a_child_that_rests_is_given_nothing_of_another_run(server, maker, other):
    server._obey(FUSED, "a")
    its = rest(server, maker.children[0])
    server._obey(other, "b")
    assert its.key is None
    assert heard(maker.children[1]) == ["start"]


def test_a_child_that_has_rested_long_leaves_and_is_given_nothing(server, maker):
    server._obey(FUSED, "a")
    its = rest(server, maker.children[0])
    its.rests_since_s -= 60
    server._end_the_lingering()
    assert heard(maker.children[0]) == ["start", "stop"]
    server._obey(FUSED, "b")
    assert its.key is None
    assert not server._crew.rested_enough()


def test_of_too_many_that_rest_the_oldest_leave(server):
    for _ in range(10):
        child = server._make()
        child.group, child.rests_since_s = "run on default", time.monotonic()
    pids = list(server._children)[-10:]
    assert [child.pid for child in server._crew.rested_enough()] == pids[:2]


def test_a_child_that_rests_is_no_spare_one(server, maker):
    server._obey(FUSED, "a")
    rest(server, maker.children[0])
    assert len(server._crew.spare()) == 2


def test_a_child_that_rests_ends_with_the_deadline(server, maker, monkeypatch):
    """A thread that its step has left might go on."""
    killed = []
    monkeypatch.setattr("dagster_taskiq_kit.worker.process.forkserver.kill_tree", killed.append)
    server._obey(FUSED, "a")
    its = rest(server, maker.children[0])
    server._deadline_s = 1.0
    server._keep_deadline()
    assert killed == [its.pid]
