"""The mark of a bridge with real brokers: no message comes back, and RETAIN is what was published."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING

import pytest

from device_sdk import Client, Message
from device_sdk.errors import DeviceSdkError

if TYPE_CHECKING:
    from device_sdk.testing.broker_process import ChildBroker


@pytest.mark.parametrize("version", ["3.1.1", "3.1"])
@pytest.mark.parametrize(
    ("bridge", "expected"),
    [(True, [(b"theirs", True)]), (False, [(b"ours", False), (b"theirs", False)])],
    ids=["bridge", "client"],
)
def test_a_bridge_gets_no_message_back_and_retain_as_it_was_published(
    mosquitto: ChildBroker, version: str, bridge: bool, expected: list[tuple[bytes, bool]]
) -> None:
    seen: queue.SimpleQueue[Message] = queue.SimpleQueue()
    topic = f"bridge/{version}/{bridge}"
    with (
        Client(mosquitto.url(version), version=version, bridge=bridge) as client,
        Client(mosquitto.url("5.0")) as other,
    ):
        client.subscribe(topic, qos=1, on_message=seen.put).wait(5)
        client.publish(topic, b"ours", qos=1).wait(5)
        other.publish(topic, b"theirs", qos=1, retain=True).wait(5)
        messages = [seen.get(timeout=5) for _ in expected]
    assert [(message.payload, message.retain) for message in messages] == expected


def test_in_mqtt_5_a_subscription_says_the_same(mosquitto: ChildBroker) -> None:
    seen: queue.SimpleQueue[Message] = queue.SimpleQueue()
    with Client(mosquitto.url("5.0")) as client, Client(mosquitto.url("5.0")) as other:
        wanted = client.subscribe("bridge/5", 1, on_message=seen.put, no_local=True, retain_as_published=True)
        wanted.wait(5)
        client.publish("bridge/5", b"ours", qos=1).wait(5)
        other.publish("bridge/5", b"theirs", qos=1, retain=True).wait(5)
        message = seen.get(timeout=5)
    assert (message.payload, message.retain) == (b"theirs", True)


def test_a_broker_that_does_not_know_the_mark_refuses_it(iotcore: ChildBroker) -> None:
    client = Client(iotcore.url("3.1.1"), version="3.1.1", bridge=True)
    with pytest.raises(DeviceSdkError, match="a broker that does not know bridge=True does so, too"):
        client.connect(5)
    client.close(0)
