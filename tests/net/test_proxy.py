"""ProxyTransport: the contract behind each kind of proxy, what proxies refuse, and a real one."""

from __future__ import annotations

import asyncio
import base64
import socket
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import pproxy  # type: ignore[import-untyped]
import pytest
from pytest_mock import MockerFixture

from device_sdk.errors import ArgumentError, ArgumentTypeError, ConnectFailedError, MissingDependency
from device_sdk.net.base import Transport, open_transport, parse_url
from device_sdk.net.lookup import LookUpTimeout
from device_sdk.net.proxy import ProxyTransport, proxy_from_environment
from device_sdk.net.tcp import TcpTransport
from tests.net.test_tcp import HOST, TcpPeer, addresses
from tests.net.transport_contract import (
    PATIENCE,
    Peer,
    Rig,
    TransportContract,
    open_files,
    receive,
    send_all,
    soon,
)

BROKER = "mqtt://broker.example:1883"
SOCKS5_YES = bytes.fromhex("05 00") + bytes.fromhex("05 00 00 01 0a000001 0050")
SOCKS4_YES = bytes.fromhex("00 5a 0000 00000000")
HTTP_YES = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 x\r\nX-Filler: yes\r\n\r\n"

Script = Callable[[socket.socket], None]


def take(sock: socket.socket, count: int) -> bytes:
    """Read exactly so many bytes of a dialogue."""
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise EOFError(f"ended after {data!r}")
        data += more
    return data


def take_head(sock: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += take(sock, 1)
    return head


def socks5(sock: socket.socket) -> None:
    take(sock, take(sock, 2)[1])
    sock.sendall(SOCKS5_YES[:2])
    assert take(sock, 5) == b"\5\1\0\3\x0e"
    assert take(sock, 16) == b"broker.example\x07\x5b"
    sock.sendall(SOCKS5_YES[2:])


def socks4a(sock: socket.socket) -> None:
    assert take(sock, 9 + 15) == b"\4\1\x07\x5b\0\0\0\1\0broker.example\0"
    sock.sendall(SOCKS4_YES)


def http(sock: socket.socket) -> None:
    assert take_head(sock) == b"CONNECT broker.example:1883 HTTP/1.1\r\nHost: broker.example:1883\r\n\r\n"
    sock.sendall(HTTP_YES)


class ScriptedServer:
    """Runs a script on each accepted socket, in a thread; the socket is then the broker's."""

    def __init__(self, script: Script) -> None:
        self.listener = socket.create_server((HOST, 0), backlog=100)
        self.port = self.listener.getsockname()[1]
        self.ready: SimpleQueue[TcpPeer | Exception] = SimpleQueue()
        self._script = script
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE)
            try:
                self._script(sock)
                sock.setblocking(False)
                self.ready.put(TcpPeer(sock))
            except Exception as error:
                sock.close()
                self.ready.put(error)

    def accept(self) -> TcpPeer:
        peer = self.ready.get(timeout=PATIENCE)
        if isinstance(peer, Exception):
            raise peer
        return peer

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(PATIENCE)
        while not self.ready.empty():
            left = self.ready.get()
            if isinstance(left, TcpPeer):
                left.close()


@contextmanager
def scripted(script: Script) -> Iterator[ScriptedServer]:
    server = ScriptedServer(script)
    try:
        yield server
    finally:
        server.close()


class ProxyRig(Rig):
    def __init__(self, scheme: str, script: Script) -> None:
        self.scheme = scheme
        self.server = ScriptedServer(script)
        self.transport = self.through(self.server.port)
        self.peers: list[TcpPeer] = []
        self.refusing = socket.socket()
        self.refusing.bind((HOST, 0))

    def through(self, port: int) -> Transport:
        return open_transport(BROKER, proxy=f"{self.scheme}://{HOST}:{port}")

    def accept(self) -> Peer:
        self.peers.append(self.server.accept())
        return self.peers[-1]

    def unreachable(self) -> Transport:
        return self.through(self.refusing.getsockname()[1])

    @contextmanager
    def unresponsive(self) -> Iterator[Transport]:
        with socket.create_server((HOST, 0)) as silent:
            yield self.through(silent.getsockname()[1])

    def close(self) -> None:
        self.transport.close()
        for peer in self.peers:
            peer.close()
        self.server.close()
        self.refusing.close()


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    rig = ProxyRig(*request.param)
    yield rig
    rig.close()


@pytest.mark.parametrize("rig", [("socks5", socks5)], indirect=True, ids=["socks5"])
class TestSocks5(TransportContract):
    pass


