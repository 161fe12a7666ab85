"""The two threads of a :class:`~device_sdk.client.Client`.

The network thread owns the transport and is the only one to touch it, ``abort()`` excepted. The callback
thread runs the application's code, so a slow or failing handler never delays a PINGREQ. Both are woken only
while they are *parked*: a publisher that finds the network thread busy leaves its packet and goes on.
"""

from __future__ import annotations

import os
import selectors
import sys
import threading
from time import monotonic, sleep

from device_sdk._clock import LONGEST_WAIT, boottime
from device_sdk._folding import Folding
from device_sdk._log import Log
from device_sdk.engine.connecting.attempt import Opener
from device_sdk.engine.incoming.dispatch import Dispatch
from device_sdk.engine.life_cycle import CLOSED, CLOSING
from device_sdk.mqtt.message import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from device_sdk.engine.engine import Engine

__all__ = ["CallbackThread", "NetworkThread"]

_FLUSH_SECONDS = 0.005  # acknowledgements of a long batch leave at least this often
_GOODBYE_SECONDS = 1.0  # how long a DISCONNECT may take to leave
_LONGEST_WAIT_SECONDS = 86_400  # epoll() takes no more than 24 days; to look too early does no harm
_FAULT_SECONDS = 0.2  # a pause after what should not happen, so that it cannot become a busy loop

log = Log("device_sdk.threads")


class NetworkThread:
    """Opens, reads, writes and keeps time for one engine."""

    _wake_fd = -1  # until the constructor has one

    def __init__(self, engine: Engine, callbacks: CallbackThread, open_seconds: float) -> None:
        self._engine = engine
        self._callbacks = callbacks
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_fd, selectors.EVENT_READ)
        self._watched: tuple[int, int] | None = None  # descriptor of the transport and events, 0: none now
        self._opener = Opener(engine, open_seconds)
        self._folding = Folding(log)
        self._cancelled = False
        self._goodbye: float | None = None  # when a closing client stops waiting for its DISCONNECT to leave
        self._thread = threading.Thread(target=self._run, name="device-sdk network", daemon=True)
        self.drained = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def cancel(self) -> None:
        """Let the thread end at its next look, or at once if it has not begun."""
        self._cancelled = True

    def wake(self) -> None:
        """Make the thread look again. Any thread, without the lock."""
        os.eventfd_write(self._wake_fd, 1)

    def join(self, timeout: float) -> bool:
        """Wait for the thread's end; False if it did not come in time or this is the thread itself."""
        return _has_ended(self._thread, timeout)

    def disown(self) -> None:
        """In a forked child: let go of the parent's descriptors without disturbing their other end.

        They are replaced, not closed: objects of threads that do not exist here still hold the numbers.
        """
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        watched = () if self._watched is None else (self._watched[0],)
        for fd in (self._selector.fileno(), self._wake_fd, *watched):
            os.dup2(null, fd, inheritable=False)
        os.close(null)

    def __del__(self) -> None:
        # Not at the end of the thread: a publisher may be about to write to it.
        if hasattr(self, "_selector"):  # else the handler of a signal has ended the constructor
            self._selector.close()
        if self._wake_fd >= 0:
            os.close(self._wake_fd)

    def _run(self) -> None:
        while not self._cancelled:
            try:
                if not self._turn():
                    break
            except Exception as error:
                self._recover(error)
        self._end()

    def _turn(self) -> bool:
        """Wait once and do what came of it; False when the client is closing and nothing is left to do."""
        engine, opener = self._engine, self._opener
        now = boottime()
        if engine.wants_open and opener.give_up_at is None:
            opener.begin(now, self.wake)
        with engine.lock:
            if engine.life.state in (CLOSING, CLOSED):  # closed: close() could not wait for this thread
                if self._goodbye is None:
                    self._goodbye = now + _GOODBYE_SECONDS
                if now >= self._goodbye or not engine.has_connection():
                    return False
            if engine.draining and engine.is_drained():
                self.drained.set()
            deadline = engine.next_deadline() if self._goodbye is None else self._goodbye
            busy = engine.has_output()
            engine.parked = not busy
            wake_callbacks = self._callbacks.offer()
        if wake_callbacks:
            self._callbacks.wake()
        wake_at = deadline
        if opener.give_up_at is not None and (deadline is None or opener.give_up_at < deadline):
            wake_at = opener.give_up_at
        self._wait(0 if busy else None if wake_at is None else min(max(0.0, wake_at - now), LONGEST_WAIT))
        now = boottime()
        if opener.give_up_at is not None:
            opener.look(now)
        if deadline is not None and now >= deadline:
            engine.on_deadline(now)
        engine.flush(now)
        return True

    def _wait(self, timeout: float | None) -> None:
        """Wait for the network, a wake-up or the time; read and write what is possible."""
        self._watch()
        if timeout is not None and timeout > _LONGEST_WAIT_SECONDS:
            timeout = _LONGEST_WAIT_SECONDS
        ready = self._selector.select(timeout)
        self._engine.parked = False  # from here on whatever is published meets a later look for output
        for key, events in ready:
            if key.fd == self._wake_fd:
                os.eventfd_read(self._wake_fd)
                continue
            now = boottime()
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
            wanted = fd, (selectors.EVENT_READ if read else 0) | (selectors.EVENT_WRITE if write else 0)
        if wanted == self._watched:
            return
        if self._watched is not None and self._watched[1]:
            self._selector.unregister(self._watched[0])
        if wanted is not None and wanted[1]:
            self._selector.register(*wanted)
        self._watched = wanted

    def _recover(self, error: Exception) -> None:
        """Survive what nobody foresaw: say so, and begin anew with the next connection."""
        try:
            self._opener.abandon()
            self._engine.on_fault(error, boottime())
        except Exception as another:
            self._folding.warning("network", "", "the network thread goes on after two errors", error=another)
        sleep(_FAULT_SECONDS)

    def _end(self) -> None:
        try:
            self._opener.abandon()
            self._engine.drop_connection()
        except Exception as error:
            log.warning("the network thread ended with an error", error=error)
        self.drained.set()


