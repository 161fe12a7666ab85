"""A client that nobody refers to any more is freed at once, with everything in it: without the collector."""

from __future__ import annotations

import asyncio
import gc
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_sdk import AsyncClient, Client
from device_sdk.testing import BrokerServer, ModelBroker

NOWHERE = "mqtt://127.0.0.1:9"


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def parts(client: Any) -> list[weakref.ref[object]]:
    """Return references to the client and to what its parts are reached by."""
    engine = client._engine
    return [weakref.ref(one) for one in (client, engine, engine.outgoing.outbox)]


def left(gone: list[weakref.ref[object]]) -> list[object]:
    for thread in threading.enumerate():
        if thread.name.startswith("device-sdk"):  # the last steps of one that has woken the client
            thread.join(5)
    return [found for one in gone if (found := one()) is not None]


def use(client: Client) -> None:
    """Do what leaves references behind."""
    client.subscribe("t", qos=1, on_message=print)
    client.publish("t", b"waits", qos=1)
    inbox = client.messages()
    assert len(inbox) == 0


def fails(client: Client) -> None:
    with pytest.raises(OSError):
        client.connect(5)


@pytest.mark.parametrize("before", [use, fails, lambda client: None])
@pytest.mark.parametrize("options", [{}, {"manual_ack": True}])
def test_a_client_that_never_connected(before: Callable[[Client], None], options: dict[str, Any]) -> None:
    client = Client(NOWHERE, on_event=lambda event: None, **options)
    before(client)
    gone = parts(client)
    del client
    assert left(gone) == []


@pytest.mark.parametrize("with_store", [False, True])
def test_a_client_that_was_closed(tmp_path: Path, with_store: bool) -> None:
    with BrokerServer(ModelBroker()) as server:
        client = Client(server.url, store=tmp_path / "queue.db" if with_store else None, manual_ack=True)
        use(client)
        client.connect(5)
        with pytest.raises(TimeoutError):
            client.request("nobody/answers", b"", 0.05)
        gone = parts(client)
        client.close(1)
        del client
        assert left(gone) == []


def test_a_client_that_lost_its_connection() -> None:
    ended: queue.SimpleQueue[object] = queue.SimpleQueue()
    with BrokerServer(ModelBroker()) as server:
        client = Client(server.url, on_disconnect=ended.put)
        client.connect(5)
        client.publish("t", b"x", qos=1).wait(5)
    ended.get(timeout=5)
    gone = parts(client)
    client.close(0)
    del client
    assert left(gone) == []


def test_an_async_client_that_was_closed() -> None:
    gone: list[weakref.ref[object]] = []

    async def main(url: str) -> None:
        client = AsyncClient(url, manual_ack=True)
        inbox = client.messages()
        assert len(inbox) == 0
        await client.connect(5)
        await client.subscribe("t", qos=1)
        await (await client.publish("t", b"x", qos=1)).wait(5)
        gone.extend(parts(client))
        await client.close(1)

    with BrokerServer(ModelBroker()) as server:
        asyncio.run(main(server.url))
    assert left(gone) == []


def test_an_async_client_that_was_never_used() -> None:
    client = AsyncClient(NOWHERE)
    gone = parts(client)
    del client
    assert left(gone) == []
