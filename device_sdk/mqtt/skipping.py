"""Messages of other clients that have to be skipped: what of them is read, and when that is allowed.

The standard makes us close the connection for a text that is not UTF-8. A server that does not check such a
message sends it again on the next connection, for ever, and our own messages stand behind it. So the third
connection in a row that meets one passes over it. See decision 0025.

Threads: the caller serialises all calls.
"""

from __future__ import annotations

from device_sdk.errors import MalformedPacketError, RemoteProtocolError
from device_sdk.mqtt.codes import PROPERTIES, PropertyDefinition
from device_sdk.mqtt.wire import decode_properties

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["IN_A_ROW", "LONGEST_SHOWN", "Head", "Unreadable", "read_head"]

#: The connection in a row that passes over such a message: those before it are closed.
IN_A_ROW = 3

#: Bytes of a topic name that are told of a message that is skipped.
LONGEST_SHOWN = 200

_PUBLISH = "publish"


class Unreadable:
    """How many connections in a row have met a message that cannot be read. Lives as long as the session.

    ``aliases``: topic aliases of this connection that stand for a topic name that cannot be read, with the
    name as :attr:`Head.shown`.
    """

    __slots__ = ("_in_a_row", "_is_met", "aliases")

    def __init__(self) -> None:
        self.aliases: dict[int, str] = {}
        self._in_a_row = 0
        self._is_met = False  # on this connection

    def begin(self) -> None:
        """Note that a connection has begun: without such a message on the last one there is no row."""
        if not self._is_met:
            self._in_a_row = 0
        self._is_met = False
        self.aliases = {}

    def met(self) -> bool:
        """Note that such a message has come; return whether it is to be skipped, else the connection ends."""
        if not self._is_met:
            self._is_met = True
            self._in_a_row += 1
        return self._in_a_row >= IN_A_ROW


class Head:
    """A PUBLISH of which the text is not looked at: ``topic`` and ``alias`` (0: none) as they came."""

    __slots__ = ("alias", "packet_id", "topic")

    def __init__(self, topic: bytes, packet_id: int, alias: int) -> None:
        self.topic = topic
        self.packet_id = packet_id
        self.alias = alias

    @property
    def shown(self) -> str:
        """The beginning of the topic name for people: bytes that are not UTF-8 by their number."""
        return self.topic[:LONGEST_SHOWN].decode("utf-8", "backslashreplace")


def read_head(first: int, data: bytes, start: int, stop: int, *, has_properties: bool) -> Head:
    """Read a PUBLISH as far as its server has to understand it.

    Raises: MalformedPacketError, RemoteProtocolError: the server's own fault, not that of another client.
    """
    end = start + 2 + int.from_bytes(data[start : start + 2], "big")
    topic, packet_id, alias = data[start + 2 : end], 0, 0
    if first & 6:
        packet_id = int.from_bytes(data[end : end + 2], "big")
        end += 2
    if end > stop or start + 2 > stop:
        raise MalformedPacketError("PUBLISH ends within its topic name or its packet identifier")
    if first & 6 and not packet_id:
        raise RemoteProtocolError("PUBLISH with packet identifier 0")
    if has_properties:
        alias = decode_properties(data, end, stop, _PUBLISH, _UNCHECKED)[0].get("topic_alias", 0)
    return Head(topic, packet_id, alias)


# Properties that a server has to pass on as another client gave them, and those that are its own.
# Source: MQTT 5.0 §3.3.2.3 [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-20].
_AS_BYTES = {"byte": "byte", "utf8": "binary", "utf8-pair": "binary-pair", "binary": "binary"}
_PASSED_ON = frozenset(
    {"payload_format_indicator", "content_type", "response_topic", "correlation_data", "user_property"}
)


def _unchecked(entry: PropertyDefinition) -> PropertyDefinition:
    if entry.name not in _PASSED_ON:
        return entry
    unchecked = PropertyDefinition(entry.identifier, entry.name, _AS_BYTES[entry.type], _PUBLISH)
    unchecked.repeatable = unchecked.packets
    return unchecked


_UNCHECKED: dict[int, Any] = {identifier: _unchecked(entry) for identifier, entry in PROPERTIES.items()}
