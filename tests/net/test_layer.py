"""Layer: what every stream on top of another one has, and how it is left behind at any moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pytest_mock import MockerFixture

from device_sdk.errors import ConnectFailedError, TransportClosedError, TransportError
from device_sdk.net.base import ParsedUrl, Transport, open_transport
from device_sdk.net.layer import Layer, Link
from device_sdk.net.memory import MemoryListener, MemoryTransport
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


class Greeting(Layer):
    """Sends a line and waits for one. Everything else is the plain layer."""

    __slots__ = ("adopted", "forgotten", "said")

    def __init__(self, inner: Transport, said: bytes = b"hello\n") -> None:
        super().__init__(inner, f"greeted {inner.description}")
        self.said = said
        self.adopted: list[bytes] = []
        self.forgotten = 0

    def _handshake(self, link: Link) -> bytes:
        link.send_all(self.said)
        heard = b""
        while b"\n" not in heard:
            data = link.recv()
            if not data:
                raise ConnectFailedError(f"cannot open {self.description}: no answer")
            heard += data
        line, _, rest = heard.partition(b"\n")
        link.unread(rest)
        if line == b"no":
            raise ConnectFailedError(f"cannot open {self.description}: it said no")
        return line

    def _adopt(self, state: Any) -> None:
        self.adopted.append(state)

    def _forget(self) -> None:
        self.forgotten += 1


class GreetingRig(Rig):
    """A greeting over a memory stream; the peer greets before anybody asks."""

    def __init__(self, inner: Transport, answer: bytes = b"welcome\n") -> None:
        self.listener = MemoryListener("layer")
        self.answer = answer
        self.transport: Greeting = Greeting(inner)
        self.peers: list[MemoryTransport] = []

    def connect(self) -> Peer:
        answering = threading.Thread(target=self._answer, daemon=True)
        answering.start()
        self.transport.open(soon())
        answering.join(PATIENCE)
        return self.peers[-1]

    def _answer(self) -> None:
        peer = self.listener.accept(PATIENCE)
        assert receive(peer, 6) == b"hello\n"
        self.peers.append(peer)
        send_all(peer, self.answer)

    def accept(self) -> Peer:
        return self.peers[-1]

    def unreachable(self) -> Transport:
        return Greeting(open_transport("memory://nobody"))

    @contextmanager
    def unresponsive(self) -> Iterator[Transport]:
        yield self.transport
        while True:
            try:
                self.listener.accept(0).close()
            except TimeoutError:
                break

    def close(self) -> None:
        self.transport.close()
        for peer in self.peers:
            peer.close()
        self.listener.close()


@pytest.fixture
def rig() -> Iterator[GreetingRig]:
    rig = GreetingRig(open_transport("memory://layer"))
    yield rig
    rig.close()


class TestLayer(TransportContract):
    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        rig = GreetingRig(open_transport("memory://layer"))
        yield rig
        rig.close()


class TestLayerOnALayer(TransportContract):
    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        rig = GreetingRig(Layer(open_transport("memory://layer"), "plain layer"))
        yield rig
        rig.close()


def test_the_result_of_the_handshake_is_kept_and_dropped_with_the_connection(rig: GreetingRig) -> None:
    rig.connect()
    assert rig.transport.adopted == [b"welcome"]
    rig.transport.close()
    assert rig.transport.forgotten == 1


def test_what_follows_the_handshake_in_the_same_read_is_the_beginning_of_the_stream(rig: GreetingRig) -> None:
    rig.answer = b"welcome\nfirst"
    peer = rig.connect()
    send_all(peer, b" second")
    assert receive(rig.transport, 12) == b"first second"
    rig.transport.close()
    rig.connect()
    rig.transport.close()  # what nobody has read is not for the next connection
    rig.answer = b"welcome\n"
    rig.connect()
    assert rig.transport.recv() is None


def test_a_peer_that_says_no_leaves_nothing_open(rig: GreetingRig) -> None:
    rig.answer = b"no\n"
    before = open_files()
    with pytest.raises(ConnectFailedError, match="it said no"):
        rig.connect()
    with pytest.raises(TransportClosedError, match="not open"):
        rig.transport.fileno()
    rig.listener.close()
    for peer in rig.peers:
        peer.close()
    assert open_files() <= before
    assert rig.transport.adopted == []


def test_a_reset_in_the_handshake_is_a_failure_to_connect(rig: GreetingRig) -> None:
    def answer() -> None:
        rig.listener.accept(PATIENCE).reset()

    threading.Thread(target=answer, daemon=True).start()
    with pytest.raises(ConnectFailedError, match=r"cannot open greeted memory layer: .*reset by"):
        rig.transport.open(soon())


def test_an_unexpected_error_in_a_handshake_closes_the_stream(
    rig: GreetingRig, mocker: MockerFixture
) -> None:
    mocker.patch.object(Greeting, "_handshake", side_effect=ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        rig.transport.open(soon())
    with pytest.raises(TransportClosedError, match="not open"):
        rig.transport.recv()


def test_a_handshake_passes_through_the_smallest_buffers(rig: GreetingRig) -> None:
    rig.listener.close()
    rig.listener = MemoryListener("layer", capacity=1)
    rig.connect()
    assert rig.transport.adopted == [b"welcome"]


def test_data_that_arrives_while_we_wait_for_room_is_not_lost(rig: GreetingRig) -> None:
    rig.listener.close()
    rig.listener = MemoryListener("layer", capacity=10)
    rig.transport.said = b"x" * 100

    def answer() -> None:
        peer = rig.listener.accept(PATIENCE)
        rig.peers.append(peer)
        send_all(peer, b"welcome")
        assert receive(peer, 100) == b"x" * 100
        send_all(peer, b" back\n")

    threading.Thread(target=answer, daemon=True).start()
    rig.transport.open(soon())
    assert rig.transport.adopted == [b"welcome back"]


def test_an_open_that_was_left_behind_does_not_touch_the_next_connection(
    rig: GreetingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, release = threading.Event(), threading.Event()
    errors: list[Exception] = []
    original = Greeting._handshake

    def slow(self: Greeting, link: Link) -> bytes:
        if not entered.is_set():
            entered.set()
            assert release.wait(PATIENCE)
        return original(self, link)

    def attempt() -> None:
        try:
            rig.transport.open(soon())
        except TransportError as error:
            errors.append(error)

    monkeypatch.setattr(Greeting, "_handshake", slow)
    left_behind = threading.Thread(target=attempt, daemon=True)
    left_behind.start()
    assert entered.wait(PATIENCE)
    rig.transport.abort()
    rig.transport.close()
    rig.listener.accept(PATIENCE).close()
    peer = rig.connect()
    release.set()
    left_behind.join(PATIENCE)
    assert [type(error) for error in errors] == [TransportClosedError]
    send_all(rig.transport, b"still here")
    assert receive(peer, 10) == b"still here"
    assert rig.transport.adopted == [b"welcome"]


def test_an_abort_in_the_last_moment_of_the_handshake_still_counts(
    rig: GreetingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def abort(self: Greeting, link: Link) -> bytes:
        self.abort()
        return b"done"

    with monkeypatch.context() as patch:
        patch.setattr(Greeting, "_handshake", abort)
        with pytest.raises(TransportClosedError, match="aborted"):
            rig.transport.open(soon())
    with pytest.raises(TransportClosedError, match="aborted"):  # it holds until close()
        rig.transport.open(soon())
    assert rig.transport.adopted == []
    rig.listener.accept(PATIENCE).close()


class TimedStream(Layer):
    """A stream with a timer: it hands out what it has received only when its deadline has passed."""

    held = b""
    due: float | None = None

    def recv(self) -> bytes | None:
        data = super().recv()
        if data:
            self.held, self.due = self.held + data, time.monotonic() + 0.01
            return None
        if self.due is None and self.held:
            data, self.held = self.held, b""
        return data

    def next_deadline(self) -> float | None:
        return self.due

    def handle_deadline(self, now: float) -> None:
        assert self.due is not None and now >= self.due
        self.due = None


def test_the_timers_of_the_stream_below_run_in_and_after_the_handshake(rig: GreetingRig) -> None:
    rig.transport = Greeting(TimedStream(open_transport("memory://layer"), "timed stream"))
    peer = rig.connect()
    assert rig.transport.adopted == [b"welcome"]
    send_all(peer, b"later")
    assert ready(rig.transport)
    assert rig.transport.recv() is None
    due = rig.transport.next_deadline()
    assert due is not None
    rig.transport.handle_deadline(due)
    assert rig.transport.recv() == b"later"


def test_a_close_just_before_the_stream_below_opens_leaves_it_closed() -> None:
    """It cannot hold what has not begun; whoever opens it then has to close it."""
    with MemoryListener("layer-late"):
        inner = MemoryTransport(ParsedUrl("memory", "layer-late"))
        greeting = Greeting(inner)
        really_open = MemoryTransport.open

        class Late(MemoryTransport):
            __slots__ = ()

            def open(self, deadline: float) -> None:
                greeting.abort()
                greeting.close()
                really_open(self, deadline)

        inner.__class__ = Late
        with pytest.raises(TransportClosedError):
            greeting.open(soon())
        with pytest.raises(TransportClosedError, match="not open"):
            inner.fileno()
