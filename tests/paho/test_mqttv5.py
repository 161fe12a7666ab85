"""MQTT 5.0 with the façade: what the 24 tests of paho-mqtt's tests/test_mqttv5.py look at, in our words.

Those skip in scripts/paho-suite, because the broker that they need is not on PyPI. Here Mosquitto answers
where a real broker can, and our model of one where the answer depends on the time (its clock is the test's)
or is a refusal.
"""

from __future__ import annotations

import itertools
import queue
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import device_sdk.paho.client as mqtt
from device_sdk.mqtt.packets import Connack, Publish
from device_sdk.net.base import parse_url
from device_sdk.paho.packettypes import PacketTypes
from device_sdk.paho.properties import Properties
from device_sdk.paho.reasoncodes import ReasonCode
from device_sdk.paho.subscribeoptions import SubscribeOptions
from device_sdk.testing import BrokerServer, ModelBroker
from device_sdk.testing.broker_process import MosquittoBroker
from device_sdk.testing.scripted_broker import expect, ignore, send
from tests.paho.conftest import SECONDS, scripted
from tests.steps import eventually

USER_PROPERTIES = [("a", "2"), ("c", "3")]
_numbers = itertools.count()


def properties(packet_type: int, **values: Any) -> Properties:
    """Return properties with these values."""
    made = Properties(packet_type)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Peer:
    """A client with its thread; what its callbacks were called with waits in queues."""

    def __init__(self, port: int, client_id: str = "") -> None:
        self.port = port
        self.connected: queue.Queue[tuple[mqtt.ConnectFlags, ReasonCode, Properties]] = queue.Queue()
        self.failed: queue.Queue[Any] = queue.Queue()
        self.ended: queue.Queue[ReasonCode] = queue.Queue()
        self.granted: queue.Queue[list[ReasonCode]] = queue.Queue()
        self.unsubscribed: queue.Queue[list[ReasonCode]] = queue.Queue()
        self.messages: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=mqtt.MQTTv5)
        client.reconnect_delay_set(0.05, 0.5)
        client.on_connect = lambda c, d, *got: self.connected.put(got)
        client.on_connect_fail = lambda c, data: self.failed.put(data)
        client.on_disconnect = lambda c, d, flags, reason, p: self.ended.put(reason)
        client.on_subscribe = lambda c, d, mid, reasons, p: self.granted.put(reasons)
        client.on_unsubscribe = lambda c, d, mid, reasons, p: self.unsubscribed.put(reasons)
        client.on_message = lambda c, d, message: self.messages.put(message)
        self.client = client

    def connect(self, **arguments: Any) -> tuple[mqtt.ConnectFlags, ReasonCode, Properties]:
        """Connect and start the thread; return what CONNACK says."""
        self.client.connect("127.0.0.1", self.port, **arguments)
        self.client.loop_start()
        return self.connected.get(timeout=SECONDS)

    def subscribe(self, *arguments: Any, **named: Any) -> list[ReasonCode]:
        """Subscribe; return what SUBACK says."""
        assert self.client.subscribe(*arguments, **named)[0] == mqtt.MQTT_ERR_SUCCESS
        return self.granted.get(timeout=SECONDS)

    def unsubscribe(self, *arguments: Any) -> list[ReasonCode]:
        """Unsubscribe; return what UNSUBACK says."""
        assert self.client.unsubscribe(*arguments)[0] == mqtt.MQTT_ERR_SUCCESS
        return self.unsubscribed.get(timeout=SECONDS)

    def publish(self, topic: str, payload: Any = b"", qos: int = 0, **named: Any) -> None:
        """Publish, and wait until it is published."""
        self.client.publish(topic, payload, qos, **named).wait_for_publish(SECONDS)

    def receive(self, count: int = 1) -> list[mqtt.MQTTMessage]:
        """Return the next messages."""
        return [self.messages.get(timeout=SECONDS) for _ in range(count)]

    def receive_until(self, topic: str) -> list[mqtt.MQTTMessage]:
        """Return the messages before that of this topic, which marks the end."""
        return list(itertools.takewhile(lambda message: message.topic != topic, self._each()))

    def _each(self) -> Iterator[mqtt.MQTTMessage]:
        while True:
            yield self.messages.get(timeout=SECONDS)

    def leave(self, session_expiry: int | None = None) -> None:
        """Disconnect and stop the thread."""
        goodbye = None
        if session_expiry is not None:
            goodbye = properties(PacketTypes.DISCONNECT, SessionExpiryInterval=session_expiry)
        self.client.disconnect(properties=goodbye)
        self.ended.get(timeout=SECONDS)
        self.client.loop_stop()

    def close(self) -> None:
        """End it, whatever state it is in."""
        self.client.disconnect()
        self.client.loop_stop()
        self.client.reinitialise()


