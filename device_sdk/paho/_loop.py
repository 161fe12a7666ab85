"""The loops: of the program, in a thread, or the pieces for an event loop of somebody else."""

from __future__ import annotations

import select
import threading
from time import monotonic

from device_sdk.engine.reentry import refuse_reentry
from device_sdk.paho.enums import LogLevel, MQTTErrorCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from device_sdk.paho._connection import Connection
    from device_sdk.paho._core import Core
    from device_sdk.paho._endpoint import Endpoint
    from device_sdk.paho._life_cycle import LifeCycle
    from device_sdk.paho._program import Program
    from device_sdk.paho._runner import CallbackRunner
    from device_sdk.paho._settings import BackOff
    from device_sdk.paho._waker import Waker

__all__ = ["Loop", "LoopThread"]

_SUCCESS = MQTTErrorCode.MQTT_ERR_SUCCESS
_NO_CONN = MQTTErrorCode.MQTT_ERR_NO_CONN
_STOP_SECONDS = 5.0  # for what is on its way when the thread is to stop
_JOIN_SECONDS = 2.0  # beyond that; a name look-up cannot be ended
_SHORT_WAIT = 0.05  # while another thread closes the stream


class Loop:
    """Makes a client move. One thread at a time. ``reconnect``: opens the next connection."""

    def __init__(
        self,
        endpoint: Endpoint,
        back_off: BackOff,
        life: LifeCycle,
        core: Core,
        program: Program,
        runner: CallbackRunner,
        connection: Connection,
        waker: Waker,
        reconnect: Callable[[], MQTTErrorCode],
    ) -> None:
        self._endpoint = endpoint
        self._back_off = back_off
        self._life = life
        self._core = core
        self._program = program
        self._runner = runner
        self._connection = connection
        self._waker = waker
        self._reconnect = reconnect
        self._is_replaced = False
        self._stop_at: float | None = None  # when the loop ends at the latest
        self._poll = select.poll()
        self._poll.register(waker.fd, select.POLLIN)
        self._watched: tuple[int, int] | None = None  # file descriptor and events of the stream

    # For ever

    def run(self, timeout: float, retry_first_connection: bool) -> MQTTErrorCode:
        """As ``Client.loop_forever()``; returns also when the loop is replaced."""
        self._waker.forget_interrupt()
        self._waker.loop_begins()
        try:
            while self._life.waits_for_loop and not self._is_ending():
                if not self._try_to_connect(raises=not retry_first_connection):
                    self._wait_to_reconnect()
            return self._keep_turning(timeout)
        finally:
            self._waker.loop_ends()

    def _keep_turning(self, timeout: float) -> MQTTErrorCode:
        while True:
            rc = _SUCCESS
            while rc == _SUCCESS:
                if self._stop_at is not None and self._may_stop(self._stop_at):
                    return MQTTErrorCode.MQTT_ERR_NOMEM
                rc = self.turn(timeout)
            if self._is_finished() or not self._back_off.reconnects:
                return rc
            self._wait_to_reconnect()
            if self._is_finished():
                return rc
            if self._endpoint.host:  # else the program has not called connect() yet
                self._try_to_connect(raises=False)

    def _try_to_connect(self, *, raises: bool) -> bool:
        try:
            self._reconnect()
        except OSError as error:
            self._program.log(LogLevel.MQTT_LOG_DEBUG, "Connection failed, retrying: %s", error)
            self._program.call("on_connect_fail")
            if raises:
                raise
            return False
        return True

    def _wait_to_reconnect(self) -> None:
        """Wait between two attempts."""
        if not self._endpoint.host:
            self._back_off.reset()
        delay = self._back_off.next()
        if not self._is_finished():
            self._waker.pause(delay)
        self._waker.forget_interrupt()

    def _is_finished(self) -> bool:
        return self._is_ending() or self._life.is_leaving

    def _is_ending(self) -> bool:
        return self._stop_at is not None or self._is_replaced

    def _may_stop(self, at: float) -> bool:
        return self._core.is_idle() or monotonic() >= at

    # From outside

    def stop(self) -> None:
        """End :meth:`run` when nothing waits to be sent or acknowledged, at the latest after 5 s."""
        self._stop_at = monotonic() + _STOP_SECONDS
        self._interrupt()
        self._connection.stop_opening()

    @property
    def is_stopping(self) -> bool:
        """Whether :meth:`stop` was called, and not forgotten."""
        return self._stop_at is not None

    def resume(self) -> None:
        """Forget :meth:`stop`."""
        self._stop_at = None

    def expect(self) -> None:
        """A thread is about to call :meth:`run`; until :meth:`thread_ended` output is left to it."""
        self._stop_at = None
        self._waker.loop_begins()

    def thread_ended(self) -> None:
        """It does not any more."""
        self._waker.loop_ends()

    def replace(self) -> None:
        """End :meth:`run`: the client has another loop now."""
        self._is_replaced = True
        self._interrupt()

    def _interrupt(self) -> None:
        self._waker.interrupt()
        if self._core.is_parked():
            self._waker.wake()

    # In pieces

    def read(self) -> MQTTErrorCode:
        """As ``Client.loop_read()``."""
        if self._connection.sock is None:
            return _NO_CONN
        self._core.read()
        return self._finish_turn(writes=False)

    def write(self) -> MQTTErrorCode:
        """As ``Client.loop_write()``."""
        if self._connection.sock is None:
            return _NO_CONN
        try:
            self._core.write_on(waits=False)
            return self._finish_turn()
        finally:
            self._connection.ask_for_write(ends=True)

    def keep_time(self) -> MQTTErrorCode:
        """As ``Client.loop_misc()``."""
        if self._connection.sock is None:
            return _NO_CONN
        self._core.keep_time()
        return self._finish_turn(writes=False)

    # One turn

    def turn(self, timeout: float) -> MQTTErrorCode:
        """Wait at most ``timeout`` seconds, do what came of it, and return why a connection has ended."""
        core, waker = self._core, self._waker
        if self._connection.sock is None:
            return _NO_CONN
        if self._runner.todo:  # a callback has raised: first come those behind it
            return self._finish_turn()
        self._watch()
        ready, keeps_time = core.wait(self._poll, timeout if self._watched else min(timeout, _SHORT_WAIT))
        for fd, events in ready:
            if fd == waker.fd:
                waker.clear()
                continue
            if events & ~select.POLLOUT:
                core.read()
            if events & select.POLLOUT:
                core.write_on(waits=True)
        if keeps_time:
            core.keep_time()
        return self._finish_turn()

    def _watch(self) -> None:
        """Bring the poll object in line with what the engine waits for."""
        interest = self._core.interest()
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
        connection, runner = self._connection, self._runner
        connection.close_ended()
        runner.run()
        acknowledges, has_event_loop = runner.acknowledges, self._program.has("on_socket_register_write")
        if acknowledges:
            runner.forget_acknowledgements()
        if writes or (acknowledges and not has_event_loop):
            self._core.write()
            connection.close_ended()
            runner.run()
        if self._life.again:
            self._reconnect()
        if has_event_loop:
            connection.ask_for_write()
        return self._life.take_rc() if self._life.rc else _SUCCESS


