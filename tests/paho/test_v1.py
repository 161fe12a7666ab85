"""device_sdk.paho.v1: programs of paho-mqtt 1.x, which Debian 12 ships."""

from __future__ import annotations

from typing import Any

import pytest

import device_sdk.paho.v1.client as mqtt
from device_sdk.mqtt.packets import Connack, Packet, Publish, Suback
from device_sdk.paho.v1 import MQTTException, __version__, properties, publish, subscribe
from device_sdk.testing import BrokerServer, ModelBroker, ScriptedBroker
from device_sdk.testing.scripted_broker import expect, send


def granted(packet: Packet) -> Suback:
    return Suback(packet.packet_id, [1])  # type: ignore[attr-defined]  # a SUBSCRIBE


def test_the_first_argument_is_the_client_id() -> None:
    script = [expect("connect", client_id="node", clean_start=False), send(Connack()), expect("disconnect")]
    with BrokerServer(ScriptedBroker(script, version="3.1.1")) as server:
        client = mqtt.Client("node", False)
        client.connect("127.0.0.1", server.port)
        client.on_connect = lambda client, *arguments: client.disconnect()
        client.loop_forever(1.0, 1, False)
        server.wait_for(lambda: server.broker.done, timeout=5)
    server.broker.check()


def test_callbacks_get_the_arguments_of_1_6() -> None:
    script = [
        expect("connect"),
        send(Connack(session_present=False)),
        expect("subscribe"),
        send(granted, Publish("a", b"1")),
        expect("disconnect"),
    ]
    seen: list[tuple[Any, ...]] = []

    def on_connect(client: Any, *arguments: Any) -> None:
        seen.append(("connect", *arguments))
        client.subscribe("a", 1)

    def on_message(client: Any, userdata: Any, message: Any) -> None:
        seen.append(("message", message.topic, message.payload))
        client.disconnect()

    with BrokerServer(ScriptedBroker(script, version="3.1.1")) as server:
        client = mqtt.Client(userdata="data")
        client.on_connect = on_connect
        client.on_subscribe = lambda client, *arguments: seen.append(("subscribe", *arguments))
        client.on_message = on_message
        client.on_disconnect = lambda client, *arguments: seen.append(("disconnect", *arguments))
        client.connect("127.0.0.1", server.port)
        client.loop_forever()
    assert seen == [
        ("connect", "data", {"session present": 0}, 0),
        ("subscribe", "data", 1, (1,)),
        ("message", "a", b"1"),
        ("disconnect", "data", 0),
    ]


def test_the_old_arguments_of_the_loops_are_taken() -> None:
    client = mqtt.Client()
    assert client.loop(0.0, max_packets=5) == mqtt.MQTT_ERR_NO_CONN
    assert client.loop_write(max_packets=5) == mqtt.MQTT_ERR_NO_CONN
    assert client.loop_stop(force=True) == mqtt.MQTT_ERR_INVAL
    client.message_retry_set(20)


def test_reinitialise_keeps_the_interface() -> None:
    client = mqtt.Client("a")
    client.on_connect = print
    client.reinitialise("b", userdata=7)
    callback: Any = client.on_connect
    assert callback is None
    assert client.user_data_get() == 7
    assert client.callback_api_version.value == 1


def test_a_session_without_a_client_id_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="client id"):
        mqtt.Client("", False)


def test_the_one_shot_helpers_work() -> None:
    model = ModelBroker()
    with BrokerServer(model) as server:
        publish.single("a", "1", qos=1, retain=True, hostname="127.0.0.1", port=server.port)
        message = subscribe.simple("a", hostname="127.0.0.1", port=server.port)
    assert isinstance(message, mqtt.MQTTMessage)
    assert message.payload == b"1"


def test_the_package_has_what_the_old_one_has() -> None:
    assert __version__ == "1.6.1"
    assert issubclass(MQTTException, Exception)
    assert properties.Properties is mqtt.Properties
    # Without the warning that 2.x gives for the old name.
    assert str(mqtt.ReasonCodes(mqtt.CONNACK >> 4, "Banned")) == "Banned"
