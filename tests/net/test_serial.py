"""SerialTransport: the contract on a pseudo-terminal and through pyserial's URL handlers, errors, options."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import pwd
import re
import socket
import stat
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
import serial
from serial.rfc2217 import PortManager
from serial.urlhandler import protocol_socket

from device_sdk.errors import ArgumentError, ConnectFailedError, MissingDependency, TransportClosedError
from device_sdk.net import serial as module
from device_sdk.net import serial_errors
from device_sdk.net.base import Transport, open_transport, parse_url
from tests.net.test_tcp import HOST, TcpPeer, full_listener
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

# pyserial 3.5 starts its RFC 2217 thread by a method that Python has deprecated.
OLD_THREAD_API = pytest.mark.filterwarnings("ignore:set.* is deprecated:DeprecationWarning")


@contextmanager
def all_closed_in_the_end() -> Iterator[None]:
    """Wait for the threads of a remote line, which close a moment after their transport."""
    before = open_files()
    yield
    until = soon()
    while open_files() > before:
        assert time.monotonic() < until, "descriptors left open"


class PtyPeer:
    """The other end of the cable: the master of a pseudo-terminal, and the link that leads to its device."""

    def __init__(self, link: Path) -> None:
        self.master, slave = os.openpty()
        os.set_blocking(self.master, False)
        tty.setraw(slave)
        self.device = os.ttyname(slave)
        os.close(slave)
        link.unlink(missing_ok=True)
        link.symlink_to(self.device)
        self._blocked = False

    def fileno(self) -> int:
        return self.master

    def recv(self) -> bytes | None:
        try:
            return os.read(self.master, 65536)
        except BlockingIOError:
            return None
        except OSError as error:
            assert error.errno == errno.EIO  # the device is closed
            return b""

    def send(self, data: bytes) -> int:
        try:
            taken = os.write(self.master, data)
        except BlockingIOError:
            taken = 0
        self._blocked = taken < len(data)
        return taken

    def wants_write(self) -> bool:
        return self._blocked

    def flush(self) -> None:
        self._blocked = False

    def close(self) -> None:
        if self.master >= 0:
            os.close(self.master)
            self.master = -1

    reset = close


class PtyRig(Rig):
    can = Abilities(ends_in_order=False, resets=False, waits_in_open=False, lags=True)

    def __init__(self, folder: Path) -> None:
        self.link = folder / "usb-test-if00"
        self.transport = open_transport(f"serial://{self.link}?baud=115200")
        self.peers: list[PtyPeer] = []

    def plug(self) -> PtyPeer:
        self.peers.append(PtyPeer(self.link))
        return self.peers[-1]

    def connect(self) -> PtyPeer:
        peer = self.plug()
        self.transport.open(soon())
        return peer

    def accept(self) -> Peer:
        return self.peers[-1]

    def unreachable(self) -> Transport:
        return open_transport(f"serial://{self.link}-gone")

    @contextmanager
    def unresponsive(self) -> Iterator[Transport]:
        self.plug()  # its open() never waits, but has a deadline
        yield self.transport

    def close(self) -> None:
        self.transport.close()
        for peer in self.peers:
            peer.close()


class SocketRig(Rig):
    can = Abilities(resets=False, cheap_to_open=False, lags=True)

    def __init__(self) -> None:
        self.listener = socket.create_server((HOST, 0))
        self.listener.settimeout(PATIENCE)
        self.transport = open_transport(f"socket://{HOST}:{self.listener.getsockname()[1]}")
        self.peers: list[TcpPeer] = []

    def accept(self) -> Peer:
        sock, _ = self.listener.accept()
        sock.setblocking(False)
        self.peers.append(TcpPeer(sock))
        return self.peers[-1]

    def unreachable(self) -> Transport:
        with socket.create_server((HOST, 0)) as gone:
            port = gone.getsockname()[1]
        return open_transport(f"socket://{HOST}:{port}")

    @contextmanager
    def unresponsive(self) -> Iterator[Transport]:
        with full_listener() as port:
            yield open_transport(f"socket://{HOST}:{port}")

    def close(self) -> None:
        self.transport.close()
        for peer in self.peers:
            peer.close()
        self.listener.close()


class TestSerialOnAPseudoTerminal(TransportContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> Iterator[Rig]:
        before = open_files()
        rig = PtyRig(tmp_path)
        yield rig
        rig.close()
        assert open_files() <= before


class TestSerialOverASocket(TransportContract):
    @pytest.fixture
    def rig(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
        # pyserial rests for 0.3 s after each close.
        monkeypatch.setattr("serial.urlhandler.protocol_socket.time", SimpleNamespace(sleep=lambda _: None))
        with all_closed_in_the_end():
            rig = SocketRig()
            yield rig
            rig.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[PtyRig]:
    rig = PtyRig(tmp_path)
    yield rig
    rig.close()


def settings(url: str) -> dict[str, Any]:
    """What the port would be opened with."""
    return module._parse_settings(parse_url(url))


# Options


def test_the_options_have_defaults() -> None:
    assert settings("serial:/dev/ttyUSB0") == {
        "baudrate": 115200,
        "bytesize": 8,
        "parity": "N",
        "stopbits": 1,
        "rtscts": False,
        "xonxoff": False,
        "dsrdtr": False,
        "exclusive": True,
    }


@pytest.mark.parametrize(
    ("option", "key", "value"),
    [
        ("baud=9600", "baudrate", 9600),
        ("baud=250000", "baudrate", 250000),
        ("parity=even", "parity", "E"),
        ("parity=O", "parity", "O"),
        ("stopbits=2", "stopbits", 2),
        ("rtscts=1", "rtscts", True),
        ("rtscts=off", "rtscts", False),
        ("xonxoff=0", "xonxoff", False),
        ("dsrdtr=yes", "dsrdtr", True),
        ("exclusive=false", "exclusive", False),
        ("bytesize=8", "bytesize", 8),
    ],
)
def test_an_option_of_the_url_sets_the_port_up(option: str, key: str, value: object) -> None:
    assert settings(f"serial:/dev/ttyUSB0?{option}")[key] == value


@pytest.mark.parametrize(
    ("option", "argument", "problem"),
    [
        ("baud=fast", "baud", "50..20000000"),
        ("baud=0", "baud", "not '0'"),
        ("baud=-9600", "baud", "not '-9600'"),
        ("baud=", "baud", "not ''"),
        ("baud=999999999999", "baud", "50..20000000"),
        ("baud=٩٦٠٠", "baud", "such as 115200"),
        ("bytesize=7", "bytesize", "all eight bits"),
        ("xonxoff=1", "xonxoff", "use rtscts=1"),
        ("parity=maybe", "parity", "none, even, odd"),
        ("stopbits=3", "stopbits", "1, 2; not '3'"),
        ("rtscts=2", "rtscts", "not '2'"),
        ("baudrate=9600", "url", "did you mean 'baud'"),
        ("rts=1", "url", "did you mean 'rtscts'"),
        ("colour=red", "url", "no option of serial: There are: baud, bytesize"),
    ],
)
def test_a_bad_option_is_an_error_by_its_name(option: str, argument: str, problem: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(problem)) as caught:
        open_transport(f"serial:/dev/ttyUSB0?{option}")
    assert caught.value.argument == argument


@pytest.mark.parametrize(
    "url",
    ["serial:/", "serial://", "serial://ttyUSB0", "serial://ttyUSB0/x", "socket://h", "rfc2217://h:1/x"],
)
def test_a_url_without_a_port_is_an_error(url: str) -> None:
    with pytest.raises(ArgumentError, match="url: must be"):
        open_transport(url)


@pytest.mark.parametrize("url", ["socket://h:1?baud=9600", "rfc2217://h:1?exclusive=1"])
def test_an_option_that_means_nothing_there_is_an_error(url: str) -> None:
    with pytest.raises(ArgumentError, match="no option of"):
        open_transport(url)


def test_the_path_is_percent_decoded() -> None:
    assert open_transport("serial:/dev/a%20b?baud=9600").description == "serial /dev/a b"


def test_without_pyserial_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    monkeypatch.delitem(sys.modules, "device_sdk.net.serial")
    with pytest.raises(MissingDependency, match=re.escape("pip install 'pyserial>=")) as caught:
        open_transport("serial:/dev/ttyUSB0")
    assert caught.value.extra == "serial"


# A port of this machine


def test_the_port_is_set_up_raw_at_the_baud_rate(rig: PtyRig) -> None:
    peer = rig.plug()
    transport = open_transport(f"serial://{rig.link}?baud=57600&rtscts=1&stopbits=2")
    transport.open(soon())
    iflag, oflag, cflag, lflag, ispeed, ospeed, _ = termios.tcgetattr(peer.master)
    assert ispeed == ospeed == termios.B57600
    assert cflag & termios.CRTSCTS and cflag & termios.CSTOPB and cflag & termios.CSIZE == termios.CS8
    assert not iflag & (termios.IXON | termios.ICRNL | termios.ISTRIP)
    assert not oflag & termios.OPOST and not lflag & (termios.ICANON | termios.ECHO)
    transport.close()


def test_every_byte_value_passes_unchanged_both_ways(rig: PtyRig) -> None:
    peer = rig.connect()
    everything = bytes(range(256)) * 8
    send_all(rig.transport, everything)
    assert receive(peer, len(everything)) == everything
    send_all(peer, everything)
    assert receive(rig.transport, len(everything)) == everything


def test_what_arrived_before_the_open_is_discarded(rig: PtyRig) -> None:
    peer = rig.plug()
    peer.send(b"stale")
    rig.transport.open(soon())
    assert rig.transport.recv() is None
    send_all(peer, b"fresh")
    assert receive(rig.transport, 5) == b"fresh"


def test_an_unplugged_port_ends_the_stream_and_is_found_again_under_its_name(rig: PtyRig) -> None:
    rig.connect().close()
    assert ready(rig.transport)
    assert rig.transport.recv() == b""
    with pytest.raises(TransportClosedError, match=r"unplugged, or hung up .*getty.*EIO"):
        rig.transport.send(b"x")
    rig.transport.close()
    rig.link.unlink()
    with pytest.raises(ConnectFailedError, match="no such device"):
        rig.transport.open(soon())
    peer = rig.connect()
    send_all(rig.transport, b"back")
    assert receive(peer, 4) == b"back"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENXIO, errno.ENODEV])
def test_a_device_that_has_gone_ends_the_stream_whatever_the_driver_says(
    rig: PtyRig, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    rig.connect()

    def gone(*_: object) -> bytes:
        raise OSError(number, "gone")

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", gone)
        assert rig.transport.recv() == b""


def test_another_read_error_is_an_error(rig: PtyRig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.connect()

    def broken(*_: object) -> bytes:
        raise OSError(errno.ENOMEM, "out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", broken)
        with pytest.raises(TransportClosedError, match=r"out of memory \(ENOMEM\)"):
            rig.transport.recv()


def test_a_port_in_use_names_who_has_it_and_is_free_after_close(rig: PtyRig) -> None:
    rig.connect()
    second = open_transport(f"serial://{rig.link}")
    before = open_files()
    with pytest.raises(ConnectFailedError, match=rf"\(process {os.getpid()}\) has it open. exclusive=1"):
        second.open(soon())
    assert open_files() == before
    rig.transport.close()
    second.open(soon())
    second.close()


def test_the_exclusive_mark_of_the_device_is_taken_back(rig: PtyRig) -> None:
    def is_exclusive() -> bool:
        port = os.open(rig.link, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        answer = fcntl.ioctl(port, 0x80045440, bytes(4))  # TIOCGEXCL
        os.close(port)
        return any(answer)

    rig.plug()
    for expected, query in ((True, ""), (False, "?exclusive=0")):
        transport = open_transport(f"serial://{rig.link}{query}")
        transport.open(soon())
        if os.geteuid() == 0:  # others cannot open it to ask
            assert is_exclusive() is expected
        transport.close()
        assert not is_exclusive()


def test_without_exclusive_two_may_share_a_port(rig: PtyRig) -> None:
    rig.plug()
    both = [open_transport(f"serial://{rig.link}?exclusive=0") for _ in range(2)]
    for transport in both:
        transport.open(soon())
    for transport in both:
        transport.close()


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the kernel refuse every port with this errno."""
    real = os.open

    def refusing(path: Any, *args: Any, **options: Any) -> int:
        if str(path).endswith("-if00"):
            raise OSError(number, os.strerror(number))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", refusing)


