"""What an application sees of the asyncio client: publish, subscribe, handlers, start, connect, close."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from device_sdk import AsyncClient, Message, Subscription
from device_sdk._clock import boottime
from device_sdk.aio import AsyncDelivery
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.engine.events import ClientEvent
from device_sdk.errors import (
    ArgumentError,
    ClosedError,
    ConnectFailedError,
    ConnectRefused,
    DeliveryCancelledError,
    DroppedError,
    QueueFullError,
    StoreError,
    SubscribeRefused,
)
from device_sdk.mqtt.packets import Connack, Disconnect, Puback, Suback
from device_sdk.net.memory import MemoryListener
from device_sdk.store.base import StorePolicy
from device_sdk.store.memory import MemoryStore
from device_sdk.testing import BrokerServer, FaultProxy, ModelBroker, ScriptedBroker
from device_sdk.testing.scripted_broker import close, expect, ignore, send, stall
from tests.aio.conftest import Run, assert_nobody_waits, run_in, turns
from tests.engine.rig import SlowStore
from tests.steps import eventually_in_loop as eventually

FAST = ReconnectPolicy(first=0.02, longest=0.05)
NEVER_AGAIN = ReconnectPolicy(first=1_000, longest=1_000)
NOWHERE = "memory://nobody"
Server = BrokerServer[ModelBroker]


# Publish and subscribe


@pytest.mark.parametrize("version", ["3.1", "3.1.1", "5.0"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_goes_out_and_comes_back(server: Server, run: Run, version: str, qos: int) -> None:
    received: list[Message] = []

    async def main() -> None:
        async with AsyncClient(server.url, version=version) as client:
            assert await client.subscribe("a/+", qos=qos, on_message=received.append).wait(5) == [qos]
            delivery = await client.publish("a/b", b"payload", qos=qos)
            await delivery.wait(5)
            assert delivery.done
            await eventually(lambda: received)

    run(main())
    assert [(m.topic, m.payload, m.qos) for m in received] == [("a/b", b"payload", qos)]


def test_nothing_is_lost_and_nothing_comes_twice_through_cuts(server: Server, run: Run) -> None:
    count = 300

    async def main(proxy: FaultProxy) -> None:
        url = f"mqtt://{proxy.host}:{proxy.port}"
        async with AsyncClient(url, reconnect=FAST, clean_start=False) as client:
            deliveries = []
            for number in range(count):
                deliveries.append(await client.publish("t", b"%d" % number, qos=2))
                if number % 100 == 50:
                    await deliveries[-20].wait(5)
                    proxy.reset()
            for delivery in deliveries:
                await delivery.wait(10)
            assert client.stats.acknowledged == count
            assert client.stats.connects > 1

    with FaultProxy("127.0.0.1", server.port) as proxy:
        run(main(proxy))
    assert server.broker.payloads("t") == [b"%d" % number for number in range(count)]


def stream_of(client: AsyncClient) -> Any:
    connection = client._engine.connection
    assert connection is not None
    return connection.stream


def test_what_is_published_in_one_turn_leaves_in_one_send(server: Server, run: Run) -> None:
    sends: list[int] = []

    async def main() -> None:
        async with AsyncClient(server.url) as client:
            await client.connect(5)
            transport = client._engine.transport
            send_now = transport.send

            def counted(data: Any) -> int:
                sends.append(len(data))
                return send_now(data)

            stream_of(client).transport = Patched(transport, counted)
            for _ in range(100):
                await client.publish("t", b"x")
            assert sends == []
            await turns()
            assert len(sends) == 1

    run(main())
    server.wait_for(lambda: len(server.broker.payloads("t")) == 100)


def test_more_than_one_flush_takes_goes_on_in_the_next_turn(server: Server, run: Run) -> None:
    sent = 0

    async def main() -> None:
        async with AsyncClient(server.url) as client:
            await client.connect(5)

            def take_all(data: Any) -> int:
                nonlocal sent
                sent += len(data)
                return len(data)

            stream_of(client).transport = Patched(client._engine.transport, take_all)
            for _ in range(60):
                await client.publish("t", bytes(250_000))
            await turns(10)
            assert sent > 60 * 250_000

    run(main())


class Patched:
    """A transport with another send()."""

    def __init__(self, transport: Any, send: Any) -> None:
        self._transport = transport
        self.send = send

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def test_a_task_that_only_publishes_leaves_turns_to_the_others(server: Server) -> None:
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    async def main() -> None:
        async with AsyncClient(server.url) as client:
            await client.connect(5)
            task = asyncio.create_task(other())
            for _ in range(2_000):
                await client.publish("t", b"x")
            task.cancel()

    run_in(main())
    assert others >= 10


def test_a_subscription_can_be_awaited_waited_for_or_left_alone(server: Server, run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(server.url) as client:
            assert await client.subscribe("a", qos=1) == [1]
            assert await client.subscribe([Subscription("b", 0), Subscription("c", 2)]).wait(5) == [0, 2]
            left_alone = client.subscribe("d", qos=2)
            await eventually(lambda: left_alone.done)
            assert (left_alone.reason_codes, left_alone.error) == ([2], None)
            assert left_alone.properties == {}
            assert await client.unsubscribe(["a", "b"]) == [0, 0]
            assert "done" in repr(left_alone)

    run(main())


def test_a_refused_subscription_raises_where_it_is_awaited(run: Run) -> None:
    script = [
        expect("connect"),
        send(Connack()),
        expect("subscribe"),
        send(lambda seen: Suback(seen.packet_id, [0x87])),
        ignore(),
    ]

    async def main(url: str) -> None:
        async with AsyncClient(url) as client:
            with pytest.raises(SubscribeRefused, match="secret"):
                await client.subscribe("secret")

    with BrokerServer(ScriptedBroker(script, version="5.0")) as server:
        run(main(server.url))


def test_bad_arguments_are_told_by_name_and_nothing_is_queued() -> None:
    async def main() -> None:
        client = AsyncClient(NOWHERE)
        with pytest.raises(ArgumentError, match="qos"):
            await client.publish("t", b"", qos=3)
        with pytest.raises(ArgumentError, match="topic"):
            await client.publish("t/#", b"")
        with pytest.raises(ArgumentError):
            client.subscribe("a/#/b")
        with pytest.raises(ArgumentError, match="timeout"):
            await client.connect(0)
        with pytest.raises(ArgumentError, match="auth"):
            await client.reauthenticate()
        assert client.stats.queued == 0
        await client.close()

    run_in(main())


# Deliveries


def test_waiting_for_a_delivery_ends_with_its_time() -> None:
    async def main() -> None:
        client = AsyncClient(NOWHERE)
        delivery = await client.publish("t", b"x", qos=1)
        with pytest.raises(TimeoutError, match=r"was not acknowledged within 0\.01 s"):
            await delivery.wait(0.01)
        assert (delivery.state, delivery.topic, delivery.payload) == ("queued", "t", b"x")
        assert (delivery.qos, delivery.retain, delivery.packet_id, delivery.error) == (1, False, 0, None)
        assert_nobody_waits(client)
        await client.close()
        with pytest.raises(DroppedError):
            await delivery.wait()

    run_in(main())


def test_several_tasks_may_wait_for_one_delivery(server: Server, run: Run) -> None:
    async def main() -> None:
        client = AsyncClient(server.url)
        delivery = await client.publish("t", b"x", qos=1)
        waits = [asyncio.create_task(delivery.wait(5)) for _ in range(3)]
        await turns()
        await client.start()
        await asyncio.gather(*waits)
        await client.close()

    run(main())


def test_without_a_store_nothing_is_ever_stored() -> None:
    async def main() -> None:
        client = AsyncClient(NOWHERE)
        delivery = await client.publish("t", b"x", qos=1)
        with pytest.raises(StoreError, match="keeps its queue in memory"):
            await delivery.wait_stored(1)
        await client.close()

    run_in(main())


def test_a_memory_store_has_stored_at_once() -> None:
    async def main() -> None:
        client = AsyncClient(NOWHERE, store=MemoryStore())
        delivery = await client.publish("t", b"x", qos=1)
        await delivery.wait_stored(1)
        assert delivery.state == "stored"
        await client.close()

    run_in(main())


def test_the_commit_of_a_store_wakes_who_waits_from_its_own_thread(run: Run) -> None:
    async def main() -> None:
        store = SlowStore()
        client = AsyncClient(NOWHERE, store=store)
        delivery = await client.publish("t", b"x", qos=1)
        with pytest.raises(TimeoutError, match="was not stored"):
            await delivery.wait_stored(0.01)
        stored = asyncio.create_task(delivery.wait_stored(5))
        await turns()
        thread = threading.Thread(target=store.commit)
        thread.start()
        await stored
        thread.join(5)
        await client.close()
        assert store.closed
        with pytest.raises(ClosedError):
            await delivery.wait(1)

    run(main())


def test_a_store_that_fails_is_told_to_who_waits_for_it() -> None:
    async def main() -> None:
        store = SlowStore()
        client = AsyncClient(NOWHERE, store=store)
        delivery = await client.publish("t", b"x", qos=1)
        stored = asyncio.create_task(delivery.wait_stored(5))
        await turns()
        thread = threading.Thread(target=store.fail)
        thread.start()
        with pytest.raises(StoreError, match="no space left"):
            await stored
        thread.join(5)
        assert_nobody_waits(client)
        await client.close()

    run_in(main())


# A full queue


def full_client(**arguments: Any) -> AsyncClient:
    policy = StorePolicy(max_messages=1, overflow="block", **arguments)
    return AsyncClient(NOWHERE, policy=policy, reconnect=NEVER_AGAIN)


def test_publish_waits_for_room_in_a_full_queue_and_keeps_the_order(server: Server, run: Run) -> None:
    async def main() -> None:
        policy = StorePolicy(max_messages=2, overflow="block")
        async with AsyncClient(server.url, policy=policy, inflight=2) as client:
            tasks = [asyncio.create_task(client.publish("t", b"%d" % n, qos=1)) for n in range(50)]
            await asyncio.gather(*tasks)
            assert_nobody_waits(client)

    run(main())
    assert server.broker.payloads("t") == [b"%d" % n for n in range(50)]


def test_no_room_in_time_is_a_full_queue() -> None:
    async def main() -> None:
        client = full_client(block_timeout=0.02)
        await client.publish("t", b"0", qos=1)
        with pytest.raises(QueueFullError, match=r"no room for the message within 0\.02 s"):
            await client.publish("t", b"1", qos=1)
        assert client.stats.queued == 1
        assert_nobody_waits(client)
        await client.close(0)

    run_in(main())


def test_publish_waits_no_longer_than_the_expiry_of_its_message() -> None:
    async def main() -> None:
        client = full_client(block_timeout=5)
        await client.publish("t", b"0", qos=1)
        with pytest.raises(QueueFullError, match=r"no room for the message within 0\.02 s"):
            await client.publish("t", b"1", qos=1, expiry=0.02)
        assert client.stats.queued == 1
        await client.close(0)

    run_in(main())


def test_a_message_that_waited_for_room_has_only_the_rest_of_its_expiry(server: Server, run: Run) -> None:
    async def main() -> None:
        policy = StorePolicy(max_messages=1, overflow="block")
        client = AsyncClient(server.url, policy=policy)
        await client.publish("t", b"0", qos=1)
        waiting = asyncio.create_task(client.publish("t", b"1", qos=1, expiry=60))
        await turns(20)
        begun = boottime()
        await client.connect(5)
        delivery = (await waiting).delivery
        assert delivery.expires_at is not None and delivery.expires_at < begun + 60
        await client.close(5)

    run(main())


def test_waiting_for_room_takes_no_turns_of_the_loop() -> None:
    async def main() -> None:
        client = full_client(block_timeout=10)
        await client.publish("t", b"0", qos=1)
        waiting = [asyncio.create_task(client.publish("t", b"1", qos=1)) for _ in range(5)]
        await turns(20)
        assert client._driver is not None
        assert len(client._driver._watchers) == 1  # the others stand behind
        before = client._driver.turns
        await turns(200)
        assert client._driver.turns == before
        await client.close(0)
        for task in waiting:
            with pytest.raises(ClosedError):
                await task

    run_in(main())


# Handlers and hooks


def test_plain_and_coroutine_handlers_run_one_after_the_other_in_the_order_of_arrival(
    server: Server, run: Run
) -> None:
    seen: list[tuple[str, bytes]] = []

    async def slow(message: Message) -> None:
        seen.append(("begin", message.payload))
        await asyncio.sleep(0)
        seen.append(("end", message.payload))

    async def main() -> None:
        async with AsyncClient(server.url) as client:
            client.subscribe("a", qos=1, on_message=slow)
            await client.subscribe("b", qos=1, on_message=lambda m: seen.append(("plain", m.payload)))
            for number in range(6):
                await client.publish("ab"[number % 2], b"%d" % number, qos=1)
            await eventually(lambda: len(seen) == 9 and client.stats.acks_held == 0)

    run(main())
    expected = []
    for number in range(6):
        names = ["plain"] if number % 2 else ["begin", "end"]
        expected += [(name, b"%d" % number) for name in names]
    assert seen == expected


def test_a_handler_that_raises_is_an_event_and_the_message_counts_as_handled(
    server: Server, run: Run
) -> None:
    events: list[ClientEvent] = []

    def plain(message: Message) -> None:
        raise ValueError("plain")

    async def coroutine(message: Message) -> None:
        await asyncio.sleep(0)
        raise ValueError("coroutine")

    async def gives_up(message: Message) -> None:
        raise asyncio.CancelledError

    async def main() -> None:
        async with AsyncClient(server.url, on_event=events.append) as client:
            for handler in (plain, coroutine, gives_up):
                await client.subscribe("a", qos=1, on_message=handler)
            await client.publish("a", b"", qos=1)
            await eventually(lambda: [e.kind for e in events].count("handler_failed") == 3)
            await eventually(lambda: client.stats.acks_held == 0)

    run(main())
    texts = [event.text for event in events if event.kind == "handler_failed"]
    assert "ValueError: plain" in texts[0]
    assert "ValueError: coroutine" in texts[1]
    assert "CancelledError" in texts[2]


def test_hooks_may_be_coroutine_functions(server: Server, run: Run) -> None:
    seen: list[str] = []

    async def hook(what: object) -> None:
        await asyncio.sleep(0)
        seen.append(type(what).__name__)

    async def main() -> None:
        client = AsyncClient(
            server.url, on_connect=hook, on_disconnect=hook, on_message=hook, on_event=hook, reconnect=FAST
        )
        async with client:
            await client.subscribe("t")
            await client.publish("t", b"x")
            await eventually(lambda: "Message" in seen)
            server.disconnect_all()
            await eventually(lambda: "TransportClosedError" in seen and client.stats.connects == 2)

    run(main())
    assert seen[:3] == ["ClientEvent", "ConnectAcknowledged", "Message"]


def test_an_event_hook_that_raises_is_only_logged(
    server: Server, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def hook(event: ClientEvent) -> None:
        raise ValueError("no use")

    async def main() -> None:
        async with AsyncClient(server.url, on_event=hook) as client:
            await client.connect(5)
            await eventually(lambda: "on_event raised for the event connected" in caplog.text)

    run(main())
    assert caplog.text.count("on_event raised") == 1


def test_everything_is_legal_inside_a_handler(server: Server, run: Run) -> None:
    done: list[str] = []
    client: AsyncClient

    async def handler(message: Message) -> None:
        await (await client.publish("b", b"", qos=1)).wait(5)
        await client.subscribe("c")
        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task((await client.publish("b", b"", qos=1)).wait(5))
        await client.close()
        done.append(client.state)

    async def main() -> None:
        nonlocal client
        client = AsyncClient(server.url, inbox_limit=1)
        await client.start()
        await client.subscribe("a", qos=1, on_message=handler)
        await client.publish("a", b"", qos=1)
        await eventually(lambda: done)

    run(main())
    assert done == ["closed"]


def test_messages_without_a_handler_are_told_once(server: Server, run: Run) -> None:
    events: list[ClientEvent] = []

    async def main() -> None:
        async with AsyncClient(server.url, on_event=events.append) as client:
            await client.subscribe("t", qos=1)
            for _ in range(2):
                await client.publish("t", b"x", qos=1)
            await eventually(lambda: client.stats.received == 2 and client.stats.acks_held == 0)

    run(main())
    assert [event.kind for event in events].count("no_handler") == 1


# Life


def test_connect_tells_why_the_first_attempt_failed_and_may_be_called_again(server: Server, run: Run) -> None:
    async def main() -> None:
        events: list[str] = []
        client = AsyncClient("memory://later", on_event=lambda event: events.append(event.kind))
        delivery = await client.publish("t", b"x", qos=1)
        for _ in range(2):
            with pytest.raises(ConnectFailedError, match="nobody listens"):
                await client.connect(5)
            assert client.state == "idle"
        assert events == ["connect_failed", "connect_failed"]
        assert delivery.state == "queued"
        await client.close(0)

        client = AsyncClient(server.url)
        await client.connect(5)
        await client.connect(5)
        assert client.state == "connected"
        await client.close()
        assert client.state == "closed"

    run(main())


def test_connect_raises_the_refusal_of_the_broker(run: Run) -> None:
    broker = ScriptedBroker([expect("connect"), send(Connack(False, 0x86)), close()], version="5.0")

    async def main(url: str) -> None:
        client = AsyncClient(url)
        with pytest.raises(ConnectRefused) as caught:
            await client.connect(5)
        assert caught.value.reason_code == 0x86
        await client.close()

    with BrokerServer(broker) as server:
        run(main(server.url))


def test_what_the_broker_says_beside_yes_is_at_the_delivery(run: Run) -> None:
    words = {"reason_string": "nobody listens", "user_property": [["node", "a"]]}
    script = [expect("connect"), send(Connack()), expect("publish"), send(Puback(1, 0x10, words)), ignore()]

    async def main(url: str) -> None:
        async with AsyncClient(url) as client:
            delivery = await client.publish("t", b"x", qos=1)
            await delivery.wait(5)
            assert (delivery.reason_code, delivery.reason_string) == (0x10, "nobody listens")
            assert delivery.user_properties == (("node", "a"),)

    with BrokerServer(ScriptedBroker(script, version="5.0")) as server:
        run(main(server.url))


def test_a_message_that_waits_is_taken_back_and_its_task_is_told(run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(NOWHERE) as client:
            delivery = await client.publish("t", b"x", qos=1)
            waiting = asyncio.create_task(delivery.wait(20))
            await eventually(lambda: delivery.delivery.on_done)
            assert delivery.cancel()
            with pytest.raises(DeliveryCancelledError):
                await waiting
            assert (delivery.state, delivery.done, delivery.cancel()) == ("cancelled", True, False)
            assert (client.stats.queued, client.stats.cancelled) == (0, 1)
            await client.close(60)  # nothing waits any more

    run(main())


def test_a_task_that_waits_for_room_gets_it(run: Run) -> None:
    policy = StorePolicy(max_messages=1, overflow="block", block_timeout=20)

    async def main() -> None:
        client = AsyncClient(NOWHERE, policy=policy)
        first = await client.publish("t", b"1", qos=1)
        second = asyncio.create_task(client.publish("t", b"2", qos=1))
        await asyncio.sleep(0)
        assert first.cancel()
        assert (await second).state == "queued"
        await client.close(0)

    run(main())


def test_connect_ends_with_its_time_when_nobody_answers(run: Run) -> None:
    async def main() -> None:
        with MemoryListener("silent"):
            client = AsyncClient("memory://silent")
            with pytest.raises(TimeoutError, match=r"no connection to memory silent within 0\.05 s"):
                await client.connect(0.05)
            assert client.state == "idle"
            await client.close()

    run(main())


def test_a_closed_client_says_so(server: Server, run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(server.url) as client:
            inbox = client.messages()
        assert [message async for message in inbox] == []
        await client.close()
        for call in (client.start, client.connect, lambda: client.publish("t")):
            with pytest.raises(ClosedError):
                await call()
        for plain in (client.messages, lambda: client.subscribe("a"), lambda: client.unsubscribe("a")):
            with pytest.raises(ClosedError):
                plain()

    run(main())


def test_close_delivers_what_waits_and_two_may_close_at_once(server: Server, run: Run) -> None:
    async def main() -> None:
        client = AsyncClient(server.url)
        await client.start()
        for number in range(100):
            await client.publish("t", b"%d" % number, qos=number % 3)
        await asyncio.gather(client.close(), client.close())
        assert client.state == "closed"

    run(main())
    server.wait_for(lambda: len(server.broker.payloads("t")) == 100)


def test_close_does_not_wait_for_a_broker_that_is_not_there() -> None:
    events: list[ClientEvent] = []

    async def main() -> None:
        async with AsyncClient(NOWHERE, on_event=events.append) as client:
            delivery = await client.publish("t", b"x", qos=1)
            await client.close(0.01)
            with pytest.raises(DroppedError):
                await delivery.wait()

    run_in(main())
    assert "1 messages that were not acknowledged" in events[-1].text


def test_close_may_publish_the_will_and_say_why(run: Run) -> None:
    goodbye = Disconnect(4, {"reason_string": "moved", "user_property": [["to", "b"]]})
    script = [expect("connect"), send(Connack()), expect(goodbye)]
    broker = ScriptedBroker(script, version="5.0")

    async def main(url: str) -> None:
        client = AsyncClient(url)
        await client.connect(5)
        await client.close(reason_code=4, properties=goodbye.properties)

    with BrokerServer(broker) as server:
        run(main(server.url))
        server.wait_for(lambda: broker.done)
    broker.check()


def test_a_handler_that_does_not_end_is_cancelled_by_close(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_sdk.aio.client._HANDLER_SECONDS", 0.02)
    ended: list[str] = []

    async def handler(message: Message) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def main() -> None:
        async with AsyncClient(server.url) as client:
            await client.subscribe("t", qos=1, on_message=handler)
            await client.publish("t", b"x", qos=1)
            await eventually(lambda: client.stats.acks_held == 1)
            await client.close(0.01)
            assert ended == ["cancelled"]

    run(main())


def test_a_handler_that_takes_no_notice_of_its_cancellation_is_the_last_one(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("device_sdk.aio.client._HANDLER_SECONDS", 0.02)
    seen: list[bytes] = []

    async def handler(message: Message) -> None:
        seen.append(message.payload)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if message.topic == "raises":
                raise ValueError("instead") from None

    async def main(topic: str) -> None:
        client = AsyncClient(server.url)
        await client.connect(5)
        await client.subscribe(topic, qos=1, on_message=handler)
        for payload in (b"1", b"2"):
            await (await client.publish(topic, payload, qos=1)).wait(5)
        await client.close(0.01)
        assert len(asyncio.all_tasks()) == 1

    run(main("ignores"))
    assert seen == [b"1"]
    run(main("raises"))
    assert seen == [b"1", b"1"]
    assert "ValueError: instead while it was cancelled" in caplog.text


def test_two_tasks_may_connect_at_once(server: Server, run: Run) -> None:
    async def main() -> None:
        client = AsyncClient(server.url)
        await asyncio.gather(client.connect(5), client.connect(5))
        assert client.stats.connects == 1
        await client.close()
        client = AsyncClient(NOWHERE)
        results = await asyncio.gather(client.connect(1), client.connect(1), return_exceptions=True)
        assert all(isinstance(result, OSError) for result in results)
        await client.close()

    run(main())


def test_close_does_not_wait_long_for_a_broker_that_does_not_read(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_sdk.aio.client._GOODBYE_SECONDS", 0.05)
    broker = ScriptedBroker([expect("connect"), send(Connack()), stall()], version="5.0")

    async def main(url: str) -> None:
        client = AsyncClient(url)
        await client.connect(5)
        for _ in range(200):
            await client.publish("t", bytes(100_000))
        await client.close(0.05)
        assert client.state == "closed"

    with BrokerServer(broker) as server:
        run(main(server.url))


def test_reconnect_now_ends_a_wait(run: Run) -> None:
    async def main() -> None:
        client = AsyncClient("memory://comes", reconnect=NEVER_AGAIN)
        await client.start()
        await eventually(lambda: client.state == "waiting")
        with MemoryListener("comes") as listener:
            client.reconnect_now()
            await eventually(lambda: client.state == "connecting")
            peer = await asyncio.to_thread(listener.accept, 5)
            await client.close(0)
            peer.close()

    run(main())


def test_reconnect_now_can_replace_a_connection(run: Run) -> None:
    async def main(url: str) -> None:
        async with AsyncClient(url, keep_alive=0) as client:
            await client.connect(5)
            client.reconnect_now(replace=True)
            assert client.state == "connecting"
            delivery = await client.publish("t", b"x", qos=1)
            await delivery.wait(5)
            assert client.stats.reconnects == 1

    with BrokerServer(ModelBroker()) as server:
        run(main(server.url))


def test_a_late_acknowledgement_moves_the_window(run: Run) -> None:
    def answer(seen: Any) -> Puback:
        return Puback(seen.packet_id)

    script = [
        expect("connect"),
        send(Connack()),
        expect("publish", payload=b"0"),
        send(answer),
        expect("publish", payload=b"1"),
        send(answer),
        ignore(),
    ]

    async def main(url: str) -> list[AsyncDelivery]:
        async with AsyncClient(url, inflight=1) as client:
            deliveries = [await client.publish("t", b"%d" % number, qos=1) for number in range(2)]
            await asyncio.gather(*(delivery.wait(5) for delivery in deliveries))
            return deliveries

    with BrokerServer(ScriptedBroker(script, version="5.0")) as server:
        assert [delivery.state for delivery in run(main(server.url))] == ["acknowledged"] * 2
