"""The numbers of MQTT as tables: versions, packet types, reason codes, properties.

Everything here is data that the encoder and the decoder look things up in; nothing decides anything.
Source: MQTT 3.1.1 §2.2, §3.2.2.3, §3.9.3; MQTT 5.0 §2.1, §2.2.2.2, §2.4.
"""

from __future__ import annotations

from enum import IntEnum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "FIXED_FLAGS",
    "PACKET_TYPES",
    "PROPERTIES",
    "PROPERTY_BY_NAME",
    "REASON_CODES",
    "RECEIVED_REASON_CODES",
    "RETURN_CODES",
    "RETURN_CODE_MEANINGS",
    "SUBACK_CODES_V3",
    "VERSIONS",
    "PropertyDefinition",
    "ReasonCode",
    "reason_name",
]

#: Version string -> (protocol name, protocol level) as CONNECT writes them.
VERSIONS: Mapping[str, tuple[str, int]] = {"3.1": ("MQIsdp", 3), "3.1.1": ("MQTT", 4), "5.0": ("MQTT", 5)}

#: Packet names by their number in the high four bits of the first byte; number 0 is reserved.
PACKET_TYPES = (
    "reserved", "connect", "connack", "publish", "puback", "pubrec", "pubrel", "pubcomp", "subscribe",
    "suback", "unsubscribe", "unsuback", "pingreq", "pingresp", "disconnect", "auth",
)  # fmt: skip

#: The low four bits of the first byte, where the standard fixes them: all packets but PUBLISH.
FIXED_FLAGS: Mapping[str, int] = {
    name: 2 if name in ("pubrel", "subscribe", "unsubscribe") else 0
    for name in PACKET_TYPES[1:]
    if name != "publish"
}


class ReasonCode(IntEnum):
    """The reason codes of MQTT 5.0; 0x00 has three names. Source: MQTT 5.0 §2.4, table 2-6."""

    SUCCESS = 0x00
    NORMAL_DISCONNECTION = 0x00
    GRANTED_QOS_0 = 0x00
    GRANTED_QOS_1 = 0x01
    GRANTED_QOS_2 = 0x02
    DISCONNECT_WITH_WILL_MESSAGE = 0x04
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    CONTINUE_AUTHENTICATION = 0x18
    RE_AUTHENTICATE = 0x19
    UNSPECIFIED_ERROR = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83
    UNSUPPORTED_PROTOCOL_VERSION = 0x84
    CLIENT_IDENTIFIER_NOT_VALID = 0x85
    BAD_USER_NAME_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    BANNED = 0x8A
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    PACKET_IDENTIFIER_IN_USE = 0x91
    PACKET_IDENTIFIER_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    MESSAGE_RATE_TOO_HIGH = 0x96
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE_ACTION = 0x98
    PAYLOAD_FORMAT_INVALID = 0x99
    RETAIN_NOT_SUPPORTED = 0x9A
    QOS_NOT_SUPPORTED = 0x9B
    USE_ANOTHER_SERVER = 0x9C
    SERVER_MOVED = 0x9D
    SHARED_SUBSCRIPTION_NOT_SUPPORTED = 0x9E
    CONNECTION_RATE_EXCEEDED = 0x9F
    MAXIMUM_CONNECT_TIME = 0xA0
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1
    WILDCARD_SUBSCRIPTION_NOT_SUPPORTED = 0xA2


def _codes(hexadecimal: str) -> frozenset[int]:
    return frozenset(bytes.fromhex(hexadecimal))


_RECEIPT = _codes("00 10 80 83 87 90 91 97 99")
_RELEASE = _codes("00 92")

#: Packet name -> the reason codes that MQTT 5.0 allows in it; checked before sending.
REASON_CODES: Mapping[str, frozenset[int]] = {
    "connack": _codes("00 80 81 82 83 84 85 86 87 88 89 8a 8c 90 95 97 99 9a 9b 9c 9d 9f"),
    "puback": _RECEIPT,
    "pubrec": _RECEIPT,
    "pubrel": _RELEASE,
    "pubcomp": _RELEASE,
    "suback": _codes("00 01 02 80 83 87 8f 91 97 9e a1 a2"),
    "unsuback": _codes("00 11 80 83 87 8f 91"),
    "disconnect": _codes(
        "00 04 80 81 82 83 87 89 8b 8d 8e 8f 90 93 94 95 96 97 98 99 9a 9b 9c 9d 9e 9f a0 a1 a2"
    ),
    "auth": _codes("00 18 19"),
}

#: The same for received packets. Servers end a failed re-authentication with DISCONNECT 0x8C, which the text
#: of MQTT 5.0 §4.12 suggests and its table of §3.14.2.1 leaves out.
RECEIVED_REASON_CODES: Mapping[str, frozenset[int]] = {
    **REASON_CODES,
    "disconnect": REASON_CODES["disconnect"] | {ReasonCode.BAD_AUTHENTICATION_METHOD},
}

#: CONNACK return codes of MQTT 3.1 and 3.1.1. Source: MQTT 3.1.1 §3.2.2.3.
RETURN_CODES: Mapping[int, str] = {
    0: "accepted",
    1: "unacceptable protocol version",
    2: "identifier rejected",
    3: "server unavailable",
    4: "bad user name or password",
    5: "not authorized",
}

#: Return code of a refusal in MQTT 3.x -> reason code of MQTT 5.0 with that meaning. Source: MQTT 5.0 §2.4.
RETURN_CODE_MEANINGS: Mapping[int, int] = {
    1: ReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
    2: ReasonCode.CLIENT_IDENTIFIER_NOT_VALID,
    3: ReasonCode.SERVER_UNAVAILABLE,
    4: ReasonCode.BAD_USER_NAME_OR_PASSWORD,
    5: ReasonCode.NOT_AUTHORIZED,
}

