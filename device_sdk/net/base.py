"""The byte stream contract, and the way from a URL to a stream.

::

    transport = open_transport("mqtt://broker.example")
    transport.open(time.monotonic() + 10)      # may block; the other calls never do
    transport.send(b"...")
    transport.recv()
    transport.close()                          # and open() again for the next attempt

A new kind of stream is a subclass of :class:`Transport` in a module of its own and one line in
:data:`TRANSPORTS`, or an entry point of the group ``device_sdk.transports`` in another distribution. It
publishes the names of its options (:attr:`Transport.options`) and receives no others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from device_sdk._load import load
from device_sdk.errors import ArgumentError, ArgumentTypeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, NoReturn, TypeVar

    Maker = TypeVar("Maker", bound=Callable[..., Any])

__all__ = ["DEFAULT_PORTS", "TRANSPORTS", "ParsedUrl", "Transport", "bytes_held", "open_transport",
           "parse_url", "takes", "transport_options"]  # fmt: skip

# Scheme -> "module:callable", called with the ParsedUrl and the options of open_transport().
TRANSPORTS = {
    "memory": "device_sdk.net.memory:MemoryTransport",
    "mqtt": "device_sdk.net.stack:tcp_stream",
    "mqtt+srv": "device_sdk.net.srv:SrvTransport",
    "mqtts": "device_sdk.net.tls:tls_stream",
    "mqtts+srv": "device_sdk.net.srv:SrvTransport",
    "rfc2217": "device_sdk.net.serial:serial_stream",
    "serial": "device_sdk.net.serial:serial_stream",
    "socket": "device_sdk.net.serial:serial_stream",
    "tcp": "device_sdk.net.stack:tcp_stream",
    "unix": "device_sdk.net.unix:UnixTransport",
    "ws": "device_sdk.net.websocket:WebSocketTransport",
    "wss": "device_sdk.net.websocket:WebSocketTransport",
}
# These put TLS at the right place of their stack themselves; any other stream gets the layer on top.
TAKES_TLS = {"mqtts", "mqtts+srv", "ws", "wss"}
TLS_LAYER = "device_sdk.net.tls:TlsTransport"
ENTRY_POINT_GROUP = "device_sdk.transports"

# Schemes that lead to a host, and its port when the URL names none.
DEFAULT_PORTS = {"mqtt": 1883, "tcp": 1883, "mqtts": 8883, "ws": 80, "wss": 443}

_EXAMPLE = "mqtt://broker.example:1883"
_SCHEME_HINT = "device_sdk._words:scheme_hint"  # only for an error, see there


class Transport(ABC):
    """One byte stream to one place: non-blocking once open, reopened for each attempt.

    The life of the object is ``open() -> send(), recv() ... -> close() -> open() ...``; state that is worth
    keeping between attempts, such as a TLS session, stays in it. One thread at a time, the owner, calls
    everything here, with two exceptions: ``open()`` may run in a thread of its own while the owner waits,
    and ``abort()`` may be called from any thread at any time.

    An owner polls :meth:`fileno` for reading, and for writing only while :meth:`wants_write` is true. When
    the descriptor is ready or the deadline has come, it calls :meth:`recv`, :meth:`flush` or
    :meth:`handle_deadline`; after any of them it reads once more and offers its pending output again,
    because any of them may have made progress possible.
    """

    __slots__ = ()

    description: str
    """Kind and address, for logs and errors, without secrets: ``"tcp broker.example:1883"``."""

    options: ClassVar[tuple[str, ...]]
    """The keyword arguments of the class that an application may give, without ``tls``: ``("bind", ...)``.

    One of them comes from the client, not from the application: ``largest_packet``, the bytes of the largest
    MQTT packet that the client accepts, for a stream that has a bound of its own. For a class that publishes
    nothing its signature counts; see :func:`transport_options`.
    """

    hints: ClassVar[tuple[str, str]] = ("a broker that does not let us in does that (its log says why)", "")
    """For error texts: what may be wrong when the peer ends the stream before its first answer, and when it
    stays silent; empty if there is nothing to say."""

    @abstractmethod
    def open(self, deadline: float) -> None:
        """Establish the stream by ``deadline``, in seconds of :func:`time.monotonic`.

        May block: a name look-up, a handshake, a modem that attaches. It cannot always be interrupted
        (a stream of somebody else), so a caller that must not wait runs it in a daemon thread and abandons
        that after ``abort()`` and ``close()``: the abandoned call then raises, keeps nothing open and
        does not disturb a later ``open()`` of the same object.

        Raises: ConnectFailedError: no stream in time; the text names every address tried.
        TransportClosedError: :meth:`abort` or :meth:`close` ended this call, or ``abort()`` was called
        before it. TransportError: it is open already.
        """

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor to poll; it stays the same from ``open()`` to ``close()``.

        Level-triggered: readable while :meth:`recv` has something to return or raise. Raises:
        TransportClosedError: not open.
        """

    @abstractmethod
    def recv(self) -> bytes | None:
        """Return the bytes that have arrived, ``None`` if there are none, ``b""`` if the peer has closed.

        One read of the stream below per call, so the size is bounded. While readable data is kept inside,
        the descriptor stays readable. ``None`` can also mean that the data was internal to the stream.

        Raises: TransportClosedError: reset, aborted, or not open.
        """

    @abstractmethod
    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Take bytes from the front of ``data`` and return how many: possibly 0, possibly all.

        The stream owns the bytes it took. After a partial send the rest of *that* data must come next,
        unchanged: the stream may have framed it already.

        Raises: TransportClosedError: reset, aborted, closed by the peer, or not open. Data that the peer sent
        before may still be read with :meth:`recv`.
        """

    def wants_write(self) -> bool:
        """Whether to poll for writing: only if a writable descriptor allows progress.

        True after a ``send()`` that the kernel cut short, or with output inside that :meth:`flush` can
        pass on. Never true while the stream waits for something else, such as a modem's prompt or room
        in an in-process buffer: the descriptor becomes readable then.
        """
        return False

    def flush(self) -> None:  # noqa: B027 - most streams hold nothing back
        """Pass on output held inside. Call it when the descriptor is writable. Never blocks.

        Raises: TransportClosedError.
        """

    def next_deadline(self) -> float | None:
        """Return when to call :meth:`handle_deadline`, in monotonic seconds, or ``None``."""
        return None

    def handle_deadline(self, now: float) -> None:  # noqa: B027 - most streams have no timers
        """Do the work due at ``now`` (monotonic seconds): a retry, a guard time. Never blocks.

        Raises: TransportClosedError: the stream is dead, for example a modem that stopped answering.
        """

    @abstractmethod
    def abort(self) -> None:
        """End the stream now. From any thread, at any time, any number of times; never blocks or raises.

        A blocked ``open()`` raises soon, the descriptor becomes readable, ``recv()`` and ``send()``
        raise, and the peer sees the end of the stream. The abort holds until ``close()``: if no ``open()``
        is in progress, the next one raises at once, so an abort that is a moment early is not lost. An
        owner that can be stopped needs a flag of its own besides, to be checked after ``close()``.
        """

    @abstractmethod
    def close(self) -> None:
        """Release everything and forget an ``abort()``. Owner thread only, idempotent, never blocks.

        Afterwards ``open()`` may be called again. Unsent output is lost; the owner drains it first if it
        matters.
        """


def bytes_held(transport: Transport, *, unconfirmed: bool) -> int:
    """Return how many bytes that ``send()`` took are still on this host; 0 if that is not known.

    They were not sent yet; with ``unconfirmed`` also those count that were sent and whose arrival at the
    peer's host is not confirmed. For the owner, until ``close()``, also when the stream has ended. The lowest
    stream of a stack answers, if it has a method ``bytes_held(unconfirmed=)``; one whose end may be that of
    a link and not of the peer answers 1.
    """
    lowest: Any = transport
    while (below := getattr(lowest, "inner", None)) is not None:
        lowest = below
    ask = getattr(lowest, "bytes_held", None)
    return 0 if ask is None else ask(unconfirmed=unconfirmed)


class ParsedUrl:
    """The parts of a URL.

    ``scheme`` lower case; ``host`` as written, without the brackets of an IPv6 address, ``""`` if none;
    ``port`` 1..65535, or 0 for a scheme that has no ports; ``path`` as written, with its percent-encoding;
    ``query``, ``user_name`` and ``password`` decoded, the last two ``None`` if absent.
    """

    __slots__ = ("host", "password", "path", "port", "query", "scheme", "user_name")

    def __init__(
        self,
        scheme: str,
        host: str,
        port: int = 0,
        path: str = "",
        query: dict[str, str] | None = None,
        user_name: str | None = None,
        password: str | None = None,
    ) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.path = path
        self.query = query or {}
        self.user_name = user_name
        self.password = password

    @property
    def address(self) -> str:
        """Host and port as written in a URL: ``broker.example:1883``, ``[::1]:1883``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else host

    def __repr__(self) -> str:
        secret = "" if self.password is None else ":***"
        user = "" if self.user_name is None else f"{self.user_name}{secret}@"
        query = "&".join(f"{name}={value}" for name, value in self.query.items())
        text = f"{self.scheme}://{user}{self.address}{self.path}{'?' if query else ''}{query}"
        return f"ParsedUrl({text!r})"


