"""Bytes to control packets, for MQTT 3.1, 3.1.1 and 5.0.

The input is hostile until it is decoded: every length is checked against the bytes that are there, and any
fault raises :class:`MalformedPacketError` or :class:`RemoteProtocolError`, never anything else. There is one
decoder per packet, found by the high four bits of the first byte.
"""

from __future__ import annotations

from device_sdk.errors import ArgumentError, ArgumentTypeError, MalformedPacketError, RemoteProtocolError
from device_sdk.mqtt.codes import (
    FIXED_FLAGS,
    PACKET_TYPES,
    RECEIVED_REASON_CODES,
    RETURN_CODES,
    SUBACK_CODES_V3,
    VERSIONS,
    ReasonCode,
)
from device_sdk.mqtt.message import Subscription, Will
from device_sdk.mqtt.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from device_sdk.mqtt.topics import filter_problem, topic_problem
from device_sdk.mqtt.wire import (
    decode_properties,
    read_binary,
    read_byte,
    read_length,
    read_string,
    read_uint16,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from device_sdk.mqtt.packets import Packet

__all__ = ["DECODERS", "decode_body", "decode_packet", "read_acknowledgement", "read_topic_name"]

_V5 = "5.0"


def decode_packet(data: bytes | bytearray | memoryview, version: str) -> tuple[Packet, int] | None:
    """Read the control packet at the start of ``data``.

    ``data`` is bytes-like and may hold less than a packet or more than one; ``version`` is ``"3.1"``,
    ``"3.1.1"`` or ``"5.0"``.

    Returns: the packet and the number of bytes it took, or ``None`` while it is incomplete.
    Raises: MalformedPacketError or RemoteProtocolError, both with ``reason_code``, for any input that is not
    the beginning of a packet, as early as the bytes show it. ArgumentError: an unknown version.
    """
    if version not in VERSIONS:
        raise ArgumentError("version", f"must be one of {', '.join(VERSIONS)}, not {version!r}")
    try:
        view = memoryview(data).cast("B")
    except TypeError:
        raise ArgumentTypeError("data", f"must be bytes-like, not {type(data).__name__}") from None
    if not view:
        return None
    first_byte = view[0]
    if first_byte not in _FIRST_BYTES[version]:
        raise _wrong_first_byte(first_byte, version)
    header = read_length(view, 1, len(view))
    if header is None:
        return None
    length, start = header
    _check_length(first_byte >> 4, length, version)
    end = start + length
    if end > len(view):
        return None
    # Only this packet is copied: the rest of the buffer may be long.
    return decode_body(first_byte, bytes(view[start:end]), 0, length, version), end


def decode_body(first_byte: int, data: bytes, start: int, end: int, version: str) -> Packet:
    """Read a control packet whose fixed header is already taken off: its body is ``data[start:end]``.

    The caller has checked that the body has arrived and that ``version`` is known.
    Raises: MalformedPacketError or RemoteProtocolError, nothing else.
    """
    if first_byte not in _FIRST_BYTES[version]:
        raise _wrong_first_byte(first_byte, version)
    return DECODERS[first_byte >> 4](first_byte, data, start, end, version)


def read_acknowledgement(
    first_byte: int, data: bytes, start: int, end: int, version: str
) -> tuple[int, int, dict[str, Any]]:
    """Return packet identifier, reason code and properties of PUBACK, PUBREC, PUBREL or PUBCOMP.

    Raises: as :func:`decode_body`.
    """
    packet: Any = decode_body(first_byte, data, start, end, version)
    return packet.packet_id, packet.reason_code, packet.properties


# The fixed header


def _valid_first_bytes(version: str) -> frozenset[int]:
    valid = set(range(0x30, 0x40)) - {0x36, 0x37, 0x3E, 0x3F}
    for number, name in enumerate(PACKET_TYPES):
        if name in FIXED_FLAGS and (name != "auth" or version == _V5):
            valid.add(number << 4 | FIXED_FLAGS[name])
    if version == "3.1":
        # PUBREL, SUBSCRIBE and UNSUBSCRIBE sent again have DUP set. Source: MQTT 3.1 §2.1.
        return frozenset(valid | {0x6A, 0x8A, 0xAA})
    # DUP at QoS 0. Source: MQTT 5.0 §3.3.1.1 [MQTT-3.3.1-2].
    return frozenset(valid - {0x38, 0x39})


_FIRST_BYTES = {version: _valid_first_bytes(version) for version in VERSIONS}


def _wrong_first_byte(first_byte: int, version: str) -> MalformedPacketError:
    name = PACKET_TYPES[first_byte >> 4].upper()
    return MalformedPacketError(f"first byte 0x{first_byte:02x}: not a valid {name} in MQTT {version}")


#: Remaining length of the packets where it is fixed, by packet type number.
_LENGTHS_V5: Mapping[int, int] = {12: 0, 13: 0}
_LENGTHS_V3: Mapping[int, int] = {2: 2, 4: 2, 5: 2, 6: 2, 7: 2, 11: 2, 12: 0, 13: 0, 14: 0}


def _check_length(number: int, length: int, version: str) -> None:
    """Check the remaining length where the version fixes it."""
    fixed = (_LENGTHS_V5 if version == _V5 else _LENGTHS_V3).get(number, length)
    if length != fixed:
        name = PACKET_TYPES[number].upper()
        raise MalformedPacketError(f"{name}: remaining length {length}, must be {fixed} in MQTT {version}")


# Fields


def _packet_id(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Source: MQTT 5.0 §2.2.1 [MQTT-2.2.1-3]."""
    packet_id, position = read_uint16(data, position, end)
    if not packet_id:
        raise RemoteProtocolError("packet identifier 0")
    return packet_id, position


def _properties(
    data: bytes, position: int, end: int, packet: str, version: str
) -> tuple[dict[str, Any] | None, int]:
    if version != _V5:
        return None, position
    return decode_properties(data, position, end, packet)


def read_topic_name(data: bytes, position: int, end: int, allow_empty: bool = False) -> tuple[str, int]:
    """Read a topic name; ``allow_empty`` where a topic alias may stand in for it.

    Raises: MalformedPacketError: cut off, or not a UTF-8 string. RemoteProtocolError: empty, or a wildcard.
    Source: MQTT 5.0 §3.3.2.1 [MQTT-3.3.2-2], §4.7.3 [MQTT-4.7.3-1].
    """
    topic, position = read_string(data, position, end)
    problem = topic_problem(topic)
    if problem is not None and (topic or not allow_empty):
        code = ReasonCode.TOPIC_NAME_INVALID if topic else ReasonCode.PROTOCOL_ERROR
        raise RemoteProtocolError(f"topic name {problem}", code)
    return topic, position


def _topic_filter(data: bytes, position: int, end: int) -> tuple[str, int]:
    topic_filter, position = read_string(data, position, end)
    problem = filter_problem(topic_filter)
    if problem is not None:
        raise RemoteProtocolError(f"topic filter {problem}", ReasonCode.TOPIC_FILTER_INVALID)
    return topic_filter, position


def _check_reason_code(code: int, packet: str) -> None:
    if code not in RECEIVED_REASON_CODES[packet]:
        raise RemoteProtocolError(f"{packet.upper()}: reason code 0x{code:02x} is not allowed")


def _check_end(position: int, end: int, packet: str) -> None:
    if position != end:
        raise MalformedPacketError(f"{packet.upper()}: {end - position} bytes too many")


def _nothing_in(packet: str, version: str) -> RemoteProtocolError:
    """Return the error for a packet without its payload, which MQTT 5.0 calls a protocol error."""
    error = RemoteProtocolError if version == _V5 else MalformedPacketError
    return error(f"{packet.upper()}: has no payload")


# Packets


def _decode_connect(first_byte: int, data: bytes, start: int, end: int, version: str) -> Connect:
    name, position = read_string(data, start, end)
    level, position = read_byte(data, position, end)
    if (name, level) != VERSIONS[version]:
        raise RemoteProtocolError(
            f"CONNECT: protocol {name!r} level {level} is not MQTT {version}",
            ReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
        )
    flags, position = read_byte(data, position, end)
    if flags & 1:
        raise MalformedPacketError("CONNECT: the reserved flag is set")
    if flags & 0x18 == 0x18 or (flags & 0x38 and not flags & 4):
        raise MalformedPacketError(f"CONNECT: will flags 0x{flags:02x} are impossible")
    if flags & 0xC0 == 0x40 and version != _V5:
        raise MalformedPacketError("CONNECT: a password without a user name")
    keep_alive, position = read_uint16(data, position, end)
    properties, position = _properties(data, position, end, "connect", version)
    client_id, position = read_string(data, position, end)
    will = user_name = password = None
    if flags & 4:
        will, position = _will(flags, data, position, end, version)
    if flags & 0x80:
        user_name, position = read_string(data, position, end)
    if flags & 0x40:
        password, position = read_binary(data, position, end)
    _check_end(position, end, "connect")
    return Connect(
        client_id,
        clean_start=bool(flags & 2),
        keep_alive=keep_alive,
        user_name=user_name,
        password=password,
        will=will,
        properties=properties,
        protocol_name=name,
        protocol_level=level,
    )


def _will(flags: int, data: bytes, position: int, end: int, version: str) -> tuple[Will, int]:
    properties, position = _properties(data, position, end, "will", version)
    topic, position = read_topic_name(data, position, end)
    payload, position = read_binary(data, position, end)
    will = Will(topic, payload, qos=flags >> 3 & 3, retain=bool(flags & 0x20), properties=properties)
    return will, position


def _decode_connack(first_byte: int, data: bytes, start: int, end: int, version: str) -> Connack:
    flags, position = read_byte(data, start, end)
    code, position = read_byte(data, position, end)
    if version == "3.1":
        # The byte is reserved and there is no session present flag. Source: MQTT 3.1 §3.2.
        flags = 0
    if flags > 1:
        raise MalformedPacketError(f"CONNACK: reserved flags are set (0x{flags:02x})")
    if version == _V5:
        _check_reason_code(code, "connack")
    elif code not in RETURN_CODES:
        raise RemoteProtocolError(f"CONNACK: return code {code} is not defined in MQTT {version}")
    if flags and code:
        raise RemoteProtocolError(f"CONNACK: session present together with code 0x{code:02x}")
    properties, position = _properties(data, position, end, "connack", version)
    _check_end(position, end, "connack")
    return Connack(bool(flags), code, properties)


def _decode_publish(first_byte: int, data: bytes, start: int, end: int, version: str) -> Publish:
    topic, position = read_topic_name(data, start, end, allow_empty=version == _V5)
    qos = first_byte >> 1 & 3
    packet_id = properties = None
    if qos:
        packet_id, position = _packet_id(data, position, end)
    if version == _V5:
        properties, position = decode_properties(data, position, end, "publish")
    if not topic and not (properties and "topic_alias" in properties):
        raise RemoteProtocolError("PUBLISH: an empty topic name without a topic alias")
    return Publish(
        topic,
        data[position:end],
        qos=qos,
        retain=first_byte & 1 == 1,
        dup=first_byte & 8 == 8,
        packet_id=packet_id,
        properties=properties,
    )


_ACKNOWLEDGEMENTS: Mapping[int, type[Puback | Pubrec | Pubrel | Pubcomp]] = {
    4: Puback,
    5: Pubrec,
    6: Pubrel,
    7: Pubcomp,
}


def _decode_acknowledgement(
    first_byte: int, data: bytes, start: int, end: int, version: str
) -> Puback | Pubrec | Pubrel | Pubcomp:
    packet = _ACKNOWLEDGEMENTS[first_byte >> 4]
    packet_id, position = _packet_id(data, start, end)
    if position == end:
        return packet(packet_id)
    if version != _V5:
        _check_end(position, end, packet.type)
    code, properties = _reason_and_properties(data, position, end, packet.type)
    return packet(packet_id, code, properties)


def _reason_and_properties(
    data: bytes, position: int, end: int, packet: str
) -> tuple[int, dict[str, Any] | None]:
    """Read a reason code and, unless the packet ends there, properties. Source: MQTT 5.0 §3.4.2.1."""
    code = data[position]
    _check_reason_code(code, packet)
    if position + 1 == end:
        return code, None
    properties, position = decode_properties(data, position + 1, end, packet)
    _check_end(position, end, packet)
    return code, properties


def _decode_subscribe(first_byte: int, data: bytes, start: int, end: int, version: str) -> Subscribe:
    packet_id, position = _packet_id(data, start, end)
    properties, position = _properties(data, position, end, "subscribe", version)
    subscriptions = []
    while position < end:
        topic, position = _topic_filter(data, position, end)
        options, position = read_byte(data, position, end)
        subscriptions.append(_subscription(topic, options, version))
    if not subscriptions:
        raise _nothing_in("subscribe", version)
    return Subscribe(packet_id, subscriptions, properties)


def _subscription(topic: str, options: int, version: str) -> Subscription:
    """Source: MQTT 5.0 §3.8.3.1 [MQTT-3.8.3-4] [MQTT-3.8.3-5]."""
    if options & 3 == 3 or options & (0xC0 if version == _V5 else 0xFC):
        raise MalformedPacketError(f"SUBSCRIBE: subscription options 0x{options:02x} are impossible")
    if options & 0x30 == 0x30:
        raise RemoteProtocolError("SUBSCRIBE: retain handling 3")
    if options & 4 and topic.startswith("$share/"):
        raise RemoteProtocolError("SUBSCRIBE: no local on a shared subscription")
    return Subscription(
        topic,
        options & 3,
        no_local=bool(options & 4),
        retain_as_published=bool(options & 8),
        retain_handling=options >> 4,
    )


def _decode_suback(first_byte: int, data: bytes, start: int, end: int, version: str) -> Suback:
    packet_id, position = _packet_id(data, start, end)
    properties, position = _properties(data, position, end, "suback", version)
    codes = list(data[position:end])
    if not codes:
        raise _nothing_in("suback", version)
    for code in codes:
        if version == _V5:
            _check_reason_code(code, "suback")
        elif code not in SUBACK_CODES_V3[version]:
            raise MalformedPacketError(f"SUBACK: return code 0x{code:02x} is not defined in MQTT {version}")
    return Suback(packet_id, codes, properties)


def _decode_unsubscribe(first_byte: int, data: bytes, start: int, end: int, version: str) -> Unsubscribe:
    packet_id, position = _packet_id(data, start, end)
    properties, position = _properties(data, position, end, "unsubscribe", version)
    filters = []
    while position < end:
        topic, position = _topic_filter(data, position, end)
        filters.append(topic)
    if not filters:
        raise _nothing_in("unsubscribe", version)
    return Unsubscribe(packet_id, filters, properties)


def _decode_unsuback(first_byte: int, data: bytes, start: int, end: int, version: str) -> Unsuback:
    packet_id, position = _packet_id(data, start, end)
    if version != _V5:
        _check_end(position, end, "unsuback")
        return Unsuback(packet_id)
    properties, position = decode_properties(data, position, end, "unsuback")
    codes = list(data[position:end])
    if not codes:
        raise _nothing_in("unsuback", version)
    for code in codes:
        _check_reason_code(code, "unsuback")
    return Unsuback(packet_id, codes, properties)


def _decode_pingreq(first_byte: int, data: bytes, start: int, end: int, version: str) -> Pingreq:
    _check_end(start, end, "pingreq")
    return Pingreq()


def _decode_pingresp(first_byte: int, data: bytes, start: int, end: int, version: str) -> Pingresp:
    _check_end(start, end, "pingresp")
    return Pingresp()


def _decode_disconnect(first_byte: int, data: bytes, start: int, end: int, version: str) -> Disconnect:
    if start == end:
        return Disconnect()
    if version != _V5:
        _check_end(start, end, "disconnect")
    return Disconnect(*_reason_and_properties(data, start, end, "disconnect"))


def _decode_auth(first_byte: int, data: bytes, start: int, end: int, version: str) -> Auth:
    if start == end:
        return Auth()
    code, properties = _reason_and_properties(data, start, end, "auth")
    if code and not (properties and "authentication_method" in properties):
        # Source: MQTT 5.0 §3.15.2.2.2.
        raise RemoteProtocolError("AUTH: authentication_method is missing")
    return Auth(code, properties)


def _decode_reserved(first_byte: int, data: bytes, start: int, end: int, version: str) -> Packet:
    raise _wrong_first_byte(first_byte, version)


#: Decoders by packet type number: ``decoder(first_byte, data, start, end, version)``. The flags in the first
#: byte have been checked before.
DECODERS: tuple[Callable[[int, bytes, int, int, str], Packet], ...] = (
    _decode_reserved,
    _decode_connect,
    _decode_connack,
    _decode_publish,
    _decode_acknowledgement,
    _decode_acknowledgement,
    _decode_acknowledgement,
    _decode_acknowledgement,
    _decode_subscribe,
    _decode_suback,
    _decode_unsubscribe,
    _decode_unsuback,
    _decode_pingreq,
    _decode_pingresp,
    _decode_disconnect,
    _decode_auth,
)
