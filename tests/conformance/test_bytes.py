"""The bytes themselves: fixed headers, CONNECT field by field, reason codes, the shortest forms."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from device_sdk import Subscription, Will
from device_sdk.errors import ArgumentError, MalformedPacketError, RemoteProtocolError
from device_sdk.mqtt import (
    Auth,
    Connect,
    Disconnect,
    Packet,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Unsubscribe,
    decode_packet,
    encode_packet,
)
from device_sdk.mqtt.options import ConnectOptions
from tests.mqtt.peer import Peer, connected, end_of, every_version, messages_in

NAMES = [
    "", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "SUBACK",
    "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
]  # fmt: skip
WITH_FLAGS_2 = ("PUBREL", "SUBSCRIBE", "UNSUBSCRIBE")


def reason_code_table() -> dict[str, set[int]]:
    """Packet name -> its reason codes, from the table of the standard and not from our own."""
    path = Path(__file__).parents[1] / "vectors" / "mqtt" / "reason_codes.csv"
    table: dict[str, set[int]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for packet in row["packets"].split():
                table.setdefault(packet, set()).add(int(row["value"]))
    return table


# Fixed headers


def flags_of(name: str) -> int:
    return 2 if name in WITH_FLAGS_2 else 0


def wrong_first_bytes(version: str) -> list[int]:
    """Every first byte with reserved flags that are not those of the standard; PUBLISH has none."""
    wrong = []
    for kind, name in enumerate(NAMES):
        if name in ("", "PUBLISH") or (name == "AUTH" and version != "5.0"):
            continue
        wrong += [kind << 4 | flags for flags in range(16) if flags != flags_of(name)]
    return wrong


@pytest.mark.conformance(
    "5.0", "MQTT-2.1.3-1", "MQTT-3.6.1-1", "MQTT-3.8.1-1", "MQTT-3.10.1-1", "MQTT-3.14.1-1", "MQTT-3.15.1-1"
)
@pytest.mark.conformance(
    "3.1.1", "MQTT-2.2.2-1", "MQTT-2.2.2-2", "MQTT-3.6.1-1", "MQTT-3.8.1-1", "MQTT-3.10.1-1"
)
@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
def test_a_wrong_reserved_flag_is_malformed_and_closes_the_connection(version: str) -> None:
    body = bytes.fromhex("0001")
    for first in wrong_first_bytes(version):
        with pytest.raises(MalformedPacketError):
            decode_packet(bytes((first, len(body))) + body, version)
    for first in wrong_first_bytes(version):
        peer = connected(version, properties={"authentication_method": "m"} if version == "5.0" else None,
                         server={"authentication_method": "m"} if version == "5.0" else None)  # fmt: skip
        error = end_of(peer.receive_bytes(bytes((first, len(body))) + body))
        if NAMES[first >> 4] in ("PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "DISCONNECT", "AUTH"):
            assert version == "3.1.1" or error.reason_code == 0x81


@pytest.mark.conformance(
    "5.0", "MQTT-2.1.3-1", "MQTT-3.6.1-1", "MQTT-3.8.1-1", "MQTT-3.10.1-1", "MQTT-3.14.1-1", "MQTT-3.15.1-1"
)
@pytest.mark.conformance("3.1.1", "MQTT-2.2.2-1", "MQTT-3.6.1-1", "MQTT-3.8.1-1", "MQTT-3.10.1-1")
@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
def test_what_we_send_has_the_fixed_first_byte(version: str) -> None:
    method = {"authentication_method": "m"} if version == "5.0" else None
    peer = Peer(version, properties=method, keep_alive=1)
    peer.protocol.connect(0.0, clean_start=True)
    first_bytes = [peer.bytes_sent()[0]]
    peer.receive(*connack(method))
    incoming = messages_in(peer.receive(Publish("t", qos=1, packet_id=1), Publish("t", qos=2, packet_id=2)))
    peer.protocol.subscribe([Subscription("a")])
    first_bytes.append(peer.bytes_sent()[0])
    peer.protocol.unsubscribe(["a"])
    first_bytes.append(peer.bytes_sent()[0])
    for message in incoming:
        message.handled = True
        peer.protocol.acknowledge_handled()
        first_bytes.append(peer.bytes_sent()[0])
    peer.receive(Pubrel(2))
    first_bytes.append(peer.bytes_sent()[0])
    identifier = peer.publish(b"", 2).packet_id
    assert peer.bytes_sent()[0] == 0x34
    peer.receive(Pubrec(identifier))
    first_bytes.append(peer.bytes_sent()[0])
    peer.advance(1.0)
    first_bytes.append(peer.bytes_sent()[0])
    if method:
        peer.protocol.auth(0x19, method)
        first_bytes.append(peer.bytes_sent()[0])
    peer.protocol.disconnect()
    first_bytes.append(peer.bytes_sent()[0])
    auth = [0xF0] if method else []
    assert first_bytes == [0x10, 0x82, 0xA2, 0x40, 0x50, 0x70, 0x62, 0xC0, *auth, 0xE0]


def connack(method: dict[str, Any] | None) -> list[Packet]:
    decoded = decode_packet(b"\x20\x02\0\0" if method is None else b"\x20\x07\0\0\x04\x15\0\x01m",
                            "3.1.1" if method is None else "5.0")  # fmt: skip
    assert decoded is not None
    return [decoded[0]]


@pytest.mark.conformance("5.0", "MQTT-3.3.1-4")
@pytest.mark.conformance("3.1.1", "MQTT-3.3.1-4")
@pytest.mark.parametrize("flags", [0x6, 0x7, 0xE, 0xF])
@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
def test_a_received_publish_with_qos_3_closes_the_connection(version: str, flags: int) -> None:
    peer = connected(version)
    end_of(peer.receive_bytes(bytes((0x30 | flags,)) + bytes.fromhex("06 0001 74 0001 00")))
    assert peer.bytes_sent().hex() == ("e00181" if version == "5.0" else "")


@pytest.mark.conformance("5.0", "MQTT-1.5.5-1")
@pytest.mark.parametrize(
    "packet",
    ["d0 80 00", "30 84 00 0001 74 00", "30 05 0001 74 80 00", "30 07 0001 74 03 0b 81 00",
     "40 05 0001 00 80 00", "e0 03 00 80 00"],
)  # fmt: skip
def test_a_variable_byte_integer_that_is_not_the_shortest_is_malformed(packet: str) -> None:
    assert end_of(connected().receive_bytes(bytes.fromhex(packet))).reason_code == 0x81


# Packet identifiers


@pytest.mark.conformance("5.0", "MQTT-2.2.1-2")
@pytest.mark.conformance("3.1.1", "MQTT-2.3.1-5")
@pytest.mark.parametrize(("version", "properties"), [("3.1.1", b""), ("5.0", b"\0")])
def test_qos_0_has_no_packet_identifier_in_either_direction(version: str, properties: bytes) -> None:
    wire = b"\x30" + bytes((5 + len(properties),)) + b"\0\x01t" + properties + b"\0\x07"
    peer = connected(version)
    peer.protocol.publish_qos0(b"\0\x01t", b"\0\x07", 0, properties)
    assert peer.bytes_sent() == wire
    (message,) = messages_in(peer.receive_bytes(wire))
    assert (message.payload, message.packet_id) == (b"\0\x07", 0)


@pytest.mark.conformance("5.0", "MQTT-2.2.1-3")
@pytest.mark.conformance("3.1.1", "MQTT-2.3.1-1")
@pytest.mark.parametrize(
    ("packet", "wire"),
    [
        (Publish("t", qos=1, packet_id=0), "32 05 0001 74 0000"),
        (Publish("t", qos=2, packet_id=0), "34 05 0001 74 0000"),
        (Subscribe(0, [Subscription("t")]), "82 06 0000 0001 74 00"),
        (Unsubscribe(0, ["t"]), "a2 05 0000 0001 74"),
    ],
)
def test_packet_identifier_0_is_neither_written_nor_read(packet: Packet, wire: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        encode_packet(packet, "3.1.1")
    assert caught.value.argument == "packet_id"
    with pytest.raises(RemoteProtocolError):
        decode_packet(bytes.fromhex(wire), "3.1.1")


@pytest.mark.conformance("5.0", "MQTT-2.2.2-1", "MQTT-3.3.2-1")
def test_no_properties_are_written_as_a_length_of_zero_and_a_missing_length_is_malformed() -> None:
    peer = connected()
    peer.publish(b"x", 1)
    peer.protocol.subscribe([Subscription("a", 1)])
    peer.protocol.unsubscribe(["a"])
    wanted = "32 07 0001 74 0001 00 78" + "82 07 0002 00 0001 61 01" + "a2 06 0003 00 0001 61"
    assert peer.bytes_sent() == bytes.fromhex(wanted)
    for missing in ("32 05 0001 74 0001", "90 02 0002", "b0 02 0003"):
        assert end_of(connected().receive_bytes(bytes.fromhex(missing))).reason_code == 0x81


@pytest.mark.conformance("3.1.1", "MQTT-3.3.2-1", "MQTT-3.8.3-4")
def test_publish_begins_with_its_topic_name_and_a_filter_ends_with_its_qos() -> None:
    peer = connected("3.1.1")
    peer.publish(b"x", 1, topic="a/é")
    peer.protocol.subscribe([Subscription("a", qos) for qos in range(3)])
    wanted = "32 09 0004 61 2f c3 a9 0001 78" + "82 0e 0002 0001 61 00 0001 61 01 0001 61 02"
    assert peer.bytes_sent() == bytes.fromhex(wanted)


# CONNECT

WILL = Will("w", b"bye", qos=2, retain=True)
#: version, options, flags, what follows keep alive (and in 5.0 the properties).
CONNECTS: list[tuple[str, dict[str, Any], int, str]] = [
    ("3.1.1", {}, 0x02, "0001 63"),
    ("3.1.1", {"user_name": "u"}, 0x82, "0001 63 0001 75"),
    ("3.1.1", {"user_name": ""}, 0x82, "0001 63 0000"),
    ("3.1.1", {"user_name": "u", "password": ""}, 0xC2, "0001 63 0001 75 0000"),
    ("3.1.1", {"user_name": "é", "password": "é"}, 0xC2, "0001 63 0002 c3a9 0002 c3a9"),
    ("3.1.1", {"will": Will("w")}, 0x06, "0001 63 0001 77 0000"),
    ("3.1.1", {"will": Will("w", b"bye", qos=1)}, 0x0E, "0001 63 0001 77 0003 627965"),
    ("3.1.1", {"will": WILL}, 0x36, "0001 63 0001 77 0003 627965"),
    (
        "3.1.1",
        {"will": WILL, "user_name": "u", "password": "p"},
        0xF6,
        "0001 63 0001 77 0003 627965 0001 75 0001 70",
    ),
    ("5.0", {}, 0x02, "0001 63"),
    ("5.0", {"user_name": ""}, 0x82, "0001 63 0000"),
    ("5.0", {"password": "p"}, 0x42, "0001 63 0001 70"),
    ("5.0", {"user_name": "u", "password": "p"}, 0xC2, "0001 63 0001 75 0001 70"),
    ("5.0", {"will": Will("w")}, 0x06, "0001 63 00 0001 77 0000"),
    ("5.0", {"will": Will("w", qos=1, retain=True)}, 0x2E, "0001 63 00 0001 77 0000"),
    (
        "5.0",
        {
            "will": Will("w", b"bye", qos=2, retain=True, properties={"will_delay_interval": 5}),
            "user_name": "u",
            "password": "p",
        },
        0xF6,
        "0001 63 05 18 00000005 0001 77 0003 627965 0001 75 0001 70",
    ),
]


@pytest.mark.conformance(
    "5.0", "MQTT-3.1.2-9", "MQTT-3.1.2-11", "MQTT-3.1.2-13", "MQTT-3.1.2-16", "MQTT-3.1.2-17",
    "MQTT-3.1.2-18", "MQTT-3.1.2-19", "MQTT-3.1.3-1", "MQTT-3.1.3-3", "MQTT-3.1.2-1", "MQTT-3.1.2-3",
)  # fmt: skip
@pytest.mark.conformance(
    "3.1.1", "MQTT-3.1.2-9", "MQTT-3.1.2-11", "MQTT-3.1.2-13", "MQTT-3.1.2-15", "MQTT-3.1.2-18",
    "MQTT-3.1.2-19", "MQTT-3.1.2-20", "MQTT-3.1.2-21", "MQTT-3.1.3-1", "MQTT-3.1.3-3", "MQTT-3.1.2-1",
    "MQTT-3.1.2-3",
)  # fmt: skip
@pytest.mark.parametrize(("version", "options", "flags", "payload"), CONNECTS)
def test_connect_byte_by_byte(version: str, options: dict[str, Any], flags: int, payload: str) -> None:
    level = "04" if version == "3.1.1" else "05"
    # Session Expiry Interval 0 and our Maximum Packet Size of 262,144.
    properties = "" if version == "3.1.1" else "0a 11 00000000 27 00040000"
    body = bytes.fromhex(f"0004 4d515454 {level} {flags:02x} 003c {properties} {payload}")
    encoded = ConnectOptions("c", version=version, **options).encode(clean_start=True)
    assert encoded == bytes((0x10, len(body))) + body
    assert ConnectOptions("c", version=version, **options).encode(clean_start=False)[9] == flags - 2


@pytest.mark.conformance("5.0", "MQTT-3.1.3-3")
def test_an_empty_client_identifier_is_still_written() -> None:
    options = ConnectOptions("", maximum_packet_size=0x4321)
    assert options.encode(clean_start=True).endswith(bytes.fromhex("27 00004321 0000"))


@pytest.mark.conformance("3.1", "MQTT-3.1/PROTOCOL")
def test_connect_of_mqtt_3_1_has_its_own_name_and_level() -> None:
    encoded = ConnectOptions("c", version="3.1").encode(clean_start=True)
    assert encoded == bytes.fromhex("10 0f 0006 4d5149736470 03 02 003c 0001 63")


@pytest.mark.conformance("3.1.1", "MQTT-3.1.3-7")
@pytest.mark.conformance("3.1", "MQTT-3.1/CLIENT-ID")
def test_an_empty_client_identifier_is_written_only_with_clean_session_and_never_in_mqtt_3_1() -> None:
    for version, clean_start in [("3.1.1", False), ("3.1", False), ("3.1", True)]:
        with pytest.raises(ArgumentError) as caught:
            encode_packet(Connect("", clean_start=clean_start), version)
        assert caught.value.argument == "client_id"
    assert encode_packet(Connect("", clean_start=True), "3.1.1").endswith(b"\0\0")


# Reason codes


@pytest.mark.conformance(
    "5.0", "MQTT-3.4.2-1", "MQTT-3.5.2-1", "MQTT-3.6.2-1", "MQTT-3.7.2-1", "MQTT-3.14.2-1", "MQTT-3.15.2-1",
    "MQTT-3.2.2-8", "MQTT-3.9.3-2", "MQTT-3.11.3-2",
)  # fmt: skip
@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("CONNACK", "20 03 00 {:02x} 00"),
        ("PUBACK", "40 03 0001 {:02x}"),
        ("PUBREC", "50 03 0001 {:02x}"),
        ("PUBREL", "62 03 0001 {:02x}"),
        ("PUBCOMP", "70 03 0001 {:02x}"),
        ("SUBACK", "90 04 0001 00 {:02x}"),
        ("UNSUBACK", "b0 04 0001 00 {:02x}"),
        ("DISCONNECT", "e0 01 {:02x}"),
        ("AUTH", "f0 06 {:02x} 04 15 0001 6d"),
    ],
)
def test_a_reason_code_that_the_packet_does_not_have_is_a_protocol_error(name: str, wire: str) -> None:
    accepted = set()
    for code in range(256):
        try:
            assert decode_packet(bytes.fromhex(wire.format(code)), "5.0")
        except RemoteProtocolError as error:
            assert error.reason_code == 0x82
        else:
            accepted.add(code)
    # Bad Authentication Method is named for DISCONNECT in one table of the standard and not in another.
    assert accepted == reason_code_table()[name] | ({0x8C} if name == "DISCONNECT" else set())


@pytest.mark.conformance(
    "5.0", "MQTT-3.4.2-1", "MQTT-3.5.2-1", "MQTT-3.6.2-1", "MQTT-3.7.2-1", "MQTT-3.14.2-1", "MQTT-3.15.2-1"
)
@pytest.mark.parametrize("kind", [Puback, Pubrec, Pubrel, Pubcomp, Disconnect, Auth])
def test_a_reason_code_that_the_packet_does_not_have_is_not_written(kind: Any) -> None:
    method = {"authentication_method": "m"} if kind is Auth else None
    written = set()
    for code in range(256):
        packet = kind(code, method) if kind in (Auth, Disconnect) else kind(1, code)
        try:
            encode_packet(packet, "5.0")
        except ArgumentError:
            continue
        written.add(code)
    assert written == reason_code_table()[kind.type.upper()]


@every_version
def test_the_table_of_first_bytes_covers_every_packet(version: str) -> None:
    assert len(wrong_first_bytes(version)) == 15 * (14 if version == "5.0" else 13)
