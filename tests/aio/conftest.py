"""Tools for tests with an event loop: no plugin, every run has a deadline, asyncio and uvloop take turns."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from device_sdk import AsyncClient
from device_sdk.testing import BrokerServer, ModelBroker
from tests.steps import join_threads, steps

__all__ = ["steps"]  # a fixture for every test here

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, Any]], Any]

RUN_SECONDS = 30.0


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine in a loop of this kind, for at most half a minute; no task of its own may be left."""
    if request.param == "uvloop":
        try:
            uvloop = importlib.import_module("uvloop")
        except ImportError:
            pytest.skip("needs uvloop")
        return lambda main: run_in(main, uvloop.new_event_loop)
    return lambda main: run_in(main, asyncio.new_event_loop)


def run_in(
    main: Coroutine[Any, Any, T],
    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> T:
    """Run a coroutine in a loop of its own; what the loop itself complains about is an error."""
    complaints: list[dict[str, Any]] = []

    async def limited() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with asyncio.timeout(RUN_SECONDS):
            return await main

    with asyncio.Runner(loop_factory=new_loop) as runner:
        result = runner.run(limited())
    assert complaints == []
    return result


@pytest.fixture
def server() -> Iterator[BrokerServer[ModelBroker]]:
    """A model broker on a socket; in the end no client may have broken a rule."""
    with BrokerServer(ModelBroker()) as server:
        yield server
        assert server.call(lambda: list(server.broker.violations)) == []


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Every test closes its clients, and then their threads are gone."""
    yield
    join_threads()


async def turns(count: int = 5) -> None:
    """Let everything run that is ready, so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()


def assert_nobody_waits(client: AsyncClient) -> None:
    """No wait has left anything behind in the client."""
    assert client._driver is not None
    assert client._driver._watchers == {}
    assert not client._consumers.blocked
    if client._inbox is not None:
        assert not client._inbox._getters
    requests = client._engine.incoming.calls
    assert requests is None or requests._pending == {}
