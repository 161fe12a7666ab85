"""How many Python calls one message costs: a budget that no busy machine can blur.

``sys.setprofile`` counts every entry into a Python function, in one thread, so the numbers repeat exactly.
The engine's network side runs in the test's own thread: what a network thread does per message is in the
count, what it does per wake-up is spread over the batch, as in real life.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import TYPE_CHECKING

import pytest

from device_sdk import AsyncClient, Client, Message
from device_sdk.errors import TransportClosedError
from device_sdk.mqtt.options import ConnectOptions
from device_sdk.mqtt.protocol import Protocol
from device_sdk.mqtt.session import Outgoing, Session
from device_sdk.net.base import Transport
from device_sdk.threads import CallbackThread
from tests.calls import Calls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pytest_mock import MockerFixture

TOPIC = "site/42/node/17/temperature"
TOPIC_FIELD = len(TOPIC).to_bytes(2, "big") + TOPIC.encode()
PAYLOAD = b"x" * 64
MESSAGES = 1_000
BATCH = 20
NOW = 100.0

CONNACK = {"3.1.1": b"\x20\x02\x00\x00", "5.0": b"\x20\x03\x00\x00\x00"}
VERSIONS = ["3.1.1", "5.0"]


def calls_per_message(run_batch: Callable[[], None]) -> float:
    """Run a batch often enough for ``MESSAGES``; return the Python calls for each of them."""
    run_batch()  # fills the caches for the topic
    with Calls("call") as calls:
        for _ in range(MESSAGES // BATCH):
            run_batch()
    return calls.total / MESSAGES


def encode_publish(qos: int, version: str, packet_id: int) -> bytes:
    """A PUBLISH from the broker."""
    message = Outgoing(TOPIC_FIELD, PAYLOAD, qos << 1, b"\0" if version == "5.0" else b"")
    return message.encode(packet_id if qos else 0, NOW)


class ReplayTransport(Transport):
    """Takes everything, and delivers what the test puts into ``incoming``; no kernel, no thread."""

    description = "replay"

    def __init__(self) -> None:
        self.incoming: deque[bytes] = deque()
        self.sent: list[bytes] = []

    def open(self, deadline: float) -> None:
        """Nothing to do."""

    def fileno(self) -> int:
        """Nobody polls."""
        return 0

    def recv(self) -> bytes | None:
        """The next piece, if there is one."""
        return self.incoming.popleft() if self.incoming else None

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Keep it for the assertions."""
        self.sent.append(bytes(data))
        return len(data)

    def abort(self) -> None:
        """Nobody else uses it."""
        raise TransportClosedError("not part of these tests")

    def close(self) -> None:
        """Nothing to do."""


class LoopClient:
    """A connected Client whose two threads were never started: the test takes their turns."""

    def __init__(self, version: str) -> None:
        self.transport = ReplayTransport()
        self.client = Client(self.transport, version=version, inflight=BATCH)
        self.engine = self.client._engine
        self.callbacks = CallbackThread(self.engine, lambda: None, lambda: None)
        with self.engine.lock:
            self.engine.life.start()
        self.engine.on_open(NOW)
        self.feed(CONNACK[version])
        assert self.client.state == "connected"
        self.run_handlers()
        self.transport.sent.clear()

    def feed(self, data: bytes) -> None:
        """What the network thread does when the transport is readable."""
        self.transport.incoming.append(data)
        self.engine.on_readable(NOW)

    def run_handlers(self) -> None:
        """One turn of the callback thread; the next one reports what was handled."""
        with self.engine.lock:
            batch = self.engine.events.take()
        self.callbacks.settle(self.callbacks._run_batch(batch))

    def sent(self) -> bytes:
        """What has left since the last call."""
        self.engine.flush(NOW)
        sent = b"".join(self.transport.sent)
        self.transport.sent.clear()
        return sent


def connected_protocol(version: str) -> Protocol:
    protocol = Protocol(Session(), ConnectOptions("counted", version=version), inflight=BATCH)
    protocol.connect(NOW, clean_start=True)
    protocol.receive_data(CONNACK[version], NOW)
    protocol.data_to_send(0, NOW)
    return protocol


def acknowledgements(first: int, packet_ids: list[int]) -> bytes:
    return b"".join(bytes((first, 2)) + packet_id.to_bytes(2, "big") for packet_id in packet_ids)


# The core


