"""Statements that the two threads of a real client have to keep, shown over a socket."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from device_sdk import Client, Message
from device_sdk.mqtt import Connack, Puback, Publish, Pubrec, Pubrel
from device_sdk.testing import BrokerServer, ScriptedBroker
from device_sdk.testing.scripted_broker import expect, ignore, send


def failing(message: Message) -> None:
    raise ZeroDivisionError("a handler that fails")


@pytest.mark.conformance("5.0", "MQTT-4.5.0-2", "MQTT-3.3.4-1")
@pytest.mark.conformance("3.1.1", "MQTT-4.5.0-2", "MQTT-3.3.4-1")
@pytest.mark.parametrize("handler", [None, failing])
@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
def test_every_message_is_acknowledged_by_a_client_in_threads(
    version: str, handler: Callable[[Message], object] | None
) -> None:
    broker = ScriptedBroker(
        [
            expect("connect"),
            send(Connack(), Publish("t"), Publish("t", qos=1, packet_id=5), Publish("t", qos=2, packet_id=6)),
            expect(Puback(5)),
            expect(Pubrec(6)),
            send(Pubrel(6)),
            expect("pubcomp", packet_id=6, reason_code=0),
            ignore(),
        ],
        version=version,
    )
    with BrokerServer(broker) as server, Client(server.url, version=version, on_message=handler):
        server.wait_for(lambda: broker.done, timeout=5)
    broker.check()
