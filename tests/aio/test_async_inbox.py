"""The pull inbox of the asyncio client: several consumers, back-pressure, acknowledgement, cancellation."""

from __future__ import annotations

import asyncio

import pytest

from device_sdk import AsyncClient, Message
from device_sdk.errors import ClosedError
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.packets import Connack, Pingresp, Publish
from device_sdk.testing import BrokerServer, ModelBroker, ScriptedBroker
from device_sdk.testing.scripted_broker import expect, ignore, send
from tests.aio.conftest import Run, assert_nobody_waits, cancelled, run_in, turns
from tests.steps import eventually_in_loop as eventually

Server = BrokerServer[ModelBroker]


async def publish(client: AsyncClient, count: int, qos: int = 1) -> None:
    for number in range(count):
        await client.publish("t", b"%d" % number, qos=qos)


def test_several_consumers_share_the_messages_and_end_with_the_client(server: Server, run: Run) -> None:
    taken: list[list[bytes]] = [[], [], []]

    async def consume(client: AsyncClient, mine: list[bytes]) -> None:
        async for message in client.messages():
            mine.append(message.payload)
            await asyncio.sleep(0)

    async def main() -> None:
        async with AsyncClient(server.url) as client:
            consumers = [asyncio.create_task(consume(client, mine)) for mine in taken]
            await client.subscribe("t", qos=1)
            await publish(client, 300)
            await eventually(lambda: sum(map(len, taken)) == 300 and client.stats.acks_held == 0)
        await asyncio.gather(*consumers)

    run(main())
    assert sorted(int(payload) for mine in taken for payload in mine) == list(range(300))
    assert all(mine == sorted(mine, key=int) and mine for mine in taken)


def test_a_message_is_acknowledged_when_the_next_one_is_asked_for_or_the_task_ends(
    server: Server, run: Run
) -> None:
    async def take_one(client: AsyncClient) -> bytes:
        return (await client.messages().get(5)).payload

    async def main() -> None:
        async with AsyncClient(server.url) as client:
            inbox = client.messages()
            await client.subscribe("t", qos=1)
            await publish(client, 3)
            await eventually(lambda: len(inbox) == 3)
            assert (await inbox.get(5)).payload == b"0"
            await turns()
            assert client.stats.acks_held == 3
            assert (await inbox.get(5)).payload == b"1"
            await eventually(lambda: client.stats.acks_held == 2)
            assert await asyncio.create_task(take_one(client)) == b"2"
            with pytest.raises(TimeoutError, match=r"no message within 0\.01 s"):
                await inbox.get(0.01)
            await eventually(lambda: client.stats.acks_held == 0)
            assert_nobody_waits(client)
        with pytest.raises(ClosedError, match="inbox is empty"):
            await inbox.get()

    run(main())


def test_the_message_of_a_consumer_that_is_cancelled_or_fails_goes_to_the_next_one(
    server: Server, run: Run
) -> None:
    got: list[bytes] = []

    async def hang(client: AsyncClient) -> None:
        async for message in client.messages():
            got.append(message.payload)
            await asyncio.Event().wait()

    async def fail(client: AsyncClient) -> None:
        got.append((await client.messages().get()).payload)
        raise ValueError("cannot use it")

    async def main() -> None:
        async with AsyncClient(server.url) as client:
            await client.subscribe("t", qos=1)
            first = asyncio.create_task(hang(client))
            await turns()
            await publish(client, 2)
            await eventually(lambda: got == [b"0"])
            await cancelled(first)
            with pytest.raises(ValueError, match="cannot use it"):
                await asyncio.create_task(fail(client))
            assert got == [b"0", b"0"]
            await turns()
            assert (await client.messages().get(5)).payload == b"0"
            assert (await client.messages().get(5)).payload == b"1"
            await eventually(lambda: client.stats.acks_held == 1)

    run(main())


