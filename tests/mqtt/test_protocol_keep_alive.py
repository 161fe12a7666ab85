"""Keep alive: PINGREQ when a direction is silent, and when a silent server is given up."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk.errors import TransportClosedError
from device_sdk.mqtt import Pingreq, Pingresp, Publish, encode_packet
from tests.mqtt.peer import Peer, connected, end_of, every_version


def quiet(**arguments: Any) -> Peer:
    """Return a Peer that connected at 1000 s with a keep alive of 10 s."""
    return connected(arguments.pop("version", "5.0"), keep_alive=10, now=1000.0, **arguments)


@pytest.mark.conformance("5.0", "MQTT-3.1.2-20")
@pytest.mark.conformance("3.1.1", "MQTT-3.1.2-23")
@every_version
def test_silence_is_ended_by_pingreq(version: str) -> None:
    peer = quiet(version=version)
    assert peer.protocol.next_deadline() == 1010.0
    peer.now = 1009.9
    assert peer.protocol.handle_deadline(peer.now) == []
    assert peer.sent() == []
    peer.now = 1010.0
    assert peer.protocol.handle_deadline(peer.now) == []
    assert peer.sent() == [Pingreq()]


def test_pingresp_starts_the_next_silence() -> None:
    peer = quiet()
    for _ in range(5):
        assert peer.advance(10.0) == []
        assert peer.sent() == [Pingreq()]
        assert peer.receive(Pingresp()) == []


@pytest.mark.conformance("5.0", "MQTT-3.12.4-1")
@pytest.mark.conformance("3.1.1", "MQTT-3.12.4-1")
@every_version
def test_a_server_that_does_not_answer_is_given_up(version: str) -> None:
    peer = quiet(version=version)
    assert peer.advance(10.0) == []
    assert peer.sent() == [Pingreq()]
    assert peer.advance(9.9) == []
    error = end_of(peer.advance(0.1))
    assert isinstance(error, TransportClosedError)
    assert "PINGREQ within 10 s" in str(error)
    assert peer.bytes_sent() == b""
    assert peer.protocol.next_deadline() is None


def test_sending_alone_does_not_prove_that_the_server_is_there() -> None:
    peer = quiet()
    for _ in range(4):
        peer.advance(2.5)
        peer.publish(b"x", 1)
        packets = peer.sent()
    assert Pingreq() in packets
    assert [packet.type for packet in packets] == ["pingreq", "publish"]


@pytest.mark.conformance("5.0", "MQTT-3.1.2-20")
def test_receiving_alone_does_not_keep_us_alive_at_the_server() -> None:
    peer = quiet()
    for _ in range(4):
        peer.advance(2.5)
        peer.receive(Publish("t", b"x"))
    assert peer.sent() == [Pingreq()]


def test_traffic_in_both_directions_needs_no_pingreq() -> None:
    peer = quiet()
    for _ in range(20):
        assert peer.advance(9.0) == []
        peer.protocol.publish_qos0(b"\0\1t", b"x", 0, b"\0")
        assert [packet.type for packet in peer.sent()] == ["publish"]
        peer.receive(Publish("t", b"x"))


@pytest.mark.conformance("5.0", "MQTT-3.1.2-20")
@pytest.mark.parametrize("server", [None, {"server_keep_alive": 0}])
def test_keep_alive_0_is_off(server: dict[str, Any] | None) -> None:
    peer = connected(keep_alive=0 if server is None else 10, server=server)
    assert peer.protocol.next_deadline() is None
    assert peer.advance(1e6) == []
    assert peer.sent() == []


@pytest.mark.conformance("5.0", "MQTT-3.1.2-21", "MQTT-3.2.2-21")
def test_the_server_s_keep_alive_replaces_ours() -> None:
    peer = quiet(server={"server_keep_alive": 4})
    assert peer.protocol.next_deadline() == 1004.0
    assert peer.advance(4.0) == []
    assert peer.sent() == [Pingreq()]
    assert "within 4 s" in str(end_of(peer.advance(4.0)))


def test_an_unasked_pingresp_is_harmless() -> None:
    peer = quiet()
    assert peer.receive(Pingresp()) == []


# A slow stream is not a dead one


def test_output_that_drains_postpones_the_verdict() -> None:
    peer = quiet()
    peer.advance(10.0)
    assert peer.sent() == [Pingreq()]
    for _ in range(10):
        assert peer.advance(9.0) == []
        peer.protocol.output_progressed(peer.now)
    end_of(peer.advance(10.0))


def test_output_that_drains_is_no_reason_to_expect_a_pingresp() -> None:
    peer = quiet()
    peer.protocol.output_progressed(peer.now)
    assert peer.protocol.next_deadline() == 1010.0
    peer.advance(10.0)
    assert peer.sent() == [Pingreq()]


def test_a_long_packet_that_trickles_in_postpones_the_verdict() -> None:
    peer = quiet()
    data = encode_packet(Publish("t", bytes(4)), "5.0") + encode_packet(Pingresp(), "5.0")
    peer.advance(10.0)
    assert peer.sent() == [Pingreq()]
    events: list[Any] = []
    for at in range(len(data)):
        events += peer.advance(5.0)
        events += peer.receive_bytes(data[at : at + 1])
    assert [type(event).__name__ for event in events] == ["Message"]


def test_while_pingresp_is_awaited_our_own_silence_is_still_ended() -> None:
    peer = quiet()
    pings = 0
    for _ in range(20):
        assert peer.advance(5.0) == []
        pings += peer.sent().count(Pingreq())
        peer.receive(Publish("t", b"keeps coming"))
    assert pings == 10


def test_a_stuck_stream_collects_one_pingreq_and_ends() -> None:
    peer = quiet()
    assert peer.advance(19.9) == []
    end_of(peer.advance(0.1))
    stuck = quiet()
    stuck.protocol.reading_paused = True
    assert stuck.advance(100.0) == []
    assert stuck.sent() == [Pingreq()]


# Reading is paused


def test_pingreq_goes_on_while_reading_is_paused() -> None:
    peer = quiet()
    peer.protocol.reading_paused = True
    for _ in range(20):
        assert peer.advance(10.0) == []
        assert peer.sent() == [Pingreq()]


def test_after_a_pause_the_server_gets_a_whole_keep_alive_to_answer() -> None:
    peer = quiet()
    peer.protocol.reading_paused = True
    for _ in range(5):
        peer.advance(10.0)
        peer.sent()
    peer.advance(9.9)
    peer.protocol.reading_paused = False
    assert peer.advance(0.2) == []
    assert peer.sent() == [Pingreq()]
    assert peer.advance(9.5) == []
    end_of(peer.advance(10.0))


def test_a_pause_that_goes_on_does_not_start_anew() -> None:
    peer = quiet()
    peer.advance(10.0)
    peer.sent()
    peer.protocol.reading_paused = False
    end_of(peer.advance(10.0))


def test_a_ping_that_was_answered_before_the_pause_ended_is_no_failure() -> None:
    peer = quiet()
    peer.protocol.reading_paused = True
    peer.advance(35.0)
    peer.protocol.reading_paused = False
    assert peer.receive(Pingresp(), Pingresp(), Pingresp()) == []
    assert peer.advance(5.0) == []


def test_pingreq_overtakes_what_waits() -> None:
    peer = quiet()
    peer.publish(b"x", 1)
    peer.advance(10.0)
    assert [packet.type for packet in peer.sent()] == ["pingreq", "publish"]
