"""The client and a real Mosquitto: what a user does on an ordinary day, in all three protocol versions."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from device_sdk import Client, Message, Subscription, Will
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.engine.events import ClientEvent
from device_sdk.errors import ConnectRefused
from device_sdk.testing import FaultProxy
from tests.steps import eventually

if TYPE_CHECKING:
    from device_sdk.testing.broker_process import ChildBroker

VERSIONS = ["3.1", "3.1.1", "5.0"]
FAST = ReconnectPolicy(first=0.02, longest=0.1)


def proxy_to(broker: ChildBroker, version: str = "5.0") -> FaultProxy:
    return FaultProxy("127.0.0.1", urlsplit(broker.url(version)).port or 0)


def url_of(proxy: FaultProxy) -> str:
    return f"mqtt://{proxy.host}:{proxy.port}"


@pytest.mark.parametrize("version", VERSIONS)
def test_messages_of_every_qos_go_round(mosquitto: ChildBroker, version: str) -> None:
    received: list[Message] = []
    with Client(mosquitto.url(version), version=version) as client:
        client.connect(5)
        assert client.subscribe("t/#", qos=2, on_message=received.append).wait(5) == [2]
        for qos in (0, 1, 2):
            client.publish(f"t/{qos}", b"%d" % qos, qos=qos).wait(5)
        eventually(lambda: len(received) == 3)
        assert client.unsubscribe("t/#").wait(5) == [0]
        client.publish("t/0", b"to nobody", qos=1).wait(5)
        eventually(lambda: client.stats.acks_held == 0)
    assert sorted((m.topic, m.payload, m.qos) for m in received) == [
        ("t/0", b"0", 0),
        ("t/1", b"1", 1),
        ("t/2", b"2", 2),
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_retained_message_waits_for_its_subscriber(mosquitto: ChildBroker, version: str) -> None:
    received: list[Message] = []
    with Client(mosquitto.url(version), version=version) as client:
        client.publish("state", b"on", qos=1, retain=True).wait(5)
        client.subscribe("state", qos=1, on_message=received.append).wait(5)
        eventually(lambda: received)
        client.publish("state", b"", qos=1, retain=True).wait(5)
    assert (received[0].payload, received[0].retain) == (b"on", True)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_connection_is_replaced_without_its_will_and_without_a_gap(
    mosquitto: ChildBroker, version: str
) -> None:
    wills: list[bytes] = []
    received: list[bytes] = []
    with Client(mosquitto.url(version), version=version) as watcher:
        watcher.subscribe("will", on_message=lambda m: wills.append(m.payload)).wait(5)
        will = Will("will", b"vanished", qos=1)
        with Client(
            mosquitto.url(version), client_id="replaced", version=version, will=will, clean_start=False
        ) as client:
            client.subscribe("t", qos=1, on_message=lambda m: received.append(m.payload)).wait(5)
            for number in range(5):
                deliveries = [
                    client.publish("t", b"%d" % n, qos=1) for n in range(10 * number, 10 * number + 10)
                ]
                client.reconnect_now(replace=True)
                for delivery in deliveries:
                    delivery.wait(5)
            eventually(lambda: len(set(received)) == 50)
            assert client.stats.reconnects == 5
        watcher.publish("will", b"no other", qos=1).wait(5)
        eventually(lambda: wills)
    assert wills == [b"no other"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_will_is_published_when_the_client_vanishes_and_only_then(
    mosquitto: ChildBroker, version: str
) -> None:
    received: list[bytes] = []
    with Client(mosquitto.url(version), version=version) as watcher, proxy_to(mosquitto) as proxy:
        watcher.subscribe("will", qos=1, on_message=lambda m: received.append(m.payload)).wait(5)
        polite = Client(mosquitto.url(version), version=version, will=Will("will", b"polite", qos=1))
        polite.connect(5)
        polite.close()
        vanishing = Client(url_of(proxy), version=version, will=Will("will", b"vanished", qos=1))
        vanishing.connect(5)
        proxy.cut()
        eventually(lambda: received)
        vanishing.close(0)
    assert received == [b"vanished"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("fault", ["cut", "reset"])
def test_a_session_goes_on_after_the_network_broke(mosquitto: ChildBroker, version: str, fault: str) -> None:
    received: list[bytes] = []
    with (
        proxy_to(mosquitto) as proxy,
        Client(mosquitto.url(version), version=version) as source,
        Client(url_of(proxy), version=version, clean_start=False, reconnect=FAST) as client,
    ):
        client.subscribe("t", qos=2, on_message=lambda m: received.append(m.payload)).wait(5)
        source.connect(5)
        if fault == "cut":
            proxy.cut()
            eventually(lambda: client.state == "waiting")
        else:
            proxy.reset()
        for number in range(20):
            source.publish("t", b"%d" % number, qos=2).wait(5)
        if fault == "cut":
            proxy.restore()
        eventually(lambda: len(received) == 20)
        assert client.stats.reconnects >= 1
    assert received == [b"%d" % number for number in range(20)]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_offline_queue_drains_in_order(mosquitto: ChildBroker, version: str) -> None:
    received: list[bytes] = []
    with (
        proxy_to(mosquitto) as proxy,
        Client(mosquitto.url(version), version=version) as watcher,
        Client(url_of(proxy), version=version, reconnect=FAST, inflight=5) as client,
    ):
        watcher.subscribe("t", qos=1, on_message=lambda m: received.append(m.payload)).wait(5)
        client.connect(5)
        proxy.cut()
        eventually(lambda: client.state != "connected")
        deliveries = [client.publish("t", b"%d" % number, qos=1) for number in range(200)]
        assert client.stats.queued == 200
        proxy.restore()
        for delivery in deliveries:
            delivery.wait(10)
        eventually(lambda: len(received) == 200)
    assert received == [b"%d" % number for number in range(200)]


def test_a_stalled_network_delays_and_a_split_one_changes_nothing(mosquitto: ChildBroker) -> None:
    received: list[bytes] = []
    with proxy_to(mosquitto) as proxy, Client(url_of(proxy)) as client:
        proxy.split(3)
        client.subscribe("t", qos=2, on_message=lambda m: received.append(m.payload)).wait(10)
        proxy.stall()
        deliveries = [client.publish("t", b"x" * 100 + b"%d" % n, qos=2) for n in range(10)]
        with pytest.raises(TimeoutError):
            deliveries[0].wait(0.1)
        proxy.resume()
        for delivery in deliveries:
            delivery.wait(10)
        eventually(lambda: len(received) == 10)
        assert client.stats.connects == 1
    assert received == [b"x" * 100 + b"%d" % n for n in range(10)]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_second_client_with_the_same_name_takes_the_session_over(
    mosquitto: ChildBroker, version: str
) -> None:
    events: list[ClientEvent] = []
    patient = ReconnectPolicy(first=1000, longest=1000)  # or the two would throw each other out in turns
    url = mosquitto.url(version)
    first = Client(url, version=version, client_id="twin", reconnect=patient, on_event=events.append)
    first.connect(5)
    with Client(url, version=version, client_id="twin") as second:
        second.connect(5)
        eventually(lambda: "disconnected" in [event.kind for event in events])
        second.publish("t", b"x", qos=1).wait(5)
        assert second.state == "connected"
        assert second.stats.connects == 1
    first.close(0)


@pytest.mark.parametrize("version", VERSIONS)
def test_refused_credentials_are_an_error_with_the_reason(mosquitto: ChildBroker, version: str) -> None:
    folder = mosquitto.folder
    assert folder is not None
    mosquitto.terminate()
    (folder / "nobody").write_text("")
    command = mosquitto._command

    def strict(path: object) -> list[str]:
        line = command(folder)
        config = folder / "mosquitto.conf"
        text = config.read_text().replace("allow_anonymous true", "allow_anonymous false")
        config.write_text(f"{text}password_file {folder / 'nobody'}\n")
        return line

    mosquitto._command = strict  # type: ignore[method-assign, assignment]
    mosquitto.start()
    client = Client(mosquitto.url(version), version=version, user_name="node", password="wrong")
    with pytest.raises(ConnectRefused, match="the server refused the connection") as caught:
        client.connect(5)
    assert caught.value.reason_code == (0x87 if version == "5.0" else 5)
    client.close(0)


@pytest.mark.parametrize("version", VERSIONS)
def test_large_payloads(mosquitto: ChildBroker, version: str) -> None:
    sizes: list[int] = []
    with Client(mosquitto.url(version), version=version, maximum_packet_size=2 * 1024 * 1024) as client:
        client.subscribe("t", qos=1, on_message=lambda m: sizes.append(len(m.payload))).wait(5)
        for size in (200 * 1024, 1024 * 1024):
            client.publish("t", bytes(size), qos=1).wait(10)
        eventually(lambda: len(sizes) == 2)
    assert sizes == [200 * 1024, 1024 * 1024]


def test_properties_go_round(mosquitto: ChildBroker) -> None:
    received: list[Message] = []
    with Client(mosquitto.url()) as client:
        client.subscribe("t", qos=1, on_message=received.append).wait(5)
        properties = {
            "content_type": "application/json",
            "response_topic": "answer/here",
            "correlation_data": b"\x00\x01",
            "payload_format_indicator": 1,
            "user_property": [("unit", "°C"), ("unit", "K")],
        }
        client.publish("t", "{}", qos=1, expiry=60, properties=properties).wait(5)
        eventually(lambda: received)
    [message] = received
    assert message.content_type == "application/json"
    assert message.response_topic == "answer/here"
    assert message.correlation_data == b"\x00\x01"
    assert message.payload_format_indicator == 1
    assert message.user_properties == (("unit", "°C"), ("unit", "K"))
    assert message.message_expiry_interval is not None
    assert 58 <= message.message_expiry_interval <= 60


def test_a_shared_subscription_gives_each_message_to_one_member(mosquitto: ChildBroker) -> None:
    one: list[bytes] = []
    other: list[bytes] = []
    with (
        Client(mosquitto.url()) as first,
        Client(mosquitto.url()) as second,
        Client(mosquitto.url()) as source,
    ):
        first.subscribe("$share/g/t/+", qos=1, on_message=lambda m: one.append(m.payload)).wait(5)
        second.subscribe("$share/g/t/+", qos=1, on_message=lambda m: other.append(m.payload)).wait(5)
        for number in range(20):
            source.publish(f"t/{number}", b"%d" % number, qos=1).wait(5)
        eventually(lambda: len(one) + len(other) == 20)
    assert one
    assert other
    assert sorted(one + other, key=int) == [b"%d" % number for number in range(20)]


def test_retain_handling_decides_who_gets_the_retained_message(mosquitto: ChildBroker) -> None:
    received: list[tuple[str, bool]] = []
    with Client(mosquitto.url()) as client:
        for topic in ("always", "new", "never"):
            client.publish(topic, b"x", qos=1, retain=True).wait(5)

        def subscribe() -> None:
            for handling, topic in enumerate(("always", "new", "never")):
                client.subscribe(
                    Subscription(topic, 1, retain_handling=handling, retain_as_published=True)
                ).wait(5)

        client.on_message = lambda m: received.append((m.topic, m.retain))
        subscribe()
        subscribe()
        client.publish("never", b"live", qos=1, retain=True).wait(5)
        eventually(lambda: ("never", True) in received)
    assert received.count(("always", True)) == 2
    assert received.count(("new", True)) == 1
    assert received.count(("never", True)) == 1


@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
def test_iotcore_smoke(iotcore: ChildBroker, version: str) -> None:
    received: list[bytes] = []
    with Client(iotcore.url(version), version=version) as client:
        client.connect(5)
        client.subscribe("t/+", qos=1, on_message=lambda m: received.append(m.payload)).wait(5)
        for number in range(50):
            client.publish("t/x", b"%d" % number, qos=1).wait(5)
        eventually(lambda: len(received) == 50)
    assert received == [b"%d" % number for number in range(50)]
