"""Tools for tests with threads: nothing sleeps, everything that waits has a deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from device_sdk.testing import BrokerServer, ModelBroker
from tests.steps import join_threads, steps

if TYPE_CHECKING:
    from collections.abc import Iterator


__all__ = ["steps"]  # a fixture for every test here


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
