"""What paho-mqtt 2.2.0 gets wrong, a test each: here it works, and programs written for it do not notice."""

from __future__ import annotations

import gc
import os
import resource
import socket
import threading
import time
from typing import Any

import pytest

import device_sdk.paho.client as mqtt
from device_sdk.mqtt.message import Message
from device_sdk.mqtt.packets import Connack, Disconnect, Puback, Publish, Pubrec, Pubrel
from device_sdk.paho.packettypes import PacketTypes
from device_sdk.paho.properties import Properties
from device_sdk.testing import BrokerServer, ModelBroker
from device_sdk.testing.scripted_broker import close, expect, expect_close, ignore, send, silence
from tests.paho.conftest import SECONDS, Clients, loop_threads, loop_until, scripted, start
from tests.steps import eventually


def received(packet_id: int, topic: str = "a", payload: bytes = b"x", qos: int = 1) -> Publish:
    return Publish(topic, payload, qos=qos, packet_id=packet_id)


def test_loop_stop_ends_although_a_message_is_not_acknowledged(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_sdk.paho._loop._STOP_SECONDS", 0.2)
    with scripted([expect("connect"), send(Connack()), expect("publish"), ignore()]) as server:
        client = start(clients("c"), server)
        client.publish("a", "b", 1)
        began = time.monotonic()
        assert client.loop_stop() == mqtt.MQTT_ERR_SUCCESS
        assert time.monotonic() - began < 5
        assert loop_threads("c") == []


def test_loop_stop_waits_for_an_acknowledgement_that_comes(clients: Clients) -> None:
    with scripted([expect("connect"), send(Connack()), expect("publish"), silence(0.2),
                   send(Puback(1)), ignore()]) as server:  # fmt: skip
        client = start(clients("c"), server)
        info = client.publish("a", "b", 1)
        client.loop_stop()
        assert info.is_published()


def test_loop_forever_runs_again_after_loop_stop(clients: Clients, server: BrokerServer[ModelBroker]) -> None:
    client = start(clients("c"), server)
    client.loop_stop()
    client.on_publish = lambda *_: client.disconnect()
    client.publish("a", "b", 1)
    client.loop_forever()
    assert not client.is_connected()


def test_a_reconnect_repeats_no_more_than_the_window_holds(clients: Clients) -> None:
    def published(number: int) -> Any:
        return expect("publish", payload=b"%d" % number)

    first = [expect("connect"), send(Connack()), published(0), published(1), close()]
    repeated = [expect("publish", payload=b"%d" % number, dup=True) for number in (0, 1)]
    second = [expect("connect"), send(Connack()), *repeated, silence(0.2), send(Puback(1)), published(2)]
    with scripted(first, [*second, ignore()]) as server:
        client = clients("c", clean_session=False)
        client.max_inflight_messages_set(2)
        client.reconnect_delay_set(0.01)
        start(client, server)
        for number in range(4):
            client.publish("a", str(number), 1)
        server.wait_for(lambda: server.broker.done, SECONDS)


def test_the_thread_goes_on_after_a_callback_has_raised(
    clients: Clients, server: BrokerServer[ModelBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    seen: list[bytes] = []

    def on_message(client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
        seen.append(bytes(message.payload))
        raise LookupError("from the program")

    client = start(clients("c"), server)
    client.on_message = on_message
    client.subscribe("a", 1)
    for text in ("1", "2"):
        client.publish("a", text, 1)
    eventually(lambda: seen == [b"1", b"2"])
    assert client.is_connected()
    eventually(lambda: len(reported) == 2)
    assert [report.exc_type for report in reported] == [LookupError, LookupError]


def test_what_a_callback_raises_comes_out_of_loop_and_nothing_is_lost(clients: Clients) -> None:
    script = [expect("connect"), send(Connack(), received(7), received(8)), expect("puback", packet_id=7)]
    with scripted([*script, expect("puback", packet_id=8), ignore()]) as server:
        client = clients("c")
        seen: list[int] = []

        def on_message(client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
            seen.append(message.mid)
            if message.mid == 7:
                raise LookupError("from the program")

        client.on_message = on_message
        client.connect("127.0.0.1", server.port)
        with pytest.raises(LookupError, match="from the program"):
            loop_until(client, lambda: False)
        loop_until(client, lambda: seen == [7, 8])
        loop_until(client, lambda: server.broker.done)


def test_is_published_is_true_after_delivery_of_a_message_queued_offline(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    client = clients("c")
    info = client.publish("a", "b", 1)
    assert info.rc == mqtt.MQTT_ERR_NO_CONN
    with pytest.raises(RuntimeError, match="not currently connected"):
        info.is_published()
    start(client, server)
    eventually(lambda: info.rc == mqtt.MQTT_ERR_SUCCESS)
    info.wait_for_publish(SECONDS)
    assert info.is_published()


def test_wait_for_publish_in_a_callback_raises(clients: Clients, server: BrokerServer[ModelBroker]) -> None:
    raised: list[Exception] = []

    def on_message(client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
        try:
            client.publish("answer", "b", 1).wait_for_publish()
        except RuntimeError as error:
            raised.append(error)

    client = clients("c")
    client.on_message = on_message
    start(client, server)
    client.subscribe("a")
    client.publish("a", "b").wait_for_publish(SECONDS)
    eventually(lambda: raised)
    assert "would wait for itself" in str(raised[0])


def test_more_than_65535_messages_may_wait(clients: Clients) -> None:
    client = clients("c")
    infos = [client.publish("a", b"", 1) for _ in range(70_000)]
    assert {info.rc for info in infos} == {mqtt.MQTT_ERR_NO_CONN}
    assert all(1 <= info.mid <= 65_535 for info in infos)
    assert len(client.drop_out_messages()) == 70_000


def limited(properties: dict[str, int]) -> list[Any]:
    return [expect("connect"), send(Connack(properties=properties))]


def test_the_servers_receive_maximum_is_honoured(clients: Clients) -> None:
    first_two = [expect("publish", packet_id=1), expect("publish", packet_id=2), silence(0.2)]
    script = [*limited({"receive_maximum": 2}), *first_two, send(Puback(1)), expect("publish"), ignore()]
    with scripted(script, version="5.0") as server:
        client = start(clients("c", protocol=mqtt.MQTTv5), server)
        for _ in range(4):
            assert client.publish("a", "b", 1).rc == mqtt.MQTT_ERR_SUCCESS
        server.wait_for(lambda: server.broker.done, SECONDS)


@pytest.mark.parametrize(
    ("limit", "arguments", "rc"),
    [
        ({"maximum_packet_size": 64}, ("a", b"x" * 100, 1), mqtt.MQTT_ERR_PAYLOAD_SIZE),
        ({"maximum_packet_size": 64}, ("a", b"x" * 100, 0), mqtt.MQTT_ERR_PAYLOAD_SIZE),
        ({"maximum_qos": 0}, ("a", b"x", 1), mqtt.MQTT_ERR_NOT_SUPPORTED),
        ({"retain_available": 0}, ("a", b"x", 0, True), mqtt.MQTT_ERR_NOT_SUPPORTED),
    ],
)
def test_what_the_server_does_not_take_is_not_sent(
    clients: Clients, limit: dict[str, int], arguments: Any, rc: int
) -> None:
    with scripted([*limited(limit), silence(0.1), ignore()], version="5.0") as server:
        client = start(clients("c", protocol=mqtt.MQTTv5), server)
        info = client.publish(*arguments)
        assert info.rc == rc
        with pytest.raises(RuntimeError):
            info.wait_for_publish(1)


def test_a_pubrec_that_refuses_is_reported_and_ends_the_exchange(clients: Clients) -> None:
    script = [*limited({}), expect("publish"), send(Pubrec(1, 0x97)), silence(0.1), ignore()]
    with scripted(script, version="5.0") as server:
        told: list[Any] = []
        client = clients("c", protocol=mqtt.MQTTv5)
        client.on_publish = lambda *arguments: told.append(arguments[2:])
        start(client, server)
        info = client.publish("a", "b", 2)
        info.wait_for_publish(SECONDS)
        eventually(lambda: told)
        mid, reason, properties = told[0]
        assert (mid, reason, reason.is_failure) == (info.mid, "Quota exceeded", True)
        assert properties.isEmpty()


def test_incoming_topic_aliases_are_resolved(clients: Clients) -> None:
    def aliased(topic: str, payload: bytes) -> Publish:
        return Publish(topic, payload, properties={"topic_alias": 1})

    script = [expect("connect", topic_alias_maximum=5), send(Connack())]
    with scripted(
        [*script, send(aliased("a/b", b"1"), aliased("", b"2")), ignore()], version="5.0"
    ) as server:
        seen: list[tuple[str, bytes]] = []
        client = clients("c", protocol=mqtt.MQTTv5)
        client.on_message = lambda c, d, message: seen.append((message.topic, bytes(message.payload)))
        properties = Properties(PacketTypes.CONNECT)
        properties.TopicAliasMaximum = 5
        start(client, server, properties=properties)
        eventually(lambda: seen == [("a/b", b"1"), ("a/b", b"2")])


def test_a_topic_alias_of_the_program_is_resolved_so_that_a_repeat_can_be_understood(
    clients: Clients,
) -> None:
    first = [*limited({"topic_alias_maximum": 5}), expect("publish", topic="a/b"), send(Puback(1))]
    second = [expect("connect"), send(Connack(True)), expect("publish", topic="a/b", dup=True), ignore()]
    with scripted([*first, expect("publish", topic="a/b"), close()], second, version="5.0") as server:
        client = clients("c", protocol=mqtt.MQTTv5)
        client.reconnect_delay_set(0.01)
        start(client, server)
        properties = Properties(PacketTypes.PUBLISH)
        properties.TopicAlias = 1
        client.publish("a/b", "1", 1, properties=properties).wait_for_publish(SECONDS)
        client.publish("", "2", 1, properties=properties)
        server.wait_for(lambda: server.broker.done, SECONDS)


def test_reconnect_in_on_message_returns(clients: Clients) -> None:
    again = [expect("connect"), send(Connack()), ignore()]
    with scripted([expect("connect"), send(Connack(), received(7, qos=1)), ignore()], again) as server:
        answers: list[int] = []
        client = clients("c")
        client.on_message = lambda *_: answers.append(client.reconnect())
        client.connect("127.0.0.1", server.port)
        client.loop_start()
        eventually(lambda: answers == [mqtt.MQTT_ERR_SUCCESS])
        eventually(client.is_connected)


def test_callbacks_of_shared_filters_get_their_messages(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    assert mqtt.topic_matches_sub("$share/group/a/#", "a/b")
    seen: list[str] = []
    client = start(clients("c", protocol=mqtt.MQTTv5), server)
    client.message_callback_add("$share/group/a/#", lambda c, d, message: seen.append(message.topic))
    client.subscribe("$share/group/a/#")
    client.publish("a/b", "x", 1)
    eventually(lambda: seen == ["a/b"])


def test_a_slow_callback_does_not_block_publishers(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    entered, leave = threading.Event(), threading.Event()

    def on_publish(*_: object) -> None:
        entered.set()
        leave.wait(SECONDS)

    client = start(clients("c"), server)
    client.on_publish = on_publish
    client.publish("a", "1", 1)
    assert entered.wait(SECONDS)
    began = time.monotonic()
    infos = [client.publish("a", "2", 1) for _ in range(100)]
    assert time.monotonic() - began < 1
    leave.set()
    infos[-1].wait_for_publish(SECONDS)


def test_packets_leave_without_nagles_delay(clients: Clients, server: BrokerServer[ModelBroker]) -> None:
    client = start(clients("c"), server)
    assert client.socket().getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("topic", ["a\0b", "a\ud800"])
def test_topics_that_mqtt_forbids_are_refused(clients: Clients, topic: str) -> None:
    client = clients("c")
    with pytest.raises(ValueError):
        client.publish(topic, "x")
    with pytest.raises(ValueError):
        client.subscribe(topic)


def test_descriptors_above_1023_work(clients: Clients, server: BrokerServer[ModelBroker]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1200:
        pytest.skip("needs 1200 file descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    null = os.open(os.devnull, os.O_RDONLY)
    taken = [null]
    try:
        while taken[-1] < 1030:
            taken.append(os.dup(null))
        client = start(clients("c"), server)
        assert client.socket().fileno() > 1023
        client.publish("a", "b", 1).wait_for_publish(SECONDS)
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_will_clear_forgets_the_properties_too(clients: Clients) -> None:
    client = clients("c", protocol=mqtt.MQTTv5)
    properties = Properties(PacketTypes.WILLMESSAGE)
    properties.ContentType = "text/plain"
    client.will_set("gone", "x", properties=properties)
    client.will_clear()
    client.will_set("gone", "x")
    plain = expect("connect", will=lambda will: will.payload == b"x" and will.properties == {})
    with scripted([plain, ignore()], version="5.0") as server:
        client.connect("127.0.0.1", server.port)


def test_an_assigned_client_identifier_is_kept_for_the_next_connection(clients: Clients) -> None:
    assigned = Connack(properties={"assigned_client_identifier": "from-the-broker"})
    first = [expect("connect", client_id=""), send(assigned), close()]
    second = [expect("connect", client_id="from-the-broker"), send(Connack()), ignore()]
    with scripted(first, second, version="5.0") as server:
        client = clients(protocol=mqtt.MQTTv5)
        client.reconnect_delay_set(0.01)
        client.connect("127.0.0.1", server.port)
        client.loop_start()
        server.wait_for(lambda: server.broker.done, SECONDS)


def test_a_qos_2_message_past_pubrec_is_not_lost_with_a_clean_session(clients: Clients) -> None:
    first = [
        expect("connect"),
        send(Connack()),
        expect("publish"),
        send(Pubrec(1)),
        expect("pubrel"),
        close(),
    ]
    second = [expect("connect"), send(Connack()), expect("publish", payload=b"b", qos=2), ignore()]
    with scripted(first, second) as server:
        client = clients("c")
        client.reconnect_delay_set(0.01)
        start(client, server)
        client.publish("a", "b", 2)
        server.wait_for(lambda: server.broker.done, SECONDS)


def test_disconnect_sends_what_was_published_before(clients: Clients) -> None:
    script = [
        expect("connect"),
        send(Connack()),
        *[expect("publish")] * 100,
        expect(Disconnect()),
        expect_close(),
    ]
    with scripted(script) as server:
        client = start(clients("c"), server)
        for _ in range(100):
            client.publish("a", "b")
        client.disconnect()
        client.loop_stop()


def test_messages_that_a_program_has_not_acknowledged_are_kept_without_their_payload(
    clients: Clients,
) -> None:
    packets = [received(number, payload=bytes(1_000), qos=1 + number % 2) for number in range(1, 41)]
    releases = [Pubrel(number) for number in range(1, 41, 2)]
    with scripted([expect("connect"), send(Connack(), *packets, *releases), ignore()]) as server:
        client = clients("c", manual_ack=True)
        mids: list[int] = []
        client.on_message = lambda c, d, message: mids.append(message.mid)
        start(client, server)
        eventually(lambda: len(mids) == 40)
        client.loop_stop()
        gc.collect()
        kept = [one for one in gc.get_objects() if type(one) is Message and len(one.payload) == 1_000]
        assert kept == []
        assert client.ack(1, 2) == mqtt.MQTT_ERR_SUCCESS
