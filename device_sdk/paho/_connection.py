"""Connecting and disconnecting, the socket, and who writes to it.

A stream is opened by whoever asks for it: ``connect()`` and ``reconnect()`` in the caller's thread, the loops
in theirs.
"""

from __future__ import annotations

from time import monotonic

from device_sdk._clock import boottime
from device_sdk.engine.reentry import refuse_reentry
from device_sdk.paho._stream import plain_error
from device_sdk.paho.enums import LogLevel, MQTTErrorCode
from device_sdk.paho.properties import Properties, as_mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from device_sdk.mqtt.options import ConnectOptions
    from device_sdk.net.base import Transport
    from device_sdk.paho._core import Core
    from device_sdk.paho._endpoint import Endpoint
    from device_sdk.paho._life_cycle import LifeCycle
    from device_sdk.paho._program import Program
    from device_sdk.paho._reports import Reports
    from device_sdk.paho._runner import CallbackRunner
    from device_sdk.paho._settings import ConnectSettings, Limits
    from device_sdk.paho._stream import SocketStream
    from device_sdk.paho._waker import Waker
    from device_sdk.paho.reasoncodes import ReasonCode

__all__ = ["Connection"]

_SUCCESS = MQTTErrorCode.MQTT_ERR_SUCCESS
_DEBUG = LogLevel.MQTT_LOG_DEBUG


class Connection:
    """The stream to the broker, from the attempt to open it until it is closed. Any thread.

    ``sock``: the socket at its bottom while there is a connection, also after that has ended and the program
    has not been told yet.
    """

    def __init__(
        self,
        settings: tuple[Endpoint, ConnectSettings, Limits],
        life: LifeCycle,
        core: Core,
        program: Program,
        reports: Reports,
        runner: CallbackRunner,
        waker: Waker,
    ) -> None:
        self.sock: SocketStream | None = None
        self._endpoint, self._connect, self._limits = settings
        self._life = life
        self._core = core
        self._program = program
        self._reports = reports
        self._runner = runner
        self._listener = runner.listener
        self._waker = waker
        self._opening: Transport | None = None  # for whoever wants it to stop
        self._registered_write = False

    # Opening

    def reconnect(self) -> MQTTErrorCode:
        """As ``Client.reconnect()``."""
        if not self._endpoint.host:
            raise ValueError("Invalid host.")
        self._life.connecting()
        self.drop()
        self._program.call("on_pre_connect")
        fields = self._connect.fields()
        stream, sock = self._endpoint.new_stream()
        self._open(stream)
        self.drop()  # another thread may have been as fast
        self._life.opened()
        clean = self._connect.is_clean()
        self._core.begin(stream, fields, clean_start=clean, inflight=self._limits.inflight, now=boottime())
        self._registered_write = False
        self.sock = sock
        if self._program.wants_log():
            self._log_connect(fields, clean)
        self._program.call("on_socket_open", self.socket())
        self.added_output(self._core.is_parked())
        return _SUCCESS

    def _open(self, stream: Transport) -> None:
        self._opening = stream
        try:
            stream.open(monotonic() + self._endpoint.connect_timeout)
        except OSError as error:
            raise plain_error(error) from None
        finally:
            self._opening = None

    def stop_opening(self) -> None:
        """Let the thread that opens a stream, if there is one, give up."""
        opening = self._opening
        if opening is not None:
            opening.abort()

    def _log_connect(self, fields: ConnectOptions, clean: bool) -> None:
        will = fields.will
        properties = f" properties={self._connect.properties}" if self._connect.protocol == 5 else ""
        self._program.log(
            _DEBUG,
            "Sending CONNECT (u%d, p%d, wr%d, wq%d, wf%d, c%d, k%d) client_id=%s%s",
            fields.user_name is not None,
            fields.password is not None,
            will is not None and will.retain,
            0 if will is None else will.qos,
            will is not None,
            clean,
            fields.keep_alive,
            fields.client_id.encode(),
            properties,
        )

    # Closing

    def disconnect(self, reason: ReasonCode | None, properties: Properties | None) -> MQTTErrorCode:
        """As ``Client.disconnect()``."""
        refuse_reentry(self._core.lock, "disconnect()")
        with self._core.lock:
            connected = self.sock is not None
            self._life.leave(connected)
            wake = self._core.say_goodbye(
                0 if reason is None else reason.value,
                as_mapping(properties) if self._connect.protocol == 5 else {},
            )
        self._waker.interrupt()
        if not connected:
            self.stop_opening()
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        self._program.log(_DEBUG, "Sending DISCONNECT")
        self.added_output(wake)
        return _SUCCESS

    def drop(self) -> None:
        """End the connection as it is, without a word to the broker or ``on_disconnect``."""
        self._core.leave()
        self.close_ended()
        if self._core.is_parked():
            self._waker.wake()  # a loop that waits keeps the old socket from being closed

    def close_ended(self) -> None:
        """Close the stream of a connection that has ended, after the callbacks that want to see it open."""
        retired = self._core.take_retired()
        if retired is None:
            return
        wanted = self._core.has_said_goodbye(retired) and self._life.says_goodbye
        try:
            if wanted:
                self._runner.run()
                self._reports.disconnected(_SUCCESS)
        finally:
            try:
                self._socket_closes()
            finally:
                # An event loop of the program must not wait for a broker.
                hears_out = wanted and not self._program.has("on_socket_register_write")
                self._core.close(retired, hears_out=hears_out)
                self.sock = None
                if wanted:
                    self._life.left()

    def _socket_closes(self) -> None:
        sock = self.socket()
        try:
            self._unregister_write(sock)
        finally:
            if sock is not None:
                self._program.call("on_socket_close", sock)

    # The socket, for the event loop of a program

    def socket(self) -> Any:
        """Return the socket of the connection, or ``None``."""
        sock = self.sock
        return None if sock is None else sock.sock

    def ask_for_write(self, *, ends: bool = False) -> None:
        """If there is something to send, let the program's event loop wait for the socket to be writable.

        ``ends``: else it is to stop doing so.
        """
        if self._core.wants_write():
            self._register_write()
        elif ends:
            self._unregister_write(self.socket())

    def _register_write(self) -> None:
        sock = self.socket()
        if sock is not None and not self._registered_write:
            self._registered_write = True
            self._program.call("on_socket_register_write", sock)

    def _unregister_write(self, sock: Any) -> None:
        if sock is not None and self._registered_write:
            self._registered_write = False
            self._program.call("on_socket_unregister_write", sock)

    # Writing

    def added_output(self, wake: bool) -> None:
        """There may be something to send: have it sent, by a loop, by an event loop, or here.

        ``wake``: a loop waits, and is to be woken for it. The caller holds no locks.
        """
        if wake:
            self._waker.wake()
        elif self._listener.thread or self._waker.loops:
            return  # whoever runs a callback or a loop looks for output before it waits
        elif self._program.has("on_socket_register_write"):
            self.ask_for_write()
        else:
            self._write_here()

    def _write_here(self) -> None:
        """Send what there is and run the callbacks that come of it, which may add more."""
        more = True
        while more:
            self._core.write()
            self.close_ended()
            self._runner.run()
            more = self._core.has_output() and not self._listener.thread
