"""The stream of one connection: its transport, with the output on its way to it."""

from __future__ import annotations

from device_sdk.errors import TransportError
from device_sdk.net.base import bytes_held

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.mqtt.events import ConnectionEnded
    from device_sdk.mqtt.output import Output
    from device_sdk.net.base import Transport

__all__ = ["LAST_READS", "Stream"]

_SEND_SIZE = 256 * 1024  # bytes joined for one send()
#: Reads of 64 KiB from a stream that has ended, before it is closed.
LAST_READS = 16


class Stream:
    """Hands chunks of output to the transport in buffers of a bounded size.

    Belongs to the thread that owns the transport. ``pending``: the transport has not taken all output yet;
    ``blocked``: it took less than it was offered.
    """

    __slots__ = ("_buffer", "_chunks", "blocked", "pending", "transport")

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.blocked = False
        self.pending = False
        self._chunks: list[bytes] = []
        self._buffer: bytes | memoryview = b""

    @property
    def unsent(self) -> int:
        """Bytes that the transport has not taken."""
        return len(self._buffer) + sum(map(len, self._chunks))

    def held_at_end(self, event: ConnectionEnded, output: Output) -> int | None:
        """Return how many of the bytes that were sent last this host still has; ``None``: we ended it.

        So it is too if nobody knows who did.
        """
        by_peer = getattr(event.error, "by_peer", None)
        if event.reason_code is None and by_peer is None:
            return None
        # The end of a stream comes with the confirmation of what has arrived; a reset does without, and a
        # DISCONNECT does not wait for the rest of what it is about.
        orderly = event.reason_code is None and by_peer == "closed"
        waiting = output.discarded or output.buffered
        return waiting + self.unsent + bytes_held(self.transport, unconfirmed=orderly)

    def unblock(self) -> None:
        """Offer the transport output again: it may have room now."""
        self.blocked = False

    def send(self, chunks: list[bytes]) -> int:
        """Offer the transport the next output; return the bytes it took. Raises: TransportError.

        ``chunks`` follow what is pending; the caller takes new ones only while nothing is.
        """
        if chunks:
            self._chunks = chunks
        if not self._buffer:
            self._buffer = self._chunks.pop() if len(self._chunks) == 1 else self._join()
        sent = self.transport.send(self._buffer)
        self.blocked = sent < len(self._buffer)
        self._buffer = memoryview(self._buffer)[sent:] if self.blocked else b""
        self.pending = self.blocked or bool(self._chunks)
        return sent

    def close(self, goodbye: list[bytes]) -> None:
        """Give the last packets one chance to leave, unless half a packet is in the way, and close."""
        try:
            if not self._buffer:
                for packet in goodbye:
                    if self.transport.send(packet) < len(packet):
                        break  # the rest would be taken for a part of this one
            # The kernel answers unread input with a reset, which can overtake our last packet.
            for _ in range(LAST_READS):
                if not self.transport.recv():
                    break
        except TransportError:
            pass
        finally:  # also after a mistake of the transport: the next attempt needs it closed
            self.transport.close()

    def _join(self) -> bytes:
        """Take as many chunks as one buffer holds, at least one."""
        chunks = self._chunks
        size = count = 0
        for chunk in chunks:
            size += len(chunk)
            if size > _SEND_SIZE and count:
                break
            count += 1
        self._chunks = chunks[count:]
        return b"".join(chunks[:count])