def parse_url(url: str) -> ParsedUrl:
    """Split ``scheme://[user_name[:password]@]host[:port][/path][?name=value&...]`` into its parts.

    Without a host the ``//`` may be left out: ``serial:/dev/ttyUSB0``, ``unix:@name``.

    Written here because importing :mod:`urllib.parse` costs more than the rest of this package's
    transports. An IPv6 address stands in brackets, its zone after ``%25``. Source: RFC 3986, RFC 6874.

    Raises: ArgumentTypeError: not a str. ArgumentError: not such a URL; the text never shows the password.
    """
    if not isinstance(url, str):
        raise ArgumentTypeError("url", f"must be a str such as {_EXAMPLE!r}, not {type(url).__name__}")
    if not url.isprintable() or " " in url:
        _reject(url, "contains white space or a control character; percent-encode it, a space is %20")
    scheme, separator, rest = url.partition(":")
    if not separator or not rest.startswith(("/", "@")):
        _reject(url, f"has no scheme; write {_with_scheme(url)!r}")
    scheme = scheme.lower()
    if not (scheme[:1].isalpha() and scheme.isascii() and scheme.translate(_WITHOUT_PUNCTUATION).isalnum()):
        _reject(url, f"does not start with a scheme; write for example {_EXAMPLE!r}")
    if "#" in rest:
        _reject(url, "contains '#', which has no meaning here; inside a value it is written %23")
    rest, _, query = rest.partition("?")
    authority, slash, path = rest[2:].partition("/") if rest.startswith("//") else ("", "", rest)
    user_info, at, host_port = authority.rpartition("@")
    user_name, colon, password = user_info.partition(":")
    host, port = _host_and_port(url, host_port)
    if scheme in DEFAULT_PORTS and not host:
        _reject(url, f"names no host; write for example '{scheme}://broker.example'")
    return ParsedUrl(
        scheme,
        host,
        port or DEFAULT_PORTS.get(scheme, 0),
        slash + path,
        _parse_query(url, query),
        _percent_decoded(url, user_name) if at else None,
        _percent_decoded(url, password) if colon else None,
    )


