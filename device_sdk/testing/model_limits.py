"""Limits and permissions of a :class:`ModelBroker`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from device_sdk.testing.model_session import LAST_PACKET_ID

if TYPE_CHECKING:
    from device_sdk.mqtt.message import Subscription
    from device_sdk.mqtt.packets import Connect, Publish

__all__ = ["Limits", "Permissions"]


@dataclass(slots=True)
class Limits:
    """The limits of a broker; see :class:`ModelBroker`. Times in seconds, sizes in bytes."""

    receive_maximum: int = LAST_PACKET_ID
    maximum_qos: int = 2
    retain_available: bool = True
    maximum_packet_size: int | None = None
    topic_alias_maximum: int = 10
    server_keep_alive: int | None = None
    session_expiry_maximum: int | None = None

    def announced(self) -> dict[str, Any]:
        """Return the CONNACK properties that differ from the standard's defaults.

        Source: MQTT 5.0 §3.2.2.3.
        """
        table = [
            ("receive_maximum", self.receive_maximum, LAST_PACKET_ID),
            ("maximum_qos", self.maximum_qos, 2),
            ("retain_available", int(self.retain_available), 1),
            ("maximum_packet_size", self.maximum_packet_size, None),
            ("topic_alias_maximum", self.topic_alias_maximum, 0),
        ]
        return {name: value for name, value, default in table if value != default}


@dataclass(frozen=True, slots=True)
class Permissions:
    """The permission checks; each returns a reason code of MQTT 5.0, ``subscribe`` possibly a granted QoS."""

    connect: Callable[[Connect], int]
    publish: Callable[[str, Publish], int]
    subscribe: Callable[[str, Subscription], int]
