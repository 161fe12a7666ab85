"""A client that was never started: every wait that ends says so, and what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from device_sdk import AsyncClient, Client
from device_sdk.engine.connecting.back_off import ReconnectPolicy

NOWHERE = "mqtt://127.0.0.1:9"
HINT = "; no connection: the client is not started: call start() or connect(), or use it in a with statement"


@pytest.mark.parametrize(
    "wait",
    [
        lambda client: client.publish("t", b"x", qos=1).wait(0.01),
        lambda client: client.publish("t", b"x").wait(0.01),
        lambda client: client.subscribe("t").wait(0.01),
        lambda client: client.unsubscribe("t").wait(0.01),
        lambda client: client.request("t", b"x", 0.01),
    ],
    ids=["QoS 1", "QoS 0", "subscribe", "unsubscribe", "request"],
)
def test_a_wait_says_that_the_client_is_not_started(wait: Callable[[Client], object]) -> None:
    client = Client(NOWHERE)
    with pytest.raises(TimeoutError) as caught:
        wait(client)
    assert str(caught.value).endswith(HINT)
    client.close(0)


async def _published(client: AsyncClient) -> None:
    await (await client.publish("t", b"x", qos=1)).wait(0.01)


async def _requested(client: AsyncClient) -> None:
    await client.request("t", b"x", 0.01)


@pytest.mark.parametrize(
    "wait",
    [
        _published,
        _requested,
        lambda client: client.subscribe("t").wait(0.01),
        lambda client: client.unsubscribe("t").wait(0.01),
    ],
    ids=["publish", "request", "subscribe", "unsubscribe"],
)
def test_an_asyncio_client_says_so_too(wait: Callable[[AsyncClient], Awaitable[object]]) -> None:
    async def main() -> None:
        client = AsyncClient(NOWHERE)
        with pytest.raises(TimeoutError) as caught:
            await wait(client)
        assert str(caught.value).endswith(HINT)
        await client.close(0)

    asyncio.run(main())


def test_a_client_that_is_started_has_another_reason() -> None:
    with Client(NOWHERE, reconnect=ReconnectPolicy(first=60, longest=60)) as client:
        with pytest.raises(TimeoutError) as caught:
            client.subscribe("t").wait(1)
        assert "not started" not in str(caught.value)
        assert "127.0.0.1:9" in str(caught.value)
        client.close(0)
