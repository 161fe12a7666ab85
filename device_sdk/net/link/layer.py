"""``framing=link`` of a serial URL: the caller's end of a link on top of the port."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress

from device_sdk.errors import ConnectFailedError, TransportClosedError
from device_sdk.net.layer import Layer, Link
from device_sdk.net.link.caller import Caller
from device_sdk.net.link.words import ABORTED, DONE, explain
from device_sdk.net.watch import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.net.base import Transport
    from device_sdk.net.link.stream import LinkStream

__all__ = ["LinkTransport"]

# At an orderly close, frames without an acknowledgement, such as one with a DISCONNECT, get the time of one
# repeat, but no more than this.
LEAVE_S = 0.5


class LinkTransport(Layer):
    """A stream of frames with sequence numbers and checksums over ``inner``, a serial line.

    ``baud``: the rate of the line, from which all time-outs follow. ``frame``: bytes of the largest frame,
    64..1024; ``window``: frames on their way, 1..64. The other end may agree on less.

    Each :meth:`open` begins an epoch. Within it every byte arrives once, in order, unchanged, or the stream
    ends: also when the other end restarts, or is silent for four heart-beats (4 s from 9600 baud on). Its
    descriptor is an epoll of our own.

    Source: docs/link.md.
    """

    options = ()  # they are in the URL
    hints = ("the gateway at the other end of the link ended it", "the gateway answers, its broker does not")
    __slots__ = ("_baud", "_caller", "_ended", "_frame", "_unsent", "_watch", "_window")

    def __init__(self, inner: Transport, *, baud: int, frame: int, window: int) -> None:
        super().__init__(inner, f"link on {inner.description}")
        self._baud = baud
        self._frame = frame
        self._window = window
        self._caller: Caller | None = None
        self._watch: Watch | None = None
        self._forget()

    def _handshake(self, link: Link) -> Caller:
        nonce = int.from_bytes(os.urandom(4), "little")
        caller = Caller(self._baud, self._frame, self._window, nonce, time.monotonic())
        try:
            while caller.stream is None and caller.failure is None:
                link.send_all(caller.next_frame(time.monotonic()))
                data = link.recv_until(caller.next_deadline(blocked=False))
                if data == b"":
                    raise TransportClosedError("unplugged")
                caller.receive(data or b"", time.monotonic())
        except ConnectFailedError as error:  # the deadline
            raise ConnectFailedError(
                f"cannot open {self.description}: timed out; {caller.explain()}"
            ) from error
        if caller.stream is None:
            raise ConnectFailedError(f"cannot open {self.description}: {caller.explain()}")
        link.send_all(caller.next_frame(time.monotonic()))
        return caller

    def _adopt(self, state: Caller) -> None:
        self._caller = state

    def _forget(self) -> None:
        self._caller = None
        self._ended = False  # the line, below
        self._unsent: bytes = b""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    # The stream

    def fileno(self) -> int:
        """Return the descriptor to poll for reading."""
        if self._watch is None:
            stream = self._open_stream()
            try:
                self._watch = Watch(self.inner.fileno())
            except OSError as error:
                raise TransportClosedError(f"{self.description}: {error.strerror}") from error
            self._wake_if_needed(stream)
        return self._watch.fileno()

    def recv(self) -> bytes | None:
        """Return the bytes that have arrived in order; see :meth:`Transport.recv`.

        An orderly close of the other end, and an adapter that is unplugged, are ``b""``.

        Raises: TransportClosedError: the other end restarted, is silent, gave another reason for its close
        (its broker is away), or broke the protocol.
        """
        stream, now = self._open_stream(), time.monotonic()
        self._listen(stream, now)
        data = stream.take()
        try:
            self._push(stream, now)
        except TransportClosedError:
            if not data:
                raise
        if self._watch is not None:
            self._watch.calm()
            if data and self._is_over(stream):
                self._watch.wake()
        if data:
            return data
        if stream.end is not None and stream.end != DONE:
            raise self._closed_by(stream.end)
        return b"" if self._is_over(stream) else None

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Put data into frames, as many as the other end has room for; see :meth:`Transport.send`."""
        stream, now = self._open_stream(), time.monotonic()
        taken = stream.send(data, now)
        if taken < len(data):
            self._listen(stream, now)  # room may have come, or the end
            self._wake_if_needed(stream)
            if self._is_over(stream):
                raise self._closed_by(stream.end or DONE)
            taken += stream.send(memoryview(data)[taken:], now)
        self._push(stream, now)
        return taken

    def flush(self) -> None:
        """Pass on frames that the line had no room for."""
        super().flush()
        self._push(self._open_stream(), time.monotonic())

    def next_deadline(self) -> float | None:
        """Return when an acknowledgement, a repeat or a heart-beat is due."""
        if self._caller is None or self._ended:
            return None
        return self._caller.next_deadline(blocked=bool(self._unsent))

    def handle_deadline(self, now: float) -> None:
        """Send what is due, and notice a silent line. Reads, too: a paused owner must not look dead."""
        stream = self._open_stream()
        self._listen(stream, now)
        stream.handle_deadline(now)
        self._push(stream, now)
        self._wake_if_needed(stream)

    def close(self) -> None:
        """Say so to the other end, and close the port; see :meth:`Transport.close`.

        Frames that are not acknowledged get up to 0.5 s.
        """
        if self._caller is not None and self._caller.stream is not None and not self._life.is_aborted:
            with suppress(TransportClosedError):
                self._take_leave(self._caller.stream)
        super().close()

    def _open_stream(self) -> LinkStream:
        if self._caller is None or self._caller.stream is None:
            state = "was aborted" if self._life.is_aborted else "is not open"
            raise TransportClosedError(f"{self.description} {state}")
        return self._caller.stream

    def _is_over(self, stream: LinkStream) -> bool:
        return self._ended or stream.end is not None

    def _closed_by(self, reason: int) -> TransportClosedError:
        by_peer = "reset" if reason == ABORTED else None
        return TransportClosedError.ended(f"{self.description}: {explain(reason)}", by_peer)

    def _wake_if_needed(self, stream: LinkStream) -> None:
        if self._watch is not None and (stream.inbound.has_data or self._is_over(stream)):
            self._watch.wake()

    def _listen(self, stream: LinkStream, now: float) -> None:
        """Read the line once."""
        if self._life.is_aborted:
            raise TransportClosedError(f"{self.description} was aborted")
        if self._is_over(stream) or self._caller is None:
            return
        data = self._recv_below()
        if data:
            self._caller.receive(data, now)
        self._ended = data == b""

    def _push(self, stream: LinkStream, now: float) -> None:
        """Hand frames down until the line takes no more."""
        while not self._ended:
            data = self._unsent or stream.next_frame(now)
            if not data:
                return
            self._unsent = data[self.inner.send(data) :]
            if self._unsent:
                return

    def _take_leave(self, stream: LinkStream) -> None:
        now = time.monotonic()
        until = now + min(1.25 * stream.timing.answer, LEAVE_S)
        poll = select.poll()
        poll.register(self.inner.fileno(), select.POLLIN)
        while stream.outbound.waiting and not self._is_over(stream):
            if now >= until:
                break
            due = min(until, self.next_deadline() or until)
            poll.poll(max(0.0, due - now) * 1000 + 1)
            now = time.monotonic()
            self._listen(stream, now)
            stream.handle_deadline(now)
            stream.take()
            self._push(stream, now)
        stream.close(DONE)
        self._push(stream, now)
