"""How many bytes of received messages the application has in hand."""

from __future__ import annotations

from collections import deque

__all__ = ["Weight"]

_ONE_READ = 64 * 1024


class Weight:
    """Bounds the bytes of messages that were received and are not finished, as far as reads tell.

    Counted once a read, not once a message: the bytes of a read belong to the messages that it completed, and
    leave with the last of them. ``came`` is to be raised by the bytes of each read; ``full``: nothing more
    should be read for now. The engine's lock guards it.
    """

    __slots__ = ("_limit", "_most_between", "_reads", "came", "full", "held")

    def __init__(self, limit: int, largest_packet: int) -> None:
        self.full = False
        self.held = 0
        self._limit = limit
        self.came = 0  # bytes since the last message was complete
        self._most_between = largest_packet + _ONE_READ  # of these; what is beyond was acknowledgements
        self._reads: deque[list[int]] = deque()  # messages not finished, bytes

    def arrived(self, messages: int) -> None:
        """So many messages are complete and in hand from now on; at least one."""
        size = min(self.came, self._most_between)
        self.came = 0
        self._reads.append([messages, size])
        self.held += size
        self.full = self.held >= self._limit

    def finished(self, messages: int) -> None:
        """So many messages are not in hand any more, in about the order in which they came."""
        reads = self._reads
        while messages and reads:
            first = reads[0]
            if first[0] > messages:
                first[0] -= messages
                break
            messages -= first[0]
            self.held -= first[1]
            reads.popleft()
        self.full = self.held >= self._limit
