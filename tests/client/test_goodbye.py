"""The last words of either side: DISCONNECT with reason, session expiry and will; the server reference."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk import Client
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.engine.events import ClientEvent
from device_sdk.errors import ArgumentError, ArgumentTypeError, ConnectRefused
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
