"""The message at which a program with an event loop stops: as in tests/client/test_stopping.py."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from device_sdk import AsyncClient, Client, Message
from device_sdk.testing import BrokerServer, ModelBroker
from tests.aio.conftest import run_in

Server = BrokerServer[ModelBroker]
Stop = Callable[[AsyncClient, list[bytes]], Awaitable[None]]
SECONDS = 10.0
SESSION: dict[str, Any] = {"client_id": "node", "session_expiry": 600, "clean_start": False}


def subscribe(server: Server, qos: int, store: str | None = None) -> None:
    """Leave a session with a subscription behind, and messages in it."""
    with Client(server.url, store=store, **SESSION) as client:
        client.subscribe("t", qos=qos).wait(SECONDS)
    for payload in (b"1", b"2", b"3"):
        server.call(lambda payload=payload: server.broker.publish("t", payload, qos=qos))


def seen_by(server: Server, stop: Stop, store: str | None = None) -> bytes:
    """Return the first message that a program sees that stops so."""
    seen: list[bytes] = []

    async def main() -> None:
        await stop(AsyncClient(server.url, store=store, **SESSION), seen)

    run_in(main())
    server.wait_for(lambda: not server.broker.links, SECONDS)
    return seen[0]


async def in_a_handler(client: AsyncClient, seen: list[bytes]) -> None:
    closed = asyncio.Event()

    async def on_message(message: Message) -> None:
        seen.append(message.payload)
        await client.close()
        closed.set()

    client.on_message = on_message
    await client.start()
    await closed.wait()


async def out_of_a_loop(client: AsyncClient, seen: list[bytes]) -> None:
    inbox = client.messages()
    async with client:
        async for message in inbox:
            seen.append(message.payload)
            break


async def out_of_a_loop_then_close(client: AsyncClient, seen: list[bytes]) -> None:
    inbox = client.messages()
    await client.start()
    async for message in inbox:
        seen.append(message.payload)
        break
    await client.close()


async def close_in_a_loop(client: AsyncClient, seen: list[bytes]) -> None:
    inbox = client.messages()
    await client.start()
    async for message in inbox:
        if not seen:
            seen.append(message.payload)
            await client.close()


async def in_a_task_of_its_own(client: AsyncClient, seen: list[bytes]) -> None:
    inbox = client.messages()

    async def consume() -> None:
        async for message in inbox:
            seen.append(message.payload)
            break

    async with client:
        await asyncio.create_task(consume())


async def during_an_exception_of_before(client: AsyncClient, seen: list[bytes]) -> None:
    try:
        raise LookupError("nothing to do with it")
    except LookupError:
        await out_of_a_loop_then_close(client, seen)


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(
    "stop",
    [
        in_a_handler,
        out_of_a_loop,
        out_of_a_loop_then_close,
        close_in_a_loop,
        in_a_task_of_its_own,
        during_an_exception_of_before,
    ],
)
def test_the_message_at_which_a_program_stops_does_not_come_again(
    server: Server, tmp_path: Path, stop: Stop, stored: bool, qos: int
) -> None:
    store = str(tmp_path / "queue.db") if stored else None
    subscribe(server, qos, store)
    assert [seen_by(server, stop, store) for _ in range(3)] == [b"1", b"2", b"3"]


async def raise_in_a_loop(client: AsyncClient, seen: list[bytes]) -> None:
    inbox = client.messages()
    with contextlib.suppress(LookupError):
        async with client:
            async for message in inbox:
                seen.append(message.payload)
                raise LookupError


async def raise_in_a_task(client: AsyncClient, seen: list[bytes]) -> None:
    inbox = client.messages()

    async def consume() -> None:
        async for message in inbox:
            seen.append(message.payload)
            raise LookupError

    async with client:
        with contextlib.suppress(LookupError):
            await asyncio.create_task(consume())


async def close_after_a_failure_in_a_handler(client: AsyncClient, seen: list[bytes]) -> None:
    closed = asyncio.Event()

    async def on_message(message: Message) -> None:
        seen.append(message.payload)
        try:
            raise LookupError
        except LookupError:
            await client.close()
        closed.set()

    client.on_message = on_message
    await client.start()
    await closed.wait()


async def cancelled(client: AsyncClient, seen: list[bytes]) -> None:
    taken, inbox = asyncio.Event(), client.messages()

    async def consume() -> None:
        async with client:
            async for message in inbox:
                seen.append(message.payload)
                taken.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(consume())
    await taken.wait()
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize(
    "stop", [raise_in_a_loop, raise_in_a_task, close_after_a_failure_in_a_handler, cancelled]
)
def test_the_message_at_which_a_program_fails_comes_again(server: Server, stop: Stop, qos: int) -> None:
    subscribe(server, qos)
    assert [seen_by(server, stop) for _ in range(2)] == [b"1", b"1"]


def test_the_message_of_a_task_that_fails_goes_to_another_and_its_exception_is_not_hidden(
    server: Server,
) -> None:
    subscribe(server, 1)
    seen: list[bytes] = []
    complaints: list[Any] = []

    async def main() -> None:
        async with AsyncClient(server.url, **SESSION) as client:
            inbox = client.messages()

            async def fail() -> None:
                await inbox.get()
                raise LookupError("unseen by anybody")

            task = asyncio.create_task(fail())
            await asyncio.wait([task])
            asyncio.get_running_loop().set_exception_handler(
                lambda _, context: complaints.append(str(context["exception"]))
            )
            del task
            seen.append((await inbox.get(SECONDS)).payload)

    run_in(main())
    assert seen == [b"1"]
    assert complaints == ["unseen by anybody"]
