"""A child's side of the event relay: whole packets whatever signal comes, bounds, barriers."""

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from dagster_taskiq_kit.dagster_internals import names as internals
from dagster_taskiq_kit.host.deferred_signals import DeferredSignals
from dagster_taskiq_kit.host.process_group import wait_until
from dagster_taskiq_kit.vocabulary.errors import EventsNotStored
from dagster_taskiq_kit.worker.process import event_sender
from dagster_taskiq_kit.worker.process.event_sender import EventSender
from dagster_taskiq_kit.worker.process.protocol import Barrier, Committed, Done, Event
from dagster_taskiq_kit.worker.process.wire import PatientWire, Wire


class Worker:
    """The other end of the wire: hears packets in a thread, and answers barriers when it may."""

    def __init__(self, end, failure=""):
        self.wire = PatientWire(end)
        end.setblocking(True)
        self.heard = []
        self.answers = threading.Event()
        self.answers.set()
        self.failure = failure
        threading.Thread(target=self._hear, daemon=True).start()

    def _hear(self):
        while True:
            try:
                packets = list(self.wire.arrived())
            except EOFError:
                return
            for packet, _ in packets:
                self.heard.append(packet)
                if isinstance(packet, Barrier):
                    self.answers.wait()
                    self.wire.send(Committed(packet.number, self.failure))

    @property
    def events(self):
        return [int(packet.body) for packet in self.heard if isinstance(packet, Event)]


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


class Alarm(Exception):
    pass


@pytest.fixture
def alarms():
    """A handler of the user's that raises wherever it is called, as for a timeout."""

    def ring(_number, _frame):
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_no_alarm_tears_a_packet(ends, alarms):
    worker, sender = Worker(ends[1]), EventSender(Wire(ends[0]))
    sender.open()
    rung = 0
    for number in range(3_000):
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.00001 * (number % 20 + 1))
            sender.send(b"%d" % number)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Alarm:
            rung += 1
    assert rung > 100
    signal.setitimer(signal.ITIMER_REAL, 0)
    sender.settle()
    # What an alarm cut off before it was begun was not said; all else is whole and in order.
    assert worker.events == sorted(set(worker.events))
    assert 3_000 - rung <= len(worker.events) <= 3_000


def test_signals_are_raised_when_the_block_has_ended():
    came = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: came.append(number))
    try:
        with DeferredSignals() as signals:
            signal.raise_signal(signal.SIGUSR1)
            assert came == []
            assert signals.came == [signal.SIGUSR1]
        assert came == [signal.SIGUSR1]
        signal.raise_signal(signal.SIGUSR1)
        assert len(came) == 2
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize(("count", "size"), [(1_500, 100), (20, 1_000_000)], ids=["many", "large"])
def test_a_child_with_too_much_unstored_waits(ends, count, size):
    worker, sender = Worker(ends[1]), EventSender(Wire(ends[0]))
    sender.open()
    worker.answers.clear()
    done = threading.Event()

    def say():
        for _ in range(count):
            sender.send(b"1".rjust(size))
        done.set()

    threading.Thread(target=say, daemon=True).start()
    assert wait_until(lambda: Barrier(1) in worker.heard, 20)
    bound = 1_000 if size == 100 else event_sender._MOST_BYTES // size
    assert len(worker.events) == bound
    assert not done.is_set()
    worker.answers.set()
    assert done.wait(20)


def test_one_event_that_is_larger_than_the_bound_goes_through(ends):
    worker, sender = Worker(ends[1]), EventSender(Wire(ends[0]))
    sender.open()
    sender.send(b"1".rjust(2 * event_sender._MOST_BYTES))
    sender.settle()
    assert worker.events == [1]


def test_nothing_is_asked_when_nothing_is_unstored(ends):
    worker, sender = Worker(ends[1]), EventSender(Wire(ends[0]))
    sender.open()
    sender.settle()
    sender.send(b"1")
    sender.settle()
    sender.settle()
    assert [type(packet) for packet in worker.heard] == [Event, Barrier]


def test_an_event_that_another_follows_goes_with_it_or_with_whatever_waits_or_ends(ends):
    worker, sender = Worker(ends[1]), EventSender(Wire(ends[0]))
    sender.open()
    sender.send(b"1", more_follows=True)
    sender.send(b"2", more_follows=True)
    assert worker.heard == []
    sender.send(b"3")
    assert wait_until(lambda: worker.events == [1, 2, 3], 20)
    sender.send(b"4", more_follows=True)
    sender.settle()
    assert worker.events == [1, 2, 3, 4]
    sender.send(b"5", more_follows=True)
    sender.close()
    assert wait_until(lambda: worker.events == [1, 2, 3, 4, 5], 20)


