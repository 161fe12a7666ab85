"""Control packets to bytes, for MQTT 3.1, 3.1.1 and 5.0.

:func:`encode_packet` refuses any packet that a peer could not read back unchanged, so that a mistake shows
where it was made and not as a closed network connection. One encoder per packet, found by its name;
each returns the first byte and the parts that follow the fixed header.
"""

from __future__ import annotations

from device_sdk.errors import ArgumentError, ArgumentTypeError
from device_sdk.mqtt.codes import (
    FIXED_FLAGS,
    PACKET_TYPES,
    REASON_CODES,
    RETURN_CODES,
    SUBACK_CODES_V3,
    VERSIONS,
    reason_name,
)
from device_sdk.mqtt.message import payload_bytes
from device_sdk.mqtt.topics import validate_filter, validate_topic
from device_sdk.mqtt.wire import MAX_VARINT, encode_binary, encode_properties, encode_string, encode_varint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from device_sdk.mqtt.message import Subscription, Will
    from device_sdk.mqtt.packets import (
        Auth,
        Connack,
        Connect,
        Disconnect,
        Packet,
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

__all__ = ["encode_packet"]

_V5 = "5.0"

_FIRST_BYTES = {name: PACKET_TYPES.index(name) << 4 | flags for name, flags in FIXED_FLAGS.items()}


def encode_packet(packet: Packet, version: str) -> bytes:
    """Write one control packet as MQTT ``version`` (``"3.1"``, ``"3.1.1"`` or ``"5.0"``).

    CONNECT carries the protocol name and level of ``version``, whatever its own fields say. In MQTT 5.0 a
    reason code of 0 without properties takes the shortest form the standard allows.

    Raises: ArgumentError: this version cannot express a field; ``argument`` is the field.
    ArgumentTypeError: a field has the wrong type, or ``packet`` is not a packet.
    """
    if version not in VERSIONS:
        raise ArgumentError("version", f"must be one of {', '.join(VERSIONS)}, not {version!r}")
    encoder = _ENCODERS.get(getattr(packet, "type", ""))
    if encoder is None:
        raise ArgumentTypeError("packet", f"must be a control packet, not {type(packet).__name__}")
    first_byte, parts = encoder(packet, version)
    length = sum(map(len, parts))
    if length > MAX_VARINT:
        raise ArgumentError("packet", f"has {length:,} bytes after its header; the limit is {MAX_VARINT:,}")
    return b"".join((bytes((first_byte,)), encode_varint(length), *parts))


# Fields


def _uint16(value: object, argument: str, minimum: int = 0) -> bytes:
    if not isinstance(value, int):
        raise ArgumentTypeError(argument, f"must be an int, not {type(value).__name__}")
    if not minimum <= value <= 0xFFFF:
        raise ArgumentError(argument, f"must be {minimum}..65535, not {value}")
    return value.to_bytes(2, "big")


def _packet_id(packet: Any) -> bytes:
    """Source: MQTT 5.0 §2.2.1 [MQTT-2.2.1-3]: a packet identifier is never 0."""
    return _uint16(packet.packet_id, "packet_id", 1)


def _qos(value: object, argument: str = "qos") -> int:
    if not isinstance(value, int):
        raise ArgumentTypeError(argument, f"must be an int, not {type(value).__name__}")
    if not 0 <= value <= 2:
        raise ArgumentError(argument, f"must be 0, 1 or 2, not {value}")
    return value


def _with_length(raw: bytes) -> bytes:
    return len(raw).to_bytes(2, "big") + raw


def _properties(properties: Mapping[str, Any], packet: str, version: str) -> bytes:
    """Return the property block: empty in MQTT 3.x, which has none."""
    if version == _V5:
        return encode_properties(properties, packet)
    if properties:
        raise ArgumentError("properties", f"need MQTT 5.0; the version is {version}")
    return b""


def _reason_code(code: object, packet: str, argument: str = "reason_code") -> bytes:
    if not isinstance(code, int):
        raise ArgumentTypeError(argument, f"must be an int, not {type(code).__name__}")
    if code not in REASON_CODES[packet]:
        problem = f"0x{code:02x} ({reason_name(code)}) is not allowed in {packet.upper()}"
        raise ArgumentError(argument, problem)
    return bytes((code,))


# Packets


def _connect(packet: Connect, version: str) -> tuple[int, list[bytes]]:
    name, level = VERSIONS[version]
    v5 = version == _V5
    if not packet.client_id and (version == "3.1" or not (v5 or packet.clean_start)):
        raise ArgumentError("client_id", f"must not be empty in MQTT {version} without a clean start")
    if packet.password is not None and packet.user_name is None and not v5:
        raise ArgumentError("password", f"needs a user_name in MQTT {version}")
    flags = 2 if packet.clean_start else 0
    payload = [encode_string(packet.client_id, "client_id")]
    if packet.will is not None:
        will_flags, will_parts = _will(packet.will, version)
        flags |= will_flags
        payload += will_parts
    if packet.user_name is not None:
        flags |= 0x80
        payload.append(encode_string(packet.user_name, "user_name"))
    if packet.password is not None:
        flags |= 0x40
        payload.append(encode_binary(packet.password, "password"))
    return _FIRST_BYTES["connect"], [
        encode_string(name, "protocol_name"),
        bytes((level, flags)),
        _uint16(packet.keep_alive, "keep_alive"),
        _properties(packet.properties, "connect", version),
        *payload,
    ]


def _will(will: Will, version: str) -> tuple[int, list[bytes]]:
    flags = 4 | _qos(will.qos, "will.qos") << 3 | (0x20 if will.retain else 0)
    return flags, [
        _properties(will.properties, "will", version),
        _with_length(validate_topic(will.topic, "will.topic")),
        encode_binary(will.payload, "will.payload"),
    ]


def _connack(packet: Connack, version: str) -> tuple[int, list[bytes]]:
    code = packet.reason_code
    if version == _V5:
        reason = _reason_code(code, "connack")
    elif code in RETURN_CODES:
        reason = bytes((code,))
    else:
        raise ArgumentError("reason_code", f"must be 0..5 in MQTT {version}, not {code}")
    if packet.session_present and (code or version == "3.1"):
        raise ArgumentError("session_present", f"must be False with reason code {code} in MQTT {version}")
    properties = _properties(packet.properties, "connack", version)
    return _FIRST_BYTES["connack"], [b"\1" if packet.session_present else b"\0", reason, properties]


def _publish(packet: Publish, version: str) -> tuple[int, list[bytes]]:
    qos = _qos(packet.qos)
    first_byte = 0x30 | qos << 1 | (1 if packet.retain else 0)
    properties = _properties(packet.properties, "publish", version)
    if packet.topic or "topic_alias" not in packet.properties:
        topic = validate_topic(packet.topic)
    else:
        topic = b""
    parts = [_with_length(topic), properties, payload_bytes(packet.payload)]
    if qos:
        parts.insert(1, _packet_id(packet))
    elif packet.packet_id is not None:
        raise ArgumentError("packet_id", "must be None at QoS 0")
    if packet.dup:
        if not qos:
            raise ArgumentError("dup", "must be False at QoS 0")
        first_byte |= 8
    return first_byte, parts


def _acknowledgement(packet: Puback | Pubrec | Pubrel | Pubcomp, version: str) -> tuple[int, list[bytes]]:
    first_byte = _FIRST_BYTES[packet.type]
    packet_id = _packet_id(packet)
    return first_byte, [packet_id, *_reason_and_properties(packet, version)]


def _reason(packet: Disconnect | Auth, version: str) -> tuple[int, list[bytes]]:
    if packet.type == "auth":
        if version != _V5:
            raise ArgumentError("packet", f"AUTH needs MQTT 5.0; the version is {version}")
        if packet.reason_code and "authentication_method" not in packet.properties:
            # Source: MQTT 5.0 §3.15.2.2.2.
            raise ArgumentError("authentication_method", "must be among the properties of AUTH")
    return _FIRST_BYTES[packet.type], _reason_and_properties(packet, version)


def _reason_and_properties(packet: Any, version: str) -> list[bytes]:
    """Return reason code and properties, without those that a reader infers from the remaining length.

    Source: MQTT 5.0 §3.4.2.1, §3.14.2.1, §3.15.2.1.
    """
    if version != _V5:
        _properties(packet.properties, packet.type, version)
        if packet.reason_code:
            raise ArgumentError("reason_code", f"must be 0 in MQTT {version}, not {packet.reason_code}")
        return []
    reason = _reason_code(packet.reason_code, packet.type)
    if packet.properties:
        return [reason, encode_properties(packet.properties, packet.type)]
    return [reason] if packet.reason_code else []


def _subscribe(packet: Subscribe, version: str) -> tuple[int, list[bytes]]:
    if not packet.subscriptions:
        raise ArgumentError("subscriptions", "must hold at least one subscription")
    parts = [_packet_id(packet), _properties(packet.properties, "subscribe", version)]
    for subscription in packet.subscriptions:
        parts.append(_with_length(validate_filter(subscription.topic)))
        parts.append(bytes((_subscription_options(subscription, version),)))
    return _FIRST_BYTES["subscribe"], parts


def _subscription_options(subscription: Subscription, version: str) -> int:
    """Source: MQTT 5.0 §3.8.3.1 [MQTT-3.8.3-4]."""
    handling = subscription.retain_handling
    if handling not in (0, 1, 2):
        raise ArgumentError("retain_handling", f"must be 0, 1 or 2, not {handling!r}")
    if subscription.no_local and subscription.topic.startswith("$share/"):
        raise ArgumentError("no_local", "must be False for a shared subscription")
    options = 4 if subscription.no_local else 0
    options |= 8 if subscription.retain_as_published else 0
    options |= handling << 4
    if options and version != _V5:
        raise ArgumentError("subscriptions", f"have options that need MQTT 5.0; the version is {version}")
    return options | _qos(subscription.qos)


def _suback(packet: Suback, version: str) -> tuple[int, list[bytes]]:
    if not packet.reason_codes:
        raise ArgumentError("reason_codes", "must hold one reason code per subscription")
    if version == _V5:
        codes = b"".join(_reason_code(code, "suback", "reason_codes") for code in packet.reason_codes)
    elif SUBACK_CODES_V3[version].issuperset(packet.reason_codes):
        codes = bytes(packet.reason_codes)
    else:
        allowed = ", ".join(map(str, sorted(SUBACK_CODES_V3[version])))
        raise ArgumentError("reason_codes", f"must be among {allowed} in MQTT {version}")
    properties = _properties(packet.properties, "suback", version)
    return _FIRST_BYTES["suback"], [_packet_id(packet), properties, codes]


def _unsubscribe(packet: Unsubscribe, version: str) -> tuple[int, list[bytes]]:
    if not packet.unsubscriptions:
        raise ArgumentError("unsubscriptions", "must hold at least one topic filter")
    parts = [_packet_id(packet), _properties(packet.properties, "unsubscribe", version)]
    parts += [_with_length(validate_filter(topic, "unsubscriptions")) for topic in packet.unsubscriptions]
    return _FIRST_BYTES["unsubscribe"], parts


def _unsuback(packet: Unsuback, version: str) -> tuple[int, list[bytes]]:
    if version == _V5 and not packet.reason_codes:
        raise ArgumentError("reason_codes", "must hold one reason code per topic filter")
    if version != _V5 and packet.reason_codes:
        raise ArgumentError("reason_codes", f"need MQTT 5.0; the version is {version}")
    codes = b"".join(_reason_code(code, "unsuback", "reason_codes") for code in packet.reason_codes)
    properties = _properties(packet.properties, "unsuback", version)
    return _FIRST_BYTES["unsuback"], [_packet_id(packet), properties, codes]


def _ping(packet: Packet, version: str) -> tuple[int, list[bytes]]:
    return _FIRST_BYTES[packet.type], []


_ENCODERS: Mapping[str, Callable[[Any, str], tuple[int, list[bytes]]]] = {
    "connect": _connect,
    "connack": _connack,
    "publish": _publish,
    "puback": _acknowledgement,
    "pubrec": _acknowledgement,
    "pubrel": _acknowledgement,
    "pubcomp": _acknowledgement,
    "subscribe": _subscribe,
    "suback": _suback,
    "unsubscribe": _unsubscribe,
    "unsuback": _unsuback,
    "pingreq": _ping,
    "pingresp": _ping,
    "disconnect": _reason,
    "auth": _reason,
}
