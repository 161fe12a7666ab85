"""FaultProxy between plain sockets and an echo server."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from device_sdk.errors import ArgumentError
from device_sdk.testing import FaultProxy

PATIENCE = 10.0
HOST = "127.0.0.1"


class EchoServer:
    """Returns what it gets, one thread per connection; half-closes when its client does."""

    def __init__(self, prefix: bytes = b"") -> None:
        self.prefix = prefix
        self.listener = socket.create_server((HOST, 0))
        self.port: int = self.listener.getsockname()[1]
        self.threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self._start(self._echo, sock)

    def _echo(self, sock: socket.socket) -> None:
        with sock:
            sock.settimeout(PATIENCE)
            try:
                sock.sendall(self.prefix)
                while data := sock.recv(65536):
                    sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def proxy(stack: ExitStack) -> FaultProxy:
    server = EchoServer()
    stack.callback(server.close)
    return stack.enter_context(FaultProxy(HOST, server.port))


Connect = Callable[[], socket.socket]


@pytest.fixture
def connect(proxy: FaultProxy, stack: ExitStack) -> Connect:
    return lambda: stack.enter_context(socket.create_connection((proxy.host, proxy.port), PATIENCE))


def receive(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := sock.recv(count - len(data))):
        data += more
    return data


def echoed(sock: socket.socket, data: bytes) -> bytes:
    sock.sendall(data)
    return receive(sock, len(data))


def readable(sock: socket.socket, seconds: float) -> bool:
    return bool(select.select([sock], [], [], seconds)[0])


def test_it_forwards_both_ways_and_counts(proxy: FaultProxy, connect: Connect) -> None:
    one, other = connect(), connect()
    assert echoed(one, b"first") == b"first"
    assert echoed(other, b"second!") == b"second!"
    assert (proxy.connections, proxy.bytes_up, proxy.bytes_down) == (2, 12, 12)


def test_it_listens_on_loopback_only_by_default() -> None:
    assert FaultProxy(HOST, 1883).host == "127.0.0.1"


def test_an_end_of_stream_is_a_half_close(connect: Connect) -> None:
    client = connect()
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    assert receive(client, 100) == b"last words"


def test_a_reset_by_the_client_reaches_the_target(stack: ExitStack) -> None:
    listener = stack.enter_context(socket.create_server((HOST, 0)))
    listener.settimeout(PATIENCE)
    proxy = stack.enter_context(FaultProxy(HOST, listener.getsockname()[1]))
    client = socket.create_connection((HOST, proxy.port), PATIENCE)
    client.sendall(b"x")
    server, _ = listener.accept()
    stack.enter_context(server)
    server.settimeout(PATIENCE)
    assert server.recv(1) == b"x"
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    with pytest.raises(ConnectionResetError):
        server.recv(1)


def test_a_target_that_refuses_resets_the_client(stack: ExitStack) -> None:
    refusing = stack.enter_context(socket.socket())  # bound, so the port is nobody else's, but not listening
    refusing.bind((HOST, 0))
    proxy = stack.enter_context(FaultProxy(HOST, refusing.getsockname()[1]))
    with pytest.raises(ConnectionResetError):  # by either of the two: the reset may come that early
        stack.enter_context(socket.create_connection((HOST, proxy.port), PATIENCE)).recv(1)


def test_a_receiver_that_does_not_read_stops_its_sender(stack: ExitStack) -> None:
    listener = stack.enter_context(socket.create_server((HOST, 0)))
    proxy = stack.enter_context(FaultProxy(HOST, listener.getsockname()[1]))
    client = stack.enter_context(socket.create_connection((HOST, proxy.port), PATIENCE))
    client.settimeout(0.2)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 256 << 20:
            sent += client.send(bytes(1 << 20))
    server, _ = listener.accept()
    stack.enter_context(server)
    server.settimeout(PATIENCE)
    client.shutdown(socket.SHUT_WR)
    received = 0
    while data := server.recv(1 << 20):
        received += len(data)
    assert received == sent == proxy.bytes_up


def test_a_large_payload_arrives_whole(connect: Connect) -> None:
    client = connect()
    data = os.urandom(1 << 20)
    sender = threading.Thread(target=client.sendall, args=(data,), daemon=True)
    sender.start()
    assert receive(client, len(data)) == data
    sender.join(PATIENCE)


def test_a_cut_ends_connections_in_order_and_refuses_new_ones(proxy: FaultProxy, connect: Connect) -> None:
    client = connect()
    assert echoed(client, b"x") == b"x"
    proxy.cut()
    assert client.recv(1) == b""
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            connect()
    proxy.cut()


def test_a_cut_is_no_reset_even_with_data_under_way(proxy: FaultProxy, connect: Connect) -> None:
    client = connect()
    assert echoed(client, b"x") == b"x"
    proxy.stall()
    client.sendall(b"never forwarded")
    proxy.cut()
    assert client.recv(1) == b""


def test_restore_listens_again_on_the_same_port(proxy: FaultProxy, connect: Connect) -> None:
    port = proxy.port
    for _ in range(3):
        proxy.cut()
        proxy.restore()
        assert echoed(connect(), b"back") == b"back"
    proxy.restore()
    assert proxy.port == port


def test_reset_resets_every_connection_and_welcomes_new_ones(proxy: FaultProxy, connect: Connect) -> None:
    clients = [connect(), connect()]
    assert [echoed(client, b"x") for client in clients] == [b"x", b"x"]
    proxy.reset()
    for client in clients:
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert echoed(connect(), b"new") == b"new"


def test_a_stall_swallows_nothing_and_lets_clients_connect(proxy: FaultProxy, connect: Connect) -> None:
    client = connect()
    assert echoed(client, b"x") == b"x"
    proxy.stall()
    late = connect()
    for sock in (client, late):
        sock.sendall(b"held")
        assert not readable(sock, 0.02)
    assert (proxy.bytes_up, proxy.connections) == (1, 1)
    proxy.resume()
    assert [receive(sock, 4) for sock in (client, late)] == [b"held", b"held"]


def test_a_reset_during_a_stall_includes_those_who_wait(proxy: FaultProxy, connect: Connect) -> None:
    proxy.stall()
    client = connect()
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_a_delay_holds_every_chunk_for_that_long_each_way(proxy: FaultProxy, connect: Connect) -> None:
    client = connect()
    assert echoed(client, b"x") == b"x"
    proxy.delay(0.05)
    before = time.monotonic()
    assert echoed(client, b"slow") == b"slow"
    assert time.monotonic() - before >= 0.1
    client.sendall(b"in ")
    proxy.delay(0)
    client.sendall(b"order")
    client.shutdown(socket.SHUT_WR)
    assert receive(client, 100) == b"in order"


def test_split_writes_few_bytes_at_a_time(
    proxy: FaultProxy, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    send = socket.socket.send

    def spy(sock: socket.socket, data: bytes) -> int:
        if threading.current_thread().name == "fault-proxy":
            sizes.append(len(data))
        return send(sock, data)

    monkeypatch.setattr(socket.socket, "send", spy)
    client = connect()
    proxy.split(3)
    assert echoed(client, b"0123456789") == b"0123456789"
    assert max(sizes) == 3
    assert sum(sizes) == 20
    proxy.split(None)
    assert echoed(client, b"0123456789") == b"0123456789"
    assert max(sizes) == 10


@pytest.mark.parametrize("count", range(6))
def test_drop_after_lets_exactly_so_many_bytes_down(proxy: FaultProxy, connect: Connect, count: int) -> None:
    client, bystander = connect(), connect()
    assert echoed(client, b"x") == b"x"
    proxy.drop_after(count, "down")
    client.sendall(b"012345")
    assert receive(client, count) == b"012345"[:count]
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert proxy.bytes_down == 1 + count
    assert echoed(bystander, b"unharmed") == b"unharmed"


def test_drop_after_counts_upwards_too(proxy: FaultProxy, connect: Connect) -> None:
    client = connect()
    proxy.drop_after(4)
    assert echoed(client, b"012") == b"012"
    client.sendall(b"345")
    with pytest.raises(ConnectionResetError):
        while client.recv(10):
            pass
    assert proxy.bytes_up == 4


def test_drop_after_is_not_triggered_by_an_end_of_stream(proxy: FaultProxy, connect: Connect) -> None:
    client = connect()
    proxy.drop_after(0, "up")
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""


def test_retarget_moves_the_clients_that_come_later(
    proxy: FaultProxy, connect: Connect, stack: ExitStack
) -> None:
    other = EchoServer(prefix=b"other:")
    stack.callback(other.close)
    old = connect()
    assert echoed(old, b"x") == b"x"
    proxy.retarget("localhost", other.port)
    new = connect()
    new.sendall(b"x")
    assert receive(new, 7) == b"other:x"
    assert echoed(old, b"x") == b"x"


def test_stopping_closes_everything_and_it_can_start_again() -> None:
    server = EchoServer()
    before = len(os.listdir("/proc/self/fd"))
    proxy = FaultProxy(HOST, server.port)
    ports = set()
    for _ in range(3):
        with proxy, socket.create_connection((HOST, proxy.port), PATIENCE) as client:
            assert echoed(client, b"x") == b"x"
            ports.add(proxy.port)
        proxy.stop()
        assert "fault-proxy" not in [thread.name for thread in threading.enumerate()]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, proxy.port), PATIENCE)
    server.close()
    assert len(ports) == 1
    assert len(os.listdir("/proc/self/fd")) < before


def test_a_fault_needs_a_running_proxy() -> None:
    proxy = FaultProxy(HOST, 1883)
    with pytest.raises(RuntimeError, match="start"):
        proxy.cut()
    with proxy, pytest.raises(RuntimeError, match="already"):
        proxy.start()


def test_a_taken_port_is_an_error_that_leaves_nothing_open() -> None:
    with socket.create_server((HOST, 0)) as taken:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="in use"):
            FaultProxy(HOST, 1883, listen_port=taken.getsockname()[1]).start()
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda proxy: proxy.delay(-1), "seconds"),
        (lambda proxy: proxy.delay(float("nan")), "seconds"),
        (lambda proxy: proxy.split(0), "count"),
        (lambda proxy: proxy.drop_after(-1), "count"),
        (lambda proxy: proxy.drop_after(1, "sideways"), "direction"),
        (lambda proxy: proxy.retarget(HOST, 65536), "port"),
    ],
)
def test_a_value_out_of_range_is_named(
    proxy: FaultProxy, call: Callable[[FaultProxy], None], argument: str
) -> None:
    with pytest.raises(ArgumentError, match=argument):
        call(proxy)
