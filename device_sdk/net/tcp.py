"""MQTT over TCP: ``mqtt://host:port``, or ``tcp://``."""

from __future__ import annotations

import errno
import os
import socket
import time

from device_sdk._printable import printable
from device_sdk.errors import ArgumentError, ArgumentTypeError, ConnectFailedError
from device_sdk.net.attempt import StreamAttempt
from device_sdk.net.base import ParsedUrl
from device_sdk.net.lookup import LookUpTimeout, look_up
from device_sdk.net.sockets import TCP_HINTS, SocketTransport, connect, in_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

    Address = tuple[socket.AddressFamily, tuple[str | int, ...] | tuple[int, bytes]]

__all__ = ["TcpDialer", "TcpTransport"]

# More unsent output than this in the kernel only adds latency: the engine keeps the rest, and can still put a
# PINGREQ or a DISCONNECT in front of it.
NOTSENT_LOW_WATER_BYTES = 128 * 1024

# Without it Linux retransmits into a dead link for about 15 minutes. 30 s outlasts a Wi-Fi roaming or a
# modem's cell change, and still ends a dead connection before the default keep alive of 60 s would.
USER_TIMEOUT_S = 30.0

# Idle time, interval and count of the kernel's probes, with their upper bounds. Source: Linux tcp(7).
_KEEPALIVE = (
    ("idle", 32767, socket.TCP_KEEPIDLE),
    ("interval", 32767, socket.TCP_KEEPINTVL),
    ("count", 127, socket.TCP_KEEPCNT),
)


class TcpTransport(SocketTransport):
    """A TCP connection. The host may be a name, an IPv4 or an IPv6 address.

    ``user_timeout``: seconds that sent data may stay unacknowledged, or a peer's receive window shut,
    before the kernel ends the connection; 0 leaves it to the system. Source: RFC 5482, Linux tcp(7).

    ``bind``: local address of the connection: ``"192.0.2.5"``, ``"192.0.2.5:5000"``,
    ``"[2001:db8::5]:5000"`` or ``("192.0.2.5", 5000)``; port 0, the default, is any port, ``""`` any
    address. An address also fixes the family: ``"0.0.0.0"`` means IPv4 only.

    ``interface``: the only network interface to use, such as ``"eth0"``.

    ``tcp_keepalive``: ``(idle, interval, count)``, whole seconds of silence before the first probe and
    between probes, and how many may stay unanswered; ``None``: the system's settings. ``user_timeout``
    limits the probes as well, so a longer series of them needs a longer one.

    Raises: ArgumentError: an option, by its name; the URL has a path or a query, which TCP does not use, or
    no port.
    """

    options: ClassVar[tuple[str, ...]] = ("bind", "interface", "tcp_keepalive", "user_timeout")
    hints: ClassVar[tuple[str, str]] = TCP_HINTS
    __slots__ = ("_dialer", "_url")

    def __init__(
        self,
        url: ParsedUrl,
        *,
        user_timeout: float = USER_TIMEOUT_S,
        bind: str | tuple[str, int] | None = None,
        interface: str | None = None,
        tcp_keepalive: tuple[int, int, int] | None = None,
    ) -> None:
        check_url(url)
        super().__init__(f"tcp {url.address}")
        self._url = url
        self._dialer = TcpDialer(
            user_timeout=user_timeout, bind=bind, interface=interface, tcp_keepalive=tcp_keepalive
        )

    def connect_socket(self, attempt: StreamAttempt, deadline: float) -> socket.socket:
        """Look the host up and connect to the first of its addresses that answers; see :class:`TcpDialer`."""
        return self._dialer.dial(self._url.host, self._url.port, attempt, deadline)