@pytest.mark.parametrize("rig", [("socks4a", socks4a)], indirect=True, ids=["socks4a"])
class TestSocks4a(TransportContract):
    pass


@pytest.mark.parametrize("rig", [("http", http)], indirect=True, ids=["http"])
class TestHttpConnect(TransportContract):
    pass


def opened(script: Script, proxy: str = "socks5://{place}", url: str = BROKER) -> str:
    """Open and close a stream through a scripted proxy; return the error's text, or ``""``."""
    with scripted(script) as server:
        place = f"{HOST}:{server.port}"
        transport = open_transport(url, proxy=proxy.format(place=place))
        before = open_files()
        try:
            transport.open(soon())
        except ConnectFailedError as error:
            assert open_files() - before <= 1  # the proxy's end may not be closed yet
            return str(error).replace(place, "PROXY")
        transport.close()
        server.accept().close()
        return ""


# What a proxy sends in one go: the dialogue does not depend on how it is cut.
GREETINGS = [("socks5", SOCKS5_YES), ("socks4a", SOCKS4_YES), ("http", HTTP_YES)]


@pytest.mark.parametrize(("scheme", "answer"), GREETINGS, ids=[scheme for scheme, _ in GREETINGS])
def test_a_proxy_that_closes_after_any_byte_is_an_error_that_names_it(scheme: str, answer: bytes) -> None:
    counts = iter(range(len(answer)))

    def stop_early(sock: socket.socket) -> None:
        sock.sendall(answer[: next(counts)])
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1000):
            pass
        raise EOFError

    with scripted(stop_early) as server:
        transport = open_transport(BROKER, proxy=f"{scheme}://{HOST}:{server.port}")
        before = open_files()
        for _ in answer:
            with pytest.raises(ConnectFailedError, match=f"through {scheme}://{HOST}:{server.port}: it ans"):
                transport.open(soon())
            server.ready.get(timeout=PATIENCE)
        assert open_files() <= before


@pytest.mark.parametrize(("scheme", "answer"), GREETINGS, ids=[scheme for scheme, _ in GREETINGS])
def test_an_answer_may_come_in_single_bytes_and_with_data_behind_it(scheme: str, answer: bytes) -> None:
    def dribble(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for index in range(len(answer) - 1):
            sock.sendall(answer[index : index + 1])
        sock.sendall(answer[-1:] + b"first bytes of the broker")

    with scripted(dribble) as server:
        transport = open_transport(BROKER, proxy=f"{scheme}://{HOST}:{server.port}")
        transport.open(soon())
        assert receive(transport, 25) == b"first bytes of the broker"
        transport.close()
        server.accept().close()


def answer_http(status_line: bytes) -> Script:
    def script(sock: socket.socket) -> None:
        take_head(sock)
        sock.sendall(status_line + b"\r\nContent-Length: 4\r\n\r\nbody")
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)

    return script


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (b"407 Proxy Authentication Required", "user name and a password"),
        (b"403 Forbidden", "permitted"),
        (b"405 Method Not Allowed", "no proxy for CONNECT"),
        (b"501 Unsupported method", "no proxy for CONNECT"),
        (b"502 Bad Gateway", "cannot reach the broker"),
        (b"301 Moved", "check that it is a proxy"),
        (b"500", "check that it is a proxy"),
    ],
)
def test_a_refusal_by_http_says_status_and_what_to_do(status: bytes, advice: str) -> None:
    text = opened(answer_http(b"HTTP/1.1 " + status), "http://{place}")
    assert text.startswith("cannot connect to broker.example:1883 through http://PROXY: it answered")
    assert f"answered {status.decode()}; " in text
    assert advice in text


@pytest.mark.parametrize(
    ("script", "proxy", "retry"),
    [
        (answer_http(b"HTTP/1.1 407 x"), "http://{place}", "never"),
        (answer_http(b"HTTP/1.1 403 x"), "http://{place}", "never"),
        (answer_http(b"HTTP/1.1 502 x"), "http://{place}", "later"),
        (lambda sock: sock.sendall(b"\5\xff"), "socks5://{place}", "never"),
        (lambda sock: sock.sendall(b"\5\0\5\5\0\1"), "socks5://{place}", "later"),
    ],
)
def test_a_refusal_says_whether_another_attempt_can_help(script: Script, proxy: str, retry: str) -> None:
    with scripted(script) as server:
        transport = open_transport(BROKER, proxy=proxy.format(place=f"{HOST}:{server.port}"))
        with pytest.raises(ConnectFailedError) as caught:
            transport.open(soon())
        assert caught.value.retry == retry


