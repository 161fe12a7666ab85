"""The places of messages that only the store holds: ``drop_oldest`` need not read them first."""

from __future__ import annotations

from array import array
from bisect import bisect_left

__all__ = ["Places"]

_FEW = 1_000  # entries that are not worth tidying up


class Places:
    """Sequence numbers and bytes of messages, in their order: twelve bytes for each. Not thread-safe."""

    __slots__ = ("_ended", "_sequences", "_sizes", "_start")

    def __init__(self) -> None:
        self._sequences = array("Q")
        self._sizes = array("I")  # 0: the message has left; none has so few
        self._start = 0  # the entries before it have left
        self._ended = 0  # those behind it that have

    def __len__(self) -> int:
        """How many messages there are."""
        return len(self._sequences) - self._start - self._ended

    def append(self, sequence: int, size: int) -> None:
        """Add a message of so many bytes; its sequence number is above all others."""
        self._sequences.append(sequence)
        self._sizes.append(size)

    def first(self) -> tuple[int, int] | None:
        """Return sequence number and bytes of the oldest message, ``None`` if there is none."""
        if not len(self):
            self._clear()
            return None
        while not self._sizes[self._start]:
            self._start += 1
            self._ended -= 1
        return self._sequences[self._start], self._sizes[self._start]

    def take(self, sequence: int) -> int:
        """Remove a message and return its bytes, 0 if it is not here."""
        index = bisect_left(self._sequences, sequence, self._start)
        if index == len(self._sequences) or self._sequences[index] != sequence:
            return 0
        size = self._sizes[index]
        if size:
            self._sizes[index] = 0
            self._ended += 1
            self._tidy()
        return size

    def passed(self, sequence: int) -> None:
        """Forget the messages up to this sequence number."""
        stop = bisect_left(self._sequences, sequence + 1, self._start)
        self._ended -= self._sizes[self._start : stop].count(0)
        self._start = stop
        self._tidy()

    def _tidy(self) -> None:
        if self._start + self._ended <= len(self) + _FEW:
            return
        kept = [index for index in range(self._start, len(self._sizes)) if self._sizes[index]]
        self._sequences = array("Q", [self._sequences[index] for index in kept])
        self._sizes = array("I", [self._sizes[index] for index in kept])
        self._start = self._ended = 0

    def _clear(self) -> None:
        del self._sequences[:], self._sizes[:]
        self._start = self._ended = 0
