"""The same short day with every broker, in every version that it speaks, over every stream that it has."""

from __future__ import annotations

import queue
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from device_sdk import AsyncClient, Client, Message, ReconnectPolicy, Will
from device_sdk.errors import ConnectRefused, DeviceSdkError, TransportClosedError
from device_sdk.testing import Certificates
from tests.aio.conftest import run_in
from tests.steps import eventually
from tests.system.brokers import BROKERS, Case
from tests.system.matrix import Place, on_every_broker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.matrix_broker import Deviation, MatrixBroker

PATIENCE = 10.0
FAST = ReconnectPolicy(first=0.02, longest=0.1)
NEVER = ReconnectPolicy(first=1000, longest=1000)
LARGE = 1 << 20

REFUSALS = {"3.1": {4, 5}, "3.1.1": {4, 5}, "5.0": {0x86, 0x87}}  # bad user name or password, not authorized

Box = queue.SimpleQueue


class Brokers:
    """Brokers that are started when they are first asked for, and run until the last test of the module."""

    def __init__(self, stack: ExitStack, certificates: Certificates) -> None:
        self._stack = stack
        self._certificates = certificates
        self._running: dict[str, MatrixBroker] = {}

    def get(self, case: Case) -> MatrixBroker:
        kind = BROKERS[case.broker]
        if not kind.available():
            pytest.skip(f"needs {case.broker}")
        name = str(case) if kind.alone else case.broker
        if name not in self._running:
            ways = [(case.stream, case.version)] if kind.alone else kind.all_ways()
            self._running[name] = self._stack.enter_context(kind(self._certificates, ways))
        return self._running[name]


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    with ExitStack() as stack:
        yield Brokers(stack, Certificates(tmp_path_factory.mktemp("certificates")))


@pytest.fixture
def place(request: pytest.FixtureRequest, brokers: Brokers) -> Place:
    case: Case
    deviation: Deviation | None
    case, deviation = request.param
    return Place(brokers.get(case), case, deviation)


def take(box: Box[Message], count: int) -> list[bytes]:
    return [box.get(timeout=PATIENCE).payload for _ in range(count)]


def goes_round(place: Place, qos: int, delivered_at: int | None = None) -> None:
    """Send a message to ourselves, and another one to nobody, on one connection."""
    box: Box[Message] = queue.SimpleQueue()
    ended: list[object] = []
    with place.client(on_disconnect=ended.append) as client:
        client.connect(PATIENCE)
        client.subscribe(f"{place.topic}/+", qos=qos, on_message=box.put).wait(PATIENCE)
        delivery = client.publish(f"{place.topic}/a", b"x", qos=qos)
        eventually(lambda: ended or not box.empty())
        if ended:
            client.close(0)  # or it would wait for an acknowledgement that may never come
        assert ended == []
        message = box.get(timeout=PATIENCE)
        delivery.wait(PATIENCE)
        client.unsubscribe(f"{place.topic}/+").wait(PATIENCE)
        client.publish(f"{place.topic}/a", b"to nobody", qos=qos).wait(PATIENCE)
    assert (message.topic, message.payload) == (f"{place.topic}/a", b"x")
    assert message.qos == (qos if delivered_at is None else delivered_at)
    assert box.empty()


@on_every_broker("QoS 0")
def test_a_message_of_qos_0_goes_round(place: Place) -> None:
    goes_round(place, 0)


@on_every_broker("QoS 1")
def test_a_message_of_qos_1_goes_round(place: Place) -> None:
    goes_round(place, 1)


@on_every_broker("QoS 2")
def test_a_message_of_qos_2_goes_round(place: Place) -> None:
    goes_round(place, 2, delivered_at=place.expected(2))


@on_every_broker("granted QoS")
def test_a_subscription_is_granted_the_qos_that_it_asks_for(place: Place) -> None:
    box: Box[Message] = queue.SimpleQueue()
    with place.client() as client:
        granted = client.subscribe(place.topic, qos=2, on_message=box.put).wait(PATIENCE)
        client.publish(place.topic, b"x", qos=1).wait(PATIENCE)
        assert take(box, 1) == [b"x"]
    assert granted == [place.expected(2)]


@on_every_broker("delivered QoS")
def test_a_message_is_delivered_at_the_lower_qos(place: Place) -> None:
    box: Box[Message] = queue.SimpleQueue()
    with place.client() as client:
        client.subscribe(place.topic, qos=2, on_message=box.put).wait(PATIENCE)
        for qos in (0, 1):
            client.publish(place.topic, b"x", qos=qos).wait(PATIENCE)
        assert [box.get(timeout=PATIENCE).qos for _ in range(2)] == place.expected([0, 1])


