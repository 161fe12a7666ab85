"""The receiving half of a network connection: frames packets and decodes the frequent ones in place.

Everything the peer can get wrong ends here in a :class:`RemoteProtocolError`, which
:meth:`Receiver.receive_data` turns into the last event of the connection.
"""

from __future__ import annotations

from collections import deque

from device_sdk.errors import LocalProtocolError, MalformedPacketError, RemoteProtocolError
from device_sdk.mqtt.decode import decode_body, read_topic_name
from device_sdk.mqtt.events import PayloadNotText
from device_sdk.mqtt.keep_alive import KeepAlive
from device_sdk.mqtt.message import Message
from device_sdk.mqtt.session import ACKNOWLEDGED
from device_sdk.mqtt.wire import decode_properties

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from device_sdk.mqtt.options import ConnectOptions
    from device_sdk.mqtt.protocol import Event
    from device_sdk.mqtt.session import Session

    Handler = Callable[[int, bytes, int, int, list[Event]], None]

__all__ = ["CLOSED", "CONNECTED", "CONNECTING", "DISCONNECTING", "IDLE", "MOST_ANSWERS", "Receiver"]

#: The states of a network connection.
IDLE, CONNECTING, CONNECTED, DISCONNECTING, CLOSED = range(5)

_PACKET_NAMES = (
    "packet type 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
    "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
)  # fmt: skip
#: Acknowledgements that may wait to leave. Each belongs to a packet identifier that cannot be used again
#: before the answer was read, and there are 65,535 on each side: a server with more unread does not read.
MOST_ANSWERS = 2 * 65_535
_MOST_HELD = 65_535  # messages whose acknowledgement waits for a handler
# A packet that has begun must be complete after so many seconds, and one more for each so many bytes of it.
_PATIENCE = 60.0
_SLOWEST = 100

_TOPIC_CACHE_SIZE = 1_000
_LONGEST_CACHED_TOPIC = 512  # bytes; with the line above it bounds what a server can make us keep


