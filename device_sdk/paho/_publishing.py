"""Publishing, subscribing, unsubscribing and acknowledging by hand."""

from __future__ import annotations

from device_sdk.errors import LocalProtocolError, QueueFullError
from device_sdk.mqtt.message import Message, Subscription
from device_sdk.mqtt.topics import validate_filter, validate_topic
from device_sdk.mqtt.wire import encode_properties
from device_sdk.paho._connection import Connection
from device_sdk.paho._message import MQTTMessage, MQTTMessageInfo, encode_payload
from device_sdk.paho.enums import LogLevel, MQTTErrorCode, MQTTProtocolVersion
from device_sdk.paho.properties import Properties, as_mapping
from device_sdk.paho.subscribeoptions import SubscribeOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from device_sdk.mqtt.protocol import Protocol

__all__ = ["Publishing"]

_SUCCESS = MQTTErrorCode.MQTT_ERR_SUCCESS
_NO_CONN = MQTTErrorCode.MQTT_ERR_NO_CONN
_QUEUE_SIZE = MQTTErrorCode.MQTT_ERR_QUEUE_SIZE
_V5 = MQTTProtocolVersion.MQTTv5
_LARGEST_PAYLOAD = 268_435_455
_TOPIC_CACHE_SIZE = 1_000
_DEBUG = LogLevel.MQTT_LOG_DEBUG
_PUBLISHED = "Sending PUBLISH (d0, q%d, r%d, m%d), '%s'%s%s"


