"""Refusals of the server as errors: the reason code in words, with the server's reason string."""

from __future__ import annotations

from device_sdk.errors import (
    ConnectRefused,
    MalformedPacketError,
    PublishRefused,
    RefusedError,
    SubscribeRefused,
)
from device_sdk.mqtt.codes import RETURN_CODE_MEANINGS, ReasonCode, reason_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = [
    "accepted_in_3",
    "connect_refused",
    "disconnected",
    "publish_refused",
    "subscribe_refused",
    "words",
]


# Reason code of a refusal -> what to do. Source: MQTT 5.0 §2.4; brokers send "not authorized" for a wrong
# password too, and where they want a user name at all.
_ADVICE: dict[int, str] = {
    ReasonCode.UNSUPPORTED_PROTOCOL_VERSION: "the broker does not speak MQTT {version}: give another "
    "version=",
    ReasonCode.CLIENT_IDENTIFIER_NOT_VALID: "give another client_id=, mostly of letters and digits",
    ReasonCode.BAD_USER_NAME_OR_PASSWORD: "look at user name and password",
    ReasonCode.NOT_AUTHORIZED: "look at user name and password, and at the broker's rules for this client",
    ReasonCode.BANNED: "the broker's log says why",
    ReasonCode.BAD_AUTHENTICATION_METHOD: "the broker does not know the method of auth=",
}
_ANONYMOUS = "no user name was sent: give user_name= and password=, or let the broker allow clients without"
_ANSWERS_IN_3 = "the broker answers in MQTT 3.1.1: give version='3.1.1'"
_NO_BRIDGE = "the broker does not know the mark of a bridge, which is not of the standard: leave out bridge="
_RULES = "look at the broker's rules (ACL) for this client and this topic"


def connect_refused(
    reason_code: int,
    properties: dict[str, Any],
    version: str,
    *,
    anonymous: bool = False,
    in_3: bool = False,
    bridge: bool = False,
) -> ConnectRefused:
    """CONNACK with a reason code other than success.

    ``anonymous``: CONNECT had no user name; ``in_3``: the server of MQTT 3.x answered CONNECT of 5.0;
    ``bridge``: CONNECT had the mark of a bridge.
    """
    meaning = reason_code if version == "5.0" else RETURN_CODE_MEANINGS.get(reason_code, reason_code)
    advice = _ADVICE.get(meaning, "").format(version=version)
    if anonymous and meaning in (ReasonCode.BAD_USER_NAME_OR_PASSWORD, ReasonCode.NOT_AUTHORIZED):
        advice = _ANONYMOUS
    if bridge and meaning == ReasonCode.UNSUPPORTED_PROTOCOL_VERSION:
        advice = _NO_BRIDGE
    elif in_3 and meaning == ReasonCode.UNSUPPORTED_PROTOCOL_VERSION:
        advice = _ANSWERS_IN_3
    elif in_3:
        advice = f"{advice}; {_ANSWERS_IN_3}" if advice else _ANSWERS_IN_3
    return ConnectRefused(
        *_said("the server refused the connection", reason_code, properties, version), advice=advice
    )


def publish_refused(reason_code: int, properties: dict[str, Any], version: str) -> PublishRefused:
    """PUBACK or PUBREC with a reason code of 0x80 and above."""
    advice = _RULES if reason_code == ReasonCode.NOT_AUTHORIZED else ""
    return PublishRefused(
        *_said("the server refused the message", reason_code, properties, version), advice=advice
    )


def accepted_in_3() -> MalformedPacketError:
    """A CONNACK of MQTT 3.x that accepts a CONNECT of MQTT 5.0: each side would misread the other."""
    error = MalformedPacketError(f"CONNACK without properties; {_ANSWERS_IN_3}")
    error.retry = "never"
    return error


def disconnected(
    reason_code: int, properties: dict[str, Any], version: str, client_id: str = ""
) -> RefusedError:
    """The server's DISCONNECT."""
    advice = _RULES if reason_code == ReasonCode.NOT_AUTHORIZED else ""
    if reason_code == ReasonCode.SESSION_TAKEN_OVER:
        advice = f"another client has connected with the client identifier {client_id!r}: give each its own"
    return RefusedError(*_said("the server disconnected", reason_code, properties, version), advice=advice)


def subscribe_refused(
    refused: Sequence[tuple[str, int]], properties: dict[str, Any], version: str
) -> SubscribeRefused:
    """SUBACK or UNSUBACK that refuses these topic filters, each with its reason code; at least one."""
    listed = ", ".join(
        f"{topic} ({reason_name(code, version) if version == '5.0' else 'failure'})"
        for topic, code in refused
    )
    # The only failure code of MQTT 3.1.1 mostly means that as well.
    is_forbidden = version != "5.0" or ReasonCode.NOT_AUTHORIZED in (code for _, code in refused)
    advice = _RULES if is_forbidden else ""
    what = f"the server refused {listed}"
    return SubscribeRefused(what, refused[0][1], *words(properties), advice=advice)


def _said(
    what: str, reason_code: int, properties: dict[str, Any], version: str
) -> tuple[str, int, str | None, tuple[tuple[str, str], ...]]:
    """Return the arguments of a RefusedError."""
    text = f"{what}: {reason_name(reason_code, version)} (0x{reason_code:02x})"
    return text, reason_code, *words(properties)


def words(properties: dict[str, Any]) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    """Return reason string and user properties of these properties."""
    pairs = tuple((name, value) for name, value in properties.get("user_property", ()))
    return properties.get("reason_string"), pairs
