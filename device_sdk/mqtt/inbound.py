"""Messages from the server: PUBLISH, decoded in place, and our end of its QoS 1 and 2 exchanges.

An exchange of QoS 2 in this direction is PUBLISH (:meth:`Inbound.on_publish`), our PUBREC once the message is
handled (:meth:`Inbound.acknowledge_handled`), PUBREL and our PUBCOMP (:meth:`Inbound.on_pubrel`). With the
rule ``delivers_at_pubrel`` it is PUBLISH and our PUBREC, PUBREL, and our PUBCOMP once the message is handled.
Any fault of the server raises :class:`RemoteProtocolError`.

Threads: the caller serialises all calls. Source: MQTT 5.0 §3.3, §4.3, §4.6.
"""

from __future__ import annotations

from collections import deque

from device_sdk.errors import MalformedPacketError, RemoteProtocolError
from device_sdk.mqtt.decode import read_acknowledgement
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.events import MessageSkipped, PayloadNotText
from device_sdk.mqtt.message import AckToken, Message
from device_sdk.mqtt.packets import Pubcomp
from device_sdk.mqtt.skipping import LONGEST_SHOWN, Head, read_head
from device_sdk.mqtt.wire import decode_properties, decoded_size, encode_varint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from device_sdk.mqtt.options import ConnectOptions
    from device_sdk.mqtt.output import Output
    from device_sdk.mqtt.rules import ProtocolRules
    from device_sdk.mqtt.session import Session

__all__ = ["Inbound"]

_MOST_HELD = 65_535  # messages whose acknowledgement waits for a handler
_MOST_HELD_BYTES = 16 * 1024 * 1024  # of messages that wait for their PUBREL
_PUBREC = b"\x50\x02"  # without its packet identifier
_NOT_FOUND = 0x92  # reason code: packet identifier not found
_TOPIC_CACHE_SIZE = 1_000
_LONGEST_CACHED_TOPIC = 512  # bytes; with the line above it bounds the memory that a server can make us use


