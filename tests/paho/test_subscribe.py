"""device_sdk.paho.subscribe: one call connects, subscribes and receives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from device_sdk.mqtt.packets import Connack, Packet, Publish, Suback
from device_sdk.paho import MQTTException, subscribe
from device_sdk.paho.client import CallbackAPIVersion, Client, MQTTMessage, MQTTv5
from device_sdk.testing import BrokerServer, ModelBroker, ScriptedBroker
from device_sdk.testing.scripted_broker import close, expect, send


@pytest.fixture
def broker() -> Iterator[BrokerServer[ModelBroker]]:
    """A broker with three retained messages: what a subscriber gets at once."""
    model = ModelBroker()
    for number in (1, 2, 3):
        model.publish(f"a/{number}", str(number).encode(), qos=1, retain=True)
    with BrokerServer(model) as server:
        yield server


def granted(packet: Packet) -> Suback:
    return Suback(packet.packet_id, [0])  # type: ignore[attr-defined]  # a SUBSCRIBE


def test_simple_returns_one_message(broker: BrokerServer[ModelBroker]) -> None:
    message = subscribe.simple("a/1", qos=1, hostname="127.0.0.1", port=broker.port)
    assert isinstance(message, MQTTMessage)
    assert (message.topic, message.payload, message.qos, message.retain) == ("a/1", b"1", 1, True)
    broker.wait_for(lambda: not broker.broker.links, timeout=5)
    assert not broker.broker.violations


def test_simple_returns_a_list_of_several_messages(broker: BrokerServer[ModelBroker]) -> None:
    messages = subscribe.simple(["a/1", "a/3"], msg_count=2, hostname="127.0.0.1", port=broker.port)
    assert isinstance(messages, list)
    assert sorted(message.topic for message in messages) == ["a/1", "a/3"]


def test_simple_stops_at_the_number_of_messages(broker: BrokerServer[ModelBroker]) -> None:
    messages = subscribe.simple("a/#", msg_count=2, hostname="127.0.0.1", port=broker.port)
    assert isinstance(messages, list)
    assert len(messages) == 2


def test_simple_leaves_out_retained_messages_when_asked() -> None:
    script = [
        expect("connect", clean_start=True),
        send(Connack()),
        expect("subscribe"),
        send(granted, Publish("a", b"old", retain=True), Publish("a", b"new")),
        expect("disconnect"),
    ]
    with BrokerServer(ScriptedBroker(script, version="3.1.1")) as server:
        message = subscribe.simple("a", retained=False, hostname="127.0.0.1", port=server.port)
        assert isinstance(message, MQTTMessage)
        assert message.payload == b"new"
        server.wait_for(lambda: server.broker.done, timeout=5)
    server.broker.check()


def test_simple_in_mqtt_5_does_not_mind_clean_session(broker: BrokerServer[ModelBroker]) -> None:
    message = subscribe.simple("a/1", hostname="127.0.0.1", port=broker.port, protocol=MQTTv5)
    assert isinstance(message, MQTTMessage)
    assert message.payload == b"1"


@pytest.mark.parametrize("protocol", [4, MQTTv5])
def test_callback_gets_each_message_until_it_disconnects(
    broker: BrokerServer[ModelBroker], protocol: Any
) -> None:
    seen: list[tuple[str, object]] = []

    def on_message(client: Any, userdata: object, message: MQTTMessage) -> None:
        seen.append((message.topic, userdata))
        if len(seen) == 3:
            client.disconnect()

    subscribe.callback(
        on_message, "a/#", 1, "data", hostname="127.0.0.1", port=broker.port, protocol=protocol
    )
    assert sorted(seen) == [("a/1", "data"), ("a/2", "data"), ("a/3", "data")]


def test_an_exception_of_the_callback_ends_the_call(broker: BrokerServer[ModelBroker]) -> None:
    def fail(client: Any, userdata: object, message: MQTTMessage) -> None:
        raise LookupError(message.topic)

    with pytest.raises(LookupError, match="a/1"):
        subscribe.callback(fail, "a/1", hostname="127.0.0.1", port=broker.port)


def test_a_lost_connection_is_made_again_and_subscribed_again() -> None:
    first = [expect("connect"), send(Connack()), expect("subscribe"), send(granted), close()]
    second = [
        expect("connect"),
        send(Connack()),
        expect("subscribe"),
        send(granted, Publish("a", b"1")),
        expect("disconnect"),
    ]
    with BrokerServer(ScriptedBroker(first, second, version="3.1.1")) as server:
        message = subscribe.simple("a", hostname="127.0.0.1", port=server.port)
        assert isinstance(message, MQTTMessage)
        server.wait_for(lambda: server.broker.done, timeout=5)
    server.broker.check()


def test_a_kept_session_needs_a_client_id() -> None:
    with pytest.raises(ValueError, match="client id"):
        subscribe.simple("a", clean_session=False)


def test_a_refused_connection_is_an_exception_with_the_reason() -> None:
    script = [expect("connect"), send(Connack(reason_code=5)), close()]
    with (
        BrokerServer(ScriptedBroker(script, version="3.1.1")) as server,
        pytest.raises(MQTTException, match="Not authorized"),
    ):
        subscribe.simple("a", hostname="127.0.0.1", port=server.port)


def test_a_wrong_filter_ends_the_call_with_its_error(broker: BrokerServer[ModelBroker]) -> None:
    with pytest.raises(ValueError, match="'#'"):
        subscribe.simple("a/#/b", hostname="127.0.0.1", port=broker.port)


@pytest.mark.parametrize("count", [0, -1])
def test_fewer_than_one_message_is_a_value_error(count: int) -> None:
    with pytest.raises(ValueError, match="msg_count must be 1 or more"):
        subscribe.simple("a", msg_count=count)


@pytest.mark.parametrize("qos", [-1, 3])
def test_a_wrong_qos_is_a_value_error(qos: int) -> None:
    with pytest.raises(ValueError, match="qos must be 0, 1 or 2"):
        subscribe.callback(print, "a", qos)


def test_simple_twice_with_a_kept_session_gives_each_message_once(
    broker: BrokerServer[ModelBroker],
) -> None:
    client = Client(CallbackAPIVersion.VERSION2, "kept", clean_session=False)
    granted: list[Any] = []
    client.on_subscribe = lambda *_: granted.append(client.disconnect())
    client.on_connect = lambda *_: client.subscribe("q", 2)
    client.connect("127.0.0.1", broker.port)
    client.loop_forever()
    arguments: dict[str, Any] = {"hostname": "127.0.0.1", "port": broker.port, "client_id": "kept"}
    got: list[Any] = []
    for payload in (b"one", b"two"):
        broker.call(lambda payload=payload: broker.broker.publish("q", payload, qos=2))
        message = subscribe.simple("q", 2, clean_session=False, **arguments)
        assert isinstance(message, MQTTMessage)
        got.append(message.payload)
    assert got == [b"one", b"two"]