Peers = Callable[..., Peer]


def _peers(port: int) -> Iterator[Peers]:
    made: list[Peer] = []

    def make(client_id: str = "") -> Peer:
        made.append(Peer(port, client_id))
        return made[-1]

    yield make
    for peer in made:
        peer.close()


@pytest.fixture(scope="module")
def broker() -> Iterator[MosquittoBroker]:
    """Return Mosquitto, for all tests of this module."""
    if not MosquittoBroker.available():
        pytest.skip("needs mosquitto")
    with MosquittoBroker() as running:
        yield running


@pytest.fixture
def peers(broker: MosquittoBroker) -> Iterator[Peers]:
    """Return what makes clients of Mosquitto."""
    yield from _peers(parse_url(broker.url()).port)


@pytest.fixture
def topic() -> str:
    """Return a topic that no other test uses."""
    return f"v5/{next(_numbers)}"


class Clock:
    """The time of the model broker; starts at 1000 s."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Model:
    """The model broker on a port, with a clock that the test moves."""

    def __init__(self, **limits: Any) -> None:
        self.clock = Clock()
        self.broker = ModelBroker(**limits)
        self.server = BrokerServer(self.broker, clock=self.clock)

    def pass_time(self, seconds: float) -> None:
        """Let time pass for the broker."""
        self.clock.now += seconds
        self.server.call(self.broker.handle_deadline, self.clock.now)

    def see_off(self, peer: Peer, session_expiry: int | None = None) -> None:
        """Have the peer leave, and wait until the broker has taken its DISCONNECT."""
        links = len(self.broker.links)
        peer.leave(session_expiry)
        self.server.wait_for(lambda: len(self.broker.links) < links, SECONDS)


@pytest.fixture
def model() -> Iterator[Model]:
    """Return a broker whose time is the test's, and that refuses subscriptions to ``no/subscribe``."""
    made = Model(authorize_subscribe=lambda c, wanted: 0x80 if wanted.topic == "no/subscribe" else wanted.qos)
    with made.server:
        yield made
        assert made.broker.violations == []


@pytest.fixture
def timed(model: Model) -> Iterator[Peers]:
    """Return what makes clients of the model broker."""
    yield from _peers(model.server.port)


pytestmark = [pytest.mark.flaky(reruns=1)]
on_mosquitto = pytest.mark.system


@on_mosquitto
def test_messages_of_every_qos_come_back(peers: Peers, topic: str) -> None:
    peer = peers("basic")
    assert peer.connect()[1] == "Success"
    assert peer.subscribe(topic, options=SubscribeOptions(qos=2)) == ["Granted QoS 2"]
    for qos in range(3):
        peer.publish(topic, f"qos {qos}", qos)
    assert {bytes(message.payload) for message in peer.receive(3)} == {b"qos 0", b"qos 1", b"qos 2"}


def test_a_connection_that_cannot_be_made_is_reported_with_the_user_data() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    peer = Peer(port)
    peer.client.user_data_set(1)
    peer.client.loop_start()
    peer.client.connect_async("127.0.0.1", port)
    assert peer.failed.get(timeout=SECONDS) == 1
    peer.close()


