"""A TCP proxy that breaks connections on purpose."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING

from device_sdk._weak import fresh
from device_sdk.errors import ArgumentError
from device_sdk.testing.relay import Relay, resolve

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from device_sdk.testing.relay import Direction

__all__ = ["FaultProxy"]

# A fault that is not in effect after this long means that the proxy's thread is gone.
PATIENCE_S = 10.0


class FaultProxy:
    """Forwards TCP connections to ``target_host:target_port``, with faults on request.

    ::

        with FaultProxy("127.0.0.1", 1883) as proxy:
            client = Client(f"mqtt://{proxy.host}:{proxy.port}")
            ...
            proxy.cut()          # the network is gone
            proxy.restore()      # and back

    It runs in a daemon thread of its own between :meth:`start` and :meth:`stop`, listens on the loopback
    interface by default, and picks a free port for ``listen_port=0``: ``host`` and ``port`` are its address.
    Any thread may call the faults while it runs; they are in effect when the call returns, last until they
    are revoked, and combine. "up" is from the client to the target.

    Buffers are bounded, so a receiver that does not read slows its sender down. An end of stream is passed
    on as a half-close, a reset as a reset; a target that cannot be reached resets the client.

    ``connections`` counts those accepted since the start, ``bytes_up`` and ``bytes_down`` bytes passed on.
    Faults raise RuntimeError while the proxy does not run; ArgumentError for a value out of range.
    """

    def __init__(
        self, target_host: str, target_port: int, *, listen_host: str = "127.0.0.1", listen_port: int = 0
    ) -> None:
        self.host = listen_host
        self.port = listen_port
        self._relay = Relay(resolve(target_host, target_port))
        self._commands: deque[_Command] = deque()
        self._lock = threading.Lock()  # guards the next three
        self._thread: threading.Thread | None = None
        self._wake = -1
        self._stopping = False

    # Life. start() and stop() belong to one thread.

    def start(self) -> None:
        """Listen and forward. Raises: OSError: the address is taken. RuntimeError: it runs already."""
        if self._thread is not None:
            raise RuntimeError("the proxy runs already")
        self.port = self._relay.begin(self.host, self.port)
        self._stopping = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._relay.watch_wake(self._wake)
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
    def connections(self) -> int:
        """Connections accepted since the start."""
        return self._relay.connections

    @property
    def bytes_up(self) -> int:
        """Bytes passed on to the target since the start."""
        return self._relay.count("up")

    @property
    def bytes_down(self) -> int:
        """Bytes passed on to the clients since the start."""
        return self._relay.count("down")

    # Faults.

    def cut(self) -> None:
        """End every connection in order (FIN) and refuse new ones (ECONNREFUSED) until :meth:`restore`.

        Data in the proxy, and connections that it had not accepted yet, are lost.
        """
        self._call(self._relay.cut)

    def restore(self) -> None:
        """Listen again on the same port after :meth:`cut`."""
        self._call(self._relay.listen)

    def reset(self) -> None:
        """Reset (RST) every connection now; new ones are welcome."""
        self._call(self._relay.reset_all)

    def stall(self) -> None:
        """Forward nothing until :meth:`resume`, as a black hole does.

        Connections stay; new ones are established by the kernel (up to its backlog) and wait.
        """
        self._call(lambda: setattr(self._relay.faults, "stalled", True))

    def resume(self) -> None:
        """Forward again, beginning with the data that :meth:`stall` held back."""
        self._call(lambda: setattr(self._relay.faults, "stalled", False))

    def delay(self, seconds: float) -> None:
        """Delay data that arrives from now on by ``seconds`` in each direction, 0..3600; 0 ends it."""
        if not 0 <= seconds <= 3600:
            raise ArgumentError("seconds", f"must be 0..3600, not {seconds!r}")
        self._call(lambda: setattr(self._relay.faults, "delay", seconds))

    def split(self, count: int | None) -> None:
        """Write at most ``count`` >= 1 bytes at a time; ``None``: as much as there is.

        Each write is a TCP segment of its own, but a slow reader may find several together.
        """
        if count is not None and count < 1:
            raise ArgumentError("count", f"must be at least 1, or None; not {count}")
        self._call(lambda: setattr(self._relay.faults, "split", count))

    def drop_after(self, count: int, direction: Direction = "up") -> None:
        """Forward ``count`` >= 0 more bytes in that direction, then reset the connection they were on.

        With 0 the next byte is not forwarded. It happens once; other connections go on.
        """
        if count < 0:
            raise ArgumentError("count", f"must be 0 or more, not {count}")
        if direction not in ("up", "down"):
            raise ArgumentError("direction", f"must be 'up' or 'down', not {direction!r}")
        self._call(lambda: self._relay.faults.drop_after.update({direction: count}))

    def retarget(self, host: str, port: int) -> None:
        """Connect new clients to another target. Raises: OSError: unknown name."""
        targets = resolve(host, port)
        self._call(lambda: setattr(self._relay, "targets", targets))

    def _call(self, action: Callable[[], None]) -> None:
        """Run ``action`` in the proxy's thread, the only one that uses the sockets, and wait for it."""
        command = _Command(action)
        with self._lock:
            if self._thread is None or self._stopping:
                raise RuntimeError("the proxy does not run; start() it first")
            self._commands.append(command)
            os.eventfd_write(self._wake, 1)
        if not command.done.wait(PATIENCE_S):
            raise RuntimeError("the proxy's thread does not answer")
        if command.error is not None:
            raise fresh(command.error)

    # Everything below runs in the proxy's thread.

    def _run(self) -> None:
        while not self._stopping:
            if self._relay.turn():
                os.eventfd_read(self._wake)
            while self._commands:
                self._commands.popleft().run()
        self._relay.end()

    def _refuse_commands(self) -> None:
        with self._lock:
            self._stopping = True


class _Command:
    """An action for the proxy's thread, and its outcome."""

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