def test_wrong_credentials_are_told_apart_from_missing_ones() -> None:
    text = opened(answer_http(b"HTTP/1.0 407 No"), "http://me:s3cret@{place}")
    assert text.endswith("it answered 407 No; it does not accept this user name and password")


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        (b"Proxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM", "Negotiate or NTLM"),
        (b"proxy-authenticate: NTLM TlRMTVNTUAAC==, Negotiate", "NTLM or Negotiate"),
        (b'Proxy-Authenticate: Digest realm="a, b", nonce="x"', "Digest"),
    ],
)
def test_a_proxy_that_wants_what_we_do_not_speak_says_so(headers: bytes, wanted: str) -> None:
    for proxy in ("http://{place}", "http://me:s3cret@{place}"):
        text = opened(answer_http(b"HTTP/1.1 407 Denied\r\n" + headers), proxy)
        assert (
            f"it answered 407 Denied; it wants {wanted}, and this client speaks only Basic: run a helper"
            in text
        )
        assert "cntlm" in text


def test_a_proxy_that_takes_basic_besides_wants_a_user_name() -> None:
    both = b'HTTP/1.1 407 Denied\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: Basic realm="x"'
    assert "give it a user name and a password it knows" in opened(answer_http(both), "http://{place}")


@pytest.mark.parametrize(("wrong", "right"), [("sock5", "socks5"), ("https", "http"), ("socks4b", "socks4")])
def test_a_misspelt_kind_of_proxy_is_recognised(wrong: str, right: str) -> None:
    with pytest.raises(ArgumentError, match=f"is not one of the kinds http, .*; did you mean '{right}"):
        open_transport(BROKER, proxy=f"{wrong}://{HOST}:1")


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 2000 x\r\n\r\n", b"HTTP/1.1 OK\r\n\r\n"])
def test_a_server_that_is_no_http_proxy_is_quoted(answer: bytes) -> None:
    def script(sock: socket.socket) -> None:
        sock.sendall(answer)
        take_head(sock)

    text = opened(script, "http://{place}")
    assert repr(answer)[1:10] in text
    assert "not how an HTTP proxy answers" in text


def test_endless_http_headers_are_cut_off() -> None:
    def flood(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000)

    assert "not how an HTTP proxy answers" in opened(flood, "http://{place}")


@pytest.mark.parametrize(
    ("answer", "said", "advice"),
    [
        ("05 ff", "rejected", "user name and a password"),
        ("05 02", "requested username/password", "user name and a password"),
        ("05 00 05 05 00 01", "refused", "check the broker's host and port"),
        ("05 00 05 02 00 01", "not allowed", "whether the proxy allows them"),
        ("05 00 05 99 00 01", "Unknown error", "check the broker's host and port"),
        ("05 00 05 00 00 77", "invalid data", "not how a socks5 proxy answers"),
        ("48 54", "invalid data", "not how a socks5 proxy answers"),
    ],
)
def test_a_refusal_by_socks5_says_what_and_what_to_do(answer: str, said: str, advice: str) -> None:
    def script(sock: socket.socket) -> None:
        sock.sendall(bytes.fromhex(answer))
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(100):
            pass
        raise EOFError

    text = opened(script)
    assert text.startswith("cannot connect to broker.example:1883 through socks5://PROXY: it answered")
    assert said in text
    assert advice in text


def test_a_refusal_by_socks4_says_what_and_what_to_do() -> None:
    def script(sock: socket.socket) -> None:
        take(sock, 24)
        sock.sendall(bytes.fromhex("00 5b 0000 00000000"))

    text = opened(script, "socks4a://{place}")
    assert "rejected or failed" in text
    assert "whether the proxy allows them" in text


def test_user_and_password_reach_a_socks5_proxy() -> None:
    def script(sock: socket.socket) -> None:
        assert take(sock, 4) == b"\5\2\0\2"
        sock.sendall(b"\5\2")
        assert take(sock, 12) == b"\1\2me\7s3cr@t!"
        sock.sendall(b"\1\0")
        take(sock, 21)
        sock.sendall(SOCKS5_YES[2:])

    assert opened(script, "socks5h://me:s3cr%40t!@{place}") == ""


def test_wrong_credentials_for_a_socks5_proxy_are_an_error() -> None:
    def script(sock: socket.socket) -> None:
        take(sock, 4)
        sock.sendall(b"\5\2")
        take(sock, 12)
        sock.sendall(b"\1\1")

    text = opened(script, "socks5://me:s3cr%40t!@{place}")
    assert "authentication failed" in text
    assert "s3cr" not in text


