"""Publishing. Any thread, also in callbacks."""

from __future__ import annotations

from device_sdk._clock import boottime
from device_sdk.engine.reentry import reentered
from device_sdk.errors import LocalProtocolError, QueueFullError
from device_sdk.mqtt.topics import validate_topic
from device_sdk.paho._message import MQTTMessage, MQTTMessageInfo, encode_payload, info_for
from device_sdk.paho.enums import LogLevel, MQTTErrorCode
from device_sdk.paho.properties import Properties, as_mapping, publish_block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from device_sdk.mqtt.protocol import Protocol
    from device_sdk.paho._core import Core
    from device_sdk.paho._life_cycle import LifeCycle
    from device_sdk.paho._message import Listener
    from device_sdk.paho._program import Program
    from device_sdk.paho._settings import ConnectSettings, Limits
    from device_sdk.paho._waker import Waker

__all__ = ["Outgoing"]

_NO_CONN = MQTTErrorCode.MQTT_ERR_NO_CONN
_QUEUE_SIZE = MQTTErrorCode.MQTT_ERR_QUEUE_SIZE
_NOT_SUPPORTED = MQTTErrorCode.MQTT_ERR_NOT_SUPPORTED
_LARGEST_PAYLOAD = 268_435_455
_TOPIC_CACHE_SIZE = 1_000


class Outgoing:
    """The messages of the program on their way to the broker. ``added_output``: called after each."""

    def __init__(
        self,
        connect: ConnectSettings,
        limits: Limits,
        life: LifeCycle,
        core: Core,
        program: Program,
        listener: Listener,
        waker: Waker,
        added_output: Callable[[bool], None],
    ) -> None:
        self._connect = connect
        self._limits = limits
        self._life = life
        self._core = core
        self._engine = core.engine
        self._lock = core.lock
        self._program = program
        self._listener = listener
        self._waker = waker
        self._added_output = added_output
        self._topics: dict[str, bytes] = {}  # topic field by topic name, of those published last
        self._aliases: dict[int, bytes] = {}  # topic field by the alias that the program gave it

    def publish(
        self, topic: str, payload: Any, qos: int, retain: bool, properties: Properties | None
    ) -> MQTTMessageInfo:
        """As ``Client.publish()``."""
        topic_field = self._topics.get(topic) or self._topic_field(topic)
        if type(payload) is not bytes:
            payload = encode_payload(payload)
        if qos < 0 or qos > 2 or len(payload) > _LARGEST_PAYLOAD:
            raise ValueError("Payload too large." if 0 <= qos <= 2 else "Invalid QoS level.")
        block = b""
        if self._connect.protocol == 5:
            block = b"\0"
            if properties is not None:
                topic_field, block = self._resolved(topic_field, properties)
            if len(topic_field) == 2:
                raise ValueError("Invalid topic.")
        flags = qos << 1 | 1 if retain else qos << 1
        engine, lock = self._engine, self._lock
        if lock._is_owned():  # type: ignore[attr-defined]  # has_lock() written out: a call less
            raise reentered("publish()")
        wake = False
        try:  # not "with", see BaseClient.publish()
            lock.acquire()
            if qos:
                info = self._publish_acknowledged(topic_field, payload, flags, block)
            else:
                info = self._publish_at_once(topic_field, payload, flags, block)
                if info.rc:
                    lock.release()
                    return info
            wake = engine.parked and engine.wants_attention()
            if wake:
                engine.parked = False
            lock.release()
            if self._program.wants_log():
                self._log(info, topic, payload, flags, properties)
            if wake or not (self._listener.thread or self._waker.loops):  # else a loop looks by itself
                self._added_output(wake)
            return info
        except BaseException:
            engine.parked |= wake  # whoever publishes next wakes the loop
            try:
                lock.release()  # the first call in here: a second signal may come after it
            except RuntimeError:
                pass  # it was not taken yet, or is given back already
            self._waker.wake()
            raise

    def _log(
        self, info: MQTTMessageInfo, topic: str, payload: bytes, flags: int, properties: Properties | None
    ) -> None:
        self._program.log(
            LogLevel.MQTT_LOG_DEBUG,
            "Sending PUBLISH (d0, q%d, r%d, m%d), '%s'%s%s",
            flags >> 1,
            flags & 1,
            info.mid,
            topic.encode(),
            f", properties={properties}" if self._connect.protocol == 5 else "",
            f", ... ({len(payload)} bytes)" if payload else " (NULL payload)",
        )

    def _publish_at_once(
        self, topic_field: bytes, payload: bytes, flags: int, block: bytes
    ) -> MQTTMessageInfo:
        """Publish with QoS 0. The lock is held."""
        engine = self._engine
        info = info_for(self._listener, engine.next_mid())
        connection = engine.open_connection
        if connection is None:
            info.rc = _NO_CONN
            return info
        try:
            connection.publish_qos0(topic_field, payload, flags, block)
        except LocalProtocolError:
            info.lose(_problem(connection, flags))
            return info
        engine.reactions.unsent.append(info)
        return info

    def _publish_acknowledged(
        self, topic_field: bytes, payload: bytes, flags: int, block: bytes
    ) -> MQTTMessageInfo:
        """Publish with QoS 1 or 2. The lock is held."""
        engine, limit = self._engine, self._limits.queued
        if limit and engine.outstanding >= limit:
            return self._lost(_QUEUE_SIZE)
        try:
            delivery = engine.outgoing.publish(topic_field, payload, flags, block, None, None)
        except QueueFullError:  # a store that cannot write as fast
            return self._lost(_QUEUE_SIZE)
        except LocalProtocolError:
            connection = engine.open_connection
            return self._lost(_NOT_SUPPORTED if connection is None else _problem(connection, flags))
        assert delivery is not None  # the policy is not to block
        info = info_for(self._listener, delivery.packet_id or engine.next_mid(), delivery)
        delivery.on_done = info
        connection = engine.open_connection
        if connection is None:
            self._life.await_connection(info)
        elif engine.outgoing.online is None and not (self._listener.thread or self._waker.loops):
            engine.outgoing.send_ahead(connection, boottime())  # perhaps nobody ever reads CONNACK
        return info

    def _lost(self, rc: MQTTErrorCode) -> MQTTMessageInfo:
        """Return the future of a message that will not be sent. The lock is held."""
        info = info_for(self._listener, self._engine.next_mid())
        info.lose(rc)
        return info

    def _topic_field(self, topic: str) -> bytes:
        """Return the topic name as it is in the packet. Raises: ValueError: not a valid one."""
        if topic is None or (not topic and self._connect.protocol != 5):
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
        return topic_field, publish_block(given)

    def drop(self) -> list[MQTTMessage]:
        """As ``Client.drop_out_messages()``."""
        messages = []
        for delivery in self._core.drop_outgoing():
            info: Any = delivery.on_done
            message = MQTTMessage(delivery.packet_id if info is None else info.mid, delivery.topic_field[2:])
            message.payload, message.qos, message.retain = delivery.payload, delivery.qos, delivery.retain
            if info is not None:
                message.info = info
            messages.append(message)
        return messages


def _problem(connection: Protocol, flags: int) -> MQTTErrorCode:
    """Return why the broker does not take a message with these flags: they or its size."""
    try:
        connection.check(flags, 0)
    except LocalProtocolError:
        return MQTTErrorCode.MQTT_ERR_NOT_SUPPORTED
    return MQTTErrorCode.MQTT_ERR_PAYLOAD_SIZE