class Inbound:
    """The messages that arrive on one connection, and the acknowledgements that we owe for them.

    ``aliases``, ``topics``: the topic names that the server has made us keep, by topic alias and by their
    encoded form; ``unpacked``: bytes of memory that the properties of received messages take, since
    :meth:`take_unpacked`. The handlers take the first byte, the data, where the body starts and stops, and
    the list of events that they extend.
    """

    __slots__ = (
        "_alias_maximum",
        "_has_properties",
        "_incoming",
        "_incoming_qos2",
        "_output",
        "_read_topic",
        "_receive_maximum",
        "_released",
        "_room_to_hold",
        "_session",
        "_unacknowledged",
        "_version",
        "aliases",
        "topics",
        "unpacked",
    )

    def __init__(
        self, session: Session, output: Output, options: ConnectOptions, rules: ProtocolRules
    ) -> None:
        self._session = session
        self._output = output
        self._read_topic = rules.read_topic
        self._room_to_hold = -1  # bytes of messages that may wait for their PUBREL; below 0: none may
        if rules.delivers_at_pubrel and not session.journal:
            self._room_to_hold = max(0, _MOST_HELD_BYTES - sum(map(_weight, self.held())))
        self._released: set[int] = set()  # delivered at PUBREL, and to be answered on this connection
        self._version = options.version
        self._has_properties = options.version == "5.0"
        self._receive_maximum = options.receive_maximum if self._has_properties else 65_535
        self._alias_maximum = options.topic_alias_maximum
        self.aliases: dict[int, str] = {}
        self.topics: dict[bytes, str] = {}
        self.unpacked = 0
        self._unacknowledged: deque[Message | AckToken] = deque()  # in receive order
        # Messages that the server has to count against our receive maximum: those of this connection only.
        self._incoming = 0
        self._incoming_qos2: set[int] = set()  # those of them whose PUBREL will come

    def on_publish(self, first: int, data: bytes, start: int, stop: int, events: list[Any]) -> None:
        """PUBLISH: a message, to be acknowledged when it has been handled."""
        qos = (first >> 1) & 3
        position = start + 2
        if qos == 3 or (first & 14 == 8 and self._version != "3.1") or position > stop:
            raise MalformedPacketError("PUBLISH with illegal QoS or DUP bits, or without a topic name")
        end = position + (data[start] << 8) + data[start + 1]
        if end > stop:
            raise MalformedPacketError("topic name of a PUBLISH is longer than its packet")
        raw = data[start:end]
        packet_id = 0
        if qos:
            if end + 2 > stop:
                raise MalformedPacketError("PUBLISH without its packet identifier")
            packet_id = (data[end] << 8) | data[end + 1]
            if not packet_id:
                raise RemoteProtocolError("PUBLISH with packet identifier 0")
            end += 2
        properties = None
        try:
            topic = self.topics.get(raw)
            if topic is None:
                topic = self._new_topic(raw)
            if self._has_properties:
                if end < stop and not data[end]:
                    end += 1
                else:
                    properties, end = decode_properties(data, end, stop, "publish")
                    self.unpacked += decoded_size(properties)
            if properties is not None or not topic:
                topic = self._resolve_alias(topic, properties)
        except RemoteProtocolError as error:
            if not self._skips(error, first, data, start, stop, events):
                raise
            return
        if properties and properties.get("payload_format_indicator"):
            _check_text(topic, data[end:stop], events)
        message = Message(topic, data[end:stop], qos, first & 1 == 1, first & 8 == 8, packet_id, properties)
        if qos:
            if self._incoming >= self._receive_maximum:
                raise self._too_many()
            if qos == 1:
                self._incoming += 1
            elif self._is_kept_back(message):
                return
            self._unacknowledged.append(message)
        events.append(message)

    def _too_many(self) -> RemoteProtocolError:
        return RemoteProtocolError(
            f"more than {self._receive_maximum} unacknowledged messages, our receive maximum", 0x93
        )

    # Messages of other clients that are skipped, see decision 0025

    def on_oversized(self, first: int, data: bytes, start: int, stop: int) -> Message:
        """The head of a PUBLISH that is larger than we take, which the server cannot know.

        Its end comes to :meth:`skip_oversized`. In MQTT 5.0 we have allowed no topic alias then.
        """
        head = read_head(first, data, start, stop, has_properties=False)
        qos = (first >> 1) & 3
        if qos > 2 or (first & 8 and not qos and self._version != "3.1"):
            raise MalformedPacketError("PUBLISH with illegal QoS or DUP bits")
        if not head.topic and self._has_properties:
            raise RemoteProtocolError("PUBLISH with an empty topic name, and we have allowed no topic alias")
        try:
            topic = self._new_topic(data[start : start + 2 + len(head.topic)])
        except RemoteProtocolError:
            if not self._session.unreadable.met():
                raise
            topic = head.shown
        return Message(topic, b"", qos, packet_id=head.packet_id)

    def skip_oversized(self, message: Message, size: int, events: list[Any]) -> None:
        """The end of a PUBLISH that is larger than we take."""
        if message.qos and self._incoming >= self._receive_maximum:
            raise self._too_many()
        self._skip(message, size, "it is larger than maximum_packet_size", events)

    def _skips(
        self, error: RemoteProtocolError, first: int, data: bytes, start: int, stop: int, events: list[Any]
    ) -> bool:
        """Skip a message that cannot be read, if that is the fault of another client and we may."""
        qos = (first >> 1) & 3
        try:
            head = read_head(first, data, start, stop, has_properties=self._has_properties)
        except RemoteProtocolError:
            return False
        is_full = qos and self._incoming >= self._receive_maximum
        if is_full or not self._names_topic(head) or not self._session.unreadable.met():
            return False
        topic = self._set_alias(head, data[start : start + 2 + len(head.topic)])
        message = Message(topic, b"", qos, packet_id=head.packet_id)
        size = 1 + len(encode_varint(stop - start)) + stop - start
        self._skip(message, size, str(error), events)
        return True

    def _names_topic(self, head: Head) -> bool:
        """Whether the server has used topic name and alias as it must."""
        if not self._has_properties:
            return True
        if not head.alias:
            return bool(head.topic)
        known = head.topic or head.alias in self.aliases or head.alias in self._session.unreadable.aliases
        return bool(known) and head.alias <= self._alias_maximum

    def _set_alias(self, head: Head, field: bytes) -> str:
        """Set or use the topic alias of a message that is skipped; return its topic name, for people."""
        aliases, unreadable = self.aliases, self._session.unreadable.aliases
        alias = head.alias
        if alias and not head.topic:
            return aliases.get(alias) or unreadable[alias]
        try:
            topic = self._new_topic(field)
        except RemoteProtocolError:
            topic = head.shown
            if alias:
                aliases.pop(alias, None)
                unreadable[alias] = topic
        else:
            if alias:
                aliases[alias] = topic
        return topic

    def _skip(self, message: Message, size: int, reason: str, events: list[Any]) -> None:
        """Acknowledge a message in its turn, and tell of it instead of delivering it."""
        if message.qos:
            message.handled = True
            token = _token_of(message)
            if message.qos == 1:
                self._incoming += 1
            elif self._is_kept_back(token):
                return
            self._unacknowledged.append(token)
            self.acknowledge_handled()
        events.append(MessageSkipped(message.topic[:LONGEST_SHOWN], message.qos, size, reason))

    def acknowledge_handled(self) -> None:
        """Queue PUBACK or PUBREC for the messages marked ``handled``, as far as receive order allows.

        Source: MQTT 5.0 §4.6 [MQTT-4.6.0-2] [MQTT-4.6.0-3].
        """
        waiting, output, session = self._unacknowledged, self._output, self._session
        while waiting and waiting[0].handled:
            message = waiting.popleft()
            packet_id = message.packet_id
            if message.qos == 1:
                self._incoming -= 1
                output.answer(b"\x40\x02" + packet_id.to_bytes(2, "big"))
                continue
            if packet_id in session.releases:  # delivered at PUBREL: this ends the exchange
                del session.releases[packet_id]
                session.received.pop(packet_id, None)
                self._released.discard(packet_id)
                if packet_id in self._incoming_qos2:
                    self._incoming_qos2.remove(packet_id)
                    self._incoming -= 1
                output.answer(b"\x70\x02" + packet_id.to_bytes(2, "big"))
                continue
            change = 0
            if packet_id in session.received:
                session.received[packet_id] = None
                if session.journal:
                    change = session.record(("received", packet_id))
            output.answer(b"\x50\x02" + packet_id.to_bytes(2, "big"), change)

    def on_pubrel(self, first: int, data: bytes, start: int, stop: int, events: list[Any]) -> None:
        """PUBREL: forget the packet identifier, and answer with PUBCOMP."""
        packet_id = (data[start] << 8) | data[start + 1] if stop - start == 2 and first == 0x62 else 0
        if not packet_id:
            packet_id, _, _ = read_acknowledgement(first, data, start, stop, self._version)
        session = self._session
        received = session.received
        pubcomp = b"\x70\x02" + packet_id.to_bytes(2, "big")
        if packet_id not in received:
            if self._has_properties:
                pubcomp = encode_packet(Pubcomp(packet_id, _NOT_FOUND), self._version)
        elif received[packet_id] is not None:
            if packet_id in session.releases:
                message = received[packet_id]
                assert message is not None
                if packet_id in self._released:
                    return  # repeated while we owe the answer
                self._released.add(packet_id)
                self._unacknowledged.append(message)
                if session.releases[packet_id]:  # by an earlier connection
                    self.acknowledge_handled()
                    return
                assert type(message) is Message
                session.releases[packet_id] = True
                self._room_to_hold += _weight(message) if message.properties else len(message.payload)
                events.append(message)
                return
            raise RemoteProtocolError(f"PUBREL for packet identifier {packet_id} came before our PUBREC")
        else:
            del received[packet_id]
            session.releases.pop(packet_id, None)
            if session.journal:
                session.record(("completed", packet_id))
        if packet_id in self._incoming_qos2:
            self._incoming_qos2.remove(packet_id)
            self._incoming -= 1
        # PUBCOMP lets the server give the identifier to a new message; a restart that still knew it would
        # take that message for a repetition.
        self._output.answer(pubcomp, session.change_number)

    def take_unpacked(self) -> int:
        """Return ``unpacked``, and count from 0 again."""
        unpacked, self.unpacked = self.unpacked, 0
        return unpacked

    @property
    def unacknowledged(self) -> deque[Message | AckToken]:
        """The received QoS 1 and 2 messages whose PUBACK or PUBREC has not been queued, in order."""
        return self._unacknowledged

    def keep_tokens(self) -> None:
        """Keep a token instead of each message: the application may let it go before it acknowledges it."""
        waiting, received = self._unacknowledged, self._session.received
        index = len(waiting)
        while index:
            index -= 1
            message = waiting[index]
            if type(message) is AckToken:
                break  # so are those before it
            assert type(message) is Message
            token = message.token or _token_of(message)
            waiting[index] = token
            if received.get(message.packet_id) is message:
                received[message.packet_id] = token

    def _is_kept_back(self, message: Message | AckToken) -> bool:
        """Count a QoS 2 message; return whether it is a repeat, or waits for PUBREL: then it is answered.

        A token stands for a message that is skipped.
        """
        packet_id, received = message.packet_id, self._session.received
        if packet_id not in self._incoming_qos2:
            self._incoming_qos2.add(packet_id)
            self._incoming += 1
        if packet_id not in received:
            received[packet_id] = message
            if type(message) is not Message:
                return False
            room = self._room_to_hold - (_weight(message) if message.properties else len(message.payload))
            if room < 0:
                return False
            self._room_to_hold = room
            self._session.releases[packet_id] = False
            self._output.answer(_PUBREC + packet_id.to_bytes(2, "big"))
            return True
        earlier = received[packet_id]
        if packet_id in self._session.releases:
            self._output.answer(_PUBREC + packet_id.to_bytes(2, "big"))
            return True
        if len(self._unacknowledged) >= _MOST_HELD:
            raise RemoteProtocolError(f"packet identifier {packet_id} is repeated without end", 0x93)
        if earlier is None:
            message.handled = True
            earlier = _token_of(message)
        self._unacknowledged.append(earlier)
        self.acknowledge_handled()
        return True

    # Delivery at PUBREL, see ProtocolRules

    def held(self) -> list[Message]:
        """Return the messages that wait for their PUBREL, in the order in which they came."""
        received = self._session.received
        waiting = [received[packet_id] for packet_id, came in self._session.releases.items() if not came]
        return [message for message in waiting if type(message) is Message]

    def deliver_forgotten(self, held: list[Message], events: list[Any]) -> None:
        """Deliver those of these messages whose PUBREL will never come: the session has lost them."""
        received = self._session.received
        events.extend(message for message in held if message.packet_id not in received)

    def _new_topic(self, field: bytes) -> str:
        """Decode and check a topic name once; the same bytes cost a dict look-up from then on."""
        if field == b"\0\0" and self._has_properties:
            return ""  # legal with a topic alias
        topic = self._read_topic(field)
        if len(field) <= _LONGEST_CACHED_TOPIC:
            if len(self.topics) >= _TOPIC_CACHE_SIZE:
                self.topics.clear()
            self.topics[field] = topic
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
            self.aliases[alias] = topic
            return topic
        try:
            return self.aliases[alias]
        except KeyError:
            problem = f"topic alias {alias} has not been set"
        if alias in self._session.unreadable.aliases:
            problem = f"topic alias {alias} stands for a topic name that cannot be read"
        raise RemoteProtocolError(problem, 0x82)


def _weight(message: Message) -> int:
    """Return the bytes of memory that a message takes while it waits for its PUBREL."""
    return len(message.payload) + (decoded_size(message.properties) if message.properties else 0)


def _token_of(message: Message | AckToken) -> AckToken:
    """Return the token of a message that is not for the application to acknowledge."""
    token = AckToken(message.packet_id, message.qos, None, _nothing)
    token.handled = message.handled
    return token


def _nothing(token: AckToken) -> None:
    pass


def _check_text(topic: str, payload: bytes, events: list[Any]) -> None:
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        events.append(PayloadNotText(topic, error.start))
