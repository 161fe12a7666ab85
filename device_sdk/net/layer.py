r"""Streams on top of streams: TLS over TCP, WebSocket over TLS over a proxy, TLS over a serial line.

A layer is a :class:`Layer` with a handshake. It writes the handshake as if its stream could block::

    class Greeting(Layer):
        def _handshake(self, link: Link) -> bytes:
            link.send_all(b"hello\n")
            return link.recv()                 # b"": the peer has closed

        def _adopt(self, state: bytes) -> None:
            self.greeting = state

and overrides, of the methods of a stream, those that it changes.
"""

from __future__ import annotations

import os
import select
import threading
import time

from device_sdk.errors import ConnectFailedError, TransportClosedError, TransportError
from device_sdk.net.base import Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Layer", "Link"]

# No wait is longer, so that no clock or number of seconds is too large for poll().
_LONGEST_WAIT_S = 3600.0


class Layer(Transport):
    """A stream that changes what goes through another one, ``inner``, which it owns.

    Everything here passes on to ``inner``. A subclass gives :meth:`_handshake`, :meth:`_adopt` and
    :meth:`_forget`, and overrides :meth:`recv` and :meth:`send` if the bytes change on their way.

    A ``send()`` of a subclass that turns a piece of data into other bytes should count the piece as taken
    only when ``inner`` has taken all of those. The caller then still has what has not left, as it has
    with a socket: whether to poll for writing, how far output has drained and what is lost by ``close()``
    need no second book-keeping.
    """

    __slots__ = ("_attempt", "_early", "_lock", "description", "inner")

    def __init__(self, inner: Transport, description: str) -> None:
        self.inner = inner
        self.description = description
        # Guards the attempt, and the use of ``inner`` by an attempt, against abort() and close().
        self._lock = threading.Lock()
        self._attempt: _Attempt | None = None
        self._early = b""

    # For subclasses

    def _handshake(self, link: Link) -> object:
        """Do the handshake on ``inner``, which is open, and return what :meth:`_adopt` needs of it.

        It may be abandoned at any time and must then not touch the transport itself: only ``link``.
        Raises: ConnectFailedError: the peer says no. What ``link`` raises may pass.
        """
        return None

    def _adopt(self, state: Any) -> None:
        """Keep what the handshake returned; the stream is open from now on. Never blocks or raises."""

    def _forget(self) -> None:
        """Drop what belongs to the connection that has ended. Never blocks or raises; may come twice."""

    def _recv_below(self) -> bytes | None:
        """Return what ``inner`` has, beginning with what the handshake read too far."""
        if self._early:
            early, self._early = self._early, b""
            return early
        return self.inner.recv()

    # The contract

    def open(self, deadline: float) -> None:
        """Open the stream below, then do the handshake, both until ``deadline``."""
        with self._lock:
            if self._attempt is not None:
                raise TransportError(f"{self.description} is being opened; close() it first")
            try:
                attempt = self._attempt = _Attempt()
            except OSError as error:  # out of descriptors
                raise ConnectFailedError(f"cannot open {self.description}: {error.strerror}") from error
        try:
            self.inner.open(deadline)
            if attempt.abandoned:  # close() came just before the stream below began to open
                self.inner.close()
            self._shake_hands(attempt, deadline)
        finally:
            with self._lock:
                if self._attempt is attempt:
                    self._attempt = None
                attempt.release()

    def _shake_hands(self, attempt: _Attempt, deadline: float) -> None:
        link = Link(self, attempt, deadline)
        try:
            state = self._handshake(link)
            with self._lock:
                link.check()
                self._early = link.take_unread()
                self._adopt(state)
        except BaseException as error:
            with self._lock:
                if not attempt.abandoned:
                    self.inner.close()
                    if attempt.cancelled:
                        self.inner.abort()  # it holds until the owner's close()
                cancelled = attempt.cancelled
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
        """Return what the stream below has received; see :meth:`Transport.recv`.

        Data that came together with the end of the handshake is returned by the first call, which nothing
        announces. In MQTT the client speaks first, so there is none.
        """
        return self._recv_below()

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Hand bytes to the stream below; see :meth:`Transport.send`."""
        return self.inner.send(data)

    def wants_write(self) -> bool:
        """Whether the stream below wants to write."""
        return self.inner.wants_write()

    def flush(self) -> None:
        """Let the stream below pass on what it holds."""
        self.inner.flush()

    def next_deadline(self) -> float | None:
        """Return the deadline of the stream below."""
        return self.inner.next_deadline()

    def handle_deadline(self, now: float) -> None:
        """Let the stream below do what is due."""
        self.inner.handle_deadline(now)

    def abort(self) -> None:
        """End the stream below, or the attempt to open this one; see :meth:`Transport.abort`."""
        with self._lock:
            if self._attempt is not None:
                self._attempt.cancel()
            self.inner.abort()

    def close(self) -> None:
        """Close the stream below and forget an abort; see :meth:`Transport.close`."""
        with self._lock:
            if self._attempt is not None:
                self._attempt.cancel()
                self._attempt.abandoned = True
                self._attempt = None
            self._forget()
            self._early = b""
            self.inner.close()


class Link:
    """The stream below during a handshake, as something that blocks: until the deadline or an abort.

    It plays the part of an owner, deadlines of the stream included. For the thread that is in ``open()``.
    """

    __slots__ = ("_attempt", "_deadline", "_inner", "_layer", "_unread")

    def __init__(self, layer: Layer, attempt: _Attempt, deadline: float) -> None:
        self._layer = layer
        self._inner = layer.inner
        self._attempt = attempt
        self._deadline = deadline
        self._unread = b""

    def recv(self) -> bytes:
        """Wait for bytes and return them; ``b""`` when the peer has closed.

        Raises: ConnectFailedError: the deadline has passed. TransportClosedError: reset, or aborted.
        """
        while True:
            if self._unread:
                return self.take_unread()
            with self._layer._lock:
                self.check()
                data = self._inner.recv()
            if data is not None:
                return data
            self._wait()

    def send_all(self, data: bytes) -> None:
        """Send all of it, waiting for room. Raises: as :meth:`recv`."""
        while True:
            with self._layer._lock:
                self.check()
                data = data[self._inner.send(data) :]
            if not data:
                return
            self._wait()
            # Room may be announced by a descriptor that is readable until it is read.
            with self._layer._lock:
                self.check()
                self._unread += self._inner.recv() or b""

    def unread(self, data: bytes) -> None:
        """Give back what was read beyond the end of the handshake: the stream begins with it."""
        self._unread = data + self._unread

    def take_unread(self) -> bytes:
        """Return what was read and not used yet."""
        data, self._unread = self._unread, b""
        return data

    def check(self) -> None:
        """Raise if nobody wants this any more. Called with the layer's lock held."""
        if self._attempt.cancelled:
            raise TransportClosedError(f"{self._layer.description} was aborted while it was opened")

    def _wait(self) -> None:
        """Wait as an owner does, once."""
        inner = self._inner
        with self._layer._lock:
            self.check()
            fd, wants_write, due = inner.fileno(), inner.wants_write(), inner.next_deadline()
        now = time.monotonic()
        if now >= self._deadline:
            raise ConnectFailedError(f"cannot open {self._layer.description}: timed out in the handshake")
        until = self._deadline if due is None else min(due, self._deadline)
        writable = self._attempt.wait(fd, wants_write, until - now)
        with self._layer._lock:
            self.check()
            if writable:
                inner.flush()
            now = time.monotonic()
            if due is not None and now >= due:
                inner.handle_deadline(now)


class _Attempt:
    """One call of open(). All but :meth:`wait` is called under the layer's lock."""

    __slots__ = ("_wake", "abandoned", "cancelled")

    def __init__(self) -> None:
        self.cancelled = False
        self.abandoned = False  # the stream below is not this attempt's any more
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def cancel(self) -> None:
        self.cancelled = True
        os.eventfd_write(self._wake, 1)

    def wait(self, fd: int, wants_write: bool, seconds: float) -> bool:
        """Wait for the descriptor or for :meth:`cancel`; return whether it is writable, if that is wanted.

        The descriptor may be closed meanwhile, and even be another file's: then this is cancelled as well.
        """
        poll = select.poll()
        poll.register(fd, select.POLLIN | (select.POLLOUT if wants_write else 0))
        poll.register(self._wake, select.POLLIN)
        # Rounded up: rounded down, the last millisecond would be spent in a loop.
        found = dict(poll.poll(int(min(max(seconds, 0.0), _LONGEST_WAIT_S) * 1000) + 1))
        return wants_write and bool(found.get(fd, 0) & ~select.POLLIN)

    def release(self) -> None:
        os.close(self._wake)
