"""What a client publishes: QoS 0, 1 and 2, the window, and the limits that the server set."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk.errors import LocalProtocolError, PublishRefused, RemoteProtocolError
from device_sdk.mqtt import (
    Packet,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Subscription,
    encode_packet,
)
from device_sdk.mqtt.codes import REASON_CODES
from tests.mqtt.peer import Peer, connected, end_of, every_version, outgoing, versions_3

REFUSALS = sorted(code for code in REASON_CODES["puback"] if code >= 0x80)


def qos0(peer: Peer, payload: bytes = b"x", **fields: Any) -> None:
    message = outgoing(payload, 0, version=peer.version, **fields)
    peer.protocol.publish_qos0(message.topic_field, message.payload, message.flags, message.properties)


# QoS 0


@pytest.mark.conformance("5.0", "MQTT-2.2.1-2", "MQTT-3.3.1-2", "MQTT-4.3.1-1")
@pytest.mark.conformance("3.1.1", "MQTT-2.3.1-5", "MQTT-3.3.1-2", "MQTT-4.3.1-1")
@every_version
@pytest.mark.parametrize("payload", [b"", b"x", bytes(120), bytes(128), bytes(20_000)])
@pytest.mark.parametrize("retain", [False, True])
def test_qos_0_leaves_and_is_forgotten(version: str, payload: bytes, retain: bool) -> None:
    peer = connected(version)
    qos0(peer, payload, topic="a/é", retain=retain)
    assert peer.protocol.buffered > len(payload)
    assert peer.sent() == [Publish("a/é", payload, retain=retain)]
    assert peer.protocol.buffered == 0
    assert len(peer.session) == 0


def test_publish_carries_its_properties() -> None:
    peer = connected()
    properties: dict[str, Any] = {
        "payload_format_indicator": 1,
        "content_type": "text/plain",
        "response_topic": "answers",
        "correlation_data": b"\0\1",
        "user_property": [["a", "1"], ["a", "2"]],
    }
    qos0(peer, **properties)
    peer.publish(b"x", 1, **properties)
    assert peer.sent() == [
        Publish("t", b"x", properties=properties),
        Publish("t", b"x", qos=1, packet_id=1, properties=properties),
    ]


# QoS 1


@pytest.mark.conformance("5.0", "MQTT-4.3.2-2", "MQTT-4.3.2-3")
@pytest.mark.conformance("3.1.1", "MQTT-4.3.2-1")
@every_version
@pytest.mark.parametrize("retain", [False, True])
def test_qos_1_is_done_when_puback_comes(version: str, retain: bool) -> None:
    peer = connected(version)
    message = peer.publish(b"x", 1, retain=retain)
    assert (message.status, message.packet_id) == ("sent", 1)
    assert peer.sent() == [Publish("t", b"x", qos=1, packet_id=1, retain=retain)]
    assert peer.receive(Puback(1)) == [message]
    assert (message.status, message.error, message.packet) == ("acknowledged", None, None)
    assert len(peer.session) == 0
    assert peer.sent() == []


@pytest.mark.parametrize(
    "answer",
    ["40 02 0001", "40 03 0001 00", "40 03 0001 10", "40 04 0001 00 00", "40 09 0001 00 05 1f 0002 6f6b"],
)
def test_puback_may_have_every_legal_length(answer: str) -> None:
    peer = connected()
    message = peer.publish(b"x", 1)
    assert peer.receive_bytes(bytes.fromhex(answer)) == [message]
    assert message.status == "acknowledged"


@pytest.mark.parametrize(
    "answer", ["40 02 0000", "42 02 0001", "40 01 01", "40 03 0001 55", "40 04 0001 00 01"]
)
def test_a_malformed_puback_ends_the_connection_and_the_message_stays(answer: str) -> None:
    peer = connected()
    message = peer.publish(b"x", 1)
    assert isinstance(end_of(peer.receive_bytes(bytes.fromhex(answer))), RemoteProtocolError)
    assert list(peer.session.in_flight.values()) == [message]


@pytest.mark.conformance("5.0", "MQTT-4.4.0-2")
@pytest.mark.parametrize("reason_code", REFUSALS)
@pytest.mark.parametrize(("qos", "answer"), [(1, Puback), (2, Pubrec)])
def test_a_refused_message_ends_with_the_reason_and_frees_its_identifier(
    reason_code: int, qos: int, answer: type[Puback | Pubrec]
) -> None:
    peer = connected()
    message = peer.publish(b"x", qos)
    peer.sent()
    properties = {"reason_string": "no", "user_property": [("a", "1")]}
    assert peer.receive(answer(1, reason_code, properties)) == [message]
    assert message.status == "refused"
    assert isinstance(message.error, PublishRefused)
    assert (message.error.reason_code, message.error.reason_string) == (reason_code, "no")
    assert message.error.user_properties == (("a", "1"),)
    assert peer.sent() == []
    assert len(peer.session) == 0


# QoS 2


@pytest.mark.conformance("5.0", "MQTT-2.2.1-5", "MQTT-4.3.3-2", "MQTT-4.3.3-4")
@pytest.mark.conformance("3.1.1", "MQTT-2.3.1-6", "MQTT-4.3.3-1")
@every_version
def test_qos_2_takes_four_packets(version: str) -> None:
    peer = connected(version)
    message = peer.publish(b"x", 2)
    assert peer.sent() == [Publish("t", b"x", qos=2, packet_id=1)]
    assert peer.receive(Pubrec(1)) == []
    assert peer.sent() == [Pubrel(1)]
    assert message.status == "sent"
    assert len(peer.session) == 1
    assert peer.receive(Pubcomp(1)) == [message]
    assert message.status == "acknowledged"
    assert len(peer.session) == 0
    assert peer.sent() == []


@pytest.mark.parametrize("pubrec", ["50 02 0001", "50 03 0001 00", "50 03 0001 10", "50 04 0001 00 00"])
@pytest.mark.parametrize("pubcomp", ["70 02 0001", "70 03 0001 00", "70 03 0001 92", "70 04 0001 00 00"])
def test_pubrec_and_pubcomp_may_have_every_legal_length(pubrec: str, pubcomp: str) -> None:
    peer = connected()
    message = peer.publish(b"x", 2)
    peer.sent()
    assert peer.receive_bytes(bytes.fromhex(pubrec)) == []
    assert peer.sent() == [Pubrel(1)]
    assert peer.receive_bytes(bytes.fromhex(pubcomp)) == [message]


@every_version
def test_a_repeated_pubrec_is_answered_by_pubrel_again(version: str) -> None:
    peer = connected(version)
    message = peer.publish(b"x", 2)
    peer.sent()
    assert peer.receive(Pubrec(1), Pubrec(1)) == []
    assert peer.sent() == [Pubrel(1), Pubrel(1)]
    assert peer.receive(Pubcomp(1), Pubcomp(1)) == [message]


@every_version
def test_a_pubrec_for_an_unknown_identifier_lets_the_server_end_the_exchange(version: str) -> None:
    peer = connected(version)
    assert peer.receive(Pubrec(77)) == []
    assert peer.sent() == [Pubrel(77, 0x92 if version == "5.0" else 0)]


@pytest.mark.parametrize("released", [False, True])
def test_a_pubrec_with_an_error_is_never_answered(released: bool) -> None:
    peer = connected()
    if released:
        peer.publish(b"x", 2)
        peer.receive(Pubrec(1))
        peer.sent()
    assert peer.receive(Pubrec(1, 0x91)) == []
    assert peer.sent() == []
    assert len(peer.session) == int(released)


@every_version
@pytest.mark.parametrize("packet", [Puback(77), Pubcomp(77)], ids=["puback", "pubcomp"])
def test_an_acknowledgement_of_an_unknown_identifier_is_ignored(version: str, packet: Packet) -> None:
    peer = connected(version)
    message = peer.publish(b"x", 1)
    peer.sent()
    assert peer.receive(packet) == []
    assert peer.sent() == []
    assert peer.receive(Puback(1)) == [message]


@every_version
@pytest.mark.parametrize(
    ("qos", "before", "wrong"),
    [
        (1, [], Pubrec(1)),
        (1, [], Pubcomp(1)),
        (2, [], Pubcomp(1)),
        (2, [Pubrec(1)], Puback(1)),
    ],
)
def test_an_acknowledgement_of_the_wrong_type_is_an_error(
    version: str, qos: int, before: list[Packet], wrong: Packet
) -> None:
    peer = connected(version)
    peer.publish(b"x", qos)
    peer.receive(*before)
    peer.sent()
    assert end_of(peer.receive(wrong)).reason_code == 0x82
    assert len(peer.session) == 1


def test_a_puback_for_qos_2_is_an_error_in_5_0() -> None:
    peer = connected("5.0")
    peer.publish(b"x", 2)
    peer.sent()
    assert end_of(peer.receive(Puback(1))).reason_code == 0x82


@pytest.mark.parametrize("version", ["3.1", "3.1.1"])
def test_a_server_that_takes_qos_2_for_qos_1_has_the_message_then(version: str) -> None:
    peer = connected(version)
    message = peer.publish(b"x", 2)
    peer.sent()
    assert peer.receive(Puback(1)) == [message]
    assert message.status == "acknowledged"
    assert len(peer.session) == 0
    assert peer.sent() == []


@pytest.mark.conformance("5.0", "MQTT-4.6.0-4")
@pytest.mark.conformance("3.1.1", "MQTT-4.6.0-4")
@every_version
def test_pubrels_leave_in_the_order_of_the_pubrecs(version: str) -> None:
    peer = connected(version)
    for _ in range(3):
        peer.publish(b"x", 2)
    peer.sent()
    peer.receive(Pubrec(3), Pubrec(1), Pubrec(2))
    assert peer.sent() == [Pubrel(3), Pubrel(1), Pubrel(2)]


def test_acknowledgements_in_any_order_end_their_own_message() -> None:
    peer = connected()
    messages = [peer.publish(b"x", 1) for _ in range(3)]
    assert peer.receive(Puback(2), Puback(3), Puback(1)) == [messages[1], messages[2], messages[0]]


# What the server allows


@pytest.mark.conformance("5.0", "MQTT-3.2.2-9", "MQTT-3.2.2-11")
@pytest.mark.parametrize(("maximum_qos", "flags"), [(0, {0, 1}), (1, {0, 1, 2, 3}), (2, set(range(6)))])
def test_a_message_above_maximum_qos_is_refused_locally(maximum_qos: int, flags: set[int]) -> None:
    peer = connected(server={} if maximum_qos == 2 else {"maximum_qos": maximum_qos})
    check_flags(peer, flags, "Maximum QoS")


@pytest.mark.conformance("5.0", "MQTT-3.2.2-14")
def test_a_retained_message_is_refused_locally_without_retain_available() -> None:
    check_flags(connected(server={"retain_available": 0}), {0, 2, 4}, "retain")


def check_flags(peer: Peer, allowed: set[int], words: str) -> None:
    """Publish with each combination of QoS and RETAIN; only the allowed ones leave."""
    for flags in range(6):
        message = outgoing(b"x", flags >> 1, retain=bool(flags & 1))

        def publish(message: Any = message) -> None:
            if message.qos:
                peer.protocol.publish(message)
            else:
                peer.protocol.publish_qos0(message.topic_field, message.payload, message.flags, b"\0")

        if flags in allowed:
            publish()
            (packet,) = peer.sent()
            assert isinstance(packet, Publish)
            assert (packet.qos, packet.retain) == (message.qos, message.retain)
        else:
            with pytest.raises(LocalProtocolError, match=words):
                publish()
            assert peer.bytes_sent() == b""
            assert (message.status, message.packet_id, message.packet) == ("queued", 0, None)


@pytest.mark.conformance("5.0", "MQTT-3.2.2-15")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_the_server_s_maximum_packet_size_is_exact(qos: int) -> None:
    packet_id = 1 if qos else None
    exact = 100 - len(encode_packet(Publish("t", qos=qos, packet_id=packet_id), "5.0"))
    peer = connected(server={"maximum_packet_size": 100})
    with pytest.raises(LocalProtocolError, match="Maximum Packet Size"):
        publish_any(peer, bytes(exact + 1), qos)
    assert peer.bytes_sent() == b""
    assert len(peer.session) == 0
    publish_any(peer, bytes(exact), qos)
    assert len(peer.bytes_sent()) == 100


def publish_any(peer: Peer, payload: bytes, qos: int) -> None:
    if qos:
        peer.publish(payload, qos)
    else:
        qos0(peer, payload)


def test_only_publish_is_held_back_by_the_window() -> None:
    """The engine asks for room; the protocol sends requests whether there is room or not."""
    peer = connected(server={"receive_maximum": 1})
    peer.publish(b"x", 1)
    assert len(peer.session) == peer.protocol.outbound.window == 1
    peer.protocol.subscribe([Subscription("a")])
    qos0(peer)
    assert peer.sent() == [
        Publish("t", b"x", qos=1, packet_id=1),
        Subscribe(2, [Subscription("a")]),
        Publish("t", b"x"),
    ]


# Message expiry interval


def expiry_of(packets: list[Packet]) -> Any:
    (packet,) = packets
    assert isinstance(packet, Publish)
    return packet.properties.get("message_expiry_interval")


@pytest.mark.parametrize(
    ("now", "seconds"),
    [(0.0, 60), (0.5, 60), (59.0, 1), (59.9, 1), (60.0, 1), (1000.0, 1), (-5e9, 0xFFFF_FFFF)],
)
def test_a_message_carries_the_life_it_has_left(now: float, seconds: int) -> None:
    peer = connected(now=now)
    peer.publish(b"x", 1, expires_at=60.0)
    assert expiry_of(peer.sent()) == seconds


@pytest.mark.parametrize("length", [0, 40, 200, 10_000])
def test_expiry_joins_other_properties_of_every_length(length: int) -> None:
    peer = connected(now=10.0)
    peer.publish(b"x", 2, expires_at=15.0, content_type="c" * length)
    (packet,) = peer.sent()
    assert isinstance(packet, Publish)
    assert packet.properties == {"message_expiry_interval": 5, "content_type": "c" * length}


@versions_3
def test_mqtt_3_has_no_message_expiry_interval(version: str) -> None:
    peer = connected(version)
    peer.publish(b"x", 1, expires_at=60.0)
    assert peer.sent() == [Publish("t", b"x", qos=1, packet_id=1)]


@pytest.mark.conformance("5.0", "MQTT-4.3.3-13")
def test_an_exchange_goes_on_after_its_message_expired() -> None:
    peer = connected()
    message = peer.publish(b"x", 2, expires_at=1.0)
    peer.sent()
    peer.now = 100.0
    peer.receive(Pubrec(1))
    assert peer.sent() == [Pubrel(1)]
    assert peer.receive(Pubcomp(1)) == [message]
    assert message.status == "acknowledged"


# Packet identifiers


@pytest.mark.conformance("5.0", "MQTT-2.2.1-3")
def test_an_identifier_in_use_by_a_request_is_not_given_to_a_message() -> None:
    peer = connected()
    assert peer.protocol.subscribe([Subscription("a")]) == 1
    assert peer.publish(b"x", 1).packet_id == 2
    assert peer.protocol.unsubscribe(["a"]) == 3


@pytest.mark.conformance("5.0", "MQTT-2.2.1-3", "MQTT-4.3.3-1")
def test_an_identifier_stays_in_use_until_pubcomp() -> None:
    peer = connected()
    peer.publish(b"x", 2)
    peer.receive(Pubrec(1))
    peer.session.last_packet_id = 0
    assert peer.publish(b"y", 1).packet_id == 2
    peer.receive(Pubcomp(1))
    peer.session.last_packet_id = 0
    assert peer.publish(b"z", 1).packet_id == 1


def test_output_is_counted_while_it_waits() -> None:
    peer = connected()
    peer.publish(bytes(1000), 1)
    qos0(peer, bytes(1000))
    assert peer.protocol.has_output
    assert peer.protocol.buffered == len(peer.bytes_sent())
    assert peer.protocol.buffered == 0
    assert not peer.protocol.has_output