@on_every_broker("retained message")
def test_a_retained_message_waits_for_its_subscriber_until_it_is_cleared(place: Place) -> None:
    box: Box[Message] = queue.SimpleQueue()
    with place.client() as client:
        client.publish(place.topic, b"on", qos=1, retain=True).wait(PATIENCE)
        client.subscribe(place.topic, qos=1, on_message=box.put).wait(PATIENCE)
        message = box.get(timeout=PATIENCE)
        client.unsubscribe(place.topic).wait(PATIENCE)
        client.publish(place.topic, b"", qos=1, retain=True).wait(PATIENCE)
        client.subscribe(place.topic, qos=1, on_message=box.put).wait(PATIENCE)
        client.publish(place.topic, b"live", qos=1).wait(PATIENCE)
        assert take(box, 1) == [b"live"]
    assert (message.payload, message.retain) == (b"on", True)


@on_every_broker("will message")
def test_the_will_is_published_when_the_client_vanishes_and_only_then(place: Place) -> None:
    box: Box[Message] = queue.SimpleQueue()
    with place.neighbour() as watcher:
        watcher.subscribe(place.topic, qos=1, on_message=box.put).wait(PATIENCE)
        for payload in (b"polite", b"vanished"):
            client = place.client(will=Will(place.topic, payload, qos=1), reconnect=NEVER)
            client.connect(PATIENCE)
            if payload == b"vanished":
                client._engine.transport.abort()
                eventually(lambda client=client: client.state == "waiting")  # type: ignore[misc]
            client.close(0)
        arrived = list(iter(lambda: box.get(timeout=PATIENCE).payload, b"vanished"))
    assert arrived == place.expected([])


@on_every_broker("session")
def test_a_session_keeps_what_came_while_its_client_was_away(place: Place) -> None:
    box: Box[Message] = queue.SimpleQueue()
    present: Box[bool] = queue.SimpleQueue()

    def sleeper() -> Client:
        return place.client(
            client_id=place.name,
            clean_start=False,
            on_message=box.put,
            on_connect=lambda answer: present.put(answer.session_present),
        )

    with sleeper() as client:
        client.subscribe(place.topic, qos=1).wait(PATIENCE)
    with place.neighbour() as source:
        for number in range(10):
            source.publish(place.topic, b"%d" % number, qos=1).wait(PATIENCE)
    with sleeper():
        assert take(box, 10) == [b"%d" % number for number in range(10)]
    if place.case.version != "3.1":  # its CONNACK does not say
        assert [present.get(timeout=PATIENCE) for _ in range(2)] == [False, True]


@on_every_broker("reconnection")
def test_a_client_comes_back_and_publishes_what_waited(place: Place) -> None:
    box: Box[Message] = queue.SimpleQueue()
    with place.client(client_id=place.name, clean_start=False, reconnect=FAST) as client:
        client.subscribe(place.topic, qos=1, on_message=box.put).wait(PATIENCE)
        client._engine.transport.abort()
        deliveries = [client.publish(place.topic, b"%d" % number, qos=1) for number in range(10)]
        for delivery in deliveries:
            delivery.wait(PATIENCE)
        # What was on its way may come twice.
        assert sorted(set(take(box, 10))) == [b"%d" % number for number in range(10)]
        assert client.stats.reconnects == 1


@on_every_broker("order of many")
def test_many_messages_in_flight_arrive_in_order(place: Place) -> None:
    box: Box[Message] = queue.SimpleQueue()
    with place.client() as reader, place.client(inflight=50) as writer:
        reader.subscribe(place.topic, qos=1, on_message=box.put).wait(PATIENCE)
        deliveries = [writer.publish(place.topic, b"%d" % number, qos=1) for number in range(300)]
        for delivery in deliveries:
            delivery.wait(PATIENCE)
        assert take(box, 300) == [b"%d" % number for number in range(300)]


@on_every_broker("1 MiB sent")
def test_a_large_message_is_sent(place: Place) -> None:
    large_message(place.client(), place.neighbour(maximum_packet_size=2 * LARGE), place, LARGE)


@on_every_broker("1 MiB received")
def test_a_large_message_is_received(place: Place) -> None:
    size = place.expected(LARGE)
    is_websocket = place.case.stream in ("ws", "wss")
    network = {"max_message_size": 2 * LARGE} if is_websocket else None
    target = place.client(maximum_packet_size=2 * LARGE, network=network)
    large_message(place.neighbour(), target, place, size)


