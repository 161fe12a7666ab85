"""The byte stream of one connection: TCP or a Unix socket, through a proxy or not, TLS and WebSocket on top.

Errors of opening pass as the system raised them, because programs catch ``ConnectionRefusedError`` and
``socket.gaierror``.
"""

from __future__ import annotations

import socket
from time import monotonic

from device_sdk.errors import ConnectFailedError, DeviceSdkError
from device_sdk.net.attempt import StreamAttempt
from device_sdk.net.base import ParsedUrl
from device_sdk.net.sockets import SocketTransport, connect
from device_sdk.net.tcp import TcpDialer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

try:
    import socks  # type: ignore[import-untyped]
except ImportError:
    socks = None

__all__ = ["SocketStream", "plain_error", "socks"]


class SocketStream(SocketTransport):
    """A socket to ``host`` and ``port``, or to the Unix socket ``path``.

    ``source``: local address and port to connect from, ``("", 0)`` is any. ``proxy``: the arguments of
    PySocks' ``create_connection``, or ``None``.
    """

    __slots__ = ("_dialer", "_host", "_path", "_port", "_proxy", "_source")

    def __init__(
        self,
        host: str,
        port: int,
        *,
        path: str | None = None,
        source: tuple[str, int] = ("", 0),
        proxy: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(f"tcp {ParsedUrl('mqtt', host, port).address}" if path is None else f"unix {path}")
        self._host = host
        self._port = port
        self._path = path
        self._source = source
        self._proxy = proxy
        self._dialer = _Dialer(source)

    def connect_socket(self, attempt: StreamAttempt, deadline: float) -> socket.socket:
        """Return a connected socket. Raises: OSError, as the system raised it."""
        if self._path is not None:
            return _connect_unix(self._path, attempt, deadline)
        if self._proxy is not None:
            return self._connect_through(self._proxy, deadline)
        try:
            return self._dialer.dial(self._host, self._port, attempt, deadline)
        except ConnectFailedError as error:
            raise plain_error(error) from None

    def _connect_through(self, proxy: dict[str, Any], deadline: float) -> socket.socket:
        seconds = max(0.001, deadline - monotonic())
        sock: socket.socket = socks.create_connection(
            (self._host, self._port), timeout=seconds, source_address=self._source, **proxy
        )
        sock.setblocking(False)
        return sock


class _Dialer(TcpDialer):
    """Binds to a local address that paho does not check: the system reports a wrong one."""

    __slots__ = ("_source",)

    def __init__(self, source: tuple[str, int]) -> None:
        super().__init__()
        self._source = source

    def set_origin(self, sock: socket.socket) -> None:
        """Bind the socket to the source address, if there is one."""
        if self._source != ("", 0):
            sock.bind(self._source)


def _connect_unix(path: str, attempt: StreamAttempt, deadline: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        connect(sock, path, attempt, deadline)
    except BaseException:
        sock.close()
        raise
    return sock


def plain_error(error: OSError) -> OSError:
    """Return the error of the system or of a library behind one of ours, if there is one."""
    cause = error.__cause__
    if isinstance(error, DeviceSdkError) and isinstance(cause, OSError):
        return plain_error(cause)
    return error
