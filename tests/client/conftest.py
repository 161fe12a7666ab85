"""Tools for tests with threads: nothing sleeps, everything that waits has a deadline."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from device_sdk.testing import BrokerServer, ModelBroker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def eventually(predicate: Callable[[], object], timeout: float = 5.0) -> None:
    """Wait until the predicate is true, looking again every few milliseconds. Raises: AssertionError."""
    pause = threading.Event()
    deadline = time.monotonic() + timeout
    while not predicate():
        assert time.monotonic() < deadline, f"still not true after {timeout} s"
        pause.wait(0.005)


def sdk_threads() -> list[str]:
    """Names of the threads that clients have started and that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("device-sdk ")]


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
    eventually(lambda: not sdk_threads())
