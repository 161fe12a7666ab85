"""MQTT over WebSocket: ``ws://host:port/path``, ``wss://host/path``; the path is ``/mqtt`` if there is none.

The package ``websockets`` (the extra of that name) codes the frames; here it neither opens a connection nor
waits: bytes go in, frames come out. Source: RFC 6455, MQTT 5.0 §6.
"""

from __future__ import annotations

from device_sdk.errors import ArgumentError, MissingDependency, TransportClosedError
from device_sdk.net.base import ParsedUrl, open_transport
from device_sdk.net.layer import Layer, Link
from device_sdk.net.pieces import Pieces
from device_sdk.net.stack import TCP_STREAM_OPTIONS
from device_sdk.net.upgrade import Upgrade, line_of

try:
    from websockets.exceptions import PayloadTooBig
    from websockets.frames import CloseCode, Opcode
    from websockets.protocol import OPEN
except ImportError as error:
    raise MissingDependency("WebSocket", "websockets") from error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from websockets.client import ClientProtocol
    from websockets.frames import Frame

    from device_sdk.net.upgrade import Headers, Target

__all__ = ["WebSocketTransport"]

# One frame carries the packets that the engine joins for one send(); a longer packet takes several.
FRAME_BYTES = 256 * 1024
# Bounds of max_message_size=. Control frames have up to 125 bytes.
MESSAGE_BYTES = range(125, 1 << 31)
# A server may put several packets into one message: this is several times a packet of the usual size.
MAX_MESSAGE_BYTES = 1 << 20
_USUAL_PACKET_BYTES = 256 * 1024

# Answers to pings that the peer does not read. A ping is answered by at most 131 bytes.
_MAX_UNSENT_CONTROL_BYTES = 64 * 1024
# Close codes that say that the data was not accepted, not that the server has something else to do: 1003
# unsupported data, 1007 invalid data, 1008 policy violation, 1009 too big. Source: RFC 6455 §7.4.1.
_REFUSALS = frozenset({1003, 1007, 1008, 1009})