@on_mosquitto
def test_retained_messages_keep_qos_and_user_properties(peers: Peers, topic: str) -> None:
    peer = peers("retained")
    peer.connect()
    for qos in range(3):
        given = properties(PacketTypes.PUBLISH, UserProperty=USER_PROPERTIES)
        peer.publish(f"{topic}/{qos}", f"qos {qos}", qos, retain=True, properties=given)
    peer.subscribe(f"{topic}/+", options=SubscribeOptions(qos=2))
    messages = peer.receive(3)
    assert {(message.topic, message.qos) for message in messages} == {
        (f"{topic}/{qos}", qos) for qos in range(3)
    }
    for message in messages:
        assert message.retain
        assert message.properties is not None
        assert message.properties.UserProperty == USER_PROPERTIES


def test_the_will_comes_when_the_client_is_silent_longer_than_its_keep_alive(
    model: Model, timed: Peers
) -> None:
    watcher, mortal = timed("watcher"), timed("mortal")
    watcher.connect(keepalive=0)
    watcher.subscribe("will", 2)
    given = properties(PacketTypes.WILLMESSAGE, WillDelayInterval=0, UserProperty=USER_PROPERTIES)
    mortal.client.will_set("will", b"alas", properties=given)
    mortal.connect(keepalive=20)
    model.pass_time(29)
    assert watcher.messages.empty()
    model.pass_time(2)
    (message,) = watcher.receive()
    assert message.payload == b"alas"
    assert message.properties is not None
    assert message.properties.UserProperty == USER_PROPERTIES


@on_mosquitto
@pytest.mark.parametrize("clean_start", [False, mqtt.MQTT_CLEAN_START_FIRST_ONLY])
def test_a_client_without_identifier_is_given_one(peers: Peers, clean_start: Any) -> None:
    _flags, reason, given = peers().connect(clean_start=clean_start)
    assert reason == "Success"
    assert given.AssignedClientIdentifier


@on_mosquitto
def test_a_client_with_an_identifier_is_given_none(peers: Peers) -> None:
    given = peers("client0").connect()[2]
    assert not hasattr(given, "AssignedClientIdentifier")


@on_mosquitto
def test_messages_wait_for_a_client_whose_session_lives_on(peers: Peers, topic: str) -> None:
    away, other = peers("away"), peers("other")
    away.connect(properties=properties(PacketTypes.CONNECT, SessionExpiryInterval=99_999))
    away.subscribe(f"{topic}/+", 2)
    away.leave()
    other.connect()
    for qos in (1, 2):
        other.publish(f"{topic}/{qos}", b"%d" % qos, qos)
    back = peers("away")
    assert back.connect(clean_start=False)[0].session_present
    assert {bytes(message.payload) for message in back.receive(2)} == {b"1", b"2"}


@on_mosquitto
def test_overlapping_subscriptions_give_the_highest_qos_or_each(peers: Peers, topic: str) -> None:
    peer = peers("overlapping")
    peer.connect()
    peer.subscribe([(f"{topic}/#", SubscribeOptions(qos=2)), (f"{topic}/+", SubscribeOptions(qos=1))])
    peer.publish(f"{topic}/a", b"x", 2)
    peer.subscribe("end", 2)
    peer.publish("end", b"", 2)
    qoss = [message.qos for message in peer.receive_until("end")]
    assert sorted(qoss) in ([2], [1, 2])


def test_a_refused_subscription_is_told(timed: Peers) -> None:
    peer = timed("refused")
    peer.connect(keepalive=0)
    (reason,) = peer.subscribe("no/subscribe", 2)
    assert reason.getName() == "Unspecified error"
    assert reason.is_failure


@on_mosquitto
def test_unsubscribed_topics_come_no_more(peers: Peers, topic: str) -> None:
    peer = peers("unsubscriber")
    peer.connect()
    for number in range(3):
        peer.subscribe(f"{topic}/{number}", 2)
    assert peer.unsubscribe(f"{topic}/0") == ["Success"]
    for number in range(3):
        peer.publish(f"{topic}/{number}", b"x", 1)
    assert [message.topic for message in peer.receive(2)] == [f"{topic}/1", f"{topic}/2"]


