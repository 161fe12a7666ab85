"""The events that :meth:`Protocol.receive_data` returns, in the order in which they happened.

Two kinds of event are not here, because the object itself is the event: an arrived application message is a
:class:`~device_sdk.mqtt.message.Message`, and a finished outgoing one is its
:class:`~device_sdk.mqtt.session.Outgoing` record with the final ``state``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from device_sdk.errors import DeviceSdkError, PublishRefused
    from device_sdk.mqtt.session import Outgoing

__all__ = [
    "AuthReceived",
    "ConnectAcknowledged",
    "ConnectionEnded",
    "MessageSkipped",
    "PayloadNotText",
    "PingAnswered",
    "PublishPostponed",
    "SessionCleared",
    "SessionUnknown",
    "SubscribeAcknowledged",
    "UnsubscribeAcknowledged",
]


class ConnectAcknowledged:
    """The server accepted the connection; the session has been resumed or begun anew.

    ``republish`` holds the messages that the server no longer knows about, in their original order: they
    have lost their packet identifiers and are to be published again as new ones.
    """

    __slots__ = ("properties", "republish", "session_present")

    def __init__(self, session_present: bool, properties: dict[str, Any], republish: list[Any]) -> None:
        self.session_present = session_present
        self.properties = properties
        self.republish = republish


class SubscribeAcknowledged:
    """SUBACK: one reason code per topic filter, in the order of the SUBSCRIBE."""

    __slots__ = ("packet_id", "properties", "reason_codes")

    def __init__(self, packet_id: int, reason_codes: list[int], properties: dict[str, Any]) -> None:
        self.packet_id = packet_id
        self.reason_codes = reason_codes
        self.properties = properties


class UnsubscribeAcknowledged(SubscribeAcknowledged):
    """UNSUBACK: in MQTT 3.x, which has no reason codes, one 0 per topic filter."""

    __slots__ = ()


class PublishPostponed:
    """PUBACK or PUBREC with a reason code that passes (``ProtocolRules.postpones``).

    ``message`` stays in flight, and is not sent before :meth:`Outbound.publish_anew` or the next connection.
    ``error``: what the server said.
    """

    __slots__ = ("error", "message")

    def __init__(self, message: Outgoing, error: PublishRefused) -> None:
        self.message = message
        self.error = error


class AuthReceived:
    """AUTH: the server continues (0x18) or ends (0x00) an enhanced authentication."""

    __slots__ = ("properties", "reason_code")

    def __init__(self, reason_code: int, properties: dict[str, Any]) -> None:
        self.reason_code = reason_code
        self.properties = properties


class PayloadNotText:
    """The message that follows is declared as UTF-8 (payload format indicator 1) and is not.

    It is delivered all the same, unchanged. Source: MQTT 5.0 §3.3.2.3.2.
    """

    __slots__ = ("position", "topic")

    def __init__(self, topic: str, position: int) -> None:
        self.topic = topic
        self.position = position


class MessageSkipped:
    r"""A message was received and is not delivered; it is acknowledged in its turn. See decision 0025.

    ``topic``: its topic name, the beginning of a long one, ``\xff`` for a byte that is not UTF-8; ``size``:
    bytes of the packet; ``reason``: why, in words.
    """

    __slots__ = ("qos", "reason", "size", "topic")

    def __init__(self, topic: str, qos: int, size: int, reason: str) -> None:
        self.topic = topic
        self.qos = qos
        self.size = size
        self.reason = reason


class PingAnswered:
    """PINGRESP to a PINGREQ that was asked for: the server has read everything that was sent before.

    See :meth:`KeepAlive.pinged`.
    """

    __slots__ = ()


class ConnectionEnded:
    """The network connection is over; always the last event of its connection.

    ``error`` says why: :class:`ConnectRefused` (CONNACK), :class:`RefusedError` (the server's DISCONNECT),
    :class:`RemoteProtocolError` or :class:`TransportClosedError` (closed, reset, no answer in time).
    ``reason_code`` is the code that the server sent, or ``None`` if it did not end the connection.
    ``silent``: the server did not answer in time.
    """

    __slots__ = ("error", "properties", "reason_code", "silent")

    def __init__(
        self,
        error: DeviceSdkError,
        reason_code: int | None = None,
        properties: dict[str, Any] | None = None,
        *,
        silent: bool = False,
    ) -> None:
        self.error = error
        self.reason_code = reason_code
        self.properties = properties or {}
        self.silent = silent


class SessionCleared(ConnectionEnded):
    """The server has accepted a connection whose only aim was to end its session: DISCONNECT is queued.

    See :meth:`Protocol.connect`. Source: MQTT 3.1.1 §3.1.2.4.
    """

    __slots__ = ()


class SessionUnknown(ConnectionEnded):
    """The server wants to resume a session that this client does not have.

    The next connection has to begin with a clean start. Source: MQTT 5.0 §3.2.2.1.1 [MQTT-3.2.2-4].
    """

    __slots__ = ()
