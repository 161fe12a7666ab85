"""MQTT over a serial line: ``serial:///dev/ttyUSB0?baud=115200&rtscts=1``, the bytes as they are or framed.

A port of this machine, or one behind a network: ``rfc2217://host:port`` also configures the remote port,
``socket://host:port`` leaves it as it is. Needs the extra ``serial``. The wire has no checksum, no end of
stream and no connections; docs/serial.md describes the consequences, and ``framing=link`` adds all three.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import termios
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import unquote

from device_sdk._load import load
from device_sdk._text import did_you_mean
from device_sdk.errors import (
    ArgumentError,
    ConnectFailedError,
    MissingDependency,
    TransportClosedError,
    TransportError,
)
from device_sdk.net.attempt import StreamAttempt, StreamLife
from device_sdk.net.base import ParsedUrl, Transport, takes
from device_sdk.net.serial_errors import GONE, explain
from device_sdk.net.watch import Watch

try:
    # By name: the unrelated package "serial" could be imported as well.
    from serial import Serial, serial_for_url
except ImportError as error:
    raise MissingDependency("a serial line", "serial") from error

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["SerialTransport", "serial_stream"]

READ_BYTES = 65536
# At an orderly close, output in the kernel, such as a DISCONNECT, gets this long to leave. By itself Linux
# takes 30 s to close a port that flow control has stopped.
DRAIN_S = 0.25
# A remote port behind socket:// that takes nothing for this long is dead. (rfc2217:// has 5 s of its own.)
REMOTE_WRITE_S = 10.0

_ON = dict.fromkeys(("1", "on", "true", "yes"), True)
_OFF = dict.fromkeys(("0", "off", "false", "no"), False)
_SWITCH = _ON | _OFF
_PARITIES = {"none": "N", "even": "E", "odd": "O", "mark": "M", "space": "S"}

# Option of the URL -> pyserial's name, default, allowed values (baud: a number).
_OPTIONS: dict[str, tuple[str, object, dict[str, Any]]] = {
    "baud": ("baudrate", 115_200, {}),
    "bytesize": ("bytesize", 8, {"8": 8}),
    "parity": ("parity", "N", _PARITIES | {letter: letter for letter in "NEOMS"}),
    "stopbits": ("stopbits", 1, {"1": 1, "2": 2}),
    "rtscts": ("rtscts", False, _SWITCH),
    "xonxoff": ("xonxoff", False, _OFF),
    "dsrdtr": ("dsrdtr", False, _SWITCH),
    "exclusive": ("exclusive", True, _SWITCH),
}
_WHY_NOT = {
    "bytesize": "; MQTT needs all eight bits",
    "xonxoff": "; MQTT is binary and XON/XOFF would swallow two of its byte values: use rtscts=1",
}
_BAUD_RATES = range(50, 20_000_001)
# Options of framing=link, and of no other: what both ends may agree on at most, and the default.
_LINK_SIZES = {"frame": (range(64, 1025), 256), "window": (range(1, 65), 8)}
_LINK = "device_sdk.net.link.layer:LinkTransport"
_TAKES = {"serial": set(_OPTIONS), "rfc2217": set(_OPTIONS) - {"exclusive"}, "socket": set[str]()}


@takes()
def serial_stream(url: ParsedUrl) -> Transport:
    """Return the stream of a serial URL: the port itself, or with ``framing=link`` a link on top of it.

    ``framing``: raw (the default) or link. With link ``frame`` is the largest frame in bytes (64..1024,
    default 256) and ``window`` the frames on their way (1..64, default 8); ``socket://`` then takes ``baud``,
    the rate of the line behind it. The other options are those of :class:`SerialTransport`.

    Raises: ArgumentError: an option or a value, by its name.
    """
    query = dict(url.query)
    framing = query.pop("framing", "raw")
    if framing not in ("raw", "link"):
        raise ArgumentError("framing", f"must be raw or link; not {framing!r}")
    sizes = {}
    for name, (allowed, default) in _LINK_SIZES.items():
        text = query.pop(name, None)
        if text is not None and framing == "raw":
            raise ArgumentError(name, "is an option of framing=link")
        sizes[name] = default if text is None else _number(name, text, allowed, str(default))
    if framing == "raw":
        return SerialTransport(_with_query(url, query))
    baud: int = _value("baud", query.get("baud", "115200"), {})
    if url.scheme == "socket":
        query.pop("baud", None)
    link: Transport = load(_LINK)(SerialTransport(_with_query(url, query)), baud=baud, **sizes)
    return link


def _with_query(url: ParsedUrl, query: dict[str, str]) -> ParsedUrl:
    return ParsedUrl(url.scheme, url.host, url.port, url.path, query, url.user_name, url.password)


class SerialTransport(Transport):
    """A serial line.

    Options in the URL: ``baud`` (115200), ``bytesize`` (8), ``parity`` (none, even, odd, mark, space),
    ``stopbits`` (1, 2), ``rtscts``, ``xonxoff``, ``dsrdtr`` (all off) and ``exclusive`` (on: no other program
    may open the port). ``socket://`` takes none, ``rfc2217://`` all but ``exclusive``.

    :meth:`recv` returns ``b""``, the end of the stream, when the port is unplugged. The descriptor is an
    epoll of our own, readable for data and for room after a send that was cut short, so ``wants_write()`` is
    false: a tty cannot be shut down from another thread, but an eventfd beside it can wake its owner.

    Raises: ArgumentError: an option or a value, by its name, or a URL that names no port.
    """

    options = ()  # they are in the URL
    hints = (
        "",
        "nothing came over the line: check the wiring (TX to RX), the baud rate, and that the gateway runs",
    )
    __slots__ = ("_blocked", "_connect", "_life", "_line", "_watch", "description")

    def __init__(self, url: ParsedUrl) -> None:
        settings = _parse_settings(url)
        if url.scheme == "serial":
            path = unquote(url.path)
            if url.host or path in ("", "/"):
                raise ArgumentError("url", f"must be like serial:///dev/ttyUSB0?baud=115200; found {url!r}")
            self.description = f"serial {path}"
            self._connect: Callable[[StreamAttempt, float], _Line] = lambda *_: _LocalLine(path, settings)
        else:
            if not (url.host and url.port) or url.path not in ("", "/"):
                raise ArgumentError("url", f"must be {url.scheme}://host:port; found {url!r}")
            self.description = f"{url.scheme} {url.address}"
            remote = f"{url.scheme}://{url.address}"
            self._connect = lambda attempt, deadline: _open_remote(remote, settings, attempt, deadline)
        self._life = StreamLife()  # its lock guards all of these, and nothing done under it blocks
        self._line: _Line | None = None
        self._watch: Watch | None = None
        self._blocked = False

    def open(self, deadline: float) -> None:
        """Open and configure the port, and discard old input; see :meth:`Transport.open`.

        Old input belongs to the stream before this one: its first byte would be taken for the beginning of a
        packet.
        """
        with self._life.begin(self.description) as attempt:
            if time.monotonic() >= deadline:
                raise ConnectFailedError(f"cannot open {self.description}: timed out")
            try:
                line = self._connect(attempt, deadline)
                try:
                    with self._life.lock:
                        attempt.check()
                        self._watch = Watch(line.fd)
                        self._line = line
                        self._blocked = False
                        attempt.succeed()
                except BaseException:
                    line.close(drain=False)
                    raise
            except (OSError, termios.error, ValueError) as error:
                if isinstance(error, TransportError):
                    raise
                raise ConnectFailedError(f"cannot open {self.description}: {error}") from error

    def fileno(self) -> int:
        """Return the descriptor to poll for reading."""
        watch = self._watch
        if watch is None:
            raise TransportClosedError(f"{self.description} is not open")
        return watch.fileno()

    def recv(self) -> bytes | None:
        """Return received bytes; ``b""`` once the port is unplugged. See :meth:`Transport.recv`."""
        with self._life.lock:
            line = self._usable_line()
            if self._blocked:
                self._await_room(False)
            try:
                return os.read(line.fd, READ_BYTES)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno in GONE:
                    return b""
                raise self._closed_by(error) from error

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Hand bytes to the port and return how many it took; see :meth:`Transport.send`."""
        with self._life.lock:
            line = self._usable_line()
            try:
                taken = os.write(line.fd, data)
            except BlockingIOError:
                taken = 0
            except OSError as error:
                raise self._closed_by(error) from error
            if taken < len(data):
                self._await_room(True)
            return taken

    def bytes_held(self, *, unconfirmed: bool) -> int:
        """Return 1: what a port or its line holds is not known, nor whose end the end of the stream is."""
        return 1

    def abort(self) -> None:
        """Release the port, or the attempt to open it; see :meth:`Transport.abort`."""
        with self._life.lock:
            self._life.abort()
            if self._watch is not None:
                self._watch.wake()
            if self._line is not None:
                self._line.close(drain=False)
                self._line = None

    def close(self) -> None:
        """Release the port and forget an abort; see :meth:`Transport.close`.

        The one exception to "never blocks": output that the port has not sent yet gets up to 0.25 s. The
        port keeps its settings: in the default mode of a terminal it would echo late input to the peer.
        """
        with self._life.lock:
            self._life.close()
            line, watch = self._line, self._watch
            self._line = self._watch = None
            self._blocked = False
        if watch is not None:
            watch.close()
        if line is not None:
            line.close(drain=True)

    # Below: called with the lock held

    def _usable_line(self) -> _Line:
        if self._line is None:
            state = "was aborted" if self._life.is_aborted else "is not open"
            raise TransportClosedError(f"{self.description} {state}")
        return self._line

    def _await_room(self, wanted: bool) -> None:
        if self._watch is not None and wanted != self._blocked:
            self._blocked = wanted
            self._watch.also_room(wanted)

    def _closed_by(self, error: OSError) -> TransportClosedError:
        name = errno.errorcode.get(error.errno or 0, "no errno")
        if error.errno in GONE:
            reason = "unplugged, or hung up by another program on this port, such as a login console (getty)"
        elif error.errno in (errno.EPIPE, errno.ECONNRESET):
            reason = "closed by the far end"
        else:
            reason = str(error.strerror)
        return TransportClosedError(f"{self.description}: {reason} ({name})")


