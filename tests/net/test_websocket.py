"""WebSocketTransport: the contract, the handshake, and every kind of frame that a server can send."""

from __future__ import annotations

import itertools
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from device_sdk.errors import (
    ArgumentError,
    ArgumentTypeError,
    ConnectFailedError,
    MissingDependency,
    TransportClosedError,
)
from device_sdk.net.base import ParsedUrl, Transport, open_transport
from device_sdk.net.layer import Layer
from device_sdk.net.memory import MemoryListener, MemoryTransport
from device_sdk.net.pieces import Pieces
from device_sdk.net.tls import TLSOptions
from device_sdk.net.websocket import FRAME_BYTES, WebSocketTransport
from device_sdk.testing.certificates import Certificates
from tests.net.test_proxy import Script, ScriptedServer, http, scripted, socks5, take_head
from tests.net.test_tcp import HOST, TcpPeer, TcpRig
from tests.net.test_tls import TlsPeer, server_context
from tests.net.transport_contract import (
    PATIENCE,
    Abilities,
    Peer,
    Rig,
    TransportContract,
    open_files,
    ready,
    receive,
    send_all,
    soon,
)


class WsPeer:
    """The server's end of a connection, over the server's end of a stream, with the suite's verbs."""

    def __init__(self, below: Peer) -> None:
        self.below = below
        self.fileno = below.fileno
        self.close = below.close
        self.reset = below.reset
        self.protocol = ServerProtocol(max_size=None, subprotocols=["mqtt"])  # type: ignore[list-item]
        self.frames: list[Any] = []  # everything that is not data
        self.sizes: list[int] = []
        self._unsent = b""

    def answer(self) -> bytes:
        """Take the request, and return what accepts it."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = self.below.recv()
            assert data or (data is None and ready(self.below)), f"only {head!r} came"
            head += data or b""
        self.protocol.receive_data(head)
        (request,) = self.protocol.events_received()
        assert isinstance(request, Request)
        self.request = request
        self.protocol.send_response(self.protocol.accept(request))
        return b"".join(self.protocol.data_to_send())

    def recv(self) -> bytes | None:
        data = self.below.recv()
        if not data:
            return data
        self.protocol.receive_data(data)
        content = b""
        for frame in self.protocol.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode is Opcode.BINARY:
                content += frame.data
                self.sizes.append(len(frame.data))
            else:
                self.frames.append(frame)
        return content or None

    def send(self, data: bytes) -> int:
        if self._unsent:
            self.flush()
            return 0
        piece = data[:50_000]
        self.send_frame(Frame(Opcode.BINARY, piece))
        return len(piece)

    def send_frame(self, frame: Frame) -> None:
        self.send_raw(frame.serialize(mask=False))

    def send_raw(self, data: bytes) -> None:
        self._unsent += data
        self.flush()

    def wants_write(self) -> bool:
        return bool(self._unsent)

    def flush(self) -> None:
        self.below.flush()
        self._unsent = self._unsent[self.below.send(self._unsent) :] if self._unsent else b""


class WsServer(ScriptedServer):
    """Gives connections whose handshake is done, with an answer that ``change`` may have spoilt."""

    def __init__(self, below: Script = lambda sock: None, change: Callable[[bytes], bytes] = bytes) -> None:
        self._below = below
        self._change = change
        self._peers: dict[int, WsPeer] = {}
        super().__init__(self._shake_hands)

    def _shake_hands(self, sock: socket.socket) -> None:
        self._below(sock)
        sock.setblocking(False)
        peer = WsPeer(TcpPeer(sock))
        send_all(peer.below, self._change(peer.answer()))
        self._peers[sock.fileno()] = peer

    def accept_ws(self) -> WsPeer:
        return self._peers.pop(self.accept().fileno())


class WsRig(Rig):
    def __init__(self, below: Script = lambda sock: None, proxy: str = "") -> None:
        self.server = WsServer(below=below)
        self.proxy = proxy
        self.transport = self.at(self.server.port)
        self.peers: list[WsPeer] = []
        self.refusing = socket.socket()
        self.refusing.bind((HOST, 0))

    def at(self, port: int) -> Transport:
        if self.proxy:
            return open_transport("ws://broker.example:1883", proxy=f"{self.proxy}://{HOST}:{port}")
        return open_transport(f"ws://{HOST}:{port}")

    def accept(self) -> Peer:
        self.peers.append(self.server.accept_ws())
        return self.peers[-1]

    def unreachable(self) -> Transport:
        return self.at(self.refusing.getsockname()[1])

    @contextmanager
    def unresponsive(self) -> Iterator[Transport]:
        with socket.create_server((HOST, 0)) as silent:
            yield self.at(silent.getsockname()[1])

    def close(self) -> None:
        self.transport.close()
        for peer in self.peers:
            peer.close()
        self.server.close()
        self.refusing.close()


class WssRig(Rig):
    """WebSocket over TLS over TCP, all by their URL."""

    can = Abilities(cheap_to_open=False)

    def __init__(self, certificates: Certificates) -> None:
        self.tcp = TcpRig()
        self.tls = TLSOptions(ca_file=certificates.ca)
        self.server = server_context(certificates.server)
        self.transport = self.at(self.tcp.listener.getsockname()[1])
        self.peers: SimpleQueue[WsPeer] = SimpleQueue()

    def at(self, port: int) -> Transport:
        return open_transport(f"wss://{HOST}:{port}", tls=self.tls)

    def connect(self) -> Peer:
        server = threading.Thread(target=self._serve, daemon=True)
        server.start()
        return super().connect()

    def _serve(self) -> None:
        below = TlsPeer(self.tcp.accept(), self.server)
        below.handshake()
        peer = WsPeer(below)
        send_all(below, peer.answer())
        self.peers.put(peer)

    def accept(self) -> Peer:
        return self.peers.get(timeout=PATIENCE)

    def unreachable(self) -> Transport:
        return self.at(self.tcp.refusing.getsockname()[1])

    @contextmanager
    def unresponsive(self) -> Iterator[Transport]:
        yield self.transport  # nobody does the server's part of the handshakes

    def close(self) -> None:
        self.transport.close()
        self.tcp.close()


class TestWebSocketTransport(TransportContract):
    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        rig = WsRig()
        yield rig
        rig.close()


class TestWebSocketThroughHttpConnect(TransportContract):
    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        rig = WsRig(http, "http")
        yield rig
        rig.close()


class TestWebSocketOverTls(TransportContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> Iterator[Rig]:
        rig = WssRig(Certificates(tmp_path))
        yield rig
        rig.close()

    def test_many_opens_leave_no_descriptor_behind(self, rig: Rig) -> None:
        rig.connect().close()
        rig.transport.close()
        before = open_files()
        for _ in range(50):
            peer = rig.connect()
            rig.transport.close()
            peer.close()
        assert open_files() <= before


@pytest.fixture
def rig() -> Iterator[WsRig]:
    rig = WsRig()
    yield rig
    rig.close()


def connected(rig: WsRig) -> WsPeer:
    peer = rig.connect()
    assert isinstance(peer, WsPeer)
    return peer


def got(transport: Transport) -> bytes | None:
    """Wait until there is something to read, and read once."""
    assert ready(transport)
    return transport.recv()


# Handshake.


def request_of(url: str = "ws://{place}", **options: Any) -> tuple[str, dict[str, str]]:
    """Return request line and headers as the server sees them, names in lower case."""
    heads: list[bytes] = []

    def listen(sock: socket.socket) -> None:
        heads.append(take_head(sock))
        sock.sendall(b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n")

    with scripted(listen) as server:
        place = f"{HOST}:{server.port}"
        with pytest.raises(ConnectFailedError):
            open_transport(url.format(place=place), **options).open(soon())
    line, *lines = heads[0].decode().replace(place, "PLACE").split("\r\n")[:-2]
    pairs = [field.split(": ", 1) for field in lines]
    assert len({name.lower() for name, _ in pairs}) == len(pairs)
    return line, {name.lower(): value for name, value in pairs}


@pytest.mark.conformance("5.0", "MQTT-6.0.0-3")
@pytest.mark.conformance("3.1.1", "MQTT-6.0.0-3")
def test_the_request_asks_for_mqtt_at_the_default_path() -> None:
    line, headers = request_of()
    assert line == "GET /mqtt HTTP/1.1"
    assert len(headers.pop("sec-websocket-key")) == 24
    assert headers == {
        "host": "PLACE",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-protocol": "mqtt",
    }


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("ws://{place}/", "GET / HTTP/1.1"),
        ("ws://{place}/a/b%20c", "GET /a/b%20c HTTP/1.1"),
        ("ws://{place}/ü", "GET /%C3%BC HTTP/1.1"),
        ("ws://{place}/x?token=a%26b&n=1", "GET /x?token=a%26b&n=1 HTTP/1.1"),
        ("ws://{place}?n=1", "GET /mqtt?n=1 HTTP/1.1"),
    ],
)
def test_path_and_query_of_the_url_are_asked_for(url: str, line: str) -> None:
    assert request_of(url)[0] == line


def test_the_credentials_of_mqtt_are_not_given_to_the_web_server() -> None:
    assert "authorization" not in request_of("ws://user:s3cret@{place}")[1]


def test_headers_origin_and_subprotocol_are_options() -> None:
    more = {"Authorization": "Bearer x", "host": "other"}
    _, headers = request_of(subprotocol="mqttv3.1", headers=more, origin="https://a.example")
    assert headers["authorization"] == "Bearer x"
    assert headers["host"] == "other"
    assert headers["origin"] == "https://a.example"
    assert headers["sec-websocket-protocol"] == "mqttv3.1"


def test_a_callable_gives_new_headers_for_each_attempt() -> None:
    tokens = iter(["one", "two"])

    def sign(headers: dict[str, str]) -> dict[str, str]:
        assert "Host" in headers
        return headers | {"X-Token": next(tokens)}

    assert request_of(headers=sign)[1]["x-token"] == "one"
    assert request_of(headers=sign)[1]["x-token"] == "two"


@pytest.mark.parametrize(
    "headers",
    [{"X": "a\r\nb"}, {"X Y": "a"}, {"X": 5}, {"": "a"}, {"Upgrade": "h2c"}, {"sec-websocket-key": "x"}],
)
def test_a_header_that_cannot_be_is_an_error(headers: Any) -> None:
    with pytest.raises(ArgumentError, match="headers"):
        open_transport("ws://h", headers=headers)
    with scripted(lambda sock: None) as server:
        transport = open_transport(f"ws://{HOST}:{server.port}", headers=lambda given: headers)
        with pytest.raises(ConnectFailedError, match=r"headers\(\) raised ArgumentError"):
            transport.open(soon())


def test_a_callable_that_raises_fails_the_attempt_and_leaves_nothing_open() -> None:
    def fail(headers: dict[str, str]) -> dict[str, str]:
        raise LookupError("no token today")

    before = open_files()
    with scripted(lambda sock: None) as server:
        transport = open_transport(f"ws://{HOST}:{server.port}", headers=fail)
        with pytest.raises(ConnectFailedError, match="no token today"):
            transport.open(soon())
    assert open_files() == before


def test_a_callable_says_what_to_ask_for_in_each_attempt() -> None:
    """As it is written: a signature does not survive being decoded and encoded again."""
    targets = iter(["/mqtt?X-Sig=a%2Bb/c&X-Sig=twice&empty=", "/other"])
    assert request_of("ws://{place}/ignored?x=1", target=lambda: next(targets))[0] == (
        "GET /mqtt?X-Sig=a%2Bb/c&X-Sig=twice&empty= HTTP/1.1"
    )
    assert request_of("ws://{place}/ignored?x=1", target=lambda: next(targets))[0] == "GET /other HTTP/1.1"


def test_one_stream_asks_anew_for_each_attempt() -> None:
    lines: list[bytes] = []
    count = itertools.count(1)

    def listen(sock: socket.socket) -> None:
        lines.append(take_head(sock).split(b"\r\n")[0])
        sock.sendall(b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n")

    with scripted(listen) as server:
        url = f"ws://{HOST}:{server.port}"
        transport = open_transport(url, target=lambda: f"{url}/m?token={next(count)}")
        for _ in range(2):
            with pytest.raises(ConnectFailedError):
                transport.open(soon())
            transport.close()
    assert lines == [b"GET /m?token=1 HTTP/1.1", b"GET /m?token=2 HTTP/1.1"]


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (None, "returned a NoneType, not a str"),
        (b"/mqtt", "returned a bytes, not a str"),
        ("", "neither a path nor a URL that begins with ws://"),
        ("mqtt?secret", "neither a path nor a URL that begins with ws://"),
        ("wss://{place}/mqtt?secret", "neither a path nor a URL that begins with ws://"),
        ("ws://other.example/mqtt?secret", "neither a path nor a URL that begins with ws://"),
        ("ws://{place}?secret", "neither a path nor a URL that begins with ws://"),
        ("ws://{place}", "neither a path nor a URL that begins with ws://"),
        ("ws://[secret/mqtt", "neither a path nor a URL that begins with ws://"),
        ("/mqtt?secret x", "has to be percent-encoded"),
        ("/mqtt?secret\r\nX: y", "has to be percent-encoded"),
        ("/mqtt?secret#x", "has to be percent-encoded"),
        ("/secr\u00e9t", "has to be percent-encoded"),
    ],
)
def test_a_target_that_cannot_be_fails_the_attempt_and_is_not_shown(found: Any, problem: str) -> None:
    before = open_files()
    with scripted(lambda sock: None) as server:
        place = f"{HOST}:{server.port}"
        if isinstance(found, str):
            found = found.replace("{place}", place)
        transport = open_transport(f"ws://{place}", target=lambda: found)
        with pytest.raises(ConnectFailedError, match="target") as caught:
            transport.open(soon())
    text = str(caught.value)
    assert problem in text
    assert "secr" not in text
    assert caught.value.retry == "soon"
    assert open_files() == before


def test_a_target_that_raises_fails_the_attempt() -> None:
    def fail() -> str:
        raise LookupError("no signature today")

    with scripted(lambda sock: None) as server:
        transport = open_transport(f"ws://{HOST}:{server.port}", target=fail)
        with pytest.raises(
            ConnectFailedError, match=r"target\(\) raised LookupError\('no signature today'\)"
        ):
            transport.open(soon())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 403 no QUERY\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 403 x\r\nContent-Length: 60\r\n\r\nno access to /mqtt?QUERY for you: DECODED.",
        b"HTTP/1.1 302 x\r\nLocation: /login?QUERY\r\nContent-Length: 0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("asked", [True, False])
def test_no_answer_of_the_server_shows_what_the_query_holds(answer: bytes, asked: bool) -> None:
    def script(sock: socket.socket) -> None:
        take_head(sock)
        query = b"X-Signature=very%2Fsecret%2Fthing"
        sock.sendall(answer.replace(b"QUERY", query).replace(b"DECODED", b"very/secret/thing"))

    with scripted(script) as server:
        url = f"ws://{HOST}:{server.port}"
        target = "/mqtt?X-Signature=very%2Fsecret%2Fthing"
        options: Any = {"target": lambda: target} if asked else {}
        transport = open_transport(url if asked else url + target, **options)
        with pytest.raises(ConnectFailedError) as caught:
            transport.open(soon())
    assert "secret" not in str(caught.value)
    assert caught.value.retry == ("later" if asked else "never")


@pytest.mark.parametrize(
    ("name", "value"),
    [("origin", "a\nb"), ("subprotocol", "a b"), ("subprotocol", None), ("max_message_size", 0),
     ("max_message_size", 1.5), ("target", "/mqtt"), ("colour", "red")],
)  # fmt: skip
def test_a_wrong_option_is_named(name: str, value: Any) -> None:
    with pytest.raises((ArgumentError, TypeError), match=name):
        open_transport("ws://h", **{name: value})


def test_headers_of_another_type_are_a_type_error() -> None:
    with pytest.raises(ArgumentTypeError, match="headers: must be a mapping"):
        open_transport("ws://h", headers="X: y")


@pytest.mark.parametrize(
    ("status", "headers", "retry"),
    [(403, {}, "never"), (301, {}, "never"), (200, {}, "never"), (429, {}, "later"), (503, {}, "later"),
     (403, dict, "later")],
)  # fmt: skip
def test_a_refusal_says_whether_another_attempt_can_help(status: int, headers: Any, retry: str) -> None:
    def script(sock: socket.socket) -> None:
        take_head(sock)
        sock.sendall(f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n".encode())

    with scripted(script) as server:
        transport = open_transport(f"ws://{HOST}:{server.port}", headers=headers)
        with pytest.raises(ConnectFailedError) as caught:
            transport.open(soon())
        assert caught.value.retry == retry


def refused(answer: bytes, *, then_close: bool = True, seconds: float = PATIENCE) -> str:
    """Return the error of an open() that is answered so."""

    def script(sock: socket.socket) -> None:
        take_head(sock)
        sock.sendall(answer)
        if then_close:
            sock.shutdown(socket.SHUT_WR)
        sock.recv(1)
        raise EOFError

    with scripted(script) as server:
        transport = open_transport(f"ws://{HOST}:{server.port}")
        before = open_files()
        with pytest.raises(ConnectFailedError) as caught:
            transport.open(soon() - PATIENCE + seconds)
        server.ready.get(timeout=PATIENCE)
        assert open_files() <= before
        return str(caught.value).replace(f"{HOST}:{server.port}", "PLACE")


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        ("200 OK", "ordinary web server"),
        ("401 Unauthorized", "Authorization"),
        ("403 Forbidden", "credentials"),
        ("404 Not Found", "check the path"),
        ("503 Service Unavailable", "server's log"),
    ],
)
def test_a_refusal_says_status_body_and_what_to_do(status: str, advice: str) -> None:
    body = b"<html>\r\n <b>no\x1b[31m</b> M\xc3\xbc " + b"x" * 500
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    text = refused(head + body, then_close=False)
    assert text.startswith(
        f"cannot open ws PLACE/mqtt: the server answers {status}: '<html> <b>no\\x1b[31m</b> Mü x"
    )
    assert "x" * 201 not in text
    assert "\x1b" not in text
    assert advice in text


def test_a_server_that_asks_for_authentication_says_in_which_way() -> None:
    head = b"HTTP/1.1 401 No\r\nWWW-Authenticate: Negotiate\r\nWWW-Authenticate: Basic realm=x\r\n\r\n"
    assert refused(head).endswith("such as Authorization; it asks for Negotiate or Basic")


def test_a_redirect_is_not_followed_and_says_where_it_points() -> None:
    text = refused(b"HTTP/1.1 301 Moved\r\nLocation: wss://other.example/mqtt\r\n\r\n")
    assert "answers 301 Moved; it points to wss://other.example/mqtt; redirects are not followed" in text


def test_a_body_that_never_ends_does_not_hide_the_status() -> None:
    text = refused(b"HTTP/1.1 403 No\r\n\r\nbecause", then_close=False, seconds=0.1)
    assert "answers 403 No: 'because'" in text
    flood = b"HTTP/1.1 403 No\r\nContent-Length: 999999999\r\n\r\n" + b"y" * 20_000
    assert "answers 403 No: 'yyy" in refused(flood, then_close=False)


def test_a_reset_after_the_status_does_not_hide_it() -> None:
    def script(sock: socket.socket) -> None:
        take_head(sock)
        sock.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 50\r\n\r\nbecause")
        seen.wait(PATIENCE)
        TcpPeer(sock).reset()
        raise EOFError

    seen = threading.Event()
    with scripted(script) as server:
        transport = WebSocketTransport(ParsedUrl("ws", HOST, server.port))
        transport.inner = Watched(transport.inner, seen)
        with pytest.raises(ConnectFailedError, match="answers 403 No: 'because'"):
            transport.open(soon())


class Watched(Layer):
    """Tells when something has been received."""

    def __init__(self, inner: Transport, seen: threading.Event) -> None:
        super().__init__(inner, inner.description)
        self.seen = seen

    def recv(self) -> bytes | None:
        """Pass on, and tell."""
        data = self.inner.recv()
        if data:
            self.seen.set()
        return data


GOOD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 101", "closed the connection after b'HTTP/1.1 101'"),
        (b"\x20\x02\x00\x00\r\n\r\n", "not HTTP"),
        (GOOD + b"\r\n", "Sec-WebSocket-Accept"),
        (GOOD + b"Sec-WebSocket-Accept: wrong\r\n\r\n", "Sec-WebSocket-Accept"),
        (b"HTTP/1.1 101 x\r\n\r\n", "Connection"),
        (b"HTTP/1.1 101 x\r\nno header\r\n\r\n", "header"),
        (b"HTTP/1.1 101 x\r\n" + b"X: y\r\n" * 10_000, "more than 16384 bytes"),
    ],
)
def test_an_answer_that_is_no_upgrade_says_what_is_wrong_with_it(answer: bytes, problem: str) -> None:
    assert problem in refused(answer)


def test_a_server_that_resets_the_connection_is_told_apart_from_an_abort() -> None:
    def script(sock: socket.socket) -> None:
        take_head(sock)
        TcpPeer(sock).reset()
        raise EOFError

    with scripted(script) as server:
        transport = open_transport(f"ws://{HOST}:{server.port}")
        with pytest.raises(
            ConnectFailedError, match=r"broke the connection: .* reset by peer .* check scheme"
        ):
            transport.open(soon())


@contextmanager
def answering(change: Callable[[bytes], bytes]) -> Iterator[tuple[Transport, WsServer]]:
    """Give a transport to a server whose good answer is changed before it is sent."""
    server = WsServer(change=change)
    transport = open_transport(f"ws://{HOST}:{server.port}")
    try:
        yield transport, server
    finally:
        transport.close()
        server.close()


@pytest.mark.conformance("5.0", "MQTT-6.0.0-4")
@pytest.mark.conformance("3.1.1", "MQTT-6.0.0-4")
@pytest.mark.parametrize(
    "chosen", [b"", b"Sec-WebSocket-Protocol: chat\r\n", b"Sec-WebSocket-Protocol: m, q\r\n"]
)
def test_a_missing_or_other_subprotocol_in_the_answer_is_an_error(chosen: bytes) -> None:
    def change(answer: bytes) -> bytes:
        assert b"Sec-WebSocket-Protocol: mqtt\r\n" in answer
        return answer.replace(b"Sec-WebSocket-Protocol: mqtt\r\n", chosen)

    with answering(change) as (transport, _), pytest.raises(ConnectFailedError, match=r"[Pp]rotocol"):
        transport.open(soon())


def test_compression_that_nobody_offered_is_an_error() -> None:
    extra = b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    with (
        answering(lambda answer: answer[:-4] + extra) as (transport, _),
        pytest.raises(ConnectFailedError, match="no extensions supported"),
    ):
        transport.open(soon())


def test_a_server_that_closes_after_any_byte_of_its_answer_is_an_error() -> None:
    counts = iter(range(200))

    def cut(answer: bytes) -> bytes:
        assert 100 < len(answer) < 250
        return answer[: next(counts)]

    def script(sock: socket.socket) -> None:
        sock.setblocking(False)
        peer = WsPeer(TcpPeer(sock))
        send_all(peer.below, cut(peer.answer()))
        sock.shutdown(socket.SHUT_WR)
        assert ready(peer)
        raise EOFError

    with scripted(script) as server:
        transport = open_transport(f"ws://{HOST}:{server.port}")
        before = open_files()
        for _ in range(120):
            with pytest.raises(ConnectFailedError, match="closed the connection"):
                transport.open(soon())
            server.ready.get(timeout=PATIENCE)
        assert open_files() <= before


def test_what_comes_together_with_the_answer_is_not_lost() -> None:
    frame = Frame(Opcode.BINARY, b"early").serialize(mask=False)
    with answering(lambda answer: answer + frame[:3]) as (transport, server):
        transport.open(soon())
        peer = server.accept()
        peer.send(frame[3:])
        assert receive(transport, 5) == b"early"
        peer.close()


# Frames.


@pytest.mark.conformance("5.0", "MQTT-6.0.0-1")
@pytest.mark.conformance("3.1.1", "MQTT-6.0.0-1")
def test_what_is_sent_travels_in_binary_frames(rig: WsRig) -> None:
    peer = connected(rig)
    for data in (b"one", b"x" * 200, b"y" * 70_000):
        send_all(rig.transport, data)
        assert receive(peer, len(data)) == data
    assert peer.sizes == [3, 200, 70_000]
    assert peer.frames == []


@pytest.mark.conformance("5.0", "MQTT-6.0.0-1")
@pytest.mark.conformance("3.1.1", "MQTT-6.0.0-1")
def test_a_text_frame_ends_the_connection_after_what_came_before(rig: WsRig) -> None:
    peer = connected(rig)
    frames = [Frame(Opcode.BINARY, b"good"), Frame(Opcode.TEXT, b"bad"), Frame(Opcode.BINARY, b"late")]
    peer.send_raw(b"".join(frame.serialize(mask=False) for frame in frames))
    assert got(rig.transport) == b"good"
    assert ready(rig.transport), "nothing announces the end"
    for _ in range(2):
        with pytest.raises(TransportClosedError, match=r"text frame.*MQTT-6\.0\.0-1"):
            rig.transport.recv()
    with pytest.raises(TransportClosedError, match="text frame"):
        rig.transport.send(b"x")
    assert closing_code(peer) == 1003


def closing_code(peer: WsPeer) -> int:
    while not peer.frames:
        assert ready(peer)
        assert peer.recv() != b"", "closed without a close frame"
    assert peer.frames[-1].opcode is Opcode.CLOSE
    return int.from_bytes(peer.frames[-1].data[:2], "big")


@pytest.mark.conformance("5.0", "MQTT-6.0.0-2")
@pytest.mark.conformance("3.1.1", "MQTT-6.0.0-2")
def test_packets_may_span_and_share_frames(rig: WsRig) -> None:
    peer = connected(rig)
    stream = bytes.fromhex("20020000 d000 30060001 74 616263 d000")
    for cut in range(1, len(stream)):
        peer.send_frame(Frame(Opcode.BINARY, stream[:cut]))
        peer.send_frame(Frame(Opcode.BINARY, b""))
        peer.send_frame(Frame(Opcode.BINARY, stream[cut:]))
        assert receive(rig.transport, len(stream)) == stream


def test_a_message_may_be_fragmented_with_control_frames_between(rig: WsRig) -> None:
    peer = connected(rig)
    peer.send_frame(Frame(Opcode.BINARY, b"one ", fin=False))
    assert got(rig.transport) == b"one "
    peer.send_frame(Frame(Opcode.PING, b"are you there"))
    peer.send_frame(Frame(Opcode.PONG, b"unasked"))
    peer.send_frame(Frame(Opcode.CONT, b"two ", fin=False))
    peer.send_frame(Frame(Opcode.CONT, b"three"))
    assert receive(rig.transport, 9) == b"two three"
    assert ready(peer)
    assert peer.recv() is None
    assert [(frame.opcode, bytes(frame.data)) for frame in peer.frames] == [(Opcode.PONG, b"are you there")]


def test_frames_may_arrive_in_single_bytes(rig: WsRig) -> None:
    peer = connected(rig)
    frame = Frame(Opcode.BINARY, b"payload").serialize(mask=False)
    for index in range(len(frame)):
        peer.send_raw(frame[index : index + 1])
        assert got(rig.transport) == (b"payload" if index == len(frame) - 1 else None)


@pytest.mark.parametrize("code", [1001, 1008, 1011, 3000, 4999])
def test_a_close_code_and_its_reason_are_reported(rig: WsRig, code: int) -> None:
    peer = connected(rig)
    peer.send_frame(Frame(Opcode.BINARY, b"last"))
    peer.send_frame(Frame(Opcode.CLOSE, code.to_bytes(2, "big") + b"because\x07 of you"))
    assert receive(rig.transport, 4) == b"last"
    assert ready(rig.transport), "nothing announces the end"
    with pytest.raises(TransportClosedError, match=rf"closed with code {code}: because\\x07 of you"):
        while rig.transport.recv() is None:
            assert ready(rig.transport)
    assert closing_code(peer) == code
    with pytest.raises(TransportClosedError, match=str(code)):
        rig.transport.send(b"x")


@pytest.mark.parametrize("content", [b"", b"\x03\xe8", b"\x03\xe8bye"])
def test_an_orderly_close_is_the_end_of_the_stream(rig: WsRig, content: bytes) -> None:
    peer = connected(rig)
    peer.send_frame(Frame(Opcode.CLOSE, content))
    assert [got(rig.transport), rig.transport.recv()] == [b"", b""]
    with pytest.raises(TransportClosedError, match="closed by the peer"):
        rig.transport.send(b"x")
    rig.transport.close()
    assert len(peer.frames) == 0
    assert ready(peer)
    peer.recv()
    assert [bytes(frame.data) for frame in peer.frames] == [content]


@pytest.mark.parametrize(
    ("raw", "problem", "code"),
    [
        ("8f00", "opcode", 1002),
        ("c201 00", "reserved bits", 1002),
        ("8281 00000000 00", "masking", 1002),
        ("8000", "continuation", 1002),
        ("0201 00 8201 00", "continuation", 1002),
        ("0900", "fragmented control", 1002),
        ("897e 0080" + "00" * 128, "control frame too long", 1002),
        ("8801 00", "close frame too short", 1002),
        ("8802 0005", "status code", 1002),
        ("8804 03e8 ffff", "utf-8", 1007),
        ("827f ffffffffffffffff", "limit", 1009),
        ("817f 0000000000100001", "limit", 1009),
    ],
)
def test_a_frame_against_the_rules_ends_the_connection(rig: WsRig, raw: str, problem: str, code: int) -> None:
    peer = connected(rig)
    peer.send_frame(Frame(Opcode.BINARY, b"good"))
    peer.send_raw(bytes.fromhex(raw))
    assert receive(rig.transport, 4).startswith(b"good")
    with pytest.raises(TransportClosedError, match=rf"broke the WebSocket protocol: .*{problem}"):
        while rig.transport.recv() is not None or ready(rig.transport):
            pass
    assert closing_code(peer) == code


def test_a_frame_of_the_largest_size_passes_and_one_byte_more_does_not() -> None:
    server = WsServer()
    try:
        transport = open_transport(f"ws://{HOST}:{server.port}", max_message_size=1000)
        for size in (1000, 1001):
            transport.open(soon())
            peer = server.accept_ws()
            peer.send_frame(Frame(Opcode.BINARY, b"x" * size))
            if size == 1000:
                assert receive(transport, 1000) == b"x" * 1000
            else:
                with pytest.raises(TransportClosedError, match=r"limit .*max_message_size= allows more"):
                    receive(transport, 1001)
            transport.close()
            peer.close()
    finally:
        server.close()


@pytest.mark.conformance("5.0", "MQTT-6.0.0-2")
@pytest.mark.conformance("3.1.1", "MQTT-6.0.0-2")
def test_a_larger_frame_is_handed_on_as_it_comes(rig: WsRig) -> None:
    """A broker may put a packet of any size into one frame: in MQTT 3.x it does not know what we take."""
    peer = connected(rig)
    frame = Frame(Opcode.BINARY, bytes(range(256)) * (3 << 12)).serialize(mask=False)
    peer.send_raw(frame[:5_000])
    assert receive(rig.transport, 4_990) == frame[10:5_000]
    thread = threading.Thread(target=peer.send_raw, args=(frame[5_000:],))
    thread.start()
    assert receive(rig.transport, len(frame) - 5_000) == frame[5_000:]
    thread.join(PATIENCE)
    peer.send_frame(Frame(Opcode.PING, b"still there"))
    peer.send_frame(Frame(Opcode.BINARY, b"next"))
    assert receive(rig.transport, 4) == b"next"


def in_one_piece(frames: list[tuple[Opcode, bytes, bool]]) -> bytes:
    return b"".join(frame_bytes(opcode, data, fin) for opcode, data, fin in frames)


def content_of(stream: bytes, largest: int, size: int) -> tuple[bytes, list[Opcode], str]:
    """Return what the binary messages in a stream have together, the control frames, and the fault."""
    pieces = Pieces(largest)
    parser = ClientProtocol(parse_uri("ws://h/"), state=State.OPEN, max_size=largest)
    for start in range(0, len(stream), size):
        parser.receive_data(pieces.feed(stream[start : start + size]))
    found: list[Any] = parser.events_received()
    content = b"".join(one.data for one in found if one.opcode in (Opcode.BINARY, Opcode.CONT))
    others = [one.opcode for one in found if one.opcode not in (Opcode.BINARY, Opcode.CONT)]
    return content, others, type(parser.parser_exc).__name__


@pytest.mark.parametrize(
    ("length", "size"),
    [(length, size) for length in (0, 1, 100, 101, 126, 300) for size in (1, 2, 7, 1_000)]
    + [(length, size) for length in (65_535, 65_536) for size in (1_000, 1 << 20)],
)
def test_pieces_have_what_the_message_has(length: int, size: int) -> None:
    text = bytes(number % 251 for number in range(length))
    frames = [
        (Opcode.BINARY, text, True),
        (Opcode.PING, b"p", True),
        (Opcode.BINARY, text[:50], False),
        (Opcode.PONG, b"", True),
        (Opcode.CONT, text, False),
        (Opcode.CONT, b"", True),
        (Opcode.BINARY, b"end", True),
    ]
    wanted = text + text[:50] + text + b"end"
    assert content_of(in_one_piece(frames), 100, size) == (wanted, [Opcode.PING, Opcode.PONG], "NoneType")


SOME = st.tuples(
    st.sampled_from([Opcode.BINARY, Opcode.CONT, Opcode.PING]),
    st.sampled_from([0, 1, 125, 126, 300]).map(bytes),
    st.booleans(),
).filter(lambda frame: frame[0] is not Opcode.PING or len(frame[1]) <= 125)


@given(st.lists(SOME, max_size=8))
def test_pieces_break_the_rules_where_the_frames_do(frames: list[tuple[Opcode, bytes, bool]]) -> None:
    stream = in_one_piece(frames)
    parser = ClientProtocol(parse_uri("ws://h/"), state=State.OPEN, max_size=None)
    parser.receive_data(stream)
    found: list[Any] = parser.events_received()
    content = b"".join(one.data for one in found if one.opcode is not Opcode.PING)
    for largest in (125, 1_000):
        for size in (1, 3, 1_000):
            got_content, _, fault = content_of(stream, largest, size)
            assert (fault == "NoneType") is (parser.parser_exc is None)
            assert got_content == content


def test_pings_whose_answers_are_not_read_end_the_connection(rig: WsRig) -> None:
    peer = connected(rig)
    while rig.transport.send(b"x" * FRAME_BYTES):  # no room for answers
        pass
    pings = Frame(Opcode.PING, b"p" * 125).serialize(mask=False) * 100
    until = soon()
    with pytest.raises(TransportClosedError, match="does not read the answers"):
        while soon() < until + PATIENCE:
            peer.send_raw(pings)
            rig.transport.recv()


def test_answers_to_pings_wait_for_the_rest_of_a_frame(rig: WsRig) -> None:
    peer = connected(rig)
    data = os.urandom(FRAME_BYTES) * 40
    rest = data
    while taken := rig.transport.send(rest):
        rest = rest[taken:]
    peer.send_frame(Frame(Opcode.PING, b"1"))
    assert got(rig.transport) is None
    assert rig.transport.wants_write()
    received = b""
    while len(received) < len(data):
        received += peer.recv() or b""
        if ready(rig.transport, 0):
            rest = rest[rig.transport.send(rest) :]
    assert received == data
    assert [bytes(frame.data) for frame in peer.frames] == [b"1"]


def test_closing_says_good_bye(rig: WsRig) -> None:
    peer = connected(rig)
    rig.transport.close()
    assert closing_code(peer) == 1000


def test_a_close_in_the_middle_of_a_frame_adds_nothing_to_it(rig: WsRig) -> None:
    peer = connected(rig)
    while rig.transport.send(b"x" * FRAME_BYTES):
        pass
    rig.transport.close()
    while peer.recv() != b"":
        assert ready(peer)
    assert peer.frames == []


def test_an_end_without_a_close_frame_is_the_end_of_the_stream(rig: WsRig) -> None:
    peer = connected(rig)
    peer.send_raw(Frame(Opcode.BINARY, b"never complete").serialize(mask=False)[:5])
    peer.close()
    assert receive(rig.transport, 1) == b""


def test_many_packets_leave_in_one_frame_and_a_large_one_in_several(rig: WsRig) -> None:
    peer = connected(rig)
    sizes = [FRAME_BYTES, 2 * FRAME_BYTES + 1]
    for size in sizes:
        rest = b"z" * size
        while rest:
            rest = rest[rig.transport.send(rest) :]
            peer.recv()
            if rig.transport.wants_write():
                rig.transport.flush()
    while len(peer.sizes) < 4:
        assert ready(peer)
        peer.recv()
    assert peer.sizes == [FRAME_BYTES, FRAME_BYTES, FRAME_BYTES, 1]


def test_small_pieces_below_do_not_tear_frames() -> None:
    """The stream below takes one byte at a time."""
    with MemoryListener("torn") as listener:
        transport = WebSocketTransport(ParsedUrl("ws", "broker.example", 80))
        transport.inner = below = open_transport(listener.url)
        assert isinstance(below, MemoryTransport)
        server = threading.Thread(target=transport.open, args=(soon(),), daemon=True)
        server.start()
        peer = WsPeer(listener.accept(PATIENCE))
        send_all(peer.below, peer.answer())
        server.join(PATIENCE)
        below.limit_send(1)
        data, sent, received = bytes(range(256)) * 2, 0, b""
        while len(received) < len(data):
            sent += transport.send(data[sent:])
            transport.flush()
            if ready(peer, 0):
                received += peer.recv() or b""
        assert received == data
        transport.close()
        peer.close()


class Hesitant(Layer):
    """Counts what it is offered as taken only when it is offered again, as TLS may do."""

    offered = b""

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Take what was offered before."""
        news = bytes(data)
        assert news.startswith(self.offered), "what was offered first has to come first"
        taken, self.offered = (self.inner.send(news), b"") if self.offered else (0, news)
        return taken


