"""MQTT over TCP: ``mqtt://host:port``, or ``tcp://``."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time

from device_sdk.errors import (
    ArgumentError,
    ArgumentTypeError,
    ConnectFailedError,
    TransportClosedError,
    TransportError,
)
from device_sdk.net.base import ParsedUrl, Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, NoReturn

    Address = tuple[socket.AddressFamily, tuple[str | int, ...] | tuple[int, bytes]]

__all__ = ["Attempt", "TcpTransport"]

# One read, in µs for 4 B / 1,400 B / 64 KiB waiting (x86, Python 3.11): recv(65536) 4.6 / 5.3 / 7.4;
# recv_into() a reused buffer and bytes() of it 5.1 / 5.8 / 10.2; recv(262144) 21. The plain call wins.
RECV_BYTES = 65536

# More unsent output than this in the kernel is only latency: the engine keeps the rest, and can still put
# a PINGREQ or a DISCONNECT in front of it.
NOTSENT_LOW_WATER_BYTES = 128 * 1024

# Without it Linux retransmits into a dead link for about 15 minutes. 30 s outlasts a Wi-Fi roaming or a
# modem's cell change, and still ends a dead connection before the default keep alive of 60 s would.
USER_TIMEOUT_S = 30.0

# What the kernel takes for idle time, interval and count of its probes. Source: Linux tcp(7).
_KEEPALIVE = (
    ("idle", 32767, socket.TCP_KEEPIDLE),
    ("interval", 32767, socket.TCP_KEEPINTVL),
    ("count", 127, socket.TCP_KEEPCNT),
)


class TcpTransport(Transport):
    """A TCP connection. The host may be a name, an IPv4 or an IPv6 address.

    ``user_timeout``: seconds that sent data may stay unacknowledged, or a peer's receive window shut,
    before the kernel ends the connection; 0 leaves it to the system. Source: RFC 5482, Linux tcp(7).

    ``bind``: where the connection starts on this machine: ``"192.0.2.5"``, ``"192.0.2.5:5000"``,
    ``"[2001:db8::5]:5000"`` or ``("192.0.2.5", 5000)``; port 0, the default, is any, and so is the address
    ``""``. An address also settles the family: ``"0.0.0.0"`` means IPv4 only.

    ``interface``: the only network interface to use, such as ``"eth0"``.

    ``tcp_keepalive``: ``(idle, interval, count)``, whole seconds of silence before the first probe and
    between probes, and how many may stay unanswered; ``None``: as the system is set up. ``user_timeout``
    limits the probes as well, so a longer line of them needs a longer one.

    Raises: ArgumentError: an option, by its name; the URL has a path or a query, which mean nothing to TCP,
    or no port.
    """

    options: ClassVar[tuple[str, ...]] = ("bind", "interface", "tcp_keepalive", "user_timeout")
    __slots__ = ("_aborted", "_attempt", "_bind", "_blocked", "_interface", "_live", "_lock", "_sock",
                 "_tcp_keepalive", "_url", "_user_timeout", "description")  # fmt: skip

    def __init__(
        self,
        url: ParsedUrl,
        *,
        user_timeout: float = USER_TIMEOUT_S,
        bind: str | tuple[str, int] | None = None,
        interface: str | None = None,
        tcp_keepalive: tuple[int, int, int] | None = None,
    ) -> None:
        if url.path not in ("", "/") or url.query:
            raise ArgumentError("url", f"{url.scheme}:// takes no path or query; found {url!r}")
        if not (url.host and url.port):
            raise ArgumentError("url", f"a TCP connection needs a host and a port; found {url!r}")
        if not 0 <= user_timeout <= 86400:
            raise ArgumentError("user_timeout", f"must be 0..86400 seconds, not {user_timeout!r}")
        self.description = f"tcp {url.address}"
        self._url = url
        self._user_timeout = user_timeout
        self._bind = None if bind is None else _parse_bind(bind)
        self._interface = None if interface is None else _check_interface(interface)
        self._tcp_keepalive = () if tcp_keepalive is None else _parse_keepalive(tcp_keepalive)
        # Guards the four below against abort(), which may come from any thread.
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None  # what close() has to close
        self._live: socket.socket | None = None  # the same, None as soon as it is aborted
        self._attempt: Attempt | None = None
        self._aborted = False
        self._blocked = False

    def open(self, deadline: float) -> None:
        """Look the host up and connect to the first of its addresses that answers.

        IPv6 and IPv4 addresses take turns, each with a fair share of the time that is left. The name
        look-up itself cannot be interrupted or bounded; see :meth:`Transport.open`.
        """
        with self._lock:
            if self._sock is not None or self._attempt is not None:
                raise TransportError(f"{self.description} is open or being opened; close() it first")
            if self._aborted:
                raise TransportClosedError(f"{self.description} was aborted before it was opened")
            try:
                attempt = self._attempt = Attempt()
            except OSError as error:  # out of descriptors
                raise ConnectFailedError(f"cannot open {self.description}: {_in_words(error)}") from error
        try:
            sock = self.connect_socket(attempt, deadline)
            with self._lock:
                if not attempt.cancelled:
                    self._sock = self._live = sock
                    self._blocked = False
                    return
            sock.close()
            raise TransportClosedError(f"{self.description} was aborted while it was opened")
        finally:
            with self._lock:
                if self._attempt is attempt:
                    self._attempt = None
                attempt.release()

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        if self._sock is None:
            self._raise_dead()
        return self._sock.fileno()

    def recv(self) -> bytes | None:
        """Return up to 64 KiB of what has arrived; see :meth:`Transport.recv`."""
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
        """True after a send that the kernel did not take whole."""
        return self._blocked

    def flush(self) -> None:
        """Note that the kernel has room again; nothing is kept here."""
        self._blocked = False

    def abort(self) -> None:
        """End the connection, or the attempt to make one; see :meth:`Transport.abort`."""
        with self._lock:
            self._aborted = True
            self._live = None
            if self._attempt is not None:
                self._attempt.cancel()
            if self._sock is not None:
                try:
                    self._sock.shutdown(socket.SHUT_RDWR)
                except OSError:  # the peer was faster
                    pass

    def close(self) -> None:
        """Close the socket and forget an abort; see :meth:`Transport.close`."""
        with self._lock:
            sock = self._sock
            self._sock = self._live = None
            self._aborted = self._blocked = False
            if self._attempt is not None:
                self._attempt.cancel()
                self._attempt = None
        if sock is not None:
            sock.close()

    def connect_socket(self, attempt: Attempt, deadline: float) -> socket.socket:
        """Return a connected socket; a subclass reaches its host in another way.

        Runs in the thread of :meth:`open`. Raises: ConnectFailedError: not by ``deadline``.
        TransportClosedError: the attempt was cancelled.
        """
        return self._connect_to(self._url.host, self._url.port, attempt, deadline)

    def _connect_to(self, host: str, port: int, attempt: Attempt, deadline: float) -> socket.socket:
        """Try the addresses of a host one after the other. Raises: as :meth:`connect_socket`."""
        place = ParsedUrl("tcp", host, port).address
        addresses = self._look_up(host, port, place)
        failures = []
        for index, (family, address) in enumerate(addresses):
            self._check(attempt)
            now = time.monotonic()
            share = max(deadline - now, 0.0) / (len(addresses) - index)
            try:
                return self._connect_one(attempt, family, address, now + share)
            except OSError as error:
                failures.append(f"{address[0]!s}: {_in_words(error)}")
        self._check(attempt)
        raise ConnectFailedError(f"cannot connect to {place}: {'; '.join(failures)}")

    def _look_up(self, host: str, port: int, place: str) -> list[Address]:
        """Return the host's addresses, families taking turns (RFC 8305 §4)."""
        wanted = 0 if self._bind is None else self._bind[0]
        try:
            # As bytes: for a str the interpreter loads its IDNA tables, which only other scripts need.
            name = host.encode("ascii" if host.isascii() else "idna")
            found = socket.getaddrinfo(name, port, family=wanted, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            family = {0: "", socket.AF_INET: "IPv4 ", socket.AF_INET6: "IPv6 "}[wanted]
            why = f" (the option bind= allows {family}only)" if wanted else ""
            raise ConnectFailedError(
                f"cannot connect to {place}: no {family}address for {host!r}: {_in_words(error)}{why}"
            ) from error
        first_family = [(family, address) for family, *_, address in found if family == found[0][0]]
        others = [(family, address) for family, *_, address in found if family != found[0][0]]
        turns: list[Address] = []
        while first_family or others:
            turns += first_family[:1] + others[:1]
            del first_family[:1], others[:1]
        return turns

    def _connect_one(
        self, attempt: Attempt, family: int, address: tuple[str | int, ...] | tuple[int, bytes], until: float
    ) -> socket.socket:
        """Connect to one address until the given monotonic time. Raises: OSError with an errno."""
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            self._set_options(sock)
            self._set_origin(sock)
            code = sock.connect_ex(address)
            if code == errno.EINPROGRESS:
                code = attempt.wait(sock, select.POLLOUT, until)
                code = code or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            # A free port of this host can be given to us as our own: TCP then connects it to itself.
            if not code and sock.getsockname() == sock.getpeername():
                code = errno.ECONNREFUSED
            if code:
                raise OSError(code, os.strerror(code))
        except BaseException:
            sock.close()
            raise
        return sock

    def _set_options(self, sock: socket.socket) -> None:
        options = (
            # A packet leaves when it is sent: the engine has joined what belongs together.
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOW_WATER_BYTES),
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._user_timeout * 1000)),
            # For clients without an MQTT keep alive.
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            *self._tcp_keepalive,
        )
        for level, option, value in options:
            try:
                sock.setsockopt(level, option, value)
            except OSError as error:
                if error.errno != errno.ENOPROTOOPT:  # an emulated kernel may lack one; none is vital
                    raise

    def _set_origin(self, sock: socket.socket) -> None:
        """Choose interface, address and port of our end. Raises: OSError whose text says what to change."""
        if self._interface is not None:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode())
            except OSError as error:
                hint = _explain_interface(self._interface, error)
                raise OSError(error.errno, f"interface {self._interface}: {error.strerror}{hint}") from error
        if self._bind is not None:
            _, address, port = self._bind
            try:
                if port:  # our own connection of a moment ago may still linger there
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((address, port))
            except OSError as error:
                raise OSError(error.errno, f"bind {address} port {port}: {error.strerror}") from error

    def _check(self, attempt: Attempt) -> None:
        """Raise: TransportClosedError: the attempt was cancelled."""
        if attempt.cancelled:
            raise TransportClosedError(f"{self.description} was aborted while it was opened")

    def _closed_by(self, error: OSError) -> TransportClosedError:
        reason = "aborted" if self._aborted else _in_words(error)
        return TransportClosedError(f"{self.description}: {reason}")

    def _raise_dead(self) -> NoReturn:
        state = "was aborted" if self._aborted else "is not open"
        raise TransportClosedError(f"{self.description} {state}")