class _Line(ABC):
    """An open line: a non-blocking descriptor, and how to release it."""

    __slots__ = ("fd",)
    fd: int

    @abstractmethod
    def close(self, drain: bool) -> None:
        """Release it. With ``drain``, sent data gets a bounded time to leave. Never raises."""


class _LocalLine(_Line):
    """A port of this machine. Raises: ConnectFailedError: with advice."""

    __slots__ = ("_port",)

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        try:
            # inter_byte_timeout=0 is VMIN=1, VTIME=0. With pyserial's usual VMIN=0 the kernel answers
            # "nothing now" with 0 bytes, which would look like a hang-up.
            # Opening discards the input (TCIFLUSH).
            self._port = Serial(path, timeout=0, inter_byte_timeout=0, **settings)
            self.fd = self._port.fileno()
            if settings["exclusive"]:
                # pyserial's lock (flock) stops only programs that ask for it; this one stops all but root's.
                self._exclude_others()
        except (OSError, termios.error, ValueError, OverflowError) as error:
            raise ConnectFailedError(explain(path, settings, error)) from error

    def close(self, drain: bool) -> None:
        """Wait for the output if asked to, discard the rest, close."""
        try:
            until = time.monotonic() + (DRAIN_S if drain else 0.0)
            while (unsent := self._unsent()) and time.monotonic() < until:
                time.sleep(0.005)
            if unsent:
                termios.tcflush(self.fd, termios.TCOFLUSH)
            # It belongs to the device, not to our descriptor: another program may still have it open.
            fcntl.ioctl(self.fd, termios.TIOCNXCL)
        except (OSError, termios.error):  # unplugged
            pass
        self._port.close()

    def _exclude_others(self) -> None:
        try:
            fcntl.ioctl(self.fd, termios.TIOCEXCL)
        except OSError:  # unplugged this moment
            self._port.close()
            raise

    def _unsent(self) -> int:
        answer = fcntl.ioctl(self.fd, termios.TIOCOUTQ, bytes(4))
        return int(struct.unpack("i", answer)[0])


