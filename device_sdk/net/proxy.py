"""TCP through a proxy: SOCKS4, SOCKS4a, SOCKS5, or HTTP CONNECT.

::

    open_transport("mqtts://broker.example", proxy="socks5://user:password@proxy.example:1080")

The layers above, such as TLS and WebSocket, are between us and the server: the proxy passes on bytes. The
HTTP request is made here, because PySocks reads only the first line of the answer and leaves the rest of
it in the stream; the SOCKS dialogues are PySocks's, see :mod:`device_sdk.net.socks`.
"""

from __future__ import annotations

import base64
import os
import re
import select
import socket

from device_sdk._load import load
from device_sdk.errors import ArgumentError, ArgumentTypeError, ConnectFailedError
from device_sdk.net.attempt import StreamAttempt
from device_sdk.net.base import ParsedUrl, parse_url
from device_sdk.net.challenges import challenges
from device_sdk.net.lookup import LookUpTimeout, look_up
from device_sdk.net.sockets import TCP_HINTS, SocketTransport
from device_sdk.net.tcp import TcpDialer, TcpTransport, check_url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Wait = Callable[[int], None]

__all__ = ["PROXY_PORTS", "ProxyRefusal", "ProxyTransport", "proxy_from_environment"]

# Scheme of a proxy -> its port if the URL names none. paho writes SOCKS5 as "socks" in mqtt_proxy.
PROXY_PORTS = {"http": 8080, "socks": 1080, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
_DID_YOU_MEAN = "device_sdk._text:did_you_mean"  # only for an error, see there
_ASK_SOCKS = "device_sdk.net.socks:ask_socks"
_RESOLVES_HERE = {"socks4"}  # the protocol has no names, only IPv4 addresses
_EXAMPLE = "write for example 'socks5://proxy.example:1080' or 'http://proxy.example:8080'"

_MAX_ANSWER_BYTES = 16 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: ([^\r\n]*))?\r\n")

# PySocks writes the lengths as UTF-8, which takes one byte only up to 127. (The protocol would allow 255.)
_MAX_SOCKS5_CREDENTIAL_BYTES = 127

_HELPER = (
    "run a helper for that on this machine, such as cntlm or px, and give proxy='http://127.0.0.1:3128', or "
    "ask for an account with Basic"
)
# HTTP status -> advice. Source: RFC 9110 §9.3.6, §15.
_HTTP_ADVICE = {
    403: "it does not allow this: ask for host and port to be permitted, or use port 443",
    404: "it does not know the broker, or is no proxy for CONNECT",
    405: "it is no proxy for CONNECT",
    501: "it is no proxy for CONNECT",
    407: "give it a user name and a password it knows: proxy='http://user:password@host:port'",
    502: "it cannot reach the broker: check the broker's host and port",
    503: "it cannot reach the broker: check the broker's host and port",
    504: "it cannot reach the broker: check the broker's host and port",
}


class ProxyRefusal(Exception):
    """A proxy refused: its answer, and advice. Does not leave :class:`ProxyTransport`."""

    def __init__(self, answer: str, advice: str, retry: str = "later") -> None:
        super().__init__(f"it answered {answer}; {advice}")
        self.retry = retry  # as in DeviceSdkError


