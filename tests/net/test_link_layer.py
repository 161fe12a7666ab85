"""``framing=link`` over a pseudo-terminal: the contract, a gateway that restarts or dies, errors, options."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from device_sdk.errors import ArgumentError, ConnectFailedError, TransportClosedError
from device_sdk.net.base import Transport, open_transport
from device_sdk.net.link import words
from device_sdk.net.link.answerer import Answerer
from device_sdk.net.link.stream import LinkStream
from tests.net.test_serial import PtyPeer
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

BAUD = 115_200


class Gateway:
    """The other end of the line: a port that stays open, and an answerer behind it."""

    def __init__(self, link: Path, frame: int = 1024, window: int = 10) -> None:
        self.port = PtyPeer(link)
        self.sizes = (frame, window)
        self.end = Answerer(BAUD, frame, window, 0xFFFE)
        self.is_open = True
        self._unsent = b""

    def restart(self) -> None:
        self.end = Answerer(BAUD, *self.sizes, 0x1234)

    def pump(self) -> None:
        """Read the port once and send what has to be sent."""
        data = self.port.recv()
        self.is_open = data != b""
        if data:
            self.end.receive(data, time.monotonic())
        self.push()

    def push(self) -> None:
        while data := self._unsent or self.end.next_frame(time.monotonic()):
            self._unsent = data[self.port.send(data) :]
            if self._unsent:
                return

    def answer(self, stop: threading.Event | None = None) -> None:
        """Pump until a stream begins that is not the present one."""
        before, until = self.end.stream, soon()
        poll = select.poll()
        poll.register(self.port.master, select.POLLIN)
        while self.end.stream is before and time.monotonic() < until and not (stop and stop.is_set()):
            poll.poll(5)
            self.pump()


class LinkPeer:
    """A stream of the gateway."""

    def __init__(self, gateway: Gateway) -> None:
        assert gateway.end.stream is not None
        self.gateway = gateway
        self.stream: LinkStream = gateway.end.stream

    def fileno(self) -> int:
        return self.gateway.port.master

    def recv(self) -> bytes | None:
        self.gateway.pump()
        data = self.stream.take()
        self.gateway.push()
        ended = self.stream.end is not None or not self.gateway.is_open
        return data or (b"" if ended else None)

    def send(self, data: bytes) -> int:
        taken = self.stream.send(data, time.monotonic())
        self.gateway.push()
        return taken

    def wants_write(self) -> bool:
        return self.gateway.port.wants_write()

    def flush(self) -> None:
        self.gateway.port.flush()
        self.gateway.push()

    def next_deadline(self) -> float | None:
        return self.gateway.end.next_deadline(blocked=self.wants_write())

    def handle_deadline(self, now: float) -> None:
        self.gateway.end.handle_deadline(now)
        self.gateway.push()

    def close(self) -> None:
        self.stream.close(words.DONE)
        self.gateway.push()

    def reset(self) -> None:
        self.stream.close(words.ABORTED)
        self.gateway.push()


class LinkRig(Rig):
    can = Abilities(cheap_to_open=False, timers=True, lags=True)

    def __init__(self, folder: Path, options: str = "&frame=1024&window=10") -> None:
        self.link = folder / "usb-test-if00"
        self.gateway = Gateway(self.link)
        self.transport = open_transport(f"serial://{self.link}?baud={BAUD}&framing=link{options}")

    def connect(self) -> Peer:
        self.gateway.push()
        answering = threading.Thread(target=self.gateway.answer, daemon=True)
        answering.start()
        self.transport.open(soon())
        answering.join(PATIENCE)
        return self.accept()

    def accept(self) -> LinkPeer:
        return LinkPeer(self.gateway)

    def unreachable(self) -> Transport:
        return open_transport(f"serial://{self.link}-gone?framing=link")

    @contextmanager
    def unresponsive(self) -> Iterator[Transport]:
        yield self.transport

    def close(self) -> None:
        self.transport.close()
        self.gateway.port.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[LinkRig]:
    before = open_files()
    rig = LinkRig(tmp_path)
    yield rig
    rig.close()
    assert open_files() <= before


class TestLinkOnAPseudoTerminal(TransportContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> Iterator[Rig]:
        before = open_files()
        rig = LinkRig(tmp_path)
        yield rig
        rig.close()
        assert open_files() <= before


def opened(rig: LinkRig) -> LinkPeer:
    peer = rig.connect()
    assert isinstance(peer, LinkPeer)
    return peer


def the_end(transport: Transport) -> str:
    """Return the text of the error with which a stream ends."""
    until = soon()
    with pytest.raises(TransportClosedError) as caught:
        while time.monotonic() < until:
            assert ready(transport)
            transport.recv()
    return str(caught.value)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (words.AWAY, "the gateway has no connection to its broker"),
        (words.REFUSED, "the gateway's broker refused the connection"),
        (200, "reason 200"),
    ],
)
def test_the_reason_of_the_gateway_is_in_the_error_behind_all_data(
    rig: LinkRig, reason: int, text: str
) -> None:
    peer = opened(rig)
    send_all(peer, b"last words")
    peer.stream.close(reason)
    rig.gateway.push()
    assert receive(rig.transport, 10) == b"last words"
    assert text in the_end(rig.transport)


def test_a_gateway_that_has_restarted_ends_the_stream_at_the_next_byte(rig: LinkRig) -> None:
    rig.connect()
    rig.gateway.restart()
    send_all(rig.transport, b"x")
    assert ready(rig.gateway.port)
    rig.gateway.pump()
    assert "restarted" in the_end(rig.transport)


def test_a_line_that_is_silent_for_four_heart_beats_ends_the_stream(rig: LinkRig) -> None:
    rig.connect()
    rig.transport.handle_deadline(time.monotonic() + 3.9)
    assert rig.transport.recv() is None
    rig.transport.handle_deadline(time.monotonic() + 4.1)
    assert "a cable is unplugged" in the_end(rig.transport)
    assert rig.transport.next_deadline() is None


def test_an_unplugged_adapter_is_the_end_of_the_stream(rig: LinkRig) -> None:
    rig.connect()
    rig.gateway.port.close()
    assert ready(rig.transport)
    assert [rig.transport.recv(), rig.transport.recv()] == [b"", b""]


def test_an_owner_that_does_not_read_still_looks_alive_and_is_woken_for_what_came(rig: LinkRig) -> None:
    peer = opened(rig)
    send_all(peer, b"while you were away")
    assert ready(rig.transport)
    later = time.monotonic() + 1.5
    rig.transport.handle_deadline(later)  # it is time for a heart-beat, and only that
    assert receive_frames(rig, peer) > 0
    assert peer.stream.outbound.waiting == 0, "what came was not acknowledged"
    assert ready(rig.transport, 0)
    assert rig.transport.recv() == b"while you were away"
    assert rig.transport.recv() is None
    assert not ready(rig.transport, 0)


def receive_frames(rig: LinkRig, peer: LinkPeer) -> int:
    """Let the gateway read; return how many bytes came over the line."""
    assert ready(peer)
    before = rig.gateway.end.splitter.first
    rig.gateway.pump()
    return len(rig.gateway.end.splitter.first) - len(before)


def test_the_last_words_before_a_close_are_repeated_if_they_are_damaged(rig: LinkRig) -> None:
    peer = opened(rig)
    assert rig.transport.send(b"DISCONNECT") == 10
    assert ready(rig.gateway.port)
    damaged = os.read(rig.gateway.port.master, 65536)
    assert b"DISCONNECT" in damaged
    closing = threading.Thread(target=rig.transport.close, daemon=True)
    closing.start()
    until = soon()
    received = b""
    while not received and time.monotonic() < until:
        assert ready(rig.gateway.port)
        received += peer.recv() or b""
    closing.join(PATIENCE)
    assert received == b"DISCONNECT"


def test_a_port_that_takes_nothing_leaves_no_deadline_that_has_passed(rig: LinkRig) -> None:
    """Otherwise its owner would wake up again and again until the other end reads."""
    rig.connect()
    while rig.transport.send(bytes(60_000)):
        pass
    rig.gateway.port.recv()
    now = time.monotonic() + 3
    for _ in range(3):
        rig.transport.handle_deadline(now)
    due = rig.transport.next_deadline()
    assert due is not None
    assert due > now or not ready(rig.transport, 0)


def test_no_answer_says_what_to_check(rig: LinkRig) -> None:
    with pytest.raises(ConnectFailedError, match=r"timed out; nothing came: check wiring"):
        rig.transport.open(time.monotonic() + 0.05)


def test_a_console_at_the_other_end_is_named(rig: LinkRig) -> None:
    def login() -> None:
        until = soon()
        while not rig.gateway.port.recv():  # a HELLO: the port is open, and old input is discarded
            assert time.monotonic() < until
        rig.gateway.port.send(b"\r\nraspberrypi login: ")

    console = threading.Thread(target=login, daemon=True)
    console.start()
    with pytest.raises(ConnectFailedError, match="a console"):
        rig.transport.open(time.monotonic() + 0.3)
    console.join(PATIENCE)


def test_a_gateway_of_another_version_refuses_at_once(rig: LinkRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_sdk.net.link.answerer.VERSION", 2)
    thread = threading.Thread(target=rig.gateway.answer, args=(stop := threading.Event(),), daemon=True)
    thread.start()
    with pytest.raises(ConnectFailedError, match="another version of the link"):
        rig.transport.open(soon())
    stop.set()
    thread.join(PATIENCE)


@pytest.mark.parametrize(
    ("query", "argument", "text"),
    [
        ("framing=slip", "framing", "raw or link"),
        ("frame=256", "frame", "option of framing=link"),
        ("framing=raw&window=4", "window", "option of framing=link"),
        ("framing=link&frame=63", "frame", "64..1024"),
        ("framing=link&frame=1025", "frame", "64..1024"),
        ("framing=link&window=0", "window", "1..64"),
        ("framing=link&window=65", "window", "1..64"),
        ("framing=link&window=x", "window", "1..64"),
        ("framing=link&baud=fast", "baud", "50..20000000"),
    ],
)
def test_a_wrong_option_is_named(query: str, argument: str, text: str) -> None:
    with pytest.raises(ArgumentError, match=text) as caught:
        open_transport(f"serial:///dev/ttyUSB0?{query}")
    assert caught.value.argument == argument


def test_a_port_behind_a_network_takes_the_link_and_the_rate_of_its_line() -> None:
    link = open_transport("socket://gateway:4001?framing=link&baud=9600")
    assert link.description == "link on socket gateway:4001"
    with pytest.raises(ArgumentError, match="no option of socket"):
        open_transport("socket://gateway:4001?baud=9600")
