"""Clients of the façade that end with their test, and brokers for them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import device_sdk.paho.client as mqtt
from device_sdk.testing import BrokerServer, ModelBroker, ScriptedBroker
from tests.steps import eventually, steps

__all__ = ["steps"]  # a fixture for every test here

SECONDS = 10.0


class Clients:
    """Makes clients that are disconnected and stopped when the test is over."""

    def __init__(self) -> None:
        self.made: list[mqtt.Client] = []

    def __call__(self, client_id: str = "", **arguments: Any) -> mqtt.Client:
        """Return a client with version 2 of the callbacks."""
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, **arguments)
        self.made.append(client)
        return client

    def close(self) -> None:
        """Disconnect all of them, whatever state they are in."""
        for client in self.made:
            client.disconnect()
            client.loop_stop()
            client.reinitialise()


@pytest.fixture
def clients() -> Iterator[Clients]:
    """Return what makes clients."""
    made = Clients()
    yield made
    made.close()


@pytest.fixture
def server() -> Iterator[BrokerServer[ModelBroker]]:
    """Return a broker that works."""
    with BrokerServer(ModelBroker()) as running:
        yield running
        assert running.broker.violations == []


@contextlib.contextmanager
def scripted(*scripts: Any, version: str | None = "3.1.1") -> Iterator[BrokerServer[ScriptedBroker]]:
    """Serve scripts, one for each connection; in the end all of them have been played."""
    with BrokerServer(ScriptedBroker(*scripts, version=version)) as running:
        yield running
        running.wait_for(lambda: running.broker.done or running.broker.failure, SECONDS)
        running.broker.check()


def start(client: mqtt.Client, server: BrokerServer[Any], **arguments: Any) -> mqtt.Client:
    """Connect with a loop in a thread, and wait until the broker has accepted."""
    client.connect("127.0.0.1", server.port, **arguments)
    client.loop_start()
    eventually(client.is_connected)
    return client


def loop_threads(client_id: str) -> list[threading.Thread]:
    """Return the threads that loop_start() of clients with this identifier has started, and that run."""
    return [one for one in threading.enumerate() if one.name == f"paho-mqtt-client-{client_id}"]


def loop_until(client: mqtt.Client, condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Call loop() until it is true. Raises: TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it never became true")
        client.loop(0.05)
