"""A session goes on, or is lost, when the client connects again."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk.errors import DeliveryExpiredError
from device_sdk.mqtt import Connack, Packet, Puback, Pubcomp, Publish, Pubrec, Pubrel, Suback, Subscription
from device_sdk.mqtt.events import ConnectAcknowledged
from device_sdk.mqtt.session import Session
from tests.mqtt.peer import Peer, connected, every_version


def payloads(packets: list[Packet]) -> list[bytes]:
    return [packet.payload for packet in packets if isinstance(packet, Publish)]


def again(peer: Peer, **arguments: Any) -> Peer:
    """Lose the stream and connect again, going on with the session."""
    peer.cut()
    return connected(peer.version, session=peer.session, **arguments)


@pytest.mark.conformance(
    "5.0",
    "MQTT-3.1.2-23",
    "MQTT-3.3.1-1",
    "MQTT-4.1.0-1",
    "MQTT-4.3.2-3",
    "MQTT-4.3.3-3",
    "MQTT-4.4.0-1",
    "MQTT-4.6.0-1",
)
@pytest.mark.conformance(
    "3.1.1",
    "MQTT-2.3.1-3",
    "MQTT-3.1.2-4",
    "MQTT-3.3.1-1",
    "MQTT-4.1.0-1",
    "MQTT-4.3.2-1",
    "MQTT-4.4.0-1",
    "MQTT-4.6.0-1",
)
@every_version
def test_unacknowledged_messages_are_repeated_with_dup_and_their_identifiers_in_order(version: str) -> None:
    peer = connected(version)
    for number in range(4):
        peer.publish(b"%d" % number, 1 + number % 2, retain=number == 3)
    peer.sent()
    peer.receive(Puback(1))
    assert again(peer).sent() == [
        Publish("t", b"1", qos=2, packet_id=2, dup=True),
        Publish("t", b"2", qos=1, packet_id=3, dup=True),
        Publish("t", b"3", qos=2, packet_id=4, dup=True, retain=True),
    ]


@pytest.mark.conformance("5.0", "MQTT-4.3.3-5", "MQTT-4.3.3-6", "MQTT-4.4.0-1")
@pytest.mark.conformance("3.1.1", "MQTT-4.3.3-1", "MQTT-4.4.0-1")
@pytest.mark.conformance("3.1", "MQTT-3.1/SESSION-PRESENT")
@every_version
def test_pubrec_seen_then_resume_sends_pubrel_and_no_publish(version: str) -> None:
    peer = connected(version)
    message = peer.publish(b"x", 2)
    peer.receive(Pubrec(1))
    second = again(peer)
    assert second.sent() == [Pubrel(1)]
    assert second.receive(Pubcomp(1)) == [message]
    assert message.status == "acknowledged"


def test_pubrels_are_repeated_in_the_order_of_the_pubrecs() -> None:
    peer = connected()
    for _ in range(4):
        peer.publish(b"x", 2)
    peer.receive(Pubrec(3), Pubrec(1), Pubrec(2))
    assert again(peer).sent() == [
        Pubrel(3),
        Pubrel(1),
        Pubrel(2),
        Publish("t", b"x", qos=2, packet_id=4, dup=True),
    ]


def test_a_message_that_never_left_is_sent_on_resume() -> None:
    peer = connected()
    peer.publish(b"x", 1)
    assert again(peer).sent() == [Publish("t", b"x", qos=1, packet_id=1, dup=True)]


def test_a_second_resume_repeats_the_same_again() -> None:
    peer = connected()
    peer.publish(b"1", 1)
    peer.publish(b"2", 2)
    second = again(peer)
    first_time = second.bytes_sent()
    assert again(second).bytes_sent() == first_time


def test_a_repeat_has_the_full_topic_and_its_properties() -> None:
    peer = connected()
    peer.publish(b"x", 1, topic="a/b", content_type="text/plain")
    (packet,) = again(peer).sent()
    assert isinstance(packet, Publish)
    assert (packet.topic, packet.properties) == ("a/b", {"content_type": "text/plain"})


@pytest.mark.conformance("5.0", "MQTT-4.4.0-1")
@pytest.mark.conformance("3.1.1", "MQTT-4.4.0-1")
@pytest.mark.conformance("3.1", "MQTT-3.1/RESEND-TIMER")
@every_version
def test_nothing_is_repeated_on_a_live_connection(version: str) -> None:
    peer = connected(version, keep_alive=0)
    peer.publish(b"1", 1)
    peer.publish(b"2", 2)
    peer.receive(Pubrec(2))
    peer.sent()
    assert peer.advance(1e6) == []
    assert peer.sent() == []


# The window on resume


@pytest.mark.conformance("5.0", "MQTT-3.3.4-7", "MQTT-4.9.0-2")
def test_repeats_keep_within_a_smaller_receive_maximum() -> None:
    peer = connected(inflight=20)
    for number in range(5):
        peer.publish(b"%d" % number, 1)
    second = again(peer, server={"receive_maximum": 2})
    assert payloads(second.sent()) == [b"0", b"1"]
    second.receive(Puback(1))
    assert payloads(second.sent()) == [b"2"]
    second.receive(Puback(2), Puback(3))
    assert payloads(second.sent()) == [b"3", b"4"]
    second.receive(Puback(4), Puback(5))
    assert len(second.session) == 0


def test_pubrels_count_in_the_window_and_never_wait_for_it() -> None:
    peer = connected()
    for number in range(4):
        peer.publish(b"%d" % number, 2)
    peer.receive(Pubrec(1), Pubrec(2), Pubrec(3))
    second = again(peer, server={"receive_maximum": 2})
    assert second.sent() == [Pubrel(1), Pubrel(2), Pubrel(3)]
    second.receive(Pubcomp(1))
    assert second.sent() == []
    second.receive(Pubcomp(2))
    assert payloads(second.sent()) == [b"3"]


@pytest.mark.conformance("5.0", "MQTT-3.3.4-7", "MQTT-4.9.0-2")
def test_a_qos_2_exchange_keeps_its_place_in_the_window_until_pubcomp() -> None:
    peer = connected()
    for number in range(3):
        peer.publish(b"%d" % number, 2)
    second = again(peer, server={"receive_maximum": 1})
    for number in range(1, 4):
        assert [packet.type for packet in second.sent()] == ["publish"]
        second.receive(Pubrec(number))
        assert second.sent() == [Pubrel(number)]
        second.receive(Pubcomp(number))


def test_a_refused_repeat_makes_room_for_the_next() -> None:
    peer = connected()
    for number in range(2):
        peer.publish(b"%d" % number, 2)
    second = again(peer, server={"receive_maximum": 1})
    assert payloads(second.sent()) == [b"0"]
    second.receive(Pubrec(1, 0x97))
    assert payloads(second.sent()) == [b"1"]


def test_an_answer_to_a_message_whose_repeat_waits_ends_it_and_keeps_the_window() -> None:
    peer = connected()
    messages = [peer.publish(b"%d" % number, 1) for number in range(5)]
    second = again(peer, server={"receive_maximum": 2})
    assert payloads(second.sent()) == [b"0", b"1"]
    assert second.receive(Puback(4)) == [messages[3]]
    assert second.sent() == [], "two are still in flight"
    second.receive(Puback(1), Puback(2))
    assert payloads(second.sent()) == [b"2", b"4"]


def test_a_pubrec_for_a_message_whose_repeat_waits_ends_its_repeat() -> None:
    peer = connected()
    for number in range(4):
        peer.publish(b"%d" % number, 2)
    second = again(peer, server={"receive_maximum": 1})
    assert payloads(second.sent()) == [b"0"]
    second.receive(Pubrec(2))
    assert second.sent() == [Pubrel(2)]
    second.receive(Pubrec(1), Pubcomp(1))
    assert second.sent() == [Pubrel(1)], "the second exchange still has the one place"
    second.receive(Pubcomp(2))
    assert payloads(second.sent()) == [b"2"]


# Limits that changed


@pytest.mark.parametrize(
    ("server", "left"),
    [
        ({"maximum_packet_size": 50}, [b"small", b"retained"]),
        ({"maximum_qos": 1}, [b"small", b"retained"]),
        ({"retain_available": 0}, [b"small", bytes(100)]),
    ],
)
def test_what_the_server_no_longer_takes_is_kept_and_not_sent(
    server: dict[str, Any], left: list[bytes]
) -> None:
    peer = connected()
    messages = [
        peer.publish(b"small", 1),
        peer.publish(bytes(100), 2),
        peer.publish(b"retained", retain=True),
    ]
    peer.sent()
    second = again(peer, server=server)
    assert payloads(second.sent()) == left
    assert {message.status for message in messages} == {"sent"}
    assert (len(second.session), len(second.protocol.outbound.held)) == (3, 1)
    third = again(second)
    assert payloads(third.sent()) == [b"small", bytes(100), b"retained"]
    assert third.protocol.outbound.held == set()


def test_what_the_server_no_longer_takes_needs_no_place_in_the_window() -> None:
    peer = connected(inflight=3)
    for _ in range(3):
        peer.publish(bytes(100), 2)
    second = again(peer, server={"maximum_packet_size": 50}, inflight=3)
    assert second.sent() == []
    assert second.protocol.outbound.window == 6
    for number in range(3):
        assert second.publish(b"%d" % number).packet_id == 4 + number


@pytest.mark.parametrize("ways", [["late PUBACK"], ["late PUBREC"], ["late PUBREC", "PUBCOMP"], ["given up"]])
def test_what_is_kept_has_its_place_as_long_as_it_is_kept(ways: list[str]) -> None:
    peer = connected(inflight=3)
    qos = 1 if ways == ["late PUBACK"] else 2
    message = peer.publish(bytes(100), qos)
    second = again(peer, server={"maximum_packet_size": 50}, inflight=3)
    assert (second.protocol.outbound.window, len(second.protocol.outbound.held)) == (4, 1)
    answers: dict[str, Any] = {"late PUBACK": Puback(1), "late PUBREC": Pubrec(1), "PUBCOMP": Pubcomp(1)}
    for way in ways:
        if way == "given up":
            second.protocol.outbound.give_up(message)
        else:
            second.receive(answers[way])
    assert (second.protocol.outbound.window, len(second.protocol.outbound.held)) == (3, 0)
    assert len(second.session) == (ways == ["late PUBREC"])


def test_what_is_kept_ends_with_its_expiry_on_the_next_connection() -> None:
    peer = connected()
    message = peer.publish(bytes(100), expires_at=60.0)
    second = again(peer, server={"maximum_packet_size": 50}, now=10.0)
    third = again(second, server={"maximum_packet_size": 50}, now=60.0)
    assert (message.status, third.protocol.outbound.held) == ("expired", set())


def test_a_message_that_is_kept_leaves_its_place_to_the_next_repeat() -> None:
    peer = connected()
    for payload in (b"1", bytes(100), b"2", b"3"):
        peer.publish(payload, 1)
    second = again(peer, server={"maximum_packet_size": 50, "receive_maximum": 2})
    assert payloads(second.sent()) == [b"1", b"2"]
    second.receive(Puback(1))
    assert payloads(second.sent()) == [b"3"]


# The session is lost


def lost(peer: Peer) -> tuple[Peer, ConnectAcknowledged, list[Any]]:
    peer.cut()
    second = Peer(peer.version, session=peer.session)
    second.connect(clean_start=peer.version == "3.1")
    acknowledged, *finished = second.receive(Connack(False))
    assert isinstance(acknowledged, ConnectAcknowledged)
    return second, acknowledged, finished


@pytest.mark.conformance("5.0", "MQTT-3.2.2-5")
@pytest.mark.conformance("3.1.1", "MQTT-3.2.2-3")
@every_version
def test_a_lost_session_gives_its_messages_back_in_order(version: str) -> None:
    peer = connected(version)
    messages = [peer.publish(b"%d" % number, 1 + number % 2) for number in range(4)]
    peer.receive(Puback(1))
    second, acknowledged, finished = lost(peer)
    assert acknowledged.republish == messages[1:]
    assert finished == []
    assert not acknowledged.session_present
    assert second.sent() == []
    for message in messages[1:]:
        assert (message.status, message.packet_id, message.packet) == ("queued", 0, None)
    assert second.session.generation == peer.session.generation


def test_messages_of_a_lost_session_are_published_as_new_ones() -> None:
    peer = connected()
    message = peer.publish(b"x", 2)
    second, _, _ = lost(peer)
    second.protocol.publish(message)
    assert second.sent() == [Publish("t", b"x", qos=2, packet_id=2)]


@every_version
def test_a_message_past_pubrec_counts_as_acknowledged_when_the_session_is_lost(version: str) -> None:
    peer = connected(version)
    message = peer.publish(b"x", 2)
    peer.receive(Pubrec(1))
    second, acknowledged, finished = lost(peer)
    assert acknowledged.republish == []
    assert finished == [message]
    assert (message.status, message.error) == ("acknowledged", None)
    assert len(second.session) == 0
    assert second.receive(Pubcomp(1)) == []


@pytest.mark.conformance("5.0", "MQTT-3.2.2-5")
@pytest.mark.conformance("3.1.1", "MQTT-3.2.2-3")
@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
def test_a_lost_session_forgets_what_was_received(version: str) -> None:
    session = Session()
    session.received[5] = None
    peer = connected(version, session=session, present=False)
    assert peer.session.received == {}


# Packet identifiers


@pytest.mark.conformance("5.0", "MQTT-2.2.1-3", "MQTT-4.3.2-1", "MQTT-4.3.3-1")
@pytest.mark.conformance("3.1.1", "MQTT-2.3.1-2")
@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
def test_identifiers_are_unique_and_wrap_at_65535_around_those_in_use(version: str) -> None:
    peer = connected(version, inflight=65_535)
    held = [peer.publish(b"x", 1), peer.publish(b"x", 2)]
    peer.receive(Pubrec(2))
    peer.protocol.subscribe([Subscription("a")])
    seen = []
    for _ in range(65_535):
        message = peer.publish(b"x", 1)
        seen.append(message.packet_id)
        peer.receive(Puback(message.packet_id))
    peer.bytes_sent()
    assert seen[:65_532] == list(range(4, 65_536))
    assert seen[65_532:] == [4, 5, 6]
    assert [message.packet_id for message in held] == [1, 2]
    peer.receive(Suback(3, [0]))


def test_identifiers_in_use_survive_a_resume() -> None:
    peer = connected()
    peer.publish(b"x", 1)
    peer.session.last_packet_id = 0
    second = again(peer)
    assert second.publish(b"y", 1).packet_id == 2


# Messages that expire in flight


@pytest.mark.conformance("5.0", "MQTT-4.3.3-7", "MQTT-4.4.0-1")
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize(("now", "left"), [(5.0, 55), (5.5, 55), (58.9, 2), (59.0, 1), (59.999, 1)])
def test_a_repeat_carries_what_is_left_of_the_life_of_its_message(qos: int, now: float, left: int) -> None:
    peer = connected()
    peer.publish(b"x", qos, expires_at=60.0, content_type="text")
    [first] = peer.sent()
    assert isinstance(first, Publish)
    assert first.properties["message_expiry_interval"] == 60
    expected = {"message_expiry_interval": left, "content_type": "text"}
    assert again(peer, now=now).sent() == [
        Publish("t", b"x", qos=qos, packet_id=1, dup=True, properties=expected)
    ]


def test_the_life_that_is_left_is_that_at_the_time_of_the_repeat() -> None:
    peer = connected()
    for expires_at in (60.0, 60.0, 8.0, 60.0):
        peer.publish(b"%d" % expires_at, 1, expires_at=expires_at)
    peer.sent()
    peer = again(peer, now=5.0, inflight=1)
    for now, left in ((5.0, 55), (9.0, 51), (10.0, 50)):
        peer.now = now
        [packet] = peer.sent() if now == 5.0 else _acknowledge(peer)
        assert isinstance(packet, Publish)
        assert packet.properties == {"message_expiry_interval": left}
    assert peer.session.withheld == {3}


def _acknowledge(peer: Peer) -> list[Packet]:
    peer.receive(Puback(next(iter(peer.session.in_flight))))
    return peer.sent()


@pytest.mark.parametrize("qos", [1, 2])
@every_version
def test_a_message_whose_life_ended_in_flight_is_not_repeated_and_its_identifier_not_used(
    version: str, qos: int
) -> None:
    peer = connected(version, session=Session(journal=True), present=False)
    message = peer.publish(b"x", qos, expires_at=3.0)
    other = peer.publish(b"y", qos)
    peer.sent()
    peer.cut()
    peer.session.take_changes()
    peer = Peer(version, session=peer.session, now=3.0)
    peer.connect(clean_start=False)
    events = peer.receive(Connack(version != "3.1"))
    assert events[1:] == [message]
    assert (message.status, other.status, type(message.error)) == ("expired", "sent", DeliveryExpiredError)
    assert payloads(peer.sent()) == [b"y"]
    assert list(peer.session.in_flight) == [2]
    assert peer.session.take_changes() == [("withheld", 1), ("done", message.sequence, "expired")]
    peer.session.skip_to(65_535)
    assert peer.publish(b"z", qos).packet_id == 3


def test_an_answer_to_a_message_that_expired_in_flight_ends_what_the_server_has_of_it() -> None:
    peer = connected()
    for qos in (1, 2):
        peer.publish(b"x", qos, expires_at=3.0)
    peer = again(peer, now=10.0)
    assert peer.receive(Puback(1), Pubrec(2)) == []
    assert peer.sent() == [Pubrel(2, 0x92)]
    assert peer.receive(Pubcomp(2)) == []


@pytest.mark.conformance("5.0", "MQTT-4.3.3-13", "MQTT-4.3.3-7")
@every_version
def test_past_pubrec_an_exchange_is_finished_although_its_message_expired(version: str) -> None:
    peer = connected(version)
    message = peer.publish(b"x", 2, expires_at=3.0)
    peer.receive(Pubrec(1))
    peer = again(peer, now=10.0)
    assert peer.sent() == [Pubrel(1)]
    assert peer.receive(Pubcomp(1)) == [message]
    assert (message.status, peer.session.withheld) == ("acknowledged", set())


def test_a_lost_session_gives_the_identifiers_of_expired_messages_back() -> None:
    peer = connected()
    peer.publish(b"x", expires_at=3.0)
    peer = again(peer, now=10.0)
    assert peer.session.withheld == {1}
    peer = again(peer, now=20.0, present=False)
    assert peer.session.withheld == set()
