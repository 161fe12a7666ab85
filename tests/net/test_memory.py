"""MemoryTransport: the contract, its listener and its faults."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from device_sdk.errors import (
    ArgumentError,
    ClosedError,
    ConnectFailedError,
    TransportClosedError,
    TransportError,
)
from device_sdk.net.base import ParsedUrl, Transport, open_transport
from device_sdk.net.memory import MemoryListener, MemoryTransport, memory_pair
from tests.net.transport_contract import (
    PATIENCE,
    Peer,
    Rig,
    TransportContract,
    open_files,
    ready,
    receive,
    send_all,
    soon,
)


class MemoryRig(Rig):
    def __init__(self) -> None:
        self.listener = MemoryListener("rig")
        self.transport = open_transport("memory://rig")
        self.peers: list[MemoryTransport] = []

    def accept(self) -> Peer:
        self.peers.append(self.listener.accept(PATIENCE))
        return self.peers[-1]

    def unreachable(self) -> Transport:
        return open_transport("memory://nobody")

    @contextmanager
    def unresponsive(self) -> Iterator[Transport]:
        def wait_for_data(peer: MemoryTransport) -> None:
            assert ready(peer)
            peer.close()

        with MemoryListener("unresponsive", wait_for_data):
            yield open_transport("memory://unresponsive")

    def close(self) -> None:
        self.transport.close()
        for peer in self.peers:
            peer.close()
        self.listener.close()


class TestMemoryTransport(TransportContract):
    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        before = open_files()
        rig = MemoryRig()
        yield rig
        rig.close()
        assert open_files() <= before


@pytest.fixture
def pair() -> Iterator[tuple[MemoryTransport, MemoryTransport]]:
    one, other = memory_pair(capacity=10)
    yield one, other
    one.close()
    other.close()


Pair = tuple[MemoryTransport, MemoryTransport]


def test_a_send_takes_what_fits(pair: Pair) -> None:
    one, other = pair
    assert one.send(b"0123456789abc") == 10
    assert one.send(b"abc") == 0
    assert other.recv() == b"0123456789"
    assert ready(one, 0)
    assert one.send(b"abc") == 3
    assert not ready(one, 0)


def test_a_send_that_just_fits_waits_for_nothing(pair: Pair) -> None:
    one, other = pair
    assert one.send(b"0123456789") == 10
    other.recv()
    assert not ready(one, 0)


def test_a_limited_send_is_cut_short_and_may_go_on_at_once(pair: Pair) -> None:
    one, other = pair
    one.limit_send(3)
    sizes = []
    rest = b"01234567"
    while rest:
        sizes.append(one.send(rest))
        rest = rest[sizes[-1] :]
        assert ready(one, 0) == bool(rest)
    assert sizes == [3, 3, 2]
    assert receive(other, 8) == b"01234567"
    one.limit_send(None)
    assert one.send(b"01234567") == 8
    with pytest.raises(ArgumentError, match="count"):
        one.limit_send(0)


def test_a_reset_loses_what_was_under_way_at_both_ends(pair: Pair) -> None:
    pair[0].send(b"lost")
    pair[0].reset()
    for end in pair:
        assert ready(end, 0)
        with pytest.raises(TransportClosedError, match="reset"):
            end.recv()
        with pytest.raises(TransportClosedError, match="reset"):
            end.send(b"x")


def test_a_sender_that_waits_for_room_learns_of_the_close(pair: Pair) -> None:
    one, other = pair
    one.send(b"x" * 11)
    other.close()
    assert ready(one, 0)
    with pytest.raises(TransportClosedError, match="closed by the peer"):
        one.send(b"x")
    assert one.recv() == b""


def test_an_end_of_a_pair_cannot_be_reopened(pair: Pair) -> None:
    pair[0].close()
    with pytest.raises(TransportError, match="cannot be opened again"):
        pair[0].open(soon())


def test_two_threads_move_a_mebibyte_through_a_small_buffer() -> None:
    one, other = memory_pair(capacity=1000)
    data = bytes(1 << 20)
    sender = threading.Thread(target=send_all, args=(one, data), daemon=True)
    sender.start()
    assert receive(other, len(data)) == data
    sender.join(PATIENCE)
    one.close()
    other.close()


def test_a_listener_drives_the_other_end_in_the_thread_that_opens() -> None:
    threads = []

    def greet(end: MemoryTransport) -> None:
        threads.append(threading.current_thread())
        end.send(b"hello")

    with MemoryListener("greeter", greet):
        client = open_transport("memory://greeter")
        client.open(soon())
        assert client.recv() == b"hello"
        client.close()
    assert threads == [threading.current_thread()]


def test_a_callback_that_fails_fails_the_open_and_leaves_nothing_open() -> None:
    def fail(end: MemoryTransport) -> None:
        raise LookupError("on purpose")

    before = open_files()
    with MemoryListener("failing", fail), pytest.raises(LookupError, match="on purpose"):
        open_transport("memory://failing").open(soon())
    assert open_files() == before


def test_accept_gives_connections_in_order_and_times_out() -> None:
    with MemoryListener("queue") as listener:
        clients = [open_transport(listener.url) for _ in range(3)]
        for number, client in enumerate(clients):
            client.open(soon())
            client.send(b"%d" % number)
        ends = [listener.accept(PATIENCE) for _ in clients]
        assert [end.recv() for end in ends] == [b"0", b"1", b"2"]
        with pytest.raises(TimeoutError, match="memory://queue"):
            listener.accept(0)
        for stream in (*clients, *ends):
            stream.close()


def test_a_closed_listener_refuses_and_ends_those_who_waited() -> None:
    with MemoryListener("closing") as listener:
        client = open_transport("memory://closing")
        client.open(soon())
    assert client.recv() == b""
    client.close()
    with pytest.raises(ConnectFailedError, match="nobody listens on memory://closing"):
        client.open(soon())
    with pytest.raises(ClosedError):
        listener.accept(0)
    listener.close()


def test_a_name_has_one_listener_at_a_time() -> None:
    with MemoryListener("taken"), pytest.raises(ArgumentError, match="taken"):
        MemoryListener("taken")
    MemoryListener("taken").close()
    with pytest.raises(ArgumentError, match="name"):
        MemoryListener("")
    with pytest.raises(ArgumentError, match="capacity"):
        MemoryListener("small", capacity=0)


@pytest.mark.parametrize("url", ["memory://", "memory://a:5", "memory://a/b", "memory://a?b=c"])
def test_a_memory_url_is_a_name_and_nothing_more(url: str) -> None:
    with pytest.raises(ArgumentError, match="memory://NAME"):
        open_transport(url)


def test_a_parsed_url_will_do() -> None:
    assert open_transport(ParsedUrl("memory", "x")).description == "memory x"
