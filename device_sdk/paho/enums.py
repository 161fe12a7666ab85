"""The numbers of paho-mqtt's interface: return codes, versions, log levels, states.

Every member that paho-mqtt also offers as a constant of its client module is re-exported there.
"""

from __future__ import annotations

from enum import Enum, IntEnum

__all__ = [
    "CallbackAPIVersion",
    "ConnackCode",
    "LogLevel",
    "MQTTErrorCode",
    "MQTTProtocolVersion",
    "MessageState",
    "MessageType",
    "PahoClientMode",
]


class MQTTErrorCode(IntEnum):
    """Result of a call of the client; ``error_string`` has the words."""

    MQTT_ERR_AGAIN = -1
    MQTT_ERR_SUCCESS = 0
    MQTT_ERR_NOMEM = 1
    MQTT_ERR_PROTOCOL = 2
    MQTT_ERR_INVAL = 3
    MQTT_ERR_NO_CONN = 4
    MQTT_ERR_CONN_REFUSED = 5
    MQTT_ERR_NOT_FOUND = 6
    MQTT_ERR_CONN_LOST = 7
    MQTT_ERR_TLS = 8
    MQTT_ERR_PAYLOAD_SIZE = 9
    MQTT_ERR_NOT_SUPPORTED = 10
    MQTT_ERR_AUTH = 11
    MQTT_ERR_ACL_DENIED = 12
    MQTT_ERR_UNKNOWN = 13
    MQTT_ERR_ERRNO = 14
    MQTT_ERR_QUEUE_SIZE = 15
    MQTT_ERR_KEEPALIVE = 16


class MQTTProtocolVersion(IntEnum):
    """The protocol level that CONNECT carries. Source: MQTT 3.1.1 §3.1.2.2, MQTT 5.0 §3.1.2.2."""

    MQTTv31 = 3
    MQTTv311 = 4
    MQTTv5 = 5


class CallbackAPIVersion(Enum):
    """Version of the callbacks' arguments; each ``on_...`` property of the client lists both."""

    #: As in paho-mqtt 1.x: MQTT 5.0 and 3.x differ, and 3.x gets plain integers. Deprecated.
    VERSION1 = 1
    #: The same arguments for every protocol version; results are ``ReasonCode`` and ``Properties``.
    VERSION2 = 2


class MessageType(IntEnum):
    """The first byte of a control packet, its flags 0. Source: MQTT 5.0 §2.1.2."""

    CONNECT = 0x10
    CONNACK = 0x20
    PUBLISH = 0x30
    PUBACK = 0x40
    PUBREC = 0x50
    PUBREL = 0x60
    PUBCOMP = 0x70
    SUBSCRIBE = 0x80
    SUBACK = 0x90
    UNSUBSCRIBE = 0xA0
    UNSUBACK = 0xB0
    PINGREQ = 0xC0
    PINGRESP = 0xD0
    DISCONNECT = 0xE0
    AUTH = 0xF0


class LogLevel(IntEnum):
    """The level that ``on_log`` gets."""

    MQTT_LOG_INFO = 1
    MQTT_LOG_NOTICE = 2
    MQTT_LOG_WARNING = 4
    MQTT_LOG_ERR = 8
    MQTT_LOG_DEBUG = 16


class ConnackCode(IntEnum):
    """The return codes of CONNACK before MQTT 5.0. Source: MQTT 3.1.1 §3.2.2.3."""

    CONNACK_ACCEPTED = 0
    CONNACK_REFUSED_PROTOCOL_VERSION = 1
    CONNACK_REFUSED_IDENTIFIER_REJECTED = 2
    CONNACK_REFUSED_SERVER_UNAVAILABLE = 3
    CONNACK_REFUSED_BAD_USERNAME_PASSWORD = 4
    CONNACK_REFUSED_NOT_AUTHORIZED = 5


class MessageState(IntEnum):
    """State of a message; ``MQTTMessage.state``."""

    MQTT_MS_INVALID = 0
    MQTT_MS_PUBLISH = 1
    MQTT_MS_WAIT_FOR_PUBACK = 2
    MQTT_MS_WAIT_FOR_PUBREC = 3
    MQTT_MS_RESEND_PUBREL = 4
    MQTT_MS_WAIT_FOR_PUBREL = 5
    MQTT_MS_RESEND_PUBCOMP = 6
    MQTT_MS_WAIT_FOR_PUBCOMP = 7
    MQTT_MS_SEND_PUBREC = 8
    MQTT_MS_QUEUED = 9


class PahoClientMode(IntEnum):
    """Whether the broker shall treat this client as a bridge (``enable_bridge_mode``)."""

    MQTT_CLIENT = 0
    MQTT_BRIDGE = 1