class ProxyTransport(SocketTransport):
    """A TCP connection through a proxy.

    ``proxy``: its URL, ``scheme://[user:password@]host[:port]``. The scheme is ``http`` (CONNECT, with
    Basic authentication), ``socks4`` (an IPv4 address, looked up here), ``socks4a`` or ``socks5`` (the proxy
    looks the broker's name up; ``?rdns=0`` looks it up here). A direct connection is never tried.
    The other options are those of :class:`~device_sdk.net.tcp.TcpTransport`, for the connection to the
    proxy.

    Raises: ArgumentError: an option, by its name. MissingDependency: a SOCKS proxy needs the extra ``proxy``.
    Source: RFC 1928, RFC 1929, RFC 9110 §9.3.6; https://www.openssh.com/txt/socks4.protocol and socks4a.
    """

    options = ("proxy", *TcpTransport.options)
    hints = TCP_HINTS
    __slots__ = ("_dialer", "_place", "_proxy", "_url")

    def __init__(self, url: ParsedUrl, *, proxy: str, **options: Any) -> None:
        check_url(url)
        self._url = url
        self._dialer = TcpDialer(**options)
        self._proxy = _parse_proxy(proxy, url)
        self._place = f"{url.address} through {self._proxy.scheme}://{self._proxy.address}"
        super().__init__(f"tcp {self._place}")

    def connect_socket(self, attempt: StreamAttempt, deadline: float) -> socket.socket:
        """Connect to the proxy and have it connect to the host."""
        try:
            sock = self._dialer.dial(self._proxy.host, self._proxy.port, attempt, deadline)
        except ConnectFailedError as error:
            raise ConnectFailedError(f"cannot reach {self._place}: {error}") from error

        descriptor = sock.fileno()  # stays the same when another object takes the socket over

        def wait(events: int) -> None:
            if code := attempt.wait(descriptor, events, deadline):
                raise OSError(code, os.strerror(code).lower())

        try:
            if self._proxy.scheme == "http":
                _ask_http(sock, wait, self._url, self._proxy)
                return sock
            url = self._url if self._proxy.query["rdns"] == "1" else _looked_up(self._url, attempt, deadline)
            tunnel: socket.socket = load(_ASK_SOCKS)(sock, wait, url, self._proxy)
            return tunnel
        except (OSError, UnicodeError, LookUpTimeout, ProxyRefusal) as error:
            sock.close()
            attempt.check()
            failure = ConnectFailedError(f"cannot connect to {self._place}: {_in_words(error)}")
            failure.retry = getattr(error, "retry", failure.retry)
            raise failure from error
        except BaseException:
            sock.close()
            raise


def proxy_from_environment(address: str) -> str | None:
    """Return the proxy that the environment names for ``host:port``, or ``None``, as paho-mqtt does.

    The variable is ``mqtt_proxy``, or ``MQTT_PROXY`` if that is not set, for every transport above;
    ``http_proxy``, ``https_proxy`` and ``all_proxy`` are not read. ``no_proxy`` (``NO_PROXY``) lists hosts to
    reach directly: names with all their subdomains, addresses as written, each with or without a port, or
    ``*`` for all.
    """
    get = os.environ.get
    proxy, exempt = (get(name, get(name.upper(), "")) for name in ("mqtt_proxy", "no_proxy"))
    host = address.rpartition(":")[0].strip("[]").lower()
    for item in exempt.lower().split(","):
        name = item.strip().lstrip(".")
        if name == "*" or any(f".{place}".endswith(f".{name}") for place in (host, address.lower()) if name):
            return None
    return proxy or None


def _parse_proxy(text: str, url: ParsedUrl) -> ParsedUrl:
    """Raises: ArgumentError for ``proxy``, which may also be the text of a variable."""
    if not isinstance(text, str):
        raise ArgumentTypeError("proxy", f"must be a str, not {type(text).__name__}; {_EXAMPLE}")
    try:
        proxy = parse_url(text)
    except ArgumentError as error:
        problem = str(error).removeprefix("url: ").partition("; write for")[0]
        raise ArgumentError("proxy", f"{problem}; {_EXAMPLE} (as an option or in mqtt_proxy)") from None
    problem = ""
    if proxy.scheme not in PROXY_PORTS:
        hint = load(_DID_YOU_MEAN)(proxy.scheme, PROXY_PORTS)
        problem = f"is not one of the kinds {', '.join(sorted(PROXY_PORTS))}{hint}"
    elif not proxy.host or proxy.path not in ("", "/") or not set(proxy.query) <= {"rdns"}:
        problem = "must be scheme://[user:password@]host[:port][?rdns=0]"
    elif proxy.query.get("rdns", "1") not in ("0", "1") or (proxy.query and proxy.scheme == "http"):
        problem = "takes ?rdns=0 or ?rdns=1, and only for SOCKS"
    elif proxy.scheme.startswith("socks4") and ":" in url.host:
        problem = f"is a SOCKS4 proxy, which cannot reach the IPv6 address {url.host}: use SOCKS5"
    elif proxy.scheme == "http" and ":" in (proxy.user_name or ""):
        problem = "has a user name with ':', which HTTP Basic authentication cannot express"
    elif proxy.scheme in ("socks", "socks5", "socks5h") and proxy.user_name is not None:
        sizes = [len((text or "").encode()) for text in (proxy.user_name, proxy.password)]
        if not all(1 <= size <= _MAX_SOCKS5_CREDENTIAL_BYTES for size in sizes):
            problem = f"needs a user name and a password of 1..{_MAX_SOCKS5_CREDENTIAL_BYTES} bytes each"
    if problem:
        raise ArgumentError("proxy", f"{proxy.scheme}://{proxy.address} {problem}; {_EXAMPLE}")
    remote = "0" if proxy.scheme in _RESOLVES_HERE else proxy.query.get("rdns", "1")
    port = proxy.port or PROXY_PORTS[proxy.scheme]
    if proxy.scheme != "http":
        load(_ASK_SOCKS)  # raise for a missing extra now, not in every attempt
    return ParsedUrl(proxy.scheme, proxy.host, port, "", {"rdns": remote}, proxy.user_name, proxy.password)


