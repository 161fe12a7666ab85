"""The output of a network connection: whole packets, in order, each within the server's limits.

A packet may have to wait for the store (write-ahead): it carries the number of the session change that must
be durable first, and holds back everything queued behind it. PINGREQ overtakes the others in an urgent lane;
DISCONNECT comes last.

Threads: the caller serialises all calls. Source: MQTT 5.0 §3.2.2.3 (limits), §3.14.4 (the last packet), §4.1.
"""

from __future__ import annotations

from device_sdk.errors import LocalProtocolError
from device_sdk.mqtt.session import FIRST_BYTES, SENT, SHORT_LENGTHS
from device_sdk.mqtt.wire import encode_varint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from typing import Any

    from device_sdk.mqtt.aliasing import OutgoingAliases
    from device_sdk.mqtt.framing import OnPacket
    from device_sdk.mqtt.session import Outgoing

__all__ = ["Output"]

_LARGEST_PACKET = 268_435_460


class Output:
    """The packets of one connection that have not left.

    ``buffered``: bytes waiting, without the acknowledgements; ``answers``: acknowledgements waiting;
    ``discarded``: bytes that waited when the connection ended;
    ``gate``: the change that the last held packet waits for, 0 if none is held; ``last_sent``: when the last
    packet left, in seconds of the caller's clock; ``largest_packet``: bytes that the server accepts;
    ``negotiated``: the version of MQTT, if messages may have been made for another one, else ``""``;
    ``refused_flags``: QoS and RETAIN bits of the messages that it does not accept.

    The methods that take a ``change`` hold their packet until the store has made it durable; 0 is no change.
    """

    __slots__ = (
        "_aliases",
        "_chunks",
        "_ended",
        "_gates",
        "_last_packet",
        "_maximum_qos",
        "_urgent",
        "answers",
        "buffered",
        "discarded",
        "gate",
        "largest_packet",
        "last_sent",
        "negotiated",
        "refused_flags",
    )

    def __init__(self, aliases: OutgoingAliases | None = None, negotiated: str = "") -> None:
        self.buffered = 0
        self.answers = 0
        self.discarded = 0
        self.gate = 0
        self.last_sent = 0.0
        self.largest_packet = _LARGEST_PACKET
        self._aliases = aliases
        self.negotiated = negotiated
        self.refused_flags: frozenset[int] = frozenset()
        self._maximum_qos = 2
        self._chunks: list[bytes] = []  # each one whole packet
        self._gates: list[tuple[int, int]] = []  # (index of a chunk, change it must not overtake)
        self._urgent: list[bytes] = []
        self._last_packet: bytes | None = None
        self._ended = False  # nothing but the last packet may leave

    # Limits

    def limit(self, server: dict[str, Any]) -> None:
        """Apply the limits in the properties of CONNACK. Source: MQTT 5.0 §3.2.2.3."""
        self.largest_packet = min(server.get("maximum_packet_size", _LARGEST_PACKET), _LARGEST_PACKET)
        self._maximum_qos = server.get("maximum_qos", 2)
        self.refused_flags = frozenset(
            flags
            for flags in range(6)
            if flags >> 1 > self._maximum_qos or (flags & 1 and not server.get("retain_available", 1))
        )
        if self._aliases is not None:
            self._aliases.allow(server.get("topic_alias_maximum", 0))

    def fitted(self, properties: bytes) -> bytes:
        """Return a block of properties as the ``negotiated`` version has it: one of two has none."""
        return (properties or b"\0") if self.negotiated == "5.0" else b""

    def takes(self, flags: int, size: int) -> bool:
        """Whether the server accepts a PUBLISH of ``size`` bytes with these flags."""
        return size <= self.largest_packet and flags not in self.refused_flags

    def lowered(self, flags: int) -> int:
        """Return these flags with the highest QoS up to theirs that the server accepts."""
        return min(flags >> 1, self._maximum_qos) << 1 | flags & 1

    def check(self, flags: int, size: int) -> None:
        """Check that the server accepts a PUBLISH of ``size`` bytes with these flags.

        Raises: LocalProtocolError: above Maximum QoS, RETAIN without Retain Available, above Maximum Packet
        Size. Source: MQTT 5.0 §3.2.2.3 [MQTT-3.2.2-11] [MQTT-3.2.2-14] [MQTT-3.2.2-15].
        """
        if flags in self.refused_flags:
            if flags >> 1 > self._maximum_qos:
                raise LocalProtocolError(f"qos: the server's Maximum QoS is {self._maximum_qos}")
            raise LocalProtocolError("retain: the server does not support retained messages")
        if size > self.largest_packet:
            raise LocalProtocolError(
                f"payload: a PUBLISH of {size} bytes is larger than the {self.largest_packet} bytes "
                "that the server accepts (Maximum Packet Size)"
            )

    # Into the queue. The common path is written out: a call would cost a tenth of a publish.

    def publish_qos0(self, topic_field: bytes, payload: bytes, flags: int, properties: bytes) -> None:
        """Queue a QoS 0 PUBLISH; the arguments are those of :class:`Outgoing`.

        Raises: LocalProtocolError: beyond a limit of the server (see :meth:`check`).
        """
        size = len(topic_field) + len(properties) + len(payload)
        length = SHORT_LENGTHS[size] if size < 128 else encode_varint(size)
        packet = b"".join((FIRST_BYTES[flags], length, topic_field, properties, payload))
        size = len(packet)
        if size > self.largest_packet or flags in self.refused_flags:
            self.check(flags, size)
        self._chunks.append(packet)
        self.buffered += size

    def publish(self, message: Outgoing, packet_id: int, now: float, in_flight: dict[int, Outgoing]) -> None:
        """Queue the PUBLISH of a QoS 1 or 2 message, which is ``in_flight`` from then on.

        Raises: LocalProtocolError: beyond a limit of the server; nothing has changed then.
        """
        topic, payload, flags = message.topic_field, message.payload, message.flags
        properties = message.properties if message.expires_at is None else message.current_properties(now)
        size = len(topic) + 2 + len(properties) + len(payload)
        length = SHORT_LENGTHS[size] if size < 128 else encode_varint(size)
        identifier = packet_id.to_bytes(2, "big")
        packet = b"".join((FIRST_BYTES[flags], length, topic, identifier, properties, payload))
        size = len(packet)
        if size > self.largest_packet or flags in self.refused_flags:
            self.check(flags, size)
        message.packet_id = packet_id
        message.packet = packet
        message.status = SENT
        # From here on no call but the last one: where the handler of a signal raises in between, the window
        # and what was sent would differ.
        in_flight[packet_id] = message
        self.buffered += size
        self._chunks.append(packet)

    def publish_qos0_short(self, topic_field: bytes, payload: bytes, flags: int, properties: bytes) -> None:
        """As :meth:`publish_qos0`, with a topic alias if that saves something."""
        self.publish_qos0(topic_field, payload, flags, properties)
        self._shorten_last(flags, topic_field, b"", properties, payload)

    def publish_short(
        self, message: Outgoing, packet_id: int, now: float, in_flight: dict[int, Outgoing]
    ) -> None:
        """As :meth:`publish`, with a topic alias if that saves something.

        The message keeps the packet with its whole topic name: aliases end with the connection, a repeat
        needs it.
        """
        self.publish(message, packet_id, now, in_flight)
        identifier = packet_id.to_bytes(2, "big")
        properties = message.current_properties(now)
        self._shorten_last(message.flags, message.topic_field, identifier, properties, message.payload)

    def add(self, packet: bytes, change: int = 0) -> None:
        """Queue a packet."""
        if change:  # as hold_next(), written out
            self._gates.append((len(self._chunks), change))
            self.gate = change
        self._chunks.append(packet)
        self.buffered += len(packet)

    def answer(self, packet: bytes, change: int = 0) -> None:
        """Queue an acknowledgement of a packet from the server."""
        if change:  # as hold_next(), written out
            self._gates.append((len(self._chunks), change))
            self.gate = change
        self._chunks.append(packet)
        self.answers += 1

    def hold_next(self, change: int) -> None:
        """Hold the packet that is queued next until the change is durable."""
        self._gates.append((len(self._chunks), change))
        self.gate = change

    def hold_last(self, change: int) -> None:
        """Hold the packet that was queued last until the change is durable."""
        self._gates.append((len(self._chunks) - 1, change))
        self.gate = change

    def urge(self, packet: bytes, now: float) -> bool:
        """Put a packet in front of the others, unless an urgent one is waiting already; return whether.

        It counts as sent, so that a stuck stream gets one per period.
        """
        self.last_sent = now
        if self._urgent:
            return False
        self._urgent.append(packet)
        return True

    def finish(self, packet: bytes) -> None:
        """Make this the last packet; those still waiting for the store are not sent."""
        self._last_packet = packet
        self._ended = True

    def close(self, last_words: bytes | None = None) -> None:
        """Discard everything that waits; send at most these last words."""
        self.discarded = sum(map(len, self._chunks))
        self._clear()
        self._urgent = []
        self._last_packet = last_words
        self._ended = True

    # Out of it

    def data_to_send(self, durable_through: int, now: float) -> list[bytes]:
        """Return the packets that may leave now, in order.

        ``durable_through`` is the number of the last change that the store has made durable.
        """
        if self._ended and self._last_packet is None:
            return []
        chunks = self._chunks
        if self._gates:
            chunks = self._open_chunks(durable_through)
        else:
            self._chunks = []
            self.buffered = self.answers = 0
        if self._urgent:
            chunks = self._urgent + chunks
            self._urgent = []
        if self._last_packet is not None:
            chunks.append(self._last_packet)
            self._last_packet = None
            self._clear()
        if chunks:
            self.last_sent = now
        return chunks

    def watched(
        self, on_packet: OnPacket, packet_types: Container[int]
    ) -> Callable[[int, float], list[bytes]]:
        """Return a :meth:`data_to_send` that calls ``on_packet`` for each packet of these types."""

        def take(durable_through: int, now: float) -> list[bytes]:
            chunks = self.data_to_send(durable_through, now)
            for chunk in chunks:
                if chunk[0] >> 4 in packet_types:
                    start = 2
                    while chunk[start - 1] > 127:
                        start += 1
                    on_packet("sent", chunk[0], chunk, start, len(chunk))
            return chunks

        return take

    def can_send(self, durable_through: int) -> bool:
        """Whether :meth:`data_to_send` would return any packet."""
        if self._ended:
            return self._last_packet is not None
        if not self._chunks or self._urgent:
            return bool(self._urgent)
        for index, change in self._gates:
            if index or change > durable_through:
                return index > 0  # the first chunk has passed all of its gates, or not
        return True

    @property
    def is_empty(self) -> bool:
        """Whether no packet is waiting, not even for the store."""
        if self._ended:
            return self._last_packet is None
        return not (self._chunks or self._urgent)

    def _open_chunks(self, durable_through: int) -> list[bytes]:
        """Split the queue at the first chunk whose change is not durable yet."""
        gates, passed = self._gates, 0
        while passed < len(gates) and gates[passed][1] <= durable_through:
            passed += 1
        cut = gates[passed][0] if passed < len(gates) else len(self._chunks)
        chunks, self._chunks = self._chunks[:cut], self._chunks[cut:]
        self._gates = [(index - cut, change) for index, change in gates[passed:]]
        if not self._gates:
            self.gate = 0
        self.answers = min(self.answers, len(self._chunks))
        self.buffered = sum(map(len, self._chunks))
        return chunks

    def _shorten_last(
        self, flags: int, topic_field: bytes, identifier: bytes, properties: bytes, payload: bytes
    ) -> None:
        """Give the PUBLISH that was queued last a topic alias."""
        assert self._aliases is not None
        short = self._aliases.shorten(
            flags, topic_field, identifier, properties, payload, self.largest_packet
        )
        if short is not None:
            self.buffered += len(short) - len(self._chunks[-1])
            self._chunks[-1] = short

    def _clear(self) -> None:
        self._chunks, self._gates = [], []
        self.gate = self.buffered = self.answers = 0