class CallbackThread:
    """Runs handlers and hooks, one at a time, in the order in which things happened."""

    def __init__(
        self,
        engine: Engine,
        default_handler: Callable[[], Callable[[Message], object] | None],
        wake_network: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._dispatch = Dispatch(engine.lock, engine.incoming.router, engine.events, default_handler)
        self._wake_network = wake_network
        self._folding = Folding(log)
        self._parked = False
        self._stopping = False
        self._current: Message | None = None  # that of the handlers which run
        self._work = threading.Lock()  # a binary semaphore: released once for each wake-up
        self._work.acquire()
        self._thread = threading.Thread(target=self._run, name="device-sdk callbacks", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def offer(self) -> bool:
        """Whether there is work for a parked thread: then :meth:`wake` it. The caller holds the lock."""
        if self._parked and (self._stopping or self._engine.events.queue):
            self._parked = False
            return True
        return False

    def wake(self) -> None:
        """Wake the thread. Once after each true :meth:`offer`, without the lock."""
        self._work.release()

    def stop(self, timeout: float) -> bool:
        """Run the hooks that wait, then end; False if that took longer or this is the thread itself.

        Messages that still wait are left alone: nobody could acknowledge them any more.
        """
        with self._engine.lock:
            self._stopping = True
            offered = self.offer()
        if offered:
            self.wake()
        return _has_ended(self._thread, timeout)

    def is_current(self) -> bool:
        """Whether the caller runs in this thread, that is, inside a handler."""
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        self._engine.consumers.register()
        handled = 0
        while True:
            try:
                batch = self._next_batch(handled)
                if batch is None:
                    return
                handled = self._run_batch(batch)
            except Exception as error:
                handled = 0
                text = "the callback thread goes on after an error"
                self._folding.warning("callbacks", "", text, error=error)
                sleep(_FAULT_SECONDS)

    def _next_batch(self, handled: int) -> list[Any] | None:
        """Report how many messages are finished, and wait for work; ``None``: the thread is to end."""
        engine = self._engine
        while True:
            with engine.lock:
                wake = engine.handled(handled) and engine.unpark()
                batch = engine.events.take()
                if not batch:
                    if self._stopping:
                        return None
                    self._parked = True
            if wake:
                self._wake_network()
            if batch:
                return batch
            handled = 0
            self._work.acquire()

    def _run_batch(self, batch: list[Any]) -> int:
        """Run one batch; return how many messages are finished and not yet reported to the engine."""
        handled = 0
        flush_at = monotonic() + _FLUSH_SECONDS
        router = self._engine.incoming.router
        route, identified = router.route, router.identifiers is not None
        for item in batch:
            if type(item) is not Message:
                function, argument = item
                self._call(function, argument)
                continue
            if self._stopping:
                handled += 1  # no longer in hand; without its mark it is not acknowledged
                continue
            found = router.route_identified(item) if identified else route(item.topic)
            handlers = found or self._dispatch.unrouted(item)
            if handlers is None:
                continue  # in the pull inbox, where the program says when it is finished
            self._current = item
            for handler in handlers:
                try:
                    handler(item)
                except BaseException as error:
                    self._dispatch.failed(handler, error)
            if item.token is None:
                item.handled = True
            handled += 1
            if item.qos and monotonic() >= flush_at:
                self.settle(handled)
                handled = 0
                flush_at = monotonic() + _FLUSH_SECONDS
        self._current = None
        return handled

    def settle_current(self) -> None:
        """The handler that calls this ends the client: its message is finished, unless it has failed."""
        message = self._current
        if message is not None and message.token is None and sys.exception() is None:
            message.handled = True
            self.settle(0)

    def settle(self, handled: int) -> None:
        """So many messages are finished: their acknowledgements may leave. Any thread."""
        engine, wake = self._engine, False
        try:
            with engine.lock:
                wake = engine.handled(handled) and engine.unpark()
            if wake:
                self._wake_network()
        except BaseException:  # of the handler of a signal
            engine.parked |= wake  # whoever comes next wakes the network
            raise

    def _call(self, function: Callable[[Any], object], argument: object) -> None:
        """Run a hook; what it raises is reported and goes no further."""
        try:
            function(argument)
        except BaseException as error:
            self._dispatch.failed(function, error)


def _has_ended(thread: threading.Thread, timeout: float) -> bool:
    """Wait for the end of a thread; False if it did not come in time or this is the thread itself."""
    if threading.current_thread() is thread:
        return False
    try:
        thread.join(timeout)
    except RuntimeError:
        pass  # it was never started
    return not thread.is_alive()
