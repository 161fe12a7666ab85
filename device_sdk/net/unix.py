"""MQTT over a Unix socket: ``unix:/run/mqtt.sock``, or ``unix:@name`` for an abstract name."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from urllib.parse import unquote

from device_sdk.errors import ArgumentError, ConnectFailedError
from device_sdk.net.attempt import StreamAttempt
from device_sdk.net.base import ParsedUrl
from device_sdk.net.sockets import SocketTransport

__all__ = ["UnixTransport"]

# A connect() that waits for room in the listener's queue can be neither ended nor polled: wait in steps.
_STEP_S = 0.02

# The length of sun_path without the zero at its end. Source: Linux unix(7).
_LONGEST_PATH_BYTES = 107

_WHY = {
    errno.EACCES: "permission denied; this user must be able to write to it, and to enter its folders",
    errno.ECONNREFUSED: "nobody listens there; is the broker running?",
    errno.ENOENT: "there is no such socket; is the broker running, and set up to listen there?",
    errno.ENOTDIR: "there is no such folder",
    errno.EPROTOTYPE: "it is not a stream socket",
}


class UnixTransport(SocketTransport):
    """A connection through a Unix socket.

    Percent-encoding in the path is decoded: ``%3F`` is a question mark.

    Raises: ArgumentError: the URL has no path, more than a path, or one too long for the kernel.
    """

    options = ()
    __slots__ = ("_address", "_path")

    def __init__(self, url: ParsedUrl) -> None:
        path = unquote(url.path)
        if url.host or url.query or path in ("", "/", "@"):
            raise ArgumentError("url", f"must be unix:/path/of/socket or unix:@name; found {url!r}")
        address = os.fsencode("\0" + path[1:] if path.startswith("@") else path)
        if len(address) > _LONGEST_PATH_BYTES or b"\0" in address[1:]:
            raise ArgumentError(
                "url", f"a socket's path has at most {_LONGEST_PATH_BYTES} bytes, and no zero; found {url!r}"
            )
        super().__init__(f"unix {path}")
        self._path = path
        self._address = address

    def connect_socket(self, attempt: StreamAttempt, deadline: float) -> socket.socket:
        """Return a connected socket. Raises: ConnectFailedError, TransportClosedError."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, int(_STEP_S * 1e6)))
            code = errno.EAGAIN
            while code == errno.EAGAIN:
                attempt.check()
                if time.monotonic() >= deadline:
                    raise ConnectFailedError(
                        f"cannot connect to {self._path}: timed out; the broker accepts nobody"
                    )
                code = sock.connect_ex(self._address)
            if code:
                raise ConnectFailedError(
                    f"cannot connect to {self._path}: {_WHY.get(code, os.strerror(code))} "
                    f"({errno.errorcode.get(code)})"
                )
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock
