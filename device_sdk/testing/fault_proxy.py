"""A TCP proxy that breaks connections on purpose."""

from __future__ import annotations

import os
import selectors
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from device_sdk.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

__all__ = ["FaultProxy"]

Direction = Literal["up", "down"]
# (family, address) of each way to reach a host.
Targets: TypeAlias = list[tuple[int, Any]]

READ_BYTES = 65536
# One direction of one connection holds at most about this much; then its sender has to wait.
BUFFER_BYTES = 256 * 1024
BACKLOG = 128
# A fault that is not in effect after this long means that the proxy's thread is gone.
PATIENCE_S = 10.0
# SO_LINGER on, 0 seconds: close() sends RST instead of FIN and forgets what is unsent.
LINGER_RST = struct.pack("ii", 1, 0)


class FaultProxy:
    """Forwards TCP connections to ``target_host:target_port`` and misbehaves when told to.

    ::

        with FaultProxy("127.0.0.1", 1883) as proxy:
            client = Client(f"mqtt://{proxy.host}:{proxy.port}")
            ...
            proxy.cut()          # the network is gone
            proxy.restore()      # and back

    It runs in a daemon thread of its own between :meth:`start` and :meth:`stop`, listens on the loopback
    interface unless told otherwise, and picks a free port for ``listen_port=0``: ``host`` and ``port`` say
    where. The faults may be called from any thread while it runs and are in effect when they return; they
    last until they are taken back, and combine. "up" is from the client to the target.

    Buffers are bounded, so a receiver that does not read slows its sender down. An end of stream is passed
    on as a half-close, a reset as a reset; a target that cannot be reached resets the client.

    ``connections`` counts those accepted since the start, ``bytes_up`` and ``bytes_down`` what was passed on.
    Faults raise RuntimeError while the proxy does not run; ArgumentError for a value out of range.
    """

    def __init__(
        self, target_host: str, target_port: int, *, listen_host: str = "127.0.0.1", listen_port: int = 0
    ) -> None:
        self.host = listen_host
        self.port = listen_port
        self.connections = 0
        self._passed_bytes: dict[Direction, int] = {"up": 0, "down": 0}
        self._targets = _resolve(target_host, target_port)
        self._faults = _Faults()
        self._open: set[_Connection] = set()
        self._commands: deque[_Command] = deque()
        self._lock = threading.Lock()  # guards the next three and the byte counters
        self._thread: threading.Thread | None = None
        self._wake = -1
        self._stopping = False
        self._reserved: socket.socket
        self._listener: socket.socket | None = None
        self._selector: selectors.BaseSelector

    # Life. start() and stop() belong to one thread.

    def start(self) -> None:
        """Listen and forward. Raises: OSError: the address cannot be had. RuntimeError: it runs already."""
        if self._thread is not None:
            raise RuntimeError("the proxy runs already")
        # Bound but never listening, it keeps the port ours during a cut: connecting to it is refused, and
        # nobody else can get it, not even a client as the source port of its own attempt.
        family = _resolve(self.host, self.port)[0][0]
        self._reserved = _bound_socket(family, self.host, self.port)
        self.port = self._reserved.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._faults = _Faults()
        self.connections = 0
        self._passed_bytes = {"up": 0, "down": 0}
        self._stopping = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._listen()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close everything, orderly as in a cut, and wait for the thread to end. Idempotent."""
        thread = self._thread
        if thread is None:
            return
        self._call(self._refuse_commands)
        thread.join(PATIENCE_S)
        with self._lock:
            self._thread = None
            os.close(self._wake)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def bytes_up(self) -> int:
        """Bytes passed on to the target since the start."""
        with self._lock:
            return self._passed_bytes["up"]

    @property
    def bytes_down(self) -> int:
        """Bytes passed on to the clients since the start."""
        with self._lock:
            return self._passed_bytes["down"]

    # Faults.

    def cut(self) -> None:
        """End every connection in order (FIN) and refuse new ones (ECONNREFUSED) until :meth:`restore`.

        What the proxy still held, and what it had not accepted yet, is lost.
        """
        self._call(self._cut)

    def restore(self) -> None:
        """Listen again on the same port after :meth:`cut`."""
        self._call(self._listen)

    def reset(self) -> None:
        """Reset (RST) every connection now; new ones are welcome."""
        self._call(self._reset_all)

    def stall(self) -> None:
        """Forward nothing until :meth:`resume`, as a black hole does.

        Connections stay; new ones are established by the kernel (up to its backlog) and wait.
        """
        self._call(lambda: setattr(self._faults, "stalled", True))

    def resume(self) -> None:
        """Forward again what :meth:`stall` held back."""
        self._call(lambda: setattr(self._faults, "stalled", False))

    def delay(self, seconds: float) -> None:
        """Hold what arrives from now on for ``seconds`` in each direction, 0..3600; 0 ends it."""
        if not 0 <= seconds <= 3600:
            raise ArgumentError("seconds", f"must be 0..3600, not {seconds!r}")
        self._call(lambda: setattr(self._faults, "delay", seconds))

    def split(self, count: int | None) -> None:
        """Write at most ``count`` >= 1 bytes at a time; ``None``: as much as there is.

        Each write is a TCP segment of its own, but a slow reader may find several together.
        """
        if count is not None and count < 1:
            raise ArgumentError("count", f"must be at least 1, or None; not {count}")
        self._call(lambda: setattr(self._faults, "split", count))

    def drop_after(self, count: int, direction: Direction = "up") -> None:
        """Forward ``count`` >= 0 more bytes in that direction, then reset the connection they were on.

        With 0 the next byte is not forwarded. It happens once; other connections go on.
        """
        if count < 0:
            raise ArgumentError("count", f"must be 0 or more, not {count}")
        if direction not in ("up", "down"):
            raise ArgumentError("direction", f"must be 'up' or 'down', not {direction!r}")
        self._call(lambda: self._faults.drop_after.update({direction: count}))

    def retarget(self, host: str, port: int) -> None:
        """Connect the clients that come from now on to another target. Raises: OSError: unknown name."""
        targets = _resolve(host, port)
        self._call(lambda: setattr(self, "_targets", targets))

    def _call(self, action: Callable[[], None]) -> None:
        """Run ``action`` in the proxy's thread, which alone touches the sockets, and wait for it."""
        command = _Command(action)
        with self._lock:
            if self._thread is None or self._stopping:
                raise RuntimeError("the proxy does not run; start() it first")
            self._commands.append(command)
            os.eventfd_write(self._wake, 1)
        if not command.done.wait(PATIENCE_S):
            raise RuntimeError("the proxy's thread does not answer")
        if command.error is not None:
            raise command.error

    # Everything below runs in the proxy's thread (and in start(), before there is one).

    def _run(self) -> None:
        while not self._stopping:
            now = time.monotonic()
            self._watch(now)
            for key, events in self._selector.select(self._timeout(now)):
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.data, tuple):
                    connection, sock = key.data
                    if connection in self._open:
                        self._serve(connection, sock, events)
                else:
                    os.eventfd_read(self._wake)
            while self._commands:
                self._commands.popleft().run()
        self._cut()
        self._reserved.close()
        self._selector.close()

    def _refuse_commands(self) -> None:
        with self._lock:
            self._stopping = True

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = _bound_socket(self._reserved.family, self.host, self.port)
            self._listener.listen(BACKLOG)

    def _cut(self) -> None:
        if self._listener is not None:
            self._watch_socket(self._listener, 0, None)
            self._listener.close()
            self._listener = None
        for connection in list(self._open):
            self._close(connection, reset=False)

    def _reset_all(self) -> None:
        if self._listener is not None:
            self._accept()  # those who waited during a stall are connections too
        for connection in list(self._open):
            self._close(connection, reset=True)

    def _accept(self) -> None:
        if self._listener is None:
            return
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # nobody waits any more, or has given up meanwhile
                return
            self.connections += 1
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(client, list(self._targets))
            self._open.add(connection)
            self._connect(connection)

    def _connect(self, connection: _Connection) -> None:
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
            pass  # the selector will tell
        except OSError:
            self._connect(connection)

    def _close(self, connection: _Connection, *, reset: bool) -> None:
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
        if self._faults.stalled:
            return None
        moments = [flow.chunks[0][0] for c in self._open for flow in (c.up, c.down) if flow.chunks]
        # Those already due wait for their socket, not for the clock.
        return min((moment - now for moment in moments if moment > now), default=None)

    def _watch(self, now: float) -> None:
        """Tell the selector what each socket is waiting for."""
        running = not self._faults.stalled
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

    def _watch_socket(self, sock: socket.socket, events: int, connection: _Connection | None) -> None:
        key = self._selector.get_map().get(sock)
        if not events:
            if key is not None:
                self._selector.unregister(sock)
        elif key is None:
            self._selector.register(sock, events, (connection, sock))
        elif key.events != events:
            self._selector.modify(sock, events, (connection, sock))

    def _serve(self, connection: _Connection, sock: socket.socket, events: int) -> None:
        """Move bytes of one socket that is ready."""
        server = connection.server
        if server is None:
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
                flow.read(sock, time.monotonic() + self._faults.delay)
            if events & selectors.EVENT_WRITE and not self._write(connection, sock):
                return
        except BlockingIOError:
            return
        except OSError:  # one side was reset: so is the other
            self._close(connection, reset=True)
            return
        if connection.up.finished and connection.down.finished:
            self._close(connection, reset=False)

    def _write(self, connection: _Connection, sock: socket.socket) -> bool:
        """Pass one chunk on to ``sock``; return whether the connection survived it. Raises: OSError."""
        direction: Direction = "down" if sock is connection.client else "up"
        flow = connection.down if direction == "down" else connection.up
        if not flow.is_due(time.monotonic()):
            return True
        if not flow.chunks[0][1]:
            flow.finish(sock)
            return True
        allowance = self._faults.drop_after.get(direction)
        limit = min(n for n in (self._faults.split, allowance, READ_BYTES) if n is not None)
        with self._lock:  # who has received a byte finds it counted
            sent = flow.write(sock, limit)
            self._passed_bytes[direction] += sent
        if allowance is None:
            return True
        if sent < allowance:
            self._faults.drop_after[direction] = allowance - sent
            return True
        del self._faults.drop_after[direction]
        self._close(connection, reset=True)
        return False


