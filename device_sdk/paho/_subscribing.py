"""Subscribing and unsubscribing. Any thread, also in callbacks."""

from __future__ import annotations

from device_sdk.mqtt.message import Subscription
from device_sdk.mqtt.topics import validate_filter
from device_sdk.paho.enums import LogLevel, MQTTErrorCode, MQTTProtocolVersion
from device_sdk.paho.properties import Properties, as_mapping
from device_sdk.paho.subscribeoptions import SubscribeOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from device_sdk.paho._core import Core
    from device_sdk.paho._program import Program
    from device_sdk.paho._settings import ConnectSettings

    Answer = tuple[MQTTErrorCode, int | None]

__all__ = ["Subscribing"]

_V5 = MQTTProtocolVersion.MQTTv5


class Subscribing:
    """SUBSCRIBE and UNSUBSCRIBE. ``added_output``: called after each."""

    def __init__(
        self, connect: ConnectSettings, core: Core, program: Program, added_output: Callable[[bool], None]
    ) -> None:
        self._connect = connect
        self._core = core
        self._program = program
        self._added_output = added_output

    def subscribe(
        self, topic: Any, qos: int, options: SubscribeOptions | None, properties: Properties | None
    ) -> Answer:
        """As ``Client.subscribe()``."""
        wanted = self._subscriptions(topic, qos, options)
        for subscription in wanted:
            validate_filter(subscription.topic)
        return self._request("subscribe", wanted, properties)

    def unsubscribe(self, topic: str | list[str], properties: Properties | None) -> Answer:
        """As ``Client.unsubscribe()``."""
        if not isinstance(topic, (str, list)) or not topic:
            raise ValueError(
                "Invalid topic." if not topic else "No topic specified, or incorrect topic type."
            )
        topic_filters = [topic] if isinstance(topic, str) else topic
        if not all(isinstance(one, str) and one for one in topic_filters):
            raise ValueError("Invalid topic.")
        return self._request("unsubscribe", topic_filters, properties)

    def _request(self, name: str, wanted: list[Any], properties: Properties | None) -> Answer:
        given = as_mapping(properties) if self._connect.protocol == _V5 else {}
        asked = self._core.request(name, wanted, given)
        if asked is None:
            return (MQTTErrorCode.MQTT_ERR_NO_CONN, None)
        mid, wake = asked
        if self._program.wants_log():
            shown = [
                one.encode() if isinstance(one, str) else (one.topic.encode(), one.qos) for one in wanted
            ]
            self._program.log(LogLevel.MQTT_LOG_DEBUG, "Sending %s (d0, m%d) %s", name.upper(), mid, shown)
        self._added_output(wake)
        return (MQTTErrorCode.MQTT_ERR_SUCCESS, mid)

    def _subscriptions(self, topic: Any, qos: int, options: SubscribeOptions | None) -> list[Subscription]:
        if isinstance(topic, tuple):
            topic, option = topic
            if self._connect.protocol == _V5:
                options = option
            else:
                qos = option
        if isinstance(topic, list):
            if not topic:
                raise ValueError("Empty topic list")
            return [self._subscription(one, option) for one, option in topic]
        if self._connect.protocol == _V5 and options is not None:
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
            if self._connect.protocol != _V5:
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
