"""Connecting and disconnecting, the socket, and who writes to it.

A stream is opened by whoever asks for it: ``connect()`` and ``reconnect()`` in the caller's thread, the loops
in theirs. Reading and writing belong to one thread at a time, ``_io``; a publisher that does not get it
leaves the writing to the thread that has it.
"""

from __future__ import annotations

import socket
import threading
from abc import abstractmethod
from time import monotonic

from device_sdk.mqtt.protocol import CONNECTED as PROTOCOL_CONNECTED
from device_sdk.mqtt.protocol import DISCONNECTING as PROTOCOL_DISCONNECTING
from device_sdk.paho._events import Events
from device_sdk.paho._settings import CONNECT_ASYNC, CONNECTED, CONNECTING, DISCONNECTED, DISCONNECTING, NEW
from device_sdk.paho._stream import plain_error
from device_sdk.paho.enums import LogLevel, MQTTErrorCode, MQTTProtocolVersion
from device_sdk.paho.properties import Properties, as_mapping

try:
    import dns.resolver as resolver
except ImportError:
    resolver = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from device_sdk.mqtt.options import ConnectOptions
    from device_sdk.net.base import Transport
    from device_sdk.paho._stream import SocketStream
    from device_sdk.paho.reasoncodes import ReasonCode

__all__ = ["CLEAN_START_FIRST_ONLY", "Connection", "resolver"]

CLEAN_START_FIRST_ONLY = 3
_SUCCESS = MQTTErrorCode.MQTT_ERR_SUCCESS


