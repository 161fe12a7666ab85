"""Which callbacks the façade calls, in which order and with which arguments."""

from __future__ import annotations

import logging
import pydoc
import threading
from typing import Any

import pytest

import device_sdk.paho.client as mqtt
from device_sdk.mqtt.packets import Connack, Disconnect, Puback, Publish, Pubrel, Suback, Unsuback
from device_sdk.paho.properties import Properties
from device_sdk.paho.reasoncodes import ReasonCode
from device_sdk.testing import BrokerServer, ModelBroker
from device_sdk.testing.scripted_broker import close, expect, ignore, send
from tests.paho.conftest import SECONDS, Clients, loop_until, scripted, start
from tests.steps import eventually

DECORATORS = (
    "connect", "disconnect", "message", "publish", "subscribe", "unsubscribe", "log", "pre_connect",
    "connect_fail", "socket_open", "socket_close", "socket_register_write", "socket_unregister_write",
)  # fmt: skip
LOGGED = (
    "Sending CONNECT", "Received CONNACK", "Sending SUBSCRIBE", "Received SUBACK", "Sending PUBLISH",
    "Received PUBREC (Mid: 2)", "Sending PUBREL (Mid: 2)", "Received PUBCOMP (Mid: 2)", "Received PUBLISH",
    "Sending PUBREC", "Received PUBREL", "Sending PUBCOMP", "Received PUBACK (Mid: 3)", "Sending PINGREQ",
    "Received PINGRESP", "Sending DISCONNECT",
)  # fmt: skip

V1, V2 = mqtt.CallbackAPIVersion.VERSION1, mqtt.CallbackAPIVersion.VERSION2


def make(version: mqtt.CallbackAPIVersion, **arguments: Any) -> mqtt.Client:
    if version is V2:
        return mqtt.Client(version, "c", **arguments)
    with pytest.deprecated_call():
        return mqtt.Client(version, "c", **arguments)


def record(client: mqtt.Client, names: tuple[str, ...]) -> list[tuple[str, tuple[Any, ...]]]:
    """Note the calls of these callbacks with their arguments after client and userdata."""
    calls: list[tuple[str, tuple[Any, ...]]] = []

    def noting(name: str) -> Any:
        return lambda client, userdata, *arguments: calls.append((name, arguments))

    for name in names:
        setattr(client, name, noting(name))
    return calls


SESSION = [
    expect("connect"),
    send(Connack(True)),
    expect("subscribe"),
    send(lambda seen: Suback(seen.packet_id, [1])),
    expect("publish"),
    send(lambda seen: Puback(seen.packet_id)),
    expect("unsubscribe"),
    send(lambda seen: Unsuback(seen.packet_id, [])),
    close(),
]


def conversation(client: mqtt.Client, protocol: int) -> list[tuple[str, tuple[Any, ...]]]:
    """Have a connection with one of everything that the broker then closes; return the calls."""
    script: list[Any] = list(SESSION)
    if protocol == 5:
        script[-2:] = [send(lambda seen: Unsuback(seen.packet_id, [0])), send(Disconnect(0x8B)), close()]
    names = ("on_connect", "on_subscribe", "on_publish", "on_unsubscribe", "on_disconnect")
    calls = record(client, names)
    with scripted(script, version="5.0" if protocol == 5 else "3.1.1") as server:
        start_flag: Any = False if protocol == 5 else mqtt.MQTT_CLEAN_START_FIRST_ONLY
        client.connect("127.0.0.1", server.port, clean_start=start_flag)
        loop_until(client, lambda: len(calls) == 1)
        client.subscribe("a", 1)
        loop_until(client, lambda: len(calls) == 2)
        client.publish("a", "b", 1)
        loop_until(client, lambda: len(calls) == 3)
        client.unsubscribe("a")
        loop_until(client, lambda: len(calls) == 5)
    assert [name for name, _ in calls] == list(names)
    return calls


