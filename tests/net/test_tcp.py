"""TcpTransport: the contract, and what only TCP has."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pytest_mock import MockerFixture

from device_sdk.errors import ArgumentError, ConnectFailedError, TransportClosedError
from device_sdk.net.attempt import StreamLife
from device_sdk.net.base import ParsedUrl, Transport, parse_url
from device_sdk.net.tcp import TcpDialer, TcpTransport
from tests.net.transport_contract import PATIENCE, Peer, Rig, TransportContract, open_files, soon

HOST = "127.0.0.1"


class TcpPeer:
    """An accepted socket with the suite's verbs."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fileno = sock.fileno
        self.close = sock.close
        self._blocked = False

    def recv(self) -> bytes | None:
        try:
            return self.sock.recv(65536)
        except BlockingIOError:
            return None

    def send(self, data: bytes) -> int:
        try:
            taken = self.sock.send(data)
        except BlockingIOError:
            taken = 0
        self._blocked = taken < len(data)
        return taken

    def wants_write(self) -> bool:
        return self._blocked

    def flush(self) -> None:
        self._blocked = False

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class TcpRig(Rig):
    def __init__(self) -> None:
        self.listener = socket.create_server((HOST, 0))
        self.listener.settimeout(PATIENCE)
        self.transport = TcpTransport(ParsedUrl("mqtt", HOST, self.listener.getsockname()[1]))
        self.peers: list[TcpPeer] = []
        self.refusing = socket.socket()  # bound, so the port is nobody else's, but not listening
        self.refusing.bind((HOST, 0))

    def accept(self) -> Peer:
        sock, _ = self.listener.accept()
        sock.setblocking(False)
        self.peers.append(TcpPeer(sock))
        return self.peers[-1]

    def unreachable(self) -> Transport:
        return TcpTransport(ParsedUrl("mqtt", HOST, self.refusing.getsockname()[1]))

    @contextmanager
    def unresponsive(self) -> Iterator[Transport]:
        with full_listener() as port:
            yield TcpTransport(ParsedUrl("mqtt", HOST, port))

    def close(self) -> None:
        self.transport.close()
        for peer in self.peers:
            peer.close()
        self.listener.close()
        self.refusing.close()


@contextmanager
def full_listener() -> Iterator[int]:
    """Give a port that does not answer: the kernel drops a SYN when the backlog is full."""
    with socket.create_server((HOST, 0), backlog=1) as listener:
        waiting: list[socket.socket] = []
        try:
            for _ in range(3):
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(listener.getsockname())
            yield listener.getsockname()[1]
        finally:
            for sock in waiting:
                sock.close()


class TestTcpTransport(TransportContract):
    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        rig = TcpRig()
        yield rig
        rig.close()


@pytest.fixture
def rig() -> Iterator[TcpRig]:
    rig = TcpRig()
    yield rig
    rig.close()


def addresses(*found: tuple[str, int]) -> Any:
    """Return a stand-in for getaddrinfo that finds these."""

    def getaddrinfo(host: bytes, port: int, **options: int) -> list[Any]:
        families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address, _ in found]
        return [
            (family, socket.SOCK_STREAM, 6, "", place) for family, place in zip(families, found, strict=True)
        ]

    return getaddrinfo


def test_the_socket_options_are_set(rig: TcpRig) -> None:
    rig.connect()
    with socket.socket(fileno=socket.dup(rig.transport.fileno())) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 128 * 1024
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert not os.get_blocking(rig.transport.fileno())


def test_the_user_timeout_is_an_option(rig: TcpRig) -> None:
    port = rig.listener.getsockname()[1]
    transport = TcpTransport(ParsedUrl("mqtt", HOST, port), user_timeout=1.5)
    transport.open(soon())
    with socket.socket(fileno=socket.dup(transport.fileno())) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1500
    transport.close()
    with pytest.raises(ArgumentError, match="user_timeout"):
        TcpTransport(ParsedUrl("mqtt", HOST, port), user_timeout=-1)


def tcp_to(rig: TcpRig, **options: Any) -> TcpTransport:
    return TcpTransport(ParsedUrl("mqtt", HOST, rig.listener.getsockname()[1]), **options)


def opened_from(rig: TcpRig, **options: Any) -> tuple[str, int]:
    """Open with these options and return where the peer sees the connection come from."""
    transport = tcp_to(rig, **options)
    transport.open(soon())
    rig.accept()
    origin: tuple[str, int] = rig.peers[-1].sock.getpeername()
    rig.peers[-1].reset()  # no TIME_WAIT
    transport.close()
    return origin


def test_the_local_address_and_port_are_an_option(rig: TcpRig) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.2", 0))
        port = sock.getsockname()[1]
    assert opened_from(rig, bind="127.0.0.2")[0] == "127.0.0.2"
    assert opened_from(rig, bind=("127.0.0.2", 0))[0] == "127.0.0.2"
    assert opened_from(rig, bind=f"127.0.0.2:{port}") == ("127.0.0.2", port)
    assert opened_from(rig, bind=("", port)) == (HOST, port)
    assert opened_from(rig, bind=f":{port}") == (HOST, port)
    assert opened_from(rig, bind="0.0.0.0")[0] == HOST


