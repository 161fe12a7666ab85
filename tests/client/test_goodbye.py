"""The last words of either side: DISCONNECT with reason, session expiry and will; the server reference."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any

import pytest

from device_sdk import Client
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.engine.events import ClientEvent
from device_sdk.errors import (
    ArgumentError,
    ArgumentTypeError,
    ConnectRefused,
    DeviceSdkError,
    RefusedError,
)
from device_sdk.mqtt.packets import Connack, Disconnect
from device_sdk.testing import BrokerServer, ScriptedBroker
from device_sdk.testing.scripted_broker import close, expect, send
from tests.steps import eventually

LATER = ReconnectPolicy(first=1_000, longest=1_000)


def test_disconnect_carries_reason_code_and_session_expiry() -> None:
    goodbye = Disconnect(0x04, {"session_expiry_interval": 30})
    script = [expect("connect"), send(Connack()), expect(goodbye)]
    with BrokerServer(ScriptedBroker(script, version="5.0")) as broker:
        client = Client(broker.url)
        client.connect(5)
        client.close(reason_code=4, session_expiry=30)
        broker.wait_for(lambda: broker.broker.done, timeout=5)
    broker.broker.check()


WORDS = {"reason_string": "battery is empty", "user_property": [["volts", "3.1"], ["volts", "3.0"]]}


def test_disconnect_carries_a_reason_string_and_user_properties() -> None:
    goodbye = Disconnect(0x04, {"session_expiry_interval": 30, **WORDS})
    script = [expect("connect"), send(Connack()), expect(goodbye)]
    with BrokerServer(ScriptedBroker(script, version="5.0")) as broker:
        client = Client(broker.url)
        client.connect(5)
        client.close(reason_code=4, session_expiry=30, properties=WORDS)
        broker.wait_for(lambda: broker.broker.done, timeout=5)
    broker.broker.check()


def test_words_that_the_broker_has_no_room_for_are_left_out_of_disconnect() -> None:
    """Source: MQTT 5.0 §3.14.2.2.3 [MQTT-3.14.2-3], §3.14.2.2.4 [MQTT-3.14.2-4]."""
    goodbye = Disconnect(0x04, {"session_expiry_interval": 30})
    script = [expect("connect"), send(Connack(False, 0, {"maximum_packet_size": 40})), expect(goodbye)]
    with BrokerServer(ScriptedBroker(script, version="5.0")) as broker:
        client = Client(broker.url)
        client.connect(5)
        client.close(reason_code=4, session_expiry=30, properties=WORDS)
        broker.wait_for(lambda: broker.broker.done, timeout=5)
    broker.broker.check()


def test_what_the_broker_says_in_disconnect_reaches_the_program() -> None:
    ends: SimpleQueue[DeviceSdkError] = SimpleQueue()
    goodbye = Disconnect(0x8B, {"reason_string": "maintenance", "user_property": [("until", "noon")]})
    script = [expect("connect"), send(Connack(), goodbye), close()]
    with (
        BrokerServer(ScriptedBroker(script, version="5.0")) as broker,
        Client(broker.url, on_disconnect=ends.put, reconnect=LATER),
    ):
        error = ends.get(timeout=5)
    assert isinstance(error, RefusedError)
    assert (error.reason_code, error.reason_string) == (0x8B, "maintenance")
    assert error.user_properties == (("until", "noon"),)
    assert "server shutting down (0x8b): maintenance" in str(error)


@pytest.mark.parametrize(
    ("options", "arguments", "argument", "kind"),
    [
        ({}, {"reason_code": 0x87}, "reason_code", ArgumentError),  # the server's to say
        ({}, {"reason_code": 256}, "reason_code", ArgumentError),
        ({}, {"reason_code": "0x04"}, "reason_code", ArgumentTypeError),
        ({}, {"session_expiry": -1}, "session_expiry", ArgumentError),
        ({}, {"session_expiry": 1.5}, "session_expiry", ArgumentTypeError),
        ({"session_expiry": 0}, {"session_expiry": 1}, "session_expiry", ArgumentError),
        ({"version": "3.1.1"}, {"reason_code": 4}, "reason_code", ArgumentError),
        ({"version": "3.1.1"}, {"session_expiry": 0}, "session_expiry", ArgumentError),
        ({"version": "3.1.1"}, {"properties": {"reason_string": "x"}}, "properties", ArgumentError),
        ({}, {"properties": "x"}, "properties", ArgumentTypeError),
        ({}, {"properties": {"reason_string": 5}}, "reason_string", ArgumentTypeError),
        ({}, {"properties": {"content_type": "x"}}, "content_type", ArgumentError),
        ({}, {"properties": {"session_expiry_interval": 5}}, "properties", ArgumentError),
        ({}, {"properties": {"server_reference": "b"}}, "properties", ArgumentError),
    ],
)
def test_a_wrong_goodbye_is_named_and_the_client_stays_open(
    options: dict[str, Any], arguments: dict[str, Any], argument: str, kind: type[ArgumentError]
) -> None:
    client = Client("memory://nobody", **options)
    with pytest.raises(kind) as caught:
        client.close(**arguments)
    assert caught.value.argument == argument
    assert client.state == "idle"
    client.close()
    assert client.state == "closed"


def test_a_server_reference_in_connack_is_an_event_and_not_followed() -> None:
    events: list[ClientEvent] = []
    refusal = Connack(False, 0x9D, {"server_reference": "b.example:1884", "reason_string": "moved"})
    with BrokerServer(ScriptedBroker([expect("connect"), send(refusal), close()], version="5.0")) as broker:
        client = Client(broker.url, on_event=events.append, reconnect=LATER)
        with pytest.raises(ConnectRefused, match=r"server moved.*: moved"):
            client.connect(5)
        client.close()
    broker.broker.check()
    [event] = [event for event in events if event.kind == "server_reference"]
    assert event.value == "b.example:1884"
    assert isinstance(event.error, ConnectRefused)


def test_a_server_reference_in_disconnect_is_an_event_too() -> None:
    events: list[ClientEvent] = []
    goodbye = Disconnect(0x9C, {"server_reference": "b.example"})
    script = [expect("connect"), send(Connack(), goodbye), close()]
    with (
        BrokerServer(ScriptedBroker(script, version="5.0")) as broker,
        Client(broker.url, on_event=events.append, reconnect=LATER),
    ):
        eventually(lambda: [event.value for event in events if event.kind == "server_reference"])
    assert "b.example instead" in next(event.text for event in events if event.kind == "server_reference")
