"""Two Mosquittos and one client: the first is killed, the second takes over, the first comes back.

What the first one had acknowledged is the first one's; all else arrives at the second, because the client
keeps its queue and its window and begins a new session there.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from device_sdk import Client, ReconnectPolicy
from device_sdk.testing.broker_process import MosquittoBroker
from tests.steps import eventually
from tests.system.test_mosquitto import VERSIONS
from tests.system.test_restarts import kill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from device_sdk.engine.events import ClientEvent
    from device_sdk.engine.outgoing.delivery import Delivery
    from device_sdk.testing.broker_process import ChildBroker

FAST = ReconnectPolicy(first=0.02, longest=0.2, stable=0.1)
COUNT = 1_000


@pytest.fixture
def second(mosquitto: ChildBroker) -> Iterator[ChildBroker]:
    """Another Mosquitto."""
    with MosquittoBroker() as broker:
        yield broker


class Watcher:
    """Collects what arrives at one broker, from a client of its own."""

    def __init__(self, broker: ChildBroker) -> None:
        self.payloads: list[bytes] = []
        self.client = Client(broker.url(), reconnect=FAST)
        self.client.subscribe("t", qos=2, on_message=lambda message: self.payloads.append(message.payload))
        self.client.connect(5)

    def wait_subscribed_again(self) -> None:
        """The broker has begun anew: it has to know our subscription before anything is published."""
        eventually(lambda: self.client.stats.connects == 2)
        self.client.subscribe("behind the first one").wait(5)

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close(0)


def publish(client: Client, qos: int, start: int) -> list[Delivery]:
    return [client.publish("t", b"%d" % number, qos=qos) for number in range(start, start + COUNT)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [1, 2])
def test_a_killed_broker_is_followed_by_the_second_and_nothing_is_lost(
    mosquitto: ChildBroker, second: ChildBroker, version: str, qos: int
) -> None:
    events: list[ClientEvent] = []
    urls = [mosquitto.url(version), second.url(version)]
    with (
        Watcher(mosquitto) as at_first,
        Watcher(second) as at_second,
        Client(urls, version=version, reconnect=FAST, return_to_first=0.3, on_event=events.append) as client,
    ):
        client.connect(5)
        publishing = threading.Thread(target=lambda: publish(client, qos, 0))
        publishing.start()
        eventually(lambda: len(at_first.payloads) > COUNT // 10)
        kill(mosquitto)
        publishing.join(10)
        last = client.publish("t", b"last", qos=qos)
        last.wait(20)
        eventually(lambda: b"last" in at_second.payloads)
        eventually(lambda: client.stats.acknowledged == COUNT + 1)
        # Acknowledgements come in order: the second one has all from the first unacknowledged message on.
        # What lies before it is the killed one's, whether its watcher got it in time or not.
        [*numbered, final] = at_second.payloads
        start = int(numbered[0])
        assert 0 < start < COUNT
        assert numbers(numbered) == list(range(start, COUNT))
        assert final == b"last"
        forwarded = numbers(at_first.payloads)
        assert forwarded == list(range(len(forwarded)))

        mosquitto.start()
        at_first.wait_subscribed_again()
        eventually(lambda: where(events)[-1] == mosquitto.url(version).replace("mqtt://", "tcp "), 10)
        for delivery in publish(client, qos, COUNT):
            delivery.wait(20)
        eventually(lambda: len(set(at_first.payloads)) >= COUNT)
    assert len(where(events)) == 3
    assert client.stats.dropped == client.stats.expired == 0


def test_a_store_carries_the_queue_from_one_broker_to_the_other_and_over_a_restart(
    mosquitto: ChildBroker, second: ChildBroker, tmp_path: Path
) -> None:
    urls = [mosquitto.url(), second.url()]
    with Client(urls, client_id="node", store=tmp_path / "queue.db", reconnect=FAST) as client:
        client.connect(5)
        kill(mosquitto)
        second.terminate()
        eventually(lambda: client.state != "connected")
        for delivery in publish(client, 1, 0):
            delivery.wait_stored(10)
        client.close(0)
    second.start()
    with (
        Watcher(second) as watcher,
        Client(urls, client_id="node", store=tmp_path / "queue.db", reconnect=FAST) as client,
    ):
        eventually(lambda: len(watcher.payloads) >= COUNT, 20)
    assert numbers(watcher.payloads) == list(range(COUNT))


def numbers(payloads: list[bytes]) -> list[int]:
    return [int(payload) for payload in payloads]


def where(events: list[ClientEvent]) -> list[str | None]:
    return [event.value for event in events if event.kind == "connected"]
