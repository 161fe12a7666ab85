"""PtyLine: what passes, what the faults do, and that no connection ever gets bytes of two openings."""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from device_sdk.errors import ArgumentError
from device_sdk.testing.pty_line import PtyLine

PATIENCE = 10.0


class Gateway:
    """The far side: a TCP server, one connection after the other."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self.listener.settimeout(PATIENCE)
        self.port: int = self.listener.getsockname()[1]
        self.connections: list[socket.socket] = []

    def accept(self) -> socket.socket:
        connection, _ = self.listener.accept()
        connection.settimeout(PATIENCE)
        self.connections.append(connection)
        return connection

    def nobody_waits(self) -> bool:
        return not select.select([self.listener], [], [], 0)[0]

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        self.listener.close()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    gateway = Gateway()
    yield gateway
    gateway.close()


@pytest.fixture
def line(gateway: Gateway) -> Iterator[PtyLine]:
    with PtyLine("127.0.0.1", gateway.port) as line:
        yield line


class Device:
    """A program with the port open, as a serial program opens it: raw, and its input discarded."""

    def __init__(self, line: PtyLine) -> None:
        self.fd = os.open(line.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            tty.setraw(self.fd, termios.TCSANOW)
            termios.tcflush(self.fd, termios.TCIFLUSH)
        except termios.error:  # hung up
            os.close(self.fd)
            raise

    def write(self, data: bytes) -> None:
        until = time.monotonic() + PATIENCE
        while data:
            assert time.monotonic() < until, "no room came"
            select.select([], [self.fd], [], PATIENCE)
            with suppress(BlockingIOError):
                data = data[os.write(self.fd, data) :]

    def read(self, count: int) -> bytes:
        """Return so many bytes, or fewer when the port is hung up."""
        received = b""
        while len(received) < count:
            assert select.select([self.fd], [], [], PATIENCE)[0], f"only {received!r} came"
            with suppress(BlockingIOError):
                data = os.read(self.fd, count - len(received))
                if not data:
                    break
                received += data
        return received

    def close(self) -> None:
        os.close(self.fd)


@pytest.fixture
def device(line: PtyLine) -> Iterator[Device]:
    device = Device(line)
    yield device
    device.close()


def exactly(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count and (data := connection.recv(count - len(received))):
        received += data
    return received


def to_the_end(connection: socket.socket) -> bytes:
    """Everything until the connection ends; a reset is an end too."""
    received = b""
    with suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    return received


# Carrying bytes


def test_bytes_pass_both_ways_and_are_counted(line: PtyLine, device: Device, gateway: Gateway) -> None:
    everything = bytes(range(256)) * 200
    device.write(everything[:1])
    connection = gateway.accept()
    device.write(everything[1:])
    assert exactly(connection, len(everything)) == everything
    connection.sendall(everything[:5000])
    assert device.read(5000) == everything[:5000]
    assert (line.connections, line.bytes_up, line.bytes_down) == (1, len(everything), 5000)


def test_a_connection_is_made_for_the_first_byte_only(
    line: PtyLine, device: Device, gateway: Gateway
) -> None:
    assert line.connections == 0
    device.write(b"x")
    gateway.accept()
    assert line.connections == 1 and gateway.nobody_waits()


def test_the_url_leads_to_the_device(line: PtyLine) -> None:
    assert line.url == f"serial://{line.path}?baud=115200"
    assert os.readlink(line.path).startswith("/dev/pts/")


def test_the_device_may_appear_where_the_test_wants_it(gateway: Gateway, tmp_path: Path) -> None:
    with PtyLine("127.0.0.1", gateway.port, path=tmp_path / "by-id") as line:
        assert line.path == tmp_path / "by-id"
        assert line.path.is_symlink()
    assert list(tmp_path.iterdir()) == []


# Openings and connections


def test_an_unplugged_device_is_hung_up_and_its_name_is_gone(
    line: PtyLine, device: Device, gateway: Gateway
) -> None:
    device.write(b"half")
    connection = gateway.accept()
    assert exactly(connection, 4) == b"half"
    line.unplug()
    line.unplug()
    assert not line.path.exists() and not line.path.is_symlink()
    assert device.read(1) == b""
    with pytest.raises(OSError, match=re.escape(os.strerror(errno.EIO))):
        os.write(device.fd, b"x")
    assert to_the_end(connection) == b""


def test_half_a_packet_before_an_unplug_is_not_glued_to_what_follows(
    line: PtyLine, device: Device, gateway: Gateway
) -> None:
    device.write(b"half")
    first = gateway.accept()
    line.unplug()
    line.plug()
    line.plug()
    again = Device(line)
    again.write(b"whole")
    second = gateway.accept()
    assert exactly(second, 5) == b"whole"
    assert to_the_end(first) in (b"half", b"hal", b"ha", b"h", b"")
    again.close()


def test_a_device_that_is_closed_ends_the_connection_after_its_last_bytes(
    line: PtyLine, gateway: Gateway
) -> None:
    device = Device(line)
    device.write(b"good" + b"bye!" * 2000)
    device.close()
    assert to_the_end(gateway.accept()) == b"good" + b"bye!" * 2000


def test_a_device_that_is_opened_again_gets_a_new_connection(line: PtyLine, gateway: Gateway) -> None:
    for word in (b"one", b"two", b"three"):
        device = Device(line)
        device.write(word)
        connection = gateway.accept()
        assert exactly(connection, len(word)) == word
        device.close()
        assert to_the_end(connection) == b""
    assert line.connections == 3


def opened(line: PtyLine) -> Device:
    """Open the device, again if it was hung up meanwhile."""
    until = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < until
        with suppress(termios.error):
            return Device(line)


@pytest.mark.parametrize("faults", ["", "stall", "throttle"])
def test_bytes_of_two_openings_never_share_a_connection(line: PtyLine, gateway: Gateway, faults: str) -> None:
    openings = 200
    for number in range(openings):
        if faults == "stall":
            (line.stall if number % 3 == 0 else line.resume)()
        if faults == "throttle":
            line.throttle(100_000)
        device = opened(line)  # with no time between close and open, often before the line has looked
        with suppress(OSError):  # hung up, because the line could not tell old from new
            os.write(device.fd, b"%04d" % number * 10)
        device.close()
    line.resume()
    line.throttle(None)
    device = opened(line)
    last = b""
    until = time.monotonic() + PATIENCE
    while last != b"last":
        assert time.monotonic() < until
        if select.select([device.fd], [], [], 0)[0]:
            device.close()
            device = opened(line)
        with suppress(OSError):
            os.write(device.fd, b"last")
        while not gateway.nobody_waits():
            connection = gateway.accept()
            connection.settimeout(0.2)
            with suppress(TimeoutError):
                last = connection.recv(4, socket.MSG_PEEK)
    device.close()
    line.stop()
    for connection in gateway.connections:
        received = to_the_end(connection)
        assert len({received[i : i + 4] for i in range(0, len(received) // 4 * 4, 4)}) <= 1


def test_a_broker_that_closes_hangs_the_device_up_after_its_last_words(
    line: PtyLine, device: Device, gateway: Gateway
) -> None:
    device.write(b"connect")
    connection = gateway.accept()
    assert exactly(connection, 7) == b"connect"
    connection.sendall(b"refused")
    connection.close()
    assert device.read(8) == b"refused"
    again = Device(line)
    again.write(b"connect")
    assert exactly(gateway.accept(), 7) == b"connect"
    again.close()


def test_without_a_broker_the_device_is_hung_up(gateway: Gateway) -> None:
    gateway.listener.close()
    with PtyLine("127.0.0.1", gateway.port) as line:
        device = Device(line)
        device.write(b"connect")
        assert device.read(1) == b""
        assert line.path.exists()
        device.close()


# Faults


def test_a_throttled_line_takes_its_time(line: PtyLine, device: Device, gateway: Gateway) -> None:
    line.throttle(10_000)
    start = time.monotonic()
    device.write(b"x" * 2000)
    connection = gateway.accept()
    assert len(exactly(connection, 2000)) == 2000
    assert time.monotonic() - start > 0.18
    start = time.monotonic()
    connection.sendall(b"y" * 1000)
    assert len(device.read(1000)) == 1000
    assert time.monotonic() - start > 0.08


def received_through_noise(gateway: Gateway, seed: int) -> tuple[bytes, bytes]:
    with PtyLine("127.0.0.1", gateway.port) as line:
        line.noise(0.1, seed)
        device = Device(line)
        device.write(bytes(1000))
        connection = gateway.accept()
        up = exactly(connection, 1000)
        connection.sendall(bytes(1000))
        down = device.read(1000)
        line.noise(0)
        device.write(b"clear")
        assert exactly(connection, 5) == b"clear"
        device.close()
    return up, down


def test_noise_flips_single_bits_the_same_ones_for_the_same_seed(gateway: Gateway) -> None:
    one, same, other = (received_through_noise(gateway, seed) for seed in (1, 1, 2))
    assert one == same != other
    for received in one:
        hit = [byte for byte in received if byte]
        assert 50 < len(hit) < 200
        assert all(byte.bit_count() == 1 for byte in hit)


def test_a_stalled_line_carries_nothing_holds_little_and_goes_on(
    line: PtyLine, device: Device, gateway: Gateway
) -> None:
    device.write(b"x")
    connection = gateway.accept()
    assert exactly(connection, 1) == b"x"
    line.stall()
    taken = 0
    with pytest.raises(BlockingIOError):
        while taken < 1 << 20:
            taken += os.write(device.fd, b"y" * 4096)
    assert taken < 64 * 1024
    assert not select.select([connection], [], [], 0.05)[0]
    line.resume()
    assert exactly(connection, taken) == b"y" * taken


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_throttle_that_carries_nothing_is_an_error(line: PtyLine, value: float) -> None:
    with pytest.raises(ArgumentError, match="bytes_per_second"):
        line.throttle(value)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_probability_is_between_0_and_1(line: PtyLine, value: float) -> None:
    with pytest.raises(ArgumentError, match="probability"):
        line.noise(value)


# Life


def test_a_line_leaves_nothing_behind(gateway: Gateway) -> None:
    before = len(os.listdir("/proc/self/fd"))
    line = PtyLine("127.0.0.1", gateway.port)
    line.stop()
    for _ in range(3):
        line.start()
        folder = line.path.parent
        device = Device(line)
        device.write(b"x")
        gateway.accept().close()
        device.close()
        line.stop()
        line.stop()
        assert not folder.exists()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_line_is_started_once(line: PtyLine) -> None:
    with pytest.raises(RuntimeError, match="runs already"):
        line.start()
