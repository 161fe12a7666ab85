"""Codes in words, and from one numbering into another: functions of paho-mqtt's client module."""

from __future__ import annotations

import logging
import os
import string
from collections import namedtuple

from device_sdk.mqtt.topics import topic_matches
from device_sdk.paho.enums import LogLevel, MQTTErrorCode
from device_sdk.paho.packettypes import PacketTypes
from device_sdk.paho.reasoncodes import ReasonCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.paho.enums import ConnackCode

__all__ = [
    "LOGGING_LEVEL",
    "RETURN_CODE_REASONS",
    "ConnectFlags",
    "DisconnectFlags",
    "WebsocketConnectionError",
    "connack_string",
    "convert_connack_rc_to_reason_code",
    "convert_disconnect_error_code_to_reason_code",
    "error_string",
    "made_up_client_id",
    "topic_matches_sub",
]

#: Level of the standard library for each of paho-mqtt's.
LOGGING_LEVEL = {
    LogLevel.MQTT_LOG_DEBUG: logging.DEBUG,
    LogLevel.MQTT_LOG_INFO: logging.INFO,
    LogLevel.MQTT_LOG_NOTICE: logging.INFO,
    LogLevel.MQTT_LOG_WARNING: logging.WARNING,
    LogLevel.MQTT_LOG_ERR: logging.ERROR,
}

ConnectFlags = namedtuple("ConnectFlags", "session_present")
ConnectFlags.__doc__ = "Argument of ``on_connect`` of version 2: whether the broker still has the session."

DisconnectFlags = namedtuple("DisconnectFlags", "is_disconnect_packet_from_server")
DisconnectFlags.__doc__ = "Argument of ``on_disconnect`` of version 2: whether the broker sent DISCONNECT."


class WebsocketConnectionError(ConnectionError):
    """The WebSocket handshake failed."""


_ERRORS = {
    0: "No error.",
    1: "Out of memory.",
    2: "A network protocol error occurred when communicating with the broker.",
    3: "Invalid function arguments provided.",
    4: "The client is not currently connected.",
    5: "The connection was refused.",
    6: "Message not found (internal error).",
    7: "The connection was lost.",
    8: "A TLS error occurred.",
    9: "Payload too large.",
    10: "This feature is not supported.",
    11: "Authorisation failed.",
    12: "Access denied by ACL.",
    13: "Unknown error.",
    14: "Error defined by errno.",
    15: "Message queue full.",
    16: "Client or broker did not communicate in the keepalive interval.",
}

_CONNACK = {
    0: "Connection Accepted.",
    1: "Connection Refused: unacceptable protocol version.",
    2: "Connection Refused: identifier rejected.",
    3: "Connection Refused: broker unavailable.",
    4: "Connection Refused: bad user name or password.",
    5: "Connection Refused: not authorised.",
}

#: Return code of a CONNACK of MQTT 3.x -> reason code of MQTT 5.0 with the same meaning.
RETURN_CODE_REASONS = {0: 0, 1: 132, 2: 133, 3: 136, 4: 134, 5: 135}

_DISCONNECT_REASONS = {
    MQTTErrorCode.MQTT_ERR_SUCCESS: 0,
    MQTTErrorCode.MQTT_ERR_KEEPALIVE: 141,
    MQTTErrorCode.MQTT_ERR_PROTOCOL: 130,
}
_UNSPECIFIED_ERROR = 128

_BASE62 = string.digits + string.ascii_letters


def error_string(mqtt_errno: MQTTErrorCode | int) -> str:
    """Return the words for a result of a call of the client."""
    return _ERRORS.get(mqtt_errno, "Unknown error.")


def connack_string(connack_code: int | ReasonCode) -> str:
    """Return the words for the code of a CONNACK."""
    if isinstance(connack_code, ReasonCode):
        return str(connack_code)
    return _CONNACK.get(connack_code, "Connection Refused: unknown reason.")


def convert_connack_rc_to_reason_code(connack_code: ConnackCode | int) -> ReasonCode:
    """Return the reason code with the meaning of a return code of MQTT 3.x.

    Compare them by name: return code 1 is reason code 132.
    """
    return ReasonCode(
        PacketTypes.CONNACK, identifier=RETURN_CODE_REASONS.get(connack_code, _UNSPECIFIED_ERROR)
    )


def convert_disconnect_error_code_to_reason_code(rc: MQTTErrorCode) -> ReasonCode:
    """Return the reason code of DISCONNECT for the end of a connection."""
    return ReasonCode(PacketTypes.DISCONNECT, identifier=_DISCONNECT_REASONS.get(rc, _UNSPECIFIED_ERROR))


def topic_matches_sub(sub: str, topic: str) -> bool:
    """Return whether a topic filter matches a topic name; ``$share/name/`` in front of it is ignored."""
    return topic_matches(sub, topic)


def made_up_client_id() -> str:
    """Return 22 random letters and digits."""
    return "".join(_BASE62[byte % len(_BASE62)] for byte in os.urandom(22))