def status(gid: int, mode: int) -> Any:
    return lambda path: SimpleNamespace(st_gid=gid, st_mode=stat.S_IFCHR | mode, st_rdev=0)


@pytest.mark.parametrize(
    ("gid", "mode", "advice"),
    [
        (20, 0o660, "belongs to the group dialout: sudo usermod -aG dialout tester, then log in again"),
        (99999, 0o660, "group 99999: sudo usermod -aG 99999 "),
        (20, 0o600, "udev rule"),
        (0, 0o660, "udev rule"),
    ],
)
def test_a_port_that_we_may_not_open_names_the_group(
    rig: PtyRig, monkeypatch: pytest.MonkeyPatch, gid: int, mode: int, advice: str
) -> None:
    def group(number: int) -> Any:
        if number != 20:
            raise KeyError(number)
        return SimpleNamespace(gr_name="dialout")

    rig.plug()
    with monkeypatch.context() as patch:
        refuse(patch, errno.EACCES)
        patch.setattr(os, "stat", status(gid, mode))
        patch.setattr(grp, "getgrgid", group)
        patch.setattr(pwd, "getpwuid", lambda number: SimpleNamespace(pw_name="tester"))
        with pytest.raises(ConnectFailedError, match="permission denied") as caught:
            rig.transport.open(soon())
    assert advice in str(caught.value)


