"""device_sdk.paho.publish: one call connects, publishes and disconnects."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from device_sdk.mqtt.packets import Connack, Puback, Publish
from device_sdk.paho import MQTTException, _oneshot, publish
from device_sdk.paho.client import MQTTv5
from device_sdk.testing import BrokerServer, ModelBroker, ScriptedBroker
from device_sdk.testing.scripted_broker import close, expect, send


@pytest.fixture
def broker() -> Iterator[BrokerServer[ModelBroker]]:
    with BrokerServer(ModelBroker()) as server:
        yield server


def journal(broker: BrokerServer[ModelBroker]) -> list[tuple[str, bytes, int, bool]]:
    def entries() -> list[tuple[str, bytes, int, bool]]:
        return [(entry.topic, entry.payload, entry.qos, entry.retain) for entry in broker.broker.journal]

    return broker.call(entries)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_single_publishes_one_message_and_returns_when_it_is_delivered(
    broker: BrokerServer[ModelBroker], qos: int
) -> None:
    publish.single("a/b", "payload", qos, True, "127.0.0.1", broker.port)
    broker.wait_for(lambda: not broker.broker.links, timeout=5)
    assert journal(broker) == [("a/b", b"payload", qos, True)]
    assert not broker.broker.violations


def test_multiple_publishes_dicts_tuples_and_lists_in_order(broker: BrokerServer[ModelBroker]) -> None:
    messages: list[Any] = [
        {"topic": "a", "payload": "1", "qos": 1, "retain": True},
        ("b", b"2", 2, False),
        ["c", 3],
        {"topic": "d"},
        ("e",),
    ]
    publish.multiple(messages, hostname="127.0.0.1", port=broker.port)
    broker.wait_for(lambda: len(broker.broker.journal) == 5, timeout=5)
    assert journal(broker) == [
        ("a", b"1", 1, True),
        ("b", b"2", 2, False),
        ("c", b"3", 0, False),
        ("d", b"", 0, False),
        ("e", b"", 0, False),
    ]
    assert len(messages) == 5


def test_mqtt_5_is_spoken_when_asked_for(broker: BrokerServer[ModelBroker]) -> None:
    publish.single("a", "1", qos=1, hostname="127.0.0.1", port=broker.port, protocol=MQTTv5)
    broker.wait_for(lambda: not broker.broker.links, timeout=5)
    assert journal(broker) == [("a", b"1", 1, False)]


def test_will_authentication_and_client_id_reach_the_broker() -> None:
    connect = expect(
        "connect",
        client_id="node",
        user_name="user",
        password=b"secret",
        keep_alive=17,
        will=lambda will: (will.topic, will.payload, will.qos, will.retain) == ("state", b"gone", 1, True),
    )
    script = [connect, send(Connack()), expect("publish", topic="a"), expect("disconnect")]
    with BrokerServer(ScriptedBroker(script, version="3.1.1")) as server:
        publish.single(
            "a",
            hostname="127.0.0.1",
            port=server.port,
            client_id="node",
            keepalive=17,
            will={"topic": "state", "payload": "gone", "qos": 1, "retain": True},
            auth={"username": "user", "password": "secret"},
        )
        server.wait_for(lambda: server.broker.done, timeout=5)
    server.broker.check()


def test_a_message_whose_connection_was_lost_is_sent_again_on_the_next() -> None:
    first = [expect("connect"), send(Connack()), expect("publish", dup=False), close()]
    again = expect(Publish("a", b"1", qos=1, dup=True, packet_id=1))
    second = [expect("connect"), send(Connack()), again, send(Puback(1)), expect("disconnect")]
    with BrokerServer(ScriptedBroker(first, second, version="3.1.1")) as server:
        publish.single("a", "1", qos=1, hostname="127.0.0.1", port=server.port)
        server.wait_for(lambda: server.broker.done, timeout=5)
    server.broker.check()


def test_a_refused_connection_is_an_exception_with_the_reason() -> None:
    script = [expect("connect"), send(Connack(reason_code=5)), close()]
    with (
        BrokerServer(ScriptedBroker(script, version="3.1.1")) as server,
        pytest.raises(MQTTException, match="Not authorized"),
    ):
        publish.single("a", hostname="127.0.0.1", port=server.port)


def test_a_wrong_message_ends_the_call_with_its_error(broker: BrokerServer[ModelBroker]) -> None:
    with pytest.raises(ValueError, match="wildcard"):
        publish.multiple([("a", "1"), ("a/#", "2")], hostname="127.0.0.1", port=broker.port)
    broker.wait_for(lambda: not broker.broker.links, timeout=5)
    assert journal(broker) == [("a", b"1", 0, False)]


def test_a_message_that_is_no_dict_and_no_tuple_is_a_type_error(broker: BrokerServer[ModelBroker]) -> None:
    with pytest.raises(TypeError, match="a message must be a dict or a tuple, not str"):
        publish.multiple(["a"], hostname="127.0.0.1", port=broker.port)  # type: ignore[list-item]


def test_messages_that_are_not_iterable_are_a_type_error() -> None:
    with pytest.raises(TypeError, match="not int"):
        publish.multiple(7)  # type: ignore[arg-type]  # that is the point


def test_no_messages_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="empty"):
        publish.multiple([])


def test_authentication_without_a_user_name_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="username"):
        publish.single("a", auth={"password": "secret"})


class Recorder:
    """Stands in for the client; keeps what was set."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.calls: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **keywords: self.calls.append((name, arguments or keywords))


def configured(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> list[tuple[str, Any]]:
    monkeypatch.setattr("device_sdk.paho.client.Client", Recorder)
    task = _oneshot.Task()
    task.configure(**{"will": None, "auth": None, "tls": None, "proxy_args": None, **settings})
    recorder: Any = task.client
    calls: list[tuple[str, Any]] = recorder.calls
    return calls[1:]


def test_a_tls_dict_sets_tls_and_then_takes_any_host_name(monkeypatch: pytest.MonkeyPatch) -> None:
    tls = {"ca_certs": "ca.pem", "insecure": True}
    assert configured(monkeypatch, tls=tls) == [
        ("tls_set", {"ca_certs": "ca.pem"}),
        ("tls_insecure_set", (True,)),
    ]
    assert tls == {"ca_certs": "ca.pem", "insecure": True}


def test_a_tls_context_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.create_default_context()
    assert configured(monkeypatch, tls=context) == [("tls_set_context", (context,))]


def test_proxy_arguments_are_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert configured(monkeypatch, proxy_args={"proxy_addr": "proxy"}) == [
        ("proxy_set", {"proxy_addr": "proxy"})
    ]