def test_a_session_lives_as_long_as_its_expiry_says(model: Model, timed: Peers) -> None:
    def visit(expiry: int, *, clean_start: bool = False, goodbye: int | None = None) -> bool:
        peer = timed("session")
        given = properties(PacketTypes.CONNECT, SessionExpiryInterval=expiry)
        flags, reason, _ = peer.connect(keepalive=0, clean_start=clean_start, properties=given)
        assert reason == "Success"
        peer.subscribe("a", 2)
        model.see_off(peer, goodbye)
        return bool(flags.session_present)

    assert not visit(0, clean_start=True)
    assert not visit(5)  # 0: the session ended with its connection
    model.pass_time(2)
    assert visit(5)
    model.pass_time(6)
    assert not visit(1, goodbye=5)
    model.pass_time(3)
    assert visit(1, goodbye=0)  # DISCONNECT had changed the expiry
    assert not visit(0)


@on_mosquitto
def test_user_properties_and_payload_format_come_with_every_qos(peers: Peers, topic: str) -> None:
    peer = peers("properties")
    peer.connect()
    peer.subscribe(topic, 2)
    for qos in range(3):
        given = properties(
            PacketTypes.PUBLISH, UserProperty=USER_PROPERTIES, PayloadFormatIndicator=1, ContentType="My name"
        )
        peer.publish(topic, b"x", qos, properties=given)
    messages = peer.receive(3)
    assert sorted(message.qos for message in messages) == [0, 1, 2]
    for message in messages:
        got = message.properties
        assert got is not None
        assert got.UserProperty == USER_PROPERTIES
        assert (got.PayloadFormatIndicator, got.ContentType) == (1, "My name")


def test_messages_expire_while_they_wait_for_their_subscriber(model: Model, timed: Peers) -> None:
    away, other = timed("away"), timed("other")
    away.connect(keepalive=0, properties=properties(PacketTypes.CONNECT, SessionExpiryInterval=99_999))
    away.subscribe("a", 2)
    model.see_off(away, 999_999)
    other.connect(keepalive=0)
    for seconds in (1, 6):
        for qos in (1, 2):
            given = properties(PacketTypes.PUBLISH, MessageExpiryInterval=seconds)
            other.publish("a", b"%d" % seconds, qos, properties=given)
    model.pass_time(3)
    back = timed("away")
    back.connect(keepalive=0, clean_start=False)
    for message in back.receive(2):
        assert message.payload == b"6"
        assert message.properties is not None
        assert message.properties.MessageExpiryInterval == 3
    assert back.messages.empty()


@on_mosquitto
def test_no_local_keeps_our_own_messages_away(peers: Peers, topic: str) -> None:
    one, other = peers("one"), peers("other")
    for peer in (one, other):
        peer.connect()
        peer.subscribe(topic, options=SubscribeOptions(qos=2, noLocal=True))
    one.publish(topic, b"of one", 1)
    other.publish(topic, b"of other", 1)
    assert one.receive()[0].payload == b"of other"
    assert other.receive()[0].payload == b"of one"


@on_mosquitto
def test_retain_as_published_keeps_the_flag(peers: Peers, topic: str) -> None:
    peer = peers("as published")
    peer.connect()
    peer.subscribe(topic, options=SubscribeOptions(qos=2, retainAsPublished=True))
    for retain in (False, True):
        peer.publish(topic, b"x", 1, retain=retain)
    assert [message.retain for message in peer.receive(2)] == [False, True]


@on_mosquitto
@pytest.mark.parametrize(
    ("handling", "first", "again"),
    [
        (SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE, 1, 1),
        (SubscribeOptions.RETAIN_SEND_IF_NEW_SUB, 1, 0),
        (SubscribeOptions.RETAIN_DO_NOT_SEND, 0, 0),
    ],
)
def test_retain_handling_says_when_retained_messages_come(
    peers: Peers, topic: str, handling: int, first: int, again: int
) -> None:
    peer = peers("handling")
    peer.connect()
    peer.publish(f"{topic}/a", b"x", 1, retain=True)
    peer.subscribe(f"{topic}-end", 1)
    found = []
    for action in ("subscribe", "subscribe", "unsubscribe", "subscribe"):
        if action == "unsubscribe":
            peer.unsubscribe(f"{topic}/+", properties(PacketTypes.UNSUBSCRIBE, UserProperty=USER_PROPERTIES))
            continue
        peer.subscribe(f"{topic}/+", options=SubscribeOptions(2, retainHandling=handling))
        peer.publish(f"{topic}-end", b"", 1)
        found.append(len(peer.receive_until(f"{topic}-end")))
    assert found == [first, again, first]


