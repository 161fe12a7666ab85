"""Byte streams inside one process: ``memory://name`` reaches the :class:`MemoryListener` of that name.

They behave like a TCP connection over a short wire, without a kernel between: bounded buffers, partial
sends, end of stream, reset. For tests, and for a broker that lives in the same program::

    with MemoryListener("broker") as listener:
        client = open_transport("memory://broker")
        client.open(time.monotonic() + 1)
        server = listener.accept(timeout=1)
        client.send(b"ping")
        assert server.recv() == b"ping"
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque

from device_sdk._printable import printable
from device_sdk.errors import (
    ArgumentError,
    ClosedError,
    ConnectFailedError,
    TransportClosedError,
    TransportError,
)
from device_sdk.net.base import ParsedUrl, Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar, Self

__all__ = ["MemoryListener", "MemoryTransport", "memory_pair"]

CAPACITY_BYTES = 65536

# One lock for all memory streams, never held while foreign code runs or anything waits. Connecting, closing
# and aborting touch two ends and the table of listeners; with one lock they cannot deadlock.
_lock = threading.Lock()
_listeners: dict[str, MemoryListener] = {}


class _Pipe:
    """One direction: ``writer`` puts in, ``reader`` takes out. Guarded by the lock."""

    __slots__ = ("capacity", "data", "ended", "reader", "reset", "starved", "writer")

    def __init__(self, writer: MemoryTransport, reader: MemoryTransport, capacity: int) -> None:
        self.writer: MemoryTransport | None = writer  # None: closed
        self.reader: MemoryTransport | None = reader
        self.data = bytearray()
        self.capacity = capacity
        self.ended = False  # the reader gets b"" after the data
        self.reset = False  # both ends get an error, the data is gone
        self.starved = False  # the writer had no room and waits for it


class MemoryTransport(Transport):
    """One end of an in-process stream; both ends are of this class, and each may have its own thread.

    An end from :func:`~device_sdk.net.base.open_transport` connects and may be opened again after
    ``close()``. An end from :meth:`MemoryListener.accept` or :func:`memory_pair` is open from the start and
    cannot be reopened. Like every stream it has one owner, but here all methods are safe from any thread.

    The descriptor is an eventfd, readable while there is something to do: data, end of stream, or room
    after a send that was cut short. Polling it for writing is useless, so ``wants_write()`` is false.

    Raises: ArgumentError: the URL has no name, or more than a name.
    """

    options: ClassVar[tuple[str, ...]] = ()
    __slots__ = ("_aborted", "_fd", "_incoming", "_name", "_outgoing", "_retry", "_send_limit", "_signalled",
                 "description")  # fmt: skip

    def __init__(self, url: ParsedUrl) -> None:
        if not url.host or url.port or url.path or url.query:
            raise ArgumentError("url", f"must be memory://NAME and nothing more; found {url!r}")
        self._prepare(f"memory {url.host}", url.host)

    def _prepare(self, description: str, name: str | None) -> None:
        self.description = description
        self._name = name  # None: cannot be opened
        self._fd = -1
        self._incoming: _Pipe | None = None
        self._outgoing: _Pipe | None = None
        self._aborted = False
        self._signalled = False
        self._retry = False  # a send was cut short and may be repeated now
        self._send_limit: int | None = None

    def open(self, deadline: float) -> None:
        """Connect to the listener of the URL's name; its ``on_connect`` runs in this call.

        Does not wait for ``accept()``, so only a slow ``on_connect`` can delay it.
        """
        with _lock:
            if self._incoming is not None or self._name is None:
                raise TransportError(f"{self.description} is open already, or cannot be opened again")
            if self._aborted:
                raise TransportClosedError(f"{self.description} was aborted before it was opened")
            listener = _listeners.get(self._name)
            if listener is None:
                raise ConnectFailedError(f"nobody listens on memory://{self._name}")
            if time.monotonic() >= deadline:
                raise ConnectFailedError(f"cannot connect to memory://{self._name}: timed out")
            peer = _bare_end(f"{self.description} (peer)")
            opened = _link(self, peer, listener.capacity)
        try:
            listener.deliver(peer)
        except BaseException:
            with _lock:
                self._release(opened)
                peer._release()
            raise
        with _lock:
            if not self._is_live(opened):
                self._release(opened)  # the abort itself holds until close()
                raise TransportClosedError(f"{self.description} was aborted while it was opened")

    def fileno(self) -> int:
        """Return the eventfd, readable while there is something to do."""
        with _lock:
            self._pipes()
            return self._fd

    def recv(self) -> bytes | None:
        """Return up to 64 KiB of received bytes; see :meth:`Transport.recv`."""
        with _lock:
            incoming, _ = self._usable_pipes()
            data = bytes(incoming.data[:CAPACITY_BYTES])
            del incoming.data[: len(data)]
            if data and incoming.starved and incoming.writer is not None:
                incoming.starved = False
                incoming.writer._retry = True
                incoming.writer._update_signal()
            self._retry = False  # the caller sends again next
            self._update_signal()
            return data if data or incoming.ended else None

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Put bytes into the peer's buffer and return how many fit; see :meth:`Transport.send`."""
        with _lock:
            _, outgoing = self._usable_pipes()
            if outgoing.reader is None:
                raise TransportClosedError.ended(f"{self.description}: closed by the peer", "closed")
            room = outgoing.capacity - len(outgoing.data)
            taken = min(len(data), room, self._send_limit or room)
            outgoing.data += memoryview(data)[:taken]
            cut_short = taken < len(data)
            outgoing.starved = cut_short and taken == room
            self._retry = cut_short and taken < room
            self._update_signal()
            outgoing.reader._update_signal()
            return taken

    def limit_send(self, count: int | None) -> None:
        """Fault: from now on each :meth:`send` takes at most ``count`` >= 1 bytes; ``None``: no limit."""
        if count is not None and count < 1:
            raise ArgumentError("count", f"must be at least 1, or None for no limit; not {count}")
        with _lock:
            self._send_limit = count

    def reset(self) -> None:
        """Fault: break the connection; data under way is lost, and both ends raise from now on."""
        with _lock:
            for pipe in self._pipes():
                pipe.reset = True
                pipe.data.clear()
                if pipe.reader is not None:
                    pipe.reader._update_signal()

    def abort(self) -> None:
        """End the stream, or the attempt to open it; see :meth:`Transport.abort`."""
        with _lock:
            self._aborted = True
            if self._outgoing is not None:
                self._update_signal()
                self._outgoing.ended = True
                if self._outgoing.reader is not None:
                    self._outgoing.reader._update_signal()

    def close(self) -> None:
        """Leave the stream and forget an abort; see :meth:`Transport.close`."""
        with _lock:
            self._release()
            self._aborted = False

    # Below: called with the lock held

    def _pipes(self) -> tuple[_Pipe, _Pipe]:
        """Return the incoming and the outgoing pipe. Raises: TransportClosedError: not open."""
        if self._incoming is None or self._outgoing is None:
            raise TransportClosedError(f"{self.description} is not open")
        return self._incoming, self._outgoing

    def _usable_pipes(self) -> tuple[_Pipe, _Pipe]:
        """As :meth:`_pipes`, but raise if the stream was aborted or reset."""
        if self._aborted:
            raise TransportClosedError(f"{self.description} was aborted")
        pipes = self._pipes()
        if pipes[0].reset:
            raise TransportClosedError.ended(f"{self.description}: reset by the peer", "reset")
        return pipes

    def _is_live(self, opened: _Pipe) -> bool:
        return self._incoming is opened and not self._aborted

    def _release(self, only: _Pipe | None = None) -> None:
        """Leave the stream if it is open and, with ``only``, if that is still its incoming pipe."""
        if self._incoming is None or self._outgoing is None or only not in (None, self._incoming):
            return
        self._incoming.reader = self._outgoing.writer = None
        self._outgoing.ended = True
        peer = self._outgoing.reader
        if peer is not None:
            peer._update_signal()
        self._incoming = self._outgoing = None
        os.close(self._fd)
        self._fd = -1

    def _update_signal(self) -> None:
        """Make the descriptor readable exactly while there is something to do."""
        incoming = self._incoming
        if incoming is None:
            return
        busy = bool(incoming.data) or incoming.ended or incoming.reset or self._retry or self._aborted
        if busy and not self._signalled:
            os.eventfd_write(self._fd, 1)
        elif self._signalled and not busy:
            os.eventfd_read(self._fd)
        self._signalled = busy