@dataclass
class _Faults:
    """What is wrong at the moment."""

    stalled: bool = False
    delay: float = 0.0
    split: int | None = None
    drop_after: dict[Direction, int] = field(default_factory=dict)


class _Command:
    """Something to do in the proxy's thread, and its outcome."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self.done = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._action()
        except Exception as error:
            self.error = error
        self.done.set()


class _Flow:
    """One direction of one connection: chunks with the time they are due; ``b""`` is the end of stream.

    Only the first chunk counts: one that is due earlier, because the delay was changed, waits its turn.
    """

    def __init__(self) -> None:
        self.chunks: deque[tuple[float, memoryview | bytes]] = deque()
        self.held_bytes = 0
        self.ended = False  # the source will send no more
        self.finished = False  # and the sink has been told

    def has_room(self) -> bool:
        return not self.ended and self.held_bytes < BUFFER_BYTES

    def is_due(self, now: float) -> bool:
        return bool(self.chunks) and self.chunks[0][0] <= now

    def read(self, source: socket.socket, due: float) -> None:
        data = source.recv(READ_BYTES)
        self.ended = not data
        self.held_bytes += len(data)
        self.chunks.append((due, memoryview(data)))

    def write(self, sink: socket.socket, limit: int) -> int:
        due, data = self.chunks[0]
        sent = sink.send(data[:limit])
        self.held_bytes -= sent
        if sent == len(data):
            self.chunks.popleft()
        else:
            self.chunks[0] = due, data[sent:]
        return sent

    def finish(self, sink: socket.socket) -> None:
        self.chunks.clear()
        self.finished = True
        sink.shutdown(socket.SHUT_WR)


class _Connection:
    """A client's socket, the one to the target (``None`` between two attempts), and what flows between."""

    def __init__(self, client: socket.socket, targets: Targets) -> None:
        self.client = client
        self.server: socket.socket | None = None
        self.targets = targets  # addresses not tried yet
        self.connecting = True
        self.up = _Flow()
        self.down = _Flow()


def _resolve(host: str, port: int) -> Targets:
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
    """Take what has arrived, within bounds: close() sends RST, not FIN, when something is left unread."""
    try:
        for _ in range(16):
            if not sock.recv(READ_BYTES):
                return
    except OSError:  # nothing more, or nothing any more
        pass
