"""MQTT 5.0 properties as attributes of one object, in paho-mqtt's shape.

Names, allowed packets and value ranges of the properties come from :mod:`device_sdk.mqtt.codes`, reading and
writing of bytes from :mod:`device_sdk.mqtt.wire`. :func:`as_mapping` and :func:`from_mapping` translate to
and from the snake_case mappings that the rest of device_sdk uses.
Source: MQTT 5.0 §2.2.2.
"""

from __future__ import annotations

from types import MappingProxyType

from device_sdk._printable import printable
from device_sdk.errors import RemoteProtocolError
from device_sdk.mqtt import wire
from device_sdk.mqtt.codes import PACKET_TYPES, PROPERTIES, PROPERTY_BY_NAME
from device_sdk.paho.exception import MalformedPacket, MQTTException
from device_sdk.paho.packettypes import PacketTypes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Self

    from device_sdk.mqtt.codes import PropertyDefinition

    Writer = Callable[[Any], bytes | bytearray]
    Reader = Callable[[bytes, int], tuple[Any, int]]

__all__ = [
    "MQTTException",
    "MalformedPacket",
    "PacketTypes",
    "Properties",
    "VariableByteIntegers",
    "as_mapping",
    "from_mapping",
    "readBytes",
    "readInt16",
    "readInt32",
    "readUTF",
    "writeBytes",
    "writeInt16",
    "writeInt32",
    "writeUTF",
]

# Bytes


def _read(read: Callable[[bytes, int, int], tuple[Any, int]], buffer: bytes, length: int) -> tuple[Any, int]:
    """Call a reader of the wire on the first ``length`` bytes, and translate its error to paho-mqtt's."""
    try:
        return read(bytes(buffer), 0, min(length, len(buffer)))
    except RemoteProtocolError as error:
        raise MalformedPacket(str(error)) from None


def writeInt16(length: int) -> bytearray:
    """Write a two byte integer. Raises: OverflowError: not 0..65,535."""
    return bytearray(length.to_bytes(2, "big"))


def readInt16(buf: bytes) -> int:
    """Read a two byte integer. Raises: MalformedPacket: too few bytes."""
    value: int = _read(wire.read_uint16, buf, 2)[0]
    return value


def writeInt32(length: int) -> bytearray:
    """Write a four byte integer. Raises: OverflowError: not 0..4,294,967,295."""
    return bytearray(length.to_bytes(4, "big"))


def readInt32(buf: bytes) -> int:
    """Read a four byte integer. Raises: MalformedPacket: too few bytes."""
    value: int = _read(wire.read_uint32, buf, 4)[0]
    return value


def writeUTF(data: str | bytes) -> bytearray:
    """Write a string with its length. Raises: OverflowError: longer than 65,535 bytes."""
    return writeBytes(data if isinstance(data, bytes) else data.encode())


def readUTF(buffer: bytes, maxlen: int) -> tuple[str, int]:
    """Read a string of at most ``maxlen`` bytes, its length included; return it and the bytes used.

    Raises: MalformedPacket: cut off, not UTF-8, or with U+0000.
    """
    return _read(wire.read_string, buffer, maxlen)


def writeBytes(buffer: bytes | bytearray) -> bytearray:
    """Write binary data with its length. Raises: OverflowError: longer than 65,535 bytes."""
    return writeInt16(len(buffer)) + buffer


def readBytes(buffer: bytes, maxlen: int) -> tuple[bytes, int]:
    """Read binary data of at most ``maxlen`` bytes, its length included; return it and the bytes used.

    Raises: MalformedPacket: cut off.
    """
    return _read(wire.read_binary, buffer, maxlen)


class VariableByteIntegers:
    """Numbers of one to four bytes, seven bits in each. Source: MQTT 5.0 §1.5.5."""

    @staticmethod
    def encode(x: int) -> bytes:
        """Write a number. Raises: ValueError: not 0..268,435,455."""
        if not 0 <= x <= wire.MAX_VARINT:
            raise ValueError(printable(f"a variable byte integer must be 0..{wire.MAX_VARINT:,}, not {x}"))
        return wire.encode_varint(x)

    @staticmethod
    def decode(buffer: bytes) -> tuple[int, int]:
        """Read a number from the front; return it and the bytes used.

        Raises: MalformedPacket: cut off, longer than four bytes, or not in its shortest form.
        """
        return _read(wire.read_varint, buffer, len(buffer))


# Types


def _write_pair(value: tuple[str, str]) -> bytes:
    return bytes(writeUTF(value[0]) + writeUTF(value[1]))


def _read_pair(buffer: bytes, maxlen: int) -> tuple[tuple[str, str], int]:
    name, used = readUTF(buffer, maxlen)
    value, more = readUTF(buffer[used:], maxlen - used)
    return (name, value), used + more


def _reader(read: Callable[[bytes, int, int], tuple[Any, int]]) -> Reader:
    return lambda buffer, maxlen: _read(read, buffer, maxlen)


