"""Every method is cancelled at each of its awaits in turn: nothing is lost, and nobody is left waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any

import pytest

from device_sdk import AsyncClient
from device_sdk.store.base import StorePolicy
from device_sdk.testing import BrokerServer, ModelBroker
from tests.aio.conftest import Run, assert_nobody_waits, turns
from tests.engine.rig import SlowStore
from tests.steps import eventually_in_loop as eventually

Server = BrokerServer[ModelBroker]

MOST_AWAITS = 50


class Cancelling:
    """Awaits something, and cancels the task that does so at its n-th suspension (1 is the first)."""

    def __init__(self, what: Awaitable[Any], number: int) -> None:
        self._what = what
        self._number = number
        self.suspensions = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._what.__await__()
        thrown: BaseException | None = None
        while True:
            try:
                waits_for = next(inner) if thrown is None else inner.throw(thrown)
            except StopIteration as stop:
                return stop.value
            self.suspensions += 1
            if self.suspensions == self._number:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            thrown = None
            try:
                yield waits_for
            except BaseException as error:
                thrown = error


async def cancelled_at(number: int, work: Callable[[], Awaitable[Any]]) -> bool:
    """Run the work and cancel it at this suspension; False: it ended before, so that was the last one."""

    async def run() -> int:
        cancelling = Cancelling(work(), number)
        try:
            await cancelling
        except asyncio.CancelledError:
            assert cancelling.suspensions >= number
            raise
        return cancelling.suspensions

    task = asyncio.create_task(run())
    await asyncio.wait({task}, timeout=10)
    assert task.done()
    if task.cancelled():
        return True
    assert task.result() < number
    return False


async def at_each_await(
    work: Callable[[], Awaitable[Any]], check: Callable[[], Awaitable[Any]], least: int = 1
) -> None:
    """Cancel the work at each of its suspensions; ``check`` runs after each."""
    for number in range(1, MOST_AWAITS):
        if not await cancelled_at(number, work):
            assert number > least, f"only {number - 1} suspensions were seen"
            return
        await check()
    raise AssertionError(f"more than {MOST_AWAITS} suspensions")


def test_publish_takes_a_message_or_leaves_it(server: Server, run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(server.url) as client:
            await client.connect(5)

            async def burst() -> None:
                for _ in range(300):
                    await client.publish("t", b"x", qos=1)

            async def check() -> None:
                assert_nobody_waits(client)
                await eventually(lambda: client.stats.acknowledged == client.stats.published)

            await at_each_await(burst, check, least=2)
            count = client.stats.published
        assert len(server.broker.payloads("t")) == count

    run(main())


def test_a_publish_that_waits_for_room_leaves_its_place_to_the_next(server: Server, run: Run) -> None:
    policy = StorePolicy(max_messages=1, overflow="block")

    async def main() -> None:
        client = AsyncClient(server.url, policy=policy, inflight=1)
        await client.publish("t", b"first", qos=1)
        waiting = asyncio.create_task(client.publish("t", b"waiting", qos=1))
        await turns()
        assert await cancelled_at(1, lambda: client.publish("t", b"cancelled", qos=1))
        waiting.cancel()
        next_one = asyncio.create_task(client.publish("t", b"next", qos=1))
        await client.start()
        await (await next_one).wait(5)
        assert_nobody_waits(client)
        await client.close()

    run(main())
    assert server.broker.payloads("t") == [b"first", b"next"]


def test_waiting_for_a_delivery_may_be_repeated(server: Server, run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(server.url) as client:
            await client.connect(5)
            published = []

            async def publish_and_wait() -> None:
                published.append(await client.publish("t", b"x", qos=2))
                await published[-1].wait(5)

            async def check() -> None:
                assert_nobody_waits(client)
                await published[-1].wait(5)
                assert published[-1].state == "acknowledged"

            await at_each_await(publish_and_wait, check)

    run(main())


def test_waiting_for_the_store_may_be_repeated(run: Run) -> None:
    async def main() -> None:
        store = SlowStore()
        client = AsyncClient("memory://nobody", store=store)
        delivery = await client.publish("t", b"x", qos=1)
        assert await cancelled_at(1, lambda: delivery.wait_stored(5))
        assert_nobody_waits(client)
        store.commit()
        await delivery.wait_stored(5)
        await client.close(0)

    run(main())


def test_a_subscription_goes_on_without_who_waited_for_it(server: Server, run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(server.url) as client:
            names = iter("abcdefgh")
            asked = []

            async def subscribe() -> None:
                asked.append(client.subscribe(next(names), qos=1))
                await asked[-1]

            async def check() -> None:
                assert_nobody_waits(client)
                assert await asked[-1].wait(5) == [1]

            await at_each_await(subscribe, check)

    run(main())


def test_a_request_that_is_cancelled_is_forgotten(server: Server, run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(server.url) as client, AsyncClient(server.url) as responder:

            async def answer(message: Any) -> None:
                await responder.publish(
                    message.response_topic,
                    b"answer",
                    qos=1,
                    properties={"correlation_data": message.correlation_data},
                )

            await responder.subscribe("ask", qos=1, on_message=answer)

            async def check() -> None:
                assert_nobody_waits(client)
                assert (await client.request("ask", b"?", 5)).payload == b"answer"

            await at_each_await(lambda: client.request("ask", b"?", 5), check)

    run(main())


def test_the_inbox_keeps_what_nobody_took(server: Server, run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(server.url) as client:
            inbox = client.messages()
            await client.subscribe("t", qos=1)
            numbers = iter(range(MOST_AWAITS))
            taken = []

            async def publish_and_get() -> None:
                await client.publish("t", b"%d" % next(numbers), qos=1)
                taken.append((await inbox.get(5)).payload)

            async def check() -> None:
                assert_nobody_waits(client)
                taken.append((await inbox.get(5)).payload)

            await at_each_await(publish_and_get, check)
            assert taken == [b"%d" % number for number in range(len(taken))]

    run(main())


def test_connect_that_is_cancelled_has_stopped_and_may_be_repeated(server: Server, run: Run) -> None:
    async def main() -> None:
        client = AsyncClient(server.url)

        async def check() -> None:
            await eventually(lambda: client.state == "idle")
            assert client._callbacks is None
            assert client._engine.life.outcome is None
            assert client._driver is not None
            assert client._driver._watched is None
            assert_nobody_waits(client)

        await at_each_await(lambda: client.connect(5), check)
        assert client.state == "connected"
        await client.close()

    run(main())


@pytest.mark.parametrize("reachable", [True, False])
def test_close_that_is_cancelled_has_closed_all_the_same(server: Server, run: Run, reachable: bool) -> None:
    async def main() -> None:
        for number in range(1, MOST_AWAITS):
            store = SlowStore()
            client = AsyncClient(server.url if reachable else "memory://nobody", store=store)
            if reachable:
                await client.connect(5)
            await client.start()
            delivery = await client.publish("t", b"x", qos=1)
            was_cancelled = await cancelled_at(number, partial(client.close, 0.05))
            assert client.state == "closed"
            await eventually(partial(getattr, store, "closed"))
            assert client._driver is not None
            assert (client._driver._watched, client._driver._timer) == (None, None)
            assert_nobody_waits(client)
            assert delivery.done
            await client.close()
            await eventually(lambda: not asyncio.all_tasks() - {asyncio.current_task()})
            if not was_cancelled:
                assert number > 3
                return

    run(main())


def test_start_and_the_context_manager_leave_nothing_open(server: Server, run: Run) -> None:
    async def main() -> None:
        clients = []

        async def live() -> None:
            client = AsyncClient(server.url)
            clients.append(client)
            async with client:
                await client.connect(5)
                await (await client.publish("t", b"x", qos=1)).wait(5)

        async def check() -> None:
            assert clients[-1].state == "closed"
            await eventually(lambda: not asyncio.all_tasks() - {asyncio.current_task()})

        await at_each_await(live, check, least=3)

    run(main())
