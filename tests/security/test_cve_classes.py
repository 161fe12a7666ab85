"""Faults that other MQTT implementations had, as tests of ours: one for each class that applies to what is here.

These classes are shown elsewhere:

| class | test |
|---|---|
| CVE-2021-41036: remaining length not checked against the buffer | tests/mqtt/test_protocol_connect.py `test_a_packet_above_our_maximum_is_refused_by_its_header`, `test_our_maximum_packet_size_is_exact_however_the_packet_arrives` |
| CVE-2024-10525: SUBACK without reason codes, or too few | tests/mqtt/test_protocol_connect.py `test_a_wrong_answer_to_subscribe_is_an_error` |
| CVE-2021-41039: CPU time by user properties | tests/security/test_linear_work.py, tests/security/test_bytes_in_hand.py |
| CVE-2019-11779: recursion over the levels of a topic | tests/mqtt/test_topics.py `test_thousands_of_levels_are_no_recursion`; below with a received topic |
| CVE-2017-10910, NSWG-ECO-500: a crash by crafted packets | tests/fuzz, tests/mqtt/test_codec.py `test_arbitrary_bodies_raise_only_the_two_errors` |
| wolfMQTT issues 443, 515, 521: wrong property, PINGRESP with a body, reserved SUBACK codes | the bad vectors, tests/mqtt/test_vectors.py |
| CVE-2024-3935: teardown while a reconnect goes on | tests/client/test_client.py `test_close_ends_a_connect_in_another_thread`, `test_close_is_bounded_while_connecting_to_a_black_hole` |

Host name checks, stores, files and WebSocket have their tests with those parts.
"""  # noqa: E501 - a row of a table is one line

from __future__ import annotations

from typing import Any

import pytest

from device_sdk.errors import ArgumentError, MalformedPacketError, RemoteProtocolError
from device_sdk.mqtt import (
    Connack,
    Connect,
    Disconnect,
    FilterTree,
    Message,
    Packet,
    Puback,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
    decode_packet,
    encode_packet,
)
from device_sdk.mqtt.codes import PROPERTIES
from device_sdk.mqtt.decode import decode_body
from device_sdk.mqtt.session import Session
from device_sdk.mqtt.topics import topic_matches
from device_sdk.mqtt.wire import encode_varint, read_varint
from tests.engine.rig import Rig
from tests.mqtt.peer import Peer, connected, end_of, every_version, messages_in

V5 = "5.0"
LONGEST_TOPIC = 65_535


def with_every_field(packet: str) -> dict[str, Any]:
    """Properties of every kind that a packet may have."""
    values: dict[str, Any] = {
        "utf8": "text", "binary": b"data", "utf8-pair": [["k", "v"]], "byte": 1, "uint16": 2, "uint32": 3,
        "varint": 4,
    }  # fmt: skip
    return {entry.name: values[entry.type] for entry in PROPERTIES.values() if packet in entry.packets}


FULL_PACKETS: list[Packet] = [
    Connect(
        "client",
        user_name="user",
        password=b"secret",
        will=Will("w", b"gone", properties=with_every_field("will")),
        properties=with_every_field("connect"),
    ),
    Connack(properties=with_every_field("connack")),
    Publish("topic", b"", qos=1, packet_id=1, properties=with_every_field("publish")),
    Puback(1, 0x10, with_every_field("puback")),
    Subscribe(1, [Subscription("filter")], with_every_field("subscribe")),
    Suback(1, [0], with_every_field("suback")),
    Unsubscribe(1, ["filter"], with_every_field("unsubscribe")),
    Unsuback(1, [0], with_every_field("unsuback")),
    Disconnect(0x8B, with_every_field("disconnect")),
]


