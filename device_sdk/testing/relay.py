"""Forwards the connections of a :class:`~device_sdk.testing.fault_proxy.FaultProxy`, faults included."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from device_sdk.errors import ArgumentError

__all__ = ["Direction", "Faults", "Relay", "resolve"]

Direction = Literal["up", "down"]
# (family, address) of each way to reach a host.
Targets: TypeAlias = list[tuple[int, Any]]

READ_BYTES = 65536
# One direction of one connection holds at most about this much; then its sender has to wait.
BUFFER_BYTES = 256 * 1024
BACKLOG = 128
# SO_LINGER on, 0 seconds: close() sends RST instead of FIN and drops unsent data.
LINGER_RST = struct.pack("ii", 1, 0)


class Relay:
    """Forwards from a listening socket to the first of ``targets`` that answers.

    Not thread-safe: all of it belongs to the proxy's thread, except for :meth:`begin`, which is called first,
    and the counts.
    """

    def __init__(self, targets: Targets) -> None:
        self.targets = targets
        self.faults = Faults()
        self.connections = 0
        self._passed_bytes: dict[Direction, int] = {"up": 0, "down": 0}
        self._lock = threading.Lock()  # guards the byte counters
        self._open: set[Connection] = set()
        self._address: tuple[int, str, int]
        self._reserved: socket.socket
        self._listener: socket.socket | None = None
        self._selector: selectors.BaseSelector

    def begin(self, host: str, port: int) -> int:
        """Listen, and return the port. Raises: OSError: the address is not available."""
        # Bound but never listening, it keeps the port ours during a cut: connecting to it is refused, and
        # no other process can get it, not even a client as the source port of its own attempt.
        family = resolve(host, port)[0][0]
        self._reserved = _bound_socket(family, host, port)
        port = self._reserved.getsockname()[1]
        self._address = family, host, port
        self._selector = selectors.DefaultSelector()
        self.faults = Faults()
        self.connections = 0
        self._passed_bytes = {"up": 0, "down": 0}
        self.listen()
        return port

    def watch_wake(self, descriptor: int) -> None:
        """Let :meth:`turn` end when this descriptor is readable."""
        self._selector.register(descriptor, selectors.EVENT_READ)

    def count(self, direction: Direction) -> int:
        """Return the bytes passed on in this direction since the beginning. Any thread."""
        with self._lock:
            return self._passed_bytes[direction]

    def turn(self) -> bool:
        """Wait for events and handle them; return whether the wake-up was among them."""
        woken = False
        now = time.monotonic()
        self._watch(now)
        for key, events in self._selector.select(self._timeout(now)):
            if key.fileobj is self._listener:
                self._accept()
            elif isinstance(key.data, tuple):
                connection, sock = key.data
                self._serve(connection, sock, events)
            else:
                woken = True
        return woken

    def end(self) -> None:
        """Close everything, orderly as in a cut."""
        self.cut()
        self._reserved.close()
        self._selector.close()

    def listen(self) -> None:
        """Accept clients. No effect if it does already."""
        if self._listener is None:
            self._listener = _bound_socket(*self._address)
            self._listener.listen(BACKLOG)

    def cut(self) -> None:
        """End every connection in order, and accept none."""
        if self._listener is not None:
            self._watch_socket(self._listener, 0, None)
            self._listener.close()
            self._listener = None
        for connection in list(self._open):
            self._close(connection, reset=False)

    def reset_all(self) -> None:
        """Reset every connection."""
        if self._listener is not None:
            self._accept()  # clients that waited during a stall count as connections
        for connection in list(self._open):
            self._close(connection, reset=True)

    def _accept(self) -> None:
        """Accept the waiting clients."""
        if self._listener is None:
            return
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # no client waits any more
                return
            self.connections += 1
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(client, list(self.targets))
            self._open.add(connection)
            self._connect(connection)

    def _connect(self, connection: Connection) -> None:
        """Start to connect to the next of the target's addresses; without one, reset the client."""
        if connection.server is not None:
            self._watch_socket(connection.server, 0, None)
            connection.server.close()
            connection.server = None
        if not connection.targets:
            self._close(connection, reset=True)
            return
        family, address = connection.targets.pop(0)
        try:
            connection.server = socket.socket(family, socket.SOCK_STREAM)
            connection.server.setblocking(False)
            connection.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.server.connect(address)
        except BlockingIOError:
            pass  # the selector will report it
        except OSError:
            self._connect(connection)

    def _close(self, connection: Connection, *, reset: bool) -> None:
        self._open.discard(connection)
        for sock in filter(None, (connection.client, connection.server)):
            self._watch_socket(sock, 0, None)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RST)
            else:
                _drain(sock)
            sock.close()

    def _timeout(self, now: float) -> float | None:
        """Seconds until the next held chunk is due."""
        if self.faults.stalled:
            return None
        moments = [flow.chunks[0][0] for c in self._open for flow in (c.up, c.down) if flow.chunks]
        # Those already due wait for their socket, not for the clock.
        return min((moment - now for moment in moments if moment > now), default=None)

    def _watch(self, now: float) -> None:
        """Register the events that each socket waits for."""
        running = not self.faults.stalled
        if self._listener is not None:
            self._watch_socket(self._listener, selectors.EVENT_READ * running, None)
        for connection in self._open:
            client, server = connection.client, connection.server
            if server is None:
                continue
            up, down = connection.up, connection.down
            if connection.connecting:
                self._watch_socket(server, selectors.EVENT_WRITE * running, connection)
                self._watch_socket(client, selectors.EVENT_READ * (running and up.has_room()), connection)
                continue
            for sock, source, sink in ((client, up, down), (server, down, up)):
                events = selectors.EVENT_READ * source.has_room() | selectors.EVENT_WRITE * sink.is_due(now)
                self._watch_socket(sock, events * running, connection)

    def _watch_socket(self, sock: socket.socket, events: int, connection: Connection | None) -> None:
        key = self._selector.get_map().get(sock)
        if not events:
            if key is not None:
                self._selector.unregister(sock)
        elif key is None:
            self._selector.register(sock, events, (connection, sock))
        elif key.events != events:
            self._selector.modify(sock, events, (connection, sock))

    def _serve(self, connection: Connection, sock: socket.socket, events: int) -> None:
        """Move bytes of one socket that is ready."""
        server = connection.server
        if server is None or connection not in self._open:
            return
        if connection.connecting and sock is server:
            if server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._connect(connection)
            else:
                connection.connecting = False
            return
        from_client = sock is connection.client
        try:
            if events & selectors.EVENT_READ:
                flow = connection.up if from_client else connection.down
                flow.read(sock, time.monotonic() + self.faults.delay)
            if events & selectors.EVENT_WRITE and not self._write(connection, sock):
                return
        except BlockingIOError:
            return
        except OSError:  # one side was reset: so is the other
            self._close(connection, reset=True)
            return
        if connection.up.finished and connection.down.finished:
            self._close(connection, reset=False)

    def _write(self, connection: Connection, sock: socket.socket) -> bool:
        """Pass one chunk on to ``sock``; return whether the connection survived it. Raises: OSError."""
        direction: Direction = "down" if sock is connection.client else "up"
        flow = connection.down if direction == "down" else connection.up
        if not flow.is_due(time.monotonic()):
            return True
        if not flow.chunks[0][1]:
            flow.finish(sock)
            return True
        allowance = self.faults.drop_after.get(direction)
        limit = min(n for n in (self.faults.split, allowance, READ_BYTES) if n is not None)
        with self._lock:  # every received byte is counted
            sent = flow.write(sock, limit)
            self._passed_bytes[direction] += sent
        if allowance is None:
            return True
        if sent < allowance:
            self.faults.drop_after[direction] = allowance - sent
            return True
        del self.faults.drop_after[direction]
        self._close(connection, reset=True)
        return False


