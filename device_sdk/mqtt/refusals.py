"""Refusals of the server as errors: the reason code in words, with the server's reason string."""

from __future__ import annotations

from device_sdk.errors import ConnectRefused, PublishRefused, RefusedError
from device_sdk.mqtt.codes import reason_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["connect_refused", "disconnected", "publish_refused"]


def connect_refused(reason_code: int, properties: dict[str, Any], version: str) -> ConnectRefused:
    """CONNACK with a reason code other than success."""
    return ConnectRefused(*_said("the server refused the connection", reason_code, properties, version))


def publish_refused(reason_code: int, properties: dict[str, Any], version: str) -> PublishRefused:
    """PUBACK or PUBREC with a reason code of 0x80 and above."""
    return PublishRefused(*_said("the server refused the message", reason_code, properties, version))


def disconnected(reason_code: int, properties: dict[str, Any], version: str) -> RefusedError:
    """The server's DISCONNECT."""
    return RefusedError(*_said("the server disconnected", reason_code, properties, version))


def _said(
    what: str, reason_code: int, properties: dict[str, Any], version: str
) -> tuple[str, int, str | None, tuple[tuple[str, str], ...]]:
    """Return the arguments of a RefusedError."""
    pairs = tuple((name, value) for name, value in properties.get("user_property", ()))
    text = f"{what}: {reason_name(reason_code, version)} (0x{reason_code:02x})"
    return text, reason_code, properties.get("reason_string"), pairs