class Connection(Events):
    """The part of a client that opens and closes its stream."""

    _thread: threading.Thread | None = None

    def __init__(self, protocol: int, transport: str, userdata: Any) -> None:
        super().__init__(protocol, transport, userdata)
        self._clean_session = True
        self._clean_start: bool | int = CLEAN_START_FIRST_ONLY
        self._reconnect_min_delay: float = 1
        self._reconnect_max_delay: float = 120
        self._sock: SocketStream | None = None  # of the connection, from open to close
        self._opening: Transport | None = None  # a stream that is being opened, for whoever wants it to stop
        self._io = threading.Lock()
        self._registered_write = False
        self._looping = 0  # loop_forever() calls that are running
        self._interrupt = threading.Event()  # ends a wait between two attempts

    # Connecting

    def connect(
        self,
        host: str,
        port: int = 1883,
        keepalive: int = 60,
        bind_address: str = "",
        bind_port: int = 0,
        clean_start: bool | int = CLEAN_START_FIRST_ONLY,
        properties: Properties | None = None,
    ) -> MQTTErrorCode:
        """Open the stream and send CONNECT, without waiting for the answer: a loop receives that.

        ``clean_start`` and ``properties`` are for MQTT 5.0; 3 is clean only until the first answer. The port
        is 1883 also with TLS. Raises: OSError: the stream cannot be opened. ValueError: a wrong argument.
        """
        if self._protocol == MQTTProtocolVersion.MQTTv5:
            self._mqttv5_first_connect = True
        elif clean_start != CLEAN_START_FIRST_ONLY:
            raise ValueError("Clean start only applies to MQTT V5")
        elif properties:
            raise ValueError("Properties only apply to MQTT V5")
        self.connect_async(host, port, keepalive, bind_address, bind_port, clean_start, properties)
        return self.reconnect()

    def connect_async(
        self,
        host: str,
        port: int = 1883,
        keepalive: int = 60,
        bind_address: str = "",
        bind_port: int = 0,
        clean_start: bool | int = CLEAN_START_FIRST_ONLY,
        properties: Properties | None = None,
    ) -> None:
        """End a connection that there is, and remember where the loop is to connect.

        Raises: ValueError: a wrong argument.
        """
        if bind_port < 0:
            raise ValueError("Invalid bind port number.")
        self._drop()
        self._state = NEW
        self.host = host
        self.port = port
        self.keepalive = keepalive
        self._source = (bind_address, bind_port)
        self._clean_start = clean_start
        self._connect_properties = properties
        self._state = CONNECT_ASYNC

    def connect_srv(
        self,
        domain: str | None = None,
        keepalive: int = 60,
        bind_address: str = "",
        bind_port: int = 0,
        clean_start: bool | int = CLEAN_START_FIRST_ONLY,
        properties: Properties | None = None,
    ) -> MQTTErrorCode:
        """Connect to the first broker that answers, of those that the DNS names for ``domain``.

        By default the domain of this computer. Servers are tried by priority, then by weight (RFC 2782).
        Raises: ValueError: dnspython is not installed, the DNS names none, or none answers.
        """
        if resolver is None:
            raise ValueError('No DNS resolver library found, try "pip install dnspython".')
        if domain is None:
            domain = socket.getfqdn().partition(".")[2] or socket.getfqdn()
        service = "_mqtt" if self._ssl_context is None else "_secure-mqtt"
        try:
            answers = list(resolver.resolve(f"{service}._tcp.{domain}", "SRV"))
        except (resolver.NXDOMAIN, resolver.NoAnswer, resolver.NoNameservers) as error:
            raise ValueError(f"No answer/NXDOMAIN for SRV in {domain}") from error
        for answer in sorted(answers, key=lambda found: (found.priority, -found.weight)):
            host = answer.target.to_text().rstrip(".")
            try:
                return self.connect(
                    host, answer.port, keepalive, bind_address, bind_port, clean_start, properties
                )
            except OSError as error:
                self._log(LogLevel.MQTT_LOG_WARNING, "%s:%d does not answer: %s", host, answer.port, error)
        raise ValueError("No SRV hosts responded")

    def reconnect(self) -> MQTTErrorCode:
        """Open the stream again and send CONNECT; as :meth:`connect` with the arguments it had.

        Raises: OSError: the stream cannot be opened. ValueError: there is no host yet.
        """
        if not self._host:
            raise ValueError("Invalid host.")
        if self._port <= 0:
            raise ValueError("Invalid port number.")
        self._state = CONNECTING
        self._again = False
        self._drop()
        self._call("on_pre_connect")
        fields = self._connect_fields()
        stream, sock = self._new_stream()
        self._open(stream)
        self._drop()  # another thread may have been as fast
        self._rc = _SUCCESS
        self._engine.begin(
            stream,
            fields,
            clean_start=self._is_clean(),
            inflight=self._max_inflight_messages,
            now=monotonic(),
        )
        self._registered_write = False
        self._sock = sock
        if self._wants_log():
            self._log_connect(fields)
        self._call("on_socket_open", self.socket())
        self._added_output(self._unpark())
        return _SUCCESS

    def _log_connect(self, fields: ConnectOptions) -> None:
        will = fields.will
        properties = f" properties={self._connect_properties}" if self._protocol == 5 else ""
        self._log(
            LogLevel.MQTT_LOG_DEBUG,
            "Sending CONNECT (u%d, p%d, wr%d, wq%d, wf%d, c%d, k%d) client_id=%s%s",
            fields.user_name is not None,
            fields.password is not None,
            will is not None and will.retain,
            0 if will is None else will.qos,
            will is not None,
            self._is_clean(),
            fields.keep_alive,
            fields.client_id.encode(),
            properties,
        )

    def _open(self, stream: Transport) -> None:
        self._opening = stream
        try:
            stream.open(monotonic() + self._connect_timeout)
        except OSError as error:
            raise plain_error(error) from None
        finally:
            self._opening = None

    def _stop_opening(self) -> None:
        """Let the thread that opens a stream, if there is one, give up."""
        opening = self._opening
        if opening is not None:
            opening.abort()

    def _is_clean(self) -> bool:
        if self._protocol != MQTTProtocolVersion.MQTTv5:
            return self._clean_session
        if self._clean_start == CLEAN_START_FIRST_ONLY:
            return self._mqttv5_first_connect
        return bool(self._clean_start)

    def reconnect_delay_set(self, min_delay: float = 1, max_delay: float = 120) -> None:
        """Set the seconds between attempts of a loop: the first wait, doubled each time, and the longest."""
        self._reconnect_min_delay = min_delay
        self._reconnect_max_delay = max_delay
        self._reconnect_delay = None

    def is_connected(self) -> bool:
        """Tell whether the broker has accepted the connection, and it has not ended."""
        return self._state == CONNECTED

    # Disconnecting

    def disconnect(
        self, reasoncode: ReasonCode | None = None, properties: Properties | None = None
    ) -> MQTTErrorCode:
        """Send DISCONNECT after what is to be sent already, and do not connect again.

        Both arguments are for MQTT 5.0. Messages that the broker has not acknowledged are kept.
        Returns: ``MQTT_ERR_NO_CONN`` without a connection.
        """
        with self._lock:
            engine = self._engine
            self._state = DISCONNECTING if self._has_socket() else DISCONNECTED
            if engine.open_connection is not None:
                code = 0 if reasoncode is None else reasoncode.value
                engine.goodbye = (code, as_mapping(properties) if self._protocol == 5 else {})
                engine.close_connection()
            wake = engine.unpark()
        self._interrupt.set()
        if self._state == DISCONNECTED:
            self._stop_opening()
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        self._log(LogLevel.MQTT_LOG_DEBUG, "Sending DISCONNECT")
        self._added_output(wake)
        return _SUCCESS

    # The socket

    def socket(self) -> Any:
        """Return the socket of the connection, for ``select()`` and the like, or ``None``."""
        sock = self._sock
        return None if sock is None else sock.sock

    def _has_socket(self) -> bool:
        return self._sock is not None

    def want_write(self) -> bool:
        """Tell whether there is something to send."""
        with self._lock:
            engine = self._engine
            return engine.has_connection() and (engine.stream.pending or engine.has_output())

    def _drop(self) -> None:
        """End the connection as it is, without a word to the broker or ``on_disconnect``."""
        self._engine.leave()
        self._close_ended()
        if self._unpark():
            self._wake()  # a loop that waits keeps the old socket from being closed

    def _close_ended(self) -> None:
        """Close the stream of a connection that has ended, after the callbacks that want to see it open."""
        retired = self._engine.take_retired()
        if retired is None:
            return
        wanted = retired.state == PROTOCOL_DISCONNECTING and self._state == DISCONNECTING
        try:
            if wanted:
                self._run_callbacks()
                self._report_disconnect(_SUCCESS)
        finally:
            try:
                self._socket_closes()
            finally:
                with self._io:
                    goodbye = (
                        retired.data_to_send(0, monotonic()) if retired.state > PROTOCOL_CONNECTED else []
                    )
                    self._engine.stream.close(goodbye)
                self._sock = None
                if wanted and self._state == DISCONNECTING:
                    self._state = DISCONNECTED

    def _socket_closes(self) -> None:
        sock = self.socket()
        try:
            self._unregister_write(sock)
        finally:
            if sock is not None:
                self._call("on_socket_close", sock)

    def _register_write(self) -> None:
        sock = self.socket()
        if sock is not None and not self._registered_write:
            self._registered_write = True
            self._call("on_socket_register_write", sock)

    def _unregister_write(self, sock: Any) -> None:
        if sock is not None and self._registered_write:
            self._registered_write = False
            self._call("on_socket_unregister_write", sock)

    # Writing

    def _unpark(self) -> bool:
        with self._lock:
            return self._engine.unpark()

    @abstractmethod
    def _wake(self) -> None:
        """Make a loop that waits look again. Any thread, without the lock."""

    def _added_output(self, wake: bool) -> None:
        """There may be something to send: have it sent, by a loop, by an event loop, or here. No locks."""
        if wake:
            self._wake()
        elif self._runner.thread or self._thread is not None or self._looping:
            return  # whoever runs a callback or a loop looks for output before it waits
        elif self.on_socket_register_write is not None:
            if self.want_write():
                self._register_write()
        else:
            self._write_here()

    def _write_here(self) -> None:
        """Send what there is and run the callbacks that come of it, which may add more."""
        more = True
        while more:
            self._write()
            self._close_ended()
            self._run_callbacks()
            with self._lock:
                more = self._engine.has_output() and not self._runner.thread

    def _write(self) -> None:
        """Send what there is, unless another thread is at it: it looks again when it has finished."""
        engine = self._engine
        while self._io.acquire(False):
            try:
                engine.flush(monotonic())
            finally:
                self._io.release()
            with self._lock:
                if not engine.has_output():
                    return