# paho-mqtt's name of each type, our name, and the functions that write and read it.
_TYPES: tuple[tuple[str, str, Writer, Reader], ...] = (
    ("Byte", "byte", lambda value: bytes((value,)), _reader(wire.read_byte)),
    ("Two Byte Integer", "uint16", writeInt16, _reader(wire.read_uint16)),
    ("Four Byte Integer", "uint32", writeInt32, _reader(wire.read_uint32)),
    ("Variable Byte Integer", "varint", VariableByteIntegers.encode, _reader(wire.read_varint)),
    ("Binary Data", "binary", writeBytes, readBytes),
    ("UTF-8 Encoded String", "utf8", writeUTF, readUTF),
    ("UTF-8 String Pair", "utf8-pair", _write_pair, _read_pair),
)

_TYPE_INDEX = {entry[1]: index for index, entry in enumerate(_TYPES)}

# Names

_SINGULAR = {"subscription_identifiers_available": "Subscription Identifier Available"}


def _title(name: str) -> str:
    return _SINGULAR.get(name) or name.replace("_", " ").title().replace("Qos", "QoS")


#: Packet type number -> the packet's name in the tables of device_sdk.mqtt.
_PACKETS: Mapping[int, str] = {**dict(enumerate(PACKET_TYPES)), PacketTypes.WILLMESSAGE: "will"}
_NUMBERS: Mapping[str, int] = {name: number for number, name in _PACKETS.items() if number}

#: Attribute name -> definition, in the order in which they are written.
_ATTRIBUTES: Mapping[str, PropertyDefinition] = {
    _title(entry.name).replace(" ", ""): entry for entry in PROPERTIES.values()
}
_ATTRIBUTE_OF: Mapping[str, str] = {entry.name: attribute for attribute, entry in _ATTRIBUTES.items()}

# Assignments to these two add up.
_COLLECTED = ("SubscriptionIdentifier", "UserProperty")


class Properties:
    """The properties of one packet. Attributes are the standard's names without their spaces.

    ``packetType`` is a number of ``PacketTypes``; it decides which properties may be set. Assigning to
    ``UserProperty``, a pair or a list of pairs, and to ``SubscriptionIdentifier`` adds to the present values,
    and reading them returns lists. Reading an unset property raises AttributeError.

    ``names`` maps the standard's names to identifiers, ``types`` lists the data types, ``properties`` maps
    identifiers to an index of ``types`` and the packet types.

    Raises, on assignment: MQTTException: no such property, not in this packet, or a number out of range.
    TypeError: a number was expected.
    """

    types = [entry[0] for entry in _TYPES]
    names: Mapping[str, int] = MappingProxyType(
        {_title(entry.name): entry.identifier for entry in PROPERTIES.values()}
    )
    properties: Mapping[int, tuple[int, list[int]]] = MappingProxyType(
        {
            entry.identifier: (_TYPE_INDEX[entry.type], sorted(_NUMBERS[name] for name in entry.packets))
            for entry in PROPERTIES.values()
        }
    )

    packetType: int

    PayloadFormatIndicator: int
    MessageExpiryInterval: int
    ContentType: str
    ResponseTopic: str
    CorrelationData: bytes
    SubscriptionIdentifier: Any
    SessionExpiryInterval: int
    AssignedClientIdentifier: str
    ServerKeepAlive: int
    AuthenticationMethod: str
    AuthenticationData: bytes
    RequestProblemInformation: int
    WillDelayInterval: int
    RequestResponseInformation: int
    ResponseInformation: str
    ServerReference: str
    ReasonString: str
    ReceiveMaximum: int
    TopicAliasMaximum: int
    TopicAlias: int
    MaximumQoS: int
    RetainAvailable: int
    UserProperty: Any
    MaximumPacketSize: int
    WildcardSubscriptionAvailable: int
    SubscriptionIdentifierAvailable: int
    SharedSubscriptionAvailable: int

    def __init__(self, packetType: int) -> None:
        self.packetType = packetType

    def __setattr__(self, name: str, value: Any) -> None:
        name = name.replace(" ", "")
        if name == "packetType":
            self.__dict__[name] = value
            return
        entry = _ATTRIBUTES.get(name)
        if entry is None:
            raise MQTTException(f"{name} is not an MQTT 5.0 property; there are: {', '.join(_ATTRIBUTES)}")
        packet = _PACKETS.get(self.packetType, f"packet type {self.packetType}")
        if packet not in entry.packets:
            raise MQTTException(f"the property {name} is not allowed in {packet}")
        collected = name in _COLLECTED
        values = value if collected and isinstance(value, list) else [value]
        if entry.maximum:
            for number in values:
                _check_number(name, entry, number)
        self.__dict__[name] = self.__dict__.get(name, []) + values if collected else value

    def allowsMultiple(self, compressedName: str) -> bool:
        """Return whether assignments to the attribute of this name add up."""
        return compressedName in _COLLECTED

    def getIdentFromName(self, compressedName: str) -> int:
        """Return the identifier on the wire of an attribute's name, or -1."""
        entry = _ATTRIBUTES.get(compressedName)
        return -1 if entry is None else entry.identifier

    def getNameFromIdent(self, identifier: int) -> str | None:
        """Return the standard's name, with spaces, of an identifier, or None."""
        entry = PROPERTIES.get(identifier)
        return None if entry is None else _title(entry.name)

    def isEmpty(self) -> bool:
        """Return whether no property is set."""
        return len(self.__dict__) == 1

    def clear(self) -> None:
        """Remove all properties."""
        packet_type = self.packetType
        self.__dict__.clear()
        self.packetType = packet_type

    def json(self) -> dict[str, Any]:
        """Return the set properties by attribute name; correlation data as hexadecimal digits."""
        present = self._present()
        data = present.get("CorrelationData")
        if isinstance(data, bytes):
            present["CorrelationData"] = data.hex()
        return present

    def _present(self) -> dict[str, Any]:
        """Return the set properties, in the order of the identifiers."""
        own = self.__dict__
        return {name: own[name] for name in _ATTRIBUTES if name in own}

    def __str__(self) -> str:
        return "[" + ", ".join(f"{name} : {value}" for name, value in self._present().items()) + "]"

    def pack(self) -> bytes:
        """Return the property block with its length in front.

        Raises: ArgumentError: a text or number that the wire cannot hold.
        """
        return wire.encode_properties(as_mapping(self), _PACKETS[self.packetType])

    def unpack(self, buffer: bytes) -> tuple[Self, int]:
        """Replace all properties by those of the block at the front; return self and the bytes used.

        Raises: MalformedPacket: bytes that are no property block. MQTTException: a property twice, in the
        wrong packet or out of range, or more than :mod:`device_sdk.mqtt.wire` takes.
        """
        self.clear()
        try:
            found, used = wire.decode_properties(bytes(buffer), 0, len(buffer), _PACKETS[self.packetType])
        except RemoteProtocolError as error:
            kind = MalformedPacket if error.reason_code == 0x81 else MQTTException
            raise kind(str(error)) from None
        self.__dict__.update(from_mapping(self.packetType, found).__dict__)
        return self, used

    def writeProperty(self, identifier: int, type: int, value: Any) -> bytes:
        """Return the bytes of one property; ``type`` is an index of ``types``."""
        return VariableByteIntegers.encode(identifier) + _TYPES[type][2](value)

    def readProperty(self, buffer: bytes, type: int, propslen: int) -> tuple[Any, int]:
        """Read one value of at most ``propslen`` bytes; return it and the bytes used.

        ``type`` is an index of ``types``. Raises: MalformedPacket.
        """
        return _TYPES[type][3](buffer, propslen)


