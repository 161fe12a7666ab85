"""A broker that wants our memory or our patience: what it can make us keep is bounded, see docs/limits.md."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from device_sdk.errors import RemoteProtocolError, TransportClosedError
from device_sdk.mqtt import Pingreq, Pingresp, Publish, Pubrec, Pubrel, encode_packet
from device_sdk.mqtt.protocol import MOST_ANSWERS
from tests.mqtt.peer import EVERYTHING, Peer, connected, end_of, every_version, messages_in

READ = 64 * 1024  # what one recv() returns at most

# It sends and does not read: our answers pile up


def flood_without_reading(peer: Peer, packet: bytes) -> tuple[int, list[Any]]:
    """Send reads full of a packet, taking no output, until the connection ends or gave 200,000 answers."""
    per_read = READ // len(packet)
    for number in range(200_000 // per_read + 1):
        events = peer.receive_bytes(packet * per_read)
        messages = messages_in(events)
        for message in messages:
            message.handled = True
        if messages:
            peer.protocol.acknowledge_handled()
        if len(events) > len(messages):
            return number * per_read, events
        assert peer.protocol.output.answers <= MOST_ANSWERS + per_read
    raise AssertionError("the answers grow without a bound")


@every_version
@pytest.mark.parametrize(
    "packet",
    [
        Pubrel(7),
        Pubrec(7),
        Publish("t", qos=1, packet_id=7),
        Publish("t", qos=2, packet_id=7),
    ],
    ids=["pubrel", "pubrec", "qos 1", "qos 2"],
)
def test_a_broker_that_does_not_read_our_answers_is_left(version: str, packet: Publish) -> None:
    peer = connected(version)
    answered, events = flood_without_reading(peer, encode_packet(packet, version))
    error = end_of(events)
    assert isinstance(error, RemoteProtocolError)
    assert error.reason_code == 0x97
    assert MOST_ANSWERS <= answered <= MOST_ANSWERS + 2 * READ
    assert [packet.type for packet in peer.sent()] == (["disconnect"] if version == "5.0" else [])


def test_answers_that_left_are_not_counted() -> None:
    peer = connected()
    flood = encode_packet(Pubrel(7), "5.0") * (READ // 4)
    for _ in range(4 * MOST_ANSWERS // (READ // 4)):
        assert peer.receive_bytes(flood) == []
        peer.protocol.data_to_send(EVERYTHING, peer.now)


# It repeats a message that our handler still works on


def test_repetitions_of_a_message_in_hand_are_bounded() -> None:
    peer = connected()
    flood = encode_packet(Publish("t", qos=2, packet_id=7, dup=True), "5.0") * 5_000
    events: list[Any] = []
    for _ in range(14):
        events += peer.receive_bytes(flood)
        assert peer.protocol.held_acknowledgements <= 65_535
    assert len(messages_in(events)) == 1
    assert end_of(events).reason_code == 0x93


# It lets a packet drip


def test_a_packet_in_tiny_reads_takes_little_more_than_its_size() -> None:
    peer = connected()
    data = encode_packet(Publish("t", bytes(200_000)), "5.0")
    tracemalloc.start()
    try:
        for at in range(0, len(data) - 2, 2):
            assert peer.receive_bytes(data[at : at + 2]) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(messages_in(peer.receive_bytes(data[-2:]))) == 1
    assert peak < 3 * len(data)


def drip(peer: Peer, data: bytes, every: float) -> list[Any]:
    """Send one byte at a time, ``every`` so many seconds, keeping all deadlines, until something happens."""
    events: list[Any] = []
    for at in range(len(data)):
        events += peer.receive_bytes(data[at : at + 1])
        events += peer.advance(every)
        peer.bytes_sent()
        if events:
            return events
    return events


@every_version
@pytest.mark.parametrize("keep_alive", [0, 60])
def test_a_packet_that_drips_in_ends_the_connection(version: str, keep_alive: int) -> None:
    peer = connected(version, keep_alive=keep_alive)
    data = encode_packet(Publish("t", bytes(100_000)), version)
    error = end_of(drip(peer, data, 1.0))
    assert isinstance(error, TransportClosedError)
    assert f"{len(data)} bytes" in str(error)
    assert peer.now == pytest.approx(60 + len(data) / 100, abs=2.0)


def test_a_header_that_never_ends_is_given_a_minute() -> None:
    peer = connected(keep_alive=0)
    peer.receive_bytes(b"\x30")
    assert peer.advance(59.0) == []
    assert isinstance(end_of(peer.advance(2.0)), TransportClosedError)


def test_a_slow_line_is_no_attack() -> None:
    peer = connected()
    data = encode_packet(Publish("t", bytes(20_000)), "5.0")
    events: list[Any] = []
    for start in range(0, len(data), 120):
        events += peer.receive_bytes(data[start : start + 120])
        events += peer.advance(1.0)
    assert len(messages_in(events)) == len(events) == 1


def test_each_packet_has_its_own_time() -> None:
    peer = connected(keep_alive=0)
    packet = encode_packet(Publish("t", bytes(50)), "5.0")
    events: list[Any] = []
    for _ in range(10):  # each read ends one packet and begins the next
        events += peer.receive_bytes(packet[20:] + packet[:20] if events else packet + packet[:20])
        events += peer.advance(50.0)
    assert len(messages_in(events)) == len(events) == 10


def test_while_we_do_not_read_no_packet_is_late() -> None:
    peer = connected(keep_alive=0)
    packet = encode_packet(Publish("t", bytes(50)), "5.0")
    peer.receive_bytes(packet[:20])
    peer.protocol.reading_paused = True
    assert peer.advance(1_000.0) == []
    peer.protocol.reading_paused = False
    assert peer.advance(30.0) == []
    assert peer.receive_bytes(packet[20:30]) == []
    assert peer.advance(59.0) == []
    assert isinstance(end_of(peer.advance(3.0)), TransportClosedError)


@pytest.mark.parametrize("seconds", [1, 65_535])
def test_whatever_keep_alive_the_server_wants_costs_one_pingreq_a_period(seconds: int) -> None:
    peer = connected(server={"server_keep_alive": seconds})
    for _ in range(10):
        due = peer.protocol.next_deadline()
        assert due is not None
        assert peer.advance(due - peer.now) == []
        assert peer.sent() == [Pingreq()]
        peer.receive(Pingresp())
    assert 9 * seconds <= peer.now < 10 * seconds


@pytest.mark.parametrize("expiry", [0, 0xFFFFFFFF])
def test_a_session_expiry_that_the_server_changes_changes_nothing_here(expiry: int) -> None:
    peer = connected(server={"session_expiry_interval": expiry}, session_expiry=600)
    assert peer.protocol.server["session_expiry_interval"] == expiry
    peer.publish(b"x", 2)
    session = peer.session
    peer.cut()
    again = connected(peer=Peer(session=session, session_expiry=600), clean_start=False, present=True)
    assert again.options.session_expiry == 600
    assert [packet.type for packet in again.sent()] == ["publish"]