@pytest.mark.parametrize("version", VERSIONS)
def test_the_core_spends_six_calls_on_a_qos_0_publish(version: str) -> None:
    protocol = connected_protocol(version)
    properties = b"\0" if version == "5.0" else b""

    def batch() -> None:
        for _ in range(BATCH):
            protocol.publish_qos0(TOPIC_FIELD, PAYLOAD, 0, properties)
        assert len(protocol.data_to_send(0, NOW)) == BATCH

    assert calls_per_message(batch) <= 6


@pytest.mark.parametrize("version", VERSIONS)
def test_the_core_spends_fourteen_calls_on_a_qos_1_publish_and_its_puback(version: str) -> None:
    protocol = connected_protocol(version)
    properties = b"\0" if version == "5.0" else b""

    def batch() -> None:
        packet_ids = [protocol.publish(Outgoing(TOPIC_FIELD, PAYLOAD, 2, properties)) for _ in range(BATCH)]
        assert len(protocol.data_to_send(0, NOW)) == BATCH
        assert len(protocol.receive_data(acknowledgements(0x40, packet_ids), NOW)) == BATCH

    assert calls_per_message(batch) <= 14


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("qos", "limit"), [(0, 3), (1, 4)])
def test_the_core_spends_few_calls_on_a_received_message(version: str, qos: int, limit: int) -> None:
    protocol = connected_protocol(version)
    data = b"".join(encode_publish(qos, version, packet_id) for packet_id in range(1, BATCH + 1))

    def batch() -> None:
        events = protocol.receive_data(data, NOW)
        assert len(events) == BATCH
        for event in events:
            assert isinstance(event, Message)
            event.handled = True
        protocol.acknowledge_handled()
        assert len(protocol.data_to_send(0, NOW)) == (BATCH if qos else 0)

    assert calls_per_message(batch) <= limit


# The same through Client


@pytest.mark.parametrize("version", VERSIONS)
def test_the_client_spends_twelve_calls_on_a_qos_0_publish(version: str) -> None:
    loop = LoopClient(version)
    packet = encode_publish(0, version, 0)

    def batch() -> None:
        for _ in range(BATCH):
            loop.client.publish(TOPIC, PAYLOAD)
        assert loop.sent() == packet * BATCH

    assert calls_per_message(batch) <= 12


@pytest.mark.parametrize("burst", [1, 20, 1_000])
def test_a_burst_of_qos_0_wakes_the_network_once_and_leaves_in_few_sends(
    burst: int, mocker: MockerFixture
) -> None:
    loop = LoopClient("5.0")
    wake = mocker.patch.object(loop.client, "_wake")
    loop.engine.parked = True
    for _ in range(burst):
        loop.client.publish(TOPIC, PAYLOAD)
    loop.engine.flush(NOW)
    assert wake.call_count == 1
    sent = loop.transport.sent
    assert b"".join(sent) == encode_publish(0, "5.0", 0) * burst
    assert len(sent) <= 1 + burst * len(PAYLOAD) // 32_768


@pytest.mark.parametrize("version", VERSIONS)
def test_the_client_spends_24_calls_on_a_qos_1_publish_and_its_puback(version: str) -> None:
    loop = LoopClient(version)

    def batch() -> None:
        deliveries = [loop.client.publish(TOPIC, PAYLOAD, qos=1) for _ in range(BATCH)]
        assert loop.sent()
        loop.feed(acknowledgements(0x40, [delivery.packet_id for delivery in deliveries]))
        assert all(delivery.status == "acknowledged" for delivery in deliveries)

    assert calls_per_message(batch) <= 24


@pytest.mark.parametrize("version", VERSIONS)
def test_a_message_that_waited_for_the_window_spends_24_calls_too(version: str) -> None:
    """The queue in between is what a publisher meets that is faster than the broker."""
    loop = LoopClient(version)

    def batch() -> None:
        first = [loop.client.publish(TOPIC, PAYLOAD, qos=1) for _ in range(BATCH)]
        waiting = [loop.client.publish(TOPIC, PAYLOAD, qos=1) for _ in range(BATCH)]
        for deliveries in (first, waiting):
            assert loop.sent()
            loop.feed(acknowledgements(0x40, [delivery.packet_id for delivery in deliveries]))
        assert all(delivery.status == "acknowledged" for delivery in waiting)

    assert calls_per_message(batch) / 2 <= 24  # a batch is two rounds of BATCH


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("qos", "limit"), [(0, 6), (1, 8)])
def test_the_client_spends_few_calls_on_a_received_message(version: str, qos: int, limit: int) -> None:
    loop = LoopClient(version)
    received: list[Message] = []
    loop.client.subscribe(TOPIC, qos=qos, on_message=received.append)
    loop.sent()
    data = b"".join(encode_publish(qos, version, packet_id) for packet_id in range(1, BATCH + 1))

    def batch() -> None:
        received.clear()
        loop.feed(data)
        loop.run_handlers()
        assert len(received) == BATCH
        assert loop.sent() == (acknowledgements(0x40, list(range(1, BATCH + 1))) if qos else b"")

    assert calls_per_message(batch) <= limit


