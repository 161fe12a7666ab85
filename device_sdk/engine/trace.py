"""The packets of a connection in the log, for whoever sets the logger ``device_sdk.packets`` to DEBUG.

Looked at when a connection begins: a client that is not traced does not pay for it. Nothing of it is secret:
user names, passwords and authentication data are masked, payloads and other binary data are their lengths.
"""

from __future__ import annotations

import logging

from device_sdk.errors import DeviceSdkError
from device_sdk.mqtt.decode import decode_packet
from device_sdk.net.base import Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.mqtt.packets import Packet

__all__ = ["TracedTransport", "describe"]

log = logging.getLogger("device_sdk.packets")

# Also the user name: several cloud services take an access token there.
_SECRET = frozenset({"user_name", "password", "authentication_data"})
_ENOUGH = 16  # bytes of a packet that has begun, to see whether it is one
_LARGEST_SHOWN = 1 << 20  # bytes; of a larger packet only the length is logged


class TracedTransport(Transport):
    """A stream that logs the packets going through it, and is otherwise the stream below."""

    __slots__ = ("_incoming", "_inner", "_outgoing", "description")

    def __init__(self, inner: Transport, version: str) -> None:
        self._inner = inner
        self.description = inner.description
        self._incoming = _Direction("<-", inner.description, version)
        self._outgoing = _Direction("->", inner.description, version)

    def open(self, deadline: float) -> None:
        """Open the stream below."""
        self._inner.open(deadline)

    def fileno(self) -> int:
        """Return the descriptor of the stream below."""
        return self._inner.fileno()

    def recv(self) -> bytes | None:
        """Read from the stream below, and log what came."""
        data = self._inner.recv()
        if data:
            self._incoming.feed(data)
        elif data is not None:
            log.debug("%s <- end of stream", self.description)
        return data

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Hand to the stream below, and log what it has taken."""
        taken = self._inner.send(data)
        if taken:
            self._outgoing.feed(bytes(memoryview(data)[:taken]))
        return taken

    def wants_write(self) -> bool:
        """Whether the stream below wants to write."""
        return self._inner.wants_write()

    def flush(self) -> None:
        """Flush the stream below."""
        self._inner.flush()

    def next_deadline(self) -> float | None:
        """Return the deadline of the stream below."""
        return self._inner.next_deadline()

    def handle_deadline(self, now: float) -> None:
        """Let the stream below do what is due."""
        self._inner.handle_deadline(now)

    def abort(self) -> None:
        """Abort the stream below."""
        self._inner.abort()

    def close(self) -> None:
        """Close the stream below."""
        self._inner.close()


class _Direction:
    """One half of a connection: finds the packets in its bytes."""

    def __init__(self, arrow: str, where: str, version: str) -> None:
        self._prefix = f"{where} {arrow}"
        self._version = version
        self._buffer = bytearray()
        self._passing = 0  # bytes to come of a packet that is too large to be kept
        self._lost = False

    def feed(self, data: bytes) -> None:
        if self._lost:
            return
        skipped = min(self._passing, len(data))
        self._passing -= skipped
        buffer = self._buffer
        buffer += data[skipped:]
        try:
            while (size := _packet_size(buffer)) is not None:
                if size > _LARGEST_SHOWN:
                    log.debug("%s a packet of %d bytes, too large to show", self._prefix, size)
                    self._passing = max(0, size - len(buffer))
                else:
                    seen = buffer[: size if size <= len(buffer) else _ENOUGH]
                    decoded = decode_packet(bytes(seen), self._version)
                    if decoded is None:
                        break
                    log.debug("%s %s", self._prefix, describe(decoded[0]))
                del buffer[:size]
        except DeviceSdkError as error:
            self._lost = True
            log.debug("%s no packet, the trace of this direction ends: %s", self._prefix, error)
            buffer.clear()


def _packet_size(buffer: bytes | bytearray) -> int | None:
    """Return the length of the packet that begins here; ``None``: too early to tell. Source: MQTT §2.1.4."""
    size = 0
    for index, byte in enumerate(buffer[1:5]):
        size |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return 2 + index + size
    return None if len(buffer) < 5 else len(buffer)  # a length of five bytes: decoding it says what is wrong


def describe(packet: Packet) -> str:
    """Return one line with the fields that are set, and with nothing that is secret."""
    return " ".join((packet.type.upper(), *_shown(packet)))


def _shown(value: Packet | object) -> list[str]:
    fields = [(name, getattr(value, name)) for name in getattr(value, "_fields", ())]
    return [f"{name}={_text(name, found)}" for name, found in fields if found not in (None, {}, [], False)]


def _text(name: str, value: object) -> str:
    if name in _SECRET:
        return "***"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(value)} bytes"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}={_text(key, one)}" for key, one in value.items()) + "}"
    if isinstance(value, list) and value and hasattr(value[0], "_fields"):
        return "[" + ", ".join(_text("", one) for one in value) + "]"
    if hasattr(value, "_fields"):
        return f"({' '.join(_shown(value))})"
    return repr(value)