class WebSocketTransport(Layer):
    """A WebSocket connection whose binary messages are one stream of bytes.

    ``headers``: more headers for the request, or a callable that returns them for each attempt, so that
    tokens can rotate; it is called in the thread of ``open()`` with a copy of the headers that would be
    sent. An existing name is replaced; headers of the handshake itself cannot be.
    ``target``: a callable that returns for each attempt what to ask the server for, where a URL is valid for
    a while only: path and query (``"/mqtt?X-Amz-Signature=..."``), or a whole URL of the same scheme, host
    and port, percent-encoded. It is called in the same thread; no error shows what it returned.
    ``origin``: the value of the header Origin. ``subprotocol``: offered to the broker, which must choose it;
    ``"mqttv3.1"`` is for brokers that know no later one. ``max_message_size``: bytes of the largest WebSocket
    message that is accepted from the broker, 125..2**31-1. By default there is no largest one: what a message
    has above 1 MiB, or above 1 MiB more than a ``largest_packet`` of more than 256 KiB (the bytes of the
    largest packet that the client accepts), is handed on as it comes: that is the memory that an incomplete
    frame may take.
    The other options are those of the streams below: TCP, proxy, and for ``wss`` TLS.

    No compression is offered, no redirect followed.

    Raises: ArgumentError: an option, by its name. MissingDependency.
    Source: RFC 6455, MQTT 5.0 §6.0 [MQTT-6.0.0-1] ... [MQTT-6.0.0-4].
    """

    options = (
        "headers", "largest_packet", "max_message_size", "origin", "subprotocol", "target",
        *TCP_STREAM_OPTIONS,
    )  # fmt: skip
    __slots__ = ("_cuts", "_end", "_owed", "_pieces", "_protocol", "_unsent", "upgrade")

    asks_by: ClassVar[type[Upgrade]] = Upgrade

    def __init__(
        self,
        url: ParsedUrl,
        *,
        headers: Headers | None = None,
        target: Target | None = None,
        origin: str | None = None,
        subprotocol: str = "mqtt",
        max_message_size: int | None = None,
        largest_packet: int = 0,
        **options: Any,
    ) -> None:
        if not (url.host and url.port):
            raise ArgumentError("url", f"a WebSocket needs a host and a port; found {url!r}")
        self._cuts = max_message_size is None
        if max_message_size is None:
            max_message_size = _room_for(largest_packet)
        elif not (type(max_message_size) is int and max_message_size in MESSAGE_BYTES):
            problem = f"must be {MESSAGE_BYTES[0]}..{MESSAGE_BYTES[-1]} bytes, not {max_message_size!r}"
            raise ArgumentError("max_message_size", problem)
        self.upgrade = self.asks_by(
            url, headers=headers, target=target, origin=origin, subprotocol=subprotocol,
            max_message_size=max_message_size,
        )  # fmt: skip
        below = ParsedUrl("mqtts" if url.scheme == "wss" else "mqtt", url.host, url.port)
        super().__init__(open_transport(below, **options), f"{url.scheme} {url.address}")
        self._protocol: ClientProtocol | None = None
        self._forget()

    def _forget(self) -> None:
        self._protocol = None
        self._pieces = Pieces(self.upgrade.max_message_size) if self._cuts else None
        # The rest of a frame, and of control frames behind it, that the stream below has not taken yet ...
        self._unsent: bytes | memoryview = b""
        # ... and the size of its content, which the owner still holds and offers again.
        self._owed = 0
        # How the connection has ended: "" in an orderly way.
        self._end: str | None = None

    def _handshake(self, link: Link) -> ClientProtocol:
        return self.upgrade.run(link)

    def _adopt(self, state: ClientProtocol) -> None:
        self._protocol = state

    # The stream

    def recv(self) -> bytes | None:
        """Return the content of the frames that have become complete; see :meth:`Transport.recv`.

        A frame that is not too large is returned only when complete, so one call may return as much as
        ``max_message_size``, or its default, and one read of the stream below. An orderly close (1000, or
        without a code) is ``b""``.

        Raises: TransportClosedError: another close code, with the peer's reason; a frame that violates
        RFC 6455, is above ``max_message_size=`` or is not binary [MQTT-6.0.0-1]; the end of the stream below.
        """
        if self._end is None:
            content = self._read()
            if content or self._end is None:
                return content
        if self._end:
            raise self._closed(self._end)
        return b""

    def _read(self) -> bytes | None:
        protocol = self._protocol
        data = self._recv_below()
        if data is None or protocol is None:
            self._push()
            return None
        if data == b"":
            self._end = ""
            return None
        protocol.receive_data(data if self._pieces is None else self._pieces.feed(data))
        content = self._content(protocol)
        if content and self._end is not None:
            self.inner.abort()  # so that the descriptor is readable for the next call
        return content or None

    def _content(self, protocol: ClientProtocol) -> bytes:
        """Join the payloads that arrived, note an end, and send the answers to control frames."""
        parts: list[bytes] = []
        frames: list[Any] = protocol.events_received()
        for frame in frames:
            if frame.opcode is Opcode.BINARY or frame.opcode is Opcode.CONT:
                parts.append(frame.data)
            elif frame.opcode is Opcode.TEXT:
                protocol.fail(CloseCode.UNSUPPORTED_DATA, "MQTT needs binary frames")
                self._end = "the server sent a text frame; MQTT needs binary ones [MQTT-6.0.0-1]"
                break
            elif frame.opcode is Opcode.CLOSE:
                self._end = _how_closed(frame)
        if self._end is None and protocol.parser_exc is not None:
            problem = protocol.parser_exc
            advice = "; max_message_size= allows more" if isinstance(problem, PayloadTooBig) else ""
            self._end = f"the server broke the WebSocket protocol: {problem}{advice}"
        if control := b"".join(protocol.data_to_send()):
            self._unsent = b"".join((self._unsent, control))
            if self._end is None and len(self._unsent) > FRAME_BYTES + _MAX_UNSENT_CONTROL_BYTES:
                self._end = "the server sends pings and does not read the answers"
        if self._unsent:
            self._push_or_leave()
        return parts[0] if len(parts) == 1 and type(parts[0]) is bytes else b"".join(parts)

    def _closed(self, problem: str) -> TransportClosedError:
        closing = None if self._protocol is None else self._protocol.close_rcvd
        by_peer = "closed" if closing is not None and closing.code in _REFUSALS else None
        return TransportClosedError.ended(f"{self.description}: {problem}", by_peer)

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Put the data into frames and hand them down; see :meth:`Transport.send`.

        The content of a frame counts as taken when the stream below has taken all of the frame. Until
        then the caller offers it again, and none of it is sent twice.
        """
        protocol = self._protocol
        if protocol is None or self._end is not None or protocol.state is not OPEN:
            if self._end is None:
                self.inner.send(b"")  # raises with the reason if it is not open or was aborted
            raise self._closed(self._end or "closed by the peer")
        self._push()
        if self._unsent:
            return 0
        taken, self._owed = min(self._owed, len(data)), 0
        view = memoryview(data)
        while taken < len(view):
            piece = view[taken : taken + FRAME_BYTES]
            protocol.send_binary(piece)
            frame = b"".join(protocol.data_to_send())
            left = self.inner.send(frame)
            if left < len(frame):
                # Also if it took nothing: TLS may have encrypted and sent part of what it does not count yet.
                self._unsent = memoryview(frame)[left:]
                self._owed = len(piece)
                break
            taken += len(piece)
        return taken

    def flush(self) -> None:
        """Pass on the rest of a frame, and flush the stream below."""
        self.inner.flush()
        self._push()

    def _push(self) -> None:
        if self._unsent:
            self._unsent = self._unsent[self.inner.send(self._unsent) :]

    def _push_or_leave(self) -> None:
        """Answer a ping or a close if the connection still exists: received data comes first."""
        try:
            self._push()
        except TransportClosedError:
            pass

    def close(self) -> None:
        """Send a close frame if there is room for it, and close; see :meth:`Transport.close`."""
        protocol = self._protocol
        if protocol is not None and protocol.state is OPEN and self._end is None and not self._unsent:
            protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._unsent = b"".join(protocol.data_to_send())
            self._push_or_leave()
        super().close()


def _room_for(largest_packet: int) -> int:
    """Return the bytes of a message with the largest packet and a few smaller ones in it."""
    if largest_packet <= _USUAL_PACKET_BYTES:
        return MAX_MESSAGE_BYTES
    return min(largest_packet + MAX_MESSAGE_BYTES, MESSAGE_BYTES[-1])


def _how_closed(frame: Frame) -> str:
    """Return the fault, ``""`` for an orderly end. Source: RFC 6455 §5.5.1, §7.4."""
    code = int.from_bytes(frame.data[:2], "big") if frame.data else CloseCode.NO_STATUS_RCVD
    if code in (CloseCode.NORMAL_CLOSURE, CloseCode.NO_STATUS_RCVD):
        return ""
    reason = line_of(bytes(frame.data[2:])) or "no reason given"
    return f"the server closed with code {code}: {reason}"
