"""Framing: cuts the bytes of a stream into packets.

Whole packets are passed on without a copy; a partial packet is kept until the rest arrives, for a limited
time. A packet that can only be a fault is refused before all of it has arrived.

Threads: the caller serialises all calls. Source: MQTT 5.0 §2.1.
"""

from __future__ import annotations

from device_sdk.errors import MalformedPacketError, RemoteProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from typing import Any

    from device_sdk.mqtt.packets import Packet

    # First byte, data, where the body starts and stops, events to extend. A packet that it returns concerns
    # the connection as a whole.
    Handler = Callable[[int, bytes, int, int, list[Any]], Packet | None]
    # Direction ("received" or "sent"), first byte, data, where the body starts and stops.
    OnPacket = Callable[[str, int, bytes, int, int], None]

__all__ = ["Framing", "no_packet", "too_early", "unexpected"]

_PACKET_NAMES = (
    "packet type 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
    "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
)  # fmt: skip
# A packet must be complete after _PATIENCE seconds, and one more for every _SLOWEST bytes of it.
_PATIENCE = 60.0
_SLOWEST = 100


def no_packet(first: int, data: bytes, start: int, stop: int, events: list[Any]) -> None:
    """The handler of a packet type that this version of MQTT does not have."""
    raise MalformedPacketError(f"first byte 0x{first:02x} is no control packet")


def too_early(first: int, data: bytes, start: int, stop: int, events: list[Any]) -> None:
    """The handler of a packet type that must not come before CONNACK."""
    raise RemoteProtocolError(
        f"the server sent {_PACKET_NAMES[first >> 4]} before CONNACK, which it must not"
    )


def unexpected(first: int, data: bytes, start: int, stop: int, events: list[Any]) -> None:
    """The handler of a packet type that must not come."""
    raise RemoteProtocolError(f"the server sent {_PACKET_NAMES[first >> 4]}, which it must not")


_REFUSING = (no_packet, too_early, unexpected)


def _told(handler: Handler, on_packet: OnPacket) -> Handler:
    """Return the handler with ``on_packet`` in front of it."""

    def tell(first: int, data: bytes, start: int, stop: int, events: list[Any]) -> Packet | None:
        on_packet("received", first, data, start, stop)
        return handler(first, data, start, stop, events)

    return tell


class Framing:
    """The bytes of one connection, cut into packets.

    ``limit``: bytes of the largest packet accepted; ``handlers``: one for each of the 16 packet types;
    ``last_received``: when the last bytes arrived, in seconds of the caller's clock.
    """

    __slots__ = (
        "_began",
        "_given",
        "_handlers",
        "_limit",
        "_needed",
        "_on_packet",
        "_partial",
        "_paused",
        "_watched",
        "last_received",
    )

    def __init__(self, limit: int, handlers: list[Handler]) -> None:
        self.last_received = 0.0
        self._limit = limit
        self._on_packet: OnPacket | None = None
        self._watched: Container[int] = ()
        self.use(handlers)
        # The beginning of a packet that is not complete yet. A list of pieces would take twenty times the
        # memory when a server sends two bytes at a time.
        self._partial = bytearray()
        self._needed = 0
        self._began: float | None = None  # when the first byte of that packet came; None: with the next byte
        self._paused = False

    def use(self, handlers: list[Handler]) -> None:
        """Hand packets to these handlers from now on, the next packet of :meth:`feed` included."""
        self._given = handlers
        on_packet = self._on_packet
        if on_packet is not None:
            handlers = [
                _told(handler, on_packet) if number in self._watched else handler
                for number, handler in enumerate(handlers)
            ]
        self._handlers = handlers

    def watch(self, on_packet: OnPacket, packet_types: Container[int]) -> None:
        """Call ``on_packet`` for each packet of these types, before its handler."""
        self._on_packet, self._watched = on_packet, packet_types
        self.use(self._given)

    def feed(
        self, data: bytes, now: float, events: list[Any], accept: Callable[[Packet, list[Any]], bool]
    ) -> None:
        """Hand every complete packet to its handler, and keep the rest.

        ``accept`` gets the packets that handlers return, with the events so far; it returns whether to go on.
        Raises: RemoteProtocolError, LocalProtocolError: from a handler, or for a length that is not allowed.
        """
        self.last_received = now
        began = None
        if self._partial:
            if self._began is None:
                self._began = now
            self._partial += data
            if len(self._partial) < self._needed:
                return
            data = bytes(self._partial)
            self._partial = bytearray()
            began = self._began
        position, size, needed = 0, len(data), 2
        surely_fits = self._limit - 5  # a remaining length up to this is within the limit
        while position + 2 <= size:
            first = data[position]
            length = data[position + 1]
            start = position + 2
            if length > 127:
                length, start = self._long_length(data, position, size)
                if not start:
                    needed = size - position + 1
                    break
            stop = start + length
            if stop > size or length > surely_fits:
                self._check_early(first, stop - position)
                if stop > size:
                    needed = stop - position
                    break
            packet = self._handlers[first >> 4](first, data, start, stop, events)
            position = stop
            if packet is not None and not accept(packet, events):
                return
        if position < size:
            self._partial += data[position:]
            self._needed = needed
            self._began = now if position or began is None else began

    @property
    def begun(self) -> int:
        """Bytes of the partial packet that have arrived."""
        return len(self._partial)

    @property
    def needed(self) -> int:
        """Bytes that the partial packet has at least."""
        return self._needed

    def pause(self, paused: bool) -> None:
        """Stop reading, or go on. The time limit of a partial packet begins again: its rest may be unread."""
        self._began = None
        self._paused = paused

    def deadline(self) -> float | None:
        """When the partial packet must be complete; ``None``: there is none, or reading is paused."""
        if not self._partial or self._began is None or self._paused:
            return None
        return self._began + _PATIENCE + self._needed / _SLOWEST

    def _long_length(self, data: bytes, position: int, size: int) -> tuple[int, int]:
        """Decode a remaining length of 2 to 4 bytes: return it and where the body starts, 0 if incomplete."""
        length = 0
        for count in range(4):
            index = position + 1 + count
            if index >= size:
                return 0, 0
            byte = data[index]
            length |= (byte & 127) << (7 * count)
            if byte < 128:
                if byte == 0:
                    raise MalformedPacketError("remaining length is not in its shortest form")
                return length, index + 1
        raise MalformedPacketError("remaining length has more than four bytes")

    def _check_early(self, first: int, total: int) -> None:
        """Refuse a packet that can only be a fault, instead of waiting for 256 MB of garbage."""
        if total > self._limit:
            raise MalformedPacketError(
                f"{_PACKET_NAMES[first >> 4]} of {total} bytes is larger than the {self._limit} bytes "
                "of maximum_packet_size",
                0x95,
            )
        handler = self._given[first >> 4]
        if handler in _REFUSING:
            handler(first, b"", 0, 0, [])
