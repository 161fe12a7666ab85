"""The state of a client, and the reason for the end of its last connection.

::

    connect_async()    any                            -> CONNECT_ASYNC, until a loop connects
    reconnect()        any                            -> CONNECTING
    CONNACK accepts    any                            -> CONNECTED
    disconnect()       with a socket                  -> DISCONNECTING
                       without one                    -> DISCONNECTED
    connection ends    DISCONNECTING, DISCONNECTED    -> DISCONNECTED
                       any other                      -> CONNECTION_LOST
    DISCONNECT leaves  DISCONNECTING                  -> DISCONNECTED
"""

from __future__ import annotations

from device_sdk.paho.enums import MQTTErrorCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.paho._message import MQTTMessageInfo

__all__ = ["LifeCycle"]

_SUCCESS = MQTTErrorCode.MQTT_ERR_SUCCESS

_NEW, _CONNECT_ASYNC, _CONNECTING, _CONNECTED = "NEW", "CONNECT_ASYNC", "CONNECTING", "CONNECTED"
_CONNECTION_LOST, _DISCONNECTING, _DISCONNECTED = "CONNECTION_LOST", "DISCONNECTING", "DISCONNECTED"
# By name in the order of paho-mqtt 2.x, whose private numbers of them begin with 1.
_STATES = (
    _NEW, _CONNECT_ASYNC, _CONNECTING, _CONNECTED, _CONNECTION_LOST, _DISCONNECTING, _DISCONNECTED,
)  # fmt: skip
# Those of paho-mqtt 1.x; any other state is 0.
_STATES_1_X = {_CONNECTED: 1, _DISCONNECTING: 2, _DISCONNECTED: 2, _CONNECT_ASYNC: 3}
_LEAVING = frozenset({_DISCONNECTING, _DISCONNECTED})


class LifeCycle:
    """The state of a client; each method is an event.

    ``rc``: why the last connection ended, until a loop has returned it.
    ``again``: the broker has refused, and the client connects again at once, in another way. The engine's
    lock guards :meth:`accepted`, :meth:`refused`, :meth:`ended` and :meth:`leave`.
    """

    def __init__(self) -> None:
        self.again = False
        self._state = _NEW
        self.rc = _SUCCESS
        self._offline: list[MQTTMessageInfo] = []  # published without a connection; their rc says so

    @property
    def is_connected(self) -> bool:
        """Whether the broker has accepted the connection, and it has not ended."""
        return self._state == _CONNECTED

    @property
    def waits_for_loop(self) -> bool:
        """Whether a loop shall open the first connection."""
        return self._state == _CONNECT_ASYNC

    @property
    def is_leaving(self) -> bool:
        """Whether the program has called ``disconnect()``."""
        return self._state in _LEAVING

    @property
    def says_goodbye(self) -> bool:
        """Whether the program has called ``disconnect()``, and the connection has not ended yet."""
        return self._state == _DISCONNECTING

    def number(self) -> int:
        """Return the number of the state in paho-mqtt 2.x."""
        return _STATES.index(self._state) + 1

    def number_1_x(self) -> int:
        """Return the number of the state in paho-mqtt 1.x."""
        return _STATES_1_X.get(self._state, 0)

    def is_closed(self, has_socket: bool) -> bool:
        """Whether there is no connection, and none is being opened."""
        return self._state == _NEW or (self._state in _LEAVING and not has_socket)

    def begin_anew(self) -> None:
        """The program is about to set a new address."""
        self._state = _NEW

    def wait_for_loop(self) -> None:
        """``connect_async()`` has set the address; a loop connects."""
        self._state = _CONNECT_ASYNC

    def connecting(self) -> None:
        """A stream is about to be opened."""
        self._state = _CONNECTING
        self.again = False

    def opened(self) -> None:
        """The stream is open."""
        self.rc = _SUCCESS

    def accepted(self) -> None:
        """The broker has accepted the connection."""
        self._state = _CONNECTED
        for info in self._offline:
            if info.rc == MQTTErrorCode.MQTT_ERR_NO_CONN:
                info.rc = _SUCCESS
        self._offline = []

    def await_connection(self, info: MQTTMessageInfo) -> None:
        """A message was published without a connection: ``MQTT_ERR_NO_CONN`` until there is one."""
        info.rc = MQTTErrorCode.MQTT_ERR_NO_CONN
        self._offline.append(info)

    def refused(self) -> None:
        """The broker has refused, and the client tries another way."""
        self.again = True

    def ended(self, rc: MQTTErrorCode) -> MQTTErrorCode:
        """The connection has ended; return the reason, success after ``disconnect()``."""
        if self._state in _LEAVING:
            self._state = _DISCONNECTED
            return _SUCCESS
        self._state = _CONNECTION_LOST
        return rc

    def leave(self, has_socket: bool) -> None:
        """``disconnect()`` was called."""
        self._state = _DISCONNECTING if has_socket else _DISCONNECTED

    def left(self) -> None:
        """DISCONNECT has left, and the stream is closed."""
        if self._state == _DISCONNECTING:
            self._state = _DISCONNECTED

    def tell_loop(self, rc: MQTTErrorCode) -> None:
        """The loop shall return this code."""
        self.rc = rc

    def take_rc(self) -> MQTTErrorCode:
        """Return why the connection has ended, once; success if it has not."""
        rc, self.rc = self.rc, _SUCCESS
        return rc