class _RemoteLine(_Line):
    """A port behind pyserial's URL handlers, which block: two threads carry bytes to a socket pair.

    Our end of the pair is the line: its buffers bound the data under way, and closing it, at any time, makes
    the threads close the port and end.
    """

    __slots__ = ("_ours", "_port", "_theirs", "error")

    def __init__(self, port: Serial, opened: Callable[[], object]) -> None:
        self._port = port
        self.error: Exception | None = None
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self.fd = self._ours.fileno()
        threading.Thread(
            target=self._run, args=(opened,), name=f"device-sdk {port.port}", daemon=True
        ).start()

    def close(self, drain: bool) -> None:
        """Close our end; the thread still writes the data in it."""
        self._ours.close()

    def _run(self, opened: Callable[[], object]) -> None:
        try:
            self._port.open()
        except Exception as error:  # the handlers pass on errors of socket and telnet
            self.error = error
            self._theirs.close()
            return
        finally:
            opened()
        writer = threading.Thread(target=self._carry, args=(self._theirs.recv, self._port.write), daemon=True)
        writer.start()
        self._carry(self._read, self._theirs.sendall)
        writer.join()
        self._theirs.close()
        # Not before: another file could get the number of the descriptor that this thread waits on.
        sock = self._socket()
        self._port.close()
        if sock is not None:
            sock.close()  # pyserial 3.5 forgets to, after a connection that was reset

    def _carry(self, source: Callable[[int], bytes], sink: Callable[[bytes], object]) -> None:
        """Copy until either side ends, then end both; that also wakes the other thread."""
        try:
            while data := source(READ_BYTES):
                sink(data)
        except Exception:  # closed under the reader, a handler may raise anything
            pass
        for end in (self._theirs, self._socket()):
            if end is not None:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _socket(self) -> socket.socket | None:
        return getattr(self._port, "_socket", None)

    def _read(self, size: int) -> bytes:
        """Wait for data; ``b""`` or an exception at the end."""
        if self._port.timeout == 0:
            poll = select.poll()
            poll.register(self._port.fileno(), select.POLLIN)
            poll.poll()
            return bytes(self._port.read(size))
        first = self._port.read(1)
        return bytes(first + self._port.read(self._port.in_waiting) if first else first)