def test_a_frame_is_made_once_even_if_nothing_of_it_was_counted() -> None:
    server = WsServer()
    transport = WebSocketTransport(ParsedUrl("ws", HOST, server.port))
    transport.open(soon())
    peer = server.accept_ws()
    below = transport.inner
    transport.inner = Hesitant(below, "hesitant")
    assert [transport.send(b"packet"), transport.send(b"packet")] == [0, 6]
    assert receive(peer, 6) == b"packet"
    transport.inner = below
    transport.close()
    peer.close()
    server.close()


class Tape(Layer):
    """Plays pieces of input, then the end; takes all output."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__(open_transport("memory://nowhere"), "tape")
        self.pieces = [piece for piece in pieces if piece]

    def recv(self) -> bytes | None:
        """Return the next piece."""
        return self.pieces.pop(0) if self.pieces else b""

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Take all of it."""
        return len(data)


def outcome(pieces: list[bytes]) -> tuple[bytes, str]:
    """Return what these pieces of input contain, and how the connection ends."""
    transport = WebSocketTransport(ParsedUrl("ws", HOST, 80), max_message_size=1000)
    transport.inner = Tape(pieces)
    transport._adopt(ClientProtocol(transport.upgrade.uri, state=State.OPEN, max_size=1000))
    content = b""
    try:
        while (data := transport.recv()) != b"":
            content += data or b""
    except TransportClosedError as error:
        return content, str(error)
    return content, "closed"