class Receiver:
    """Turns received bytes into events; the reactions are those of its subclass, Protocol."""

    session: Session
    version: str
    state: int

    # The reactions to what was received, in Protocol
    acknowledge_handled: Any
    _accept_connack: Any
    _accept_pubrec: Any
    _accept_pubrel: Any
    _accept_suback: Any
    _accept_disconnect: Any
    _accept_auth: Any
    _refuse: Any
    _finish: Any
    _fail: Any

    def __init__(self, options: ConnectOptions) -> None:
        self._limit = options.maximum_packet_size
        self._surely_fits = self._limit - 5  # a remaining length up to this is within the limit
        self._receive_maximum = options.receive_maximum if options.version == "5.0" else 65_535
        self._alias_maximum = options.topic_alias_maximum
        self._has_properties = options.version == "5.0"
        self._aliases: dict[int, str] = {}
        self._topics: dict[bytes, str] = {}
        # The beginning of a packet that is not complete yet. A list of the pieces would take twenty times
        # their bytes from a server that sends two at a time.
        self._partial = bytearray()
        self._needed = 0
        self._began: float | None = None  # when the first byte of that packet came; None: with the next byte
        self._answers = 0  # acknowledgements among the output
        self._out: list[bytes] = []
        self._unacknowledged: deque[Message] = deque()  # in receive order
        # What the server has to count against our receive maximum: messages of this connection only.
        self._incoming = 0
        self._incoming_qos2: set[int] = set()  # those of them whose PUBREL will come
        self.keep_alive = KeepAlive(options.keep_alive)
        self._handlers: list[Handler] = [self._unexpected] * 16
        self._handlers[2] = self._on_connack
        if self._has_properties:
            self._handlers[14] = self._on_disconnect
            self._handlers[15] = self._on_auth

    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """Take what the stream delivered and return what it meant.

        Raises nothing for the peer's faults; after :class:`ConnectionEnded` further data is ignored.
        """
        events: list[Event] = []
        if self.state == CLOSED:
            return events
        self.keep_alive.last_received = now
        began = None
        if self._partial:
            if self._began is None:
                self._began = now
            self._partial += data
            if len(self._partial) < self._needed:
                return events
            data = bytes(self._partial)
            self._partial = bytearray()
            began = self._began
        try:
            if self._answers > MOST_ANSWERS:
                raise RemoteProtocolError(f"{self._answers} of our answers wait and are not read", 0x97)
            position = self._decode(data, events)
        except (RemoteProtocolError, LocalProtocolError) as error:
            events.extend(self._fail(error))
            return events
        if position < len(data) and self.state != CLOSED:
            self._partial += data[position:]
            self._began = now if position or began is None else began
        return events

    @property
    def reading_paused(self) -> bool:
        """Whether our side does not read: then silence proves nothing. PINGREQ goes on."""
        return self.keep_alive.paused

    @reading_paused.setter
    def reading_paused(self, paused: bool) -> None:
        if paused is not self.keep_alive.paused:
            self._began = None  # the rest of a packet may wait unread: its time begins again
            self.keep_alive.paused = paused

    def _packet_deadline(self) -> float | None:
        """When the packet that has begun to arrive must be complete; ``None``: there is none, or no hurry."""
        if not self._partial or self._began is None or self.keep_alive.paused:
            return None
        return self._began + _PATIENCE + self._needed / _SLOWEST

    def _decode(self, data: bytes, events: list[Event]) -> int:
        """Handle all whole packets in ``data``; return where the first incomplete one begins."""
        position = 0
        size = len(data)
        surely_fits = self._surely_fits
        while position + 2 <= size:
            first = data[position]
            length = data[position + 1]
            start = position + 2
            if length > 127:
                long_length = self._long_length(data, position, size)
                if long_length is None:
                    self._needed = size - position + 1
                    return position
                length, start = long_length
            stop = start + length
            if stop > size or length > surely_fits:
                self._check_early(first, stop - position)
                if stop > size:
                    self._needed = stop - position
                    return position
            self._handlers[first >> 4](first, data, start, stop, events)
            if self.state == CLOSED:
                return size
            position = stop
        self._needed = 2
        return position

    def _long_length(self, data: bytes, position: int, size: int) -> tuple[int, int] | None:
        """Decode a remaining length of 2 to 4 bytes; ``None`` while it is incomplete."""
        length = 0
        for count in range(4):
            index = position + 1 + count
            if index >= size:
                return None
            byte = data[index]
            length |= (byte & 127) << (7 * count)
            if byte < 128:
                if byte == 0:
                    raise MalformedPacketError("remaining length is not in its shortest form")
                return length, index + 1
        raise MalformedPacketError("remaining length has more than four bytes")

    def _check_early(self, first: int, total: int) -> None:
        """Refuse early what can only become a fault, so that nobody waits for 256 MB of garbage."""
        if total > self._limit:
            raise MalformedPacketError(
                f"{_PACKET_NAMES[first >> 4]} of {total} bytes is larger than the {self._limit} bytes "
                "of maximum_packet_size",
                0x95,
            )
        if self._handlers[first >> 4] == self._unexpected:
            self._unexpected(first, b"", 0, 0, [])

    def _accept_all_packets(self) -> None:
        """CONNACK has come: from now on the server's other packets are legal, a second CONNACK is not."""
        handlers = self._handlers
        handlers[2] = self._unexpected
        handlers[3] = self._on_publish
        handlers[4] = self._on_puback
        handlers[5] = self._on_pubrec
        handlers[6] = self._on_pubrel
        handlers[7] = self._on_pubcomp
        handlers[9] = handlers[11] = self._on_suback
        handlers[13] = self._on_pingresp

    def _ignore_all_packets(self) -> None:
        """The client has left before it knew whether it was let in."""
        self._handlers = [self._ignored] * 16

    # One handler per packet type: first byte, data, where the body starts and stops, events to extend

    def _on_publish(self, first: int, data: bytes, start: int, stop: int, events: list[Event]) -> None:
        qos = (first >> 1) & 3
        position = start + 2
        if qos == 3 or (first & 14 == 8 and self.version != "3.1") or position > stop:
            raise MalformedPacketError("PUBLISH with illegal QoS or DUP bits, or without a topic name")
        end = position + (data[start] << 8) + data[start + 1]
        if end > stop:
            raise MalformedPacketError("topic name of a PUBLISH is longer than its packet")
        raw = data[start:end]
        topic = self._topics.get(raw)
        if topic is None:
            topic = self._new_topic(raw)
        packet_id = 0
        if qos:
            if end + 2 > stop:
                raise MalformedPacketError("PUBLISH without its packet identifier")
            packet_id = (data[end] << 8) | data[end + 1]
            if not packet_id:
                raise RemoteProtocolError("PUBLISH with packet identifier 0")
            end += 2
        properties = None
        if self._has_properties:
            if end < stop and not data[end]:
                end += 1
            else:
                properties, end = decode_properties(data, end, stop, "publish")
        if properties is not None or not topic:
            topic = self._resolve_alias(topic, properties)
            if properties and properties.get("payload_format_indicator"):
                _check_text(topic, data[end:stop], events)
        message = Message(topic, data[end:stop], qos, first & 1 == 1, first & 8 == 8, packet_id, properties)
        if not qos:
            events.append(message)
        else:
            self._accept_acknowledged(message, events)

    def _new_topic(self, field: bytes) -> str:
        """Decode and check a topic name once; the same bytes cost a dict look-up from then on."""
        if field == b"\0\0" and self._has_properties:
            return ""  # legal with a topic alias
        topic = read_topic_name(field, 0, len(field))[0]
        if len(field) <= _LONGEST_CACHED_TOPIC:
            if len(self._topics) >= _TOPIC_CACHE_SIZE:
                self._topics.clear()
            self._topics[field] = topic
        return topic

    def _resolve_alias(self, topic: str, properties: dict[str, Any] | None) -> str:
        """Set or use a topic alias. Source: MQTT 5.0 §3.3.2.3.4."""
        alias = properties.get("topic_alias") if properties else None
        if alias is None:
            if not topic:
                raise RemoteProtocolError("PUBLISH with an empty topic name and no topic alias")
            return topic
        if not 0 < alias <= self._alias_maximum:
            raise RemoteProtocolError(
                f"topic alias {alias} is outside 1..{self._alias_maximum}, what we announced", 0x94
            )
        if topic:
            self._aliases[alias] = topic
            return topic
        try:
            return self._aliases[alias]
        except KeyError:
            raise RemoteProtocolError(f"topic alias {alias} has not been set", 0x82) from None

    def _accept_acknowledged(self, message: Message, events: list[Event]) -> None:
        """A QoS 1 or 2 message: count it, and deliver it unless QoS 2 has seen it before."""
        if self._incoming >= self._receive_maximum:
            raise RemoteProtocolError(
                f"more than {self._receive_maximum} unacknowledged messages, our receive maximum", 0x93
            )
        if message.qos == 2:
            packet_id, received = message.packet_id, self.session.received
            if packet_id not in self._incoming_qos2:
                self._incoming_qos2.add(packet_id)
                self._incoming += 1
            if packet_id in received:
                earlier = received[packet_id]
                if earlier is None:
                    message.handled = True
                    earlier = message
                elif len(self._unacknowledged) >= _MOST_HELD:
                    raise RemoteProtocolError(f"packet identifier {packet_id} is repeated without end", 0x93)
                self._unacknowledged.append(earlier)
                self.acknowledge_handled()
                return
            received[packet_id] = message
        else:
            self._incoming += 1
        self._unacknowledged.append(message)
        events.append(message)

    def _acknowledgement(
        self, first: int, flags: int, data: bytes, start: int, stop: int
    ) -> tuple[int, int, Any]:
        """Return packet identifier, reason code and, if it had more than the identifier, the packet."""
        if stop - start == 2 and first & 15 == flags:
            packet_id = (data[start] << 8) | data[start + 1]
            if packet_id:
                return packet_id, 0, None
        packet: Any = decode_body(first, data, start, stop, self.version)
        return packet.packet_id, packet.reason_code, packet

    def _on_puback(self, first: int, data: bytes, start: int, stop: int, events: list[Event]) -> None:
        if stop - start == 2 and first == 0x40:  # success, for a message that waits for it
            waiting = self.session.in_flight.get((data[start] << 8) | data[start + 1])
            if waiting is not None and waiting.flags < 4:
                self._finish(waiting, ACKNOWLEDGED, events)
                return
        packet_id, reason_code, packet = self._acknowledgement(first, 0, data, start, stop)
        message = self.session.in_flight.get(packet_id)
        if message is None:
            if packet_id not in self.session.released:
                return  # for a message that we have forgotten
            message = self.session.released[packet_id]
        # RabbitMQ takes QoS 2 for QoS 1, and MQTT 3.x cannot say so beforehand: refusing that would only send
        # the message again and again.
        downgraded = self.version != "5.0" and packet_id in self.session.in_flight
        if message.flags >= 4 and not downgraded:
            raise RemoteProtocolError(f"PUBACK answers packet identifier {packet_id}, which is QoS 2")
        if reason_code >= 0x80:
            self._refuse(message, reason_code, packet, events)
        else:
            self._finish(message, ACKNOWLEDGED, events)

    def _on_pubrec(self, first: int, data: bytes, start: int, stop: int, events: list[Event]) -> None:
        packet_id, reason_code, packet = self._acknowledgement(first, 0, data, start, stop)
        self._accept_pubrec(packet_id, reason_code, events, packet)

    def _on_pubrel(self, first: int, data: bytes, start: int, stop: int, events: list[Event]) -> None:
        packet_id, _, _ = self._acknowledgement(first, 2, data, start, stop)
        self._accept_pubrel(packet_id)

    def _on_pubcomp(self, first: int, data: bytes, start: int, stop: int, events: list[Event]) -> None:
        packet_id, _, _ = self._acknowledgement(first, 0, data, start, stop)
        message = self.session.released.get(packet_id)
        if message is not None:
            self._finish(message, ACKNOWLEDGED, events)
        elif packet_id in self.session.in_flight:
            raise RemoteProtocolError(f"PUBCOMP for packet identifier {packet_id} came before our PUBREL")

    def _on_connack(self, first: int, data: bytes, start: int, stop: int, events: list[Event]) -> None:
        self._accept_connack(decode_body(first, data, start, stop, self.version), events)

    def _on_suback(self, first: int, data: bytes, start: int, stop: int, events: list[Event]) -> None:
        self._accept_suback(decode_body(first, data, start, stop, self.version), events)

    def _on_pingresp(self, first: int, data: bytes, start: int, stop: int, events: list[Event]) -> None:
        decode_body(first, data, start, stop, self.version)
        self.keep_alive.answered()

    def _on_disconnect(self, first: int, data: bytes, start: int, stop: int, events: list[Event]) -> None:
        self._accept_disconnect(decode_body(first, data, start, stop, self.version), events)

    def _on_auth(self, first: int, data: bytes, start: int, stop: int, events: list[Event]) -> None:
        self._accept_auth(decode_body(first, data, start, stop, self.version), events)

    def _ignored(self, first: int, data: bytes, start: int, stop: int, events: list[Event]) -> None:
        pass

    def _unexpected(self, first: int, data: bytes, start: int, stop: int, events: list[Event]) -> None:
        kind = first >> 4
        if kind == 0 or (kind == 15 and not self._has_properties):
            raise MalformedPacketError(f"first byte 0x{first:02x} is no control packet")
        when = " before CONNACK" if self.state == CONNECTING else ""
        raise RemoteProtocolError(f"the server sent {_PACKET_NAMES[kind]}{when}, which it must not")


def _check_text(topic: str, payload: bytes, events: list[Event]) -> None:
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        events.append(PayloadNotText(topic, error.start))
