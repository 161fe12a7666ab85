"""All time-outs of a link, from the rate of its line and the largest frame. Source: docs/link.md §Times."""

from __future__ import annotations

__all__ = ["Timing"]

BITS_PER_BYTE = 10  # with start and stop bit
HELLO_BYTES = 22


class Timing:
    """Seconds. ``frame``: the largest frame on the line; the others are what docs/link.md calls so."""

    __slots__ = ("ack", "answer", "byte", "frame", "heartbeat", "hello", "silence", "stall")

    def __init__(self, baud: int, frame: int) -> None:
        self.byte = BITS_PER_BYTE / baud
        self.frame = (frame + frame // 254 + 3) * self.byte
        self.hello = 0.2 + 8 * HELLO_BYTES * self.byte
        self.ack = min(self.frame, 0.1)
        self.answer = 0.1 + 4 * self.frame
        self.heartbeat = max(1.0, 4 * self.frame)
        self.silence = 4 * self.heartbeat
        self.stall = 8 * self.silence
