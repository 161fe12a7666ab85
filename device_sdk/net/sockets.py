"""A connected stream socket as a transport: the base of TCP, Unix and proxy streams."""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
from abc import abstractmethod

from device_sdk._load import load
from device_sdk.errors import TransportClosedError
from device_sdk.net.attempt import StreamAttempt, StreamLife
from device_sdk.net.base import Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = ["TCP_HINTS", "SocketTransport", "connect", "in_words"]

#: The hints of a TCP stream, direct or through a proxy; see :attr:`Transport.hints`.
TCP_HINTS = (
    "a port that wants TLS does that (then write mqtts://), or a broker that rejects us (see its log)",
    "check that this is the port of an MQTT broker, mostly 1883",
)
# Requests of ioctl(): bytes sent or not and not confirmed; bytes not sent. Source: Linux tcp(7), sockios.h.
_SIOCOUTQ, _SIOCOUTQNSD = 0x5411, 0x894B
# How the peer has ended a stream. EPIPE: it had closed in order, and has answered what came after that.
_BY_PEER = {errno.ECONNRESET: "reset", errno.EPIPE: "closed"}

# One read, in µs for 4 B / 1,400 B / 64 KiB waiting (x86, Python 3.11): recv(65536) 4.6 / 5.3 / 7.4;
# recv_into() a reused buffer and bytes() of it 5.1 / 5.8 / 10.2; recv(262144) 21. The plain call wins.
RECV_BYTES = 65536


class SocketTransport(Transport):
    """A stream on a socket of its own. A subclass connects the socket."""

    __slots__ = ("_blocked", "_life", "_live", "description", "sock")

    def __init__(self, description: str) -> None:
        self.description = description
        self._life = StreamLife()  # its lock guards the two below
        #: The socket from ``open()`` to ``close()``, for the owner.
        self.sock: socket.socket | None = None
        self._live: socket.socket | None = None  # the same, None as soon as it is aborted
        self._blocked = False

    @abstractmethod
    def connect_socket(self, attempt: StreamAttempt, deadline: float) -> socket.socket:
        """Return a connected, non-blocking socket by ``deadline``.

        Runs in the thread of :meth:`open`. Raises: ConnectFailedError. TransportClosedError: the attempt was
        cancelled.
        """

    def open(self, deadline: float) -> None:
        """Connect the socket; see :meth:`Transport.open`."""
        with self._life.begin(self.description) as attempt:
            sock = self.connect_socket(attempt, deadline)
            try:
                with self._life.lock:
                    attempt.succeed()
                    self.sock = self._live = sock
                    self._blocked = False
            except TransportClosedError:
                sock.close()
                raise

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        if self.sock is None:
            self._raise_dead()
        return self.sock.fileno()

    def recv(self) -> bytes | None:
        """Return up to 64 KiB of received bytes; see :meth:`Transport.recv`."""
        sock = self._live
        if sock is None:
            self._raise_dead()
        try:
            return sock.recv(RECV_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._closed_by(error) from error

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Hand bytes to the kernel and return how many it took; see :meth:`Transport.send`."""
        sock = self._live
        if sock is None:
            self._raise_dead()
        try:
            taken = sock.send(data)
        except BlockingIOError:
            taken = 0
        except OSError as error:
            raise self._closed_by(error) from error
        self._blocked = taken < len(data)
        return taken

    def wants_write(self) -> bool:
        """True after a send that the kernel took only in part."""
        return self._blocked

    def flush(self) -> None:
        """Note that the kernel has room again; no output is kept here."""
        self._blocked = False

    def bytes_held(self, *, unconfirmed: bool) -> int:
        """Return the bytes that the kernel has; see :func:`~device_sdk.net.base.bytes_held`."""
        if self.sock is None:
            return 0
        ioctl = load("fcntl:ioctl")  # only connections that have ended need it
        try:
            found = ioctl(self.sock, _SIOCOUTQ if unconfirmed else _SIOCOUTQNSD, b"\0\0\0\0")
        except OSError:  # no such count for this family
            return 0
        # abort() has put an end of stream behind the data: it counts as one.
        return max(0, int.from_bytes(found, sys.byteorder) - self._life.is_aborted)

    def abort(self) -> None:
        """End the connection, or the attempt to make one; see :meth:`Transport.abort`."""
        with self._life.lock:
            self._life.abort()
            self._live = None
            if self.sock is not None:
                try:
                    self.sock.shutdown(socket.SHUT_RDWR)
                except OSError:  # the peer was faster
                    pass

    def close(self) -> None:
        """Close the socket and forget an abort; see :meth:`Transport.close`."""
        with self._life.lock:
            self._life.close()
            sock = self.sock
            self.sock = self._live = None
            self._blocked = False
        if sock is not None:
            sock.close()

    def _closed_by(self, error: OSError) -> TransportClosedError:
        reason = "aborted" if self._life.is_aborted else in_words(error)
        return TransportClosedError.ended(f"{self.description}: {reason}", _BY_PEER.get(error.errno or 0))

    def _raise_dead(self) -> NoReturn:
        state = "was aborted" if self._life.is_aborted else "is not open"
        raise TransportClosedError(f"{self.description} {state}")


def connect(sock: socket.socket, address: Any, attempt: StreamAttempt, until: float) -> None:
    """Connect a non-blocking socket, waiting until a monotonic time. Raises: OSError with an errno."""
    code = sock.connect_ex(address)
    if code == errno.EINPROGRESS:
        code = attempt.wait(sock.fileno(), select.POLLOUT, until)
        code = code or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def in_words(error: Exception) -> str:
    """Return "Connection refused (ECONNREFUSED)" and the like."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    # The numbers of gaierror are not errnos.
    name = None if isinstance(error, socket.gaierror) else errno.errorcode.get(error.errno)
    return f"{error.strerror} ({name})" if name else str(error.strerror)