# RFC 3986 §3.1: a scheme is a letter, then letters, digits and these.
_WITHOUT_PUNCTUATION = str.maketrans("", "", "+-.")
# Host names in practice hold letters (of any language), digits and these.
_HOST_PUNCTUATION = str.maketrans("", "", "-._~")
_IPV6_CHARACTERS = frozenset("0123456789abcdefABCDEF:.")


def _reject(url: str, problem: str) -> NoReturn:
    """Raise for ``url``, without showing anything that may be a user name or a password."""
    secret, at, public = url.rpartition("@")
    scheme, separator, _ = secret.partition("://")
    shown = f"{scheme if separator else ''}{separator}***@{public}" if at else url
    raise ArgumentError("url", f"{shown!r} {problem}")


def _with_scheme(text: str) -> str:
    """Return the URL that a text without a scheme may mean, or an example."""
    if text.startswith("/"):
        return f"serial://{text}" if text.startswith("/dev/") else f"unix:{text}"
    scheme, _, rest = text.partition(":")
    if scheme.lower() in TRANSPORTS and rest:
        return f"{scheme}://{rest}"
    host, _, port = text.rpartition(":") if text.count(":") == 1 else (text, "", "")
    if text.count(":") > 1 and _IPV6_CHARACTERS.issuperset(text):
        return f"mqtt://[{text}]"
    if "@" in text or not (host or text).translate(_HOST_PUNCTUATION).isalnum():
        return _EXAMPLE  # it may hold a password
    return f"{'mqtts' if port == '8883' else 'mqtt'}://{text}"