def test_version_2_has_the_same_arguments_for_mqtt_3() -> None:
    calls = dict(conversation(make(V2, clean_session=False), 4))
    flags, reason, properties = calls["on_connect"]
    assert (flags, reason) == (mqtt.ConnectFlags(session_present=True), "Success")
    assert properties.isEmpty()
    mid, codes, properties = calls["on_subscribe"]
    assert (mid, codes, properties.isEmpty()) == (1, ["Granted QoS 1"], True)
    mid, reason, properties = calls["on_publish"]
    assert (mid, reason, properties.isEmpty()) == (2, "Success", True)
    mid, codes, properties = calls["on_unsubscribe"]
    assert (mid, codes, properties.isEmpty()) == (3, [], True)
    flags, reason, properties = calls["on_disconnect"]
    assert (flags, reason) == (mqtt.DisconnectFlags(False), "Unspecified error")
    assert properties.isEmpty()


def test_version_2_has_the_same_arguments_for_mqtt_5() -> None:
    calls = dict(conversation(make(V2, protocol=mqtt.MQTTv5), 5))
    assert calls["on_connect"][:2] == (mqtt.ConnectFlags(session_present=True), "Success")
    assert calls["on_unsubscribe"][:2] == (3, ["Success"])
    assert calls["on_disconnect"][:2] == (mqtt.DisconnectFlags(True), "Server shutting down")
    assert all(isinstance(arguments[-1], Properties) for arguments in calls.values())


def test_version_1_of_mqtt_3_has_numbers() -> None:
    calls = dict(conversation(make(V1, clean_session=False), 4))
    assert calls == {
        "on_connect": ({"session present": 1}, 0),
        "on_subscribe": (1, (1,)),
        "on_publish": (2,),
        "on_unsubscribe": (3,),
        "on_disconnect": (mqtt.MQTT_ERR_CONN_LOST,),
    }


def test_version_1_of_mqtt_5_has_reason_codes() -> None:
    calls = dict(conversation(make(V1, protocol=mqtt.MQTTv5), 5))
    flags, reason, properties = calls["on_connect"]
    assert (flags, reason, type(reason), type(properties)) == (
        {"session present": 1}, "Success", ReasonCode, Properties,
    )  # fmt: skip
    assert calls["on_subscribe"][:2] == (1, ["Granted QoS 1"])
    assert calls["on_publish"] == (2,)
    mid, properties, reason = calls["on_unsubscribe"]
    assert (mid, type(properties), reason) == (3, Properties, "Success")
    assert calls["on_disconnect"] == ("Server shutting down", None)


@pytest.mark.parametrize("protocol", [mqtt.MQTTv311, mqtt.MQTTv5])
def test_on_connect_is_called_for_a_refusal_and_then_on_disconnect(clients: Clients, protocol: int) -> None:
    code = 0x87 if protocol == mqtt.MQTTv5 else 5
    script = [expect("connect"), send(Connack(False, code)), close()]
    with scripted(script, version="5.0" if protocol == mqtt.MQTTv5 else "3.1.1") as server:
        client = clients("c", protocol=protocol)
        calls = record(client, ("on_connect", "on_disconnect"))
        client.connect("127.0.0.1", server.port)
        loop_until(client, lambda: len(calls) == 2)
        (first, (_, reason, _)), (second, _) = calls
        assert (first, second) == ("on_connect", "on_disconnect")
        assert reason == "Not authorized"
        assert not client.is_connected()


def test_callbacks_may_be_methods_of_a_subclass(server: BrokerServer[ModelBroker]) -> None:
    done = threading.Event()

    class Program(mqtt.Client):
        def on_connect(self, client: Any, userdata: Any, *arguments: Any) -> None:
            assert client is self
            self.subscribe("a")

        def on_subscribe(self, client: Any, userdata: Any, *arguments: Any) -> None:
            self.publish("a", "x")

        def on_message(self, client: Any, userdata: Any, message: Any) -> None:
            userdata.append(message.topic)
            done.set()

    seen: list[str] = []
    program = Program(V2, "c", userdata=seen)
    start(program, server)
    assert done.wait(SECONDS)
    program.disconnect()
    program.loop_stop()
    assert seen == ["a"]


def test_callbacks_may_be_set_by_decorators(clients: Clients) -> None:
    client = clients("c")
    for name in DECORATORS:

        def function(*_: object) -> None:
            pass

        assert getattr(client, f"{name}_callback")()(function) is function
        assert getattr(client, f"on_{name}") is function