def test_a_local_address_settles_the_family(monkeypatch: pytest.MonkeyPatch) -> None:
    families: list[int] = []

    def getaddrinfo(host: bytes, port: int, *, family: int, type: int) -> list[Any]:
        families.append(family)
        raise socket.gaierror(socket.EAI_ADDRFAMILY, "no")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    for bind, name in (("[::]:0", "IPv6"), ("::1", "IPv6"), ("127.0.0.1", "IPv4")):
        with pytest.raises(ConnectFailedError, match=f"no {name} address .* allows {name} only"):
            TcpTransport(ParsedUrl("mqtt", "broker.example", 1), bind=bind).open(soon())
    assert families == [socket.AF_INET6, socket.AF_INET6, socket.AF_INET]


def test_a_local_address_that_is_not_ours_is_named(rig: TcpRig) -> None:
    with pytest.raises(ConnectFailedError, match=r"bind 192\.0\.2\.9 port 0: Cannot assign"):
        tcp_to(rig, bind="192.0.2.9").open(soon())


@pytest.mark.parametrize(
    "bind",
    ["eth0", "127.0.0.1:x", "127.0.0.1:65536", "[::1", "[::1]5", "[127.0.0.1.1]", "::1:", "127.0.0.1]:5",
     ("127.0.0.1", "1"), ("::1", -1), (None, 1), ("127.0.0.1", True), ("a\0b", 1), 5, ("x",)],
)  # fmt: skip
def test_a_local_address_that_cannot_be_is_an_argument_error(bind: Any) -> None:
    with pytest.raises(ArgumentError, match="write for example") as caught:
        TcpTransport(ParsedUrl("mqtt", HOST, 1), bind=bind)
    assert caught.value.argument == "bind"


def test_the_interface_is_an_option(rig: TcpRig) -> None:
    try:
        assert opened_from(rig, interface="lo")[0] == HOST
    except ConnectFailedError as error:
        assert "CAP_NET_RAW" in str(error)


def test_an_unknown_interface_lists_those_there_are(rig: TcpRig) -> None:
    with pytest.raises(ConnectFailedError, match=r"interface nosuch0: No such device; there are: .*\blo\b"):
        tcp_to(rig, interface="nosuch0").open(soon())


