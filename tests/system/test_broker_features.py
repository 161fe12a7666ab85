"""Rows T01-T03 and H01 of the scenarios (``tests/conformance/groups.py``): what real brokers have."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from device_sdk import Client, Message, ReconnectPolicy, Subscription, Will
from device_sdk.errors import LocalProtocolError
from device_sdk.store.memory import MemoryStore
from device_sdk.testing.broker_process import ChildBroker
from tests.steps import eventually
from tests.system.mosquitto_with import MosquittoWith

FAST = ReconnectPolicy(first=0.02, longest=0.1)
VERSIONS = ["3.1", "3.1.1", "5.0"]
BOTH = ["3.1.1", "5.0"]
PATIENCE = 10.0

Box = queue.SimpleQueue


LITTLE = "max_packet_size 2000\nmax_keepalive 10\nmax_inflight_messages 3"  # said in CONNACK


@pytest.fixture
def limited() -> Iterator[ChildBroker]:
    if not MosquittoWith.available():
        pytest.skip("needs mosquitto")
    with MosquittoWith(LITTLE) as broker:
        yield broker


def connack(client: Client) -> dict[str, Any]:
    """Connect and return what the broker allows."""
    client.connect(5)
    online = client._engine.outgoing.online
    assert online is not None
    return online.server


def payloads(box: Box[Message], count: int) -> list[bytes]:
    return [box.get(timeout=PATIENCE).payload for _ in range(count)]


# T01: what every version has


@pytest.mark.parametrize("version", BOTH)
def test_a_client_without_a_name_connects_and_works(broker: ChildBroker, version: str) -> None:
    with Client(broker.url(version), version=version, client_id="") as client:
        client.connect(5)
        box: Box[Message] = queue.SimpleQueue()
        client.subscribe("t", qos=1, on_message=box.put).wait(5)
        client.publish("t", b"x", qos=1).wait(5)
        assert payloads(box, 1) == [b"x"]
        assert client.client_id


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_published_while_a_subscriber_is_away_waits_for_it(
    mosquitto: ChildBroker, version: str
) -> None:
    box: Box[Message] = queue.SimpleQueue()
    options = {"version": version, "client_id": "sleeper", "clean_start": False}
    with Client(mosquitto.url(version), **options) as sleeper:  # type: ignore[arg-type]
        sleeper.subscribe("t/#", qos=2).wait(5)
    with Client(mosquitto.url(version), version=version) as source:
        for qos in (1, 2):
            source.publish(f"t/{qos}", b"%d" % qos, qos=qos).wait(5)
    # Another process of the same program: it says that it has the session, and gets what waits there.
    with Client(mosquitto.url(version), on_message=box.put, **options):  # type: ignore[arg-type]
        assert payloads(box, 2) == [b"1", b"2"]


@pytest.mark.parametrize("version", BOTH)
def test_overlapping_subscriptions_run_each_handler_once(mosquitto: ChildBroker, version: str) -> None:
    box: Box[tuple[str, bytes]] = queue.SimpleQueue()

    def handler(name: str) -> Callable[[Message], None]:
        return lambda message: box.put((name, message.payload))

    with Client(mosquitto.url(version), version=version, use_identifiers=version == "5.0") as client:
        for topic_filter, qos in (("a/#", 2), ("a/+", 1)):
            client.subscribe(topic_filter, qos=qos, on_message=handler(topic_filter)).wait(5)
        client.publish("a/b", b"x", qos=2).wait(5)
        assert sorted(box.get(timeout=5) for _ in range(2)) == [("a/#", b"x"), ("a/+", b"x")]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_idle_client_stays_connected_by_its_pings(mosquitto: ChildBroker, version: str) -> None:
    with Client(mosquitto.url(version), version=version, keep_alive=1) as client:
        client.connect(5)
        before = client.stats.bytes_received
        eventually(lambda: client.stats.bytes_received >= before + 4)  # two PINGRESP
        assert client.stats.reconnects == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_a_wildcard_does_not_match_topics_that_begin_with_a_dollar(
    mosquitto: ChildBroker, version: str
) -> None:
    box: Box[Message] = queue.SimpleQueue()
    with Client(mosquitto.url(version), version=version, on_message=box.put) as client:
        client.subscribe("#").wait(5)
        client.subscribe("+/broker/version").wait(5)
        client.publish("last", b"last", qos=1).wait(5)
        assert box.get(timeout=5).topic == "last"
        client.subscribe("$SYS/broker/version").wait(5)
        assert box.get(timeout=5).topic == "$SYS/broker/version"


@pytest.mark.parametrize("version", BOTH)
def test_after_unsubscribe_nothing_comes(broker: ChildBroker, version: str) -> None:
    box: Box[Message] = queue.SimpleQueue()
    with Client(broker.url(version), version=version, on_message=box.put) as client:
        client.subscribe([Subscription("a", 1), Subscription("b", 1)]).wait(5)
        client.unsubscribe("a").wait(5)
        client.publish("a", b"a", qos=1).wait(5)
        client.publish("b", b"b", qos=1).wait(5)
        assert payloads(box, 1) == [b"b"]
        assert box.empty()


# T02: the properties of MQTT 5.0


def test_the_assigned_client_identifier_names_the_session_after_a_break(mosquitto: ChildBroker) -> None:
    present: Box[bool] = queue.SimpleQueue()
    with Client(
        mosquitto.url(),
        client_id="",
        reconnect=FAST,
        on_connect=lambda event: present.put(event.session_present),
    ) as client:
        client.connect(5)
        assert present.get(timeout=5) is False
        name = client.client_id
        assert name
        client._engine.transport.abort()  # the network breaks
        assert present.get(timeout=PATIENCE) is True
        assert client.client_id == name


def test_a_session_that_nobody_here_knows_is_replaced(mosquitto: ChildBroker) -> None:
    kinds: list[str] = []
    with Client(mosquitto.url(), client_id="reborn", clean_start=False) as first:
        first.subscribe("t", qos=1).wait(5)
    with Client(
        mosquitto.url(),
        client_id="reborn",
        store=MemoryStore(),
        on_event=lambda event: kinds.append(event.kind),
    ) as second:
        second.connect(5)
        eventually(lambda: "connected" in kinds)
    assert kinds[:2] == ["session_lost", "connected"]


def test_no_local_keeps_our_own_messages_away(mosquitto: ChildBroker) -> None:
    box: Box[Message] = queue.SimpleQueue()
    with Client(mosquitto.url(), on_message=box.put) as client, Client(mosquitto.url()) as other:
        client.subscribe("t", qos=1, no_local=True).wait(5)
        client.publish("t", b"own", qos=1).wait(5)
        other.publish("t", b"other", qos=1).wait(5)
        assert payloads(box, 1) == [b"other"]


# T03: limits that the broker announces


def test_the_limits_of_the_broker_are_kept(limited: ChildBroker) -> None:
    with Client(limited.url(), keep_alive=60, inflight=100) as client:
        allowed = connack(client)
        assert allowed["server_keep_alive"] == 10
        assert allowed["maximum_packet_size"] == 2000
        protocol = client._engine.outgoing.online
        assert protocol is not None
        assert protocol.keep_alive.interval == 10
        assert protocol.outbound.window == min(allowed.get("receive_maximum", 65_535), 100)
        with pytest.raises(LocalProtocolError, match="Maximum Packet Size"):
            client.publish("t", bytes(2_000))
        deliveries = [client.publish("t", bytes(1_900), qos=1 + number % 2) for number in range(50)]
        for delivery in deliveries:
            delivery.wait(5)
        assert client.stats.reconnects == 0


def test_the_window_of_the_broker_is_never_exceeded(limited: ChildBroker) -> None:
    box: Box[Message] = queue.SimpleQueue()
    with Client(limited.url(), inflight=100, on_message=box.put) as client:
        client.subscribe("t", qos=2).wait(5)
        deliveries = [client.publish("t", b"%d" % number, qos=2) for number in range(100)]
        for delivery in deliveries:
            delivery.wait(PATIENCE)
        assert payloads(box, 100) == [b"%d" % number for number in range(100)]


def test_a_will_waits_for_its_delay_and_not_at_all_after_a_return(mosquitto: ChildBroker) -> None:
    box: Box[Message] = queue.SimpleQueue()
    with Client(mosquitto.url(), on_message=box.put) as watcher:
        watcher.subscribe("will/#", qos=1).wait(5)
        for name, delay in (("late", 1), ("never", 60)):
            will = Will(f"will/{name}", b"gone", qos=1, properties={"will_delay_interval": delay})
            client = Client(mosquitto.url(), client_id=name, will=will, reconnect=FAST)
            client.connect(5)
            client._engine.transport.abort()
            if name == "late":
                with client._engine.lock:
                    client._engine.close_connection()  # it does not come back
            else:
                eventually(lambda client=client: client.stats.reconnects == 1)  # type: ignore[misc]
            client.close(0)
        watcher.publish("will/marker", b"marker", qos=1).wait(5)
        assert payloads(box, 2) == [b"marker", b"gone"]


# H01: a probe of what a broker takes


@pytest.mark.parametrize("version", BOTH)
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize(
    ("topic_filter", "topic"), [("a/b", "a/b"), ("+/b", "a/b"), ("a/#", "a/b/c"), ("#", "a")]
)
def test_the_broker_takes_every_qos_and_wildcard(
    broker: ChildBroker, version: str, qos: int, topic_filter: str, topic: str
) -> None:
    box: Box[Message] = queue.SimpleQueue()
    with Client(broker.url(version), version=version, on_message=box.put) as client:
        client.subscribe(topic_filter, qos=qos).wait(5)
        client.publish(topic, b"x", qos=qos)
        message = box.get(timeout=PATIENCE)
        assert (message.topic, message.payload) == (topic, b"x")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_broker_takes_topics_in_every_language(mosquitto: ChildBroker, version: str) -> None:
    # iotcore 0.4 ends the connection for any character that is not ASCII.
    box: Box[Message] = queue.SimpleQueue()
    with Client(mosquitto.url(version), version=version, on_message=box.put) as client:
        client.subscribe("größe/+", qos=1).wait(5)
        client.publish("größe/°C 温度", b"x", qos=1).wait(5)
        assert box.get(timeout=5).topic == "größe/°C 温度"


@pytest.mark.parametrize("version", BOTH)
@pytest.mark.parametrize("client_id", ["a", "x" * 23, "x" * 200, "device/17 (lab)", "größe-Ω"])
def test_the_broker_takes_client_identifiers_of_every_length_and_kind(
    mosquitto: ChildBroker, version: str, client_id: str
) -> None:
    with Client(mosquitto.url(version), version=version, client_id=client_id) as client:
        client.connect(5)
        assert client.client_id == client_id


@pytest.mark.parametrize("version", BOTH)
@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_384, 200_000])
def test_the_broker_takes_payloads_and_topics_of_many_sizes(
    broker: ChildBroker, version: str, size: int
) -> None:
    box: Box[Message] = queue.SimpleQueue()
    with Client(broker.url(version), version=version, on_message=box.put) as client:
        client.subscribe("#", qos=1).wait(5)
        topic = "t" * max(1, min(size, 5_000))
        client.publish(topic, bytes(size), qos=1).wait(PATIENCE)
        message = box.get(timeout=PATIENCE)
        assert (message.topic, len(message.payload)) == (topic, size)
