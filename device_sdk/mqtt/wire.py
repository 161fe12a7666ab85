"""The data types of the wire: numbers, strings, binary data and the property block.

Every reader takes ``(data, position, end)``, never looks at or beyond ``end``, and returns the value with the
position after it. Source: MQTT 5.0 §1.5, §2.2.2.
"""

from __future__ import annotations

from sys import getsizeof

from device_sdk._load import load
from device_sdk.errors import ArgumentError, ArgumentTypeError, MalformedPacketError, RemoteProtocolError
from device_sdk.mqtt.codes import PROPERTIES, PROPERTY_BY_NAME, ReasonCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from device_sdk.mqtt.codes import PropertyDefinition

__all__ = [
    "MAX_VARINT",
    "decode_properties",
    "decoded_size",
    "encode_binary",
    "encode_properties",
    "encode_string",
    "encode_varint",
    "read_binary",
    "read_length",
    "read_string",
    "read_uint16",
    "read_varint",
]

_DID_YOU_MEAN = "device_sdk._text:did_you_mean"  # only for an error, see there

#: The largest variable byte integer: four bytes of seven bits. Source: MQTT 5.0 §1.5.5.
MAX_VARINT = 268_435_455

_MAX_LENGTH = 65_535


# Reading


def read_length(data: bytes | memoryview, position: int, end: int) -> tuple[int, int] | None:
    """Read a variable byte integer that may be incomplete: ``None`` while bytes are missing.

    Raises: MalformedPacketError: longer than four bytes, or not the shortest form.
    Source: MQTT 5.0 §1.5.5 [MQTT-1.5.5-1].
    """
    value = shift = 0
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if not byte and shift:
                raise MalformedPacketError("a variable byte integer is not in its shortest form")
            return value, position
        shift += 7
        if shift == 28:
            raise MalformedPacketError("a variable byte integer is longer than four bytes")
    return None


def read_varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Read a variable byte integer inside a packet. Raises: MalformedPacketError, also if it is cut off."""
    result = read_length(data, position, end)
    if result is None:
        raise MalformedPacketError("the packet ends inside a variable byte integer")
    return result


def read_byte(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Read one byte. Raises: MalformedPacketError: there is none."""
    if position >= end:
        raise MalformedPacketError("the packet ends where a byte should follow")
    return data[position], position + 1