def _host_and_port(url: str, text: str) -> tuple[str, int]:
    """Split ``host[:port]``; the port is 0 when there is none."""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        address, percent, zone = host.partition("%25")
        if not bracket or address.count(":") < 2 or not _IPV6_CHARACTERS.issuperset(address):
            _reject(url, "has a malformed IPv6 address in brackets; write for example 'mqtt://[::1]:1883'")
        host = f"{address}%{zone}" if percent else address
        if port and not port.startswith(":"):
            _reject(url, f"has text between ']' and the port; write for example 'mqtt://[{address}]:1883'")
        colon, port = port[:1], port[1:]
    else:
        host, colon, port = text.partition(":")
        if ":" in port:
            _reject(url, "has more than one ':' after the host; an IPv6 address stands in brackets: [::1]")
        if not (host.translate(_HOST_PUNCTUATION).isalnum() or not host):
            _reject(url, f"has a host name with a character that no host name has; example {_EXAMPLE!r}")
    if not colon:
        return host, 0
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65535):
        hint = "; in a user name or password '/', '?' and '@' are written %2F, %3F and %40" * ("@" in url)
        _reject(url, f"has a port that is not a number 1..65535; write for example {_EXAMPLE!r}{hint}")
    return host, int(port)


def _parse_query(url: str, query: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for item in query.split("&") if query else ():
        name, _, value = item.partition("=")
        name = _percent_decoded(url, name)
        if not name or name in values:
            _reject(url, f"has a query with {f'{name!r} twice' if name else 'a nameless value'}")
        values[name] = _percent_decoded(url, value)
    return values


def _percent_decoded(url: str, text: str) -> str:
    """Decode ``%41`` and the like as UTF-8. Source: RFC 3986 §2.1."""
    if "%" not in text:
        return text
    first, *others = text.encode().split(b"%")
    try:
        # Indexing, not slicing: a lone digit at the end must not pass.
        decoded = [bytes((int(chr(part[0]) + chr(part[1]), 16),)) + part[2:] for part in others]
        return (first + b"".join(decoded)).decode()
    except (IndexError, ValueError):
        _reject(url, "has a '%' that is not followed by two hexadecimal digits of UTF-8; '%' itself is %25")


def open_transport(url: str | ParsedUrl, **options: Any) -> Transport:
    """Return the transport for the URL's scheme, not opened yet.

    ``options`` go to its class, for example :class:`device_sdk.net.tcp.TcpTransport`. One option works with
    every scheme: ``tls``, a :class:`~device_sdk.net.tls.TLSOptions`, encrypts any stream; ``mqtts:`` and
    ``wss:`` are encrypted without it.

    Raises: ArgumentError: the URL is malformed, its scheme is unknown (the text lists the known ones), or
    its transport does not use some part of it. MissingDependency: a package is not installed.
    """
    parsed = url if isinstance(url, ParsedUrl) else parse_url(url)
    make = _maker(parsed.scheme)
    tls = None if parsed.scheme in TAKES_TLS else options.pop("tls", None)
    transport: Transport = make(parsed, **options)
    if tls is not None:
        secured: Transport = load(TLS_LAYER)(transport, tls, parsed.host)
        return secured
    return transport


def transport_options(url: ParsedUrl) -> frozenset[str] | None:
    """Return the names of the options that the transport of a URL takes, besides ``tls``.

    Its class, or the function that makes it, publishes them as ``options``. Without that they are the
    parameters behind the URL in the signature, or ``None`` (unknown) if that has ``**options``.

    Raises: ArgumentError: no transport has its scheme. MissingDependency.
    """
    make = _maker(url.scheme)
    published = getattr(make, "__dict__", {}).get("options")
    if published is not None:
        return frozenset(published)
    # This takes milliseconds: only for third-party transports that publish nothing.
    _, *parameters = load("inspect:signature")(make).parameters.values()
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return None
    return frozenset(each.name for each in parameters if each.kind is not each.VAR_POSITIONAL)


def takes(*options: str) -> Callable[[Maker], Maker]:
    """Decorate a function that makes a transport: publish the names of the options that it takes."""

    def publish(make: Maker) -> Maker:
        vars(make)["options"] = options
        return make

    return publish


def _maker(scheme: str) -> Any:
    """Return the callable that makes the transport from a URL and options."""
    where = TRANSPORTS.get(scheme)
    return _from_entry_points(scheme) if where is None else load(where)


def _from_entry_points(scheme: str) -> Any:
    # Reading the installed distributions takes milliseconds: only for a scheme that is not ours.
    entry_points = load("importlib.metadata:entry_points")
    found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if scheme not in found:
        known = sorted({*TRANSPORTS, *found})
        problem = f"no transport for {scheme!r} is installed{load(_SCHEME_HINT)(scheme, known)}"
        raise ArgumentError("url", f"{problem}; there are: {', '.join(known)}")
    return found[scheme].load()
