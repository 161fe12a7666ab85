"""The values that an application passes and receives: Message, Will, Subscription.

Written out by hand, not as dataclasses: importing :mod:`dataclasses` costs a third of the import budget.
"""

from __future__ import annotations

from device_sdk._arguments import explained
from device_sdk.errors import ArgumentError, ArgumentTypeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

__all__ = ["AckToken", "Message", "Subscription", "Will", "check_payload_format", "payload_bytes"]

_NO_PROPERTIES: dict[str, Any] = {}


def payload_bytes(payload: object, argument: str = "payload") -> bytes:
    """Return an application payload as bytes.

    Accepts any bytes-like object, ``str`` (encoded as UTF-8) and ``None`` (empty). A mutable buffer is
    copied, so the caller may reuse it at once.

    Raises: ArgumentTypeError: any other type. ArgumentError: a string with a lone surrogate.
    """
    if type(payload) is bytes:
        return payload
    if payload is None:
        return b""
    if isinstance(payload, str):
        try:
            return payload.encode()
        except UnicodeEncodeError:
            raise ArgumentError(argument, "is a str that cannot be encoded as UTF-8") from None
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return bytes(payload)
    try:
        return bytes(memoryview(payload))  # type: ignore[arg-type]
    except TypeError:
        raise ArgumentTypeError(
            argument, f"must be bytes-like, str or None, not {type(payload).__name__}; encode it first"
        ) from None


def check_payload_format(argument: str, payload: bytes, properties: Mapping[str, Any]) -> None:
    """Check that a payload declared as text is UTF-8.

    Raises: ArgumentError: it is not. Source: MQTT 5.0 §3.3.2.3.2, §3.1.3.2.3.
    """
    if properties.get("payload_format_indicator") != 1:
        return
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 from byte {error.start} on, although payload_format_indicator is 1"
        raise ArgumentError(argument, problem) from None


