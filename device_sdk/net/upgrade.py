"""The HTTP upgrade that begins a WebSocket: the request, and the check of the answer. Source: RFC 6455 §4."""

from __future__ import annotations

import logging
import re
from urllib.parse import quote, unquote

from device_sdk._peers import recognise
from device_sdk._printable import printable
from device_sdk.errors import (
    ArgumentError,
    ArgumentTypeError,
    ConnectFailedError,
    MissingDependency,
    TransportClosedError,
)
from device_sdk.net.base import parse_url
from device_sdk.net.challenges import challenges

try:
    from websockets.client import ClientProtocol
    from websockets.uri import WebSocketURI
except ImportError as error:
    raise MissingDependency("WebSocket", "websockets") from error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from websockets.http11 import Request

    from device_sdk.net.base import ParsedUrl
    from device_sdk.net.layer import Link

    Target = Callable[[], str]

    Headers = Mapping[str, str] | Callable[[dict[str, str]], Mapping[str, str]]

__all__ = ["DEFAULT_PATH", "Upgrade", "line_of"]

DEFAULT_PATH = "/mqtt"

_MAX_ANSWER_BYTES = 16 * 1024
_QUOTED_BODY_CHARACTERS = 200
_STATUS_LINE = re.compile(rb"HTTP/\d\.\d (\d{3})(?: ([^\r\n]*))?\r\n")
_LENGTH = re.compile(rb"\r\nContent-Length:[ \t]*(\d{1,9})[ \t]*\r\n", re.IGNORECASE)
_LOCATION = re.compile(rb"\r\nLocation:[ \t]*([^\r\n]*)", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9a-zA-Z]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
_TOKEN = _HEADER_NAME
# What a request line and a URL may have, without the fragment. Source: RFC 3986 §2, RFC 9112 §3.2.
_TARGET = re.compile(r"[!\x22$-~]+")
_SECRET_CHARACTERS = 8  # a part of the query that is shorter keeps no secret

# Headers of the handshake itself: another value would only break it.
_OURS = {"upgrade", "connection", "sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions"}

# HTTP status -> advice.
_ADVICE = {
    200: "an ordinary web server answers there; check port and path, MQTT brokers mostly use /mqtt or /ws",
    400: "check that the port is the broker's WebSocket port, and the path",
    401: "give it what it asks for in the option headers=, such as Authorization",
    403: "check the credentials in headers= or in the URL, and whether it wants another Origin",
    404: "check the path: MQTT brokers mostly use /mqtt or /ws",
    426: "this port speaks HTTP, but not this kind of WebSocket; check the port",
}
_REDIRECTS = range(300, 400)
_TOO_MANY_REQUESTS = 429

# At DEBUG `websockets` would log headers, and with them tokens.
_SILENT = logging.Logger("device_sdk.net.websocket.frames", logging.CRITICAL + 1)