@on_mosquitto
def test_subscription_identifiers_come_with_the_message(peers: Peers, topic: str) -> None:
    one, other = peers("one identifier"), peers("two identifiers")
    one.connect()
    one.subscribe(topic, 2, properties=properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=456_789))
    other.connect()
    other.subscribe(topic, 2, properties=properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=2))
    other.subscribe(f"{topic}/#", 2, properties=properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=3))
    other.publish(topic, b"x", 1)
    (message,) = one.receive()
    assert message.properties is not None
    assert message.properties.SubscriptionIdentifier == [456_789]
    found: set[int] = set()
    while found != {2, 3}:  # in one message, or in one for each
        (message,) = other.receive()
        assert message.properties is not None
        found.update(message.properties.SubscriptionIdentifier)


@on_mosquitto
def test_a_request_tells_where_the_response_is_wanted(peers: Peers, topic: str) -> None:
    requester, responder = peers("requester"), peers("responder")
    for peer in (requester, responder):
        peer.connect()
        peer.subscribe(topic, options=SubscribeOptions(2, noLocal=True))
    given = properties(PacketTypes.PUBLISH, ResponseTopic=topic, CorrelationData=b"334")
    requester.publish(topic, b"request", 1, properties=given)
    (request,) = responder.receive()
    got = request.properties
    assert got is not None
    assert (got.ResponseTopic, got.CorrelationData) == (topic, b"334")
    answer = properties(PacketTypes.PUBLISH, CorrelationData=got.CorrelationData)
    responder.publish(got.ResponseTopic, b"response", 1, properties=answer)
    (response,) = requester.receive()
    assert response.payload == b"response"
    assert response.properties is not None
    assert response.properties.CorrelationData == b"334"


@on_mosquitto
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_topic_alias_stands_for_its_topic(peers: Peers, topic: str, qos: int) -> None:
    peer = peers("alias")
    peer.connect()
    peer.subscribe(topic, 2)
    alias = properties(PacketTypes.PUBLISH, TopicAlias=1)
    for number, name in enumerate([topic, "", ""]):
        peer.publish(name, b"%d" % number, qos, properties=alias)
    assert [(message.topic, message.payload) for message in peer.receive(3)] == [
        (topic, b"%d" % number) for number in range(3)
    ]


@on_mosquitto
@pytest.mark.parametrize("maximum", [None, 0])
def test_without_a_maximum_the_broker_uses_no_topic_alias(
    peers: Peers, topic: str, maximum: int | None
) -> None:
    peer = peers("no alias")
    given = None if maximum is None else properties(PacketTypes.CONNECT, TopicAliasMaximum=maximum)
    peer.connect(properties=given)
    peer.subscribe(topic, 2)
    for qos in range(3):
        peer.publish(topic, b"x", qos)
    for message in peer.receive(3):
        assert message.topic == topic
        assert not hasattr(message.properties, "TopicAlias")


def test_aliases_of_the_broker_are_resolved_if_the_client_announced_them() -> None:
    script = [
        expect("connect", topic_alias_maximum=1),
        send(
            Connack(),
            Publish("a", b"1", properties={"topic_alias": 1}),
            Publish("", b"2", properties={"topic_alias": 1}),
        ),
        ignore(),
    ]
    with scripted(script, version="5.0") as server:
        peer = Peer(server.port, "alias")
        peer.connect(properties=properties(PacketTypes.CONNECT, TopicAliasMaximum=1))
        assert [message.topic for message in peer.receive(2)] == ["a", "a"]
        peer.close()


