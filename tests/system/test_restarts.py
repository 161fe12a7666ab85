"""Mosquitto ends and comes back while a client publishes: nothing is lost, and QoS 2 comes once."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from device_sdk import Client
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from tests.steps import eventually
from tests.system.test_mosquitto import VERSIONS

if TYPE_CHECKING:
    from device_sdk.testing.broker_process import ChildBroker

FAST = ReconnectPolicy(first=0.02, longest=0.1)
COUNT = 400


def numbers(count: int = COUNT) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


class Publishing:
    """A thread that publishes numbered messages while the test does something to the broker."""

    def __init__(self, client: Client, qos: int) -> None:
        self.client = client
        self.qos = qos
        self.half = threading.Event()
        self.go_on = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        deliveries = []
        for payload in numbers():
            deliveries.append(self.client.publish("t", payload, qos=self.qos))
            if len(deliveries) == COUNT // 2:
                self.half.set()
                self.go_on.wait(10)
        for delivery in deliveries:
            delivery.wait(20)

    def __enter__(self) -> Publishing:
        self.thread.start()
        assert self.half.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self.thread.join(30)
        assert not self.thread.is_alive()


def kill(broker: ChildBroker) -> None:
    """SIGKILL to the broker itself; its guard notices, and it can be started again."""
    guard = broker.pid
    assert guard is not None
    children = Path(f"/proc/{guard}/task/{guard}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    broker.terminate()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [1, 2])
def test_a_restart_in_the_middle_loses_nothing(mosquitto: ChildBroker, version: str, qos: int) -> None:
    received: list[bytes] = []
    with (
        Client(mosquitto.url(version), version=version, clean_start=False, reconnect=FAST) as watcher,
        Client(mosquitto.url(version), version=version, clean_start=False, reconnect=FAST) as client,
    ):
        watcher.subscribe("t", qos=qos, on_message=lambda m: received.append(m.payload)).wait(5)
        client.connect(5)
        with Publishing(client, qos) as publishing:
            mosquitto.terminate()
            publishing.go_on.set()
            mosquitto.start()
        eventually(lambda: set(received) == set(numbers()))
        eventually(lambda: client.stats.in_flight == client.stats.queued == 0)
    if qos == 2:
        assert received == numbers()  # the session lived on: exactly once, and in order
    else:
        assert list(dict.fromkeys(received)) == numbers()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_killed_broker_that_forgot_the_session_gets_everything_again(
    mosquitto: ChildBroker, version: str
) -> None:
    """What the publisher knows to be acknowledged may have died with the broker; the rest may not be lost."""
    with Client(mosquitto.url(version), version=version, clean_start=False, reconnect=FAST) as client:
        client.connect(5)
        with Publishing(client, 1) as publishing:
            eventually(lambda: client.stats.acknowledged == COUNT // 2)
            kill(mosquitto)
            publishing.go_on.set()
            eventually(lambda: client.stats.queued + client.stats.in_flight == COUNT // 2)
            mosquitto.start()
            received: list[bytes] = []
            watcher = Client(mosquitto.url(version), version=version)
            wanted = watcher.subscribe("t", qos=1, on_message=lambda m: received.append(m.payload))
            watcher.connect(5)
            wanted.wait(5)
        assert client.stats.acknowledged == COUNT
        assert client.stats.dropped == 0
        last = numbers()[-1]
        client.publish("t", last, qos=1).wait(10)  # a watcher may have come too late for the others
        eventually(lambda: last in received)
        watcher.close()
    assert list(dict.fromkeys(received)) == numbers()[-len(set(received)) :]


def test_subscriptions_come_back_after_the_broker_forgot_them(mosquitto: ChildBroker) -> None:
    received: list[bytes] = []
    with Client(mosquitto.url(), reconnect=FAST, clean_start=False) as client:
        client.subscribe("t", qos=1, on_message=lambda m: received.append(m.payload)).wait(5)
        kill(mosquitto)
        eventually(lambda: client.state != "connected")
        mosquitto.start()
        eventually(lambda: client.stats.connects == 2)
        client.publish("t", b"x", qos=1).wait(10)
        eventually(lambda: received == [b"x"])