def read_uint16(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Read a two byte integer. Raises: MalformedPacketError: it is cut off."""
    if end - position < 2:
        raise MalformedPacketError("the packet ends inside a two byte integer")
    return data[position] << 8 | data[position + 1], position + 2


def read_uint32(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Read a four byte integer. Raises: MalformedPacketError: it is cut off."""
    if end - position < 4:
        raise MalformedPacketError("the packet ends inside a four byte integer")
    return int.from_bytes(data[position : position + 4], "big"), position + 4


def read_binary(data: bytes, position: int, end: int) -> tuple[bytes, int]:
    """Read binary data with its two byte length. Raises: MalformedPacketError: it is cut off."""
    begin = position + 2
    if begin > end:
        raise MalformedPacketError("the packet ends inside a length")
    stop = begin + (data[position] << 8 | data[position + 1])
    if stop > end:
        raise MalformedPacketError(f"a field of {stop - begin} bytes has only {end - begin} in the packet")
    return data[begin:stop], stop


def read_string(data: bytes, position: int, end: int) -> tuple[str, int]:
    """Read a UTF-8 string; a leading byte order mark stays part of it.

    Raises: MalformedPacketError: cut off, not strict UTF-8 (surrogates, overlong forms), or holds U+0000.
    Source: MQTT 5.0 §1.5.4 [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-1.5.4-3].
    """
    raw, position = read_binary(data, position, end)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise MalformedPacketError(f"a string is not UTF-8: {error.reason} at byte {error.start}") from None
    if "\0" in text:
        raise MalformedPacketError("a string has a NUL character (U+0000)")
    return text, position


def _read_pair(data: bytes, position: int, end: int) -> tuple[list[str], int]:
    name, position = read_string(data, position, end)
    value, position = read_string(data, position, end)
    return [name, value], position


def _read_binary_pair(data: bytes, position: int, end: int) -> tuple[list[bytes], int]:
    name, position = read_binary(data, position, end)
    value, position = read_binary(data, position, end)
    return [name, value], position


_READERS: Mapping[str, Callable[[bytes, int, int], tuple[Any, int]]] = {
    "byte": read_byte,
    "uint16": read_uint16,
    "uint32": read_uint32,
    "varint": read_varint,
    "utf8": read_string,
    "utf8-pair": _read_pair,
    "binary": read_binary,
    "binary-pair": _read_binary_pair,
}


def decode_properties(
    data: bytes,
    start: int,
    end: int,
    packet: str,
    definitions: Mapping[int, PropertyDefinition] = PROPERTIES,
) -> tuple[dict[str, Any], int]:
    """Read the property block at ``start`` of a packet that ends at ``end``.

    ``packet`` is the packet's name in lower case, or ``"will"``; ``definitions`` say how strict to be. Any
    number of properties is read: a packet is bounded as a whole. A response topic is not looked at, see
    decision 0025.

    Returns: the properties by snake_case name and the position after the block. ``user_property`` is a list
    of ``[name, value]``; ``subscription_identifier`` is an int, or a list when PUBLISH carries several.
    Raises: MalformedPacketError: an unknown property or a cut-off value. RemoteProtocolError: a property
    that this packet must not have, a second one, or a value out of range.
    Source: MQTT 5.0 §2.2.2. Cost: linear in the bytes of the block.
    """
    length, position = read_varint(data, start, end)
    stop = position + length
    if stop > end:
        raise MalformedPacketError(f"{packet}: the properties are longer than the packet")
    properties: dict[str, Any] = {}
    while position < stop:
        entry = definitions.get(data[position])
        if entry is None:
            raise MalformedPacketError(f"{packet}: unknown property 0x{data[position]:02x}")
        name = entry.name
        if packet not in entry.packets:
            raise RemoteProtocolError(f"{packet}: {name} is not allowed in this packet")
        value, position = _READERS[entry.type](data, position + 1, stop)
        if entry.maximum and not entry.minimum <= value <= entry.maximum:
            raise _out_of_range(name, value, packet)
        if name not in properties:
            properties[name] = [value] if entry.type == "utf8-pair" else value
        elif packet not in entry.repeatable:
            raise RemoteProtocolError(f"{packet}: {name} appears twice")
        elif type(properties[name]) is list:
            properties[name].append(value)
        else:
            properties[name] = [properties[name], value]
    if "authentication_data" in properties and "authentication_method" not in properties:
        raise RemoteProtocolError(f"{packet}: authentication_data without authentication_method")
    return properties, position


def _out_of_range(name: str, value: int, packet: str) -> RemoteProtocolError:
    """Source: MQTT 5.0 §3.3.2.3.4 [MQTT-3.3.2-8]."""
    code = ReasonCode.TOPIC_ALIAS_INVALID if name == "topic_alias" else ReasonCode.PROTOCOL_ERROR
    return RemoteProtocolError(f"{packet}: {name} must not be {value}", code)


def decoded_size(properties: Mapping[str, Any]) -> int:
    """Return the bytes of memory that decoded properties take: up to thirty times those on the wire."""
    size = getsizeof(properties)
    for value in properties.values():
        size += getsizeof(value)
        if type(value) is not list:
            continue
        for item in value:
            size += getsizeof(item)
            if type(item) is list:  # a user property; Python has the empty text and short ones already
                size += sum(getsizeof(text) for text in item if len(text) > 1 or text > "\xff")
    return size


# Writing


def encode_varint(value: int) -> bytes:
    """Write a variable byte integer in its shortest form.

    ``value`` is 0..268,435,455; the caller has checked it. Source: MQTT 5.0 §1.5.5.
    """
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    if value < 0x20_0000:
        return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14))
    return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14 & 0x7F | 0x80, value >> 21))


def encode_binary(value: object, argument: str) -> bytes:
    """Write binary data with its two byte length.

    Raises: ArgumentTypeError: not bytes-like. ArgumentError: longer than 65,535 bytes.
    """
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise ArgumentTypeError(argument, f"must be bytes, not {type(value).__name__}")
    raw = bytes(value)
    if len(raw) > _MAX_LENGTH:
        raise ArgumentError(argument, f"is {len(raw):,} bytes long; the limit is {_MAX_LENGTH:,}")
    return len(raw).to_bytes(2, "big") + raw


