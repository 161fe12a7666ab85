"""The places of messages that only the store holds: ``drop_oldest`` need not read them first."""

from __future__ import annotations

from array import array
from bisect import bisect_left

__all__ = ["NEVER", "Places"]

NEVER = float("inf")
_FEW = 1_000  # entries that are not worth tidying up


class Places:
    """Sequence numbers and bytes of messages, in their order: twelve bytes for each. Not thread-safe.

    ``timed``: also when they expire, eight bytes more; ``next_expiry``: when :meth:`expired` finds the next.
    """

    __slots__ = ("_ended", "_expiries", "_sequences", "_sizes", "_start", "next_expiry")

    def __init__(self, *, timed: bool = False) -> None:
        self.next_expiry = NEVER
        self._expiries = array("d") if timed else None
        self._sequences = array("Q")
        self._sizes = array("I")  # 0: the message has left; none has so few
        self._start = 0  # the entries before it have left
        self._ended = 0  # those behind it that have

    def __len__(self) -> int:
        """How many messages there are."""
        return len(self._sequences) - self._start - self._ended

    def append(self, sequence: int, size: int, expires_at: float | None = None) -> bool:
        """Add a message of so many bytes; False: its sequence number is not above all others."""
        if self._sequences and self._sequences[-1] >= sequence:
            return False
        self._sequences.append(sequence)
        self._sizes.append(size)
        if self._expiries is not None:
            self._expiries.append(NEVER if expires_at is None else expires_at)
            self.next_expiry = min(self.next_expiry, self._expiries[-1])
        return True

    def expired(self, now: float) -> list[int]:
        """Return the sequence numbers of the messages whose time is over. Looks through all of them."""
        if self._expiries is None or now < self.next_expiry:
            return []
        late, left = [], NEVER
        for index in range(self._start, len(self._sizes)):
            if not self._sizes[index]:
                continue
            if self._expiries[index] <= now:
                late.append(self._sequences[index])
            else:
                left = min(left, self._expiries[index])
        self.next_expiry = left
        return late

    def first(self) -> tuple[int, int] | None:
        """Return sequence number and bytes of the oldest message, ``None`` if there is none."""
        if not len(self):
            self._clear()
            return None
        while not self._sizes[self._start]:
            self._start += 1
            self._ended -= 1
        return self._sequences[self._start], self._sizes[self._start]

    def find(self, sequence: int) -> int:
        """Return the bytes of a message, 0 if it is not here."""
        index = self._index(sequence)
        return 0 if index is None else self._sizes[index]

    def take(self, sequence: int) -> int:
        """Remove a message and return its bytes, 0 if it is not here."""
        index = self._index(sequence)
        size = 0 if index is None else self._sizes[index]
        if index is not None and size:
            self._sizes[index] = 0
            self._ended += 1
            self._tidy()
        return size

    def _index(self, sequence: int) -> int | None:
        index = bisect_left(self._sequences, sequence, self._start)
        return index if index < len(self._sequences) and self._sequences[index] == sequence else None

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
        if self._expiries is not None:
            self._expiries = array("d", [self._expiries[index] for index in kept])
        self._start = self._ended = 0

    def _clear(self) -> None:
        del self._sequences[:], self._sizes[:]
        if self._expiries is not None:
            del self._expiries[:]
        self._start = self._ended = 0
