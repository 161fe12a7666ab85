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
    # First byte, data, where the topic name starts and where it and the packet identifier end; the message.
    OnHead = Callable[[int, bytes, int, int], Any]
    # That message, the bytes of its packet, events to extend.
    OnPassed = Callable[[Any, int, list[Any]], None]

__all__ = ["Framing", "no_packet", "too_early", "unexpected"]

_PACKET_NAMES = (
    "packet type 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
    "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
)  # fmt: skip
# A packet must be complete after _PATIENCE seconds, and one more for every _SLOWEST bytes of it.
_PATIENCE = 60.0
_SLOWEST = 100
_PUBLISH = 3


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
        "_left",
        "_limit",
        "_needed",
        "_on_packet",
        "_partial",
        "_passed",
        "_passing",
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
        # A message larger than the limit on its way past us: it, and how many bytes of it are still to come.
        self._passing: tuple[OnHead, OnPassed] | None = None
        self._passed: Any = None
        self._left = 0

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

    def let_pass(self, on_head: OnHead, on_passed: OnPassed) -> None:
        """Pass over a PUBLISH above the limit, without keeping it, instead of refusing it.

        ``on_head`` is called with its topic name and packet identifier, ``on_passed`` when all of it has
        arrived. The ``on_packet`` of :meth:`watch` never sees it.
        """
        self._passing = on_head, on_passed

    def feed(
        self, data: bytes, now: float, events: list[Any], accept: Callable[[Packet, list[Any]], bool]
    ) -> None:
        """Hand every complete packet to its handler, and keep the rest.

        ``accept`` gets the packets that handlers return, with the events so far; it returns whether to go on.
        Raises: RemoteProtocolError, LocalProtocolError: from a handler, or for a length that is not allowed.
        """
        self.last_received = now
        began = None
        if self._left:
            data = self._pass_on(data, now, events)
        elif self._partial:
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
                total = stop - position
                if total > self._limit and self._is_to_pass(first):
                    if wanted := self._pass_over(first, data, (position, start, stop), events):
                        needed = wanted
                        break
                    position, self._began = stop, now if position or began is None else began
                    continue
                self._check_early(first, total)
                if stop > size:
                    needed = total
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
        """When the partial packet must be complete; ``None``: there is none, or reading is paused.

        One that is passed over must have come with this speed until now: its length may be garbage.
        """
        if self._began is None or self._paused or not (self._partial or self._left):
            return None
        return self._began + _PATIENCE + (self._needed - self._left) / _SLOWEST

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

    def _is_to_pass(self, first: int) -> bool:
        """Whether a packet that is too large is a message that we may pass over."""
        return self._passing is not None and first >> 4 == _PUBLISH

    def _pass_over(self, first: int, data: bytes, places: tuple[int, int, int], events: list[Any]) -> int:
        """Begin to pass over a message; return how many bytes of it have to be there first, 0: it has begun.

        ``places``: where it and its body start, and its end.
        """
        position, start, stop = places
        end = start + 2
        if end <= len(data):
            end += (data[start] << 8 | data[start + 1]) + (2 if first & 6 else 0)
            if end > stop:
                raise MalformedPacketError("topic name of a PUBLISH is longer than its packet")
        if end > len(data):
            return end - position
        assert self._passing is not None
        self._passed = self._passing[0](first, data, start, end)
        self._needed = stop - position
        self._left = max(0, stop - len(data))
        if not self._left:
            self._end_passing(events)
        return 0

    def _pass_on(self, data: bytes, now: float, events: list[Any]) -> bytes:
        """Pass over more of a message; return the bytes behind it."""
        if self._began is None:
            self._began = now
        rest = data[self._left :]
        self._left = max(0, self._left - len(data))
        if not self._left:
            self._end_passing(events)
        return rest

    def _end_passing(self, events: list[Any]) -> None:
        message, self._passed = self._passed, None
        assert self._passing is not None
        self._passing[1](message, self._needed, events)

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