@pytest.mark.parametrize("packet", FULL_PACKETS, ids=lambda packet: packet.type)
def test_no_inner_length_reaches_beyond_its_packet(packet: Packet) -> None:
    """CVE-2019-17210, CVE-2026-54412: a topic length larger than what is left of the packet.

    Each byte of the body in turn is made as large as it can be, so that each length is once; what follows the
    packet in the buffer belongs to somebody else and must never be part of the result.
    """
    encoded = encode_packet(packet, V5)
    start = body_start(encoded)
    secret = "SECRET-OF-THE-NEXT-PACKET" * 3_000
    for at in range(start, len(encoded)):
        for value in (0x00, 0x7F, 0xFF):
            body = bytearray(encoded[start:])
            body[at - start] = value
            try:
                found = decode_body(encoded[0], bytes(body) + secret.encode(), 0, len(body), V5)
            except RemoteProtocolError:
                continue
            assert "SECRET" not in repr(found)


def body_start(encoded: bytes) -> int:
    """Return where the body of a whole packet begins."""
    return read_varint(encoded, 1, len(encoded))[1]


@every_version
@pytest.mark.parametrize("length", [3, 4, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF])
def test_a_topic_longer_than_its_publish_is_malformed_in_the_receive_path(version: str, length: int) -> None:
    """CVE-2019-17210, CVE-2026-54412 again, where PUBLISH is decoded in place: no underflow of the rest."""
    peer = connected(version)
    events = peer.receive_bytes(b"\x30\x04" + length.to_bytes(2, "big") + b"ab" + b"\xc0" * 300)
    assert isinstance(end_of(events), MalformedPacketError)
    assert len(events) == 1


LONG = "x" * 65_536


@every_version
@pytest.mark.parametrize(
    "packet",
    [
        Publish(LONG),
        Connect(LONG),
        Connect("c", user_name=LONG),
        Connect("c", user_name="u", password=LONG.encode()),
        Connect("c", will=Will(LONG)),
        Connect("c", will=Will("w", LONG)),
        Subscribe(1, [Subscription(LONG)]),
        Unsubscribe(1, [LONG]),
    ],
    ids=["topic", "client", "user", "password", "will topic", "will payload", "subscribe", "unsubscribe"],
)
def test_a_length_that_does_not_fit_is_refused_and_never_truncated(version: str, packet: Packet) -> None:
    """CVE-2025-10543: a string of 65,536 bytes went out with the length 0, its text as the packet's body."""
    with pytest.raises(ArgumentError, match=r"65,53[56]"):
        encode_packet(packet, version)


@pytest.mark.parametrize(
    "name", [entry.name for entry in PROPERTIES.values() if entry.type.startswith("utf8")]
)
def test_a_property_that_does_not_fit_is_refused_and_never_truncated(name: str) -> None:
    """CVE-2025-10543 for the strings of MQTT 5.0, in the first packet that may have each."""
    entry = next(entry for entry in PROPERTIES.values() if entry.name == name)
    value: Any = [["k", LONG]] if entry.type == "utf8-pair" else LONG
    makers: dict[str, Any] = {
        "publish": lambda: Publish("t", properties={name: value}),
        "connack": lambda: Connack(properties={name: value}),
        "connect": lambda: Connect("c", properties={name: value}),
    }
    make = next(make for packet, make in makers.items() if packet in entry.packets)
    with pytest.raises(ArgumentError, match="65,536"):
        encode_packet(make(), V5)


@every_version
def test_every_optional_field_may_be_absent(version: str) -> None:
    """CVE-2017-7655: a null dereference when something optional was not there."""
    peer = connected(version)
    peer.protocol.subscribe([Subscription("t")])
    sent = peer.publish(qos=1)
    events = peer.receive(Publish("t"), Suback(1, [0]), Puback(2))
    [message] = messages_in(events)
    assert (message.payload, message.qos, message.packet_id) == (b"", 0, 0)
    assert sent.status == "acknowledged"
    for name in ("content_type", "response_topic", "correlation_data", "message_expiry_interval"):
        assert getattr(message, name) is None
    assert (message.user_properties, message.subscription_identifiers) == ((), ())
    assert repr(message)


@every_version
def test_a_refusal_without_an_explanation_is_still_told(version: str) -> None:
    """CVE-2017-7655: the reason string and the user properties of a refusal are optional too."""
    peer = Peer(version)
    peer.connect()
    error = end_of(peer.receive(Connack(False, 0x87 if version == V5 else 5)))
    assert "not authorized" in str(error)
    assert (error.reason_string, error.user_properties) == (None, ())