class MemoryListener:
    """Accepts connections to ``memory://name`` from its construction until ``close()``.

    The other end of each new connection goes to ``on_connect(end)``, called in the thread that opens and
    before its ``open()`` returns, so that a broker without a thread can be driven synchronously; without
    ``on_connect`` it waits for :meth:`accept`. ``capacity``: bytes of buffer in each direction, at least 1.
    The methods may be called from any thread.

    Raises: ArgumentError: the name is empty or taken, or the capacity is not positive.
    """

    def __init__(
        self,
        name: str,
        on_connect: Callable[[MemoryTransport], object] | None = None,
        *,
        capacity: int = CAPACITY_BYTES,
    ) -> None:
        if capacity < 1:
            raise ArgumentError("capacity", f"must be at least 1 byte, not {capacity}")
        self.name = name
        self.url = f"memory://{name}"
        self.capacity = capacity
        self._on_connect = on_connect
        self._waiting: deque[MemoryTransport] = deque()
        self._changed = threading.Condition(_lock)
        with _lock:
            if not name or name in _listeners:
                raise ArgumentError("name", f"{name!r} is empty or has a listener already; choose another")
            _listeners[name] = self

    def accept(self, timeout: float) -> MemoryTransport:
        """Return the other end of the oldest connection not yet accepted.

        Raises: TimeoutError: none came within ``timeout`` seconds. ClosedError: the listener is closed.
        """
        with _lock:
            came = self._changed.wait_for(lambda: self._waiting or not self._is_listening(), timeout)
            if not came:
                raise TimeoutError(printable(f"nobody connected to {self.url} within {timeout} s"))
            if not self._waiting:
                raise ClosedError(f"the listener {self.url} is closed")
            return self._waiting.popleft()

    def close(self) -> None:
        """Refuse connections from now on and close those not accepted; the others go on. Idempotent."""
        with _lock:
            if self._is_listening():
                del _listeners[self.name]
            refused = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        for end in refused:
            end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_listening(self) -> bool:
        return _listeners.get(self.name) is self

    def deliver(self, end: MemoryTransport) -> None:
        """Hand over the other end of a new connection; for the connecting transport.

        Called without the lock, because ``on_connect`` is foreign code.
        """
        if self._on_connect is not None:
            self._on_connect(end)
            return
        with _lock:
            if self._is_listening():
                self._waiting.append(end)
                self._changed.notify()
                return
        end.close()


def memory_pair(capacity: int = CAPACITY_BYTES) -> tuple[MemoryTransport, MemoryTransport]:
    """Return the two ends of a new stream, for tests; close both."""
    one, other = _bare_end("memory pair, end 1"), _bare_end("memory pair, end 2")
    with _lock:
        _link(one, other, capacity)
    return one, other


def _bare_end(description: str) -> MemoryTransport:
    """Return an end that has no URL and cannot be reopened."""
    end = MemoryTransport.__new__(MemoryTransport)
    end._prepare(description, None)
    return end


def _link(one: MemoryTransport, other: MemoryTransport, capacity: int) -> _Pipe:
    """Open both ends of a new stream, with the lock held; return the incoming pipe of the first."""
    there, back = _Pipe(one, other, capacity), _Pipe(other, one, capacity)
    for end, incoming, outgoing in ((one, back, there), (other, there, back)):
        end._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        end._incoming, end._outgoing = incoming, outgoing
        end._signalled = end._retry = False
    return back