# The same through AsyncClient: with the turns of the loop that they take


class LoopTransport(ReplayTransport):
    """As its base class, with a descriptor for the loop; nothing ever happens there."""

    def __init__(self) -> None:
        super().__init__()
        self._fd = os.eventfd(0)

    def fileno(self) -> int:
        """Never readable."""
        return self._fd

    def close(self) -> None:
        """After it the object is of no use."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def async_calls_per_message(
    version: str, prepare: Callable[[AsyncClient, LoopTransport], Callable[[], Awaitable[None]]]
) -> float:
    """Connect an AsyncClient, and run the batch of ``prepare`` as :func:`calls_per_message` does."""

    async def main() -> int:
        transport = LoopTransport()
        client = AsyncClient(transport, version=version, inflight=BATCH)
        await client.start()
        engine = client._engine
        while not engine.has_connection():
            await asyncio.sleep(0)
        transport.incoming.append(CONNACK[version])
        engine.on_readable(NOW)
        assert client.state == "connected"
        run_batch = prepare(client, transport)
        await run_batch()
        with Calls("call") as calls:
            for _ in range(MESSAGES // BATCH):
                await run_batch()
        await client.close(0)
        return calls.total

    return asyncio.run(main()) / MESSAGES


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("qos", "limit"), [(0, 10), (1, 24)])
def test_the_async_client_spends_little_more_on_a_publish(version: str, qos: int, limit: int) -> None:
    def prepare(client: AsyncClient, transport: LoopTransport) -> Callable[[], Awaitable[None]]:
        async def batch() -> None:
            transport.sent.clear()
            deliveries = [await client.publish(TOPIC, PAYLOAD, qos=qos) for _ in range(BATCH)]
            await asyncio.sleep(0)  # the turn in which they leave
            assert len(b"".join(transport.sent)) > BATCH * len(PAYLOAD)
            if qos:
                answers = acknowledgements(0x40, [delivery.packet_id for delivery in deliveries])
                transport.incoming.append(answers)
                client._driver._readable()  # type: ignore[union-attr]
                for delivery in deliveries:
                    await delivery.wait()

        return batch

    assert async_calls_per_message(version, prepare) <= limit


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("way", "qos", "limit"), [("handler", 0, 9), ("handler", 1, 11), ("inbox", 0, 21), ("inbox", 1, 23)]
)
def test_the_async_client_spends_few_calls_on_a_received_message(
    version: str, way: str, qos: int, limit: int
) -> None:
    data = b"".join(encode_publish(qos, version, packet_id) for packet_id in range(1, BATCH + 1))
    received: list[Message] = []

    def prepare(client: AsyncClient, transport: LoopTransport) -> Callable[[], Awaitable[None]]:
        inbox = client.messages()
        if way == "handler":
            client.subscribe(TOPIC, qos=qos, on_message=received.append)

        async def batch() -> None:
            received.clear()
            transport.incoming.append(data)
            client._driver._readable()  # type: ignore[union-attr]
            while len(received) < BATCH:
                if way == "inbox":
                    received.append(await inbox.get())
                else:
                    await asyncio.sleep(0)

        return batch

    assert async_calls_per_message(version, prepare) <= limit


def test_the_counts_repeat_exactly() -> None:
    protocol = connected_protocol("5.0")

    def batch() -> None:
        for _ in range(BATCH):
            protocol.publish_qos0(TOPIC_FIELD, PAYLOAD, 0, b"\0")
        protocol.data_to_send(0, NOW)

    first = calls_per_message(batch)
    assert first > 1  # the counter counts
    assert calls_per_message(batch) == first