@pytest.mark.parametrize("state", ["opening", "connecting", "connected", "waiting", "closing"])
def test_a_connection_may_be_lost_and_closed_in_every_state(state: str) -> None:
    """CVE-2024-3935: a double free when the other side went away in a teardown; each twice here."""
    rig = Rig()
    delivery = rig.publish(b"x")
    if state in ("connecting", "connected", "closing"):
        rig.open()
    if state in ("connected", "closing"):
        rig.feed(Connack())
    if state == "waiting":
        rig.refuse()
    if state == "closing":
        with rig.engine.lock:
            rig.engine.close_connection()
    for _ in range(2):
        rig.lose()
    for _ in range(2):
        with rig.engine.lock:
            rig.engine.close_connection()
        rig.engine.end()
        rig.engine.close_store()
        rig.lose()
    assert delivery.done
    assert delivery.state == "dropped"
    assert rig.transport.closes <= 1


def test_identifiers_of_qos_2_messages_that_are_never_released_are_bounded() -> None:
    """CVE-2023-28366: packet identifiers of QoS 2 messages that were never released leaked."""
    peer = connected(receive_maximum=20)
    events: list[Any] = []
    for packet_id in range(1, 65_536):
        events = peer.receive(Publish("t", qos=2, packet_id=packet_id))
        for message in messages_in(events):
            peer.handle(message)
        if end_of_stream(events):
            break
    assert end_of(events).reason_code == 0x93
    assert len(peer.session.received) == 20


def end_of_stream(events: list[Any]) -> bool:
    return bool(events) and not isinstance(events[-1], Message)


@every_version
def test_without_a_receive_maximum_identifiers_end_at_65535(version: str) -> None:
    """CVE-2023-28366, for MQTT 3.x and the default of 5.0: the numbers themselves are the bound."""
    peer = connected(version)
    for _ in range(2):
        for packet_id in range(1, 65_536, 13):
            for message in messages_in(peer.receive(Publish("t", qos=2, packet_id=packet_id))):
                peer.handle(message)
    assert len(peer.session.received) == len(range(1, 65_536, 13))


def test_malformed_properties_leave_nothing_behind() -> None:
    """CVE-2023-0809, CVE-2023-3592: memory kept after malformed packets.

    A connection for each; the session, which outlives them, stays as it was.
    """
    session = Session()
    packet = encode_packet(Publish("t", qos=2, packet_id=5, properties={"user_property": [["k", "v"]]}), V5)
    for at in range(2, len(packet)):
        peer = connected(session=session)
        bad = bytearray(packet)
        bad[at] ^= 0xFF
        peer.receive_bytes(bytes(bad))
        peer.cut()
        session.received.clear()
    assert (session.in_flight, session.released, session.received, session.requests) == ({}, {}, {}, {})


@every_version
@pytest.mark.parametrize(
    "packet",
    [
        Suback(1, [0]),
        Puback(1),
        Pubrec(1),
        Pubrel(1),
        Publish("t"),
    ],
    ids=lambda packet: packet.type,
)
def test_a_packet_in_the_wrong_state_changes_nothing(version: str, packet: Packet) -> None:
    """CVE-2021-34431, CVE-2021-28166: a packet before the handshake was over was acted upon."""
    peer = Peer(version)
    message = connected(version, peer=Peer(version, session=peer.session)).publish(qos=2)
    peer.connect(clean_start=False)
    assert end_of(peer.receive(packet)).reason_code == 0x82
    assert peer.session.in_flight == {1: message}
    assert message.status == "sent"


@every_version
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_an_empty_topic_is_an_error(version: str, qos: int) -> None:
    """CVE-2021-34432: a crash by a topic name of no bytes."""
    body = b"\x00\x00" + (b"\x00\x01" if qos else b"") + (b"\x00" if version == V5 else b"")
    peer = connected(version)
    assert isinstance(
        end_of(peer.receive_bytes(bytes((0x30 | qos << 1, len(body))) + body)), RemoteProtocolError
    )


