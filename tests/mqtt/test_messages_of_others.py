"""A message of another client cannot lock us out: what is legal is delivered, however the bytes come."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk.mqtt import Connack, Message, Publish, encode_packet
from device_sdk.mqtt.wire import encode_varint
from tests.mqtt.peer import Peer, connected, end_of, messages_in

PAIR = bytes.fromhex("26 0001 6e 0001 76")
IDENTIFIER = bytes.fromhex("0b 01")


def publish(
    block: bytes, topic: bytes = b"t", payload: bytes = b"x", *, qos: int = 0, packet_id: int = 1
) -> bytes:
    """A PUBLISH of MQTT 5.0 with this property block, without its length."""
    name = len(topic).to_bytes(2, "big") + topic
    identifier = packet_id.to_bytes(2, "big") if qos else b""
    body = name + identifier + encode_varint(len(block)) + block + payload
    return bytes((0x30 | qos << 1,)) + encode_varint(len(body)) + body


def in_pieces(peer: Peer, data: bytes, size: int) -> list[Any]:
    events: list[Any] = []
    for start in range(0, len(data), size):
        events += peer.receive_bytes(data[start : start + size])
    return events


def the_message(events: list[Any]) -> Message:
    (message,) = events
    assert isinstance(message, Message), message
    return message


PIECES = [1, 2, 3, 5, 7, 64, 1_000, 1 << 20]


@pytest.mark.parametrize("size", PIECES)
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize(
    ("block", "pairs", "identifiers"),
    [
        (PAIR * 33, 33, 0),
        (PAIR * 32 + IDENTIFIER * 33, 32, 33),
        (PAIR * 2_430, 2_430, 0),
        (IDENTIFIER * 8_500, 0, 8_500),
        (PAIR + b"\x03" + (17_000).to_bytes(2, "big") + b"c" * 17_000, 1, 0),
    ],
    ids=["33 user properties", "65 properties", "17,010 bytes of pairs", "8,500 identifiers", "a long text"],
)
def test_any_properties_within_the_maximum_packet_size_are_delivered(
    block: bytes, pairs: int, identifiers: int, qos: int, size: int
) -> None:
    message = the_message(in_pieces(connected(), publish(block, qos=qos), size))
    assert (message.topic, message.payload, message.qos) == ("t", b"x", qos)
    assert message.user_properties == (("n", "v"),) * pairs
    assert message.subscription_identifiers == (1,) * identifiers


def test_properties_may_fill_a_packet_of_the_maximum_size_and_not_one_byte_more() -> None:
    limit = 256 * 1024
    pairs = (limit - 20) // len(PAIR)
    padding = limit - len(publish(PAIR * pairs, payload=b""))
    fits, floods = (publish(PAIR * pairs, payload=b"p" * size) for size in (padding, padding + 1))
    assert len(fits) == limit
    assert len(the_message(connected().receive_bytes(fits)).user_properties) == pairs
    assert end_of(connected().receive_bytes(floods)).reason_code == 0x95


@pytest.mark.parametrize("size", PIECES)
def test_connack_may_have_any_properties_too(size: int) -> None:
    server = {"user_property": [["n", "v"]] * 3_000, "reason_string": "r" * 17_000}
    peer = Peer()
    peer.connect()
    (event,) = in_pieces(peer, encode_packet(Connack(properties=server), "5.0"), size)
    assert event.properties == peer.protocol.server == server


@pytest.mark.conformance("5.0", "MQTT-3.3.2-14")
@pytest.mark.parametrize("size", PIECES)
@pytest.mark.parametrize("topic", ["#", "a/+", "+/b/#", "a#b"])
def test_a_response_topic_with_a_wildcard_is_delivered_as_it_is(topic: str, size: int) -> None:
    block = b"\x08" + len(topic).to_bytes(2, "big") + topic.encode()
    peer = connected()
    message = the_message(in_pieces(peer, publish(block, qos=1), size))
    assert message.response_topic == topic
    assert messages_in(peer.receive(Publish("t", b"next")))


def test_what_a_message_means_does_not_depend_on_the_pieces() -> None:
    block = PAIR * 33 + b"\x08\x00\x01#" + IDENTIFIER * 33
    data = publish(block, qos=2) + publish(PAIR * 40, qos=1, packet_id=2)
    whole = [(m.topic, m.properties, m.payload) for m in connected().receive_bytes(data)]
    assert len(whole) == 2
    for size in range(1, len(data)):
        assert [(m.topic, m.properties, m.payload) for m in in_pieces(connected(), data, size)] == whole
