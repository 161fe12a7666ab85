"""The asyncio client and a real Mosquitto: every QoS, both loops, and cuts that lose nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from device_sdk import AsyncClient, Message
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.testing import FaultProxy
from tests.aio.conftest import Run, run
from tests.steps import eventually_in_loop as eventually

if TYPE_CHECKING:
    from device_sdk.testing.broker_process import ChildBroker

__all__ = ["run"]  # a fixture of the other folder

FAST = ReconnectPolicy(first=0.02, longest=0.1)


@pytest.mark.parametrize("version", ["3.1", "3.1.1", "5.0"])
def test_messages_of_every_qos_go_round(mosquitto: ChildBroker, run: Run, version: str) -> None:
    received: list[Message] = []

    async def handler(message: Message) -> None:
        await asyncio.sleep(0)
        received.append(message)

    async def main() -> None:
        async with AsyncClient(mosquitto.url(version), version=version) as client:
            await client.connect(5)
            assert await client.subscribe("t/#", qos=2, on_message=handler).wait(5) == [2]
            for qos in (0, 1, 2):
                await (await client.publish(f"t/{qos}", b"%d" % qos, qos=qos)).wait(5)
            await eventually(lambda: len(received) == 3)
            assert await client.unsubscribe("t/#").wait(5) == [0]
            await (await client.publish("t/0", b"to nobody", qos=1)).wait(5)

    run(main())
    assert sorted((m.topic, m.payload, m.qos) for m in received) == [
        ("t/0", b"0", 0),
        ("t/1", b"1", 1),
        ("t/2", b"2", 2),
    ]


def test_nothing_is_lost_and_nothing_comes_twice_through_cuts(mosquitto: ChildBroker, run: Run) -> None:
    count = 400
    taken: list[int] = []

    async def consume(client: AsyncClient) -> None:
        async for message in client.messages():
            await asyncio.sleep(0)
            taken.append(int(message.payload))

    async def main(proxy: FaultProxy) -> None:
        url = f"mqtt://{proxy.host}:{proxy.port}"
        async with (
            AsyncClient(url, client_id="out", reconnect=FAST, clean_start=False) as sender,
            AsyncClient(url, client_id="in", reconnect=FAST, clean_start=False) as receiver,
        ):
            consumer = asyncio.create_task(consume(receiver))
            await receiver.subscribe("t", qos=2).wait(5)
            deliveries = []
            for number in range(count):
                deliveries.append(await sender.publish("t", b"%d" % number, qos=2))
                if number % 100 == 60:
                    await deliveries[-30].wait(10)
                    proxy.reset()
            for delivery in deliveries:
                await delivery.wait(20)
            await eventually(lambda: len(taken) >= count, timeout=20)
            assert sender.stats.reconnects
            assert receiver.stats.reconnects
        await consumer

    with FaultProxy("127.0.0.1", urlsplit(mosquitto.url("5.0")).port or 0) as proxy:
        run(main(proxy))
    assert taken == list(range(count))


def test_a_broker_that_restarts_gets_what_waited(mosquitto: ChildBroker, run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(mosquitto.url("5.0"), reconnect=FAST) as client:
            await client.connect(5)
            mosquitto.terminate()
            await eventually(lambda: client.state != "connected")
            delivery = await client.publish("t", b"waited", qos=1)
            mosquitto.start()
            await delivery.wait(10)

    run(main())
