"""How a stream has ended, and what of the last bytes this host still has."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from device_sdk.errors import TransportClosedError
from device_sdk.net.base import Transport, bytes_held, open_transport, parse_url
from device_sdk.net.layer import Layer
from device_sdk.net.memory import memory_pair
from device_sdk.net.serial import SerialTransport


@pytest.fixture
def ends() -> Iterator[tuple[Transport, socket.socket]]:
    """A TCP stream of ours, and the peer's socket."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        transport = open_transport(f"mqtt://127.0.0.1:{server.getsockname()[1]}")
        transport.open(time.monotonic() + 5)
        peer, _ = server.accept()
        with peer:
            yield transport, peer
        transport.close()


def wait_for(found: Callable[[], object]) -> None:
    """Wait for the kernel, at most for 5 s."""
    end = time.monotonic() + 5
    while not found():
        assert time.monotonic() < end


def end_of(transport: Transport) -> str | None:
    """Read up to the end of a stream; return who ended it."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            if transport.recv() == b"":
                return "closed"
        except TransportClosedError as error:
            return error.by_peer
    raise AssertionError("it does not end")


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def test_a_reset_is_the_peers(ends: tuple[Transport, socket.socket]) -> None:
    transport, peer = ends
    reset(peer)
    assert end_of(transport) == "reset"


def test_what_is_sent_into_a_closed_stream_meets_a_peer_that_has_closed(
    ends: tuple[Transport, socket.socket],
) -> None:
    transport, peer = ends
    peer.close()
    wait_for(lambda: transport.recv() == b"")
    with pytest.raises(TransportClosedError) as caught:
        for _ in range(1_000):
            transport.send(b"x")
    assert caught.value.by_peer == "closed"


def test_our_own_abort_is_nobodys_fault(ends: tuple[Transport, socket.socket]) -> None:
    transport, _ = ends
    transport.abort()
    with pytest.raises(TransportClosedError) as caught:
        transport.recv()
    assert caught.value.by_peer is None


def test_nothing_is_held_once_the_peers_host_has_it(ends: tuple[Transport, socket.socket]) -> None:
    transport, peer = ends
    assert transport.send(b"hello") == 5
    wait_for(lambda: not bytes_held(transport, unconfirmed=True))
    assert peer.recv(10) == b"hello"
    assert bytes_held(transport, unconfirmed=False) == 0


def test_the_kernel_holds_what_the_peers_host_has_no_room_for(ends: tuple[Transport, socket.socket]) -> None:
    transport, peer = ends
    sent = transport.send(bytes(16 << 20))
    assert 0 < bytes_held(transport, unconfirmed=False) <= bytes_held(transport, unconfirmed=True) <= sent
    reset(peer)
    assert end_of(transport) == "reset"
    assert bytes_held(transport, unconfirmed=False) > 0
    transport.close()
    assert bytes_held(transport, unconfirmed=False) == 0


def test_a_reset_does_not_hide_that_the_bytes_had_left(ends: tuple[Transport, socket.socket]) -> None:
    transport, peer = ends
    transport.send(b"hello")
    wait_for(lambda: not bytes_held(transport, unconfirmed=False))
    reset(peer)
    assert end_of(transport) == "reset"
    assert bytes_held(transport, unconfirmed=False) == 0


def test_an_end_of_the_stream_that_crossed_our_bytes_leaves_them_unconfirmed(
    ends: tuple[Transport, socket.socket],
) -> None:
    transport, peer = ends
    peer.close()
    wait_for(lambda: transport.recv() == b"")
    transport.send(b"hello")
    assert bytes_held(transport, unconfirmed=True) > 0


def test_the_lowest_stream_answers_for_a_stack(ends: tuple[Transport, socket.socket]) -> None:
    transport, _ = ends
    transport.send(bytes(16 << 20))
    assert bytes_held(Layer(transport, "layer"), unconfirmed=True) == bytes_held(transport, unconfirmed=True)


def test_a_serial_line_always_holds_something() -> None:
    assert bytes_held(SerialTransport(parse_url("serial:///dev/ttyS0")), unconfirmed=False) == 1


def test_a_stream_in_memory_says_how_it_ended_and_holds_nothing() -> None:
    ours, theirs = memory_pair()
    ours.send(b"x")
    assert bytes_held(ours, unconfirmed=True) == 0
    theirs.reset()
    with pytest.raises(TransportClosedError) as caught:
        ours.recv()
    assert caught.value.by_peer == "reset"
    ours.close()
    theirs.close()