def test_a_missing_right_to_choose_the_interface_is_named(
    rig: TcpRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = socket.socket.setsockopt

    def refuse(sock: socket.socket, level: int, option: int, value: Any) -> None:
        if option == socket.SO_BINDTODEVICE and level == socket.SOL_SOCKET:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        allowed(sock, level, option, value)

    monkeypatch.setattr(socket.socket, "setsockopt", refuse)
    with pytest.raises(ConnectFailedError, match=r"interface lo: Operation not permitted; .*CAP_NET_RAW"):
        tcp_to(rig, interface="lo").open(soon())


@pytest.mark.parametrize("interface", ["", "a" * 16, "a\0b", 5])
def test_an_interface_that_cannot_be_is_an_argument_error(interface: Any) -> None:
    with pytest.raises(ArgumentError, match="interface"):
        TcpTransport(ParsedUrl("mqtt", HOST, 1), interface=interface)


def test_the_probes_of_an_idle_connection_are_an_option(rig: TcpRig) -> None:
    transport = tcp_to(rig, tcp_keepalive=(60, 10, 5))
    transport.open(soon())
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    with socket.socket(fileno=socket.dup(transport.fileno())) as sock:
        assert [sock.getsockopt(socket.IPPROTO_TCP, name) for name in names] == [60, 10, 5]
    transport.close()


@pytest.mark.parametrize(
    "values", [(60, 10), (0, 1, 1), (1, 1, 128), (32768, 1, 1), (1.5, 1, 1), 60, (True, 1, 1)]
)
def test_probes_that_cannot_be_are_an_argument_error(values: Any) -> None:
    with pytest.raises(ArgumentError, match="tcp_keepalive"):
        TcpTransport(ParsedUrl("mqtt", HOST, 1), tcp_keepalive=values)


def test_a_kernel_without_one_of_the_options_still_connects(rig: TcpRig, mocker: MockerFixture) -> None:
    mocker.patch("socket.socket.setsockopt", side_effect=OSError(errno.ENOPROTOOPT, "Protocol not available"))
    rig.connect()


def test_a_second_address_is_tried_when_the_first_refuses(
    rig: TcpRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = rig.listener.getsockname()
    monkeypatch.setattr(socket, "getaddrinfo", addresses(("127.0.0.2", good[1]), good))
    rig.connect()


def test_the_families_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    found = addresses(("::1", 9), ("::2", 9), ("::3", 9), ("192.0.2.1", 9), ("192.0.2.2", 9))
    monkeypatch.setattr(socket, "getaddrinfo", found)
    dialer = TcpDialer()
    with StreamLife().begin("tcp") as attempt:
        turns = dialer._look_up("broker.example", 9, "broker.example:9", attempt, soon())
    assert [address[0] for _, address in turns] == [
        "::1", "192.0.2.1", "::2", "192.0.2.2", "::3",
    ]  # fmt: skip


def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    rig: TcpRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with full_listener() as silent:
        monkeypatch.setattr(socket, "getaddrinfo", addresses((HOST, silent), rig.listener.getsockname()))
        rig.transport.open(time.monotonic() + 0.2)
        rig.accept()


def test_a_failure_tells_what_each_address_said(rig: TcpRig, monkeypatch: pytest.MonkeyPatch) -> None:
    with full_listener() as silent:
        found = addresses(rig.refusing.getsockname(), (HOST, silent))
        monkeypatch.setattr(socket, "getaddrinfo", found)
        transport = TcpTransport(ParsedUrl("mqtt", "broker.example", 1883))
        with pytest.raises(ConnectFailedError) as caught:
            transport.open(time.monotonic() + 0.05)
    assert str(caught.value) == (
        "cannot connect to broker.example:1883: 127.0.0.1: Connection refused (ECONNREFUSED); "
        "127.0.0.1: Connection timed out (ETIMEDOUT)"
    )


@pytest.mark.parametrize("host", ["no-such-host.invalid", "ü" * 80])
def test_a_name_without_an_address_is_named(host: str, mocker: MockerFixture) -> None:
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    mocker.patch("socket.getaddrinfo", side_effect=unknown)
    before = open_files()
    with pytest.raises(ConnectFailedError, match=f"no address for '{host}': ."):
        TcpTransport(ParsedUrl("mqtt", host, 1883)).open(soon())
    assert open_files() == before


def test_an_abandoned_name_look_up_does_not_disturb_the_next_open(
    rig: TcpRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, release = threading.Event(), threading.Event()
    found = addresses(rig.listener.getsockname())

    def slow(*args: Any, **options: Any) -> Any:
        if not entered.is_set():
            entered.set()
            assert release.wait(PATIENCE)
        return found(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    errors: list[Exception] = []

    def attempt() -> None:
        try:
            rig.transport.open(soon())
        except TransportClosedError as error:
            errors.append(error)

    abandoned = threading.Thread(target=attempt, daemon=True)
    abandoned.start()
    assert entered.wait(PATIENCE)
    rig.transport.abort()
    rig.transport.close()
    peer = rig.connect()
    release.set()
    abandoned.join(PATIENCE)
    assert len(errors) == 1
    assert rig.transport.send(b"fine") == 4
    rig.peers[-1].sock.setblocking(True)
    rig.peers[-1].sock.settimeout(PATIENCE)
    assert peer.recv() == b"fine"


def test_an_abort_in_the_last_moment_of_open_still_counts(
    rig: TcpRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def abort_and_answer(sock: socket.socket) -> str:
        rig.transport.abort()
        return "the connection is established"

    monkeypatch.setattr(socket.socket, "getpeername", abort_and_answer)
    before = open_files()
    with pytest.raises(TransportClosedError, match="aborted"):
        rig.transport.open(soon())
    assert open_files() == before


def test_running_out_of_descriptors_is_a_connect_failure(rig: TcpRig, mocker: MockerFixture) -> None:
    mocker.patch("os.eventfd", side_effect=OSError(errno.EMFILE, "Too many open files"))
    with pytest.raises(ConnectFailedError, match="Too many open files"):
        rig.transport.open(soon())
    mocker.stopall()
    rig.connect()


def test_a_connection_to_itself_counts_as_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "getpeername", socket.socket.getsockname)
    with socket.create_server((HOST, 0)) as listener:
        transport = TcpTransport(ParsedUrl("mqtt", HOST, listener.getsockname()[1]))
        with pytest.raises(ConnectFailedError, match="ECONNREFUSED"):
            transport.open(soon())


def test_ipv6_works_where_the_machine_has_it() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback address")
    with listener:
        transport = TcpTransport(parse_url(f"mqtt://[::1]:{listener.getsockname()[1]}"))
        transport.open(soon())
        assert transport.description == f"tcp [::1]:{listener.getsockname()[1]}"
        transport.close()


@pytest.mark.parametrize("url", ["mqtt://broker.example/path", "mqtt://broker.example?x=1"])
def test_url_parts_that_mean_nothing_to_tcp_are_an_error(url: str) -> None:
    with pytest.raises(ArgumentError, match="url"):
        TcpTransport(parse_url(url))


def test_a_scheme_without_a_port_needs_one() -> None:
    with pytest.raises(ArgumentError, match="port"):
        TcpTransport(ParsedUrl("special", "broker.example"))
