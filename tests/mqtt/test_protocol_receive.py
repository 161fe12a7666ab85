"""What a client receives: delivery, acknowledgements in order, and the limits that it announced."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk.errors import MalformedPacketError, RemoteProtocolError
from device_sdk.mqtt import (
    Disconnect,
    Packet,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    encode_packet,
)
from device_sdk.mqtt.message import Message
from tests.mqtt.peer import Peer, connected, end_of, every_version, messages_in, versions_3


def arrive(peer: Peer, *packets: Packet) -> list[Message]:
    """Let application messages arrive, and nothing else happen."""
    events = peer.receive(*packets)
    assert all(isinstance(event, Message) for event in events), events
    return messages_in(events)


def qos1(packet_id: int, payload: bytes = b"", **fields: Any) -> Publish:
    return Publish("t", payload, qos=1, packet_id=packet_id, **fields)


def qos2(packet_id: int, payload: bytes = b"", **fields: Any) -> Publish:
    return Publish("t", payload, qos=2, packet_id=packet_id, **fields)


# Delivery


@every_version
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("payload", [b"", b"x", bytes(125), bytes(20_000)])
def test_a_message_arrives_as_it_was_sent(version: str, qos: int, retain: bool, payload: bytes) -> None:
    peer = connected(version)
    packet_id = 123 if qos else None
    (message,) = arrive(peer, Publish("a/é", payload, qos=qos, retain=retain, packet_id=packet_id))
    assert (message.topic, message.payload, message.qos) == ("a/é", payload, qos)
    assert (message.retain, message.dup, message.packet_id) == (retain, False, packet_id or 0)
    assert message.properties is None


def test_properties_reach_the_application() -> None:
    properties = {
        "content_type": "text/plain",
        "response_topic": "answers",
        "correlation_data": b"\0",
        "message_expiry_interval": 60,
        "payload_format_indicator": 1,
        "subscription_identifier": [4, 5],
        "user_property": [["a", "1"], ["a", "2"]],
    }
    (message,) = arrive(connected(), Publish("t", b"x", properties=properties))
    assert (message.content_type, message.response_topic) == ("text/plain", "answers")
    assert (message.correlation_data, message.message_expiry_interval) == (b"\0", 60)
    assert (message.payload_format_indicator, message.subscription_identifiers) == (1, (4, 5))
    assert message.user_properties == (("a", "1"), ("a", "2"))


@pytest.mark.parametrize(
    "publish",
    [
        "30 00",
        "30 01 00",
        "30 02 0005",
        "36 05 0001 74 0001",
        "32 03 0001 74",
        "32 04 0001 74 00",
        "32 05 0001 74 0000",
        "30 04 0002 c3 28",
        "30 03 0001 00",
        "30 03 0001 23",
        "30 80 80 80 80 01",
        "30 83 00 0001 74",
    ],
)
@versions_3
def test_a_malformed_publish_ends_the_connection(version: str, publish: str) -> None:
    peer = connected(version)
    assert isinstance(end_of(peer.receive_bytes(bytes.fromhex(publish))), RemoteProtocolError)
    assert peer.bytes_sent() == b""


@pytest.mark.conformance("5.0", "MQTT-3.3.1-2")
@pytest.mark.conformance("3.1.1", "MQTT-3.3.1-2")
@pytest.mark.conformance("3.1", "MQTT-3.1/DUP-QOS-0")
@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
def test_dup_at_qos_0_is_malformed_since_mqtt_3_1_1(version: str) -> None:
    data = bytes.fromhex("38 04 0001 74 00")
    assert len(messages_in(connected("3.1").receive_bytes(data))) == 1
    assert isinstance(end_of(connected(version).receive_bytes(data)), MalformedPacketError)


@pytest.mark.parametrize(
    ("publish", "reason_code"),
    [
        ("30 03 0001 74", 0x81),
        ("30 04 0001 74 05", 0x81),
        ("30 06 0001 74 02 7f 00", 0x81),
        ("30 06 0001 74 02 24 00", 0x82),
        ("30 03 0000 00", 0x82),
    ],
    ids=["no properties", "cut off", "unknown property", "foreign property", "no topic"],
)
def test_a_malformed_publish_of_mqtt_5_is_reported_to_the_server(publish: str, reason_code: int) -> None:
    peer = connected()
    assert end_of(peer.receive_bytes(bytes.fromhex(publish))).reason_code == reason_code
    assert peer.sent() == [Disconnect(reason_code)]


@versions_3
def test_mqtt_3_has_no_empty_topic_name(version: str) -> None:
    assert isinstance(end_of(connected(version).receive_bytes(b"\x30\x02\0\0")), RemoteProtocolError)


# Acknowledgements


@pytest.mark.conformance("5.0", "MQTT-2.2.1-5", "MQTT-3.3.4-1", "MQTT-4.3.2-4", "MQTT-4.3.3-8")
@pytest.mark.conformance("3.1.1", "MQTT-2.3.1-6", "MQTT-3.3.4-1", "MQTT-4.3.2-2", "MQTT-4.3.3-2")
@every_version
@pytest.mark.parametrize(("packet", "answer"), [(qos1(7), Puback(7)), (qos2(7), Pubrec(7))])
def test_a_message_is_acknowledged_when_it_was_handled(version: str, packet: Publish, answer: Packet) -> None:
    peer = connected(version)
    messages = arrive(peer, packet)
    assert peer.sent() == []
    assert peer.protocol.held_acknowledgements == 1
    assert peer.handle(*messages) == [answer]
    assert peer.protocol.held_acknowledgements == 0
    assert peer.handle() == []


@pytest.mark.conformance("5.0", "MQTT-4.6.0-2", "MQTT-4.6.0-3")
@pytest.mark.conformance("3.1.1", "MQTT-4.6.0-2", "MQTT-4.6.0-3")
@every_version
def test_acknowledgements_leave_in_receive_order_whatever_was_handled_first(version: str) -> None:
    peer = connected(version)
    first, second, third, fourth = arrive(peer, qos1(1), qos2(2), qos1(3), qos2(4))
    assert peer.handle(third) == []
    assert peer.handle(second) == []
    assert peer.protocol.held_acknowledgements == 4
    assert peer.handle(first) == [Puback(1), Pubrec(2), Puback(3)]
    assert peer.handle(fourth) == [Pubrec(4)]


@pytest.mark.conformance("5.0", "MQTT-4.3.3-11", "MQTT-4.3.3-12")
@pytest.mark.conformance("3.1.1", "MQTT-4.3.3-2")
@every_version
def test_qos_2_is_delivered_once_and_completed(version: str) -> None:
    peer = connected(version)
    assert peer.handle(*arrive(peer, qos2(5))) == [Pubrec(5)]
    assert arrive(peer, Pubrel(5)) == []
    assert peer.sent() == [Pubcomp(5)]
    assert peer.session.received == {}
    assert len(arrive(peer, qos2(5))) == 1, "after PUBCOMP the same identifier is a new message"


@pytest.mark.conformance("5.0", "MQTT-4.3.2-5")
@pytest.mark.conformance("3.1.1", "MQTT-4.3.2-2")
@every_version
def test_qos_1_with_a_used_identifier_is_a_new_message(version: str) -> None:
    peer = connected(version)
    assert len(arrive(peer, qos1(1), qos1(1, dup=True))) == 2


@pytest.mark.parametrize(
    "pubrel",
    ["62 02 0005", "62 03 0005 00", "62 03 0005 92", "62 04 0005 00 00", "62 09 0005 00 05 1f 0002 6f6b"],
)
def test_pubrel_may_have_every_legal_length(pubrel: str) -> None:
    peer = connected()
    peer.handle(*arrive(peer, qos2(5)))
    assert peer.receive_bytes(bytes.fromhex(pubrel)) == []
    assert peer.sent() == [Pubcomp(5)]


@pytest.mark.conformance("5.0", "MQTT-4.3.3-11")
@every_version
def test_pubrel_for_an_unknown_identifier_is_answered(version: str) -> None:
    peer = connected(version)
    assert peer.receive(Pubrel(9), Pubrel(9)) == []
    assert peer.sent() == [Pubcomp(9, 0x92 if version == "5.0" else 0)] * 2


@every_version
def test_pubrel_before_our_pubrec_is_an_error(version: str) -> None:
    peer = connected(version)
    arrive(peer, qos2(5))
    assert end_of(peer.receive(Pubrel(5))).reason_code == 0x82


@pytest.mark.conformance("5.0", "MQTT-4.3.3-10")
@pytest.mark.conformance("3.1.1", "MQTT-4.3.3-2")
@every_version
@pytest.mark.parametrize("handled", [False, True])
def test_qos_2_sent_twice_is_delivered_once_and_answered_twice(version: str, handled: bool) -> None:
    peer = connected(version)
    messages = arrive(peer, qos2(5))
    answers = peer.handle(*messages) if handled else []
    assert arrive(peer, qos2(5, dup=True)) == []
    assert answers + peer.handle(*messages) == [Pubrec(5), Pubrec(5)]


# Across connections


def reconnected(peer: Peer, **arguments: Any) -> Peer:
    peer.cut()
    return connected(peer.version, session=peer.session, **arguments)


@every_version
def test_qos_2_is_delivered_once_across_a_reconnect_when_pubrec_was_lost(version: str) -> None:
    peer = connected(version)
    peer.handle(*arrive(peer, qos2(5)))
    again = reconnected(peer)
    assert arrive(again, qos2(5, dup=True)) == []
    assert again.sent() == [Pubrec(5)]
    again.receive(Pubrel(5))
    assert again.sent() == [Pubcomp(5)]


@every_version
def test_qos_2_is_delivered_once_across_a_reconnect_while_its_handler_runs(version: str) -> None:
    peer = connected(version)
    messages = arrive(peer, qos2(5))
    again = reconnected(peer)
    assert arrive(again, qos2(5, dup=True)) == []
    assert again.sent() == []
    assert again.handle(*messages) == [Pubrec(5)]


@every_version
def test_a_handler_that_returns_between_two_connections_is_remembered(version: str) -> None:
    peer = connected(version)
    messages = arrive(peer, qos2(5))
    peer.cut()
    peer.handle(*messages)
    again = connected(version, session=peer.session)
    assert arrive(again, qos2(5, dup=True)) == []
    assert again.sent() == [Pubrec(5)]


@every_version
def test_pubrel_is_answered_across_a_reconnect(version: str) -> None:
    peer = connected(version)
    peer.handle(*arrive(peer, qos2(5)))
    again = reconnected(peer)
    assert again.receive(Pubrel(5)) == []
    assert again.sent() == [Pubcomp(5)]


@every_version
def test_a_repeated_message_waits_for_its_turn_on_the_new_connection(version: str) -> None:
    peer = connected(version)
    old = arrive(peer, qos2(5))
    again = reconnected(peer)
    (new,) = arrive(again, qos1(6), qos2(5, dup=True))
    assert again.handle(*old) == []
    assert again.handle(new) == [Puback(6), Pubrec(5)]


def test_a_lost_session_delivers_the_same_identifier_as_a_new_message() -> None:
    peer = connected()
    arrive(peer, qos2(5))
    again = reconnected(peer, present=False)
    assert len(arrive(again, qos2(5))) == 1


# Our receive maximum


@pytest.mark.conformance("5.0", "MQTT-3.3.4-9")
@pytest.mark.parametrize("maximum", [1, 3])
def test_more_messages_than_our_receive_maximum_are_an_error(maximum: int) -> None:
    peer = connected(receive_maximum=maximum)
    arrive(peer, *(qos1(number) for number in range(1, maximum + 1)))
    arrive(peer, Publish("t", b"QoS 0 does not count"))
    assert end_of(peer.receive(qos1(99))).reason_code == 0x93
    assert peer.sent() == [Disconnect(0x93)]


@versions_3
def test_mqtt_3_has_no_receive_maximum(version: str) -> None:
    peer = connected(version, receive_maximum=1)
    assert len(arrive(peer, qos1(1), qos2(2), qos1(3))) == 3


def test_puback_makes_room_and_pubrec_does_not() -> None:
    peer = connected(receive_maximum=2)
    messages = arrive(peer, qos1(1), qos2(2))
    peer.handle(*messages)
    arrive(peer, qos1(3))
    assert end_of(peer.receive(qos1(4))).reason_code == 0x93


def test_pubcomp_makes_room() -> None:
    peer = connected(receive_maximum=1)
    for number in range(1, 4):
        peer.handle(*arrive(peer, qos2(number)))
        peer.receive(Pubrel(number))
        assert peer.sent() == [Pubcomp(number)]


def test_a_repeated_message_counts_once() -> None:
    peer = connected(receive_maximum=3)
    messages = arrive(peer, qos2(1), qos2(1, dup=True))
    peer.handle(*messages)
    peer.receive(Pubrel(1))
    assert len(arrive(peer, qos1(2), qos1(3), qos1(4))) == 3


def test_what_was_received_on_an_earlier_connection_does_not_count() -> None:
    peer = connected(receive_maximum=2)
    peer.handle(*arrive(peer, qos2(1), qos2(2)))
    again = reconnected(peer, receive_maximum=2)
    assert len(arrive(again, qos1(3), qos1(4))) == 2
    again.receive(Pubrel(1), Pubrel(2))
    assert end_of(again.receive(qos1(5))).reason_code == 0x93


def test_a_resumed_message_counts_on_the_connection_that_repeats_it() -> None:
    peer = connected(receive_maximum=2)
    peer.handle(*arrive(peer, qos2(1)))
    again = reconnected(peer, receive_maximum=2)
    arrive(again, qos2(1, dup=True), qos1(2))
    assert end_of(again.receive(qos1(3))).reason_code == 0x93


# Topic aliases


def aliased(topic: str, alias: int) -> Publish:
    return Publish(topic, b"x", properties={"topic_alias": alias})


@pytest.mark.conformance("5.0", "MQTT-3.3.2-10")
def test_a_topic_alias_is_set_used_and_set_again() -> None:
    peer = connected(topic_alias_maximum=2)
    packets = [
        aliased("a", 1),
        aliased("b", 2),
        aliased("", 1),
        aliased("c", 1),
        aliased("", 1),
        aliased("", 2),
    ]
    assert [message.topic for message in arrive(peer, *packets)] == ["a", "b", "a", "c", "c", "b"]


@pytest.mark.conformance("5.0", "MQTT-3.1.2-26", "MQTT-3.1.2-27", "MQTT-3.3.2-11")
@pytest.mark.parametrize("maximum", [0, 2])
@pytest.mark.parametrize("topic", ["a", ""])
def test_a_topic_alias_above_our_maximum_is_an_error(maximum: int, topic: str) -> None:
    peer = connected(topic_alias_maximum=maximum)
    assert end_of(peer.receive(aliased(topic, maximum + 1))).reason_code == 0x94
    assert peer.sent() == [Disconnect(0x94)]


@pytest.mark.conformance("5.0", "MQTT-3.3.2-8")
def test_topic_alias_0_is_an_error() -> None:
    peer = connected(topic_alias_maximum=5)
    assert end_of(peer.receive_bytes(bytes.fromhex("30 07 0001 61 03 23 0000"))).reason_code == 0x94


def test_a_topic_alias_that_was_never_set_is_an_error() -> None:
    peer = connected(topic_alias_maximum=5)
    assert end_of(peer.receive(aliased("", 1))).reason_code == 0x82


@pytest.mark.conformance("5.0", "MQTT-3.3.2-7")
def test_topic_aliases_end_with_the_connection() -> None:
    peer = connected(topic_alias_maximum=5)
    arrive(peer, aliased("a", 1))
    again = reconnected(peer, topic_alias_maximum=5)
    assert end_of(again.receive(aliased("", 1))).reason_code == 0x82


def test_events_before_a_fault_are_delivered() -> None:
    peer = connected()
    data = encode_packet(Publish("t", b"good"), "5.0") + b"\x30\x80\x80\x80\x80\x01" + b"\x30\0"
    events = peer.receive_bytes(data)
    assert messages_in(events)[0].payload == b"good"
    assert len(events) == 2
    end_of(events)
