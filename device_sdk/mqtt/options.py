"""The fields of CONNECT, checked once, when the client is made."""

from __future__ import annotations

from device_sdk._load import load
from device_sdk.errors import ArgumentError, ArgumentTypeError
from device_sdk.mqtt.codes import VERSIONS
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.message import Will, check_payload_format
from device_sdk.mqtt.packets import Connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["MAY_BE_LEFT_OUT", "ConnectOptions", "check_range"]

#: Properties that we send by ourselves, and do not if they are ``None``: there are servers that close the
#: connection on one that they do not know. Absent they mean 0, and any size. Source: MQTT 5.0 §3.1.2.11.
MAY_BE_LEFT_OUT = ("session_expiry_interval", "maximum_packet_size")

_BRIDGE = 0x80
_VERSION_HINT = "device_sdk._words:version_hint"  # only for an error, see there


def check_range(argument: str, value: object, low: int, high: int) -> int:
    """Return ``value`` if it is a whole number from ``low`` to ``high``.

    Raises: ArgumentTypeError, ArgumentError: it is not; the message names ``argument``.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise ArgumentTypeError(argument, f"must be a whole number, not {type(value).__name__}")
    if not low <= value <= high:
        raise ArgumentError(argument, f"must be from {low} to {high}, not {value}")
    return value


def _as_bridge(connect: bytes, version: str) -> bytes:
    """Return CONNECT with the mark of a bridge in its protocol level, as Mosquitto understands it."""
    name, level = VERSIONS[version]
    where = connect.index(name.encode()) + len(name)
    return connect[:where] + bytes((level | _BRIDGE,)) + connect[where + 1 :]


class ConnectOptions:
    """The fields of CONNECT and the limits that we announce in it.

    ``keep_alive`` seconds, 0 (off) to 65,535; ``session_expiry`` seconds, 0 to 4,294,967,295 (never);
    ``receive_maximum`` QoS 1 and 2 messages that the server may send unacknowledged, 1 to 65,535;
    ``maximum_packet_size`` bytes of one received packet, 64 to 268,435,460: larger messages are skipped where
    it is not announced, as in MQTT 3.x;
    ``topic_alias_maximum`` aliases that the server may use, 0 to 65,535; ``connect_timeout`` seconds to wait
    for CONNACK; ``announces_limits``: put these limits in the properties of CONNECT, else only
    ``properties`` are sent, which may be ``None`` for those of :data:`MAY_BE_LEFT_OUT`; ``bridge``: ask the
    server to treat the client as a bridge.
    ``version`` ``None``: 5.0 or 3.1.1, as :meth:`speak` says; ``negotiates`` is true then.
    Source: MQTT 5.0 §3.1.
    """

    __slots__ = (
        "announces_limits",
        "bridge",
        "client_id",
        "connect_timeout",
        "keep_alive",
        "maximum_packet_size",
        "negotiates",
        "password",
        "properties",
        "receive_maximum",
        "session_expiry",
        "topic_alias_maximum",
        "user_name",
        "version",
        "will",
    )

    def __init__(
        self,
        client_id: str = "",
        *,
        version: str | None = "5.0",
        keep_alive: int = 60,
        session_expiry: int = 0,
        receive_maximum: int = 65_535,
        maximum_packet_size: int = 256 * 1024,
        topic_alias_maximum: int = 0,
        user_name: str | None = None,
        password: bytes | str | None = None,
        will: Will | None = None,
        connect_timeout: float = 10.0,
        properties: Mapping[str, Any] | None = None,
        announces_limits: bool = True,
        bridge: bool = False,
    ) -> None:
        if version is not None and version not in VERSIONS:
            hint = load(_VERSION_HINT)(version)
            raise ArgumentError("version", f'must be "5.0", "3.1.1", "3.1" or None, not {version!r}{hint}')
        if will is not None and not isinstance(will, Will):
            raise ArgumentTypeError("will", f"must be a Will, not {type(will).__name__}")
        if will is not None:
            check_payload_format("will", will.payload, will.properties)
        self.client_id = client_id
        self.negotiates = version is None
        self.version = version or "3.1.1"
        self.keep_alive = check_range("keep_alive", keep_alive, 0, 65_535)
        self.session_expiry = check_range("session_expiry", session_expiry, 0, 0xFFFFFFFF)
        self.receive_maximum = check_range("receive_maximum", receive_maximum, 1, 65_535)
        self.maximum_packet_size = check_range("maximum_packet_size", maximum_packet_size, 64, 268_435_460)
        self.topic_alias_maximum = check_range("topic_alias_maximum", topic_alias_maximum, 0, 65_535)
        self.user_name = user_name
        self.password = password.encode() if isinstance(password, str) else password
        self.will = will
        self.connect_timeout = connect_timeout
        self.properties = dict(properties or {})
        self.announces_limits = announces_limits
        self.bridge = bridge
        self.encode(clean_start=True)  # so that a wrong field is an error of the constructor
        if self.negotiates:
            self.speak("5.0")
            self.encode(clean_start=True)

    def speak(self, version: str) -> None:
        """Use this version of MQTT in the next CONNECT."""
        self.version = version

    def identify(self, user_name: str | None, password: bytes | None, will: Will | None) -> None:
        """Use these credentials and this will in the next CONNECT."""
        self.user_name, self.password, self.will = user_name, password, will

    def encode(self, *, clean_start: bool, without_will: bool = False) -> bytes:
        """Return the CONNECT packet.

        Raises: ArgumentError: a field that cannot be encoded; ``argument`` names it.
        """
        properties = self._properties() if self.version == "5.0" else {}
        packet = Connect(
            self.client_id,
            clean_start=clean_start,
            keep_alive=self.keep_alive,
            user_name=self.user_name,
            password=self.password,
            will=None if without_will else self.will,
            properties=properties,
        )
        encoded = encode_packet(packet, self.version)
        return _as_bridge(encoded, self.version) if self.bridge else encoded

    @property
    def announces_size(self) -> bool:
        """Whether CONNECT tells the server the size of the largest packet that we take."""
        return self.version == "5.0" and "maximum_packet_size" in self._properties()

    def _properties(self) -> dict[str, Any]:
        if not self.announces_limits:
            return self.properties
        limits = {
            "session_expiry_interval": self.session_expiry,
            "maximum_packet_size": self.maximum_packet_size,
        }
        if self.receive_maximum < 65_535:
            limits["receive_maximum"] = self.receive_maximum
        if self.topic_alias_maximum:
            limits["topic_alias_maximum"] = self.topic_alias_maximum
        properties = {**limits, **self.properties}
        for name in MAY_BE_LEFT_OUT:
            if properties[name] is None:
                del properties[name]
        return properties

    def take_name(self, client_id: str) -> None:
        """Use the client identifier that the server has assigned from now on."""
        self.client_id = client_id

    def __repr__(self) -> str:
        secret = "" if self.password is None else ", password=***"
        return f"ConnectOptions({self.client_id!r}, version={self.version!r}{secret})"
