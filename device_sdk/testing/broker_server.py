"""Connects a sans-IO broker to its clients: on a real socket, or in memory.

:class:`BrokerServer` listens on 127.0.0.1 with one thread of its own::

    with BrokerServer(ModelBroker()) as server:
        client = Client(server.url)
        ...
        server.wait_for(lambda: len(server.broker.journal) == 3, timeout=5)

:class:`MemoryBrokerServer` listens on ``memory://name``, has no thread, and runs only when the test calls it.
"""

from __future__ import annotations

import contextlib
import math
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from device_sdk.errors import TransportError
from device_sdk.net.memory import MemoryListener, MemoryTransport

__all__ = ["BrokerServer", "MemoryBrokerServer", "SansIoBroker", "SansIoLink"]

_READ_BYTES = 65_536
_STOP_SECONDS = 5.0
# SO_LINGER on with zero seconds: close() sends RST and drops undelivered data.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

T = TypeVar("T")


class SansIoLink(Protocol):
    """One network connection of a broker, as bytes."""

    closed: bool
    reset: bool
    reading: bool

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the client."""

    def data_to_send(self) -> bytes:
        """Return and forget the bytes for the client."""

    def connection_lost(self, now: float) -> None:
        """Take the end of the stream."""


LinkT = TypeVar("LinkT", bound=SansIoLink, covariant=True)


class SansIoBroker(Protocol[LinkT]):
    """A sans-IO broker: :class:`ModelBroker`, :class:`ScriptedBroker`, or your own."""

    def connect(self) -> LinkT:
        """Accept a network connection."""

    def next_deadline(self) -> float | None:
        """Return when :meth:`handle_deadline` is due."""

    def handle_deadline(self, now: float) -> None:
        """Do the work that is due."""


BrokerT = TypeVar("BrokerT", bound=SansIoBroker[SansIoLink])


class _Stream:
    """A connected socket, its link, and the output that the socket has not taken yet."""

    def __init__(self, sock: socket.socket, link: SansIoLink) -> None:
        self.sock = sock
        self.link = link
        self.output = bytearray()
        self.ended = False
        self.events = 0


class BrokerServer(Generic[BrokerT]):
    """Serves a broker on ``127.0.0.1`` from :meth:`start` to :meth:`stop`, or as a context manager.

    ``port`` 0 lets the system choose; the number is in :attr:`port` afterwards. ``clock`` gives the broker
    its time, in seconds. All methods may be called from any thread; touch the broker itself only inside
    :meth:`call` and :meth:`wait_for`, which hold the server's lock.

    A stream that the broker closes is ended in one direction and read until the client ends the other, so
    that the last bytes arrive and late data of the client is seen.
    """

    def __init__(
        self, broker: BrokerT, *, port: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.broker = broker
        self.port = port
        self._clock = clock
        self._changed = threading.Condition()
        self._streams: list[_Stream] = []
        self._stopping = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The address for a client: ``mqtt://127.0.0.1:PORT``."""
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> BrokerServer[BrokerT]:
        """Listen and serve. Raises: OSError: the port is taken. RuntimeError: started twice."""
        if self._thread is not None:
            raise RuntimeError("this BrokerServer was started before; make a new one")
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=100)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._wake_sender, self._wake_receiver = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"broker-{self.port}", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Close all streams and the port, within 5 s. Safe to call twice.

        The broker gets no ``connection_lost()``. Raises: any exception of the broker while serving.
        """
        if self._thread is None:
            return
        self._stopping = True
        self._wake()
        self._thread.join(_STOP_SECONDS)
        if self._thread.is_alive():
            raise RuntimeError(f"the broker on port {self.port} did not stop within {_STOP_SECONDS} s")
        self._raise_error()

    def __enter__(self) -> BrokerServer[BrokerT]:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def call(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call a function with the server's lock held, and send the broker's output."""
        with self._changed:
            result = function(*arguments, **named)
        self._wake()
        return result

    def wait_for(self, predicate: Callable[[], object], timeout: float = 5.0) -> None:
        """Wait until the predicate is true; it is called after each step of the broker.

        Raises: TimeoutError: not within ``timeout`` seconds. Any exception of the broker while serving.
        """
        with self._changed:
            happened = self._changed.wait_for(lambda: self._error or predicate(), timeout)
        self._raise_error()
        if not happened:
            raise TimeoutError(f"still not true after {timeout} s; it is seen at every step of the broker")

    def disconnect_all(self, *, reset: bool = False) -> None:
        """Cut every stream, with a TCP reset if asked: to the broker, its connections are lost."""
        with self._changed:
            for stream in list(self._streams):
                self._drop(stream, reset=reset)
            self._changed.notify_all()
        self._wake()

    # The thread

    def _run(self) -> None:
        try:
            with selectors.DefaultSelector() as self._selector:
                self._selector.register(self._listener, selectors.EVENT_READ)
                self._selector.register(self._wake_receiver, selectors.EVENT_READ)
                while not self._stopping:
                    self._serve_once()
        except Exception as error:
            self._error = error
        finally:
            with self._changed:
                for stream in self._streams:
                    stream.sock.close()
                self._streams.clear()
                for sock in (self._listener, self._wake_sender, self._wake_receiver):
                    sock.close()
                self._changed.notify_all()

    def _serve_once(self) -> None:
        with self._changed:
            deadline = self.broker.next_deadline()
        timeout = None
        if deadline is not None and deadline < math.inf:
            timeout = max(0.0, deadline - self._clock())
        ready = self._selector.select(timeout)
        with self._changed:
            now = self._clock()
            for key, events in ready:
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._wake_receiver:
                    self._wake_receiver.recv(_READ_BYTES)
                elif key.data in self._streams and events & selectors.EVENT_READ:
                    self._read(key.data, now)
            deadline = self.broker.next_deadline()
            if deadline is not None and now >= deadline:
                self.broker.handle_deadline(now)
            # One client's packet may be output to every other one.
            for stream in list(self._streams):
                self._write(stream)
            self._changed.notify_all()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._streams.append(_Stream(sock, self.broker.connect()))

    def _read(self, stream: _Stream, now: float) -> None:
        try:
            data = stream.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if data:
            stream.link.receive_data(data, now)
        else:
            self._drop(stream)

    def _write(self, stream: _Stream) -> None:
        """Send output, close the stream if the broker wants that, and set the events to poll for."""
        stream.output += stream.link.data_to_send()
        try:
            if stream.output:
                del stream.output[: stream.sock.send(stream.output)]
        except BlockingIOError:
            pass
        except ConnectionError:
            return self._drop(stream)
        if stream.link.reset:
            return self._drop(stream, reset=True)
        if stream.link.closed and not stream.output and not stream.ended:
            stream.ended = True
            with contextlib.suppress(OSError):
                stream.sock.shutdown(socket.SHUT_WR)
        events = selectors.EVENT_READ if stream.link.reading else 0
        if stream.output:
            events |= selectors.EVENT_WRITE
        self._watch(stream, events)

    def _watch(self, stream: _Stream, events: int) -> None:
        if events == stream.events:
            return
        if not stream.events:
            self._selector.register(stream.sock, events, stream)
        elif not events:
            self._selector.unregister(stream.sock)
        else:
            self._selector.modify(stream.sock, events, stream)
        stream.events = events

    def _drop(self, stream: _Stream, *, reset: bool = False) -> None:
        self._streams.remove(stream)
        self._watch(stream, 0)
        if reset:
            stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        stream.sock.close()
        stream.link.connection_lost(self._clock())

    # Helpers

    def _wake(self) -> None:
        if self._thread is None:
            return
        with contextlib.suppress(OSError):
            self._wake_sender.send(b"\0")

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error