class Message:
    """One application message as it arrived.

    ``topic`` str; ``payload`` bytes; ``qos`` 0, 1 or 2; ``retain``, ``dup`` bool; ``packet_id`` 1..65535, or
    0 at QoS 0; ``properties`` the MQTT 5.0 properties by their snake_case names, or ``None``.

    Equality is identity: two messages with the same content are two messages.
    """

    __slots__ = ("dup", "handled", "packet_id", "payload", "properties", "qos", "retain", "token", "topic")

    def __init__(
        self,
        topic: str,
        payload: bytes,
        qos: int = 0,
        retain: bool = False,
        dup: bool = False,
        packet_id: int = 0,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.dup = dup
        self.packet_id = packet_id
        self.properties = properties
        self.handled = False
        self.token: AckToken | None = None  # with manual_ack, at QoS 1 and 2

    def acknowledge(self) -> None:
        """Acknowledge the message: with ``Client(manual_ack=True)`` its PUBACK or PUBREC may now be sent.

        Any thread, at any time. A second call, a call at QoS 0 and a call in a client that acknowledges by
        itself have no effect. Acknowledgements are sent in the order of arrival, so this one waits for those
        before it. Once the connection of a QoS 1 message is lost the call has no effect either: the broker
        sends the message again, and that one is to be acknowledged. Source: MQTT 5.0 §4.4, §4.6.
        """
        if self.token is not None:
            self.token.acknowledge(self.token)

    @property
    def redelivery_key(self) -> tuple[str, int, int] | None:
        """Session epoch, packet identifier, generation; ``None`` without ``manual_ack`` and at QoS 0.

        Two received messages of one Client object with equal keys are the same message. A QoS 2 message is
        delivered once per session anyway. A repeated QoS 1 message (``dup``) keeps its key while its
        acknowledgement has not been sent; after that it gets a new one, because the broker may have given
        the packet identifier to another message. A lost session and a new Client begin a new epoch.
        """
        return None if self.token is None else self.token.redelivery_key

    @property
    def content_type(self) -> str | None:
        """MIME type or other description of the payload. Source: MQTT 5.0 §3.3.2.3.9."""
        return (self.properties or _NO_PROPERTIES).get("content_type")

    @property
    def response_topic(self) -> str | None:
        """Topic to publish the response to. Source: MQTT 5.0 §3.3.2.3.5."""
        return (self.properties or _NO_PROPERTIES).get("response_topic")

    @property
    def correlation_data(self) -> bytes | None:
        """Opaque data to repeat in the response. Source: MQTT 5.0 §3.3.2.3.6."""
        return (self.properties or _NO_PROPERTIES).get("correlation_data")

    @property
    def message_expiry_interval(self) -> int | None:
        """Seconds until expiry, as of when the broker sent it. Source: MQTT 5.0 §3.3.2.3.3."""
        return (self.properties or _NO_PROPERTIES).get("message_expiry_interval")

    @property
    def payload_format_indicator(self) -> int | None:
        """1 when the sender declares the payload UTF-8 text. Source: MQTT 5.0 §3.3.2.3.2."""
        return (self.properties or _NO_PROPERTIES).get("payload_format_indicator")

    @property
    def subscription_identifiers(self) -> tuple[int, ...]:
        """Identifiers of our subscriptions that matched. Source: MQTT 5.0 §3.3.2.3.8."""
        found = (self.properties or _NO_PROPERTIES).get("subscription_identifier", ())
        return (found,) if isinstance(found, int) else tuple(found)

    @property
    def user_properties(self) -> tuple[tuple[str, str], ...]:
        """Name and value pairs, in order, names may repeat. Source: MQTT 5.0 §3.3.2.3.7."""
        pairs = (self.properties or _NO_PROPERTIES).get("user_property", ())
        return tuple((name, value) for name, value in pairs)

    def __repr__(self) -> str:
        return f"Message({self.topic!r}, {len(self.payload)} bytes, qos={self.qos}, retain={self.retain})"


class AckToken:
    """What the client keeps of a message that the application acknowledges: nothing of its content.

    ``acknowledge`` is called with the token; ``size``: bytes of the message, where they count; ``handled``:
    PUBACK or PUBREC may be sent.
    """

    __slots__ = ("acknowledge", "handled", "packet_id", "qos", "redelivery_key", "size")

    def __init__(
        self,
        packet_id: int,
        qos: int,
        redelivery_key: tuple[str, int, int] | None,
        acknowledge: Callable[[AckToken], object],
    ) -> None:
        self.packet_id = packet_id
        self.qos = qos
        self.handled = False
        self.redelivery_key = redelivery_key
        self.acknowledge = acknowledge
        self.size = 0

    def __reduce__(self) -> tuple[object, ...]:
        # A message may go to another process; the client and its connection cannot.
        return AckToken, (self.packet_id, self.qos, self.redelivery_key, _acknowledge_copy)


def _acknowledge_copy(_: AckToken) -> None:
    raise RuntimeError("this is a copy: acknowledge the message that the client has received")


class Record:
    """Equality and repr over ``field_names``, the ``__slots__`` of the class and its bases."""

    __slots__ = ()
    field_names: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        cls.field_names = cls.field_names + cls.__slots__

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.field_names)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.field_names)
        return f"{type(self).__name__}({fields})"


class Will(Record):
    """The message that the broker publishes when the connection ends without a DISCONNECT.

    ``properties``: MQTT 5.0 will properties by snake_case name, for example
    ``{"will_delay_interval": 5, "content_type": "text/plain"}``. Source: MQTT 5.0 §3.1.2.5, §3.1.3.2.
    """

    __slots__ = ("payload", "properties", "qos", "retain", "topic")

    @explained
    def __init__(
        self,
        topic: str,
        payload: object = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        self.topic = topic
        self.payload = payload_bytes(payload)
        self.qos = qos
        self.retain = retain
        self.properties: Mapping[str, Any] = properties or {}


class Subscription(Record):
    """A topic filter with its subscription options.

    ``topic`` is the topic filter; ``qos`` the maximum QoS asked for; the other three are MQTT 5.0 only:
    ``no_local``, ``retain_as_published``, ``retain_handling`` 0 (send retained messages), 1 (only for a new
    subscription), 2 (never). Source: MQTT 5.0 §3.8.3.1.
    """

    __slots__ = ("no_local", "qos", "retain_as_published", "retain_handling", "topic")

    @explained
    def __init__(
        self,
        topic: str,
        qos: int = 0,
        *,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
    ) -> None:
        self.topic = topic
        self.qos = qos
        self.no_local = no_local
        self.retain_as_published = retain_as_published
        self.retain_handling = retain_handling