def _check_number(name: str, entry: PropertyDefinition, value: object) -> None:
    if not isinstance(value, int):
        raise TypeError(printable(f"the property {name} must be an int, not {type(value).__name__}"))
    if not entry.minimum <= value <= entry.maximum:
        raise MQTTException(f"the property {name} must be {entry.minimum}..{entry.maximum}, not {value}")


# Translation


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def as_mapping(properties: Properties | None) -> dict[str, Any]:
    """Return properties as device_sdk.mqtt takes them: by snake_case name, in the order of the identifiers.

    Texts that were given as bytes are decoded. Raises: UnicodeDecodeError: they are not UTF-8.
    """
    if properties is None:
        return {}
    mapping: dict[str, Any] = {}
    for name, value in properties._present().items():
        entry = _ATTRIBUTES[name]
        if entry.type == "utf8":
            value = _text(value)
        elif entry.type == "utf8-pair":
            value = [(_text(first), _text(second)) for first, second in value]
        elif name in _COLLECTED and properties.packetType != PacketTypes.PUBLISH:
            # In SUBSCRIBE there is one for the whole packet. Source: MQTT 5.0 §3.8.2.1.2.
            value = value[-1]
        mapping[entry.name] = value
    return mapping


def publish_block(mapping: Mapping[str, Any]) -> bytes:
    """Return the result of :func:`as_mapping` as the property block of a PUBLISH."""
    return wire.encode_properties(mapping, "publish")


def from_mapping(packet_type: int, mapping: Mapping[str, Any]) -> Properties:
    """Return received properties, by snake_case name and known to be valid, as an object of that packet."""
    properties = Properties(packet_type)
    own = properties.__dict__
    for name, value in mapping.items():
        entry = PROPERTY_BY_NAME[name]
        if entry.type == "utf8-pair":
            value = [(first, second) for first, second in value]
        elif entry.type == "varint" and not isinstance(value, list):
            value = [value]
        own[_ATTRIBUTE_OF[name]] = value
    return properties
