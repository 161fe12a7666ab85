"""The received messages in hand: given to handlers or the inbox, and not finished yet."""

from __future__ import annotations

from collections import deque

from device_sdk.mqtt.options import check_range

__all__ = ["InHand"]

_ONE_READ = 64 * 1024
_LARGEST_INBOX_BYTES = 1 << 40


class InHand:
    """Bounds the received messages that are not finished, by number and by bytes, as far as reads tell.

    Bytes are counted once a read, not once a message: those of a read belong to the messages that it
    completed, and leave with the last of them. With them go the bytes that their properties take decoded.
    ``full``: reading should pause. The engine's lock guards it.
    """

    __slots__ = (
        "_came", "_limit", "_most_between", "_most_bytes", "_reads", "_unpacked", "count", "full", "held",
    )  # fmt: skip

    def __init__(self, limit: int, most_bytes: int, largest_packet: int) -> None:
        """Raises: ArgumentError, ArgumentTypeError: ``inbox_limit`` or ``inbox_bytes`` is out of range."""
        self._limit = check_range("inbox_limit", limit, 1, 1_000_000)
        self._most_bytes = check_range("inbox_bytes", most_bytes, 1, _LARGEST_INBOX_BYTES)
        self.count = 0  # messages
        self.held = 0  # bytes
        self.full = False
        self._came = 0  # bytes since the last message was complete
        self._unpacked = 0  # bytes of the properties since then
        self._most_between = largest_packet + _ONE_READ  # of these; beyond that were acknowledgements
        self._reads: deque[list[int]] = deque()  # messages not finished, bytes

    def came(self, size: int) -> None:
        """Count the bytes of one read."""
        self._came += size

    def unpacked(self, size: int) -> None:
        """Count the bytes of memory that the properties of one read take."""
        self._unpacked += size

    def arrived(self, messages: int) -> None:
        """Take messages in hand that are complete now; at least one."""
        size = min(self._came, self._most_between) + self._unpacked
        self._came = self._unpacked = 0
        self._reads.append([messages, size])
        self.count += messages
        self.held += size
        self.full = self.count >= self._limit or self.held >= self._most_bytes

    def finished(self, messages: int) -> None:
        """Let go of so many messages, in about the order in which they came."""
        self.count -= messages
        reads = self._reads
        while messages and reads:
            first = reads[0]
            if first[0] > messages:
                first[0] -= messages
                break
            messages -= first[0]
            self.held -= first[1]
            reads.popleft()
        self.full = self.count >= self._limit or self.held >= self._most_bytes
