"""Opening a stream, and abandoning an attempt: the one place where threads meet in a transport.

``open()`` may block in a thread of its own while any thread calls ``abort()`` and the owner calls
``close()``. A transport has a :class:`StreamLife` and changes its own state under that lock::

    def open(self, deadline):
        with self._life.begin(self.description) as attempt:
            sock = connect(attempt, deadline)      # blocks; attempt.poll() ends early when it is cancelled
            try:
                with self._life.lock:
                    attempt.succeed()              # raises if abort() or close() was faster
                    self._sock = sock
            except TransportClosedError:
                sock.close()
                raise

    def abort(self):
        with self._life.lock:
            self._life.abort()
            ...

    def close(self):
        with self._life.lock:
            self._life.close()
            ...
"""

from __future__ import annotations

import errno
import os
import select
import threading
import time

from device_sdk.errors import ConnectFailedError, TransportClosedError, TransportError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

__all__ = ["StreamAttempt", "StreamLife"]

# No single wait is longer, so that no deadline is too far away for poll().
_LONGEST_WAIT_S = 86400.0


class StreamLife:
    """The state of a stream: closed, being opened, open, or aborted.

    ``lock`` guards this and everything of the transport that ``abort()`` touches. Its holder never blocks.
    """

    __slots__ = ("_attempt", "is_aborted", "is_open", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_open = False  # from the success of an attempt to close(), aborted or not
        self.is_aborted = False  # until close()
        self._attempt: StreamAttempt | None = None

    def begin(self, description: str) -> StreamAttempt:
        """Return the attempt that may open the stream now, a context manager. Takes the lock.

        Raises: TransportError: it is open, or being opened. TransportClosedError: it was aborted.
        ConnectFailedError: the process is out of descriptors.
        """
        with self.lock:
            if self.is_open or self._attempt is not None:
                raise TransportError(f"{description} is open or being opened; close() it first")
            if self.is_aborted:
                raise TransportClosedError(f"{description} was aborted before it was opened")
            try:
                self._attempt = StreamAttempt(self, description)
            except OSError as error:
                name = errno.errorcode.get(error.errno or 0)
                raise ConnectFailedError(f"cannot open {description}: {error.strerror} ({name})") from error
            return self._attempt

    def abort(self) -> None:
        """End an attempt, and allow none until :meth:`close`. Called with the lock held."""
        self.is_aborted = True
        if self._attempt is not None:
            self._attempt.cancel()

    def close(self) -> None:
        """End an attempt and forget an abort; the abandoned attempt no longer affects this stream.

        Called with the lock held.
        """
        self.is_open = self.is_aborted = False
        if self._attempt is not None:
            self._attempt.cancel()
            self._attempt.is_abandoned = True
            self._attempt = None

    def end(self, attempt: StreamAttempt) -> None:
        """Forget an attempt that is over. Called with the lock held, by the attempt."""
        if self._attempt is attempt:
            self._attempt = None


class StreamAttempt:
    """One call of ``open()``. Another thread may cancel it, and its transport may go on without it.

    :meth:`poll`, :meth:`wait` and :meth:`when_cancelled` are for the thread that is in ``open()``, without
    the lock; the other methods are called with the lock of the :class:`StreamLife` held.
    """

    __slots__ = ("_description", "_life", "_tell", "_wake", "is_abandoned", "is_cancelled", "lock")

    def __init__(self, life: StreamLife, description: str) -> None:
        self._life = life
        self.lock = life.lock
        self._description = description
        self._tell: Callable[[], object] | None = None
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.is_cancelled = False  # by abort() or close()
        self.is_abandoned = False  # by close(): the stream may already belong to a later attempt

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self._life.end(self)
            os.close(self._wake)

    def cancel(self) -> None:
        """End the wait, now or as soon as it begins."""
        self.is_cancelled = True
        os.eventfd_write(self._wake, 1)
        if self._tell is not None:
            self._tell()

    def check(self) -> None:
        """Raise TransportClosedError if this was cancelled."""
        if self.is_cancelled:
            raise TransportClosedError(f"{self._description} was aborted while it was opened")

    def succeed(self) -> None:
        """Mark the stream as open. Raises: TransportClosedError: this was cancelled before."""
        self.check()
        self._life.is_open = True

    def when_cancelled(self, tell: Callable[[], object]) -> None:
        """Call ``tell`` once this is cancelled, or now if it already is; it must not block."""
        self._tell = tell
        if self.is_cancelled:  # perhaps before the line above
            tell()

    def poll(self, descriptor: int, events: int, until: float) -> int:
        """Wait for ``events`` of :func:`select.poll` until a monotonic time; return those that occurred.

        0 if none did, or if this was cancelled. The descriptor may be closed meanwhile and its number
        reused: then this is cancelled as well.
        """
        poll = select.poll()
        poll.register(descriptor, events)
        poll.register(self._wake, select.POLLIN)
        seconds = min(max(until - time.monotonic(), 0.0), _LONGEST_WAIT_S)
        # Rounded up: rounded down, the last millisecond would be spent in a loop.
        ready = dict(poll.poll(int(seconds * 1000) + 1))
        return 0 if self.is_cancelled else ready.get(descriptor, 0)

    def wait(self, descriptor: int, events: int, until: float) -> int:
        """As :meth:`poll`, but return an errno: 0 if one of ``events`` occurred, ETIMEDOUT, ECANCELED."""
        if self.poll(descriptor, events, until):
            return 0
        return errno.ECANCELED if self.is_cancelled else errno.ETIMEDOUT
