"""Clients over ``framing=link`` on a line that disturbs one byte in 500, with a real Mosquitto behind it."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from device_sdk import Client, Message
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.net.base import parse_url
from device_sdk.net.link import words
from device_sdk.net.link.answerer import Answerer
from device_sdk.net.link.stream import LinkStream
from device_sdk.net.tls import TLSOptions
from device_sdk.testing import Certificates, PtyLine
from device_sdk.testing.broker_process import ChildBroker
from tests.system.test_serial_line import Listener
from tests.system.test_tls import TlsMosquitto

PATIENCE = 40.0
EAGER = ReconnectPolicy(first=0.05, longest=0.2)
HOST = "127.0.0.1"
ROOM = 4096


def read(sock: socket.socket) -> bytes:
    try:
        return sock.recv(ROOM)
    except ConnectionResetError:  # closed with data unread
        return b""


class Bridge:
    """The gateway: bytes of a line come over TCP, each epoch goes to the broker in its own connection."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.listener = socket.create_server((HOST, 0))
        self.end = Answerer(115_200, 256, 8, int.from_bytes(os.urandom(2), "little"))
        self.epochs = 0
        self.damaged = 0
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._running = True
        self._line: socket.socket | None = None
        self._broker: socket.socket | None = None
        self._stream: LinkStream | None = None
        self._up = b""
        self._down = b""
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Bridge:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._running = False
        os.eventfd_write(self._wake, 1)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        for sock in (self.listener, self._line, self._broker):
            if sock is not None:
                sock.close()
        os.close(self._wake)

    def _run(self) -> None:
        while self._running:
            reading: list[socket.socket | int] = [self._wake, self.listener]
            reading += [self._line] if self._line is not None else []
            reading += [self._broker] if self._broker is not None and len(self._down) < ROOM else []
            writing = [self._broker] if self._broker is not None and self._up else []
            due = self.end.next_deadline(blocked=self._line is None)
            wait = None if due is None else max(0.0, due - time.monotonic())
            self._serve(*select.select(reading, writing, [], wait)[:2])

    def _serve(self, readable: Sequence[object], writable: Sequence[object]) -> None:
        now = time.monotonic()
        if self.listener in readable:
            self._end_line()
            self._line = self.listener.accept()[0]
        elif self._line in readable and self._line is not None:
            data = read(self._line)
            if data:
                self.end.receive(data, now)
            else:
                self._end_line()
        self.end.handle_deadline(now)
        self._follow()
        stream = self._stream
        if stream is not None:
            self._serve_stream(stream, readable, writable, now)
        while self._line is not None and (frame := self.end.next_frame(time.monotonic())):
            with contextlib.suppress(OSError):
                self._line.sendall(frame)
        self.damaged = self.end.splitter.damaged

    def _serve_stream(
        self, stream: LinkStream, readable: Sequence[object], writable: Sequence[object], now: float
    ) -> None:
        if self._broker in readable and self._broker is not None:
            data = read(self._broker)
            self._down += data
            if not data:
                self._end_broker()
        if not self._up:
            self._up = stream.take()
        if self._up and self._broker is not None:
            with contextlib.suppress(OSError):  # its end is told by the next read
                self._up = self._up[self._broker.send(self._up) :]
        self._down = self._down[stream.send(self._down, now) :]
        if self._broker is None and not self._down:
            stream.close(words.AWAY)

    def _follow(self) -> None:
        """Take a new stream to the broker."""
        stream = self.end.stream
        if stream is not None and stream is not self._stream:
            self._end_broker()
            self._stream, self._up, self._down = stream, b"", b""
            self._broker = socket.create_connection(self.target, PATIENCE)
            self.epochs += 1
        elif stream is not None and stream.end is not None and not self._up:
            self._end_broker()

    def _end_line(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def _end_broker(self) -> None:
        if self._broker is not None:
            self._broker.close()
            self._broker = None


@pytest.fixture
def bridge(mosquitto: ChildBroker) -> Iterator[Bridge]:
    url = parse_url(mosquitto.url())
    with Bridge((url.host, url.port)) as bridge:
        yield bridge


@pytest.fixture
def line(bridge: Bridge) -> Iterator[PtyLine]:
    with PtyLine(HOST, bridge.listener.getsockname()[1]) as line:
        yield line


def test_a_noisy_line_loses_nothing_repeats_nothing_and_keeps_its_connection(
    bridge: Bridge, line: PtyLine, mosquitto: ChildBroker
) -> None:
    received: Counter[bytes] = Counter()
    done = threading.Event()

    def receive(message: Message) -> None:
        received[message.payload] += 1
        if received.total() == 100:
            done.set()

    line.noise(1 / 500, seed=3)
    with (
        Listener(mosquitto.url()) as listener,
        Client(f"{line.url}&framing=link", client_id="board", reconnect=EAGER) as board,
    ):
        board.subscribe("cmd/#", qos=2, on_message=receive).wait(PATIENCE)
        deliveries = [
            board.publish(f"line/{qos}", b"%d-%d" % (qos, number), qos=qos)
            for number in range(100)
            for qos in (1, 2)
        ]
        for number in range(100):
            listener.client.publish("cmd/x", b"%d" % number, qos=2)
        for delivery in deliveries:
            delivery.wait(PATIENCE)
        assert done.wait(PATIENCE)
        listener.wait_for_total(200)
        assert listener.counts == Counter({b"%d-%d" % (q, n): 1 for q in (1, 2) for n in range(100)})
        assert received == Counter({b"%d" % number: 1 for number in range(100)})
    assert bridge.damaged > 5
    assert bridge.epochs == 1


def test_a_line_that_is_noisy_and_unplugged_twice_delivers_what_was_produced(
    bridge: Bridge, line: PtyLine, mosquitto: ChildBroker
) -> None:
    gone = threading.Semaphore(0)
    line.noise(1 / 500, seed=5)
    with (
        Listener(mosquitto.url()) as listener,
        Client(
            f"{line.url}&framing=link", client_id="board", clean_start=False, reconnect=EAGER,
            on_disconnect=lambda error: gone.release(),
        ) as board,
    ):  # fmt: skip
        deliveries = []
        for outage in range(2):
            for number in range(80):
                for qos in (1, 2):
                    payload = b"%d-%d-%d" % (qos, outage, number)
                    deliveries.append(board.publish(f"line/{qos}", payload, qos=qos))
            listener.wait_for_total(160 * outage + 30)
            line.unplug()
            assert gone.acquire(timeout=PATIENCE)
            line.plug()
        for delivery in deliveries:
            delivery.wait(PATIENCE)
        sent = {b"%d-%d-%d" % (q, o, n) for q in (1, 2) for o in range(2) for n in range(80)}
        listener.wait_for(lambda counts: set(counts) == sent)
        assert {p: n for p, n in listener.counts.items() if p.startswith(b"2-") and n != 1} == {}
    assert bridge.epochs >= 3


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def test_tls_goes_over_a_noisy_line(certificates: Certificates) -> None:
    if not TlsMosquitto.available():
        pytest.skip("needs mosquitto")
    tls = TLSOptions(ca_file=certificates.ca, server_name="localhost")
    received: Counter[bytes] = Counter()
    done = threading.Event()

    def receive(message: Message) -> None:
        received[message.payload] += 1
        if received.total() == 50:
            done.set()

    with (
        TlsMosquitto(certificates) as broker,
        Bridge((HOST, broker.tls_port)) as bridge,
        PtyLine(HOST, bridge.listener.getsockname()[1]) as line,
    ):
        line.noise(1 / 500, seed=7)
        with Client(f"{line.url}&framing=link", client_id="board", tls=tls, reconnect=EAGER) as board:
            board.subscribe("round", qos=2, on_message=receive).wait(PATIENCE)
            for number in range(50):
                board.publish("round", b"%d" % number, qos=2)
            assert done.wait(PATIENCE)
        assert received == Counter({b"%d" % number: 1 for number in range(50)})
        assert bridge.damaged > 5
        assert bridge.epochs == 1


def test_a_broker_that_goes_away_is_the_reason_that_the_board_reads(
    bridge: Bridge, line: PtyLine, mosquitto: ChildBroker
) -> None:
    reasons: list[str] = []
    gone = threading.Event()

    def note(error: Exception | None) -> None:
        reasons.append(str(error))
        gone.set()

    with Client(
        f"{line.url}&framing=link", client_id="board", version="3.1.1", clean_start=True, on_disconnect=note
    ) as board:
        board.connect(PATIENCE)
        mosquitto.terminate()
        assert gone.wait(PATIENCE)
    assert "the gateway has no connection to its broker" in reasons[0]