def test_user_and_password_reach_an_http_proxy() -> None:
    heads: list[bytes] = []

    def script(sock: socket.socket) -> None:
        heads.append(take_head(sock))
        sock.sendall(HTTP_YES)

    assert opened(script, "http://me:s3cret@{place}", "mqtt://[2001:db8::7]:99") == ""
    secret = base64.b64encode(b"me:s3cret")
    assert heads == [
        b"CONNECT [2001:db8::7]:99 HTTP/1.1\r\nHost: [2001:db8::7]:99\r\n"
        b"Proxy-Authorization: Basic " + secret + b"\r\n\r\n"
    ]


def test_a_numeric_host_goes_to_the_socks5_proxy_as_a_number() -> None:
    def script(sock: socket.socket) -> None:
        take(sock, 3)
        sock.sendall(b"\5\0")
        assert take(sock, 22) == b"\5\1\0\4" + socket.inet_pton(socket.AF_INET6, "2001:db8::7") + b"\0c"
        sock.sendall(SOCKS5_YES[2:])

    assert opened(script, url="mqtt://[2001:db8::7]:99") == ""


@pytest.mark.parametrize(("proxy", "greeting"), [("socks4://{place}", 0), ("socks5://{place}?rdns=0", 3)])
def test_a_name_can_be_looked_up_here(proxy: str, greeting: int, monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, port: int, **options: Any) -> Any:
        if host == b"broker.example":
            return addresses(("192.0.2.7", 1883))(host, port)
        return look_up(host, port, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    def script(sock: socket.socket) -> None:
        if greeting:
            take(sock, greeting)
            sock.sendall(b"\5\0")
            assert take(sock, 10) == b"\5\1\0\1\xc0\0\2\7\x07\x5b"
            sock.sendall(SOCKS5_YES[2:])
        else:
            assert take(sock, 9) == b"\4\1\x07\x5b\xc0\0\2\7\0"
            sock.sendall(SOCKS4_YES)

    assert opened(script, proxy) == ""


def test_a_name_that_cannot_be_looked_up_here_is_not_blamed_on_the_proxy(mocker: MockerFixture) -> None:
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    mocker.patch("device_sdk.net.proxy.look_up", side_effect=unknown)

    def wait(sock: socket.socket) -> None:
        sock.recv(1)
        raise EOFError

    assert "no address for the broker's name" in opened(wait, "socks4://{place}")


def test_a_look_up_here_that_hangs_is_not_blamed_on_the_proxy(mocker: MockerFixture) -> None:
    mocker.patch("device_sdk.net.proxy.look_up", side_effect=LookUpTimeout("10 s"))

    def wait(sock: socket.socket) -> None:
        sock.recv(1)
        raise EOFError

    text = opened(wait, "socks5://{place}?rdns=0")
    assert "the look-up of the broker's name has not ended after 10 s: see /etc/resolv.conf" in text


@pytest.mark.parametrize(
    ("proxy", "problem"),
    [
        ("proxy.example:1080", "no scheme"),
        ("https://proxy.example", "kinds"),
        ("ftp://me:s3cret@proxy.example", "kinds"),
        ("socks5://", "must be scheme"),
        ("socks5://h/path", "must be scheme"),
        ("socks5://h?colour=red", "must be scheme"),
        ("socks5://h?rdns=2", "rdns"),
        ("http://h?rdns=0", "rdns"),
        ("socks4://h", "IPv6"),
        ("http://a%3Ab:c@h", "':'"),
        ("socks5://me@h", "user name and a password"),
        (f"socks5://me:{'x' * 128}@h", "1..127"),
    ],
)
def test_a_proxy_that_can_never_work_is_an_argument_error(proxy: str, problem: str) -> None:
    with pytest.raises(ArgumentError, match=problem) as caught:
        open_transport("mqtt://[::1]", proxy=proxy)
    assert caught.value.argument == "proxy"
    assert "write for example" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_proxy_of_another_type_is_a_type_error() -> None:
    with pytest.raises(ArgumentTypeError, match="proxy: must be a str"):
        ProxyTransport(parse_url(BROKER), proxy=8080)  # type: ignore[arg-type]


def test_the_description_names_the_proxy_and_no_secret() -> None:
    transport = open_transport(BROKER, proxy="socks5://me:s3cret@proxy.example")
    assert transport.description == "tcp broker.example:1883 through socks5://proxy.example:1080"


def test_a_missing_extra_is_told_when_the_transport_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "device_sdk.net.socks", None)
    with pytest.raises(ImportError):
        open_transport(BROKER, proxy="socks5://h")
    assert isinstance(open_transport(BROKER, proxy="http://h"), ProxyTransport)