def large_message(source: Client, target: Client, place: Place, size: int) -> None:
    box: Box[Message] = queue.SimpleQueue()
    payload = bytes(range(256)) * (size // 256)
    with source, target:
        target.subscribe(place.topic, qos=1, on_message=box.put).wait(PATIENCE)
        source.publish(place.topic, payload, qos=1).wait(PATIENCE)
        assert box.get(timeout=PATIENCE).payload == payload


@on_every_broker("wrong password")
def test_a_wrong_password_is_refused_and_the_error_says_so(place: Place) -> None:
    refused(place, password="wrong")


@on_every_broker("no password")
def test_a_client_without_a_password_is_refused_and_the_error_says_so(place: Place) -> None:
    refused(place, user_name=None, password=None)


def refused(place: Place, **credentials: Any) -> None:
    kind = place.expected("CONNACK")
    error: type[DeviceSdkError] = {"CONNACK": ConnectRefused, "end": TransportClosedError}[kind]
    client = place.client(**credentials)
    with pytest.raises(error) as caught:
        client.connect(PATIENCE)
    client.close(0)
    if isinstance(caught.value, ConnectRefused):
        assert caught.value.reason_code in REFUSALS[place.case.version]
        assert caught.value.retry == "never"


def in_5_0(case: Case) -> bool:
    return case.version == "5.0"


@on_every_broker("properties", in_5_0)
def test_the_properties_of_a_message_go_round(place: Place) -> None:
    box: Box[Message] = queue.SimpleQueue()
    properties = {
        "content_type": "text/plain",
        "response_topic": f"{place.topic}/answer",
        "correlation_data": b"\x00\x01",
        "user_property": [("unit", "K"), ("unit", "C")],
    }
    with place.client() as client:
        client.subscribe(place.topic, qos=1, on_message=box.put).wait(PATIENCE)
        client.publish(place.topic, b"x", qos=1, properties=properties).wait(PATIENCE)
        message = box.get(timeout=PATIENCE)
    assert message.content_type == "text/plain"
    assert message.response_topic == f"{place.topic}/answer"
    assert message.correlation_data == b"\x00\x01"
    assert message.user_properties == (("unit", "K"), ("unit", "C"))


@on_every_broker("topic aliases sent", in_5_0)
def test_messages_that_are_sent_with_topic_aliases_arrive_under_their_topics(place: Place) -> None:
    box: Box[Message] = queue.SimpleQueue()
    topics = [f"{place.topic}/temperature/{number % 3}" for number in range(12)]
    with place.client(use_topic_aliases=True) as client:
        client.subscribe(f"{place.topic}/#", qos=1, on_message=box.put).wait(PATIENCE)
        for topic in topics:
            client.publish(topic, b"x", qos=1).wait(PATIENCE)
        assert [box.get(timeout=PATIENCE).topic for _ in topics] == topics


@on_every_broker("topic aliases received", in_5_0)
def test_messages_that_come_with_topic_aliases_have_their_topics(place: Place) -> None:
    topics = [f"{place.topic}/temperature/{number}" for number in range(3)]
    assert receives_with_aliases(place, topics, topics * 4) == place.expected(True)


@on_every_broker("topic aliases below a wildcard", in_5_0)
def test_messages_of_one_wildcard_come_with_an_alias_for_each_topic(place: Place) -> None:
    topics = [f"{place.topic}/temperature/{number}" for number in range(3)]
    receives_with_aliases(place, [f"{place.topic}/#"], topics * 4)


def receives_with_aliases(place: Place, topic_filters: list[str], topics: list[str]) -> bool:
    """Allow aliases, send a message to each topic and receive it; tell whether an alias came."""
    box: Box[Message] = queue.SimpleQueue()
    with place.client(topic_alias_maximum=10, on_message=box.put) as client:
        for topic_filter in topic_filters:
            client.subscribe(topic_filter, qos=1).wait(PATIENCE)
        for topic in topics:
            client.publish(topic, b"x", qos=1).wait(PATIENCE)
        assert [box.get(timeout=PATIENCE).topic for _ in topics] == topics
        protocol = client._engine.outgoing.online
        assert protocol is not None
        return bool(protocol.inbound.aliases)


@on_every_broker("asyncio client", lambda case: case.stream == "tcp")
def test_the_asyncio_client_sends_and_receives_every_qos(place: Place) -> None:
    highest = place.expected(2)

    async def main() -> list[bytes]:
        async with AsyncClient(**place.options()) as client:
            await client.connect(PATIENCE)
            inbox = client.messages()
            assert await client.subscribe(place.topic, qos=2).wait(PATIENCE) == [highest]
            found = []
            for qos in range(highest + 1):
                await (await client.publish(place.topic, b"%d" % qos, qos=qos)).wait(PATIENCE)
                found.append((await inbox.get(PATIENCE)).payload)
            return found

    assert run_in(main()) == [b"%d" % qos for qos in range(highest + 1)]
