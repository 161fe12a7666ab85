"""What the two READMEs of paho-mqtt promise beyond their programs, on the wire."""

from __future__ import annotations

from typing import Any

import pytest

import device_sdk.paho.client as mqtt
from device_sdk.mqtt.packets import Connack, Puback, Pubcomp, Pubrec
from device_sdk.testing import BrokerServer, ModelBroker
from device_sdk.testing.scripted_broker import close, expect, ignore, send
from tests.paho.conftest import SECONDS, Clients, loop_until, scripted, start
from tests.steps import eventually


@pytest.mark.parametrize(
    ("payload", "sent"),
    [
        ("text ö", "text ö".encode()),
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"array"), b"array"),
        (21, b"21"),
        (21.5, b"21.5"),
        (None, b""),
        ("", b""),
    ],
)
def test_payloads_are_converted(
    clients: Clients, server: BrokerServer[ModelBroker], payload: Any, sent: bytes
) -> None:
    client = start(clients("c"), server)
    client.publish("a", payload, 1).wait_for_publish(SECONDS)
    assert server.broker.payloads() == [sent]


def test_a_payload_of_another_type_is_a_type_error(clients: Clients) -> None:
    with pytest.raises(TypeError, match="payload must be"):
        clients("c").publish("a", object())


def test_on_publish_comes_with_puback_and_pubcomp_and_not_before(clients: Clients) -> None:
    told: list[int] = []
    script = [
        expect("connect"),
        send(Connack()),
        expect("publish", qos=2, packet_id=1),
        send(Pubrec(1)),
        expect("pubrel", packet_id=1),
        # The client has seen PUBREC; what it sends next shows that it has not called on_publish for it.
        expect("publish", topic="before"),
        send(Pubcomp(1)),
        expect("publish", qos=1, packet_id=3),
        send(Puback(3)),
        ignore(),
    ]
    with scripted(script) as server:
        client = clients("c")
        client.on_publish = lambda c, d, mid, reason, properties: told.append(mid)
        start(client, server)
        client.publish("a", "x", 2)
        server.wait_for(lambda: any(packet.type == "pubrel" for packet in server.broker.received), SECONDS)
        assert told == []
        client.publish("before")
        eventually(lambda: sorted(told) == [1, 2])
        client.publish("b", "x", 1)
        eventually(lambda: sorted(told) == [1, 2, 3])


def test_the_defaults_of_the_document_are_on_the_wire(clients: Clients) -> None:
    script = [
        expect("connect", keep_alive=60, clean_start=True),
        send(Connack()),
        *[expect("publish", packet_id=number) for number in range(1, 21)],
        send(Puback(1)),
        expect("publish", packet_id=21),
        ignore(),
    ]
    with scripted(script) as server:
        client = start(clients("c"), server)
        for number in range(21):
            client.publish("a", number, 1)
        server.wait_for(lambda: server.broker.done, SECONDS)


def test_the_delay_between_attempts_begins_anew_after_an_accepted_connection(clients: Clients) -> None:
    refused = [expect("connect"), close()]
    accepted = [expect("connect"), send(Connack()), close()]
    with scripted(refused, refused, refused, accepted, [expect("connect"), ignore()]) as server:
        delays: list[float | None] = []
        client = clients("c")
        client.reconnect_delay_set(0.01, 0.04)
        client.on_pre_connect = lambda *_: delays.append(client._back_off.delay)
        client.connect("127.0.0.1", server.port)
        client.loop_start()
        server.wait_for(lambda: server.broker.done, SECONDS)
        eventually(lambda: len(delays) == 5)
    assert delays == [None, 0.01, 0.02, 0.04, 0.01]


def test_connect_async_connects_when_the_loop_starts(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    client = clients("c")
    client.connect_async("127.0.0.1", server.port)
    assert client.socket() is None
    client.loop_start()
    eventually(client.is_connected)


def test_messages_of_before_a_disconnect_are_sent_by_the_next_connect(clients: Clients) -> None:
    first = [expect("connect", clean_start=True), send(Connack()), expect("publish", payload=b"x"), ignore()]
    second = [expect("connect", clean_start=True), send(Connack()), expect("publish", payload=b"x", dup=True)]
    with scripted(first, [*second, send(Puback(1)), ignore()]) as server:
        client = clients("c")
        client.connect("127.0.0.1", server.port)
        loop_until(client, client.is_connected)
        info = client.publish("a", "x", 1)
        client.disconnect()
        loop_until(client, lambda: client.socket() is None)
        client.connect("127.0.0.1", server.port)
        loop_until(client, info.is_published)


def test_user_data_may_be_replaced_at_any_time(clients: Clients, server: BrokerServer[ModelBroker]) -> None:
    seen: list[object] = []
    client = clients("c", userdata="first")
    client.on_connect = lambda c, data, *_: seen.append(data)
    client.on_publish = lambda c, data, *_: seen.append(data)
    start(client, server)
    eventually(lambda: seen)
    client.user_data_set("second")
    client.publish("a", "x", 1).wait_for_publish(SECONDS)
    assert seen == ["first", "second"]
    assert client.user_data_get() == "second"


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("publish", ("",)),
        ("publish", (None,)),
        ("publish", ("a/+",)),
        ("publish", ("a", "x", 3)),
        ("subscribe", ("",)),
        ("subscribe", (None,)),
        ("subscribe", ("a", 3)),
        ("subscribe", (7,)),
        ("subscribe", ([],)),
        ("unsubscribe", ("",)),
        ("unsubscribe", (7,)),
        ("will_set", ("",)),
        ("will_set", (None,)),
        ("will_set", ("a", "x", 3)),
    ],
)
def test_what_the_document_calls_a_value_error_is_one(
    clients: Clients, call: str, arguments: tuple[Any, ...]
) -> None:
    with pytest.raises(ValueError, match=r"."):
        getattr(clients("c"), call)(*arguments)


def test_a_full_queue_is_said_by_the_info(clients: Clients) -> None:
    client = clients("c").max_queued_messages_set(1)
    client.publish("a", "x", 1)
    info = client.publish("a", "y", 1)
    assert info.rc == mqtt.MQTT_ERR_QUEUE_SIZE
    for question in (info.wait_for_publish, info.is_published):
        with pytest.raises(ValueError, match="not queued"):
            question()


def test_a_message_without_a_connection_raises_until_there_is_one(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    client = clients("c")
    info = client.publish("a", "x", 1)
    for question in (info.wait_for_publish, info.is_published):
        with pytest.raises(RuntimeError, match="not currently connected"):
            question()
    start(client, server)
    info.wait_for_publish(SECONDS)
    assert info.is_published()
