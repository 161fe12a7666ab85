"""The frames that have come to this end."""

from __future__ import annotations

__all__ = ["Inbound"]


class Inbound:
    """Puts frames in order and keeps them until they are taken: at most a window of them.

    ``ack_now``: an acknowledgement has to be sent at once; ``ack_at``: by then (monotonic seconds).
    ``repeats`` counts frames that were here already, or that no room was promised for.
    """

    __slots__ = (
        "_ack_s", "_announced", "_early", "_ready", "_unacknowledged", "_window", "ack_at", "ack_now",
        "expected", "repeats",
    )  # fmt: skip

    def __init__(self, window: int, ack_s: float) -> None:
        self._window = self._announced = window
        self._ack_s = ack_s
        self._ready: list[bytes] = []
        self._early: dict[int, bytes] = {}  # beyond a gap
        self._unacknowledged = 0
        self.expected = 0
        self.ack_now = False
        self.ack_at: float | None = None
        self.repeats = 0

    @property
    def credit(self) -> int:
        """How many frames from ``expected`` on there is room for."""
        return self._window - len(self._ready)

    @property
    def has_data(self) -> bool:
        """Whether :meth:`take` returns something."""
        return bool(self._ready)

    def put(self, seq: int, payload: bytes, now: float) -> None:
        """Take a frame that has come."""
        ahead = (seq - self.expected) & 255
        if ahead >= self.credit or seq in self._early:
            self.repeats += 1
            self.ack_now = True  # the peer does not know that it is here, or that there is no room
            return
        if ahead:
            self._early[seq] = payload
            self.ack_now = True  # the line keeps the order: those between are lost
            return
        filled = bool(self._early)
        while True:
            self._ready.append(payload)
            self._unacknowledged += 1
            self.expected = (self.expected + 1) & 255
            if self.expected not in self._early:
                break
            payload = self._early.pop(self.expected)
        if filled or self._unacknowledged * 2 >= self._window:
            self.ack_now = True
        elif self.ack_at is None:
            self.ack_at = now + self._ack_s

    def take(self) -> bytes:
        """Return the bytes that have arrived in order, and have room for as many again."""
        data = b"".join(self._ready)
        self._ready.clear()
        if self._announced * 2 <= self._window:
            self.ack_now = True
        return data

    def acknowledged(self, *, gaps: bool) -> None:
        """Note that a frame with ``expected`` and ``credit`` goes out; ``gaps``: with :meth:`bitmap`, too."""
        self.ack_at = None
        self._unacknowledged = 0
        self._announced = self.credit
        if gaps:
            self.ack_now = False

    def bitmap(self) -> bytes:
        """Return which frames are here beyond ``expected``: bit 0 of byte 0 is the one after it."""
        bits = 0
        for seq in self._early:
            bits |= 1 << ((seq - self.expected - 1) & 255)
        return bits.to_bytes((bits.bit_length() + 7) // 8, "little")