#: Version -> SUBACK return codes. MQTT 3.1 has no way to refuse a subscription.
SUBACK_CODES_V3: Mapping[str, frozenset[int]] = {"3.1": _codes("00 01 02"), "3.1.1": _codes("00 01 02 80")}


def reason_name(code: int, version: str = "5.0") -> str:
    """Return the words for a reason code, for error texts: ``0x87`` is ``"not authorized"``.

    In MQTT 3.x the numbers 1 to 5 are CONNACK return codes; an unknown number is shown as it is.
    """
    if version != "5.0" and code in RETURN_CODES:
        return RETURN_CODES[code]
    try:
        name = ReasonCode(code).name
    except ValueError:
        return f"reason code 0x{code:02x}"
    return name.lower().replace("_", " ").replace("qos", "QoS")


class PropertyDefinition:
    """The definition of one MQTT 5.0 property.

    ``identifier`` the byte on the wire; ``name`` in snake_case; ``type`` one of byte, uint16, uint32, varint,
    utf8, utf8-pair, binary; ``packets`` the packet names that may carry it (``"will"``: the will properties
    inside CONNECT); ``repeatable`` the packet names in which it may appear more than once; ``minimum`` and
    ``maximum`` bound a number and are 0 for other types. Source: MQTT 5.0 §2.2.2.2, table 2-4.
    """

    __slots__ = ("identifier", "maximum", "minimum", "name", "packets", "repeatable", "type")

    def __init__(
        self, identifier: int, name: str, type: str, packets: str, minimum: int = 0, maximum: int = 0
    ) -> None:
        self.identifier = identifier
        self.name = name
        self.type = type
        self.packets = frozenset(packets.split())
        self.repeatable = self.packets & _REPEATABLE.get(name, frozenset())
        self.minimum = minimum
        self.maximum = maximum

    def __repr__(self) -> str:
        return f"PropertyDefinition(0x{self.identifier:02x}, {self.name!r})"


_ACKS = "puback pubrec pubrel pubcomp suback unsuback"
_EVERY = f"connect connack will publish {_ACKS} subscribe unsubscribe disconnect auth"
_REPEATABLE = {"user_property": frozenset(_EVERY.split()), "subscription_identifier": frozenset(["publish"])}
_UINT16 = 0xFFFF
_UINT32 = 0xFFFF_FFFF

_DEFINITIONS = (
    PropertyDefinition(0x01, "payload_format_indicator", "byte", "will publish", 0, 1),
    PropertyDefinition(0x02, "message_expiry_interval", "uint32", "will publish", 0, _UINT32),
    PropertyDefinition(0x03, "content_type", "utf8", "will publish"),
    PropertyDefinition(0x08, "response_topic", "utf8", "will publish"),
    PropertyDefinition(0x09, "correlation_data", "binary", "will publish"),
    PropertyDefinition(0x0B, "subscription_identifier", "varint", "publish subscribe", 1, 268_435_455),
    PropertyDefinition(0x11, "session_expiry_interval", "uint32", "connect connack disconnect", 0, _UINT32),
    PropertyDefinition(0x12, "assigned_client_identifier", "utf8", "connack"),
    PropertyDefinition(0x13, "server_keep_alive", "uint16", "connack", 0, _UINT16),
    PropertyDefinition(0x15, "authentication_method", "utf8", "connect connack auth"),
    PropertyDefinition(0x16, "authentication_data", "binary", "connect connack auth"),
    PropertyDefinition(0x17, "request_problem_information", "byte", "connect", 0, 1),
    PropertyDefinition(0x18, "will_delay_interval", "uint32", "will", 0, _UINT32),
    PropertyDefinition(0x19, "request_response_information", "byte", "connect", 0, 1),
    PropertyDefinition(0x1A, "response_information", "utf8", "connack"),
    PropertyDefinition(0x1C, "server_reference", "utf8", "connack disconnect"),
    PropertyDefinition(0x1F, "reason_string", "utf8", f"connack {_ACKS} disconnect auth"),
    PropertyDefinition(0x21, "receive_maximum", "uint16", "connect connack", 1, _UINT16),
    PropertyDefinition(0x22, "topic_alias_maximum", "uint16", "connect connack", 0, _UINT16),
    PropertyDefinition(0x23, "topic_alias", "uint16", "publish", 1, _UINT16),
    PropertyDefinition(0x24, "maximum_qos", "byte", "connack", 0, 1),
    PropertyDefinition(0x25, "retain_available", "byte", "connack", 0, 1),
    PropertyDefinition(0x26, "user_property", "utf8-pair", _EVERY),
    PropertyDefinition(0x27, "maximum_packet_size", "uint32", "connect connack", 1, _UINT32),
    PropertyDefinition(0x28, "wildcard_subscription_available", "byte", "connack", 0, 1),
    PropertyDefinition(0x29, "subscription_identifiers_available", "byte", "connack", 0, 1),
    PropertyDefinition(0x2A, "shared_subscription_available", "byte", "connack", 0, 1),
)

#: Property definitions by the identifier on the wire.
PROPERTIES: Mapping[int, PropertyDefinition] = {entry.identifier: entry for entry in _DEFINITIONS}

#: Property definitions by snake_case name.
PROPERTY_BY_NAME: Mapping[str, PropertyDefinition] = {entry.name: entry for entry in _DEFINITIONS}
