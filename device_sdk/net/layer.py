r"""Streams on top of streams: TLS over TCP, WebSocket over TLS over a proxy, TLS over a serial line.

A layer is a :class:`Layer` with a handshake, which is written as if the stream could block::

    class Greeting(Layer):
        def _handshake(self, link: Link) -> bytes:
            link.send_all(b"hello\n")
            return link.recv()                 # b"": the peer has closed

        def _adopt(self, state: bytes) -> None:
            self.greeting = state

It overrides the methods of a stream that it changes.
"""

from __future__ import annotations

import select
import time

from device_sdk.errors import ConnectFailedError, TransportClosedError
from device_sdk.net.attempt import StreamAttempt, StreamLife
from device_sdk.net.base import Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Layer", "Link"]


class Layer(Transport):
    """A stream that transforms the bytes of another one, ``inner``, which it owns.

    Everything here passes on to ``inner``. A subclass gives :meth:`_handshake`, :meth:`_adopt` and
    :meth:`_forget`, and overrides :meth:`recv` and :meth:`send` if it changes the bytes.

    A ``send()`` that turns a piece of data into other bytes should count the piece as taken only when
    ``inner`` has taken all of those. As with a socket, the caller then still holds the unsent data: whether
    to poll for writing, how far output has drained and how much ``close()`` loses need no second
    book-keeping.
    """

    __slots__ = ("_early", "_life", "description", "inner")

    def __init__(self, inner: Transport, description: str) -> None:
        self.inner = inner
        self.description = description
        self._life = StreamLife()  # its lock guards the use of ``inner`` by an attempt as well
        self._early = b""

    # For subclasses

    def _handshake(self, link: Link) -> object:
        """Do the handshake on ``inner``, which is open, and return its result for :meth:`_adopt`.

        It may be abandoned at any time, so it must use only ``link``, never the transport itself.
        Raises: ConnectFailedError: the peer refused. Errors of ``link`` may pass.
        """
        return None

    def _adopt(self, state: Any) -> None:
        """Keep the result of the handshake; the stream is open from now on. Never blocks or raises."""

    def _forget(self) -> None:
        """Drop the state of the connection that has ended. Never blocks or raises; may be called twice."""

    def _recv_below(self) -> bytes | None:
        """Return data of ``inner``, beginning with bytes that the handshake read too far."""
        if self._early:
            early, self._early = self._early, b""
            return early
        return self.inner.recv()

    # The contract

    def open(self, deadline: float) -> None:
        """Open the stream below, then do the handshake, both until ``deadline``."""
        with self._life.begin(self.description) as attempt:
            self.inner.open(deadline)
            if attempt.is_abandoned:  # close() was called just before the stream below began to open
                self.inner.close()
            self._shake_hands(attempt, deadline)

    def _shake_hands(self, attempt: StreamAttempt, deadline: float) -> None:
        link = Link(self.inner, attempt, self.description, deadline)
        try:
            state = self._handshake(link)
            with self._life.lock:
                attempt.check()
                self._early = link.take_unread()
                self._adopt(state)
                attempt.succeed()
        except BaseException as error:
            with self._life.lock:
                if not attempt.is_abandoned:
                    self.inner.close()
                    if attempt.is_cancelled:
                        self.inner.abort()  # it holds until the owner's close()
                cancelled = attempt.is_cancelled
            if cancelled:
                raise TransportClosedError(f"{self.description} was aborted while it was opened") from error
            if isinstance(error, TransportClosedError):
                failure = ConnectFailedError(f"cannot open {self.description}: {error}")
                failure.retry = error.retry
                raise failure from error
            raise

    def fileno(self) -> int:
        """Return the descriptor of the stream below."""
        return self.inner.fileno()

    def recv(self) -> bytes | None:
        """Return the bytes that the stream below has received; see :meth:`Transport.recv`.

        Data that arrived together with the end of the handshake is returned by the first call, without the
        descriptor being readable. In MQTT the client speaks first, so there is none.
        """
        return self._recv_below()

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Hand bytes to the stream below; see :meth:`Transport.send`."""
        return self.inner.send(data)

    def wants_write(self) -> bool:
        """Whether the stream below wants to write."""
        return self.inner.wants_write()

    def flush(self) -> None:
        """Let the stream below pass on its output."""
        self.inner.flush()

    def next_deadline(self) -> float | None:
        """Return the deadline of the stream below."""
        return self.inner.next_deadline()

    def handle_deadline(self, now: float) -> None:
        """Let the stream below do the work that is due."""
        self.inner.handle_deadline(now)

    def abort(self) -> None:
        """End the stream below, or the attempt to open this one; see :meth:`Transport.abort`."""
        with self._life.lock:
            self._life.abort()
            self.inner.abort()

    def close(self) -> None:
        """Close the stream below and forget an abort; see :meth:`Transport.close`."""
        with self._life.lock:
            self._life.close()
            self._forget()
            self._early = b""
            self.inner.close()


class Link:
    """A blocking view of the stream below, for a handshake: it waits until the deadline or an abort.

    It acts as the stream's owner, deadlines included. For the thread that is in ``open()``.
    """

    __slots__ = ("_attempt", "_deadline", "_description", "_inner", "_unread")

    def __init__(self, inner: Transport, attempt: StreamAttempt, description: str, deadline: float) -> None:
        self._inner = inner
        self._attempt = attempt
        self._description = description
        self._deadline = deadline
        self._unread = b""

    def recv(self) -> bytes:
        """Wait for bytes and return them; ``b""`` when the peer has closed. Raises: as :meth:`recv_until`."""
        while (data := self.recv_until(None)) is None:
            pass
        return data

    def recv_until(self, moment: float | None) -> bytes | None:
        """As :meth:`recv`, but ``None`` once the moment (monotonic seconds) has come.

        Raises: ConnectFailedError: the deadline has passed. TransportClosedError: reset, or aborted.
        """
        while True:
            if self._unread:
                return self.take_unread()
            with self._attempt.lock:
                self._attempt.check()
                data = self._inner.recv()
            if data is not None or (moment is not None and time.monotonic() >= moment):
                return data
            self._wait(moment)

    def send_all(self, data: bytes) -> None:
        """Send all of it, waiting for room. Raises: as :meth:`recv`."""
        while True:
            with self._attempt.lock:
                self._attempt.check()
                data = data[self._inner.send(data) :]
            if not data:
                return
            self._wait()
            # The stream may announce room by a descriptor that stays readable until recv().
            with self._attempt.lock:
                self._attempt.check()
                self._unread += self._inner.recv() or b""

    def unread(self, data: bytes) -> None:
        """Give back bytes read beyond the end of the handshake: the stream begins with them."""
        self._unread = data + self._unread

    def take_unread(self) -> bytes:
        """Return the bytes given back."""
        data, self._unread = self._unread, b""
        return data

    def _wait(self, moment: float | None = None) -> None:
        """Wait as an owner does, once, and not beyond that moment."""
        inner = self._inner
        with self._attempt.lock:
            self._attempt.check()
            fd, wants_write, due = inner.fileno(), inner.wants_write(), inner.next_deadline()
        if time.monotonic() >= self._deadline:
            raise ConnectFailedError(f"cannot open {self._description}: timed out in the handshake")
        until = min(each for each in (self._deadline, due, moment) if each is not None)
        wanted = select.POLLIN | (select.POLLOUT if wants_write else 0)
        writable = wants_write and self._attempt.poll(fd, wanted, until) & ~select.POLLIN
        with self._attempt.lock:
            self._attempt.check()
            if writable:
                inner.flush()
            now = time.monotonic()
            if due is not None and now >= due:
                inner.handle_deadline(now)
