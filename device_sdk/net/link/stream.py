"""One epoch of a link."""

from __future__ import annotations

from device_sdk.net.link.frame import ACK, CLOSE, DATA, OVERHEAD, encode
from device_sdk.net.link.inbound import Inbound
from device_sdk.net.link.outbound import Outbound
from device_sdk.net.link.words import CUT_SHORT, DONE, SILENT, STALLED, VIOLATION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.net.link.frame import Frame, Hello
    from device_sdk.net.link.timing import Timing

__all__ = ["LinkStream"]


class LinkStream:
    """What both ends know of one epoch. Times are monotonic seconds.

    ``end``: the reason for the end (a number of :mod:`words`), ``None`` while it lives. Bytes that came
    before the end can still be taken.
    """

    __slots__ = (
        "_closing",
        "_free_at",
        "_heard_at",
        "_sent_at",
        "end",
        "epoch",
        "inbound",
        "outbound",
        "size",
        "timing",
    )

    def __init__(self, epoch: int, agreed: Hello, timing: Timing, now: float) -> None:
        self.epoch = epoch
        self.size = agreed.frame - OVERHEAD
        self.timing = timing
        self.outbound = Outbound(agreed.window, timing.answer, now)
        self.inbound = Inbound(agreed.window, timing.ack)
        self.end: int | None = None
        self._closing: int | None = None
        self._heard_at = self._sent_at = self._free_at = now

    def send(self, data: bytes | bytearray | memoryview, now: float) -> int:
        """Take bytes from the front of the data, as many as the peer has room for; return how many."""
        if self.end is not None or self._closing is not None:
            return 0
        taken, total = 0, len(data)
        for _ in range(self.outbound.room()):
            if taken == total:
                break
            payload = bytes(data[taken : taken + self.size])
            self.outbound.add(payload, now)
            taken += len(payload)
        return taken

    def take(self) -> bytes:
        """Return the bytes that have come, ``b""`` if there are none."""
        return self.inbound.take() if self.inbound.has_data else b""

    def close(self, reason: int) -> None:
        """End it with a CLOSE; frames without an acknowledgement are left."""
        if self.end is None:
            self._closing = reason

    def finish(self, reason: int) -> None:
        """Note that it has ended, without a word to the peer."""
        if self.end is None:
            self.end = reason

    def receive(self, frame: Frame, now: float) -> None:
        """Take a DATA, ACK or CLOSE of this epoch."""
        if self.end is not None:
            return
        self._heard_at = now
        gaps = frame.payload if frame.kind == ACK else b""
        self.outbound.acknowledge(frame.ack, frame.credit, gaps, now)
        if frame.kind == DATA:
            if 0 < len(frame.payload) <= self.size:
                self.inbound.put(frame.seq, frame.payload, now)
            else:
                self._closing = VIOLATION
        elif frame.kind == CLOSE:
            reason = frame.payload[0] if frame.payload else DONE
            self.end = CUT_SHORT if reason == DONE and frame.seq != self.inbound.expected else reason

    def next_frame(self, now: float) -> bytes:
        """Return the next frame for the line, ``b""`` if there is none now."""
        if self.end is not None:
            return b""
        inbound = self.inbound
        if self._closing is not None:
            self.end = self._closing
            return self._frame(CLOSE, now, self.outbound.next_seq, bytes((self._closing, 0)))
        if not inbound.ack_now:
            sent = self.outbound.take()
            if sent is not None:
                data = self._frame(DATA, now, sent.seq, sent.payload)
                self.outbound.sent(sent, self._free_at)
                return data
            overdue = inbound.ack_at is not None and now >= inbound.ack_at
            if not overdue and now < self._sent_at + self.timing.heartbeat:
                return b""
        return self._frame(ACK, now, self.outbound.next_seq, inbound.bitmap())

    def _frame(self, kind: int, now: float, seq: int, payload: bytes) -> bytes:
        inbound = self.inbound
        data = encode(kind, self.epoch, seq, inbound.expected, inbound.credit, payload)
        inbound.acknowledged(gaps=kind == ACK)
        self._sent_at = now
        self._free_at = max(now, self._free_at) + len(data) * self.timing.byte
        return data

    def next_deadline(self, *, blocked: bool) -> float | None:
        """Return when :meth:`handle_deadline` is due; ``blocked``: the line takes no bytes now."""
        if self.end is not None:
            return None
        moments = [self._heard_at + self.timing.silence]
        if not blocked:
            due = self.outbound.next_due()
            moments += [self._sent_at + self.timing.heartbeat]
            moments += [moment for moment in (due, self.inbound.ack_at) if moment is not None]
            if self.outbound.waiting:
                moments.append(self.outbound.progress_at + self.timing.stall)
        return min(moments)

    def handle_deadline(self, now: float) -> None:
        """Do the work that is due; ask for frames afterwards."""
        if self.end is not None:
            return
        if now >= self._heard_at + self.timing.silence:
            self.end = SILENT
        elif self.outbound.waiting and now >= self.outbound.progress_at + self.timing.stall:
            self._closing = STALLED
        else:
            self.outbound.expire(now)
