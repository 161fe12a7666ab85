"""Outgoing topic aliases: a topic name crosses the network once, after that two bytes stand for it.

Worth it where bytes cost more than time: modems, serial lines. Source: MQTT 5.0 §3.3.2.3.4.
"""

from __future__ import annotations

from collections import OrderedDict

from device_sdk.mqtt.protocol import Protocol
from device_sdk.mqtt.wire import encode_varint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.mqtt.packets import Connack
    from device_sdk.mqtt.protocol import Event
    from device_sdk.mqtt.session import Outgoing

__all__ = ["MOST_ALIASES", "AliasingProtocol"]

MOST_ALIASES = 1_000  # whatever the server allows: bounds the topic names that are kept
_ALIAS_COST = 3  # bytes of the property
_TOPIC_ALIAS = b"\x23"


class AliasingProtocol(Protocol):
    """A connection that uses as many topic aliases as the server allows; none in MQTT 3.x.

    The topic used least recently gives up its alias to a new one. Only what leaves now is shortened: the copy
    for a repeat has its full topic, because aliases end with the connection.
    """

    _most_aliases = 0

    def publish_qos0(self, topic_field: bytes, payload: bytes, flags: int, properties: bytes) -> None:
        """As :meth:`Protocol.publish_qos0`."""
        super().publish_qos0(topic_field, payload, flags, properties)
        self._shorten_last(0)

    def send_encoded(self, packet: bytes, flags: int) -> None:
        """As :meth:`Protocol.send_encoded`."""
        super().send_encoded(packet, flags)
        self._shorten_last(0)

    def publish(self, message: Outgoing, now: float = 0.0) -> int:
        """As :meth:`Protocol.publish`."""
        packet_id = super().publish(message, now)
        self._shorten_last(2)
        return packet_id

    def _accept_connack(self, connack: Connack, events: list[Event]) -> None:
        super()._accept_connack(connack, events)
        self._most_aliases = min(self.server.get("topic_alias_maximum", 0), MOST_ALIASES)
        self._given: OrderedDict[bytes, int] = (
            OrderedDict()
        )  # topic field -> alias, least recently used first

    def _shorten_last(self, identifier_size: int) -> None:
        """Put an alias into the PUBLISH that was queued last, if that is allowed and saves something."""
        packet = self._out[-1]
        start = 2
        while packet[start - 1] > 127:
            start += 1
        end = start + 2 + int.from_bytes(packet[start : start + 2], "big")
        topic_field = packet[start:end]
        if not self._most_aliases or len(topic_field) - 2 <= _ALIAS_COST:
            return
        given = self._given
        alias = given.get(topic_field)
        known = alias is not None
        if alias is None:
            alias = len(given) + 1 if len(given) < self._most_aliases else next(iter(given.values()))
        rest = packet[end : end + identifier_size] + _with_alias(packet[end + identifier_size :], alias)
        body = (b"\0\0" if known else topic_field) + rest
        shortened = packet[:1] + encode_varint(len(body)) + body
        if len(shortened) > self._largest_packet:
            return  # introducing the alias would make it larger than the server accepts
        if known:
            given.move_to_end(topic_field)
        else:
            if len(given) >= self._most_aliases:
                given.popitem(last=False)
            given[topic_field] = alias
        self._out[-1] = shortened
        self.buffered += len(shortened) - len(packet)


def _with_alias(properties_and_payload: bytes, alias: int) -> bytes:
    """Return the end of a PUBLISH with the alias as the first property."""
    size = 1
    while properties_and_payload[size - 1] > 127:
        size += 1
    length = sum((properties_and_payload[index] & 127) << (7 * index) for index in range(size))
    return b"".join(
        (
            encode_varint(length + _ALIAS_COST),
            _TOPIC_ALIAS,
            alias.to_bytes(2, "big"),
            properties_and_payload[size:],
        )
    )
