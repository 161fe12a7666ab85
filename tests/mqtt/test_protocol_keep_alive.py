"""Keep alive: PINGREQ when a direction is silent, and when a silent server is given up."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk.errors import TransportClosedError
from device_sdk.mqtt import Pingreq, Pingresp, Publish, encode_packet
from tests.mqtt.peer import Peer, connected, end_of, every_version


def quiet(**arguments: Any) -> Peer:
    """Return a Peer that connected at 1000 s with a keep alive of 10 s: PINGREQ is due at 1009 s."""
    return connected(arguments.pop("version", "5.0"), keep_alive=10, now=1000.0, **arguments)


@pytest.mark.conformance("5.0", "MQTT-3.1.2-20")
@pytest.mark.conformance("3.1.1", "MQTT-3.1.2-23")
@every_version
def test_silence_is_ended_by_pingreq_before_the_keep_alive_is_over(version: str) -> None:
    peer = quiet(version=version)
    assert peer.protocol.next_deadline() == 1009.0
    peer.now = 1008.9
    assert peer.protocol.handle_deadline(peer.now) == []
    assert peer.sent() == []
    peer.now = 1009.0
    assert peer.protocol.handle_deadline(peer.now) == []
    assert peer.sent() == [Pingreq()]


@pytest.mark.parametrize(("keep_alive", "due"), [(1, 0.9), (4, 3.6), (60, 59.0), (65_535, 65_534.0)])
def test_pingreq_is_early_by_a_second_or_a_tenth(keep_alive: int, due: float) -> None:
    assert connected(keep_alive=keep_alive).protocol.next_deadline() == pytest.approx(due)


def test_pingresp_starts_the_next_silence() -> None:
    peer = quiet()
    for _ in range(5):
        assert peer.advance(9.0) == []
        assert peer.sent() == [Pingreq()]
        assert peer.receive(Pingresp()) == []


@pytest.mark.conformance("5.0", "MQTT-3.12.4-1")
@pytest.mark.conformance("3.1.1", "MQTT-3.12.4-1")
@every_version
def test_a_server_that_does_not_answer_is_given_up(version: str) -> None:
    peer = quiet(version=version)
    assert peer.advance(9.0) == []
    assert peer.sent() == [Pingreq()]
    assert peer.advance(4.9) == []
    error = end_of(peer.advance(0.1))
    assert isinstance(error, TransportClosedError)
    assert "PINGREQ within 5 s" in str(error)
    assert peer.bytes_sent() == b""
    assert peer.protocol.next_deadline() is None


@pytest.mark.parametrize("keep_alive", [1, 10, 60, 600])
@pytest.mark.parametrize("last_heard", [0.0, 0.3, 0.95])
@pytest.mark.parametrize("we_send", [True, False], ids=["sending", "idle"])
def test_a_dead_link_is_noticed_within_one_and_a_half_keep_alive_times(
    keep_alive: int, last_heard: float, we_send: bool
) -> None:
    peer = connected(keep_alive=keep_alive)
    peer.advance(last_heard * keep_alive)
    peer.sent()
    peer.receive(Publish("t", b"the last that comes"))
    heard = peer.now
    while peer.now < heard + 1.5 * keep_alive:
        if we_send:
            peer.protocol.publish_qos0(b"\0\1t", b"x", 0, b"\0")
        peer.sent()
        if events := peer.advance(keep_alive / 100):
            assert "no answer to PINGREQ" in str(end_of(events))
            return
    raise AssertionError("the dead link was not noticed")


def test_an_idle_connection_is_looked_after_thirty_times_in_half_an_hour() -> None:
    peer = connected(keep_alive=60)
    wakes = 0
    while peer.now < 1800:
        due = peer.protocol.next_deadline()
        assert due is not None
        assert peer.advance(due - peer.now) == []
        assert peer.sent() == [Pingreq()]
        peer.receive(Pingresp())
        wakes += 2
    assert wakes / peer.now < 0.035


def test_sending_alone_does_not_prove_that_the_server_is_there() -> None:
    peer = quiet()
    for _ in range(4):
        peer.advance(2.25)
        peer.publish(b"x", 1)
        packets = peer.sent()
    assert [packet.type for packet in packets] == ["pingreq", "publish"]


@pytest.mark.conformance("5.0", "MQTT-3.1.2-20")
def test_receiving_alone_does_not_keep_us_alive_at_the_server() -> None:
    peer = quiet()
    for _ in range(4):
        peer.advance(2.25)
        peer.receive(Publish("t", b"x"))
    assert peer.sent() == [Pingreq()]


def test_traffic_in_both_directions_needs_no_pingreq() -> None:
    peer = quiet()
    for _ in range(20):
        assert peer.advance(8.9) == []
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
    assert peer.protocol.next_deadline() == 1003.6
    assert peer.advance(3.6) == []
    assert peer.sent() == [Pingreq()]
    assert "within 2 s" in str(end_of(peer.advance(2.0)))


def test_an_unasked_pingresp_is_harmless() -> None:
    peer = quiet()
    assert peer.receive(Pingresp()) == []


# A slow stream is not a dead one


def test_output_that_drains_postpones_the_verdict() -> None:
    peer = quiet()
    peer.advance(9.0)
    assert peer.sent() == [Pingreq()]
    for _ in range(10):
        assert peer.advance(4.5) == []
        peer.protocol.keep_alive.output_drains(peer.now)
    end_of(peer.advance(5.0))


def test_output_that_drains_is_no_reason_to_expect_a_pingresp() -> None:
    peer = quiet()
    peer.protocol.keep_alive.output_drains(peer.now)
    assert peer.protocol.next_deadline() == 1009.0
    peer.advance(9.0)
    assert peer.sent() == [Pingreq()]


def test_a_long_packet_that_trickles_in_postpones_the_verdict() -> None:
    peer = quiet()
    data = encode_packet(Publish("t", bytes(4)), "5.0") + encode_packet(Pingresp(), "5.0")
    peer.advance(9.0)
    assert peer.sent() == [Pingreq()]
    events: list[Any] = []
    for at in range(len(data)):
        events += peer.advance(4.0)
        events += peer.receive_bytes(data[at : at + 1])
    assert [type(event).__name__ for event in events] == ["Message"]


def test_while_pingresp_is_awaited_our_own_silence_is_still_ended() -> None:
    peer = quiet()
    pings = 0
    for _ in range(20):
        assert peer.advance(4.5) == []
        pings += peer.sent().count(Pingreq())
        peer.receive(Publish("t", b"keeps coming"))
    assert pings == 10


def test_a_stuck_stream_collects_one_pingreq_and_ends() -> None:
    peer = quiet()
    assert peer.advance(13.9) == []
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
        assert peer.advance(9.0) == []
        assert peer.sent() == [Pingreq()]


def test_after_a_pause_the_server_gets_its_whole_time_to_answer() -> None:
    peer = quiet()
    peer.protocol.reading_paused = True
    for _ in range(5):
        peer.advance(9.0)
        peer.sent()
    peer.advance(8.9)
    peer.protocol.reading_paused = False
    assert peer.advance(0.2) == []
    assert peer.sent() == [Pingreq()]
    assert peer.advance(4.7) == []
    end_of(peer.advance(5.0))


def test_a_pause_that_goes_on_does_not_start_anew() -> None:
    peer = quiet()
    peer.advance(9.0)
    peer.sent()
    peer.protocol.reading_paused = False
    end_of(peer.advance(5.0))


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
    peer.advance(9.0)
    assert [packet.type for packet in peer.sent()] == ["pingreq", "publish"]