def test_a_topic_of_only_slashes_is_delivered_without_recursion() -> None:
    """CVE-2019-11779: 65,400 levels overflowed the stack. Received, they are matched one after the other."""
    peer = connected()
    slashes = "/" * (LONGEST_TOPIC - 10)
    [message] = messages_in(peer.receive_bytes(publish_of(slashes)))
    tree = FilterTree()
    for topic_filter in ("#", "+/#", "/#", "/" * 199 + "#"):
        tree.insert(topic_filter, topic_filter)
    assert tree.match(message.topic) == ["#", "+/#", "/#", "/" * 199 + "#"]
    assert topic_matches("+/+/#", message.topic)
    with pytest.raises(ArgumentError, match="levels"):
        encode_packet(Publish(slashes), V5)


def publish_of(topic: str) -> bytes:
    raw = topic.encode()
    body = len(raw).to_bytes(2, "big") + raw + b"\0"
    return b"\x30" + encode_varint(len(body)) + body


def test_a_message_that_expires_in_flight_ends_once() -> None:
    """CVE-2019-11778, mosquitto issue 3702: a message used after its life was over."""
    rig = Rig()
    rig.connect()
    delivery = rig.publish(b"x", expiry=5.0)
    [packet] = [packet for packet in rig.sent() if packet.type == "publish"]
    rig.advance(30.0)
    assert not delivery.done  # while there is a connection the broker may answer
    rig.lose()
    rig.advance(120.0)
    assert rig.connect(session_present=True) == []
    rig.feed(Puback(packet.packet_id), Puback(packet.packet_id))
    assert delivery.state == "expired"
    assert rig.engine.session.withheld == {packet.packet_id}


BAD_UTF_8 = {
    "overlong": b"\xc0\xaf",
    "surrogate": b"\xed\xa0\x80",
    "cut off": b"\xe2\x82",
    "too large": b"\xf4\x90\x80\x80",
    "lone continuation": b"\x80",
    "NUL": b"a\x00b",
}


@every_version
@pytest.mark.parametrize("text", BAD_UTF_8.values(), ids=list(BAD_UTF_8))
def test_a_topic_that_is_not_utf_8_never_reaches_the_application(version: str, text: bytes) -> None:
    """CVE-2017-7653: invalid UTF-8 was passed on, and whoever checked it was disconnected."""
    body = len(text).to_bytes(2, "big") + text + (b"\0" if version == V5 else b"")
    events = connected(version).receive_bytes(bytes((0x30, len(body))) + body)
    assert isinstance(end_of(events), MalformedPacketError)
    assert messages_in(events) == []


@pytest.mark.parametrize("text", BAD_UTF_8.values(), ids=list(BAD_UTF_8))
@pytest.mark.parametrize(
    "identifier", [entry.identifier for entry in PROPERTIES.values() if entry.type.startswith("utf8")]
)
def test_a_property_that_is_not_utf_8_never_reaches_the_application(identifier: int, text: bytes) -> None:
    """CVE-2017-7653 for every string property, in a packet that may have it."""
    string = len(text).to_bytes(2, "big") + text
    block = bytes((identifier,)) + string + (b"\0\0" if identifier == 0x26 else b"")
    in_publish = "publish" in PROPERTIES[identifier].packets
    body = (b"\x00\x01t" if in_publish else b"\0\0") + bytes((len(block),)) + block
    with pytest.raises(MalformedPacketError):
        decode_packet(bytes((0x30 if in_publish else 0x20, len(body))) + body, V5)


@every_version
def test_a_remaining_length_of_five_bytes_is_malformed_in_the_receive_path(version: str) -> None:
    """CVE-2026-25627, NanoMQ issue 2192: a fifth byte of the remaining length."""
    peer = connected(version)
    for byte in b"\x30\xff\xff\xff":
        assert peer.receive_bytes(bytes((byte,))) == []
    assert isinstance(end_of(peer.receive_bytes(b"\xff")), MalformedPacketError)
