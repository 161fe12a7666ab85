"""Every code block of the README of paho-mqtt 1.x runs, and what it documents can be called as it says."""

from __future__ import annotations

import ast
import inspect
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import device_sdk.paho.v1.client as mqtt
from device_sdk.paho import _srv
from device_sdk.paho.v1 import publish, subscribe
from device_sdk.testing import BrokerServer, ModelBroker
from tests.paho.conftest import SECONDS
from tests.paho.programs import PUBLIC, Program, Sensor, blocks, paho_is_ours, take_to
from tests.steps import eventually

BLOCKS = blocks(Path(__file__).parent / "readme" / "1x.txt")
SIGNATURES = [node for node in ast.parse(BLOCKS["signatures"]).body if isinstance(node, ast.FunctionDef)]

Server = BrokerServer[ModelBroker]


@pytest.fixture(autouse=True)
def redirected(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take the programs to the broker of the test."""
    take_to(server.port, monkeypatch)
    with paho_is_ours(version1=True):
        yield


@pytest.fixture
def client() -> Iterator[mqtt.Client]:
    """Return a client of 1.x that is stopped after the test."""
    made = mqtt.Client()
    yield made
    made.disconnect()
    made.loop_stop()
    made.reinitialise()


def loop_until(client: mqtt.Client, condition: Callable[[], object]) -> None:
    client.loop_start()
    eventually(condition)
    client.disconnect()
    client.loop_stop()


def test_getting_started_prints_what_it_subscribes_to(server: Server) -> None:
    server.call(server.broker.publish, "$SYS/broker/uptime", b"1 s", retain=True)
    program = Program(BLOCKS["getting started"])
    program.wait_for_line("$SYS/broker/uptime b'1 s'")
    assert program.printed == ["Connected with result code 0", "$SYS/broker/uptime b'1 s'"]
    program.names["client"].disconnect()
    program.join()


def test_the_constructor_needs_no_argument() -> None:
    program = Program(BLOCKS["constructor"])
    program.join()
    assert isinstance(program.names["mqttc"], mqtt.Client)


def test_reinitialise_begins_anew(client: mqtt.Client) -> None:
    client.user_data_set("before")
    Program(BLOCKS["reinitialise"], mqttc=client).join()
    assert client.user_data_get() is None


def test_connect_returns_when_connect_is_on_its_way(client: mqtt.Client) -> None:
    Program(BLOCKS["connect"], mqttc=client).join()
    assert not client.is_connected()
    loop_until(client, client.is_connected)


def test_connect_srv_asks_the_dns(client: mqtt.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dns", reason="needs dnspython")
    asked: list[str] = []

    def resolve(name: str, kind: str) -> list[SimpleNamespace]:
        asked.append(name)
        target = SimpleNamespace(to_text=lambda: f"{PUBLIC}.")
        return [SimpleNamespace(priority=1, weight=1, port=1883, target=target)]

    monkeypatch.setattr(_srv.resolver, "resolve", resolve)
    Program(BLOCKS["connect_srv"], mqttc=client).join()
    assert asked == ["_mqtt._tcp.eclipse.org"]
    loop_until(client, client.is_connected)


def test_loop_runs_as_often_as_it_is_called(client: mqtt.Client, server: Server) -> None:
    started = threading.Event()

    def on_connect(client: mqtt.Client, userdata: object, flags: object, rc: int) -> None:
        started.wait(SECONDS)
        program.names["run"] = False

    client.on_connect = on_connect
    client.connect(PUBLIC)
    program = Program(BLOCKS["loop"], mqttc=client)
    started.set()
    program.join()
    assert client.is_connected()


def test_loop_start_publishes_in_the_background(client: mqtt.Client, server: Server) -> None:
    client.connect(PUBLIC)
    with pytest.raises(EOFError):
        Program(BLOCKS["loop_start"], mqttc=client, sensor=Sensor(values=[21.5])).join()
    server.wait_for(lambda: server.broker.payloads("paho/temperature") == [b"21.5"])


def test_the_callbacks_print_what_the_document_says(client: mqtt.Client, server: Server) -> None:
    programs = [Program(BLOCKS[name], mqttc=client, connack_string=mqtt.connack_string) for name in CALLBACKS]
    for program in programs:
        program.join()
    connected, disconnected, received = (program.printed for program in programs)
    client.on_subscribe = lambda *_: client.publish("a/b", "x", 1)
    client.connect(PUBLIC)
    client.loop_start()
    eventually(lambda: connected)
    client.subscribe("a/#", 1)
    eventually(lambda: received)
    server.disconnect_all()
    eventually(lambda: disconnected)
    assert connected[0] == "Connection returned result: Connection Accepted."
    assert received == ["Received message 'b'x'' on topic 'a/b' with QoS 1"]
    assert disconnected == ["Unexpected disconnection."]


CALLBACKS = ("on_connect", "on_disconnect", "on_message")


def test_publish_single_publishes_one_message(server: Server) -> None:
    Program(BLOCKS["publish.single"]).join()
    server.wait_for(lambda: server.broker.payloads("paho/test/single") == [b"payload"])


def test_publish_multiple_publishes_dicts_and_tuples(server: Server) -> None:
    Program(BLOCKS["publish.multiple"]).join()
    server.wait_for(lambda: server.broker.payloads() == [b"multiple 1", b"multiple 2"])


def test_subscribe_simple_returns_one_message(server: Server) -> None:
    server.call(server.broker.publish, "paho/test/simple", b"1", retain=True)
    program = Program(BLOCKS["subscribe.simple"])
    program.join()
    assert program.printed == ["paho/test/simple b'1'"]


def test_subscribe_callback_gets_each_message(server: Server) -> None:
    # It runs for ever: the drop-in's client is ended by its callback here.
    code = BLOCKS["subscribe.callback"].replace("message.payload))\n", "message.payload)); ended(client)\n")
    program = Program(code, ended=lambda client: client.disconnect())
    server.wait_for(lambda: any(session.subscriptions for session in server.broker.sessions.values()))
    server.call(server.broker.publish, "paho/test/callback", b"1")
    program.join()
    assert program.printed == ["paho/test/callback b'1'"]


@pytest.mark.parametrize("documented", SIGNATURES, ids=lambda node: node.name)
def test_a_function_takes_the_documented_arguments_with_their_defaults(documented: ast.FunctionDef) -> None:
    places: list[Any] = [mqtt.Client, mqtt, publish, subscribe]
    function = next(getattr(place, documented.name) for place in places if hasattr(place, documented.name))
    actual = [each for each in inspect.signature(function).parameters.values() if each.name != "self"]
    names = [argument.arg for argument in documented.args.args]
    assert [each.name for each in actual[: len(names)]] == names
    defaults = documented.args.defaults
    for parameter, default in zip(actual[len(names) - len(defaults) : len(names)], defaults, strict=True):
        wanted = eval(ast.unparse(default), {"MQTTv311": mqtt.MQTTv311})
        # That of clean_session is None, in paho-mqtt as well, and stands for True.
        assert parameter.default == wanted or parameter.name == "clean_session"
    assert all(each.default is not inspect.Parameter.empty for each in actual[len(names) :])


def test_the_error_texts_are_there() -> None:
    assert mqtt.connack_string(5) == "Connection Refused: not authorised."
    assert mqtt.error_string(mqtt.MQTT_ERR_NO_CONN) == "The client is not currently connected."


def test_no_block_was_forgotten() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in BLOCKS if f'"{name}"' not in source] == []
