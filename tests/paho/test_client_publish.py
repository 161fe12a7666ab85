"""Publishing and subscribing with the façade, and the store that paho-mqtt has not."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

import device_sdk.paho.client as mqtt
from device_sdk.mqtt.packets import Connack, Puback, Pubcomp, Pubrec, Suback
from device_sdk.paho.packettypes import PacketTypes
from device_sdk.paho.properties import Properties
from device_sdk.paho.subscribeoptions import SubscribeOptions
from device_sdk.store.memory import MemoryStore
from device_sdk.testing import BrokerServer, ModelBroker
from device_sdk.testing.scripted_broker import close, expect, ignore, send
from tests.paho.conftest import SECONDS, Clients, scripted, start
from tests.steps import eventually

OPTIONS = SubscribeOptions(2, noLocal=True, retainAsPublished=True, retainHandling=2)


def test_mids_count_everything_from_one(clients: Clients, server: BrokerServer[ModelBroker]) -> None:
    client = start(clients("c"), server)
    mids = [client.publish("a", "x", qos).mid for qos in (0, 1, 2)]
    mids.append(client.subscribe("a")[1] or 0)
    mids.append(client.unsubscribe("a")[1] or 0)
    assert mids == [1, 2, 3, 4, 5]


def test_the_mid_of_a_message_that_leaves_at_once_is_its_packet_identifier(clients: Clients) -> None:
    script = [expect("connect"), send(Connack()), expect("publish", packet_id=1), send(Puback(1))]
    script += [expect("publish", packet_id=None), expect("publish", packet_id=3)]
    with scripted([*script, ignore()]) as server:
        client = start(clients("c"), server)
        assert client.publish("a", "x", 1).mid == 1
        assert client.publish("a", "x", 0).mid == 2
        assert client.publish("a", "x", 2).mid == 3
        server.wait_for(lambda: server.broker.done, SECONDS)


def test_subscribe_options_are_sent(clients: Clients) -> None:
    def same(subscriptions: list[Any]) -> bool:
        one = subscriptions[0]
        found = (one.qos, one.no_local, one.retain_as_published, one.retain_handling)
        return bool(found == (2, True, True, 2))

    script = [expect("connect"), send(Connack()), expect("subscribe", subscriptions=same), ignore()]
    with scripted(script, version="5.0") as server:
        start(clients("c", protocol=mqtt.MQTTv5), server).subscribe("a", options=OPTIONS)


def test_on_publish_gets_the_mid_that_publish_gave_also_for_queued_messages(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    client = clients("c")
    client.max_inflight_messages_set(2)
    told: list[int] = []
    client.on_publish = lambda c, d, mid, reason, properties: told.append(mid)
    infos = [client.publish("a", str(number), 1) for number in range(10)]
    start(client, server)
    infos += [client.publish("a", str(number), 1) for number in range(10, 50)]
    for info in infos:
        info.wait_for_publish(SECONDS)
    eventually(lambda: len(told) == 50)
    assert told == [info.mid for info in infos]
    assert len(set(told)) == 50
    assert server.call(lambda: [entry.payload for entry in server.broker.journal]) == [
        b"%d" % n for n in range(50)
    ]


@pytest.mark.parametrize("name", ["paho.mqtt.client", "device_sdk.paho.client"])
def test_on_publish_gets_what_the_last_acknowledgement_says(name: str) -> None:
    module: Any = pytest.importorskip(name, reason="needs paho-mqtt")
    words = {"reason_string": "nobody listens", "user_property": [["node", "a"]]}
    script: list[Any] = [expect("connect"), send(Connack())]
    for answers in (
        [Puback(1)],
        [Puback(2, 0x10)],
        [Puback(3, 0x10, words)],
        [Puback(4, 0x97, words)],
        [Pubrec(5, 0x10, words), Pubcomp(5)],
        [Pubrec(6), Pubcomp(6, 0x92, words)],
    ):
        script += [expect("publish"), send(answers[0])]
        for answer in answers[1:]:
            script += [expect("pubrel"), send(answer)]
    told: list[tuple[Any, ...]] = []

    def on_publish(_client: Any, _data: Any, mid: int, reason: Any, properties: Any) -> None:
        words = getattr(properties, "ReasonString", None), getattr(properties, "UserProperty", None)
        told.append((mid, reason.packetType, reason.value, reason.is_failure, *words))

    with scripted([*script, ignore()], version="5.0") as server:
        client = module.Client(module.CallbackAPIVersion.VERSION2, "c", protocol=module.MQTTv5)
        client.on_publish = on_publish
        client.connect("127.0.0.1", server.port)
        client.loop_start()
        try:
            for qos in (1, 1, 1, 1, 2, 2):
                client.publish("a", "x", qos).wait_for_publish(SECONDS)
        finally:
            client.disconnect()
            client.loop_stop()
    with_words = ("nobody listens", [("node", "a")])
    puback, pubcomp = PacketTypes.PUBACK, PacketTypes.PUBCOMP
    assert told == [
        (1, puback, 0x00, False, None, None),
        (2, puback, 0x10, False, None, None),
        (3, puback, 0x10, False, *with_words),
        (4, puback, 0x97, True, *with_words),
        (5, pubcomp, 0x00, False, None, None),
        (6, pubcomp, 0x92, True, *with_words),
    ]


def test_an_info_is_a_pair(clients: Clients) -> None:
    info = clients("c").publish("a", "x", 1)
    rc, mid = info
    assert (rc, mid) == (info[0], info[1]) == (mqtt.MQTT_ERR_NO_CONN, 1)
    assert str(info) == str((info.rc, info.mid))
    with pytest.raises(IndexError):
        info[2]


def test_qos_0_without_a_connection_is_dropped(clients: Clients, server: BrokerServer[ModelBroker]) -> None:
    client = clients("c")
    info = client.publish("a", "x")
    assert info.rc == mqtt.MQTT_ERR_NO_CONN
    start(client, server)
    client.publish("b", "y", 1).wait_for_publish(SECONDS)
    assert server.call(lambda: [entry.topic for entry in server.broker.journal]) == ["b"]
    with pytest.raises(RuntimeError):
        info.wait_for_publish(1)


def test_qos_0_that_has_not_left_with_its_connection_is_lost(clients: Clients) -> None:
    with scripted([ignore()], [ignore()]) as server:
        client = clients("c")
        client.on_socket_register_write = lambda *_: None  # so that nothing leaves
        client.connect("127.0.0.1", server.port)
        info = client.publish("a", "x")
        assert info.rc == mqtt.MQTT_ERR_SUCCESS
        client.reconnect()
        assert info.rc == mqtt.MQTT_ERR_CONN_LOST
        with pytest.raises(RuntimeError, match="connection was lost"):
            info.wait_for_publish(1)


def test_a_bounded_queue_refuses_the_newest_message(clients: Clients) -> None:
    client = clients("c")
    assert client.max_queued_messages_set(2) is client
    codes = [client.publish("a", "x", 1).rc for _ in range(3)]
    assert codes == [mqtt.MQTT_ERR_NO_CONN, mqtt.MQTT_ERR_NO_CONN, mqtt.MQTT_ERR_QUEUE_SIZE]
    info = client.publish("a", "x", 1)
    with pytest.raises(ValueError, match="ERR_QUEUE_SIZE"):
        info.is_published()


def test_wait_for_publish_returns_when_its_time_is_over(clients: Clients) -> None:
    with scripted([expect("connect"), send(Connack()), expect("publish"), ignore()]) as server:
        info = start(clients("c"), server).publish("a", "x", 1)
        info.wait_for_publish(0.05)
        assert not info.is_published()


def test_properties_are_sent_as_they_are(clients: Clients) -> None:
    fields = {"content_type": "text/plain", "user_property": [["a", "b"]], "message_expiry_interval": 5}
    script = [
        expect("connect"),
        send(Connack()),
        expect("publish", **fields),
        expect("subscribe", subscription_identifier=3),
    ]
    with scripted([*script, ignore()], version="5.0") as server:
        client = start(clients("c", protocol=mqtt.MQTTv5), server)
        properties = Properties(PacketTypes.PUBLISH)
        properties.ContentType = "text/plain"
        properties.UserProperty = ("a", "b")
        properties.MessageExpiryInterval = 5
        client.publish("a", "x", properties=properties)
        identifier = Properties(PacketTypes.SUBSCRIBE)
        identifier.SubscriptionIdentifier = 3
        client.subscribe("a", properties=identifier)
        server.wait_for(lambda: server.broker.done, SECONDS)


@pytest.mark.parametrize(
    ("arguments", "version", "wanted"),
    [
        (("a",), 4, [("a", 0)]),
        (("a", 1), 4, [("a", 1)]),
        ((("a", 2),), 4, [("a", 2)]),
        (([("a", 0), ("b", 2)],), 4, [("a", 0), ("b", 2)]),
        (("a", 1), 5, [("a", 1)]),
        ((("a", OPTIONS),), 5, [("a", 2)]),
        (([("a", OPTIONS), ("b", 1)],), 5, [("a", 2), ("b", 1)]),
        (("a", 0, OPTIONS), 5, [("a", 2)]),
    ],
)
def test_subscribe_has_three_forms(clients: Clients, arguments: Any, version: int, wanted: Any) -> None:
    def same(subscriptions: list[Any]) -> bool:
        return [(one.topic, one.qos) for one in subscriptions] == list(wanted)

    script = [expect("connect"), send(Connack()), expect("subscribe", subscriptions=same)]
    script.append(send(lambda seen: Suback(seen.packet_id, [qos for _, qos in wanted])))
    with scripted([*script, ignore()], version="5.0" if version == 5 else "3.1.1") as server:
        client = start(clients("c", protocol=version), server)
        told: list[Any] = []
        client.on_subscribe = lambda c, d, mid, codes, properties: told.append(
            (mid, [code.value for code in codes])
        )
        assert client.subscribe(*arguments) == (mqtt.MQTT_ERR_SUCCESS, 1)
        eventually(lambda: told == [(1, [qos for _, qos in wanted])])


def test_a_qos_1_message_is_repeated_with_its_identifier_over_clean_sessions(clients: Clients) -> None:
    first = [expect("connect", clean_start=True), send(Connack()), expect("publish", packet_id=1), close()]
    repeated = expect("publish", packet_id=1, dup=True, payload=b"x")
    with scripted(
        first, [expect("connect", clean_start=True), send(Connack()), repeated, send(Puback(1)), ignore()]
    ) as server:
        client = clients("c")
        client.reconnect_delay_set(0.01)
        start(client, server)
        client.publish("a", "x", 1).wait_for_publish(SECONDS)


def test_what_a_store_keeps_is_sent_by_the_next_client(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    store = MemoryStore()
    earlier = clients("c", clean_session=False, store=store)
    for number in range(3):
        earlier.publish("a", str(number), number)
    store.close()
    later = clients("c", clean_session=False, store=store)
    told: list[int] = []
    later.on_publish = lambda c, d, mid, reason, properties: told.append(mid)
    start(later, server)
    later.publish("a", "3", 1).wait_for_publish(SECONDS)
    assert server.call(lambda: [entry.payload for entry in server.broker.journal]) == [b"1", b"2", b"3"]
    assert len(told) == 1


def test_a_store_may_be_a_path(clients: Clients, server: BrokerServer[ModelBroker], tmp_path: Path) -> None:
    path = str(tmp_path / "queue.db")
    earlier = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "c", clean_session=False, store=path)
    earlier.publish("a", "kept", 1)
    gone = weakref.ref(earlier)
    del earlier
    gc.collect()
    assert gone() is None  # and with it the store is closed
    later = clients("c", clean_session=False)
    later.store_set(path)
    start(later, server)
    server.wait_for(lambda: [entry.payload for entry in server.broker.journal] == [b"kept"])


def test_a_store_comes_before_everything_else(clients: Clients) -> None:
    client = clients("c")
    client.publish("a", "x", 1)
    with pytest.raises(RuntimeError, match="before connect"):
        client.store_set(MemoryStore())


def test_reinitialise_begins_anew(clients: Clients, server: BrokerServer[ModelBroker]) -> None:
    client = start(clients("c"), server)
    client.user_data_set(1)
    client.disconnect()
    client.loop_stop()
    client.reinitialise("d")
    assert (client._client_id, client.host) == (b"d", "")
    assert client.user_data_get() is None
    start(client, server)


@pytest.mark.parametrize("clean_session", [True, False])
def test_threads_publish_while_the_connection_is_cut_again_and_again(
    clients: Clients, clean_session: bool
) -> None:
    with BrokerServer(ModelBroker(unique_messages=not clean_session)) as server:
        client = clients("c", clean_session=clean_session)
        client.reconnect_delay_set(0.01, 0.02)
        told: list[int] = []
        client.on_publish = lambda c, d, mid, reason, properties: told.append(mid)
        start(client, server)
        infos: list[mqtt.MQTTMessageInfo] = []

        def publish(thread: int) -> None:
            for number in range(300):
                infos.append(client.publish("a", f"{thread}/{number}", 1 + number % 2))
                if number % 100 == 50:
                    server.disconnect_all(reset=True)

        threads = [threading.Thread(target=publish, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        eventually(lambda: len(told) == 900, 30)
        assert sorted(told) == sorted(info.mid for info in infos)
        assert all(info.is_published() for info in infos)
        payloads = [bytes(entry.payload) for entry in server.broker.journal if entry.qos == 2]
        assert len(set(payloads)) == 450
        if not clean_session:
            assert len(payloads) == 450  # exactly once
            assert server.broker.violations == []


def test_on_publish_has_been_called_when_wait_for_publish_returns(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    told: list[int] = []

    def on_publish(client: mqtt.Client, data: object, mid: int, reason: object, properties: object) -> None:
        threading.Event().wait(0.02)  # long enough for the other thread to be early
        told.append(mid)

    client = clients("c")
    client.on_publish = on_publish
    start(client, server)
    for qos in (0, 1, 2):
        info = client.publish("a", "x", qos)
        info.wait_for_publish(SECONDS)
        assert told[-1:] == [info.mid]


def test_wait_for_publish_waits_no_longer_than_it_may_for_on_publish(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    go_on = threading.Event()
    client = clients("c")
    client.on_publish = lambda *_: go_on.wait(SECONDS)
    start(client, server)
    info = client.publish("a", "x", 1)
    info.wait_for_publish(0.3)
    assert info.is_published()
    go_on.set()
