"""The end of a line that begins streams: a board, or the client of this package."""

from __future__ import annotations

from device_sdk.net.link.frame import (
    CLOSE,
    FRAME_BYTES,
    HELLO,
    VERSION,
    WELCOME,
    WINDOWS,
    Hello,
    Splitter,
    encode,
)
from device_sdk.net.link.stream import LinkStream
from device_sdk.net.link.timing import Timing
from device_sdk.net.link.words import RESTARTED, TERMS, VERSIONS, explain, explain_silence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.net.link.frame import Frame

__all__ = ["Caller"]


class Caller:
    """Says HELLO until a WELCOME comes, then has one :class:`LinkStream`. No I/O; times in monotonic seconds.

    ``baud``: the rate of the line; ``frame``, ``window``: the largest that this end can do; ``nonce``: 32
    random bits. ``failure``: a number of :mod:`words`, once there can be no stream.
    """

    __slots__ = (
        "_baud",
        "_heard_callers",
        "_heard_self",
        "_hello_at",
        "_offer",
        "failure",
        "splitter",
        "stream",
    )  # fmt: skip

    def __init__(self, baud: int, frame: int, window: int, nonce: int, now: float) -> None:
        self._baud = baud
        self._offer = Hello(VERSION, frame, window, nonce)
        self._hello_at = now
        self._heard_callers = False
        self._heard_self = False
        self.failure: int | None = None
        self.splitter = Splitter()
        self.stream: LinkStream | None = None

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the line; ask for frames afterwards."""
        for frame in self.splitter.feed(data):
            stream = self.stream
            if frame.kind == WELCOME:
                self._on_welcome(frame, now)
            elif frame.kind == HELLO:
                self._heard_callers = True
                hello = Hello.unpack(frame.payload)
                self._heard_self |= hello is not None and hello.nonce == self._offer.nonce
            elif stream is not None and frame.epoch == stream.epoch:
                stream.receive(frame, now)
            elif stream is None and frame.kind == CLOSE and self._is_for_us(frame.payload):
                self.failure = frame.payload[0]

    def _is_for_us(self, payload: bytes) -> bool:
        return len(payload) >= 6 and payload[2:6] == self._offer.nonce.to_bytes(4, "little")

    def _on_welcome(self, frame: Frame, now: float) -> None:
        agreed, offer = Hello.unpack(frame.payload), self._offer
        if agreed is None or agreed.nonce != offer.nonce:
            return  # of somebody's earlier HELLO
        if self.stream is not None:
            if frame.epoch != self.stream.epoch:
                self.stream.finish(RESTARTED)
        elif agreed.version != VERSION:
            self.failure = VERSIONS
        elif not (
            FRAME_BYTES[0] <= agreed.frame <= offer.frame and WINDOWS[0] <= agreed.window <= offer.window
        ):
            self.failure = TERMS
        else:
            stream = LinkStream(frame.epoch, agreed, Timing(self._baud, agreed.frame), now)
            stream.inbound.ack_now = True  # so that the other end knows that we know
            self.stream = stream

    def next_frame(self, now: float) -> bytes:
        """Return the next frame for the line, ``b""`` if there is none now."""
        if self.stream is not None:
            return self.stream.next_frame(now)
        if now < self._hello_at or self.failure is not None:
            return b""
        self._hello_at = now + Timing(self._baud, FRAME_BYTES[0]).hello
        return encode(HELLO, 0, 0, 0, 0, self._offer.pack())

    def next_deadline(self, *, blocked: bool) -> float | None:
        """Return when :meth:`handle_deadline` is due; ``blocked``: the line takes no bytes now."""
        if self.stream is not None:
            return self.stream.next_deadline(blocked=blocked)
        return None if blocked or self.failure is not None else self._hello_at

    def handle_deadline(self, now: float) -> None:
        """Do the work that is due; ask for frames afterwards."""
        if self.stream is not None:
            self.stream.handle_deadline(now)

    def explain(self) -> str:
        """Return why there is no stream yet, for people."""
        if self.failure is not None:
            return explain(self.failure)
        return explain_silence(self.splitter, self._heard_callers, self._heard_self)