class LoopThread:
    """The thread of ``loop_start()``. It keeps its client, and stays with it if that gets another loop.

    ``thread``: it, while it runs.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # two threads may start and stop the loop at the same time
        self.thread: threading.Thread | None = None

    def is_current(self) -> bool:
        """Whether this is called in that thread."""
        return threading.current_thread() is self.thread

    def start(self, loop: Loop, loop_forever: Callable[..., object], name: str) -> MQTTErrorCode:
        """As ``Client.loop_start()``: call ``loop_forever`` in a thread with this name."""
        refuse_reentry(self._lock, "loop_start()")
        with self._lock:
            if self.thread is not None:
                return MQTTErrorCode.MQTT_ERR_INVAL
            loop.expect()
            self.thread = threading.Thread(
                target=self._run, args=(loop, loop_forever), name=name, daemon=True
            )
            self.thread.start()
        return _SUCCESS

    def stop(self, loop: Loop) -> MQTTErrorCode:
        """As ``Client.loop_stop()``."""
        refuse_reentry(self._lock, "loop_stop()")
        with self._lock:
            thread = self.thread
            if thread is None:
                return MQTTErrorCode.MQTT_ERR_INVAL
            loop.stop()
        if threading.current_thread() is not thread:
            thread.join(_STOP_SECONDS + _JOIN_SECONDS)
        return _SUCCESS

    def _run(self, loop: Loop, loop_forever: Callable[..., object]) -> None:
        """Run the loop; a callback that raises is reported as an error of this thread, which goes on."""
        try:
            while True:
                try:
                    loop_forever(retry_first_connection=True)
                    break
                except Exception as error:
                    report = (type(error), error, error.__traceback__, threading.current_thread())
                    threading.excepthook(threading.ExceptHookArgs(report))
        finally:
            self.thread = None
            loop.thread_ended()
