"""The transport of one engine, with the output on its way to it."""

from __future__ import annotations

from device_sdk.errors import TransportError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.net.base import Transport

__all__ = ["LAST_READS", "Stream"]

_SEND_SIZE = 256 * 1024  # bytes joined for one send()
#: Reads of 64 KiB from a stream that has ended, before it is closed.
LAST_READS = 16


class Stream:
    """Hands chunks of output to the transport in buffers of a bounded size.

    Belongs to the thread that owns the transport. ``blocked``: the transport took less than it was offered.
    """

    __slots__ = ("_buffer", "_chunks", "blocked", "transport")

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.reset()

    def reset(self) -> None:
        """Forget the output of an earlier connection."""
        self._chunks: list[bytes] = []
        self._buffer: bytes | memoryview = b""
        self.blocked = False

    @property
    def pending(self) -> bool:
        """Whether there is output that the transport has not taken."""
        return bool(self._buffer or self._chunks)

    def load(self, chunks: list[bytes]) -> None:
        """Take the next chunks; nothing is pending."""
        self._chunks = chunks

    def send(self) -> int:
        """Offer the transport what is next; return the bytes it took. Raises: TransportError."""
        if not self._buffer:
            self._join()
        sent = self.transport.send(self._buffer)
        self.blocked = sent < len(self._buffer)
        self._buffer = memoryview(self._buffer)[sent:] if self.blocked else b""
        return sent

    def close(self, goodbye: list[bytes]) -> None:
        """Give the last packets one chance to leave, unless half a packet is in the way, and close."""
        try:
            if not self._buffer:
                for packet in goodbye:
                    self.transport.send(packet)
            # The kernel answers unread input with a reset, which can overtake our last packet.
            for _ in range(LAST_READS):
                if not self.transport.recv():
                    break
        except TransportError:
            pass
        finally:  # also after a mistake of the transport: the next attempt needs it closed
            self.reset()
            self.transport.close()

    def _join(self) -> None:
        chunks = self._chunks
        if sum(map(len, chunks)) <= _SEND_SIZE:
            self._buffer = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self._chunks = []
            return
        size = 0
        for count, chunk in enumerate(chunks):  # noqa: B007 (count is what the loop is for)
            size += len(chunk)
            if size > _SEND_SIZE:
                break
        else:
            count = len(chunks)
        count = max(count, 1)
        self._buffer = chunks[0] if count == 1 else b"".join(chunks[:count])
        self._chunks = chunks[count:]
