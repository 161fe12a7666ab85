"""The loops: of the program, in a thread, or the pieces for an event loop of somebody else."""

from __future__ import annotations

import os
import select
import threading
from time import monotonic

from device_sdk.paho._publishing import Publishing
from device_sdk.paho._settings import CONNECT_ASYNC, DISCONNECTED, DISCONNECTING
from device_sdk.paho.enums import LogLevel, MQTTErrorCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Loop"]

_SUCCESS = MQTTErrorCode.MQTT_ERR_SUCCESS
_NO_CONN = MQTTErrorCode.MQTT_ERR_NO_CONN
_STOP_SECONDS = 5.0  # for what is on its way when the thread is to stop
_JOIN_SECONDS = 2.0  # beyond that; a name look-up cannot be ended
_LONGEST_WAIT = 3600.0
_SHORT_WAIT = 0.05  # while another thread closes the stream


class Loop(Publishing):
    """The part of a client that makes it move. One loop at a time."""

    def __init__(self, protocol: int, transport: str, userdata: Any) -> None:
        super().__init__(protocol, transport, userdata)
        self._close_wake_fd()  # reinitialise() comes here again
        self._stop_at: float | None = None  # when the thread ends at the latest
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._wake_fd, select.POLLIN)
        self._watched: tuple[int, int] | None = None  # file descriptor and events of the stream

    def __del__(self) -> None:
        if hasattr(self, "_engine"):  # else the constructor raised
            self._engine.transport.close()
        self._close_wake_fd()

    def _close_wake_fd(self) -> None:
        if hasattr(self, "_wake_fd"):
            os.close(self._wake_fd)
            del self._wake_fd

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    # Of the program

    def loop(self, timeout: float = 1.0) -> MQTTErrorCode:
        """Wait at most ``timeout`` seconds for the network once, and do what is to be done.

        Returns: above 0 when the connection has ended or there is none.
        Raises: ValueError: a timeout below 0; and what a callback raises.
        """
        if timeout < 0.0:
            raise ValueError("Invalid timeout.")
        return self._turn(timeout)

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
        """Run until ``disconnect()``; connect again as often as it takes.

        ``timeout``: seconds between looks at the clock. Raises: OSError: the connection of connect_async()
        cannot be opened, unless ``retry_first_connection``; and what a callback raises.
        """
        if threading.current_thread() is not self._thread:
            self._stop_at = None
        self._interrupt.clear()
        self._looping += 1
        try:
            while self._state == CONNECT_ASYNC and not self._is_stopping():
                if not self._try_to_connect(raises=not retry_first_connection):
                    self._wait_to_reconnect()
            return self._run_loop(timeout)
        finally:
            self._looping -= 1

    def _run_loop(self, timeout: float) -> MQTTErrorCode:
        while True:
            rc = _SUCCESS
            while rc == _SUCCESS:
                if self._is_stopping() and self._may_stop():
                    return MQTTErrorCode.MQTT_ERR_NOMEM
                rc = self._turn(timeout)
            if self._is_finished() or not self._reconnect_on_failure:
                return rc
            self._wait_to_reconnect()
            if self._is_finished():
                return rc
            if self._host:  # else the program has not called connect() yet
                self._try_to_connect(raises=False)

    def _try_to_connect(self, *, raises: bool) -> bool:
        try:
            self.reconnect()
        except OSError as error:
            self._log(LogLevel.MQTT_LOG_DEBUG, "Connection failed, retrying: %s", error)
            self._call("on_connect_fail")
            if raises:
                raise
            return False
        return True

    def _wait_to_reconnect(self) -> None:
        """Wait between two attempts: each time twice as long, until a broker has accepted a connection."""
        delay = self._reconnect_delay
        if delay is None or not self._host:
            delay = self._reconnect_min_delay
        else:
            delay = min(delay * 2, self._reconnect_max_delay)
        self._reconnect_delay = delay
        if not self._is_finished():
            self._interrupt.wait(delay)
        self._interrupt.clear()

    def _is_finished(self) -> bool:
        return self._is_stopping() or self._state in (DISCONNECTING, DISCONNECTED)

    # In a thread

    def loop_start(self) -> MQTTErrorCode:
        """Start a thread that runs :meth:`loop_forever`. Returns: ``MQTT_ERR_INVAL`` if there is one."""
        with self._lock:  # two threads may start and stop the loop at the same time
            if self._thread is not None:
                return MQTTErrorCode.MQTT_ERR_INVAL
            self._stop_at = None
            name = f"paho-mqtt-client-{self._client_id.decode()}"
            self._thread = threading.Thread(target=self._run_thread, name=name, daemon=True)
            self._thread.start()
        return _SUCCESS

    def loop_stop(self) -> MQTTErrorCode:
        """End the thread, which first sends what waits and receives its acknowledgements, for at most 5 s.

        In a callback: the thread ends after it. Returns: ``MQTT_ERR_INVAL`` if there is no thread.
        """
        with self._lock:
            thread = self._thread
            if thread is None:
                return MQTTErrorCode.MQTT_ERR_INVAL
            self._stop_at = monotonic() + _STOP_SECONDS
        self._interrupt.set()
        if self._unpark():
            self._wake()
        self._stop_opening()
        if threading.current_thread() is not thread:
            thread.join(_STOP_SECONDS + _JOIN_SECONDS)
        return _SUCCESS

    def _run_thread(self) -> None:
        """Run the loop; a callback that raises is reported as an error of this thread, which goes on."""
        try:
            while True:
                try:
                    self.loop_forever(retry_first_connection=True)
                    break
                except Exception as error:
                    report = (type(error), error, error.__traceback__, threading.current_thread())
                    threading.excepthook(threading.ExceptHookArgs(report))
        finally:
            self._thread = None

    def _is_stopping(self) -> bool:
        return self._stop_at is not None

    def _may_stop(self) -> bool:
        with self._lock:
            idle = self._engine.idle
        return idle or self._stop_at is None or monotonic() >= self._stop_at

    # In pieces

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Read from the socket, which is readable, and run callbacks. ``max_packets`` has no meaning."""
        if not self._has_socket():
            return _NO_CONN
        with self._io:
            self._engine.on_readable(monotonic())
        return self._finish_turn(writes=False)

    def loop_write(self) -> MQTTErrorCode:
        """Write to the socket, which is writable, and run callbacks."""
        if not self._has_socket():
            return _NO_CONN
        try:
            if self._io.acquire(False):
                try:
                    self._engine.on_writable(monotonic())
                finally:
                    self._io.release()
            return self._finish_turn()
        finally:
            if self.want_write():
                self._register_write()
            else:
                self._unregister_write(self.socket())

    def loop_misc(self) -> MQTTErrorCode:
        """Send pings, and notice a broker that does not answer; to be called every few seconds."""
        if not self._has_socket():
            return _NO_CONN
        self._keep_time()
        return self._finish_turn(writes=False)

    def _keep_time(self) -> None:
        with self._lock:
            deadline = self._engine.next_deadline()
        now = monotonic()
        if deadline is not None and now >= deadline and self._io.acquire(False):
            try:
                self._engine.on_deadline(now)
            finally:
                self._io.release()

    # One turn

    def _turn(self, timeout: float) -> MQTTErrorCode:
        """Wait once and do what came of it."""
        engine = self._engine
        if not self._has_socket():
            return _NO_CONN
        if self._todo:  # a callback has raised: first come those behind it
            return self._finish_turn()
        self._watch()
        with self._lock:
            busy = engine.has_output() or engine.callbacks_waiting()
            deadline = engine.next_deadline()
            engine.parked = not busy
        if deadline is not None:
            timeout = min(timeout, max(0.0, deadline - monotonic()))
        if self._watched is None:
            timeout = min(timeout, _SHORT_WAIT)
        # Rounded up: rounded down, the last millisecond would be spent in a loop.
        ready = self._poll.poll(0 if busy else int(min(timeout, _LONGEST_WAIT) * 1000 + 0.999))
        engine.parked = False
        for fd, events in ready:
            if fd == self._wake_fd:
                os.eventfd_read(fd)
                continue
            now = monotonic()
            if events & ~select.POLLOUT:
                with self._io:
                    engine.on_readable(now)
            if events & select.POLLOUT:
                with self._io:
                    engine.on_writable(now)
        if deadline is not None:
            self._keep_time()
        return self._finish_turn()

    def _watch(self) -> None:
        """Bring the poll object in line with what the engine waits for."""
        interest = self._engine.interest()
        wanted = None
        if interest is not None:
            fd, read, write = interest
            wanted = (fd, (select.POLLIN if read else 0) | (select.POLLOUT if write else 0))
        if wanted == self._watched:
            return
        if self._watched is not None and (wanted is None or self._watched[0] != wanted[0]):
            self._poll.unregister(self._watched[0])
        if wanted is not None:
            self._poll.register(*wanted)
        self._watched = wanted

    def _finish_turn(self, *, writes: bool = True) -> MQTTErrorCode:
        """Close what has ended, call the program, send what came of it; return why a connection has ended.

        Without ``writes`` the program's event loop is to call ``loop_write()`` for what callbacks have added,
        but an event loop that was not asked for does not keep acknowledgements back.
        """
        self._close_ended()
        self._run_callbacks()
        acknowledges, self._acknowledges = self._acknowledges, False
        if writes or (acknowledges and self.on_socket_register_write is None):
            self._write()
            self._close_ended()
            self._run_callbacks()
        if self._again:
            self.reconnect()
        if self.on_socket_register_write is not None and self.want_write():
            self._register_write()
        rc, self._rc = self._rc, _SUCCESS
        return rc

    def _settle(self, handled: int) -> None:
        with self._lock:
            self._engine.handled(handled)
        self._keep_time()
        self._write()