def test_a_consumer_cancelled_at_the_moment_of_its_wake_up_loses_nothing(server: Server, run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(server.url) as client:
            inbox = client.messages()
            tasks = [asyncio.create_task(inbox.get(5)) for _ in range(2)]
            await turns()
            inbox.put(Message("t", b"x"))  # has woken the first one, which has not run
            client._engine.incoming.in_hand.arrived(1)
            await cancelled(tasks[0])
            assert (await tasks[1]).payload == b"x"
            assert_nobody_waits(client)

    run(main())


def test_a_full_inbox_pauses_reading_and_pings_go_on(run: Run) -> None:
    count = 50
    packets = [
        encode_packet(Publish("t", b"%d" % number, qos=1, packet_id=number + 1), "5.0")
        for number in range(count)
    ]
    ahead = 20
    script = [
        expect("connect", keep_alive=1),
        send(Connack()),
        expect("subscribe"),
        send(b"".join(packets[:ahead])),
        expect("pingreq"),
        send(Pingresp(), b"".join(packets[ahead:])),
        ignore(),
    ]
    broker = ScriptedBroker(script, version="5.0", answer_pings=False)

    async def main(server: BrokerServer[ScriptedBroker]) -> None:
        async with AsyncClient(server.url, keep_alive=1, inbox_limit=5) as client:
            await client.connect(5)
            inbox = client.messages()
            client.subscribe("t", qos=1)
            await eventually(lambda: len(inbox) == ahead)  # one read had them all
            assert client._driver is not None
            assert client._driver._watched is not None
            assert not client._driver._watched[1]
            await asyncio.to_thread(server.wait_for, lambda: "pingreq" in [p.type for p in broker.received])
            assert len(inbox) == ahead
            payloads = [(await inbox.get(5)).payload for _ in range(count)]
            assert payloads == [b"%d" % n for n in range(count)]
            assert client.stats.connects == 1

    with BrokerServer(broker) as server:
        run(main(server))


def test_a_consumer_may_wait_for_the_broker_although_its_inbox_is_full(server: Server, run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(server.url, inbox_limit=1) as client:
            inbox = client.messages()
            await client.subscribe("t", qos=1)
            await publish(client, 3)
            for _ in range(3):
                await inbox.get(5)
                delivery = await client.publish("answer", b"x", qos=1)
                await asyncio.wait_for(delivery.wait(), 5)  # in Python 3.11 this is another task
            assert_nobody_waits(client)

    run(main())


def test_with_manual_acknowledgement_any_thread_may_finish_a_message(server: Server, run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(server.url, manual_ack=True) as client:
            inbox = client.messages()
            await client.subscribe("t", qos=1)
            await publish(client, 2)
            first, second = await inbox.get(5), await inbox.get(5)
            await turns()
            assert client.stats.acks_held == 2
            await asyncio.to_thread(first.acknowledge)
            await eventually(lambda: client.stats.acks_held == 1)
            second.acknowledge()
            await eventually(lambda: client.stats.acks_held == 0)

    run(main())


def test_the_inbox_of_a_client_is_one_and_the_same() -> None:
    async def main() -> None:
        client = AsyncClient("memory://nobody")
        assert client.messages() is client.messages()
        await client.close()

    run_in(main())


def test_a_task_that_waits_for_the_next_message_is_not_left_behind_those_that_it_holds(
    server: Server, run: Run
) -> None:
    """With manual_ack reading pauses at inbox_bytes, but not for who waits for one more message."""
    taken: list[Message] = []

    async def main() -> None:
        async with AsyncClient(server.url, manual_ack=True, inbox_bytes=1_000) as client:
            inbox = client.messages()
            await client.subscribe("t", qos=1)
            await publish_large(server.url, 5)
            while len(taken) < 5:
                taken.append(await inbox.get(10))
            for message in taken:
                message.acknowledge()
            await eventually(lambda: client.stats.acks_held == 0)

    run(main())


async def publish_large(url: str, count: int) -> None:
    async with AsyncClient(url) as source:
        for _ in range(count):
            await (await source.publish("t", bytes(2_000), qos=1)).wait(10)
