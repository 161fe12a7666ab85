"""Messages and filters for which a real broker closes the connection, through a real kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import pytest

from device_sdk import Client, Message, ReconnectPolicy, Subscription, Will
from device_sdk.engine.events import ClientEvent
from device_sdk.errors import PublishRefused, SubscribeRefused
from device_sdk.store.inspect import QueueReader
from device_sdk.testing.broker_process import IotcoreBroker, MosquittoBroker
from tests.system.mosquitto_with import MosquittoWith

SOON = ReconnectPolicy(first=0.05, longest=0.2)


SMALL = "max_packet_size 500"  # in MQTT 3.1.1 Mosquitto closes at a larger packet, without a word


@pytest.fixture
def small() -> Iterator[MosquittoBroker]:
    if not MosquittoWith.available():
        pytest.skip("needs mosquitto")
    with MosquittoWith(SMALL) as broker:
        yield broker


@pytest.mark.parametrize("version", ["3.1.1", "3.1"])
@pytest.mark.parametrize("size", [600, 5_000, 60_000])
def test_a_message_that_is_too_large_is_refused_and_the_others_arrive(
    small: MosquittoBroker, version: str, size: int, tmp_path: Path
) -> None:
    store = tmp_path / "queue.db"
    with Client(small.url(version), version=version, client_id="c", store=store, reconnect=SOON) as client:
        client.publish("a", b"first", qos=1).wait(10)
        large = client.publish("a", b"x" * size, qos=1)
        others = [
            client.publish("ab"[number % 2], b"%d" % number, qos=1 + number % 2) for number in range(20)
        ]
        for delivery in others:
            delivery.wait(30)
        with pytest.raises(PublishRefused, match=f"{size} bytes.*may have been received"):
            large.wait(10)
        assert client.stats.reconnects <= 6
        client.publish("a", b"last", qos=1).wait(10)
    with QueueReader(store) as reader:
        [kept] = reader.shelf()
        assert (kept.topic, len(kept.payload)) == ("a", size)


def test_a_broker_that_is_killed_again_and_again_costs_no_message(mosquitto: MosquittoBroker) -> None:
    deliveries = []
    with Client(mosquitto.url("3.1.1"), version="3.1.1", client_id="c", reconnect=SOON) as client:
        for _ in range(6):
            deliveries += [client.publish("ab"[number % 2], b"%d" % number, qos=1) for number in range(20)]
            mosquitto.terminate()
            deliveries += [client.publish("ab"[number % 2], b"%d" % number, qos=2) for number in range(20)]
            mosquitto.start()
        for delivery in deliveries:
            delivery.wait(30)
        assert client.stats.refused == 0


@pytest.mark.parametrize("version", ["5.0", "3.1.1"])
@pytest.mark.parametrize("setting", ["max_qos 0", "retain_available false"])
def test_a_will_that_is_not_allowed_is_named_and_the_client_is_online(version: str, setting: str) -> None:
    if not MosquittoWith.available():
        pytest.skip("needs mosquitto")
    events: Queue[ClientEvent] = Queue()
    will = Will("status/node", b"offline", qos=1, retain=True)
    with (
        MosquittoWith(setting) as broker,
        Client(
            broker.url(version), version=version, will=will, on_event=events.put, reconnect=SOON
        ) as client,
    ):
        texts = {}
        while "will_refused" not in texts:
            event = events.get(timeout=20)
            texts[event.kind] = event.text
        client.publish("t/1", b"x").wait(10)
    assert texts["connect_failed"].endswith("next attempt at once, without the will")
    assert texts["will_refused"].startswith(
        "status/node: the broker refuses CONNECT with a will on this topic"
    )


@pytest.mark.parametrize("qos", [0, 1])
def test_a_birth_that_is_too_large_is_named_and_the_messages_arrive(small: MosquittoBroker, qos: int) -> None:
    """MQTT 3.1.1 cannot announce a limit: Mosquitto closes, and birth comes first on each connection."""
    events: Queue[ClientEvent] = Queue()
    birth = Message("status/node", bytes(600), qos=qos)
    with Client(
        small.url("3.1.1"), version="3.1.1", client_id="c", birth=birth, on_event=events.put, reconnect=SOON
    ) as client:
        deliveries = [client.publish("t", b"%d" % number, qos=1) for number in range(10)]
        while events.get(timeout=30).kind != "no_birth":
            pass
        for delivery in deliveries:
            delivery.wait(30)
        client.publish("t", b"last", qos=1).wait(30)
        assert client.state == "connected"


@pytest.mark.parametrize("version", ["5.0", "3.1.1"])
def test_a_filter_that_a_broker_ends_connections_for_is_refused_and_the_others_are_served(
    version: str,
) -> None:
    """It is rumqttd, and does so if the filter begins with $."""
    if not IotcoreBroker.available():
        pytest.skip("needs the package iotcore")
    arrived: Queue[str] = Queue()

    def note(message: Message) -> None:
        arrived.put(message.topic)

    with IotcoreBroker() as broker, Client(broker.url(version), version=version, reconnect=SOON) as client:
        request = client.subscribe([Subscription(one, 1) for one in ("a/#", "$SYS/#", "b")], on_message=note)
        with pytest.raises(SubscribeRefused, match=r"^\$SYS/#: the broker ended \d connections"):
            request.wait(30)
        assert [code >= 0x80 for code in request.reason_codes] == [False, True, False]
        for topic in ("a/1", "b"):
            client.publish(topic, b"x", qos=1).wait(10)
            assert arrived.get(timeout=10) == topic
        assert client.stats.reconnects < 10