def test_an_absent_device_lists_those_there_are(rig: PtyRig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.plug()
    absent = open_transport(f"serial://{rig.link}-gone")
    monkeypatch.setattr(serial_errors, "_PORTS", (f"{rig.link.parent}/*",))
    with pytest.raises(ConnectFailedError) as caught:
        absent.open(soon())
    assert f"-gone: there is no such device. There are: {rig.link}. A name from /dev/serial/by-id" in str(
        caught.value
    )
    rig.link.unlink()
    with pytest.raises(ConnectFailedError, match="no serial ports now; plug the adapter in"):
        absent.open(soon())


@pytest.mark.parametrize("number", [errno.ENXIO, errno.EIO, errno.ENODEV])
def test_a_name_without_hardware_is_said_to_be_that(
    rig: PtyRig, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with monkeypatch.context() as patch:
        refuse(patch, number)
        with pytest.raises(ConnectFailedError, match="no hardware answers behind it"):
            rig.transport.open(soon())


@pytest.mark.parametrize("path", ["/dev/null", "/dev"])
def test_a_path_that_is_no_serial_port_is_said_to_be_none(path: str) -> None:
    before = open_files()
    with pytest.raises(ConnectFailedError, match=f"cannot open serial {path}: it is not a serial port"):
        open_transport(f"serial:{path}").open(soon())
    assert open_files() == before


def test_settings_that_the_port_refuses_are_named(rig: PtyRig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise termios.error(errno.EINVAL, "Invalid argument")

    rig.plug()
    with monkeypatch.context() as patch:
        patch.setattr(termios, "tcsetattr", refused)
        with pytest.raises(ConnectFailedError, match=r"it refuses 115200 baud, 8N1 .*Invalid argument"):
            rig.transport.open(soon())


def test_output_that_does_not_leave_is_discarded_in_time(
    rig: PtyRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = []
    rig.connect()
    with monkeypatch.context() as patch:
        patch.setattr(module, "DRAIN_S", 0.02)
        patch.setattr(module._LocalLine, "_unsent", lambda line: 5)
        patch.setattr(termios, "tcflush", lambda fd, queue: flushed.append(queue))
        rig.transport.close()
    assert flushed == [termios.TCOFLUSH]


@pytest.mark.parametrize("left", [0, 1])
def test_running_out_of_descriptors_is_a_connect_failure(
    rig: PtyRig, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    really = os.eventfd
    made: list[int] = []

    def exhausted(*args: int) -> int:
        if len(made) == left:
            raise OSError(errno.EMFILE, "Too many open files")
        made.append(really(*args))
        return made[-1]

    rig.plug()
    before = open_files()
    with monkeypatch.context() as patch:
        patch.setattr(os, "eventfd", exhausted)
        with pytest.raises(ConnectFailedError, match="Too many open files"):
            rig.transport.open(soon())
    assert len(made) == left
    assert open_files() == before
    rig.connect()


# A port behind a network


class Rfc2217Server:
    """One RFC 2217 connection to a looped-back port: what is written to the port is read from it."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self._listener.settimeout(PATIENCE)
        self.url = f"rfc2217://{HOST}:{self._listener.getsockname()[1]}"
        self.port = serial.serial_for_url("loop://", timeout=0)
        self._sock: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._sock, _ = self._listener.accept()
        with self._sock as sock:
            sock.settimeout(PATIENCE)
            manager = PortManager(self.port, SimpleNamespace(write=sock.sendall))
            try:
                while data := sock.recv(65536):
                    payload = b"".join(manager.filter(data))
                    sock.sendall(b"".join(manager.escape(payload)))
            except OSError:
                pass

    def hang_up(self) -> None:
        assert self._sock is not None
        self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self._thread.join(PATIENCE)
        self.port.close()


@pytest.fixture
def server() -> Iterator[Rfc2217Server]:
    with all_closed_in_the_end():
        server = Rfc2217Server()
        yield server
        server.close()


@OLD_THREAD_API
def test_rfc2217_sets_the_far_port_up_and_carries_every_byte_value(server: Rfc2217Server) -> None:
    transport = open_transport(f"{server.url}?baud=57600&parity=even&stopbits=2")
    transport.open(soon())
    assert (server.port.baudrate, server.port.parity, server.port.stopbits) == (57600, "E", 2)
    assert transport.recv() is None
    everything = bytes(range(256)) * 4
    send_all(transport, everything)
    assert receive(transport, len(everything)) == everything
    transport.close()


@OLD_THREAD_API
def test_an_rfc2217_server_that_goes_away_ends_the_stream(server: Rfc2217Server) -> None:
    transport = open_transport(server.url)
    transport.open(soon())
    server.hang_up()
    assert ready(transport)
    assert transport.recv() == b""
    with pytest.raises(TransportClosedError, match="closed by the far end"):
        transport.send(b"x")
    transport.close()


@OLD_THREAD_API
@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_a_server_that_speaks_no_rfc2217_fails_in_time(seconds: float) -> None:
    with socket.create_server((HOST, 0)) as silent, all_closed_in_the_end():
        transport = open_transport(f"rfc2217://{HOST}:{silent.getsockname()[1]}")
        with pytest.raises(ConnectFailedError, match=r"cannot open rfc2217.*(timed out|not seem to support)"):
            transport.open(time.monotonic() + seconds)


def test_a_remote_port_is_closed_by_the_thread_that_waits_on_its_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Closed by the other one, its number may by then belong to another file, which is waited on instead."""
    by: SimpleQueue[str] = SimpleQueue()
    close = protocol_socket.Serial.close

    def record(port: protocol_socket.Serial) -> None:
        by.put(threading.current_thread().name)
        close(port)

    monkeypatch.setattr(protocol_socket.Serial, "close", record)
    rig = SocketRig()
    rig.connect()
    rig.transport.close()
    assert by.get(timeout=PATIENCE).startswith("device-sdk socket://")
    rig.close()


def test_a_remote_port_with_nobody_there_says_where() -> None:
    with socket.create_server((HOST, 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(ConnectFailedError, match=f"cannot open socket://{HOST}:{port}: .*refused"):
        open_transport(f"socket://{HOST}:{port}").open(soon())