class Upgrade:
    """The request for a WebSocket. The options are those of
    :class:`~device_sdk.net.websocket.WebSocketTransport`.

    ``uri`` and ``max_message_size``, in bytes, are those of the request.

    Raises: ArgumentError: an option, by its name.
    """

    __slots__ = (
        "_headers", "_origin", "_place", "_subprotocol", "_target", "_url", "max_message_size", "uri"
    )  # fmt: skip

    def __init__(
        self,
        url: ParsedUrl,
        *,
        headers: Headers | None,
        target: Target | None,
        origin: str | None,
        subprotocol: str,
        max_message_size: int,
    ) -> None:
        if not (target is None or callable(target)):
            raise ArgumentTypeError("target", "must be a callable that returns a path and query, or a URL")
        if not callable(headers):
            headers = _checked_headers({} if headers is None else headers)
        if origin is not None:
            _checked_headers({"Origin": origin}, "origin")
        if not (isinstance(subprotocol, str) and _TOKEN.fullmatch(subprotocol)):
            raise ArgumentError("subprotocol", f"must be a name such as 'mqtt', not {subprotocol!r}")
        self.uri = _uri_of(url)
        self.max_message_size = max_message_size
        self._url = url
        self._target = target
        self._place = f"{url.scheme} {url.address}{self.uri.path if target is None else ''}"
        self._headers = headers
        self._origin = origin
        self._subprotocol = subprotocol

    def run(self, link: Link) -> ClientProtocol:
        """Request the upgrade and check the answer. Source: RFC 6455 §4.1, §4.2."""
        if self._target is not None:
            self.uri = self._asked(self._target)
        protocol: Any = ClientProtocol(
            self.uri, origin=self._origin, subprotocols=[self._subprotocol],  # type: ignore[arg-type, list-item]
            max_size=self.max_message_size, logger=_SILENT,
        )  # fmt: skip
        request = protocol.connect()
        self._add_headers(request)
        link.send_all(request.serialize())
        head, rest = self.read_head(link)
        status = _STATUS_LINE.match(head)
        if status is None:
            raise self._failure(f"answers {head[:40]!r}, which is not HTTP; {self._instead(head)}")
        if status[1] != b"101":
            raise self._refusal(int(status[1]), status[2] or b"", head, self._read_body(link, head, rest))
        protocol.receive_data(head)
        if protocol.handshake_exc is not None:
            problem = protocol.handshake_exc
            raise self._failure(f"answers 101, but not as a WebSocket server: {problem.__cause__ or problem}")
        if protocol.subprotocol is None:
            failure = self._failure(
                f"did not choose the subprotocol {self._subprotocol!r}, so it does not speak MQTT there "
                "[MQTT-6.0.0-4]; check port and path"
            )
            failure.retry = "never"
            raise failure
        protocol.events_received()
        link.unread(rest)
        return protocol  # type: ignore[no-any-return]

    def _asked(self, target: Target) -> WebSocketURI:
        """Return the URI of this attempt. Its path and query may be secret: no text shows them."""
        try:
            found = target()
        except Exception as error:
            raise self._failure(f"was not asked: target() raised {error!r}", "") from error
        if not isinstance(found, str):
            raise self._failure(f"was not asked: target() returned a {type(found).__name__}, not a str", "")
        whole = found if found.startswith("/") else self._path_of(found)
        if not _TARGET.fullmatch(whole):
            problem = "target() returned a path or query with a character that has to be percent-encoded"
            raise self._failure(f"was not asked: {problem}", "")
        path, _, query = whole.partition("?")
        return WebSocketURI(self.uri.secure, self.uri.host, self.uri.port, path, query)

    def _path_of(self, url: str) -> str:
        """Return path and query of a URL as they are written, if it leads to this server."""
        scheme, _, rest = url.partition("://")
        place, slash, path = rest.partition("/")
        where = f"{self._url.scheme}://{self._url.address}"
        try:
            other = parse_url(f"{scheme}://{place}")
            leads_here = f"{other.scheme}://{other.address}".lower() == where.lower()
        except ArgumentError:
            leads_here = False
        if not (leads_here and slash):
            problem = f"target() returned neither a path nor a URL that begins with {where}/"
            raise self._failure(f"was not asked: {problem}", "")
        return slash + path

    def _add_headers(self, request: Request) -> None:
        headers: Any = self._headers
        if callable(headers):
            try:
                headers = _checked_headers(headers(dict(request.headers.raw_items())), ours=request.headers)
            except Exception as error:
                raise self._failure(f"was not asked: headers() raised {error!r}", "") from error
        for name, value in headers.items():
            if name in request.headers:
                del request.headers[name]  # setting alone would add a second one
            request.headers[name] = value

    def read_head(self, link: Link) -> tuple[bytes, bytes]:
        """Return the answer's status line and headers, and the bytes behind them."""
        answer = b""
        while (end := answer.find(b"\r\n\r\n") + 4) < 4:
            if len(answer) > _MAX_ANSWER_BYTES:
                raise self._failure(f"answers with more than {_MAX_ANSWER_BYTES} bytes of HTTP headers")
            try:
                data = link.recv()
            except TransportClosedError as error:
                failure = self._failure(f"broke the connection: {error}; {self._instead(answer)}")
                failure.retry = error.retry
                raise failure from error
            except ConnectFailedError as error:  # out of time
                if not answer:
                    raise
                problem = f"answered {answer[:40]!r} and nothing more in time; {self._instead(answer)}"
                raise self._failure(problem) from error
            if not data:
                what = f"after {answer[:40]!r}" if answer else "without an answer"
                raise self._failure(f"closed the connection {what}; {self._instead(answer)}")
            answer += data
        return answer[:end], answer[end:]

    def _read_body(self, link: Link, head: bytes, body: bytes) -> bytes:
        """Return the beginning of a refusal's body, as far as it arrives in time."""
        length = _LENGTH.search(head)
        wanted = min(int(length[1]) if length else _MAX_ANSWER_BYTES, _MAX_ANSWER_BYTES)
        try:
            while len(body) < wanted and (data := link.recv()):
                body += data
        except (ConnectFailedError, TransportClosedError):
            pass  # out of time, or reset: the status is worth more than the rest of the body
        return body

    def _refusal(self, status: int, reason: bytes, head: bytes, body: bytes) -> ConnectFailedError:
        answer = f"{status} {self._masked(line_of(reason))}".rstrip()
        if text := self._masked(line_of(body))[:_QUOTED_BODY_CHARACTERS]:
            answer += f": '{text}'"
        advice = _ADVICE.get(status, "see what the server's log says")
        if status in _REDIRECTS:
            target = _LOCATION.search(head)
            where = (
                self._masked(line_of(target[1]))[:_QUOTED_BODY_CHARACTERS]
                if target
                else "a place it does not name"
            )
            advice = f"it points to {where}; redirects are not followed, so write the right URL"
        wanted = challenges(head, b"WWW-Authenticate")
        asks = f"; it asks for {' or '.join(wanted)}" if wanted else ""
        failure = self._failure(f"answers {answer}; {advice}{asks}")
        # The next token of a callable may be a better one.
        changes = status >= 500 or status == _TOO_MANY_REQUESTS or callable(self._headers) or self._target
        failure.retry = "later" if changes else "never"
        return failure

    def _masked(self, text: str) -> str:
        """Return a text of the server without what it repeats of our query: that may hold a secret."""
        for part in re.split("[&=]", self.uri.query or ""):
            for secret in (part, unquote(part)):
                if len(secret) >= _SECRET_CHARACTERS:
                    text = text.replace(secret, "***")
        return text

    def _instead(self, answer: bytes) -> str:
        """Return what answers instead of a WebSocket server, if that is known, and what to do."""
        known = "" if answer.startswith(b"HTTP") else recognise(answer)
        plain = ", and whether it wants TLS (then write wss://)" if not (self.uri.secure or answer) else ""
        return known or f"check scheme, port and path{plain}"

    def _failure(self, problem: str, who: str = "the server ") -> ConnectFailedError:
        return ConnectFailedError(f"cannot open {self._place}: {who}{problem}")