def test_pysocks_that_is_not_installed_is_a_missing_dependency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socks", None)
    monkeypatch.delitem(sys.modules, "device_sdk.net.socks", raising=False)
    with pytest.raises(MissingDependency, match="pip install 'PySocks>="):
        open_transport(BROKER, proxy="socks5://h")


# The environment.


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("mqtt_proxy", "no_proxy", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


def test_the_environment_names_a_proxy_as_paho_reads_it(clean_environment: pytest.MonkeyPatch) -> None:
    clean_environment.setenv("mqtt_proxy", "socks://proxy.example:99")
    transport = open_transport(BROKER)
    assert transport.description == "tcp broker.example:1883 through socks://proxy.example:99"
    clean_environment.setenv("no_proxy", "example")
    assert isinstance(open_transport(BROKER), TcpTransport)
    assert "through" not in open_transport(BROKER).description


def test_an_option_goes_before_the_environment(clean_environment: pytest.MonkeyPatch) -> None:
    clean_environment.setenv("mqtt_proxy", "http://ignored.example")
    assert "through http://h:8080" in open_transport(BROKER, proxy="http://h").description
    assert "through" not in open_transport(BROKER, proxy="").description


def test_a_variable_that_makes_no_sense_is_an_error_and_not_a_direct_connection(
    clean_environment: pytest.MonkeyPatch,
) -> None:
    clean_environment.setenv("MQTT_PROXY", "https://proxy.example")
    with pytest.raises(ArgumentError, match=r"kinds.*mqtt_proxy|mqtt_proxy|kinds"):
        open_transport(BROKER)


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "all_proxy", "ALL_PROXY"])
def test_variables_for_other_protocols_are_not_read(name: str, clean_environment: pytest.MonkeyPatch) -> None:
    clean_environment.setenv(name, "http://proxy.example:8080")
    assert "through" not in open_transport(BROKER).description


@pytest.mark.parametrize("host", ["broker.example", "BROKER.example", "example", "notexample", "10.0.0.1"])
@pytest.mark.parametrize(
    "exempt",
    ["", "*", "example", ".example", "broker.example", "roker.example", "a, example ,b", "x,*",
     "broker.example:1883", "broker.example:99", "10.0.0.1", "10.0.0.", ",", "EXAMPLE"],
)  # fmt: skip
def test_no_proxy_exempts_what_the_standard_library_exempts(
    host: str, exempt: str, clean_environment: pytest.MonkeyPatch
) -> None:
    clean_environment.setenv("mqtt_proxy", "http://proxy.example")
    clean_environment.setenv("no_proxy", exempt)
    direct = bool(urllib.request.proxy_bypass_environment(f"{host}:1883"))  # type: ignore[attr-defined]
    if exempt == "x,*":  # the library knows the star only alone; in a list it would be sent out by surprise
        direct = True
    assert (proxy_from_environment(f"{host}:1883") is None) == direct


# A proxy that others wrote.


class RealProxy:
    """pproxy in a thread with a loop of its own."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        started: SimpleQueue[int] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(url, started), daemon=True)
        self._thread.start()
        self.port = started.get(timeout=PATIENCE)

    def _run(self, url: str, started: SimpleQueue[int]) -> None:
        asyncio.set_event_loop(self._loop)
        server = pproxy.Server(url)
        # authtime: it would remember for a month that somebody from our address knew the password.
        direct = [pproxy.Connection("direct")]
        options = {"rserver": direct, "verbose": lambda text: None, "authtime": -1}
        handler = self._loop.run_until_complete(server.start_server(options))
        started.put(handler.sockets[0].getsockname()[1])
        self._loop.run_forever()
        handler.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(handler.wait_closed())
        self._loop.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)


@contextmanager
def real_proxy(url: str) -> Iterator[RealProxy]:
    proxy = RealProxy(url)
    try:
        yield proxy
    finally:
        proxy.close()


@pytest.mark.parametrize("scheme", ["socks4", "socks5", "http"])  # pproxy has no SOCKS4a
def test_a_real_proxy_carries_data_both_ways(scheme: str) -> None:
    with real_proxy(f"{scheme}://{HOST}:0/") as proxy, scripted(lambda sock: None) as broker:
        url = f"mqtt://localhost:{broker.port}"
        transport = open_transport(url, proxy=f"{scheme}://{HOST}:{proxy.port}")
        transport.open(soon())
        peer = broker.accept()
        data = bytes(range(256)) * 100
        send_all(transport, data)
        assert receive(peer, len(data)) == data
        send_all(peer, data)
        assert receive(transport, len(data)) == data
        transport.close()
        assert receive(peer, 1) == b""
        peer.close()
