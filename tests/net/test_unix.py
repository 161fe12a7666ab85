"""UnixTransport: the contract, and what only Unix sockets have."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from device_sdk.errors import ArgumentError, ConnectFailedError
from device_sdk.net.base import Transport, open_transport
from tests.net.test_tcp import TcpPeer
from tests.net.transport_contract import (
    PATIENCE,
    Abilities,
    Peer,
    Rig,
    TransportContract,
    receive,
    send_all,
    soon,
)


class UnixPeer(TcpPeer):
    """An accepted Unix socket."""

    def reset(self) -> None:
        self.sock.close()


class UnixRig(Rig):
    can = Abilities(resets=False)

    def __init__(self, folder: Path) -> None:
        self.path = folder / "mqtt.sock"
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(self.path))
        self.listener.listen(8)
        self.listener.settimeout(PATIENCE)
        self.transport = open_transport(f"unix:{self.path}")
        self.peers: list[TcpPeer] = []

    def accept(self) -> Peer:
        sock, _ = self.listener.accept()
        sock.setblocking(False)
        self.peers.append(UnixPeer(sock))
        return self.peers[-1]

    def unreachable(self) -> Transport:
        return open_transport(f"unix:{self.path}-gone")

    @contextmanager
    def unresponsive(self) -> Iterator[Transport]:
        path = self.path.with_name("full.sock")
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waiting,
        ):
            listener.bind(str(path))
            listener.listen(0)
            waiting.connect(str(path))
            yield open_transport(f"unix:{path}")
        path.unlink()

    def close(self) -> None:
        self.transport.close()
        for peer in self.peers:
            peer.close()
        self.listener.close()


class TestUnixTransport(TransportContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> Iterator[Rig]:
        rig = UnixRig(tmp_path)
        yield rig
        rig.close()


def test_an_abstract_name_needs_no_file() -> None:
    name = f"device_sdk-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        listener.settimeout(PATIENCE)
        transport = open_transport(f"unix:@{name}")
        assert transport.description == f"unix @{name}"
        transport.open(soon())
        peer, _ = listener.accept()
        with peer:
            peer.sendall(b"hello")
            assert receive(transport, 5) == b"hello"
            transport.close()


def test_a_percent_encoded_path_is_decoded(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "what now?.sock"))
        listener.listen()
        transport = open_transport(f"unix:{tmp_path}/what%20now%3F.sock")
        transport.open(soon())
        send_all(transport, b"fine")
        transport.close()


@pytest.mark.parametrize("url", ["unix:/", "unix:@", "unix://host/path", "unix:/run/x?y=1"])
def test_a_url_that_names_no_socket_is_an_error(url: str) -> None:
    with pytest.raises(ArgumentError, match="unix:/path/of/socket"):
        open_transport(url)


@pytest.mark.parametrize("path", ["/" + "x" * 107, "/run/a%00b"])
def test_a_path_that_no_socket_can_have_is_an_error(path: str) -> None:
    with pytest.raises(ArgumentError, match="107 bytes"):
        open_transport(f"unix:{path}")


def test_the_longest_path_is_taken() -> None:
    with pytest.raises(ConnectFailedError, match="no such socket"):
        open_transport("unix:/tmp/" + "x" * 102).open(soon())


def test_each_reason_for_not_connecting_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "datagrams"))
        for name, problem in {
            "nothing": "there is no such socket; is the broker running",
            "deaf": "nobody listens there; is the broker running",
            "file": "nobody listens there",
            "file/x": "there is no such folder",
            "datagrams": "it is not a stream socket",
        }.items():
            with pytest.raises(ConnectFailedError, match=problem) as caught:
                open_transport(f"unix:{tmp_path}/{name}").open(soon())
            assert f"{tmp_path}/{name}: " in str(caught.value)
