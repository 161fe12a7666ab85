"""The session of MQTT 3.x at a real Mosquitto: it outlives the first connection, or leaves nothing behind."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from device_sdk import Client
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.testing import FaultProxy
from device_sdk.testing.broker_process import ChildBroker
from tests.steps import eventually

FAST = ReconnectPolicy(first=0.02, longest=0.1)
OLD = pytest.mark.parametrize("version", ["3.1.1", "3.1"])


def port_of(broker: ChildBroker, version: str) -> int:
    return urlsplit(broker.url(version)).port or 0


@OLD
@pytest.mark.parametrize("client_id", ["node-17", None])
def test_what_is_sent_during_the_first_outage_arrives(
    mosquitto: ChildBroker, version: str, client_id: str | None
) -> None:
    received: list[bytes] = []
    with (
        FaultProxy("127.0.0.1", port_of(mosquitto, version)) as proxy,
        Client(mosquitto.url(version), version=version) as sender,
    ):
        client = Client(
            f"mqtt://127.0.0.1:{proxy.port}", client_id=client_id, version=version, reconnect=FAST
        )  # fmt: skip
        wanted = client.subscribe("cmd", qos=1, on_message=lambda message: received.append(message.payload))
        client.connect(5)
        wanted.wait(5)
        proxy.cut()
        eventually(lambda: client.state != "connected")
        sender.publish("cmd", b"during the outage", qos=1).wait(5)
        proxy.restore()
        eventually(lambda: received == [b"during the outage"])
        assert client.stats.connects == 2
        client.close()


@OLD
def test_a_new_program_with_the_name_gets_nothing_of_the_last_one(
    mosquitto: ChildBroker, version: str
) -> None:
    received: list[bytes] = []

    def program() -> Client:
        client = Client(mosquitto.url(version), client_id="node-17", version=version, reconnect=FAST)
        wanted = client.subscribe("cmd", qos=1, on_message=lambda message: received.append(message.payload))
        client.connect(5)
        wanted.wait(5)
        return client

    program().close()
    with Client(mosquitto.url(version), version=version) as sender:
        sender.publish("cmd", b"between the two", qos=1).wait(5)
        client = program()
        sender.publish("cmd", b"now", qos=1).wait(5)
        eventually(lambda: received == [b"now"])
        client.close()


@OLD
def test_a_made_up_name_leaves_no_session_behind(mosquitto: ChildBroker, version: str) -> None:
    with FaultProxy("127.0.0.1", port_of(mosquitto, version)) as proxy:
        client = Client(f"mqtt://127.0.0.1:{proxy.port}", version=version, reconnect=FAST)
        client.connect(5)
        proxy.cut()
        eventually(lambda: client.state != "connected")
        proxy.restore()
        client.publish("t", b"x", qos=1).wait(5)
        client.close()
    if version == "3.1.1":  # whose CONNACK can say so
        told: list[bool] = []
        again = Client(
            mosquitto.url(version), client_id=client.client_id, version=version, clean_start=False,
            on_connect=lambda event: told.append(event.session_present),
        )  # fmt: skip
        again.connect(5)
        eventually(lambda: told == [False])
        again.close()
