"""The two threads of a :class:`~device_sdk.client.Client`.

The network thread owns the transport and is the only one to touch it, ``abort()`` excepted. The callback
thread runs the application's code, so a slow or failing handler never delays a PINGREQ. Both are woken only
while they are *parked*: a publisher that finds the network thread busy leaves its packet and goes on.
"""

from __future__ import annotations

import os
import selectors
import threading
from time import monotonic

from device_sdk.engine.engine import CLOSING
from device_sdk.errors import ConnectFailedError, DeviceSdkError
from device_sdk.mqtt.message import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from device_sdk.engine.engine import Engine

__all__ = ["CallbackThread", "NetworkThread"]

_FLUSH_SECONDS = 0.005  # acknowledgements of a long batch leave at least this often
_GOODBYE_SECONDS = 1.0  # how long a DISCONNECT may take to leave


class NetworkThread:
    """Opens, reads, writes and keeps time for one engine."""

    def __init__(self, engine: Engine, callbacks: CallbackThread, open_seconds: float) -> None:
        self._engine = engine
        self._callbacks = callbacks
        self._open_seconds = open_seconds
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_fd, selectors.EVENT_READ)
        self._watched: tuple[int, int] | None = None  # file descriptor and events of the transport
        self._opening: _Opening | None = None
        self._thread = threading.Thread(target=self._run, name="device-sdk network", daemon=True)
        self.drained = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Make the thread look again. Any thread, without the lock."""
        os.eventfd_write(self._wake_fd, 1)

    def join(self, timeout: float) -> bool:
        """Wait for the thread's end; False if it did not come in time or this is the thread itself."""
        if threading.current_thread() is self._thread:
            return False
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def __del__(self) -> None:
        # Not at the end of the thread: a publisher may be about to write to it.
        self._selector.close()
        os.close(self._wake_fd)

    def _run(self) -> None:
        engine, lock = self._engine, self._engine.lock
        goodbye: float | None = None
        while True:
            now = monotonic()
            with lock:
                if engine.wants_open and self._opening is None:
                    self._opening = _Opening(engine.transport, now + self._open_seconds, self.wake)
                if engine.state == CLOSING:
                    goodbye = goodbye or now + _GOODBYE_SECONDS
                    if now >= goodbye or not engine.has_connection():
                        break
                if engine.draining and engine.is_drained():
                    self.drained.set()
                deadline = engine.next_deadline() if goodbye is None else goodbye
                busy = engine.has_output()
                engine.parked = not busy
                self._callbacks.offer()
            self._callbacks.wake_if_offered()
            self._wait(0 if busy else None if deadline is None else max(0.0, deadline - now))
            engine.parked = False
            now = monotonic()
            if self._opening is not None and self._opening.done:
                self._opened(now)
            if deadline is not None and now >= deadline:
                engine.on_deadline(now)
            engine.flush(now)
        self._end()

    def _wait(self, timeout: float | None) -> None:
        """Wait for the network, a wake-up or the time; read and write what is possible."""
        self._watch()
        for key, events in self._selector.select(timeout):
            if key.fd == self._wake_fd:
                os.eventfd_read(self._wake_fd)
                continue
            now = monotonic()
            if events & selectors.EVENT_READ:
                self._engine.on_readable(now)
            if events & selectors.EVENT_WRITE:
                self._engine.on_writable(now)

    def _watch(self) -> None:
        """Bring the selector in line with what the engine waits for."""
        interest = self._engine.interest()
        wanted = None
        if interest is not None:
            fd, read, write = interest
            events = (selectors.EVENT_READ if read else 0) | (selectors.EVENT_WRITE if write else 0)
            wanted = (fd, events) if events else None
        if wanted == self._watched:
            return
        if self._watched is not None:
            self._selector.unregister(self._watched[0])
        if wanted is not None:
            self._selector.register(*wanted)
        self._watched = wanted

    def _opened(self, now: float) -> None:
        opening, self._opening = self._opening, None
        assert opening is not None
        if opening.error is None:
            self._engine.on_open(now)
        else:
            self._engine.on_open_failed(opening.error, now)

    def _end(self) -> None:
        if self._opening is not None:
            self._opening.abandon()
        self._engine.drop_connection()
        self.drained.set()


