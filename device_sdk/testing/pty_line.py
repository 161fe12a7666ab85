"""A serial line that ends in a broker: a pseudo-terminal for the device, a TCP connection behind it."""

from __future__ import annotations

import os
import selectors
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from device_sdk.errors import ArgumentError
from device_sdk.testing.pty_gateway import Gateway

if TYPE_CHECKING:
    from typing import Self

__all__ = ["PtyLine"]

PATIENCE_S = 10.0


class PtyLine:
    """A serial adapter, its cable, and a gateway at the other end that leads to ``host:port``.

    ::

        with PtyLine("127.0.0.1", 1883) as line:
            client = Client(line.url)        # serial:///tmp/.../usb-pty_line-if00?baud=115200
            ...
            line.unplug()
            line.plug()

    ``path`` is the path of the device: a link, as in ``/dev/serial/by-id``, that is missing while unplugged
    and leads to a new pseudo-terminal after each :meth:`plug`. By default it is in a temporary folder.

    It runs in a daemon thread between :meth:`start`, which plugs it in, and :meth:`stop`. Any thread may call
    every method, which is in effect when it returns. Buffers are bounded. "up" is from the device to the
    broker.

    Bytes after an open of the device go to a new connection to the broker; see
    :mod:`device_sdk.testing.pty_gateway`.

    Raises: ArgumentError: a fault with a value out of range.
    """

    def __init__(self, host: str, port: int, *, path: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path) if path is not None else Path()
        self._target = (host, port)
        self._folder: str | None = None
        self._own_folder = path is None
        self._lock = threading.Lock()  # guards everything; the thread releases it only to wait
        self._thread: threading.Thread | None = None
        self._running = False
        self._selector: selectors.BaseSelector
        self._wake = -1
        self._gateway = Gateway(self._target)

    @property
    def url(self) -> str:
        """The URL for a client."""
        return f"serial://{self.path}?baud=115200"

    # Under the lock, so that every received byte is counted.

    @property
    def connections(self) -> int:
        """Connections to the broker since the start, those that failed included."""
        with self._lock:
            return self._gateway.counts["connections"]

    @property
    def bytes_up(self) -> int:
        """Bytes given to the broker since the start."""
        with self._lock:
            return self._gateway.counts["up"]

    @property
    def bytes_down(self) -> int:
        """Bytes given to the device since the start."""
        with self._lock:
            return self._gateway.counts["down"]

    # Life. start() and stop() belong to one thread.

    def start(self) -> None:
        """Plug in and carry bytes. Raises: RuntimeError: it runs already."""
        if self._thread is not None:
            raise RuntimeError("the line runs already")
        if self._own_folder:
            self._folder = tempfile.mkdtemp(prefix="device-sdk-line-")
            self.path = Path(self._folder, "usb-pty_line-if00")
        self._running = True
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._gateway = Gateway(self._target)
        self._gateway.begin(self.path, self._selector)
        self._thread = threading.Thread(target=self._run, name="pty-line", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Unplug and wait for the thread to end. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with self._lock:
            self._gateway.unplug()
            self._running = False
            os.eventfd_write(self._wake, 1)
        thread.join(PATIENCE_S)
        self._selector.close()
        os.close(self._wake)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Faults.

    def unplug(self) -> None:
        """Pull the adapter: the device is hung up, its name disappears, data under way is lost."""
        with self._lock:
            self._gateway.unplug()
            os.eventfd_write(self._wake, 1)

    def plug(self) -> None:
        """Put the adapter back: a new device under the same name. No effect while it is plugged in."""
        with self._lock:
            self._gateway.plug()
            os.eventfd_write(self._wake, 1)

    def throttle(self, bytes_per_second: float | None) -> None:
        """Limit the bytes per second each way, above 0; ``None``: no limit. 115200 baud carry 11,520."""
        if bytes_per_second is not None and not bytes_per_second > 0:
            raise ArgumentError("bytes_per_second", f"must be above 0, or None; not {bytes_per_second!r}")
        with self._lock:
            self._gateway.up.rate = self._gateway.down.rate = bytes_per_second
            os.eventfd_write(self._wake, 1)

    def noise(self, probability: float, seed: int = 0) -> None:
        """Flip one bit of a byte with this probability, 0..1, in both directions; 0 ends it."""
        if not 0 <= probability <= 1:
            raise ArgumentError("probability", f"must be 0..1, not {probability!r}")
        with self._lock:
            self._gateway.up.disturb(probability, seed)
            self._gateway.down.disturb(probability, seed + 1)

    def stall(self) -> None:
        """Carry nothing until :meth:`resume`, like a hanging gateway: the device stays."""
        with self._lock:
            self._gateway.is_stalled = True
            os.eventfd_write(self._wake, 1)

    def resume(self) -> None:
        """Carry on after :meth:`stall`."""
        with self._lock:
            self._gateway.is_stalled = False
            os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        """Wait and carry; the lock is held except during the wait."""
        while True:
            with self._lock:
                if not self._running:
                    return
                now = time.monotonic()
                self._gateway.watch(now)
                timeout = self._gateway.timeout(now)
            ready = {key.fd: events for key, events in self._selector.select(timeout)}
            with self._lock:
                if ready.pop(self._wake, 0):
                    os.eventfd_read(self._wake)
                self._gateway.serve(ready)