def _uri_of(url: ParsedUrl) -> WebSocketURI:
    """Return the URI for the request line and the header Host; a zone is local and left out."""
    path = quote(url.path or DEFAULT_PATH, safe="/%:@!$&'()*+,;=~")
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in url.query.items())
    host = url.host if url.host.isascii() else url.host.encode("idna").decode("ascii")
    return WebSocketURI(url.scheme == "wss", host.partition("%")[0], url.port, path, query)


def _checked_headers(
    headers: Mapping[str, str], argument: str = "headers", ours: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the headers as a dict. Raises: ArgumentError: a name or value that HTTP does not allow.

    ``ours``: headers of the request, which a callable may return unchanged.
    """
    if not hasattr(headers, "items"):
        problem = f"must be a mapping or a callable that returns one, not {type(headers).__name__}"
        raise ArgumentTypeError(argument, problem)
    for name, value in headers.items():
        if not (isinstance(name, str) and _HEADER_NAME.fullmatch(name)):
            raise ArgumentError(argument, f"{name!r} is not the name of an HTTP header")
        if not (isinstance(value, str) and _HEADER_VALUE.fullmatch(value)):
            raise ArgumentError(argument, f"the value of {name} must be a str of printable ASCII characters")
        if name.lower() in _OURS and (ours is None or ours.get(name) != value):
            raise ArgumentError(argument, f"{name} belongs to the handshake and cannot be changed")
    return dict(headers)


def line_of(data: bytes) -> str:
    """Return a peer's text in one line, safe to show."""
    return printable(" ".join(data.decode("utf-8", "replace").split()))