@dataclass
class Faults:
    """The faults that are on."""

    stalled: bool = False
    delay: float = 0.0
    split: int | None = None
    drop_after: dict[Direction, int] = field(default_factory=dict)


class Flow:
    """One direction of one connection: chunks with the time they are due; ``b""`` is the end of stream.

    Only the first chunk counts: one that is due earlier, because the delay was changed, waits its turn.
    """

    def __init__(self) -> None:
        self.chunks: deque[tuple[float, memoryview | bytes]] = deque()
        self.held_bytes = 0
        self.ended = False  # the source will send no more
        self.finished = False  # and the end was passed on to the sink

    def has_room(self) -> bool:
        """Whether the source may send more."""
        return not self.ended and self.held_bytes < BUFFER_BYTES

    def is_due(self, now: float) -> bool:
        """Whether the sink may have the first chunk."""
        return bool(self.chunks) and self.chunks[0][0] <= now

    def read(self, source: socket.socket, due: float) -> None:
        """Take a chunk from the source. Raises: OSError."""
        data = source.recv(READ_BYTES)
        self.ended = not data
        self.held_bytes += len(data)
        self.chunks.append((due, memoryview(data)))

    def write(self, sink: socket.socket, limit: int) -> int:
        """Pass on at most ``limit`` bytes of the first chunk; return their number. Raises: OSError."""
        due, data = self.chunks[0]
        sent = sink.send(data[:limit])
        self.held_bytes -= sent
        if sent == len(data):
            self.chunks.popleft()
        else:
            self.chunks[0] = due, data[sent:]
        return sent

    def finish(self, sink: socket.socket) -> None:
        """Pass on the end of the stream. Raises: OSError."""
        self.chunks.clear()
        self.finished = True
        sink.shutdown(socket.SHUT_WR)


class Connection:
    """A client's socket, the one to the target (``None`` between two attempts), and the flows between."""

    def __init__(self, client: socket.socket, targets: Targets) -> None:
        self.client = client
        self.server: socket.socket | None = None
        self.targets = targets  # addresses not tried yet
        self.connecting = True
        self.up = Flow()
        self.down = Flow()


def resolve(host: str, port: int) -> Targets:
    """Return (family, address) for each address of the host. Raises: ArgumentError, OSError."""
    if not 0 <= port <= 65535:
        raise ArgumentError("port", f"must be 0..65535, not {port}")
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, *_, address in found]


def _bound_socket(family: int, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _drain(sock: socket.socket) -> None:
    """Read received data, within bounds: close() sends RST, not FIN, if any is left unread."""
    try:
        for _ in range(16):
            if not sock.recv(READ_BYTES):
                return
    except OSError:  # no more data, or a dead connection
        pass