class Publishing(Connection):
    """The part of a client that sends what the program wants. Any thread, also in callbacks."""

    def __init__(self, protocol: int, transport: str, userdata: Any) -> None:
        super().__init__(protocol, transport, userdata)
        self._topics: dict[str, bytes] = {}  # topic field by topic name, of those published last
        self._aliases: dict[int, bytes] = {}  # topic field by the alias that the program gave it
        self._manual_ack = False
        self._unacknowledged: dict[tuple[int, int], Message] = {}  # by mid and QoS

    def publish(
        self,
        topic: str,
        payload: Any = None,
        qos: int = 0,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> MQTTMessageInfo:
        """Publish text, bytes, a number (as text) or nothing.

        ``properties``: MQTT 5.0; a topic alias is understood and not sent: a repeat needs the whole topic.
        Returns: ``mid`` and ``rc``: ``MQTT_ERR_NO_CONN`` without a connection (QoS 1 and 2 are sent with the
        next one), ``_QUEUE_SIZE`` if the queue is full, ``_PAYLOAD_SIZE`` or ``_NOT_SUPPORTED`` if the broker
        does not take it. Raises: ValueError: an empty topic, wildcards, another QoS, a payload too large.
        TypeError: another payload.
        """
        topic_field = self._topics.get(topic)
        if topic_field is None:
            topic_field = self._topic_field(topic)
        if type(payload) is not bytes:
            payload = encode_payload(payload)
        if qos < 0 or qos > 2 or len(payload) > _LARGEST_PAYLOAD:
            raise ValueError("Payload too large." if 0 <= qos <= 2 else "Invalid QoS level.")
        block = b""
        if self._protocol == 5:
            block = b"\0"
            if properties is not None:
                topic_field, block = self._resolved(topic_field, properties)
            if len(topic_field) == 2:
                raise ValueError("Invalid topic.")
        flags = qos << 1 | 1 if retain else qos << 1
        info = MQTTMessageInfo(0)
        info._runner = self._runner
        engine, lock = self._engine, self._lock
        lock.acquire()
        try:
            if qos:
                self._publish_acknowledged(info, topic_field, payload, flags, block)
            else:
                info.mid = engine.next_mid()
                connection = engine.open_connection
                if connection is None:
                    info.rc = _NO_CONN
                    return info
                try:
                    connection.publish_qos0(topic_field, payload, flags, block)
                except LocalProtocolError:
                    info.lose(_problem(connection, flags))
                    return info
                engine.unsent.append(info)
            wake = engine.parked and engine.wants_attention()
            if wake:
                engine.parked = False
        finally:
            lock.release()
        if self._logger is not None or self.on_log is not None:
            self._log_publish(info, topic, payload, flags, properties)
        self._added_output(wake)
        return info

    def _log_publish(
        self, info: MQTTMessageInfo, topic: str, payload: bytes, flags: int, properties: Properties | None
    ) -> None:
        size = f", ... ({len(payload)} bytes)" if payload else " (NULL payload)"
        shown = f", properties={properties}" if self._protocol == 5 else ""
        self._log(_DEBUG, _PUBLISHED, flags >> 1, flags & 1, info.mid, topic.encode(), shown, size)

    def _publish_acknowledged(
        self, info: MQTTMessageInfo, topic_field: bytes, payload: bytes, flags: int, block: bytes
    ) -> None:
        """Publish with QoS 1 or 2. The lock is held."""
        engine = self._engine
        if self._max_queued_messages and engine.outstanding >= self._max_queued_messages:
            info.mid = engine.next_mid()
            info.rc = _QUEUE_SIZE
            return
        try:
            delivery = engine.publish(topic_field, payload, flags, block, None, None)
        except QueueFullError:  # a store that cannot write as fast
            info.mid = engine.next_mid()
            info.rc = _QUEUE_SIZE
            return
        except LocalProtocolError:
            info.mid = engine.next_mid()
            connection = engine.open_connection
            info.lose(
                MQTTErrorCode.MQTT_ERR_NOT_SUPPORTED if connection is None else _problem(connection, flags)
            )
            return
        assert delivery is not None  # the policy is not to block
        info._delivery = delivery
        info.mid = delivery.packet_id or engine.next_mid()
        delivery.on_done = info
        if engine.open_connection is None:
            info.rc = _NO_CONN
            self._offline.append(info)

    def _topic_field(self, topic: str) -> bytes:
        """Return the topic name as it is in the packet. Raises: ValueError: not a valid one."""
        if topic is None or (not topic and self._protocol != 5):
            raise ValueError("Invalid topic.")
        encoded = validate_topic(topic) if topic else b""
        if len(self._topics) >= _TOPIC_CACHE_SIZE:
            self._topics.clear()
        field = self._topics[topic] = len(encoded).to_bytes(2, "big") + encoded
        return field

    def _resolved(self, topic_field: bytes, properties: Properties) -> tuple[bytes, bytes]:
        """Return topic field and property block, with the whole topic instead of an alias."""
        given = as_mapping(properties)
        alias = given.pop("topic_alias", None)
        if alias is not None:
            if len(topic_field) > 2:
                self._aliases[alias] = topic_field
            else:
                topic_field = self._aliases.get(alias, topic_field)
        return topic_field, encode_properties(given, "publish")

    def subscribe(
        self,
        topic: Any,
        qos: int = 0,
        options: SubscribeOptions | None = None,
        properties: Properties | None = None,
    ) -> tuple[MQTTErrorCode, int | None]:
        """Ask for messages, once: subscribe again in ``on_connect``.

        ``topic``: a topic filter, a pair of filter and QoS, or a list of such pairs; in MQTT 5.0 a pair may
        have :class:`SubscribeOptions` in the place of the QoS.

        Returns: ``MQTT_ERR_SUCCESS`` and the mid that ``on_subscribe`` gets, or ``(MQTT_ERR_NO_CONN, None)``.
        Raises: ValueError: a wrong filter, QoS or combination.
        """
        wanted = self._subscriptions(topic, qos, options)
        for subscription in wanted:
            validate_filter(subscription.topic)
        return self._request("subscribe", wanted, properties)

    def unsubscribe(
        self, topic: str | list[str], properties: Properties | None = None
    ) -> tuple[MQTTErrorCode, int | None]:
        """Undo :meth:`subscribe` for a topic filter or a list of them. Returns and raises as it does."""
        if not isinstance(topic, (str, list)) or not topic:
            raise ValueError(
                "Invalid topic." if not topic else "No topic specified, or incorrect topic type."
            )
        topic_filters = [topic] if isinstance(topic, str) else topic
        if not all(isinstance(one, str) and one for one in topic_filters):
            raise ValueError("Invalid topic.")
        return self._request("unsubscribe", topic_filters, properties)

    def _request(
        self, name: str, wanted: list[Any], properties: Properties | None
    ) -> tuple[MQTTErrorCode, int | None]:
        given = as_mapping(properties) if self._protocol == 5 else {}
        with self._lock:
            connection = self._engine.open_connection
            if connection is None:
                return (_NO_CONN, None)
            mid: int = getattr(connection, name)(wanted, given)
            wake = self._engine.unpark()
        if self._wants_log():
            shown = [
                one.encode() if isinstance(one, str) else (one.topic.encode(), one.qos) for one in wanted
            ]
            self._log(_DEBUG, "Sending %s (d0, m%d) %s", name.upper(), mid, shown)
        self._added_output(wake)
        return (_SUCCESS, mid)

    def _subscriptions(self, topic: Any, qos: int, options: SubscribeOptions | None) -> list[Subscription]:
        if isinstance(topic, tuple):
            topic, option = topic
            if self._protocol == _V5:
                options = option
            else:
                qos = option
        if isinstance(topic, list):
            if not topic:
                raise ValueError("Empty topic list")
            return [self._subscription(one, option) for one, option in topic]
        if self._protocol == _V5 and options is not None:
            if qos != 0:
                raise ValueError("Subscribe options and qos parameters cannot be combined.")
            if not isinstance(options, SubscribeOptions):
                raise ValueError("Subscribe options must be instance of SubscribeOptions class.")
            return [self._subscription(topic, options)]
        return [self._subscription(topic, qos)]

    def _subscription(self, topic: Any, option: Any) -> Subscription:
        if not isinstance(topic, str):
            raise ValueError("No topic specified, or incorrect topic type.")
        if isinstance(option, SubscribeOptions):
            if self._protocol != _V5:
                raise ValueError("Invalid QoS level.")
            return Subscription(
                topic,
                option.QoS,
                no_local=bool(option.noLocal),
                retain_as_published=bool(option.retainAsPublished),
                retain_handling=option.retainHandling,
            )
        if option < 0 or option > 2:
            raise ValueError("Invalid QoS level.")
        if not topic:
            raise ValueError("Invalid topic.")
        return Subscription(topic, option)

    def drop_out_messages(self) -> list[MQTTMessage]:
        """Forget all messages of QoS 1 and 2 that the broker has not acknowledged, and return them."""
        with self._lock:
            dropped = self._engine.drop_outgoing()
        messages = []
        for delivery in dropped:
            info: Any = delivery.on_done
            message = MQTTMessage(delivery.packet_id if info is None else info.mid, delivery.topic_field[2:])
            message.payload, message.qos, message.retain = delivery.payload, delivery.qos, delivery.retain
            if info is not None:
                message.info = info
            messages.append(message)
        return messages

    # Acknowledging

    def manual_ack_set(self, on: bool) -> None:
        """Whether the program acknowledges every received message of QoS 1 and 2 with :meth:`ack`."""
        with self._lock:
            self._manual_ack = on
            self._engine.acknowledge_by_hand(self._acknowledge if on else None)

    def ack(self, mid: int, qos: int) -> MQTTErrorCode:
        """Acknowledge a received message; nothing happens unless the program acknowledges by hand."""
        with self._lock:
            message = self._unacknowledged.pop((mid, qos), None)
        if message is not None:
            message.acknowledge()
        return _SUCCESS

    def _acknowledge(self, message: Message) -> None:
        message.handled = True
        with self._lock:
            self._engine.handled(0)
            wake = self._engine.unpark()
        self._added_output(wake)

    def _keep(self, received: Message) -> None:
        with self._lock:
            self._unacknowledged[received.packet_id, received.qos] = received


def _problem(connection: Protocol, flags: int) -> MQTTErrorCode:
    """Return why the broker does not take a message with these flags: they or its size."""
    try:
        connection.check(flags, 0)
    except LocalProtocolError:
        return MQTTErrorCode.MQTT_ERR_NOT_SUPPORTED
    return MQTTErrorCode.MQTT_ERR_PAYLOAD_SIZE