@pytest.mark.parametrize("name", DECORATORS)
def test_help_says_what_a_callback_gets_and_how_it_is_set(name: str) -> None:
    text = pydoc.plain(pydoc.render_doc(mqtt.Client))
    described = text.partition(f"\n |  on_{name}\n")[2].partition("\n |\n")[0]
    assert "client, userdata" in described
    assert f"\n |  {name}_callback(self)" in text


def test_every_matching_filter_is_called_and_on_message_only_if_none_matches(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    client = clients("c")
    seen: list[tuple[str, str]] = []

    def noting(name: str) -> Any:
        return lambda client, userdata, message: seen.append((name, message.topic))

    client.on_message = noting("on_message")
    client.message_callback_add("a/#", noting("replaced"))
    client.message_callback_add("a/#", noting("a/#"))
    client.topic_callback("a/+")(noting("a/+"))
    client.message_callback_add("gone", noting("gone"))
    client.message_callback_remove("gone")
    start(client, server)
    client.subscribe("#", 1)
    for topic in ("a/b", "gone", "a/b/c"):
        client.publish(topic, "x", 1)
    eventually(lambda: len(seen) == 4)
    assert seen == [("a/#", "a/b"), ("a/+", "a/b"), ("on_message", "gone"), ("a/#", "a/b/c")]


def test_a_message_has_the_fields_of_paho_mqtt(clients: Clients) -> None:
    properties = {"content_type": "text/plain", "user_property": [("a", "b")]}
    message = Publish("a/b", b"x", qos=1, retain=True, packet_id=7, properties=properties)
    with scripted([expect("connect"), send(Connack(), message), ignore()], version="5.0") as server:
        seen: list[mqtt.MQTTMessage] = []
        client = clients("c", protocol=mqtt.MQTTv5)
        client.on_message = lambda c, d, message: seen.append(message)
        start(client, server)
        eventually(lambda: seen)
        got = seen[0]
        assert isinstance(got, mqtt.MQTTMessage)
        assert (got.topic, got.payload, got.qos, got.retain, got.dup, got.mid) == (
            "a/b",
            b"x",
            1,
            True,
            False,
            7,
        )
        assert got.timestamp > 0
        assert got.properties is not None
        assert (got.properties.ContentType, got.properties.UserProperty) == ("text/plain", [("a", "b")])
        assert (got.info.mid, got.info.rc) == (7, mqtt.MQTT_ERR_SUCCESS)
        assert got == mqtt.MQTTMessage(7)
        with pytest.raises(AttributeError, match="no attribute"):
            got.anything  # noqa: B018


def test_suppressed_exceptions_are_logged_and_go_no_further(clients: Clients) -> None:
    script = [expect("connect"), send(Connack(), Publish("a", b"1"), Publish("a", b"2")), ignore()]
    with scripted(script) as server:
        texts: list[str] = []
        seen: list[bytes] = []

        def on_message(client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
            seen.append(bytes(message.payload))
            raise LookupError("from the program")

        client = clients("c")
        client.suppress_exceptions = True
        client.on_message = on_message
        client.on_log = lambda c, d, level, text: texts.append(text) if level == mqtt.MQTT_LOG_ERR else None
        client.connect("127.0.0.1", server.port)
        loop_until(client, lambda: seen == [b"1", b"2"])
        assert texts == ["Caught exception in on_message: from the program"] * 2


def test_on_log_and_the_logger_get_every_log_message(
    clients: Clients, server: BrokerServer[ModelBroker], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []
    client = clients("c")
    client.on_log = lambda c, d, level, text: texts.append(text)
    client.enable_logger()
    start(client, server, keepalive=1)
    client.subscribe("a", 2)
    client.publish("a", "x", 2)
    client.publish("b", "y", 1).wait_for_publish(SECONDS)
    eventually(lambda: any("PINGRESP" in text for text in texts))
    client.disconnect()
    client.loop_stop()
    assert [word for word in LOGGED if not any(text.startswith(word) for text in texts)] == []
    logged = [record.getMessage() for record in caplog.records if record.name == "device_sdk.paho.client"]
    assert sorted(logged) == sorted(texts)  # two threads log, each to one after the other
    client.disable_logger()
    assert client.logger is None


def test_packets_are_logged_as_soon_as_on_log_is_set(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    client = start(clients("c"), server)
    client.publish("a", "x", 1).wait_for_publish(SECONDS)
    texts: list[str] = []
    client.on_log = lambda c, d, level, text: texts.append(text)
    client.publish("a", "y", 1).wait_for_publish(SECONDS)
    eventually(lambda: "Received PUBACK (Mid: 2)" in texts)


def test_what_on_log_raises_is_nobodys_business(clients: Clients, server: BrokerServer[ModelBroker]) -> None:
    def on_log(*_: object) -> None:
        raise LookupError

    client = clients("c")
    client.on_log = on_log
    start(client, server)
    client.publish("a", "x", 1).wait_for_publish(SECONDS)


def test_on_publish_of_qos_0_comes_when_the_message_has_left(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    told: list[int] = []
    client = start(clients("c"), server)
    client.on_publish = lambda c, d, mid, reason, properties: told.append(mid)
    infos = [client.publish("a", "x") for _ in range(50)]
    infos[-1].wait_for_publish(SECONDS)
    eventually(lambda: len(told) == 50)
    assert told == [info.mid for info in infos]


def test_publishing_in_a_callback_and_from_other_threads_at_once(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    client = clients("c")
    told: list[int] = []
    client.on_publish = lambda c, d, mid, reason, properties: told.append(mid)
    client.on_message = lambda c, d, message: client.publish("answer", message.payload, 1)
    start(client, server)
    client.subscribe("question", 1)

    def publish() -> None:
        for number in range(200):
            client.publish("question", str(number), number % 3)

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    eventually(lambda: len(told) == 1600)
    topics = server.call(lambda: [entry.topic for entry in server.broker.journal])
    assert topics.count("answer") == 800


def test_manual_acknowledgement_waits_for_the_program(clients: Clients) -> None:
    messages = send(Connack(), Publish("a", b"1", qos=1, packet_id=7), Publish("a", b"2", qos=2, packet_id=8))
    first = [expect("connect"), messages, expect("pubrec", packet_id=8), send(Pubrel(8))]
    with scripted(
        [*first, expect("puback", packet_id=7), expect("pubcomp", packet_id=8), ignore()]
    ) as server:
        seen: list[mqtt.MQTTMessage] = []
        client = clients("c", manual_ack=True)
        client.on_message = lambda c, d, message: seen.append(message)
        client.connect("127.0.0.1", server.port)
        loop_until(client, lambda: len(seen) == 2)
        client.loop(0.05)
        assert [packet.type for packet in server.broker.received] == ["connect", "pubrec"]
        for message in seen:
            assert client.ack(message.mid, message.qos) == mqtt.MQTT_ERR_SUCCESS
        loop_until(client, lambda: server.broker.done)
        assert client.ack(99, 1) == mqtt.MQTT_ERR_SUCCESS


def test_a_message_of_qos_2_is_answered_at_once_and_comes_at_pubrel(clients: Clients) -> None:
    script = [expect("connect"), send(Connack(), Publish("a", b"x", qos=2, packet_id=7))]
    script += [expect("pubrec", packet_id=7), send(Pubrel(7)), expect("pubcomp", packet_id=7), ignore()]
    with scripted(script) as server:
        seen: list[list[str]] = []
        client = clients("c")
        client.on_message = lambda *_: seen.append([packet.type for packet in server.broker.received])
        client.connect("127.0.0.1", server.port)
        loop_until(client, lambda: server.broker.done)
        assert seen == [["connect", "pubrec"]]


@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_at_which_the_program_disconnects_is_acknowledged_first(clients: Clients, qos: int) -> None:
    script = [expect("connect"), send(Connack(), Publish("a", b"x", qos=qos, packet_id=7))]
    script += [expect("puback")] if qos == 1 else [expect("pubrec"), send(Pubrel(7)), expect("pubcomp")]
    with scripted([*script, expect("disconnect")]) as server:
        client = clients("c")
        client.on_message = lambda client, userdata, message: client.disconnect()
        client.connect("127.0.0.1", server.port)
        client.loop_forever()
        server.wait_for(lambda: server.broker.done, SECONDS)
