"""The façade for programs written for paho-mqtt, with real brokers."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import device_sdk.paho.client as mqtt
from device_sdk.net.base import parse_url
from device_sdk.paho.packettypes import PacketTypes
from device_sdk.paho.properties import Properties
from device_sdk.testing.broker_process import ChildBroker
from tests.steps import eventually

SECONDS = 20.0
VERSIONS = {mqtt.MQTTv31: "3.1.1", mqtt.MQTTv311: "3.1.1", mqtt.MQTTv5: "5.0"}


@contextmanager
def running(broker: ChildBroker, client_id: str, **arguments: Any) -> Iterator[mqtt.Client]:
    """Give a connected client with its thread."""
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, **arguments)
    client.reconnect_delay_set(0.05, 0.5)
    port = parse_url(broker.url(VERSIONS[client.protocol])).port
    properties = None
    if client.protocol == mqtt.MQTTv5:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 600
    client.connect("127.0.0.1", port, properties=properties)
    client.loop_start()
    try:
        eventually(client.is_connected)
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.mark.parametrize("protocol", [mqtt.MQTTv31, mqtt.MQTTv311, mqtt.MQTTv5])
def test_messages_of_every_qos_come_back(mosquitto: ChildBroker, protocol: int) -> None:
    with running(mosquitto, "c", protocol=protocol) as client:
        got: list[tuple[str, bytes, int]] = []
        granted = threading.Event()
        client.on_message = lambda c, d, message: got.append((message.topic, message.payload, message.qos))
        client.on_subscribe = lambda *_: granted.set()
        client.subscribe("site/#", 2)
        assert granted.wait(SECONDS)
        for number in range(300):
            client.publish(f"site/{number}", str(number), number % 3)
        eventually(lambda: len(got) == 300)
        assert sorted(got) == sorted((f"site/{n}", b"%d" % n, n % 3) for n in range(300))


def test_both_brokers_take_version_5(broker: ChildBroker) -> None:
    with running(broker, "c", protocol=mqtt.MQTTv5) as client:
        got: list[Any] = []
        properties = Properties(PacketTypes.PUBLISH)
        client.on_message = lambda c, d, message: got.append(message.properties)
        client.on_subscribe = lambda *_: client.publish("a", "x", 1, properties=properties)
        properties.ContentType = "text/plain"
        properties.UserProperty = [("name", "value")]
        client.subscribe("a", 1)
        eventually(lambda: got)
        assert got[0].ContentType == "text/plain"
        assert got[0].UserProperty == [("name", "value")]


@pytest.mark.parametrize("clean_session", [True, False])
def test_nothing_is_lost_while_the_broker_is_away(mosquitto: ChildBroker, clean_session: bool) -> None:
    with running(mosquitto, "c", clean_session=clean_session) as client:
        # Retained, so that the broker can be asked for all of them afterwards.
        infos = [client.publish(f"a/{number}", "x", 1, retain=True) for number in range(100)]
        mosquitto.terminate()
        eventually(lambda: not client.is_connected())
        infos += [client.publish(f"a/{number}", "x", 2, retain=True) for number in range(100, 200)]
        mosquitto.start()
        eventually(client.is_connected)
        for info in infos:
            info.wait_for_publish(SECONDS)
        assert all(info.is_published() for info in infos)
        got: set[str] = set()
        client.on_message = lambda c, d, message: got.add(message.topic)
        client.subscribe("a/#", 1)
        eventually(lambda: len(got) == 200)


def test_a_message_survives_its_process_in_a_store(mosquitto: ChildBroker, tmp_path: Path) -> None:
    store = str(tmp_path / "queue.db")
    earlier = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "node", clean_session=False, store=store)
    for number in range(50):
        earlier.publish("kept", str(number), 1 + number % 2)
    del earlier
    with running(mosquitto, "watcher") as watcher:
        got: list[bytes] = []
        granted = threading.Event()
        watcher.on_subscribe = lambda *_: granted.set()
        watcher.on_message = lambda c, d, message: got.append(bytes(message.payload))
        watcher.subscribe("kept", 2)
        assert granted.wait(SECONDS)
        with running(mosquitto, "node", clean_session=False, store=store):
            eventually(lambda: len(got) == 50)
        assert sorted(got) == sorted(b"%d" % number for number in range(50))


def test_the_will_is_published_when_the_program_dies(mosquitto: ChildBroker) -> None:
    with running(mosquitto, "watcher") as watcher:
        got: list[bytes] = []
        granted = threading.Event()
        watcher.on_subscribe = lambda *_: granted.set()
        watcher.on_message = lambda c, d, message: got.append(bytes(message.payload))
        watcher.subscribe("gone", 1)
        assert granted.wait(SECONDS)
        mortal = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "mortal")
        mortal.will_set("gone", "alas", 1)
        mortal.connect("127.0.0.1", parse_url(mosquitto.url("3.1.1")).port)
        while not mortal.is_connected():
            assert mortal.loop() == mqtt.MQTT_ERR_SUCCESS
        mortal.reinitialise()
        eventually(lambda: got == [b"alas"])


PROGRAM = """
import sys
import {module}.client as mqtt
from {module} import subscribe

port, task = int(sys.argv[1]), sys.argv[2]
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "side", clean_session=False)
if task == "simple":
    print(subscribe.simple("q", 2, port=port, client_id="side", clean_session=False).payload.decode())
    sys.exit()
client.on_subscribe = lambda *_: client.disconnect()
client.on_connect = lambda *_: client.subscribe("q", 2)
client.connect("127.0.0.1", port)
if task == "subscribe":
    client.loop_forever()
else:
    print(*[int(client.publish("from/" + task, str(number), 1).rc) for number in range(5)])
    client.disconnect()
"""


def run(module: str, port: int, task: str) -> str:
    """Run the program with one of the two libraries, and return what it prints."""
    arguments = [sys.executable, "-c", PROGRAM.format(module=module), str(port), task]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


@contextmanager
def watching(broker: ChildBroker, topic: str) -> Iterator[list[bytes]]:
    """Give the payloads that come on a topic."""
    with running(broker, "watcher") as watcher:
        got: list[bytes] = []
        granted = threading.Event()
        watcher.on_subscribe = lambda *_: granted.set()
        watcher.on_message = lambda c, d, message: got.append(bytes(message.payload))
        watcher.subscribe(topic, 2)
        assert granted.wait(SECONDS)
        yield got


def test_messages_without_any_loop_arrive(mosquitto: ChildBroker) -> None:
    port = parse_url(mosquitto.url("3.1.1")).port
    with watching(mosquitto, "from/us") as got:
        for _ in range(5):
            assert run("device_sdk.paho", port, "us") == "0 0 0 0 0"
        eventually(lambda: len(got) == 25)
        assert got == [b"%d" % number for number in range(5)] * 5


@pytest.mark.parametrize("module", ["device_sdk.paho", "paho.mqtt"])
def test_both_libraries_give_a_message_of_qos_2_to_one_of_two_runs(
    mosquitto: ChildBroker, module: str
) -> None:
    if module == "paho.mqtt":
        pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt")
    port = parse_url(mosquitto.url("3.1.1")).port
    run(module, port, "subscribe")
    with running(mosquitto, "other") as other:
        got = []
        for payload in ("one", "two"):
            other.publish("q", payload, 2).wait_for_publish(SECONDS)
            got.append(run(module, port, "simple"))
        assert got == ["one", "two"]
