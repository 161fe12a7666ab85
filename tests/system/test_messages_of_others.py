"""Messages of another client that once locked us out, through a real Mosquitto to each kind of client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

import device_sdk.paho.client as mqtt
from device_sdk import AsyncClient, Client, Message
from tests.steps import eventually, eventually_in_loop

if TYPE_CHECKING:
    from device_sdk.testing.broker_process import ChildBroker

PROPERTIES: dict[str, dict[str, Any]] = {
    "33 user properties": {"user_property": [("name", str(number)) for number in range(33)]},
    "65 user properties": {"user_property": [("name", str(number)) for number in range(65)]},
    "17,000 bytes": {"content_type": "c" * 17_000},
}
every_kind = pytest.mark.parametrize("kind", PROPERTIES)


def publish_retained(broker: ChildBroker, version: str = "5.0", **fields: Any) -> None:
    """Let another client publish to ``poison``; it waits for every subscriber, on each of its connections."""
    with Client(broker.url(version), version=version) as source:
        source.publish("poison", retain=True, qos=1, **fields).wait(10)


@every_kind
def test_client_receives_any_properties(mosquitto: ChildBroker, kind: str) -> None:
    publish_retained(mosquitto, payload=b"x", properties=PROPERTIES[kind])
    received: list[Message] = []
    with Client(mosquitto.url()) as client:
        client.subscribe("poison", qos=1, on_message=received.append).wait(10)
        eventually(lambda: received)
        assert client.stats.connects == 1
    assert received[0].user_properties == tuple(PROPERTIES[kind].get("user_property", ()))
    assert received[0].content_type == PROPERTIES[kind].get("content_type")


@every_kind
def test_async_client_receives_any_properties(mosquitto: ChildBroker, kind: str) -> None:
    publish_retained(mosquitto, payload=b"x", properties=PROPERTIES[kind])
    received: list[Message] = []

    async def main() -> None:
        async with AsyncClient(mosquitto.url()) as client:
            await client.subscribe("poison", qos=1, on_message=received.append).wait(10)
            await eventually_in_loop(lambda: received)
            assert client.stats.connects == 1

    asyncio.run(asyncio.wait_for(main(), 30))
    assert received[0].user_properties == tuple(PROPERTIES[kind].get("user_property", ()))


@every_kind
def test_the_drop_in_receives_any_properties(mosquitto: ChildBroker, kind: str) -> None:
    publish_retained(mosquitto, payload=b"x", properties=PROPERTIES[kind])
    received: list[Any] = []
    ends: list[Any] = []
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.on_message = lambda c, d, message: received.append(message)
    client.on_disconnect = lambda *given: ends.append(given)
    client.on_connect = lambda *_: client.subscribe("poison", 1)
    client.connect("127.0.0.1", urlsplit(mosquitto.url()).port or 0)
    client.loop_start()
    try:
        eventually(lambda: received)
        assert ends == []
        pairs = PROPERTIES[kind].get("user_property")
        assert getattr(received[0].properties, "UserProperty", None) == pairs
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_large_payload_of_mqtt_3_1_1_is_skipped_and_the_next_message_arrives(
    mosquitto: ChildBroker, qos: int
) -> None:
    publish_retained(mosquitto, "3.1.1", payload=bytes(400_000))
    received: list[Message] = []
    with Client(mosquitto.url("3.1.1"), version="3.1.1") as client:
        client.subscribe("#", qos=qos, on_message=received.append).wait(10)
        eventually(lambda: client.stats.skipped == 1)
        client.publish("poison", b"small", qos=1, retain=True).wait(10)
        eventually(lambda: received)
        assert (client.stats.connects, client.stats.acks_held) == (1, 0)
    assert [(message.topic, message.payload) for message in received] == [("poison", b"small")]


def test_async_client_skips_a_large_payload_of_mqtt_3_1_1_too(mosquitto: ChildBroker) -> None:
    publish_retained(mosquitto, "3.1.1", payload=bytes(400_000))

    async def main() -> None:
        async with AsyncClient(mosquitto.url("3.1.1"), version="3.1.1") as client:
            await client.subscribe("#", qos=1).wait(10)
            await eventually_in_loop(lambda: client.stats.skipped == 1)
            assert client.stats.connects == 1

    asyncio.run(asyncio.wait_for(main(), 30))
