"""A message of another client cannot lock us out: what is legal is delivered, however the bytes come."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from device_sdk.mqtt import Connack, Message, Puback, Pubcomp, Publish, Pubrec, Pubrel, encode_packet
from device_sdk.mqtt.events import MessageSkipped
from device_sdk.mqtt.session import Session
from device_sdk.mqtt.wire import encode_varint
from tests.mqtt.peer import Peer, connected, end_of, messages_in, versions_3

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


# MQTT 3.x has no way to announce how much we take: what is larger passes us by

LIMIT = 1_000


def publish_3(
    payload: bytes, topic: bytes = b"t", *, qos: int = 0, packet_id: int = 1, dup: bool = False
) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic + (packet_id.to_bytes(2, "big") if qos else b"") + payload
    return bytes((0x30 | dup << 3 | qos << 1,)) + encode_varint(len(body)) + body


def skipped_in(events: list[Any]) -> list[tuple[str, int, int]]:
    return [(event.topic, event.qos, event.size) for event in events if isinstance(event, MessageSkipped)]


@versions_3
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 999, 1 << 20])
def test_a_message_above_the_maximum_is_skipped_and_acknowledged(version: str, qos: int, size: int) -> None:
    peer = connected(version, maximum_packet_size=LIMIT)
    large = publish_3(bytes(5_000), qos=qos, packet_id=7)
    events = in_pieces(peer, large + publish_3(b"next"), size)
    assert skipped_in(events) == [("t", qos, len(large))]
    assert [message.payload for message in messages_in(events)] == [b"next"]
    assert len(events) == 2
    assert peer.sent() == [[], [Puback(7)], [Pubrec(7)]][qos]
    assert peer.protocol.held_acknowledgements == 0


@versions_3
def test_the_maximum_is_exact(version: str) -> None:
    peer = connected(version, maximum_packet_size=LIMIT)
    fits = publish_3(bytes(LIMIT - 6))
    floods = publish_3(bytes(LIMIT - 5))
    assert (len(fits), len(floods)) == (LIMIT, LIMIT + 1)
    assert [type(event) for event in peer.receive_bytes(fits + floods + fits)] == [
        Message,
        MessageSkipped,
        Message,
    ]


@versions_3
def test_a_skipped_message_is_acknowledged_when_all_of_it_has_come(version: str) -> None:
    peer = connected(version, maximum_packet_size=LIMIT)
    large = publish_3(bytes(5_000), qos=1, packet_id=7)
    assert in_pieces(peer, large[:-1], 100) == []
    assert peer.sent() == []
    assert len(peer.receive_bytes(large[-1:])) == 1
    assert peer.sent() == [Puback(7)]


@pytest.mark.conformance("3.1.1", "MQTT-4.6.0-2", "MQTT-4.6.0-3")
def test_a_skipped_message_is_acknowledged_in_its_turn() -> None:
    peer = connected("3.1.1", maximum_packet_size=LIMIT)
    large = [publish_3(bytes(5_000), qos=qos, packet_id=qos + 1) for qos in (1, 2)]
    events = peer.receive_bytes(
        publish_3(b"x", qos=1) + b"".join(large) + publish_3(b"y", qos=1, packet_id=4)
    )
    first, last = messages_in(events)
    assert peer.sent() == []
    last.handled = first.handled = True
    peer.protocol.acknowledge_handled()
    assert peer.sent() == [Puback(1), Puback(2), Pubrec(3), Puback(4)]


@versions_3
def test_a_skipped_message_of_qos_2_runs_its_exchange_once(version: str) -> None:
    peer = connected(version, maximum_packet_size=LIMIT)
    large = publish_3(bytes(5_000), qos=2, packet_id=7)
    assert len(peer.receive_bytes(large)) == 1
    assert peer.sent() == [Pubrec(7)]
    again = connected(version, session=peer.session, maximum_packet_size=LIMIT)
    assert again.receive_bytes(publish_3(bytes(5_000), qos=2, packet_id=7, dup=True)) == []
    assert again.sent() == [Pubrec(7)]
    assert again.receive(Pubrel(7)) == []
    assert again.sent() == [Pubcomp(7)]
    assert again.session.received == {}
    assert len(again.receive_bytes(large)) == 1  # another message


@versions_3
def test_nothing_of_a_skipped_message_is_kept(version: str) -> None:
    peer = connected(version)
    piece = bytes(64 * 1024)
    total = 200 * 1024 * 1024
    head = bytes((0x30,)) + encode_varint(total) + b"\0\x01t"
    tracemalloc.start()
    try:
        events = peer.receive_bytes(head + piece[:-3])
        for _ in range(total // len(piece) - 1):
            events += peer.receive_bytes(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert skipped_in(events) == [("t", 0, total + len(head) - 3)]
    assert peak < 300_000


@pytest.mark.conformance("5.0", "MQTT-3.1.2-24")
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_in_mqtt_5_a_packet_above_the_announced_maximum_stays_a_fault_of_the_server(size: int) -> None:
    peer = connected(maximum_packet_size=LIMIT)
    assert end_of(in_pieces(peer, publish(b"", payload=bytes(5_000)), size)).reason_code == 0x95
    assert peer.bytes_sent().hex() == "e00195"


@versions_3
@pytest.mark.parametrize(
    "packet",
    [
        bytes((0x36,)) + publish_3(bytes(5_000), qos=1)[1:],
        bytes((0x32,)) + publish_3(bytes(5_000), qos=1, packet_id=0)[1:],
        bytes((0x30,)) + encode_varint(5_000) + (5_001).to_bytes(2, "big"),
        bytes((0x90,)) + encode_varint(5_000) + bytes(5_000),
        bytes((0x30,)) + encode_varint(5_000) + b"\0\x02a#" + bytes(4_996),
    ],
    ids=["QoS 3", "packet identifier 0", "topic name beyond the packet", "SUBACK", "a wildcard"],
)
def test_a_large_packet_that_is_wrong_in_another_way_ends_the_connection_at_once(
    version: str, packet: bytes
) -> None:
    for size in (1, 7, len(packet)):
        end_of(in_pieces(connected(version, maximum_packet_size=LIMIT), packet, size))


@versions_3
def test_a_large_message_may_come_slowly_but_must_keep_coming(version: str) -> None:
    peer = connected(version, keep_alive=0, maximum_packet_size=LIMIT)
    large = publish_3(bytes(50_000))
    events: list[Any] = []
    for start in range(0, len(large), 110):
        events += peer.receive_bytes(large[start : start + 110])
        events += peer.advance(1.0)
    assert [type(event) for event in events] == [MessageSkipped]
    peer.receive_bytes(large[:30_000])
    assert peer.advance(359.0) == []
    assert "came too slowly" in str(end_of(peer.advance(2.0)))


def test_while_we_do_not_read_a_large_message_is_not_late() -> None:
    peer = connected("3.1.1", keep_alive=0, maximum_packet_size=LIMIT)
    large = publish_3(bytes(50_000))
    peer.receive_bytes(large[:100])
    peer.protocol.reading_paused = True
    assert peer.advance(1_000.0) == []
    peer.protocol.reading_paused = False
    assert len(peer.receive_bytes(large[100:])) == 1


# Text that is not UTF-8: two connections are closed, as the standard demands; the third passes over it

BAD_TEXTS = [b"\xff", b"a\0", b"\xed\xa0\x80", b"a/\xc3"]


def with_text(where: str, text: bytes) -> bytes:
    """A PUBLISH of MQTT 5.0 at QoS 1 with topic alias 1 and this text in one of its fields."""
    field = len(text).to_bytes(2, "big") + text
    blocks = {
        "topic name": b"",
        "response topic": b"\x08" + field,
        "content type": b"\x03" + field,
        "name of a pair": b"\x26" + field + b"\0\x01v",
        "value of a pair": b"\x26\0\x01n" + field,
    }
    topic = text if where == "topic name" else b"topic"
    return publish(b"\x23\x00\x01" + blocks[where], topic, qos=1)


def thrice(data: bytes, version: str = "5.0", size: int = 1 << 20) -> tuple[Peer, list[Any]]:
    """Meet these bytes on two connections, which end, and on a third one; return that and its events."""
    options: dict[str, Any] = {"topic_alias_maximum": 3} if version == "5.0" else {}
    session = Session()
    for _ in range(2):
        peer = connected(version, peer=Peer(version, session=session, **options))
        end_of(in_pieces(peer, data, size))
    peer = connected(version, peer=Peer(version, session=session, **options))
    return peer, in_pieces(peer, data, size)


@pytest.mark.conformance("5.0", "MQTT-1.5.4-1", "MQTT-1.5.4-2")
@pytest.mark.parametrize("size", [1, 3, 1 << 20])
@pytest.mark.parametrize("text", BAD_TEXTS)
@pytest.mark.parametrize(
    "where", ["topic name", "response topic", "content type", "name of a pair", "value of a pair"]
)
def test_the_third_connection_in_a_row_skips_text_that_is_not_utf8(
    where: str, text: bytes, size: int
) -> None:
    peer, events = thrice(with_text(where, text), size=size)
    topic = text.decode("utf-8", "backslashreplace") if where == "topic name" else "topic"
    assert [(event.topic, event.qos) for event in events] == [(topic, 1)]
    assert peer.sent() == [Puback(1)]
    assert messages_in(peer.receive(Publish("t", b"next")))


@pytest.mark.conformance("3.1.1", "MQTT-1.5.3-1", "MQTT-1.5.3-2")
@versions_3
@pytest.mark.parametrize("text", [*BAD_TEXTS, b"a/#", b""])
@pytest.mark.parametrize("payload", [b"x", bytes(300_000)])
def test_the_third_connection_in_a_row_skips_a_topic_name_that_cannot_be_read(
    version: str, text: bytes, payload: bytes
) -> None:
    peer, events = thrice(publish_3(payload, text, qos=2, packet_id=9), version)
    assert [event.topic for event in events] == [text.decode("utf-8", "backslashreplace")]
    assert peer.sent() == [Pubrec(9)]
    assert peer.receive(Pubrel(9)) == []
    assert peer.sent() == [Pubcomp(9)]


@pytest.mark.parametrize(
    "packet",
    [
        publish(b"", b"a/#", qos=1),
        publish(b"\x01\x02", qos=1),
        publish(b"\x03\0\x01a\x03\0\x01b", qos=1),
        publish(b"\x01\x01\x01\x01", qos=1),
    ],
    ids=["a wildcard in the topic name", "payload format 2", "two content types", "two payload formats"],
)
def test_what_a_server_passes_on_unchecked_is_skipped_the_third_time_too(packet: bytes) -> None:
    peer, events = thrice(packet)
    assert len(skipped_in(events)) == 1
    assert peer.sent() == [Puback(1)]


@pytest.mark.parametrize(
    "packet",
    [
        publish(b"\x0b\0", b"\xff"),
        publish(b"\x23\0\0", b"\xff"),
        publish(b"\x23\0\x04", b"\xff"),
        publish(b"\x23\0\x02", b""),
        publish(b"", b""),
        publish(b"\x7f", b"\xff"),
        publish(b"\x13\0\x01", b"\xff"),
        publish(b"\x03\0\x09a", b"\xff"),
        publish(b"", b"\xff", qos=1, packet_id=0),
    ],
    ids=[
        "identifier 0",
        "alias 0",
        "alias 4 of 3",
        "alias not set",
        "no topic name",
        "unknown",
        "wrong",
        "cut",
        "0",
    ],
)
def test_a_fault_of_the_server_itself_ends_every_connection(packet: bytes) -> None:
    _, events = thrice(packet)
    end_of(events)


def test_a_skipped_message_sets_its_topic_alias() -> None:
    peer, _ = thrice(with_text("content type", b"\xff"))
    (message,) = peer.receive_bytes(publish(b"\x23\0\x01", b""))
    assert (message.topic, message.payload) == ("topic", b"x")


def test_a_topic_alias_for_a_name_that_cannot_be_read_skips_what_uses_it_until_it_is_set_again() -> None:
    peer, _ = thrice(with_text("topic name", b"a\xff"))
    use = publish(b"\x23\0\x01", b"", qos=1, packet_id=2)
    assert [event.topic for event in peer.receive_bytes(use)] == ["a\\xff"]
    assert peer.sent() == [Puback(1), Puback(2)]
    assert peer.receive_bytes(publish(b"\x23\0\x01", b"good"))[0].topic == "good"
    assert peer.receive_bytes(publish(b"\x23\0\x01", b""))[0].topic == "good"
    peer.receive_bytes(with_text("topic name", b"a\xff"))
    assert skipped_in(peer.receive_bytes(use)) != []


def test_aliases_end_with_their_connection() -> None:
    peer, _ = thrice(with_text("topic name", b"a\xff"))
    again = connected(peer=Peer(session=peer.session, topic_alias_maximum=3))
    assert end_of(again.receive_bytes(publish(b"\x23\0\x01", b""))).reason_code == 0x82


def test_a_connection_without_such_a_message_ends_the_row() -> None:
    bad = with_text("topic name", b"\xff")
    peer, events = thrice(bad)
    assert skipped_in(events)
    assert skipped_in(peer.receive_bytes(bad)), "the fourth on the same connection"
    again = connected(peer=Peer(session=peer.session, topic_alias_maximum=3))
    assert skipped_in(again.receive_bytes(bad)), "the row goes on with the next connection"
    quiet = connected(peer=Peer(session=peer.session))
    assert len(messages_in(quiet.receive(Publish("t")))) == 1
    end_of(connected(peer=Peer(session=peer.session, topic_alias_maximum=3)).receive_bytes(bad))


def test_an_attempt_that_was_not_accepted_is_no_connection_of_the_row() -> None:
    bad = with_text("topic name", b"\xff")
    session = Session()
    for _ in range(2):
        end_of(connected(peer=Peer(session=session, topic_alias_maximum=3)).receive_bytes(bad))
        refused = Peer(session=session)
        refused.connect()
        end_of(refused.receive(Connack(False, 0x88)))
    assert skipped_in(connected(peer=Peer(session=session, topic_alias_maximum=3)).receive_bytes(bad))


def test_skipped_messages_count_against_the_receive_maximum_until_they_are_acknowledged() -> None:
    session = Session()
    bad = with_text("topic name", b"\xff")
    for _ in range(2):
        end_of(connected(peer=Peer(session=session, topic_alias_maximum=3)).receive_bytes(bad))
    peer = connected(peer=Peer(session=session, topic_alias_maximum=3, receive_maximum=2))
    (held,) = peer.receive(Publish("t", qos=1, packet_id=5))
    assert skipped_in(peer.receive_bytes(bad))
    end_of(peer.receive_bytes(with_text("content type", b"\xff")))
    assert held.handled is False


# In MQTT 5.0 it is announced, unless the program has kept it out of CONNECT

NOT_ANNOUNCED = {"maximum_packet_size": None}


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_above_a_maximum_that_was_not_announced_is_skipped(qos: int, size: int) -> None:
    peer = connected(maximum_packet_size=LIMIT, properties=NOT_ANNOUNCED)
    events = in_pieces(peer, publish(PAIR, b"large", bytes(5_000), qos=qos, packet_id=7), size)
    (skipped,) = events
    assert isinstance(skipped, MessageSkipped)
    assert (skipped.topic, skipped.qos) == ("large", qos)
    assert peer.bytes_sent().hex() == ("", "40020007", "50020007")[qos]
    assert the_message(in_pieces(peer, publish(b""), size)).payload == b"x"


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_without_a_topic_name_it_is_a_fault_of_the_server(size: int) -> None:
    """We have allowed no topic alias."""
    peer = connected(maximum_packet_size=LIMIT, properties=NOT_ANNOUNCED)
    alias = bytes.fromhex("23 0001")
    assert end_of(in_pieces(peer, publish(alias, b"", bytes(5_000)), size)).reason_code == 0x82


def test_another_packet_above_a_maximum_that_was_not_announced_ends_the_connection() -> None:
    peer = connected(maximum_packet_size=LIMIT, properties=NOT_ANNOUNCED)
    suback = bytes((0x90,)) + encode_varint(5_000) + bytes(5_000)
    assert end_of(in_pieces(peer, suback, 1 << 20)).reason_code == 0x95
