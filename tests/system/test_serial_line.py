"""A client on a serial line with Mosquitto behind it: unplugged, disturbed, opened again."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from device_sdk import Client, Message
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.errors import TransportClosedError
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.packets import Connect, Publish
from device_sdk.net.base import open_transport, parse_url
from device_sdk.testing.broker_process import ChildBroker
from device_sdk.testing.pty_line import PtyLine

PATIENCE = 20.0
EAGER = ReconnectPolicy(first=0.05, longest=0.2)


@pytest.fixture
def line(mosquitto: ChildBroker) -> Iterator[PtyLine]:
    url = parse_url(mosquitto.url())
    with PtyLine(url.host, url.port) as line:
        yield line


class Listener:
    """A client over TCP that counts what arrives."""

    def __init__(self, url: str) -> None:
        self.counts: Counter[bytes] = Counter()
        self._changed = threading.Condition()
        self.client = Client(url, client_id="listener", on_message=self._receive)

    def __enter__(self) -> Listener:
        self.client.connect(PATIENCE)
        self.client.subscribe("line/#", qos=2).wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def _receive(self, message: Message) -> None:
        with self._changed:
            self.counts[message.payload] += 1
            self._changed.notify_all()

    def wait_for_total(self, count: int) -> None:
        self.wait_for(lambda counts: counts.total() >= count)

    def wait_for(self, condition: Callable[[Counter[bytes]], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.counts), PATIENCE), self.counts.total()


@pytest.mark.parametrize("version", ["5.0", "3.1.1"])
def test_a_line_unplugged_twice_loses_nothing_and_repeats_nothing_at_qos_2(
    line: PtyLine, mosquitto: ChildBroker, version: str
) -> None:
    gone = threading.Semaphore(0)
    line.throttle(100_000)
    with (
        Listener(mosquitto.url()) as listener,
        Client(
            line.url, client_id="device", version=version, clean_start=False, reconnect=EAGER,
            on_disconnect=lambda error: gone.release(),
        ) as client,
    ):  # fmt: skip
        deliveries = []
        for outage in range(2):
            for number in range(300):
                for qos in (1, 2):
                    payload = b"%d-%d-%d" % (qos, outage, number)
                    deliveries.append(client.publish(f"line/{qos}", payload, qos=qos))
            listener.wait_for_total(600 * outage + 50)
            line.unplug()
            assert gone.acquire(timeout=PATIENCE)
            line.plug()
        for delivery in deliveries:
            delivery.wait(PATIENCE)
        sent = {b"%d-%d-%d" % (q, o, n) for q in (1, 2) for o in range(2) for n in range(300)}
        listener.wait_for(lambda counts: set(counts) == sent)
        assert line.connections >= 3
        assert {p: n for p, n in listener.counts.items() if p.startswith(b"2-") and n != 1} == {}


def test_messages_for_the_device_survive_an_unplugged_line(line: PtyLine, mosquitto: ChildBroker) -> None:
    received: Counter[bytes] = Counter()
    gone, done = threading.Event(), threading.Event()

    def receive(message: Message) -> None:
        received[message.payload] += 1
        if len(received) == 100:
            done.set()

    with (
        Client(mosquitto.url(), client_id="sender") as sender,
        Client(
            line.url, client_id="device", clean_start=False, reconnect=EAGER,
            on_disconnect=lambda error: gone.set(),
        ) as device,
    ):  # fmt: skip
        device.subscribe("cmd/#", qos=2, on_message=receive).wait(PATIENCE)
        line.unplug()
        assert gone.wait(PATIENCE)
        for number in range(100):
            sender.publish("cmd/x", b"%d" % number, qos=2).wait(PATIENCE)
        line.plug()
        assert done.wait(PATIENCE)
    assert received == Counter({b"%d" % number: 1 for number in range(100)})


def leave_half_a_packet(line: PtyLine, half: bytes, end: str) -> None:
    """CONNECT and the beginning of a packet, then nothing more.

    The line may hang up on an opening that follows another at once: then open it again, as a client does.
    """
    transport = open_transport(line.url)
    deadline = time.monotonic() + PATIENCE
    while True:
        transport.open(deadline)
        try:
            transport.send(encode_packet(Connect("half"), "5.0"))
            transport.send(half)
            break
        except TransportClosedError:
            transport.close()
            assert time.monotonic() < deadline
    getattr(transport, end)()
    transport.close()


def test_half_a_packet_from_before_is_not_completed_by_the_next_opening(
    line: PtyLine, mosquitto: ChildBroker
) -> None:
    """Without the gateway's rule the CONNECT that follows becomes the payload of the half PUBLISH."""
    half = encode_packet(Publish("line/half", bytes(1000)), "5.0")[:500]
    with Listener(mosquitto.url()) as listener:
        for end in ("close", "abort"):
            leave_half_a_packet(line, half, end)
            with Client(line.url, client_id="whole", reconnect=EAGER) as client:
                client.publish("line/whole", end, qos=1).wait(PATIENCE)
        listener.wait_for_total(2)
        assert set(listener.counts) == {b"close", b"abort"}


def test_a_noisy_line_ends_connections_and_never_the_client(line: PtyLine) -> None:
    trouble = threading.Event()
    with Client(
        line.url, client_id="noisy", clean_start=False, keep_alive=2, connect_timeout=1.0, reconnect=EAGER,
        on_disconnect=lambda error: trouble.set(),
    ) as client:  # fmt: skip
        client.publish("line/clear", b"before", qos=1).wait(PATIENCE)
        line.noise(0.02, seed=7)
        until = time.monotonic() + PATIENCE
        while not trouble.is_set():
            assert time.monotonic() < until, "noise did no harm"
            client.publish("line/noise", bytes(50), qos=0)
            trouble.wait(0.01)
        line.noise(0)
        client.publish("line/clear", b"after", qos=2).wait(PATIENCE)
        assert client.stats.reconnects >= 1


def test_a_broker_that_restarts_is_found_again_through_the_line(
    line: PtyLine, mosquitto: ChildBroker
) -> None:
    gone = threading.Event()
    with Client(
        line.url, client_id="device", clean_start=False, reconnect=EAGER,
        on_disconnect=lambda error: gone.set(),
    ) as client:  # fmt: skip
        client.publish("line/x", b"1", qos=1).wait(PATIENCE)
        mosquitto.terminate()
        assert gone.wait(PATIENCE), "the line was not hung up"
        delivery = client.publish("line/x", b"2", qos=2)
        mosquitto.start()
        delivery.wait(PATIENCE)
