"""Manual acknowledgement, requests, payload formats, aliases and endings with real brokers."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING

import pytest

from device_sdk import Client, Message, ReconnectPolicy, Will

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_sdk.testing.broker_process import ChildBroker

FAST = ReconnectPolicy(first=0.02, longest=0.1)
FILTERS = ["a/#", "a/+", "+/b"]
VERSIONS = ["3.1.1", "5.0"]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_not_acknowledged_comes_again_with_the_same_key(
    mosquitto: ChildBroker, version: str
) -> None:
    # iotcore sends it again without DUP, against [MQTT-3.3.1-1]: to us that is another message.
    held: queue.SimpleQueue[Message] = queue.SimpleQueue()
    name = f"holder-{version}"
    with Client(
        mosquitto.url(version),
        version=version,
        client_id=name,
        clean_start=False,
        manual_ack=True,
        reconnect=FAST,
    ) as client:
        client.subscribe("t", qos=1, on_message=held.put).wait(5)
        client.publish("t", b"x", qos=1).wait(5)
        first = held.get(timeout=5)
        assert client.stats.acks_held == 1
        client._engine.transport.abort()  # the network breaks
        again = held.get(timeout=10)
        assert (again.payload, again.dup) == (b"x", True)
        assert again.redelivery_key == first.redelivery_key
        first.acknowledge()
        assert client.stats.acks_held == 1
        again.acknowledge()
        assert client.stats.acks_held == 0


def test_a_request_is_answered_by_another_client(broker: ChildBroker) -> None:
    with Client(broker.url("5.0")) as responder, Client(broker.url("5.0")) as client:

        def respond(message: Message) -> None:
            assert message.response_topic is not None
            properties = {"correlation_data": message.correlation_data}
            responder.publish(message.response_topic, message.payload[::-1], qos=1, properties=properties)

        responder.subscribe("reverse", qos=1, on_message=respond).wait(5)
        assert [client.request("reverse", text, 5).payload for text in ("abc", "xyz")] == [b"cba", b"zyx"]


def test_the_will_is_published_after_a_goodbye_that_asks_for_it(broker: ChildBroker) -> None:
    seen: queue.SimpleQueue[Message] = queue.SimpleQueue()
    with Client(broker.url("5.0")) as watcher:
        watcher.subscribe("state", qos=1, on_message=seen.put).wait(5)
        client = Client(broker.url("5.0"), will=Will("state", b"offline", qos=1))
        client.connect(5)
        client.close(reason_code=0x04)
        assert seen.get(timeout=5).payload == b"offline"


def test_a_client_that_announces_nothing_is_served_and_skips_what_is_too_large(
    mosquitto: ChildBroker,
) -> None:
    skipped: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    seen: queue.SimpleQueue[Message] = queue.SimpleQueue()
    left_out = {"session_expiry_interval": None, "maximum_packet_size": None}
    with Client(
        mosquitto.url("5.0"), maximum_packet_size=1_000, properties=left_out,
        on_event=lambda event: skipped.put(event.value) if event.kind == "skipped" else None,
    ) as client:  # fmt: skip
        client.subscribe("size/#", qos=1, on_message=seen.put).wait(5)
        client.publish("size/large", bytes(2_000), qos=1).wait(5)
        client.publish("size/small", bytes(500), qos=1).wait(5)
        assert seen.get(timeout=5).topic == "size/small"
        assert skipped.get(timeout=5) == "size/large"


def test_a_message_for_which_there_is_no_subscriber_says_so(mosquitto: ChildBroker) -> None:
    # With QoS 2 Mosquitto looks for subscribers at PUBREL, and says nothing about it.
    with Client(mosquitto.url("5.0"), on_message=lambda message: None) as client:
        unheard = client.publish("nobody/wants/this", b"x", qos=1)
        unheard.wait(5)
        client.subscribe("somebody/wants/this").wait(5)
        heard = client.publish("somebody/wants/this", b"x", qos=1)
        heard.wait(5)
    assert (unheard.reason_code, heard.reason_code) == (0x10, 0x00)


def test_a_goodbye_with_words_is_understood(mosquitto: ChildBroker) -> None:
    """One that is not would be a protocol error, after which the will is published in any case."""
    seen: queue.SimpleQueue[Message] = queue.SimpleQueue()
    words = {"reason_string": "moved", "user_property": [("to", "b.example")]}
    with Client(mosquitto.url("5.0")) as watcher:
        watcher.subscribe("state", qos=1, on_message=seen.put).wait(5)
        for payload, reason_code in ((b"not understood", 0x00), (b"offline", 0x04)):
            client = Client(mosquitto.url("5.0"), will=Will("state", payload, qos=1))
            client.connect(5)
            client.close(reason_code=reason_code, properties=words)
        assert seen.get(timeout=5).payload == b"offline"


def test_a_session_ends_with_a_goodbye_that_says_so(mosquitto: ChildBroker) -> None:
    present: queue.SimpleQueue[bool] = queue.SimpleQueue()
    for expiry in (None, 0, None):
        client = Client(
            mosquitto.url("5.0"),
            client_id="leaver",
            clean_start=False,
            on_connect=lambda event: present.put(event.session_present),
        )
        client.connect(5)
        client.close(session_expiry=expiry)
    assert [present.get(timeout=5) for _ in range(3)] == [False, True, False]


def test_the_payload_format_comes_through_and_text_is_text(broker: ChildBroker) -> None:
    seen: queue.SimpleQueue[Message] = queue.SimpleQueue()
    with Client(broker.url("5.0")) as client:
        client.subscribe("t", qos=1, on_message=seen.put).wait(5)
        text = {"payload_format_indicator": 1, "content_type": "text/plain"}
        client.publish("t", "21 °C", qos=1, properties=text).wait(5)
        message = seen.get(timeout=5)
    assert (message.payload.decode(), message.payload_format_indicator) == ("21 °C", 1)


def test_messages_with_topic_aliases_arrive_under_their_topics(mosquitto: ChildBroker) -> None:
    # Mosquitto allows 10 aliases, so 12 topics in turns also take them away from each other.
    seen: queue.SimpleQueue[Message] = queue.SimpleQueue()
    topics = [f"site/{number % 12}/temperature" for number in range(36)] + ["site/0/temperature"] * 5
    with Client(mosquitto.url("5.0"), use_topic_aliases=True) as client:
        client.subscribe("site/#", qos=1, on_message=seen.put).wait(5)
        for topic in topics:
            client.publish(topic, topic, qos=1)
        found = [seen.get(timeout=5) for _ in topics]
    assert [message.topic for message in found] == topics
    assert [message.payload.decode() for message in found] == topics


def test_overlapping_subscriptions_with_identifiers_run_each_handler_once(mosquitto: ChildBroker) -> None:
    seen: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()

    def handler_for(topic_filter: str) -> Callable[[Message], None]:
        return lambda message: seen.put((topic_filter, message.payload))

    with Client(mosquitto.url("5.0"), use_identifiers=True) as client:
        for topic_filter in FILTERS:
            client.subscribe(topic_filter, qos=1, on_message=handler_for(topic_filter)).wait(5)
        for payload in (b"1", b"2"):
            client.publish("a/b", payload, qos=1).wait(5)
        calls = [seen.get(timeout=5) for _ in range(6)]
        client.close()
    assert seen.empty()
    assert sorted(calls) == sorted((f, p) for f in FILTERS for p in (b"1", b"2"))
