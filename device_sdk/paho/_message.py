"""Messages for the program: received ones, and the futures of published ones."""

from __future__ import annotations

import threading
import time

from device_sdk._printable import printable
from device_sdk.mqtt.session import ACKNOWLEDGED, REFUSED, SENT
from device_sdk.paho._codes import error_string
from device_sdk.paho.enums import MessageState, MQTTErrorCode
from device_sdk.paho.packettypes import PacketTypes
from device_sdk.paho.properties import Properties, from_mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from device_sdk.engine.outgoing.delivery import Delivery
    from device_sdk.mqtt.message import Message

__all__ = ["Listener", "MQTTMessage", "MQTTMessageInfo", "encode_payload", "info_for", "message_from"]

_SUCCESS = MQTTErrorCode.MQTT_ERR_SUCCESS
_NO_CONN = MQTTErrorCode.MQTT_ERR_NO_CONN
_QUEUE_SIZE = MQTTErrorCode.MQTT_ERR_QUEUE_SIZE
_NOT_SUPPORTED = MQTTErrorCode.MQTT_ERR_NOT_SUPPORTED
_INVALID = MessageState.MQTT_MS_INVALID
_WAIT_FOR_PUBREL = MessageState.MQTT_MS_WAIT_FOR_PUBREL
_DELIVERED = frozenset({ACKNOWLEDGED, REFUSED, SENT})

_CALLBACK_SECONDS = 5.0  # for on_publish, before wait_for_publish() returns all the same

_one_at_a_time = threading.Lock()  # while the event of a message is made


def encode_payload(payload: object) -> bytes:
    """Return a payload as bytes: text as UTF-8, numbers as text, None as empty.

    Raises: TypeError: any other type.
    """
    if isinstance(payload, str):
        return payload.encode()
    if isinstance(payload, (int, float)):
        return str(payload).encode()
    if payload is None:
        return b""
    if not isinstance(payload, (bytes, bytearray)):
        raise TypeError("payload must be a string, bytearray, int, float or None.")
    return bytes(payload)


class Listener:
    """Receives the end of a message: ``tell`` queues its callback, and returns whether there is one.

    ``thread``: identifier of the thread that is running callbacks, 0 without.
    """

    __slots__ = ("tell", "thread")

    def __init__(self, tell: Callable[[MQTTMessageInfo], bool]) -> None:
        self.tell = tell
        self.thread = 0


class MQTTMessageInfo:
    """The future of a published message: ``rc``, ``mid``, and whether it is published.

    ``rc`` of a message of QoS 1 or 2 that was published without a connection is ``MQTT_ERR_NO_CONN`` until
    there is one; the message is kept, and ``rc`` becomes ``MQTT_ERR_SUCCESS`` with the next connection.
    Also a pair: ``rc, mid = client.publish(...)``.
    """

    __slots__ = (
        "_delivery",
        "_event",
        "_iterpos",
        "_listener",
        "_published",
        "_untold",
        "answer",
        "mid",
        "rc",
    )

    def __init__(self, mid: int) -> None:
        self.mid = mid
        self.rc = _SUCCESS
        self._published = False
        self._untold = False  # published, and on_publish has not been called yet
        self._event: threading.Event | None = None
        self._iterpos = 0
        self._listener: Listener | None = None
        self._delivery: Delivery | None = None
        # Type, reason code and properties of the packet that acknowledged it, if it says more than success.
        self.answer: tuple[int, int, dict[str, Any]] | None = None

    def __str__(self) -> str:
        return str((self.rc, self.mid))

    def __iter__(self) -> MQTTMessageInfo:
        self._iterpos = 0
        return self

    def __next__(self) -> MQTTErrorCode | int:
        return self.next()

    def next(self) -> MQTTErrorCode | int:
        """Return ``rc``, then ``mid``. Raises: StopIteration."""
        self._iterpos += 1
        if self._iterpos > 2:
            raise StopIteration
        return self[self._iterpos - 1]

    def __getitem__(self, index: int) -> MQTTErrorCode | int:
        if index == 0:
            return self.rc
        if index == 1:
            return self.mid
        raise IndexError("index out of range")

    def set(self) -> None:
        """The delivery has ended. Called by the engine: this is its ``on_done``."""
        delivery, self._delivery = self._delivery, None
        listener = self._listener
        if delivery is not None and delivery.status not in _DELIVERED:
            self.lose(_NOT_SUPPORTED)
            return
        self.rc = _SUCCESS
        if listener is not None:
            self._untold = listener.tell(self)
        self._published = True
        if self._event is not None:
            self._event.set()

    def told(self) -> None:
        """``on_publish`` has been called."""
        self._untold = False
        if self._event is not None:
            self._event.set()

    def lose(self, rc: MQTTErrorCode) -> None:
        """The message will not be published."""
        self.rc = rc
        self._published = True
        if self._event is not None:
            self._event.set()

    def wait_for_publish(self, timeout: float | None = None) -> None:
        """Wait until the message is published, at most ``timeout`` seconds; ``is_published()`` is the result.

        ``on_publish`` has been called by then, unless it takes longer than 5 s.

        Raises: ValueError: the queue was full. RuntimeError: it will not be published, or there is no
        connection, or this is a callback, which would wait for itself.
        """
        self._check()
        deadline = None if timeout is None else time.monotonic() + timeout
        in_callback = self._listener is not None and self._listener.thread == threading.get_ident()
        if not self._published:
            if in_callback:
                raise RuntimeError("wait_for_publish() in a callback would wait for itself; use on_publish")
            event = self._new_event()
            if not self._published:
                event.wait(timeout)
        until = time.monotonic() + _CALLBACK_SECONDS
        if deadline is not None:
            until = min(until, deadline)
        while self._untold and not in_callback and time.monotonic() < until:
            event = self._new_event()
            if self._untold:  # else it is never set again
                event.wait(max(0.0, until - time.monotonic()))
        self._check()

    def _new_event(self) -> threading.Event:
        """Return the event that is set at the next step."""
        with _one_at_a_time:
            if self._event is None or self._event.is_set():
                self._event = threading.Event()
            return self._event

    def is_published(self) -> bool:
        """Return whether the message was published: QoS 0 handed to the network, QoS 1 and 2 acknowledged.

        Raises: ValueError, RuntimeError: as :meth:`wait_for_publish`.
        """
        self._check()
        return self._published

    def _check(self) -> None:
        if self.rc == _QUEUE_SIZE:
            raise ValueError("Message is not queued due to ERR_QUEUE_SIZE")
        if self.rc > 0:
            raise RuntimeError(printable(f"Message publish failed: {error_string(self.rc)}"))