class _Opening:
    """One attempt to open the transport, in a thread that can be left behind: name resolution may hang."""

    def __init__(self, transport: Any, deadline: float, wake: Callable[[], None]) -> None:
        self._transport = transport
        self._deadline = deadline
        self._wake = wake
        self._lock = threading.Lock()
        self._abandoned = False
        self.error: DeviceSdkError | None = None
        self.done = False
        threading.Thread(target=self._run, name="device-sdk open", daemon=True).start()

    def abandon(self) -> None:
        """Nobody wants the stream any more: end the attempt, or what it yields."""
        with self._lock:
            self._abandoned = True
            if self.done:
                return
        self._transport.abort()

    def _run(self) -> None:
        try:
            self._transport.open(self._deadline)
        except DeviceSdkError as error:
            self.error = error
        except Exception as error:
            self.error = ConnectFailedError(f"{type(error).__name__}: {error}")
        with self._lock:
            self.done = True
            if self._abandoned and self.error is None:
                self._transport.close()
        self._wake()


class CallbackThread:
    """Runs handlers and hooks, one at a time, in the order in which things happened."""

    def __init__(
        self,
        engine: Engine,
        default_handler: Callable[[], Callable[[Message], object] | None],
        wake_network: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._default_handler = default_handler
        self._wake_network = wake_network
        self._parked = False
        self._offered = False
        self._stopping = False
        self._told_no_handler = False
        self._work = threading.Lock()  # held while there is nothing to do
        self._work.acquire()
        self._thread = threading.Thread(target=self._run, name="device-sdk callbacks", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def offer(self) -> None:
        """Note that there is work for a parked thread. The caller holds the engine's lock."""
        if self._parked and (self._stopping or self._engine.callbacks_waiting()):
            self._parked = False
            self._offered = True

    def wake_if_offered(self) -> None:
        """Wake the thread if :meth:`offer` found work. Same thread as ``offer``, without the lock."""
        if self._offered:
            self._offered = False
            self._work.release()

    def stop(self, timeout: float) -> bool:
        """Run what is waiting, then end; False if that took longer or this is the thread itself."""
        with self._engine.lock:
            self._stopping = True
            self.offer()
        self.wake_if_offered()
        if self.is_current():
            return False
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def is_current(self) -> bool:
        """Whether the caller runs in this thread, that is, inside a handler."""
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        engine, lock = self._engine, self._engine.lock
        handled = 0
        while True:
            with lock:
                wake = engine.handled(handled) and engine.unpark()
                batch = engine.take_callbacks()
                if not batch:
                    if self._stopping:
                        return
                    self._parked = True
            if wake:
                self._wake_network()
            if batch:
                handled = self._run_batch(batch)
            else:
                handled = 0
                self._work.acquire()

    def _run_batch(self, batch: list[Any]) -> int:
        """Run one batch; return how many messages are finished and not yet reported to the engine."""
        handled = 0
        flush_at = monotonic() + _FLUSH_SECONDS
        route = self._engine.router.route
        for item in batch:
            if type(item) is not Message:
                function, argument = item
                self._call(function, argument)
                continue
            handlers = route(item.topic) or self._unrouted(item)
            if handlers is None:
                continue  # in the pull inbox, where the program says when it is finished
            for handler in handlers:
                try:
                    handler(item)
                except BaseException as error:
                    self._report(handler, error)
            item.handled = True
            handled += 1
            if item.qos and monotonic() >= flush_at:
                self.settle(handled)
                handled = 0
                flush_at = monotonic() + _FLUSH_SECONDS
        return handled

    def settle(self, handled: int) -> None:
        """So many messages are finished: their acknowledgements may leave. Any thread."""
        with self._engine.lock:
            wake = self._engine.handled(handled) and self._engine.unpark()
        if wake:
            self._wake_network()

    def _unrouted(self, message: Message) -> tuple[Callable[[Message], object], ...] | None:
        """No subscription has a handler for it: the default handler, the inbox, or nobody."""
        handler = self._default_handler()
        if handler is not None:
            return (handler,)
        inbox = self._engine.router.inbox
        if inbox is not None:
            inbox.put(message)
            return None
        if not self._told_no_handler:
            self._told_no_handler = True
            text = f"nothing handles {message.topic}: pass on_message to subscribe() or call messages() first"
            with self._engine.lock:
                self._engine.notify("no_handler", text)
        return ()

    def _call(self, function: Callable[[Any], object], argument: object) -> None:
        """Run a hook; what it raises is reported and goes no further."""
        try:
            function(argument)
        except BaseException as error:
            self._report(function, error)

    def _report(self, function: object, error: BaseException) -> None:
        name = getattr(function, "__qualname__", repr(function))
        with self._engine.lock:
            self._engine.notify("handler_failed", f"{name} raised {type(error).__name__}: {error}", error)
