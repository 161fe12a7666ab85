"""One class per control packet; the protocol version is an argument of the codec, not a field.

``type`` is the packet's name in lower case. ``properties`` is a dict of MQTT 5.0 properties by their
snake_case names (``user_property`` a list of pairs, ``subscription_identifier`` in PUBLISH an int, or a list
when there are several), empty when there are none and in MQTT 3.x.
"""

from __future__ import annotations

from device_sdk.mqtt.message import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from device_sdk.mqtt.message import Subscription, Will

__all__ = [
    "Auth",
    "Connack",
    "Connect",
    "Disconnect",
    "Packet",
    "Pingreq",
    "Pingresp",
    "Puback",
    "Pubcomp",
    "Publish",
    "Pubrec",
    "Pubrel",
    "Suback",
    "Subscribe",
    "Unsuback",
    "Unsubscribe",
]

Properties = dict[str, "Any"]


class Packet(Record):
    """Base of all control packets."""

    __slots__ = ()
    type: ClassVar[str]


class Connect(Packet):
    """CONNECT. ``protocol_name`` and ``protocol_level`` are those of the codec's version when encoded."""

    __slots__ = (
        "clean_start", "client_id", "keep_alive", "password", "properties",
        "protocol_level", "protocol_name", "user_name", "will",
    )  # fmt: skip
    type = "connect"

    def __init__(
        self,
        client_id: str = "",
        *,
        clean_start: bool = True,
        keep_alive: int = 60,
        user_name: str | None = None,
        password: bytes | None = None,
        will: Will | None = None,
        properties: Properties | None = None,
        protocol_name: str = "MQTT",
        protocol_level: int = 5,
    ) -> None:
        self.client_id = client_id
        self.clean_start = clean_start
        self.keep_alive = keep_alive
        self.user_name = user_name
        self.password = password
        self.will = will
        self.properties: Properties = properties or {}
        self.protocol_name = protocol_name
        self.protocol_level = protocol_level


class Connack(Packet):
    """CONNACK. ``reason_code`` is the return code in MQTT 3.x."""

    __slots__ = ("properties", "reason_code", "session_present")
    type = "connack"

    def __init__(
        self, session_present: bool = False, reason_code: int = 0, properties: Properties | None = None
    ) -> None:
        self.session_present = session_present
        self.reason_code = reason_code
        self.properties: Properties = properties or {}


class Publish(Packet):
    """PUBLISH. ``packet_id`` is ``None`` at QoS 0; ``topic`` may be empty with a topic alias."""

    __slots__ = ("dup", "packet_id", "payload", "properties", "qos", "retain", "topic")
    type = "publish"

    def __init__(
        self,
        topic: str,
        payload: bytes = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        dup: bool = False,
        packet_id: int | None = None,
        properties: Properties | None = None,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.dup = dup
        self.packet_id = packet_id
        self.properties: Properties = properties or {}


class _Acknowledgement(Packet):
    """The common shape of PUBACK, PUBREC, PUBREL and PUBCOMP."""

    __slots__ = ("packet_id", "properties", "reason_code")

    def __init__(self, packet_id: int, reason_code: int = 0, properties: Properties | None = None) -> None:
        self.packet_id = packet_id
        self.reason_code = reason_code
        self.properties: Properties = properties or {}


class Puback(_Acknowledgement):
    """PUBACK, the answer to a QoS 1 PUBLISH."""

    __slots__ = ()
    type = "puback"


class Pubrec(_Acknowledgement):
    """PUBREC, the first answer to a QoS 2 PUBLISH."""

    __slots__ = ()
    type = "pubrec"


class Pubrel(_Acknowledgement):
    """PUBREL, the answer to PUBREC."""

    __slots__ = ()
    type = "pubrel"


class Pubcomp(_Acknowledgement):
    """PUBCOMP, the answer to PUBREL."""

    __slots__ = ()
    type = "pubcomp"


class Subscribe(Packet):
    """SUBSCRIBE with at least one subscription."""

    __slots__ = ("packet_id", "properties", "subscriptions")
    type = "subscribe"

    def __init__(
        self, packet_id: int, subscriptions: list[Subscription], properties: Properties | None = None
    ) -> None:
        self.packet_id = packet_id
        self.subscriptions = subscriptions
        self.properties: Properties = properties or {}


class _ReasonCodes(Packet):
    """The common shape of SUBACK and UNSUBACK: one reason code per topic filter."""

    __slots__ = ("packet_id", "properties", "reason_codes")

    def __init__(
        self, packet_id: int, reason_codes: list[int] | None = None, properties: Properties | None = None
    ) -> None:
        self.packet_id = packet_id
        self.reason_codes: list[int] = reason_codes or []
        self.properties: Properties = properties or {}


class Suback(_ReasonCodes):
    """SUBACK."""

    __slots__ = ()
    type = "suback"


class Unsuback(_ReasonCodes):
    """UNSUBACK. MQTT 3.x has no reason codes in it."""

    __slots__ = ()
    type = "unsuback"


class Unsubscribe(Packet):
    """UNSUBSCRIBE with at least one topic filter."""

    __slots__ = ("packet_id", "properties", "unsubscriptions")
    type = "unsubscribe"

    def __init__(
        self, packet_id: int, unsubscriptions: list[str], properties: Properties | None = None
    ) -> None:
        self.packet_id = packet_id
        self.unsubscriptions = unsubscriptions
        self.properties: Properties = properties or {}


class Pingreq(Packet):
    """PINGREQ."""

    __slots__ = ()
    type = "pingreq"


class Pingresp(Packet):
    """PINGRESP."""

    __slots__ = ()
    type = "pingresp"


class _Reason(Packet):
    """The common shape of DISCONNECT and AUTH."""

    __slots__ = ("properties", "reason_code")

    def __init__(self, reason_code: int = 0, properties: Properties | None = None) -> None:
        self.reason_code = reason_code
        self.properties: Properties = properties or {}


class Disconnect(_Reason):
    """DISCONNECT. Reason code and properties exist in MQTT 5.0 only."""

    __slots__ = ()
    type = "disconnect"


class Auth(_Reason):
    """AUTH, MQTT 5.0 only."""

    __slots__ = ()
    type = "auth"