class MemoryBrokerServer(Generic[BrokerT]):
    """Serves a broker on ``memory://name`` until :meth:`close`, only inside :meth:`run`; no thread, no clock.

    ::

        with MemoryBrokerServer(ModelBroker(), "broker") as server:
            client.open(deadline)           # a transport for server.url
            client.send(connect_bytes)
            server.run(now=0.0)
            assert client.recv() == connack_bytes

    Clients may connect from any thread; everything else belongs to the one that calls :meth:`run`.
    """

    def __init__(self, broker: BrokerT, name: str) -> None:
        self.broker = broker
        # open() of a client may run in a thread of its own: it only leaves its end here.
        self._connecting: deque[MemoryTransport] = deque()
        self._streams: list[_MemoryStream] = []
        self._listener = MemoryListener(name, self._connecting.append)

    @property
    def url(self) -> str:
        """The address for a client: ``memory://NAME``."""
        return self._listener.url

    def run(self, now: float) -> bool:
        """Move bytes between clients and broker until nothing moves. ``now``: the broker's time in seconds.

        Returns: whether anything moved.
        """
        moved = False
        while self._run_once(now):
            moved = True
        return moved

    def disconnect_all(self, now: float, *, reset: bool = False) -> None:
        """Cut every stream, with a reset if asked: to the broker, its connections are lost."""
        for stream in list(self._streams):
            self._drop(stream, now, reset=reset)

    def close(self) -> None:
        """Stop listening and close all streams; the broker gets no ``connection_lost()``. Idempotent."""
        self._listener.close()
        for end in [*self._connecting, *(stream.end for stream in self._streams)]:
            end.close()
        self._connecting.clear()
        self._streams.clear()

    def __enter__(self) -> MemoryBrokerServer[BrokerT]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run_once(self, now: float) -> bool:
        moved = bool(self._connecting)
        while self._connecting:
            self._streams.append(_MemoryStream(self._connecting.popleft(), self.broker.connect()))
        deadline = self.broker.next_deadline()
        if deadline is not None and now >= deadline:
            self.broker.handle_deadline(now)
        for stream in list(self._streams):
            try:
                moved |= stream.read(now)
            except TransportError:
                self._drop(stream, now)
                moved = True
        for stream in list(self._streams):
            try:
                moved |= stream.write()
            except TransportError:
                self._drop(stream, now)
                moved = True
            if stream.over:
                self._drop(stream, now, reset=stream.link.reset)
        return moved

    def _drop(self, stream: _MemoryStream, now: float, *, reset: bool = False) -> None:
        if stream not in self._streams:
            return
        self._streams.remove(stream)
        if reset:
            stream.end.reset()
        stream.end.close()
        stream.link.connection_lost(now)


class _MemoryStream:
    """The server's end of a memory stream, its link, and the output that did not fit yet."""

    def __init__(self, end: MemoryTransport, link: SansIoLink) -> None:
        self.end = end
        self.link = link
        self.output = bytearray()
        self.ended_by_client = False

    @property
    def over(self) -> bool:
        """Whether either side has ended the stream."""
        return self.ended_by_client or self.link.reset or (self.link.closed and not self.output)

    def read(self, now: float) -> bool:
        """Hand received data to the link. Returns: whether there was any. Raises: TransportError: reset."""
        data = self.end.recv() if self.link.reading else None
        if data:
            self.link.receive_data(data, now)
        self.ended_by_client = data == b""
        return data is not None

    def write(self) -> bool:
        """Send output that fits. Returns: whether any did. Raises: TransportError: the client is gone."""
        self.output += self.link.data_to_send()
        taken = self.end.send(self.output) if self.output and not self.ended_by_client else 0
        del self.output[:taken]
        return taken > 0
