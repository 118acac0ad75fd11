"""What worker, fork server and child say to each other: whole, known, from whom it may be, in order."""

import socket
from dataclasses import MISSING, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_taskiq_kit.vocabulary.errors import ProtocolError
from dagster_taskiq_kit.worker.process import protocol
from dagster_taskiq_kit.worker.process.execution import PacketSequence
from dagster_taskiq_kit.worker.process.protocol import (
    BY_NAME,
    TABLE,
    Begin,
    Done,
    Exited,
    Expired,
    Go,
    Output,
    Party,
    Prints,
    Rested,
    Runs,
    Start,
    Started,
    check_sender,
    name_of,
    packet_of,
    values_of,
)  # fmt: skip
from dagster_taskiq_kit.worker.process.wire import PatientWire, Wire

VALUES = {"str": "said", "int": 7, "float": 0.5, "bool": True, "bytes": b"body\n{}\n"}


def sample(kind):
    """A packet of some kind with a value in each of its fields."""
    values = {}
    for each in fields(kind):
        name = getattr(each.type, "__name__", str(each.type))
        values[each.name] = VALUES.get(name, {"a": "b"} if "Mapping" in str(each.type) else ["a"])
        if "None" in str(each.type):
            values[each.name] = None
    return kind(**values)


EVERY_PACKET = [sample(kind) for kind in TABLE]


@pytest.mark.parametrize("packet", EVERY_PACKET, ids=name_of)
def test_every_packet_arrives_as_it_was_sent(packet):
    ours, theirs = socket.socketpair()
    sender, patient = PatientWire(ours), PatientWire(theirs)
    sender.send(packet, "a key")
    sender.send(packet)
    assert list(patient.arrived()) == [(packet, "a key"), (packet, "")]
    patient.send(packet)
    sender.close()
    patient.close()
    ours, theirs = socket.socketpair()
    sender, child = PatientWire(ours), Wire(theirs)
    sender.send(packet)
    assert child.receive() == packet
    sender.close()
    assert child.receive() is None
    theirs.close()


def test_every_packet_of_the_union_is_in_the_table():
    assert set(TABLE) == set(protocol.Packet.__args__)
    assert len(BY_NAME) == len(TABLE)


@pytest.mark.parametrize("packet", EVERY_PACKET, ids=name_of)
def test_a_packet_with_other_fields_is_refused_by_name(packet):
    name, values = name_of(packet), values_of(packet)
    with pytest.raises(ProtocolError, match=f"packet '{name}' has no field surprise"):
        packet_of(name, {**values, "surprise": 1})
    for each in fields(packet):
        if each.default is MISSING and each.default_factory is MISSING:
            without = {k: v for k, v in values.items() if k != each.name}
            with pytest.raises(ProtocolError, match=f"packet '{name}'.*{each.name}"):
                packet_of(name, without)


def test_a_packet_that_there_is_not_is_refused():
    with pytest.raises(ProtocolError, match="no packet 'surprise'.*report it"):
        packet_of("surprise", {})


@pytest.mark.parametrize("packet", EVERY_PACKET, ids=name_of)
def test_a_packet_is_taken_from_its_sender_alone(packet):
    row = TABLE[type(packet)]
    check_sender(packet, row.sender)
    assert row.sender not in row.receivers
    with pytest.raises(ProtocolError, match="is not said by"):
        check_sender(packet, *(each for each in Party if each is not row.sender))


LEGAL = [
    [Started, Begin, Done, Rested],
    [Started, Begin, Done, Exited],
    [Started, Begin, Prints, Output, Output, Done, Exited],
    [Started, Begin, Runs, Done, Exited],
    [Started, Exited],
    [Started, Done, Exited],
    [Started, Begin, Expired, Prints, Done, Exited],
    [Started, Begin, Expired, Exited],
    [Exited],
]
ILLEGAL = [
    [Started, Rested],
    [Started, Begin, Rested],
    [Started, Begin, Done, Rested, Exited],
    [Begin],
    [Started, Output],
    [Started, Runs],
    [Started, Started],
    [Started, Begin, Begin],
    [Started, Begin, Done, Output],
    [Started, Begin, Done, Done],
    [Started, Exited, Exited],
    [Started, Begin, Exited, Done],
    [Done],
]


def told(kinds):
    order = PacketSequence()
    for kind in kinds:
        order.check(sample(kind))


@pytest.mark.parametrize("kinds", LEGAL, ids=lambda kinds: "-".join(k.__name__ for k in kinds))
def test_what_a_delivery_may_say(kinds):
    told(kinds)


@pytest.mark.parametrize("kinds", ILLEGAL, ids=lambda kinds: "-".join(k.__name__ for k in kinds))
def test_what_a_delivery_may_not_say(kinds):
    told(kinds[:-1])
    with pytest.raises(ProtocolError, match="came after"):
        told(kinds)


@given(
    st.lists(st.sampled_from([Started, Begin, Runs, Prints, Output, Done, Expired, Exited, Rested]))
)
def test_nothing_comes_after_the_last_packet_or_before_permission(kinds):
    try:
        told(kinds)
    except ProtocolError:
        return
    main = [kind for kind in kinds if kind is not Expired]
    assert not {Exited, Rested} & {*main[:-1]}
    for kind in (Output, Prints, Runs):
        assert kind not in main or Begin in main[: main.index(kind)]


def test_an_answer_follows_a_question():
    assert TABLE[Go].follows == [Begin]
    assert TABLE[Started].follows == [Start]
