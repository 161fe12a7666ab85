"""The end of a line that takes the streams which the other end begins: a gateway."""

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
from device_sdk.net.link.words import DONE, RESTARTED, SILENT, TERMS, UNKNOWN, VERSIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.net.link.frame import Frame

__all__ = ["Answerer"]


class Answerer:
    """Answers HELLO with WELCOME. No I/O; times are monotonic seconds.

    ``baud``: the rate of the line; ``frame``, ``window``: the largest that this end can do; ``epoch``: 16
    random bits. ``stream``: the epoch that has begun last; another one takes its place when the peer has
    restarted, and has then ended this one. An epoch has begun when the peer has shown that it knows it, so a
    peer that only says HELLO costs nothing.
    """

    __slots__ = (
        "_baud",
        "_epoch",
        "_frame",
        "_hello",
        "_pending",
        "_refusal",
        "_welcome",
        "_window",
        "splitter",
        "stream",
    )

    def __init__(self, baud: int, frame: int, window: int, epoch: int) -> None:
        self._baud = baud
        self._frame = frame
        self._window = window
        self._epoch = epoch
        self._hello = b""  # the payload of the HELLO that _pending answers
        self._pending: LinkStream | None = None
        self._welcome: bytes | None = None
        self._refusal: bytes | None = None
        self.splitter = Splitter()
        self.stream: LinkStream | None = None

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the line; look at ``stream`` and ask for frames afterwards."""
        for frame in self.splitter.feed(data):
            if frame.kind == HELLO:
                self._on_hello(frame, now)
            elif frame.kind != WELCOME:
                self._on_other(frame, now)

    def _on_other(self, frame: Frame, now: float) -> None:
        pending = self._pending
        if pending is not None and frame.epoch == pending.epoch:
            self.stream, self._pending = pending, None
        stream, reason = self.stream, UNKNOWN
        if stream is not None and frame.epoch == stream.epoch:
            if stream.end is None:
                stream.receive(frame, now)
                return
            if DONE < stream.end < SILENT:
                reason = stream.end
        if frame.kind != CLOSE:
            self._refusal = encode(CLOSE, frame.epoch, 0, frame.seq, 0, bytes((reason, VERSION)))

    def _on_hello(self, frame: Frame, now: float) -> None:
        hello = Hello.unpack(frame.payload)
        if hello is None:
            return
        if hello.version < VERSION or hello.frame < FRAME_BYTES[0] or hello.window < WINDOWS[0]:
            reason = TERMS if hello.version >= VERSION else VERSIONS
            detail = bytes((reason, VERSION)) + hello.nonce.to_bytes(4, "little")
            self._refusal = encode(CLOSE, 0, 0, 0, 0, detail)
            return
        frame_bytes, window = min(hello.frame, self._frame), min(hello.window, self._window)
        agreed = Hello(VERSION, frame_bytes, window, hello.nonce)
        pending = self._pending
        if pending is None or frame.payload != self._hello:
            # A peer that has shown that it knows its epoch and says HELLO again has restarted.
            if self.stream is not None:
                self.stream.finish(RESTARTED)
            self._epoch = self._epoch % 0xFFFF + 1
            self._hello = frame.payload
            self._pending = pending = LinkStream(self._epoch, agreed, Timing(self._baud, frame_bytes), now)
        self._welcome = encode(WELCOME, pending.epoch, 0, 0, window, agreed.pack())

    def next_frame(self, now: float) -> bytes:
        """Return the next frame for the line, ``b""`` if there is none now."""
        if self._welcome is not None:
            frame, self._welcome = self._welcome, None
            return frame
        if self._refusal is not None:
            frame, self._refusal = self._refusal, None
            return frame
        return b"" if self.stream is None else self.stream.next_frame(now)

    def next_deadline(self, *, blocked: bool) -> float | None:
        """Return when :meth:`handle_deadline` is due; ``blocked``: the line takes no bytes now."""
        return None if self.stream is None else self.stream.next_deadline(blocked=blocked)

    def handle_deadline(self, now: float) -> None:
        """Do the work that is due; ask for frames afterwards."""
        if self.stream is not None:
            self.stream.handle_deadline(now)
