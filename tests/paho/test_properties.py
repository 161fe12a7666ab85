"""device_sdk.paho.properties: attributes, their rules, and the bytes they become."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from device_sdk.errors import ArgumentError
from device_sdk.mqtt.codes import PROPERTIES
from device_sdk.paho import properties as module
from device_sdk.paho.exception import MalformedPacket, MQTTException
from device_sdk.paho.packettypes import PacketTypes
from device_sdk.paho.properties import Properties, VariableByteIntegers, as_mapping, from_mapping


def attribute(name: str) -> str:
    return name.replace(" ", "")


def publish_properties() -> Properties:
    made = Properties(PacketTypes.PUBLISH)
    made.UserProperty = ("a", "1")
    made.UserProperty = [("b", "2"), ("c", "3")]
    made.MessageExpiryInterval = 30
    made.ContentType = "text/plain"
    made.CorrelationData = b"\x00\xff"
    return made


PUBLISH_BLOCK = (
    b"\x2c\x02\x00\x00\x00\x1e\x03\x00\ntext/plain\x09\x00\x02\x00\xff"
    b"&\x00\x01a\x00\x011&\x00\x01b\x00\x012&\x00\x01c\x00\x013"
)

# Attributes


def test_every_property_of_the_standard_is_a_typed_attribute() -> None:
    typed = {name for name in Properties.__annotations__ if name[0].isupper()}
    assert typed == {attribute(name) for name in Properties.names}
    assert sorted(Properties.names.values()) == sorted(PROPERTIES)


def test_a_property_that_was_not_set_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="TopicAlias"):
        Properties(PacketTypes.PUBLISH).TopicAlias  # noqa: B018  # reading it is the test


def test_user_properties_add_up_and_others_are_replaced() -> None:
    made = publish_properties()
    made.ContentType = "application/json"
    assert made.UserProperty == [("a", "1"), ("b", "2"), ("c", "3")]
    assert made.ContentType == "application/json"
    assert made.allowsMultiple("UserProperty")
    assert not made.allowsMultiple("ContentType")


def test_the_lists_that_add_up_are_new_each_time() -> None:
    mine = [("a", "1")]
    made = Properties(PacketTypes.PUBLISH)
    made.UserProperty = mine
    made.UserProperty = ("b", "2")
    assert mine == [("a", "1")]


def test_a_name_may_be_written_with_spaces() -> None:
    made = Properties(PacketTypes.CONNECT)
    setattr(made, "Receive Maximum", 10)
    assert made.ReceiveMaximum == 10


def test_an_unknown_property_is_refused() -> None:
    with pytest.raises(MQTTException, match=r"TopicAlais is not an MQTT 5\.0 property; there are: Payload"):
        Properties(PacketTypes.PUBLISH).TopicAlais = 1


@pytest.mark.parametrize(
    ("packet_type", "name", "packet"),
    [
        (PacketTypes.PUBLISH, "WillDelayInterval", "publish"),
        (PacketTypes.WILLMESSAGE, "TopicAlias", "will"),
        (PacketTypes.PINGREQ, "UserProperty", "pingreq"),
        (50, "UserProperty", "packet type 50"),
    ],
)
def test_a_property_of_another_packet_is_refused(packet_type: int, name: str, packet: str) -> None:
    with pytest.raises(MQTTException, match=f"{name} is not allowed in {packet}"):
        setattr(Properties(packet_type), name, 1)


@pytest.mark.parametrize(
    ("packet_type", "name", "lowest", "highest"),
    [
        (PacketTypes.CONNECT, "ReceiveMaximum", 1, 65_535),
        (PacketTypes.PUBLISH, "TopicAlias", 1, 65_535),
        (PacketTypes.CONNECT, "TopicAliasMaximum", 0, 65_535),
        (PacketTypes.CONNECT, "MaximumPacketSize", 1, 4_294_967_295),
        (PacketTypes.SUBSCRIBE, "SubscriptionIdentifier", 1, 268_435_455),
        (PacketTypes.CONNECT, "RequestProblemInformation", 0, 1),
        (PacketTypes.PUBLISH, "PayloadFormatIndicator", 0, 1),
        (PacketTypes.WILLMESSAGE, "WillDelayInterval", 0, 4_294_967_295),
    ],
)
def test_numbers_have_the_ranges_of_the_standard(
    packet_type: int, name: str, lowest: int, highest: int
) -> None:
    for number in (lowest, highest):
        setattr(Properties(packet_type), name, number)
    for number in (lowest - 1, highest + 1):
        with pytest.raises(MQTTException, match=f"{name} must be {lowest}..{highest}, not {number}"):
            setattr(Properties(packet_type), name, number)


def test_a_number_in_a_list_is_checked_too() -> None:
    with pytest.raises(MQTTException, match="not 0"):
        Properties(PacketTypes.PUBLISH).SubscriptionIdentifier = [1, 0]


def test_a_text_where_a_number_belongs_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="TopicAlias must be an int, not str"):
        Properties(PacketTypes.PUBLISH).TopicAlias = "7"  # type: ignore[assignment]  # that is the point


def test_names_and_identifiers_translate_both_ways() -> None:
    made = Properties(PacketTypes.CONNECT)
    assert made.getIdentFromName("MaximumQoS") == 0x24
    assert made.getIdentFromName("Nothing") == -1
    assert made.getNameFromIdent(0x29) == "Subscription Identifier Available"
    assert made.getNameFromIdent(0x7F) is None


def test_the_tables_give_type_and_packets_of_each_property() -> None:
    index, packets = Properties.properties[Properties.names["Reason String"]]
    assert Properties.types[index] == "UTF-8 Encoded String"
    assert PacketTypes.CONNACK in packets
    assert PacketTypes.CONNECT not in packets


def test_clear_removes_all_but_the_packet_type() -> None:
    made = publish_properties()
    assert not made.isEmpty()
    made.clear()
    assert made.isEmpty()
    assert made.packetType == PacketTypes.PUBLISH


def test_properties_show_what_is_set() -> None:
    made = Properties(PacketTypes.CONNACK)
    made.ReasonString = "no"
    made.MaximumQoS = 1
    assert str(made) == "[ReasonString : no, MaximumQoS : 1]"
    assert str(Properties(PacketTypes.CONNACK)) == "[]"


def test_json_has_correlation_data_in_hexadecimal() -> None:
    assert publish_properties().json() == {
        "MessageExpiryInterval": 30,
        "ContentType": "text/plain",
        "CorrelationData": "00ff",
        "UserProperty": [("a", "1"), ("b", "2"), ("c", "3")],
    }
    assert publish_properties().CorrelationData == b"\x00\xff"


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))]
)
def test_properties_can_be_copied(duplicate: Any) -> None:
    assert duplicate(publish_properties()).json() == publish_properties().json()


# Blocks


def test_a_block_is_written_in_the_order_of_the_identifiers() -> None:
    assert publish_properties().pack() == PUBLISH_BLOCK


def test_a_block_is_read_and_replaces_what_was_there() -> None:
    made = Properties(PacketTypes.PUBLISH)
    made.TopicAlias = 7
    assert made.unpack(PUBLISH_BLOCK + b"payload") == (made, len(PUBLISH_BLOCK))
    assert made.json() == publish_properties().json()


def test_a_block_without_properties_is_one_byte() -> None:
    assert Properties(PacketTypes.PINGREQ).pack() == b"\0"
    assert Properties(PacketTypes.PUBLISH).unpack(b"\0")[1] == 1


def test_texts_may_be_given_as_bytes() -> None:
    made = Properties(PacketTypes.PUBLISH)
    made.ContentType = b"a"  # type: ignore[assignment]  # paho-mqtt takes it
    made.UserProperty = (b"b", "c")
    assert made.pack() == b"\x0b\x03\x00\x01a&\x00\x01b\x00\x01c"


def test_received_subscription_identifiers_are_a_list() -> None:
    made = Properties(PacketTypes.PUBLISH)
    made.unpack(b"\x02\x0b\x07")
    assert made.SubscriptionIdentifier == [7]
    made.unpack(b"\x05\x0b\x07\x0b\x80\x01")
    assert made.SubscriptionIdentifier == [7, 128]


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\x80",
        b"\xff\xff\xff\xff\x7f",
        b"\x05\x02\x00\x00\x00",
        b"\x05\x09\x00\x05ab",
        b"\x02\x7f\x00",
        b"\x04\x03\x00\x01\xff",
    ],
    ids=["empty", "length cut", "length long", "block cut", "data cut", "unknown", "not UTF-8"],
)
def test_bytes_that_are_no_block_are_malformed(block: bytes) -> None:
    made = Properties(PacketTypes.PUBLISH)
    with pytest.raises(MalformedPacket):
        made.unpack(block)
    assert made.isEmpty()


@pytest.mark.parametrize("block", [b"\x04\x01\x00\x01\x00", b"\x03\x21\x00\x01", b"\x03\x23\x00\x00"])
def test_a_block_that_breaks_the_rules_is_an_exception(block: bytes) -> None:
    with pytest.raises(MQTTException) as raised:
        Properties(PacketTypes.PUBLISH).unpack(block)
    assert not isinstance(raised.value, MalformedPacket)


def test_a_text_that_the_wire_cannot_hold_is_refused_when_packed() -> None:
    made = Properties(PacketTypes.PUBLISH)
    made.ContentType = "a\0b"
    with pytest.raises(ArgumentError, match="NUL"):
        made.pack()


VALUES = [
    ("Byte", 1, b"\x01"),
    ("Two Byte Integer", 258, b"\x01\x02"),
    ("Four Byte Integer", 258, b"\x00\x00\x01\x02"),
    ("Variable Byte Integer", 258, b"\x82\x02"),
    ("Binary Data", b"ab", b"\x00\x02ab"),
    ("UTF-8 Encoded String", "ab", b"\x00\x02ab"),
    ("UTF-8 String Pair", ("a", "b"), b"\x00\x01a\x00\x01b"),
]


@pytest.mark.parametrize(("type", "value", "raw"), VALUES)
def test_one_property_is_written_and_read(type: str, value: object, raw: bytes) -> None:
    made = Properties(PacketTypes.PUBLISH)
    index = made.types.index(type)
    assert made.writeProperty(0x26, index, value) == b"\x26" + raw
    assert made.readProperty(raw + b"more", index, len(raw)) == (value, len(raw))
    with pytest.raises(MalformedPacket):
        made.readProperty(raw + b"more", index, len(raw) - 1)


# Bytes


def test_integers_are_written_and_read() -> None:
    assert module.writeInt16(258) == bytearray(b"\x01\x02")
    assert module.readInt16(b"\x01\x02\x03") == 258
    assert module.writeInt32(258) == bytearray(b"\x00\x00\x01\x02")
    assert module.readInt32(b"\x00\x00\x01\x02\x03") == 258
    with pytest.raises(OverflowError):
        module.writeInt16(65_536)
    with pytest.raises(MalformedPacket):
        module.readInt32(b"\x00")


def test_texts_and_data_are_written_and_read() -> None:
    assert module.writeUTF("é") == module.writeUTF("é".encode()) == bytearray(b"\x00\x02\xc3\xa9")
    assert module.readUTF(b"\x00\x02\xc3\xa9more", 4) == ("é", 4)
    assert module.writeBytes(b"ab") == bytearray(b"\x00\x02ab")
    assert module.readBytes(b"\x00\x02abmore", 4) == (b"ab", 4)


@pytest.mark.parametrize("read", [module.readUTF, module.readBytes])
@pytest.mark.parametrize("limit", [0, 1, 3])
def test_a_length_beyond_the_limit_is_malformed(read: Any, limit: int) -> None:
    with pytest.raises(MalformedPacket):
        read(b"\x00\x02ab", limit)


@pytest.mark.parametrize("text", [b"\x00\x01\x00", b"\x00\x03\xed\xa0\x80", b"\x00\x01\xff"])
def test_a_text_that_mqtt_forbids_is_malformed(text: bytes) -> None:
    with pytest.raises(MalformedPacket):
        module.readUTF(text, len(text))


@pytest.mark.parametrize(
    ("number", "raw"), [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (268_435_455, b"\xff\xff\xff\x7f")]
)
def test_variable_byte_integers_are_written_and_read(number: int, raw: bytes) -> None:
    assert VariableByteIntegers.encode(number) == raw
    assert VariableByteIntegers.decode(raw + b"more") == (number, len(raw))


@pytest.mark.parametrize("number", [-1, 268_435_456])
def test_a_number_that_needs_five_bytes_is_a_value_error(number: int) -> None:
    with pytest.raises(ValueError, match=r"0\.\.268,435,455"):
        VariableByteIntegers.encode(number)


@pytest.mark.parametrize("raw", [b"", b"\x80", b"\xff\xff\xff\xff\x7f", b"\x80\x00"])
def test_a_wrong_variable_byte_integer_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedPacket):
        VariableByteIntegers.decode(raw)


# Translation


def test_properties_translate_to_the_names_of_the_core_and_back() -> None:
    mapping = as_mapping(publish_properties())
    assert mapping == {
        "message_expiry_interval": 30,
        "content_type": "text/plain",
        "correlation_data": b"\x00\xff",
        "user_property": [("a", "1"), ("b", "2"), ("c", "3")],
    }
    assert from_mapping(PacketTypes.PUBLISH, mapping).json() == publish_properties().json()


def test_no_properties_translate_to_an_empty_mapping() -> None:
    assert as_mapping(None) == {}
    assert as_mapping(Properties(PacketTypes.PUBLISH)) == {}
    assert from_mapping(PacketTypes.PUBLISH, {}).isEmpty()


def test_a_subscription_identifier_is_one_number_in_subscribe_and_a_list_in_publish() -> None:
    subscribe = Properties(PacketTypes.SUBSCRIBE)
    subscribe.SubscriptionIdentifier = 7
    assert as_mapping(subscribe) == {"subscription_identifier": 7}
    assert subscribe.pack() == b"\x02\x0b\x07"
    received = from_mapping(PacketTypes.PUBLISH, {"subscription_identifier": 7})
    assert received.SubscriptionIdentifier == [7]
    assert as_mapping(received) == {"subscription_identifier": [7]}