def test_an_event_that_was_refused_fails_whoever_waits_for_it(ends):
    Worker(ends[1], failure="disk on fire")
    sender = EventSender(Wire(ends[0]))
    sender.open()
    sender.send(b"1")
    with pytest.raises(EventsNotStored, match="database: disk on fire. What follows"):
        sender.settle()


def test_threads_that_log_at_once_tear_nothing(ends):
    worker, sender = Worker(ends[1]), EventSender(Wire(ends[0]))
    sender.open()

    def say(first):
        for number in range(first, first + 500):
            sender.send(b"%d" % number)
            if number % 100 == 0:
                sender.settle()

    threads = [threading.Thread(target=say, args=[first]) for first in (0, 500, 1_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sender.settle()
    assert sorted(worker.events) == list(range(1_500))


def test_nothing_is_said_after_the_end_whatever_a_thread_has_to_say(ends):
    worker, wire = Worker(ends[1]), Wire(ends[0])
    sender = EventSender(wire)
    sender.open()
    told = []

    def say():
        while sender.send(b"1"):
            told.append(1)

    talker = threading.Thread(target=say)
    talker.start()
    assert wait_until(lambda: len(told) > 100, 20)
    sender.close()
    wire.send(Done("succeeded", {}))
    talker.join(20)
    assert wait_until(lambda: Done("succeeded", {}) in worker.heard, 20)
    assert worker.heard[-1] == Done("succeeded", {})
    assert len(worker.events) in (len(told), len(told) + 1)


def test_a_child_that_is_told_to_end_does_not_wait_for_ever(ends, monkeypatch):
    monkeypatch.setattr(event_sender, "_INTERRUPTED_S", 0.2)
    worker, sender = Worker(ends[1]), EventSender(Wire(ends[0]))
    sender.open()
    worker.answers.clear()
    sender.send(b"1")
    with internals.capture_interrupts():
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(internals.DagsterExecutionInterruptedError):
            sender.settle()
    worker.answers.set()


def test_a_fork_of_a_child_says_nothing_on_its_wire(ends):
    sender = EventSender(Wire(ends[0]))
    sender.open()
    assert sender.is_open
    pid = os.fork()
    if pid == 0:
        os._exit(1 if sender.is_open else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


_STARTING = {
    "fork": "pid = os.fork()\nif pid == 0: os._exit(0)\nos.waitpid(pid, 0)",
    "run": "subprocess.run([sys.executable, '-c', 'pass'], check=True)",
    "system": "assert os.system('true') == 0",
    "spawn": "assert os.spawnlp(os.P_WAIT, 'sh', 'sh', '-c', 'exit 6') == 6",
    "posix_spawn": "os.waitpid(os.posix_spawn('/bin/sh', ['sh', '-c', 'exit'], {}), 0)",
    **{
        f"multiprocessing_{method}": (
            f"process = multiprocessing.get_context({method!r}).Process(target=os.getpid)\n"
            "process.start(); process.join(); assert process.exitcode == 0"
        )
        for method in ("fork", "spawn", "forkserver")
    },
}


@pytest.mark.parametrize("way", _STARTING)
def test_what_was_said_is_stored_before_a_process_begins(way):
    """In a process of its own: what is replaced stays so."""
    program = (
        "import multiprocessing, os, subprocess, sys\n"
        "from dagster_taskiq_kit.worker.process.event_sender import before_a_process_begins\n"
        "said = []\n"
        "before_a_process_begins(lambda: said.append(1))\n"
        f"{_STARTING[way]}\n"
        "assert said\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_an_interrupt_while_a_process_is_about_to_begin_is_not_lost():
    """What a hook of ``os.register_at_fork`` raises would be."""
    program = (
        "import os, signal\n"
        "from dagster_taskiq_kit.worker.process.event_sender import before_a_process_begins\n"
        "before_a_process_begins(lambda: signal.raise_signal(signal.SIGINT))\n"
        "try:\n"
        "    if os.fork() == 0: os._exit(0)\n"
        "except KeyboardInterrupt:\n"
        "    os._exit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert done.returncode == 3