@on_mosquitto
def test_the_broker_sends_no_packet_larger_than_the_client_takes(peers: Peers, topic: str) -> None:
    peer = peers("small")
    peer.connect(properties=properties(PacketTypes.CONNECT, MaximumPacketSize=64))
    peer.subscribe(topic, 2)
    for size in (30, 64, 31):
        peer.publish(topic, b"." * size, 1)
    assert [len(message.payload) for message in peer.receive(2)] == [30, 31]


def test_the_will_waits_for_its_delay(model: Model, timed: Peers) -> None:
    watcher, mortal = timed("watcher"), timed("mortal")
    watcher.connect(keepalive=0)
    watcher.subscribe("will", 2)
    delay = properties(PacketTypes.WILLMESSAGE, WillDelayInterval=3)
    mortal.client.will_set("will", b"alas", properties=delay)
    expiry = properties(PacketTypes.CONNECT, SessionExpiryInterval=5)
    mortal.connect(keepalive=0, properties=expiry)
    mortal.client.reinitialise()
    model.server.wait_for(lambda: len(model.broker.links) == 1, SECONDS)
    model.pass_time(2)
    watcher.publish("will", b"not yet", 1)
    model.pass_time(2)
    assert [bytes(message.payload) for message in watcher.receive(2)] == [b"not yet", b"alas"]


@on_mosquitto
def test_a_message_for_a_shared_subscription_comes_to_one_of_its_clients(peers: Peers, topic: str) -> None:
    both = peers("one sharer"), peers("other sharer")
    for peer in both:
        assert not peer.connect()[0].session_present
        wanted = [(f"$share/name/{topic}/shared", SubscribeOptions(2)), (f"{topic}/all", SubscribeOptions(2))]
        peer.subscribe(wanted)
    for number in range(10):
        both[0].publish(f"{topic}/shared", b"%d" % number, 1)
    both[0].publish(f"{topic}/all", b"", 1)
    found = [message for peer in both for message in peer.receive_until(f"{topic}/all")]
    assert sorted(bytes(message.payload) for message in found) == [b"%d" % number for number in range(10)]


@pytest.fixture
def rebooted() -> Iterator[MosquittoBroker]:
    """Return a Mosquitto of the test's own, which it may restart."""
    if not MosquittoBroker.available():
        pytest.skip("needs mosquitto")
    with MosquittoBroker() as running:
        yield running


@on_mosquitto
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_topic_alias_of_before_the_broker_restarted_does_no_harm(
    rebooted: MosquittoBroker, qos: int
) -> None:
    peer = Peer(parse_url(rebooted.url()).port, "alias and restart")
    alias = properties(PacketTypes.PUBLISH, TopicAlias=1)
    watcher = Peer(peer.port, "watcher")
    peer.connect()
    peer.publish("a", b"1", qos, properties=alias)
    rebooted.terminate()
    peer.ended.get(timeout=SECONDS)
    info = peer.client.publish("", b"2", qos, retain=True, properties=alias)
    rebooted.start()
    assert peer.connected.get(timeout=SECONDS)[1] == "Success"
    if qos:
        info.wait_for_publish(SECONDS)
        watcher.connect()
        watcher.subscribe("a", 2)
        assert watcher.receive()[0].payload == b"2"
    peer.publish("a", b"3", 2)
    assert peer.ended.empty()
    for each in (peer, watcher):
        each.close()


@on_mosquitto
def test_drop_out_messages_forgets_what_waits_for_the_next_connection(rebooted: MosquittoBroker) -> None:
    peer = Peer(parse_url(rebooted.url()).port, "dropper")
    peer.connect()
    rebooted.terminate()
    peer.ended.get(timeout=SECONDS)
    peer.client.publish("a", b"unwanted", 1)
    assert [message.payload for message in peer.client.drop_out_messages()] == [b"unwanted"]
    rebooted.start()
    assert peer.connected.get(timeout=SECONDS)[1] == "Success"
    peer.subscribe("a", 1)
    peer.publish("a", b"wanted", 1)
    assert peer.receive()[0].payload == b"wanted"
    eventually(peer.client.is_connected)
    peer.close()