def encode_string(value: object, argument: str) -> bytes:
    """Write a UTF-8 string with its two byte length.

    Raises: ArgumentTypeError: not a str. ArgumentError: longer than 65,535 bytes, a NUL or a surrogate.
    Source: MQTT 5.0 §1.5.4.
    """
    if not isinstance(value, str):
        raise ArgumentTypeError(argument, f"must be a str, not {type(value).__name__}")
    if "\0" in value:
        raise ArgumentError(argument, "has a NUL character (U+0000)")
    try:
        raw = value.encode()
    except UnicodeEncodeError:
        raise ArgumentError(argument, "has a surrogate, which UTF-8 cannot hold") from None
    return encode_binary(raw, argument)


def _encode_number(value: object, entry: PropertyDefinition) -> bytes:
    if not isinstance(value, int):
        raise ArgumentTypeError(entry.name, f"must be an int, not {type(value).__name__}")
    if not entry.minimum <= value <= entry.maximum:
        raise ArgumentError(entry.name, f"must be {entry.minimum}..{entry.maximum}, not {value}")
    if entry.type == "varint":
        return encode_varint(value)
    return value.to_bytes(_WIDTHS[entry.type], "big")


def _encode_text(value: object, entry: PropertyDefinition) -> bytes:
    encoded = encode_string(value, entry.name)
    if entry.name == "response_topic" and (b"#" in encoded[2:] or b"+" in encoded[2:]):
        raise ArgumentError(entry.name, "has a wildcard; '#' and '+' belong in topic filters")
    return encoded


def _encode_pair(value: object, entry: PropertyDefinition) -> bytes:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ArgumentTypeError(entry.name, f"must be a list of (name, value) pairs; found {value!r}")
    return encode_string(value[0], entry.name) + encode_string(value[1], entry.name)


def _encode_data(value: object, entry: PropertyDefinition) -> bytes:
    return encode_binary(value, entry.name)


_WIDTHS = {"byte": 1, "uint16": 2, "uint32": 4}

_WRITERS: Mapping[str, Callable[[object, PropertyDefinition], bytes]] = {
    "byte": _encode_number,
    "uint16": _encode_number,
    "uint32": _encode_number,
    "varint": _encode_number,
    "utf8": _encode_text,
    "utf8-pair": _encode_pair,
    "binary": _encode_data,
}


def encode_properties(properties: Mapping[str, Any], packet: str) -> bytes:
    """Write a property block with its length in front.

    ``packet`` is the packet's name in lower case, or ``"will"``. ``user_property`` is a list of pairs;
    ``subscription_identifier`` in PUBLISH an int or a list.

    Raises: ArgumentError, with the property as ``argument``: unknown, not allowed in this packet, out of
    range, or too long. ArgumentTypeError: a value of the wrong type. Source: MQTT 5.0 §2.2.2.
    """
    if not properties:
        return b"\0"
    parts = []
    for name, value in properties.items():
        entry = PROPERTY_BY_NAME.get(name)
        if entry is None:
            hint = load(_DID_YOU_MEAN)(str(name), PROPERTY_BY_NAME)
            raise ArgumentError(str(name), f"is not an MQTT 5.0 property{hint}")
        if packet not in entry.packets:
            raise ArgumentError(name, f"is not allowed in the properties of {packet}")
        write = _WRITERS[entry.type]
        for item in _items(entry, value, packet):
            parts.append(bytes((entry.identifier,)))
            parts.append(write(item, entry))
    if "authentication_data" in properties and "authentication_method" not in properties:
        raise ArgumentError("authentication_data", "needs an authentication_method")
    block = b"".join(parts)
    if len(block) > MAX_VARINT:
        raise ArgumentError("properties", f"are {len(block):,} bytes long; the limit is {MAX_VARINT:,}")
    return encode_varint(len(block)) + block


def _items(entry: PropertyDefinition, value: Any, packet: str) -> list[Any] | tuple[Any, ...]:
    """Return the values of one property, one for each time it is written."""
    if packet in entry.repeatable and isinstance(value, (list, tuple)):
        return value
    if entry.type == "utf8-pair":
        raise ArgumentTypeError(entry.name, f"must be a list of pairs, not {type(value).__name__}")
    return (value,)