def _open_remote(url: str, settings: dict[str, Any], attempt: StreamAttempt, deadline: float) -> _Line:
    """Open the port in a thread that can be abandoned. Raises: ConnectFailedError.

    If cancelled, it may return a line whose port is not open yet; closing that is enough.
    """
    if url.startswith("socket:"):
        # Its descriptor can be polled; the in_waiting of this handler is never more than 1.
        port = serial_for_url(url, do_not_open=True, timeout=0, write_timeout=REMOTE_WRITE_S)
    else:
        # The timeout in the URL is for the negotiation with the remote end, by default 3 s.
        seconds = max(deadline - time.monotonic(), 0.05)
        port = serial_for_url(f"{url}?timeout={seconds}", do_not_open=True, timeout=None, **settings)
    over = threading.Event()
    line = _RemoteLine(port, over.set)
    attempt.when_cancelled(over.set)
    in_time = over.wait(max(deadline - time.monotonic(), 0.0))
    if attempt.is_cancelled or (in_time and line.error is None):
        return line
    line.close(drain=False)
    raise ConnectFailedError(f"cannot open {url}: {line.error or 'timed out'}") from line.error


def _parse_settings(url: ParsedUrl) -> dict[str, Any]:
    """Return pyserial's settings for the options of the URL. Raises: ArgumentError."""
    known = _TAKES.get(url.scheme, set())
    for name in url.query:
        if name not in known:
            hint = did_you_mean(name, known)
            there_are = ", ".join(sorted(known)) or "none"
            raise ArgumentError("url", f"{name!r} is no option of {url.scheme}:{hint} There are: {there_are}")
    settings = {}
    for name in _OPTIONS:
        if name in known:
            key, default, values = _OPTIONS[name]
            settings[key] = _value(name, url.query[name], values) if name in url.query else default
    return settings


def _value(name: str, text: str, values: dict[str, Any]) -> Any:
    if name == "baud":
        return _number(name, text, _BAUD_RATES, "115200")
    if text not in values:
        allowed = ", ".join(values)
        raise ArgumentError(name, f"must be one of {allowed}; not {text!r}{_WHY_NOT.get(name, '')}")
    return values[text]


def _number(name: str, text: str, allowed: range, example: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) < 9 and int(text) in allowed:
        return int(text)
    raise ArgumentError(name, f"must be {allowed[0]}..{allowed[-1]}, such as {example}; not {text!r}")