def info_for(listener: Listener, mid: int, delivery: Delivery | None = None) -> MQTTMessageInfo:
    """Return the future of a message; with QoS 1 and 2 it takes the outcome from its delivery."""
    # Written out, because the constructor would be a call more for every message.
    info = _new_info(MQTTMessageInfo)
    info.mid = mid
    info.rc = _SUCCESS
    info._published = info._untold = False
    info._event = info.answer = None
    info._iterpos = 0
    info._listener = listener
    info._delivery = delivery
    return info


_new_info = MQTTMessageInfo.__new__


class MQTTMessage:
    """A received message: ``topic``, ``payload`` (bytes), ``qos``, ``retain``, ``dup``, ``mid``,
    ``properties`` (MQTT 5.0), ``timestamp`` (seconds of :func:`time.monotonic`).
    """

    __slots__ = (
        "_received",
        "_topic",
        "dup",
        "info",
        "mid",
        "payload",
        "properties",
        "qos",
        "retain",
        "state",
        "timestamp",
    )

    properties: Properties | None
    info: MQTTMessageInfo

    def __init__(self, mid: int = 0, topic: bytes = b"") -> None:
        self.mid = mid
        self._topic: bytes | str = topic
        self.payload: bytes | bytearray = b""
        self.qos = 0
        self.retain = False
        self.dup = False
        self.state = _INVALID
        self.timestamp = 0.0
        self._received: Mapping[str, Any] | None = None  # the properties, by their names in device_sdk.mqtt

    def __eq__(self, other: object) -> bool:
        return isinstance(other, self.__class__) and self.mid == other.mid

    __hash__ = None  # type: ignore[assignment]

    @property
    def topic(self) -> str:
        """The topic name. Raises: UnicodeDecodeError: the broker sent one that is not UTF-8."""
        topic = self._topic
        if type(topic) is str:  # else bytes, or NotText
            return topic
        return (topic if isinstance(topic, bytes) else topic.encode("utf-8", "surrogateescape")).decode()

    @topic.setter
    def topic(self, value: bytes) -> None:
        self._topic = value

    def __getattr__(self, name: str) -> Any:
        """Make ``properties`` and ``info`` when they are first asked for: most programs never do."""
        if name == "properties":
            received = self._received
            self.properties = None if received is None else from_mapping(PacketTypes.PUBLISH, received)
            return self.properties
        if name == "info":
            self.info = MQTTMessageInfo(self.mid)
            return self.info
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


_NO_PROPERTIES: Mapping[str, Any] = {}
_new_message = MQTTMessage.__new__


def message_from(received: Message, has_properties: bool) -> MQTTMessage:
    """Return a received message as paho-mqtt's class."""
    message = _new_message(MQTTMessage)
    message.mid = received.packet_id
    message._topic = received.topic
    message.payload = received.payload
    message.qos = qos = received.qos
    message.retain = received.retain
    message.dup = received.dup
    message.state = _WAIT_FOR_PUBREL if qos == 2 else _INVALID
    message.timestamp = time.monotonic()
    message._received = (received.properties or _NO_PROPERTIES) if has_properties else None
    return message