def frame_bytes(opcode: Opcode, data: bytes, fin: bool) -> bytes:
    return Frame(opcode, data, fin or opcode >= Opcode.CLOSE).serialize(mask=False)


FRAMES = st.builds(frame_bytes, st.sampled_from(Opcode), st.binary(max_size=125), st.booleans())


@given(st.lists(FRAMES | st.binary(max_size=20), max_size=8))
def test_any_input_has_one_meaning_however_it_is_cut(pieces: list[bytes]) -> None:
    stream = b"".join(pieces)
    assert outcome([stream]) == outcome([stream[n : n + 1] for n in range(len(stream))])


def test_websocket_goes_through_a_socks5_proxy() -> None:
    rig = WsRig(socks5, "socks5")
    try:
        peer = connected(rig)
        send_all(rig.transport, b"ping")
        assert receive(peer, 4) == b"ping"
        assert peer.request.headers["Host"] == "broker.example:1883"
    finally:
        rig.close()


def test_websockets_that_is_not_installed_is_a_missing_dependency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "websockets.client", None)
    for name in ("upgrade", "websocket"):
        monkeypatch.delitem(sys.modules, f"device_sdk.net.{name}")
    with pytest.raises(MissingDependency, match="pip install 'websockets>="):
        open_transport("ws://h")


def test_a_url_without_a_host_is_an_error() -> None:
    with pytest.raises(ArgumentError, match="host"):
        WebSocketTransport(ParsedUrl("ws", ""))
