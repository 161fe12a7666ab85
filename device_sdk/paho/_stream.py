"""The byte stream of one connection: TCP or a Unix socket, through a proxy or not, TLS and WebSocket on top.

Errors of opening leave as the system raised them, because programs catch ``ConnectionRefusedError`` and
``socket.gaierror``.
"""

from __future__ import annotations

import socket
from time import monotonic

from device_sdk.errors import ConnectFailedError, DeviceSdkError, TransportClosedError
from device_sdk.net.base import ParsedUrl, Transport
from device_sdk.net.tcp import TcpTransport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

try:
    import socks  # type: ignore[import-untyped]
except ImportError:
    socks = None

__all__ = ["NoStream", "SocketStream", "plain_error", "socks"]


class NoStream(Transport):
    """The stream of a client that was never told where to connect."""

    __slots__ = ()
    description = "no broker"

    def _raise(self) -> NoReturn:
        raise TransportClosedError("the client has no broker yet: call connect() first")

    def open(self, deadline: float) -> None:
        """Raises: TransportClosedError."""
        self._raise()

    def fileno(self) -> int:
        """Raises: TransportClosedError."""
        self._raise()

    def recv(self) -> bytes | None:
        """Raises: TransportClosedError."""
        self._raise()

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Raises: TransportClosedError."""
        self._raise()

    def abort(self) -> None:
        """Nothing to end."""

    def close(self) -> None:
        """Nothing to release."""


class SocketStream(TcpTransport):
    """A socket to ``host`` and ``port``, or to the Unix socket ``path``.

    ``source``: local address and port to connect from, ``("", 0)`` is any. ``proxy``: the arguments of
    PySocks' ``create_connection``, or ``None``.
    """

    __slots__ = ("_failure", "_path", "_proxy", "_source")

    def __init__(
        self,
        host: str,
        port: int,
        *,
        path: str | None = None,
        source: tuple[str, int] = ("", 0),
        proxy: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(ParsedUrl("mqtt", host if path is None else "unix", port))
        self._path = path
        self._source = source
        self._proxy = proxy
        self._failure: OSError | None = None
        if path is not None:
            self.description = f"unix {path}"

    @property
    def handle(self) -> socket.socket | None:
        """The socket while the stream is open."""
        return self._sock

    def connect_socket(self, attempt: Any, deadline: float) -> socket.socket:
        """Return a connected socket. Raises: OSError, as the system raised it."""
        self._failure = None
        try:
            if self._path is not None:
                return self._connect_one(attempt, socket.AF_UNIX, self._path, deadline)
            if self._proxy is not None:
                return self._connect_through(self._proxy, deadline)
            return super().connect_socket(attempt, deadline)
        except ConnectFailedError as error:
            raise self._failure or plain_error(error) from None

    def _connect_through(self, proxy: dict[str, Any], deadline: float) -> socket.socket:
        seconds = max(0.001, deadline - monotonic())
        sock: socket.socket = socks.create_connection(
            (self._url.host, self._url.port), timeout=seconds, source_address=self._source, **proxy
        )
        sock.setblocking(False)
        return sock

    def _connect_one(self, attempt: Any, family: int, address: Any, until: float) -> socket.socket:
        try:
            return super()._connect_one(attempt, family, address, until)
        except OSError as error:
            self._failure = error
            raise

    def _set_options(self, sock: socket.socket) -> None:
        if self._path is None:
            super()._set_options(sock)

    def _set_origin(self, sock: socket.socket) -> None:
        if self._path is None and self._source != ("", 0):
            sock.bind(self._source)


def plain_error(error: OSError) -> OSError:
    """Return the error of the system or of a library behind one of ours, if there is one."""
    cause = error.__cause__
    if isinstance(error, DeviceSdkError) and isinstance(cause, OSError):
        return plain_error(cause)
    return error
