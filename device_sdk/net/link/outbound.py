"""The frames that this end has on their way."""

from __future__ import annotations

from collections import deque

__all__ = ["Outbound"]

_MOST_DOUBLINGS = 3


class _Sent:
    """A frame that the peer has not acknowledged. ``order``: which transmission was its last; 0: none yet."""

    __slots__ = ("due", "order", "payload", "seq")

    def __init__(self, seq: int, payload: bytes) -> None:
        self.seq = seq
        self.payload = payload
        self.order = 0
        self.due: float | None = None  # None: to be sent now


class Outbound:
    """Frames until they are acknowledged, at most a window of them, and none that the peer has no room for.

    A line keeps the order. So once the peer has a frame, every frame whose last transmission was before that
    one's is lost, and is sent again at once; the time-out is for the last frames before a pause.
    ``repeated`` counts the transmissions but the first.
    """

    __slots__ = (
        "_answer_s",
        "_base",
        "_credit",
        "_doublings",
        "_frames",
        "_orders",
        "_window",
        "progress_at",
        "repeated",
    )

    def __init__(self, window: int, answer_s: float, now: float) -> None:
        self._window = self._credit = window
        self._answer_s = answer_s
        self._frames: deque[_Sent] = deque()
        self._base = 0  # sequence number of the first frame in _frames, or of the next one
        self._orders = 0
        self._doublings = 0
        self.progress_at = now  # when something was acknowledged last, or began to wait
        self.repeated = 0

    @property
    def next_seq(self) -> int:
        """The sequence number of the next new frame."""
        return (self._base + len(self._frames)) & 255

    @property
    def waiting(self) -> int:
        """How many frames are not acknowledged."""
        return len(self._frames)

    def room(self) -> int:
        """Return how many frames may be added."""
        return min(self._window, self._credit) - len(self._frames)

    def add(self, payload: bytes, now: float) -> None:
        """Take the payload of a new frame."""
        if not self._frames:
            self.progress_at = now
        self._frames.append(_Sent(self.next_seq, payload))

    def take(self) -> _Sent | None:
        """Return the next frame that has to go over the line now; tell :meth:`sent` when it does."""
        for frame in self._frames:
            if frame.due is None:
                return frame
        return None

    def sent(self, frame: _Sent, leaves_at: float) -> None:
        """Note the transmission of a frame whose last byte leaves at that time."""
        self.repeated += frame.order > 0
        self._orders += 1
        frame.order = self._orders
        frame.due = leaves_at + self._answer_s * (1 << self._doublings)

    def acknowledge(self, ack: int, credit: int, bitmap: bytes, now: float) -> None:
        """Note what the peer has: all frames before ``ack``, and those of the bitmap behind it."""
        count = (ack - self._base) & 255
        frames = self._frames
        if count > len(frames) or (count and not frames[count - 1].order):
            return  # of no frame of ours: the peer is broken, and nothing may be taken for delivered
        latest = 0
        for _ in range(count):
            latest = max(latest, frames.popleft().order)
        self._base = ack
        self._credit = credit
        if bitmap:
            latest = max(latest, self._forget_later(bitmap))
        if latest:
            self.progress_at = now
            self._doublings = 0
            for frame in frames:
                if 0 < frame.order < latest and frame.payload:
                    frame.due = None

    def _forget_later(self, bitmap: bytes) -> int:
        """Drop the content of the frames that the peer has beyond a gap; return their latest order."""
        latest = 0
        bits = int.from_bytes(bitmap, "little")
        for index, frame in enumerate(self._frames):
            if index and bits >> (index - 1) & 1 and frame.order and frame.payload:
                latest = max(latest, frame.order)
                frame.payload = b""
                frame.due = float("inf")
        return latest

    def expire(self, now: float) -> None:
        """Have the first frame sent again if its acknowledgement is overdue: its answer tells the rest."""
        due = self.next_due()
        if due is not None and now >= due:
            self._doublings = min(self._doublings + 1, _MOST_DOUBLINGS)
            self._frames[0].due = None
            # The others get the time that the answer to this one takes.
            wait = self._answer_s * (1 << self._doublings)
            for frame in self._frames:
                if frame.due is not None and frame.due < now + wait:
                    frame.due = now + wait

    def next_due(self) -> float | None:
        """Return when :meth:`expire` has something to do."""
        return min((frame.due for frame in self._frames if frame.due is not None), default=None)
