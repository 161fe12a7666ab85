"""Settings of a program before it connects: CONNECT, the waits between attempts, the bounds of the queue.

The way to the broker is in :mod:`device_sdk.paho._endpoint`.
"""

from __future__ import annotations

from device_sdk.mqtt.message import Will
from device_sdk.mqtt.options import ConnectOptions
from device_sdk.paho._codes import made_up_client_id
from device_sdk.paho._message import encode_payload
from device_sdk.paho.enums import MQTTProtocolVersion
from device_sdk.paho.properties import Properties, as_mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["CLEAN_START_FIRST_ONLY", "BackOff", "ConnectSettings", "Limits"]

CLEAN_START_FIRST_ONLY = 3
_VERSIONS = {
    MQTTProtocolVersion.MQTTv31: "3.1",
    MQTTProtocolVersion.MQTTv311: "3.1.1",
    MQTTProtocolVersion.MQTTv5: "5.0",
}
_LARGEST_PACKET = 268_435_460
_LONGEST_TIMEOUT = 65_535.0
_UNACCEPTABLE_VERSION, _IDENTIFIER_REJECTED = 1, 2


class ConnectSettings:
    """The fields of the next CONNECT.

    An answer may change them: the broker may choose client identifier and keep alive.
    """

    def __init__(self, protocol: int, client_id: bytes, *, clean_session: bool) -> None:
        self.protocol = protocol
        self.client_id = client_id  # bytes, as libraries on top of paho-mqtt expect
        self.bridge = False
        self.username: str | None = None
        self.password: bytes | None = None
        self.properties: Properties | None = None
        self.will: tuple[str, bytes, int, bool] | None = None  # topic, payload, QoS, retain
        self._will_properties: Properties | None = None
        self._keepalive = 60
        self.clean_session = clean_session
        self._clean_start: bool | int = CLEAN_START_FIRST_ONLY
        self._is_first = True  # no answer since connect()

    @property
    def keepalive(self) -> int:
        """Seconds of silence before PINGREQ, 0 is off."""
        return self._keepalive

    @keepalive.setter
    def keepalive(self, value: int) -> None:
        if value < 0:
            raise ValueError("Keepalive must be >=0.")
        self._keepalive = value

    @property
    def password_text(self) -> str | None:
        """The password as text."""
        return None if self.password is None else self.password.decode()

    @password_text.setter
    def password_text(self, value: str | None) -> None:
        self.password = None if value is None else value.encode()

    def set_will(
        self, topic: str, payload: Any, qos: int, retain: bool, properties: Properties | None
    ) -> None:
        """As ``Client.will_set()``."""
        if not topic:
            raise ValueError("Invalid topic.")
        if qos < 0 or qos > 2:
            raise ValueError("Invalid QoS level.")
        if properties and not isinstance(properties, Properties):
            raise ValueError("The properties argument must be an instance of the Properties class.")
        self.will = (topic, encode_payload(payload), qos, bool(retain))
        self._will_properties = properties

    def clear_will(self) -> None:
        """As ``Client.will_clear()``."""
        self.will = None
        self._will_properties = None

    # A clean start

    def expect_first(self, clean_start: bool | int, properties: Properties | None) -> None:
        """``connect()`` was called with these arguments. Raises: ValueError: they are for MQTT 5.0."""
        if self.protocol == MQTTProtocolVersion.MQTTv5:
            self._is_first = True
        elif clean_start != CLEAN_START_FIRST_ONLY:
            raise ValueError("Clean start only applies to MQTT V5")
        elif properties:
            raise ValueError("Properties only apply to MQTT V5")

    def set_start(self, clean_start: bool | int, properties: Properties | None) -> None:
        """Set the start of MQTT 5.0 connections: 3 is clean until a broker has answered."""
        self._clean_start = clean_start
        self.properties = properties

    def is_clean(self) -> bool:
        """Whether the next CONNECT asks for a new session."""
        if self.protocol != MQTTProtocolVersion.MQTTv5:
            return self.clean_session
        if self._clean_start == CLEAN_START_FIRST_ONLY:
            return self._is_first
        return bool(self._clean_start)

    # CONNECT, and its answer

    def fields(self) -> ConnectOptions:
        """Return the fields of the next CONNECT. Raises: ValueError: one that MQTT cannot express."""
        will = None
        if self.will is not None:
            topic, payload, qos, retain = self.will
            will = Will(topic, payload, qos=qos, retain=retain, properties=as_mapping(self._will_properties))
        properties = as_mapping(self.properties)
        return ConnectOptions(
            self.client_id.decode(),
            bridge=self.bridge,
            version=_VERSIONS[MQTTProtocolVersion(self.protocol)],
            keep_alive=self._keepalive,
            receive_maximum=properties.get("receive_maximum", 65_535),
            maximum_packet_size=min(properties.get("maximum_packet_size", _LARGEST_PACKET), _LARGEST_PACKET),
            topic_alias_maximum=properties.get("topic_alias_maximum", 0),
            user_name=self.username,
            password=None if self.username is None else self.password,
            will=will,
            connect_timeout=float(self._keepalive or _LONGEST_TIMEOUT),
            properties=properties,
            announces_limits=False,
        )

    def accepted(self, properties: Mapping[str, Any]) -> None:
        """Apply the properties of an acceptance. MQTT 5.0 §3.2.2.3.7, §3.2.2.3.14."""
        self._is_first = False
        self._keepalive = properties.get("server_keep_alive", self._keepalive)
        self.client_id = self.client_id or properties.get("assigned_client_identifier", "").encode()

    def refused(self) -> None:
        """Note that the broker has refused the connection."""
        self._is_first = False

    def adapt(self, return_code: int) -> bool:
        """Change the field that an MQTT 3.1.1 broker refused; return whether that was possible."""
        if self.protocol != MQTTProtocolVersion.MQTTv311:
            return False
        if return_code == _UNACCEPTABLE_VERSION:
            self.protocol = MQTTProtocolVersion.MQTTv31
        elif return_code != _IDENTIFIER_REJECTED or self.client_id:
            return False
        self.client_id = self.client_id or made_up_client_id().encode()
        return True


class BackOff:
    """The wait between two attempts of a loop: doubled each time until a broker has accepted.

    ``reconnects``: whether a loop retries at all. ``delay``: the last wait in seconds, ``None`` without;
    ``shortest``, ``longest``: its bounds.
    """

    def __init__(self, *, reconnects: bool) -> None:
        self.reconnects = reconnects
        self.delay: float | None = None
        self.shortest: float = 1
        self.longest: float = 120

    def set(self, shortest: float, longest: float) -> None:
        """Begin anew with these bounds, in seconds."""
        self.shortest, self.longest = shortest, longest
        self.delay = None

    def reset(self) -> None:
        """Begin with the shortest wait again."""
        self.delay = None

    def next(self) -> float:
        """Return the seconds to wait."""
        delay = self.delay
        self.delay = self.shortest if delay is None else min(delay * 2, self.longest)
        return self.delay


class Limits:
    """Bounds on messages of QoS 1 and 2: in flight, and kept; 0 is no limit."""

    def __init__(self) -> None:
        self._inflight = 20
        self._queued = 0

    @property
    def inflight(self) -> int:
        """Messages in flight at once."""
        return self._inflight

    @inflight.setter
    def inflight(self, value: int) -> None:
        if value < 0:
            raise ValueError("Invalid inflight.")
        self._inflight = value

    @property
    def queued(self) -> int:
        """Messages kept at once."""
        return self._queued

    @queued.setter
    def queued(self, value: int) -> None:
        if value < 0:
            raise ValueError("Invalid queue size.")
        self._queued = value
