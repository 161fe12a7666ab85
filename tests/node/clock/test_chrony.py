"""Asking chronyd: by its protocol, and two real ones."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_sdk.node.clock.chrony import is_synchronised, says_synchronised, tracking_request

CHRONYD = shutil.which("chronyd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def reply(*, reference: int = 0x0A000001, leap: int = 0, status: int = 0, sequence: int = 7) -> bytes:
    """The reply to "tracking", as candm.h has it: 28 bytes of header, 76 of data."""
    head = struct.pack("!BBBBHHHHHHIII", 6, 2, 0, 0, 33, 5, status, 0, 0, 0, sequence, 0, 0)
    data = struct.pack("!I16sHHHH", reference, bytes(16), 1, 0, 3, leap) + bytes(12 + 9 * 4)
    assert len(head + data) == 104
    return head + data


def test_the_request_is_as_long_as_its_reply() -> None:
    request = tracking_request(0x01020304)
    assert len(request) == 104
    assert request[:12] == bytes([6, 1, 0, 0, 0, 33, 0, 0, 1, 2, 3, 4])
    assert not any(request[12:])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (reply(), True),
        (reply(leap=1), True),  # a leap second is coming
        (reply(leap=3), False),
        (reply(reference=0), False),
        (reply(reference=0x7F7F0101), False),  # "local stratum": its own clock
        (reply(status=2), False),  # STT_UNAUTH
        (reply(sequence=8), False),
        (reply()[:-1], False),
        (b"", False),
        (bytes(104), False),
    ],
)
def test_what_a_reply_says(data: bytes, expected: bool) -> None:
    assert says_synchronised(data, 7) is expected


def test_nobody_there_is_no_evidence(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))  # and it never replies
        assert not is_synchronised(taken.getsockname()[1], str(tmp_path))
    assert not is_synchronised(1, str(tmp_path / "missing"))
    (tmp_path / "chronyd.sock").touch()
    assert not is_synchronised(1, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["chronyd.sock"]


def test_the_socket_is_asked_where_the_port_is_closed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(tmp_path / "chronyd.sock"))
        daemon.settimeout(10)

        def answer() -> None:
            request, peer = daemon.recvfrom(1024)
            (sequence,) = struct.unpack_from("!I", request, 8)
            daemon.sendto(reply(sequence=sequence), peer)

        answering = threading.Thread(target=answer)
        answering.start()
        assert is_synchronised(1, str(tmp_path))
        answering.join(10)
    assert [path.name for path in tmp_path.iterdir()] == ["chronyd.sock"]


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def chronyd(tmp_path: Path) -> Iterator[Callable[[str, str], int]]:
    """Starts a chronyd that leaves the clock alone, and returns its command port."""
    running: list[subprocess.Popen[bytes]] = []

    def start(name: str, lines: str) -> int:
        port = free_port()
        folder = tmp_path / name
        folder.mkdir(mode=0o700)
        config = folder / "chrony.conf"
        config.write_text(
            f"cmdport {port}\nbindcmdaddress 127.0.0.1\nbindcmdaddress /\npidfile {folder}/pid\n{lines}\n"
        )
        assert CHRONYD is not None
        running.append(subprocess.Popen([CHRONYD, "-x", "-d", "-U", "-u", "root", "-f", str(config)]))
        return port

    yield start
    for process in running:
        process.terminate()
        process.wait(10)


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    pause = threading.Event()
    return any(condition() or pause.wait(0.1) for _ in range(int(seconds / 0.1)))


@pytest.mark.skipif(CHRONYD is None, reason="chronyd is not installed: sudo apt install chrony")
@pytest.mark.skipif(os.geteuid() != 0, reason="chronyd wants to be started by root")
def test_two_daemons_one_believes_its_own_clock_and_one_follows_it(
    chronyd: Callable[[str, str], int], tmp_path: Path
) -> None:
    ntp = free_port()
    lonely = chronyd("lonely", f"port {ntp}\nbindaddress 127.0.0.1\nallow 127.0.0.1\nlocal stratum 5")
    follows = chronyd("follows", f"port 0\nserver 127.0.0.1 port {ntp} iburst minpoll -2 maxpoll -2")
    nowhere = str(tmp_path / "no folder")
    assert eventually(lambda: is_synchronised(follows, nowhere))
    assert not is_synchronised(lonely, nowhere)
