"""The codec beyond the vectors: round trips, hostile bytes, and what the encoder refuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from device_sdk.errors import (
    ArgumentError,
    ArgumentTypeError,
    MalformedPacketError,
    RemoteProtocolError,
)
from device_sdk.mqtt import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
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
    reason_name,
)
from device_sdk.mqtt.codes import PROPERTIES, REASON_CODES, SUBACK_CODES_V3, VERSIONS, PropertyDefinition
from device_sdk.mqtt.decode import decode_body
from device_sdk.mqtt.wire import encode_varint

# Packets of every type

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
topics = st.text(st.characters(exclude_characters="\0#+", exclude_categories=["Cs"]), min_size=1, max_size=12)
filters = st.sampled_from(["a", "a/#", "+/b", "#", "é/+", "$share/g/a/+", "$SYS/#"])
packet_ids = st.integers(1, 65_535)
binary = st.binary(max_size=12)


def values_of(entry: PropertyDefinition, packet: str) -> st.SearchStrategy[Any]:
    if entry.name == "user_property":
        return st.lists(st.tuples(texts, texts).map(list), min_size=1, max_size=4)
    if entry.name == "response_topic":
        return topics
    if entry.type == "utf8":
        return texts
    if entry.type == "binary":
        return binary
    number = st.integers(entry.minimum, entry.maximum)
    if packet in entry.repeatable:
        return number | st.lists(number, min_size=2, max_size=4)
    return number


def properties_of(packet: str, version: str) -> st.SearchStrategy[dict[str, Any]]:
    if version != "5.0":
        return st.just({})
    allowed = [entry for entry in PROPERTIES.values() if packet in entry.packets]
    return st.fixed_dictionaries(
        {}, optional={entry.name: values_of(entry, packet) for entry in allowed}
    ).filter(lambda found: "authentication_data" not in found or "authentication_method" in found)


@st.composite
def connects(draw: st.DrawFn, version: str) -> Connect:
    name, level = VERSIONS[version]
    will = None
    if draw(st.booleans()):
        will = Will(
            draw(topics),
            draw(binary),
            qos=draw(st.integers(0, 2)),
            retain=draw(st.booleans()),
            properties=draw(properties_of("will", version)),
        )
    user_name = draw(st.none() | texts)
    return Connect(
        draw(texts.filter(bool)),
        clean_start=draw(st.booleans()),
        keep_alive=draw(st.integers(0, 65_535)),
        user_name=user_name,
        password=draw(st.none() if user_name is None and version != "5.0" else st.none() | binary),
        will=will,
        properties=draw(properties_of("connect", version)),
        protocol_name=name,
        protocol_level=level,
    )


@st.composite
def publishes(draw: st.DrawFn, version: str) -> Publish:
    qos = draw(st.integers(0, 2))
    properties = draw(properties_of("publish", version))
    return Publish(
        draw(topics | st.just("") if "topic_alias" in properties else topics),
        draw(st.binary(max_size=200)),
        qos=qos,
        retain=draw(st.booleans()),
        dup=draw(st.booleans()) if qos else False,
        packet_id=draw(packet_ids) if qos else None,
        properties=properties,
    )


@st.composite
def subscribes(draw: st.DrawFn, version: str) -> Subscribe:
    subscriptions = []
    for topic in draw(st.lists(filters, min_size=1, max_size=4)):
        subscription = Subscription(topic, draw(st.integers(0, 2)))
        if version == "5.0":
            subscription.no_local = draw(st.booleans()) and not topic.startswith("$share/")
            subscription.retain_as_published = draw(st.booleans())
            subscription.retain_handling = draw(st.integers(0, 2))
        subscriptions.append(subscription)
    return Subscribe(draw(packet_ids), subscriptions, draw(properties_of("subscribe", version)))


def reasons(packet: str, version: str) -> st.SearchStrategy[int]:
    return st.sampled_from(sorted(REASON_CODES[packet])) if version == "5.0" else st.just(0)


def connacks(version: str) -> st.SearchStrategy[Connack]:
    codes = reasons("connack", version) if version == "5.0" else st.integers(0, 5)
    refused = st.builds(Connack, st.just(False), codes, properties_of("connack", version))
    present = st.builds(Connack, st.just(version != "3.1"), st.just(0), properties_of("connack", version))
    return refused | present


def acknowledgements(version: str) -> list[st.SearchStrategy[Packet]]:
    return [
        st.builds(packet, packet_ids, reasons(packet.type, version), properties_of(packet.type, version))
        for packet in (Puback, Pubrec, Pubrel, Pubcomp)
    ]


def subacks(version: str) -> st.SearchStrategy[Suback]:
    allowed = REASON_CODES["suback"] if version == "5.0" else SUBACK_CODES_V3[version]
    codes = st.lists(st.sampled_from(sorted(allowed)), min_size=1, max_size=4)
    return st.builds(Suback, packet_ids, codes, properties_of("suback", version))


def unsubacks(version: str) -> st.SearchStrategy[Unsuback]:
    size = (1, 4) if version == "5.0" else (0, 0)
    codes = st.lists(reasons("unsuback", version), min_size=size[0], max_size=size[1])
    return st.builds(Unsuback, packet_ids, codes, properties_of("unsuback", version))


def auths() -> st.SearchStrategy[Auth]:
    found = properties_of("auth", "5.0").filter(lambda found: "authentication_method" in found)
    return st.just(Auth()) | st.builds(Auth, reasons("auth", "5.0"), found)


def packets(version: str) -> st.SearchStrategy[Packet]:
    kinds: list[st.SearchStrategy[Packet]] = [
        connects(version),
        connacks(version),
        publishes(version),
        *acknowledgements(version),
        subscribes(version),
        subacks(version),
        st.builds(
            Unsubscribe,
            packet_ids,
            st.lists(filters, min_size=1, max_size=4),
            properties_of("unsubscribe", version),
        ),
        unsubacks(version),
        st.just(Pingreq()),
        st.just(Pingresp()),
        st.builds(Disconnect, reasons("disconnect", version), properties_of("disconnect", version)),
    ]
    return st.one_of(*kinds, auths()) if version == "5.0" else st.one_of(*kinds)


every_version = pytest.mark.parametrize("version", VERSIONS)


@every_version
@given(data=st.data())
def test_decode_gives_back_what_encode_wrote(version: str, data: st.DataObject) -> None:
    packet = data.draw(packets(version))
    encoded = encode_packet(packet, version)
    assert decode_packet(encoded + b"\xff", version) == (packet, len(encoded))


# Hostile bytes


def decode_hostile(data: bytes, version: str) -> None:
    """Decoding may succeed, wait or raise one of the two errors; whatever else it raises fails the test."""
    try:
        result = decode_packet(data, version)
    except RemoteProtocolError as error:
        assert error.reason_code >= 0x80
        assert str(error)
    else:
        assert result is None or result[1] <= len(data)


@every_version
@given(data=st.binary(max_size=64))
def test_arbitrary_bytes_raise_only_the_two_errors(version: str, data: bytes) -> None:
    decode_hostile(data, version)


@every_version
@given(first_byte=st.integers(0, 255), body=st.binary(max_size=64))
def test_arbitrary_bodies_raise_only_the_two_errors(version: str, first_byte: int, body: bytes) -> None:
    decode_hostile(bytes((first_byte, len(body))) + body, version)
    try:
        decode_body(first_byte, b"\xff" + body + b"\xff", 1, 1 + len(body), version)
    except RemoteProtocolError:
        pass


@every_version
@given(data=st.data())
def test_changed_packets_raise_only_the_two_errors(version: str, data: st.DataObject) -> None:
    encoded = bytearray(encode_packet(data.draw(packets(version)), version))
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    decode_hostile(bytes(encoded), version)


@given(st.integers(0, 268_435_455))
def test_remaining_length_is_read_as_it_is_written(length: int) -> None:
    assume(length)
    assert decode_packet(b"\x30" + encode_varint(length), "5.0") is None


def test_wrong_first_byte_is_malformed_before_anything_follows() -> None:
    for first_byte in (0x00, 0x0F, 0x36, 0x60, 0x80, 0xA0, 0xC1):
        with pytest.raises(MalformedPacketError):
            decode_packet(bytes((first_byte,)), "5.0")


def test_remaining_length_of_five_bytes_is_malformed_at_its_fourth() -> None:
    with pytest.raises(MalformedPacketError, match="four bytes"):
        decode_packet(b"\x30\xff\xff\xff\xff", "5.0")


def test_wrong_fixed_length_is_malformed_before_the_body_arrives() -> None:
    with pytest.raises(MalformedPacketError, match="PINGRESP"):
        decode_packet(b"\xd0\x01", "5.0")
    with pytest.raises(MalformedPacketError, match="PUBACK"):
        decode_packet(b"\x40\xff\xff\x7f", "3.1.1")


@pytest.mark.conformance("3.1", "MQTT-3.1/PUBREL-DUP")
@pytest.mark.parametrize("first_byte", [0x6A, 0x8A, 0xAA])
def test_dup_on_pubrel_subscribe_and_unsubscribe_is_legal_only_in_31(first_byte: int) -> None:
    assert decode_packet(bytes((first_byte,)), "3.1") is None
    for version in ("3.1.1", "5.0"):
        with pytest.raises(MalformedPacketError):
            decode_packet(bytes((first_byte,)), version)


@pytest.mark.conformance("3.1", "MQTT-3.1/SUBACK-FAILURE")
def test_suback_of_31_has_no_failure_code() -> None:
    assert decode_packet(b"\x90\x03\x00\x01\x80", "3.1.1") == (Suback(1, [0x80]), 5)
    with pytest.raises(MalformedPacketError):
        decode_packet(b"\x90\x03\x00\x01\x80", "3.1")


def test_connect_of_another_version_says_unsupported_protocol_version() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_packet(encode_packet(Connect("c"), "3.1.1"), "5.0")
    assert caught.value.reason_code == 0x84


def test_disconnect_with_bad_authentication_method_is_accepted_but_not_sent() -> None:
    assert decode_packet(b"\xe0\x01\x8c", "5.0") == (Disconnect(0x8C), 3)
    with pytest.raises(ArgumentError):
        encode_packet(Disconnect(0x8C), "5.0")


def test_auth_that_continues_without_a_method_is_a_protocol_error() -> None:
    with pytest.raises(RemoteProtocolError, match="authentication_method"):
        decode_packet(b"\xf0\x02\x18\x00", "5.0")
    with pytest.raises(ArgumentError, match="authentication_method"):
        encode_packet(Auth(0x18), "5.0")


def publish_with(block: bytes) -> bytes:
    body = b"\x00\x01t" + encode_varint(len(block)) + block
    return b"\x30" + encode_varint(len(body)) + body


# What the caller did wrong


def test_unknown_version_and_foreign_objects_are_argument_errors() -> None:
    with pytest.raises(ArgumentError, match="version"):
        decode_packet(b"", "4")
    with pytest.raises(ArgumentError, match="version"):
        encode_packet(Pingreq(), "4")
    with pytest.raises(ArgumentTypeError, match="bytes-like"):
        decode_packet("text", "5.0")  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="control packet"):
        encode_packet(object(), "5.0")  # type: ignore[arg-type]


def publish(**fields: Any) -> Publish:
    return Publish(**{"topic": "t", "qos": 1, "packet_id": 1, **fields})


def subscribe(topic: Any = "t", **options: Any) -> Subscribe:
    return Subscribe(1, [Subscription(topic, **options)])


REFUSED: list[tuple[str, Packet, str]] = [
    ("client_id", Connect("c" * 65_536), "5.0"),
    ("client_id", Connect("a\0b"), "5.0"),
    ("client_id", Connect("\ud800"), "5.0"),
    ("client_id", Connect("", clean_start=False), "3.1.1"),
    ("client_id", Connect(""), "3.1"),
    ("keep_alive", Connect("c", keep_alive=65_536), "5.0"),
    ("user_name", Connect("c", user_name="u" * 65_536), "5.0"),
    ("password", Connect("c", user_name="u", password=b"p" * 65_536), "5.0"),
    ("password", Connect("c", password=b"p"), "3.1.1"),
    ("will.topic", Connect("c", will=Will("a/#")), "5.0"),
    ("will.qos", Connect("c", will=Will("t", qos=3)), "5.0"),
    ("will.payload", Connect("c", will=Will("t", b"x" * 65_536)), "5.0"),
    ("properties", Connect("c", will=Will("t", properties={"will_delay_interval": 1})), "3.1.1"),
    ("receive_maximum", Connect("c", properties={"receive_maximum": 0}), "5.0"),
    ("authentication_data", Connect("c", properties={"authentication_data": b""}), "5.0"),
    ("reason_code", Connack(False, 0x01), "5.0"),
    ("reason_code", Connack(False, 6), "3.1.1"),
    ("session_present", Connack(True, 5), "3.1.1"),
    ("session_present", Connack(True), "3.1"),
    ("topic", publish(topic="a/+"), "5.0"),
    ("topic", publish(topic=""), "5.0"),
    ("topic", publish(topic="t" * 65_536), "5.0"),
    ("qos", publish(qos=3), "5.0"),
    ("packet_id", publish(packet_id=0), "5.0"),
    ("packet_id", publish(packet_id=65_536), "5.0"),
    ("packet_id", publish(qos=0), "5.0"),
    ("dup", publish(qos=0, packet_id=None, dup=True), "5.0"),
    ("topic_alias", publish(properties={"topic_alias": 0}), "5.0"),
    ("response_topic", publish(properties={"response_topic": "a/+"}), "5.0"),
    ("content_type", publish(properties={"content_type": "x" * 65_536}), "5.0"),
    ("receive_maximum", publish(properties={"receive_maximum": 1}), "5.0"),
    ("colour", publish(properties={"colour": 1}), "5.0"),
    ("properties", publish(properties={"topic_alias": 1}), "3.1.1"),
    ("reason_code", Puback(1, 0x01), "5.0"),
    ("reason_code", Puback(1, 0x80), "3.1.1"),
    ("properties", Puback(1, 0, {"reason_string": "r"}), "3.1.1"),
    ("packet_id", Pubrel(0), "3.1.1"),
    ("subscriptions", Subscribe(1, []), "5.0"),
    ("subscriptions", subscribe(no_local=True), "3.1.1"),
    ("topic", subscribe("a/#/b"), "5.0"),
    ("qos", subscribe(qos=3), "5.0"),
    ("retain_handling", subscribe(retain_handling=3), "5.0"),
    ("no_local", subscribe("$share/g/t", no_local=True), "5.0"),
    ("subscription_identifier", Subscribe(1, [Subscription("t")], {"subscription_identifier": 0}), "5.0"),
    ("reason_codes", Suback(1, []), "5.0"),
    ("reason_codes", Suback(1, [0x03]), "5.0"),
    ("reason_codes", Suback(1, [0x80]), "3.1"),
    ("unsubscriptions", Unsubscribe(1, []), "5.0"),
    ("unsubscriptions", Unsubscribe(1, ["a#"]), "5.0"),
    ("reason_codes", Unsuback(1, []), "5.0"),
    ("reason_codes", Unsuback(1, [0]), "3.1.1"),
    ("reason_code", Disconnect(0x01), "5.0"),
    ("reason_code", Disconnect(0x04), "3.1.1"),
    ("packet", Auth(), "3.1.1"),
]

WRONG_TYPES: list[tuple[str, Packet]] = [
    ("client_id", Connect(5)),  # type: ignore[arg-type]
    ("password", Connect("c", password="p")),  # type: ignore[arg-type]
    ("keep_alive", Connect("c", keep_alive=1.5)),  # type: ignore[arg-type]
    ("topic", publish(topic=b"t")),
    ("qos", publish(qos="1")),
    ("packet_id", publish(packet_id=None)),
    ("payload", publish(payload=21.5)),
    ("topic_alias", publish(properties={"topic_alias": "1"})),
    ("user_property", publish(properties={"user_property": {"k": "v"}})),
    ("user_property", publish(properties={"user_property": [("k", "v", "w")]})),
    ("correlation_data", publish(properties={"correlation_data": "text"})),
    ("topic", subscribe(b"t")),
    ("subscription_identifier", Subscribe(1, [Subscription("t")], {"subscription_identifier": [1]})),
    ("reason_code", Puback(1, None)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("argument", "packet", "version"), REFUSED)
def test_what_cannot_be_represented_is_refused_by_field(argument: str, packet: Packet, version: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        encode_packet(packet, version)
    assert caught.value.argument == argument
    assert not isinstance(caught.value, ArgumentTypeError)


@pytest.mark.parametrize(("argument", "packet"), WRONG_TYPES)
def test_wrong_type_is_refused_by_field(argument: str, packet: Packet) -> None:
    with pytest.raises(ArgumentTypeError) as caught:
        encode_packet(packet, "5.0")
    assert caught.value.argument == argument


def test_longest_string_is_written() -> None:
    packet = Connect("c" * 65_535, user_name="u" * 65_535, password=b"p" * 65_535)
    encoded = encode_packet(packet, "5.0")
    assert decode_packet(encoded, "5.0") == (packet, len(encoded))


@pytest.mark.conformance("5.0", "MQTT-1.5.5-1")
@pytest.mark.parametrize(
    ("length", "header"),
    [
        (127, "307f"),
        (128, "308001"),
        (16_383, "30ff7f"),
        (16_384, "30808001"),
        (2_097_151, "30ffff7f"),
        (2_097_152, "3080808001"),
    ],
)
def test_remaining_length_takes_one_more_byte_at_each_boundary(length: int, header: str) -> None:
    packet = Publish("t", bytes(length - 3))
    encoded = encode_packet(packet, "3.1.1")
    assert encoded[: len(header) // 2].hex() == header
    assert decode_packet(encoded, "3.1.1") == (packet, len(encoded))


def test_packet_over_the_largest_remaining_length_is_refused() -> None:
    # Untouched zero bytes cost no memory; the length is checked before anything is copied.
    with pytest.raises(ArgumentError, match="268,435,455"):
        encode_packet(Publish("t", bytes(268_435_455 - 2)), "3.1.1")


@pytest.mark.parametrize(
    ("packet", "wanted"),
    [
        (Puback(1), "40020001"),
        (Puback(1, 0x10), "4003000110"),
        (Puback(1, 0, {"reason_string": "r"}), "4008000100" + "041f000172"),
        (Disconnect(), "e000"),
        (Disconnect(0x04), "e00104"),
        (Auth(), "f000"),
    ],
)
def test_reason_code_takes_the_shortest_form(packet: Packet, wanted: str) -> None:
    assert encode_packet(packet, "5.0").hex() == wanted


def test_connect_says_the_version_it_is_written_in() -> None:
    assert b"\x00\x06MQIsdp\x03" in encode_packet(Connect("c"), "3.1")
    assert b"\x00\x04MQTT\x04" in encode_packet(Connect("c"), "3.1.1")
    assert b"\x00\x04MQTT\x05" in encode_packet(Connect("c"), "5.0")


def test_any_bytes_like_input_is_read() -> None:
    for data in (bytearray(b"\xc0\x00"), memoryview(b"\xc0\x00\xd0")):
        assert decode_packet(data, "5.0") == (Pingreq(), 2)


def test_reason_codes_have_words() -> None:
    assert reason_name(0x87) == "not authorized"
    assert reason_name(0x9B) == "QoS not supported"
    assert reason_name(5, "3.1.1") == "not authorized"
    assert reason_name(0x42) == "reason code 0x42"