class TcpDialer:
    """Makes TCP connections. The options are those of :class:`TcpTransport`."""

    __slots__ = ("_bind", "_interface", "_tcp_keepalive", "_user_timeout")

    def __init__(
        self,
        *,
        user_timeout: float = USER_TIMEOUT_S,
        bind: str | tuple[str, int] | None = None,
        interface: str | None = None,
        tcp_keepalive: tuple[int, int, int] | None = None,
    ) -> None:
        if not 0 <= user_timeout <= 86400:
            raise ArgumentError("user_timeout", f"must be 0..86400 seconds, not {user_timeout!r}")
        self._user_timeout = user_timeout
        self._bind = None if bind is None else _parse_bind(bind)
        self._interface = None if interface is None else _check_interface(interface)
        self._tcp_keepalive = () if tcp_keepalive is None else _parse_keepalive(tcp_keepalive)

    def dial(self, host: str, port: int, attempt: StreamAttempt, deadline: float) -> socket.socket:
        """Return a socket that is connected to the first address of the host that answers.

        IPv6 and IPv4 addresses take turns, each with a fair share of the remaining time. A name look-up that
        hangs is left behind; see :mod:`device_sdk.net.lookup`.

        Raises: ConnectFailedError: none answered in time; its cause is the last error of the system.
        TransportClosedError: the attempt was cancelled.
        """
        place = ParsedUrl("tcp", host, port).address
        addresses = self._look_up(host, port, place, attempt, deadline)
        failures: list[str] = []
        cause: OSError | None = None
        for index, (family, address) in enumerate(addresses):
            attempt.check()
            now = time.monotonic()
            share = max(deadline - now, 0.0) / (len(addresses) - index)
            try:
                return self._connect_one(attempt, family, address, now + share)
            except OSError as error:
                failures.append(f"{address[0]!s}: {in_words(error)}")
                cause = error
        try:
            attempt.check()
            raise ConnectFailedError(f"cannot connect to {place}: {'; '.join(failures)}") from cause
        finally:
            del cause  # its traceback holds this frame

    def _look_up(
        self, host: str, port: int, place: str, attempt: StreamAttempt, deadline: float
    ) -> list[Address]:
        """Return the host's addresses, families taking turns (RFC 8305 §4)."""
        wanted = 0 if self._bind is None else self._bind[0]
        try:
            # As bytes: for a str the interpreter loads its IDNA tables, which only other scripts need.
            name = host.encode("ascii" if host.isascii() else "idna")
            found = look_up(name, port, wanted, attempt, deadline)
        except LookUpTimeout as error:
            attempt.check()
            raise ConnectFailedError(
                f"cannot connect to {place}: the look-up of {host!r} has not ended after {error}: the name "
                "server does not answer; see /etc/resolv.conf, or write the address instead of the name"
            ) from None
        except (OSError, UnicodeError) as error:
            family = {0: "", socket.AF_INET: "IPv4 ", socket.AF_INET6: "IPv6 "}[wanted]
            why = f" (the option bind= allows {family}only)" if wanted else ""
            raise ConnectFailedError(
                f"cannot connect to {place}: no {family}address for {host!r}: {in_words(error)}{why}"
            ) from error
        first_family = [(family, address) for family, *_, address in found if family == found[0][0]]
        others = [(family, address) for family, *_, address in found if family != found[0][0]]
        turns: list[Address] = []
        while first_family or others:
            turns += first_family[:1] + others[:1]
            del first_family[:1], others[:1]
        return turns

    def _connect_one(
        self,
        attempt: StreamAttempt,
        family: int,
        address: tuple[str | int, ...] | tuple[int, bytes],
        until: float,
    ) -> socket.socket:
        """Connect to one address until the given monotonic time. Raises: OSError with an errno."""
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            self._set_options(sock)
            self.set_origin(sock)
            connect(sock, address, attempt, until)
            # A free port of this host can be given to us as our own: TCP then connects it to itself.
            if sock.getsockname() == sock.getpeername():
                raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        except BaseException:
            sock.close()
            raise
        return sock

    def _set_options(self, sock: socket.socket) -> None:
        options = (
            # Send at once: the engine has already joined packets that belong together.
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
                if error.errno != errno.ENOPROTOOPT:  # an emulated kernel may lack one; none is essential
                    raise

    def set_origin(self, sock: socket.socket) -> None:
        """Set interface, address and port of our end. Raises: OSError, with advice in its text."""
        if self._interface is not None:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode())
            except OSError as error:
                hint = _explain_interface(self._interface, error)
                raise OSError(
                    error.errno, printable(f"interface {self._interface}: {error.strerror}{hint}")
                ) from error
        if self._bind is not None:
            _, address, port = self._bind
            try:
                if port:  # our own previous connection may still linger there
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((address, port))
            except OSError as error:
                raise OSError(
                    error.errno, printable(f"bind {address} port {port}: {error.strerror}")
                ) from error


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
    """Return advice: the interface is missing, or the right to choose one. Source: Linux socket(7)."""
    if error.errno == errno.ENODEV:
        return f"; there are: {', '.join(name for _, name in socket.if_nameindex())}"
    if error.errno == errno.EPERM:
        return "; before Linux 5.7 this needs the capability CAP_NET_RAW"
    return ""


def check_url(url: ParsedUrl) -> None:
    """Raise ArgumentError if the URL has more than a host and a port, or not both of them."""
    if url.path not in ("", "/") or url.query:
        raise ArgumentError("url", f"{url.scheme}:// takes no path or query; found {url!r}")
    if not (url.host and url.port):
        raise ArgumentError("url", f"a TCP connection needs a host and a port; found {url!r}")
