"""The exceptions of the drop-in, under the names that paho-mqtt gives them."""

from __future__ import annotations

from device_sdk.errors import DeviceSdkError

__all__ = ["MQTTException", "MalformedPacket"]


class MQTTException(DeviceSdkError):
    """A property or option that MQTT does not allow, or a broker that refused a one-shot helper."""


class MalformedPacket(MQTTException):
    """Bytes that cannot be decoded: cut off, too long, or not UTF-8."""