class Attempt:
    """One call of open(): it can be cancelled from another thread, and outlive its transport's interest.

    All but :meth:`wait` is called under the transport's lock.
    """

    __slots__ = ("_wake", "cancelled")

    def __init__(self) -> None:
        self.cancelled = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def cancel(self) -> None:
        """End :meth:`wait`, now or when it is called."""
        self.cancelled = True
        os.eventfd_write(self._wake, 1)

    def wait(self, sock: socket.socket | int, events: int, until: float) -> int:
        """Wait for ``events`` of :func:`select.poll`; return 0, ETIMEDOUT, or ECANCELED after :meth:`cancel`.

        ``until`` in monotonic seconds.
        """
        poll = select.poll()
        poll.register(sock, events)
        poll.register(self._wake, select.POLLIN)
        seconds = min(max(until - time.monotonic(), 0.0), 86400.0)
        ready = dict(poll.poll(int(seconds * 1000)))
        if self._wake in ready:
            return errno.ECANCELED
        return 0 if ready else errno.ETIMEDOUT

    def release(self) -> None:
        """Close what :meth:`wait` waits with."""
        os.close(self._wake)


def _in_words(error: Exception) -> str:
    """Return "Connection refused (ECONNREFUSED)" and the like."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    # The numbers of gaierror are not errnos.
    name = None if isinstance(error, socket.gaierror) else errno.errorcode.get(error.errno)
    return f"{error.strerror} ({name})" if name else str(error.strerror)


def _parse_bind(bind: str | tuple[str, int]) -> tuple[int, str, int]:
    """Return family, address and port. Raises: ArgumentError."""
    example = "write for example '192.0.2.5', '[2001:db8::5]:5000' or ('192.0.2.5', 5000)"
    address: Any
    port: Any
    if isinstance(bind, str):
        address, bracket, rest = bind.removeprefix("[").partition("]")
        if not (bracket and bind.startswith("[")):
            address, colon, rest = (bind, "", "") if bind.count(":") > 1 else bind.partition(":")
            rest = colon + rest
        digits = rest.removeprefix(":")
        known = rest.startswith(":") and digits.isascii() and digits.isdecimal() and len(digits) <= 5
        port = int(digits) if known else -1 if rest else 0
    elif isinstance(bind, tuple) and len(bind) == 2:
        address, port = bind
    else:
        raise ArgumentTypeError("bind", f"must be a str or a pair, not {bind!r}; {example}")
    if type(port) is int and 0 <= port <= 65535:
        if address == "":
            return socket.AF_UNSPEC, "", port
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                socket.inet_pton(family, address)
            except (OSError, TypeError, ValueError):
                continue
            return family, address, port
    raise ArgumentError("bind", f"{bind!r} is not an address of this machine and a port; {example}")


def _check_interface(name: str) -> str:
    # IFNAMSIZ of Linux, with the zero at the end.
    if not isinstance(name, str) or not 1 <= len(name.encode()) <= 15 or "\0" in name:
        raise ArgumentError("interface", f"must be a name of 1..15 bytes such as 'eth0', not {name!r}")
    return name


def _parse_keepalive(values: tuple[int, int, int]) -> tuple[tuple[int, int, int], ...]:
    """Return the arguments of setsockopt(). Raises: ArgumentError."""
    if not isinstance(values, (tuple, list)) or len(values) != 3:
        raise ArgumentError("tcp_keepalive", f"must be (idle, interval, count), not {values!r}")
    for (name, most, _), value in zip(_KEEPALIVE, values, strict=True):
        if not (type(value) is int and 1 <= value <= most):
            raise ArgumentError("tcp_keepalive", f"{name} must be a whole number 1..{most}, not {value!r}")
    return tuple((socket.IPPROTO_TCP, row[2], value) for row, value in zip(_KEEPALIVE, values, strict=True))


def _explain_interface(name: str, error: OSError) -> str:
    """Say what is missing: the interface, or the right to choose one. Source: Linux socket(7)."""
    if error.errno == errno.ENODEV:
        return f"; there are: {', '.join(name for _, name in socket.if_nameindex())}"
    if error.errno == errno.EPERM:
        return "; before Linux 5.7 this needs the capability CAP_NET_RAW"
    return ""