def _ask_http(sock: socket.socket, wait: Wait, url: ParsedUrl, proxy: ParsedUrl) -> None:
    """Send CONNECT and read the answer, not a byte more. Raises: OSError, ProxyRefusal."""
    host = url.host if url.host.isascii() else url.host.encode("idna").decode("ascii")
    place = ParsedUrl("", host, url.port).address
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    if proxy.user_name is not None:
        secret = base64.b64encode(f"{proxy.user_name}:{proxy.password or ''}".encode()).decode("ascii")
        lines.append(f"Proxy-Authorization: Basic {secret}")
    request = "\r\n".join([*lines, "", ""]).encode("ascii")
    while request:
        wait(select.POLLOUT)
        request = request[sock.send(request) :]
    answer = b""
    while b"\r\n\r\n" not in answer:
        wait(select.POLLIN)
        # Bytes behind the empty line are the server's: peek, and leave them there.
        news = sock.recv(_MAX_ANSWER_BYTES, socket.MSG_PEEK)
        end = (answer + news).find(b"\r\n\r\n")
        answer += sock.recv(len(news) if end < 0 else end + 4 - len(answer))
        if not news or len(answer) > _MAX_ANSWER_BYTES:
            break
    _judge_http(answer, proxy)


def _judge_http(answer: bytes, proxy: ParsedUrl) -> None:
    """Raises: ProxyRefusal: the answer is not 2xx."""
    found = _STATUS_LINE.match(answer)
    if found is None or not answer.endswith(b"\r\n\r\n"):
        start = answer[:40] + b"..." * (len(answer) > 40)
        what = f"{start!r}" if answer else "nothing and closed the connection"
        raise ProxyRefusal(what, "this is not how an HTTP proxy answers: check its kind, host and port")
    status, reason = int(found[1]), (found[2] or b"").decode("latin-1")
    if not 200 <= status < 300:
        advice = _HTTP_ADVICE.get(
            status, "check that it is a proxy for CONNECT and allows this host and port"
        )
        wanted = challenges(answer, b"Proxy-Authenticate") if status == 407 else []
        if wanted and "basic" not in [scheme.lower() for scheme in wanted]:
            advice = f"it wants {' or '.join(wanted)}, and this client speaks only Basic: {_HELPER}"
        elif status == 407 and proxy.user_name is not None:
            advice = "it does not accept this user name and password"
        raise ProxyRefusal(f"{status} {reason}".rstrip(), advice, retry="later" if status >= 500 else "never")


def _looked_up(url: ParsedUrl, attempt: StreamAttempt, deadline: float) -> ParsedUrl:
    """Return the URL with an IPv4 address for its name: SOCKS4 has no other. PySocks would wait for ever."""
    name = url.host.encode("ascii" if url.host.isascii() else "idna")
    if ":" in url.host:
        return url
    _, _, _, _, address = look_up(name, url.port, socket.AF_INET, attempt, deadline)[0]
    return ParsedUrl(url.scheme, str(address[0]), url.port)


def _in_words(error: Exception) -> str:
    if isinstance(error, LookUpTimeout):
        return f"the look-up of the broker's name has not ended after {error}: see /etc/resolv.conf"
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return f"no address for the broker's name: {error}"
    if isinstance(error, OSError):
        return f"waiting for the proxy's answer: {error.strerror or error}"
    return str(error)
