"""Request and response through the client."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

import pytest

from device_sdk import Client, Message
from device_sdk.engine.events import ClientEvent
from device_sdk.errors import ArgumentError, ClosedError, NotConnectedError, PublishRefused, SubscribeRefused
from device_sdk.mqtt.packets import Connack, Puback, Publish, Suback
from device_sdk.testing import BrokerServer, ModelBroker, ScriptedBroker
from device_sdk.testing.scripted_broker import expect, ignore, send
from tests.steps import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

Server = BrokerServer[ModelBroker]


def answer(client: Client, message: Message, payload: bytes, qos: int = 1) -> None:
    assert message.response_topic is not None
    properties = {"correlation_data": message.correlation_data}
    client.publish(message.response_topic, payload, qos=qos, properties=properties)


@pytest.fixture
def responder(server: Server) -> Iterator[Client]:
    """Answers every request on ``echo`` with its payload in capitals."""
    with Client(server.url) as client:
        respond = client.subscribe(
            "echo", qos=2, on_message=lambda message: answer(client, message, message.payload.upper())
        )
        respond.wait(5)
        yield client


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_request_returns_its_response(server: Server, responder: Client, qos: int) -> None:
    with Client(server.url, client_id="a/+#b") as client:
        client.connect(5)
        response = client.request("echo", b"hello", 5, qos=qos)
        assert (response.payload, response.topic) == (b"HELLO", "response/a/__b")
        eventually(lambda: client.stats.acks_held == 0)


def test_the_response_topic_of_a_client_without_a_name_is_made_up_and_stays() -> None:
    with BrokerServer(ModelBroker()) as server:
        client = Client(server.url, client_id="")
        before = client._call("t", 1, None).where
        assert before.startswith("response/")
        assert len(before) > len("response/") + 8
        client.connect(5)
        assert client.client_id
        assert client._call("t", 1, None).where == before
        client.close(0)


def test_requests_of_several_threads_get_their_own_responses(server: Server, responder: Client) -> None:
    answers: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
    with Client(server.url) as client:
        threads = [
            threading.Thread(
                target=lambda n=number: answers.put((n, client.request("echo", f"r{n}", 5).payload))
            )
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        found = dict(answers.get(timeout=5) for _ in threads)
        for thread in threads:
            thread.join(5)
    assert found == {number: b"R%d" % number for number in range(8)}


def test_a_handler_may_make_a_request_even_with_a_full_inbox(server: Server, responder: Client) -> None:
    answers: queue.SimpleQueue[object] = queue.SimpleQueue()
    with Client(server.url, inbox_limit=1) as client:

        def handler(message: Message) -> None:
            try:
                answers.put(client.request("echo", message.payload, 5).payload)
            except Exception as error:
                answers.put(error)

        client.subscribe("t", qos=1, on_message=handler).wait(5)
        for payload in (b"a", b"b", b"c"):
            client.publish("t", payload, qos=1).wait(5)
        assert [answers.get(timeout=5) for _ in range(3)] == [b"A", b"B", b"C"]


def test_no_response_in_time_is_a_timeout_and_a_late_one_an_event(server: Server) -> None:
    events: list[ClientEvent] = []
    seen: list[Message] = []
    requests: queue.SimpleQueue[Message] = queue.SimpleQueue()
    with Client(server.url) as slow, Client(server.url, on_event=events.append) as client:
        slow.subscribe("slow", qos=1, on_message=requests.put).wait(5)
        client.subscribe("response/#", qos=1, on_message=seen.append).wait(5)
        with pytest.raises(TimeoutError, match=r"no response to the request on slow within 1 s"):
            client.request("slow", b"x", 1.0)  # long enough to be sent on a busy machine
        answer(slow, requests.get(timeout=5), b"too late")
        eventually(lambda: [event for event in events if event.kind == "unexpected_response"])
        eventually(lambda: client.stats.acks_held == 0)
    assert seen == []


def test_closing_the_client_ends_a_request(server: Server) -> None:
    caught: queue.SimpleQueue[object] = queue.SimpleQueue()
    requests: queue.SimpleQueue[Message] = queue.SimpleQueue()

    with Client(server.url) as watcher, Client(server.url) as client:
        watcher.subscribe("never", qos=1, on_message=requests.put).wait(5)

        def ask() -> None:
            try:
                caught.put(client.request("never", b"x", 30))
            except ClosedError as error:
                caught.put(error)

        thread = threading.Thread(target=ask)
        thread.start()
        requests.get(timeout=5)
        client.close()
        assert isinstance(caught.get(timeout=5), ClosedError)
        thread.join(5)


def test_mqtt_3_has_no_requests() -> None:
    client = Client("memory://nobody", version="3.1.1")
    with pytest.raises(ArgumentError, match=r"version: request\(\) needs MQTT 5.0") as caught:
        client.request("t", b"x")
    assert caught.value.argument == "version"
    client.close()


@pytest.mark.parametrize("name", ["response_topic", "correlation_data"])
def test_the_helper_chooses_response_topic_and_correlation_data(name: str) -> None:
    client = Client("memory://nobody")
    with pytest.raises(ArgumentError, match=f"{name} cannot be given here"):
        client.request("t", b"x", properties={name: "x"})
    client.close()


def scripted(*steps: Any, **server: Any) -> BrokerServer[ScriptedBroker]:
    script = [expect("connect"), send(Connack(False, 0, server)), *steps]
    return BrokerServer(ScriptedBroker(script, version="5.0"))


def test_the_servers_response_information_is_the_beginning_of_the_topic() -> None:
    def respond(request: Any) -> Publish:
        properties = {"correlation_data": request.properties["correlation_data"]}
        return Publish(request.properties["response_topic"], b"yes", properties=properties)

    broker = scripted(
        expect("subscribe", subscriptions=lambda wanted: wanted[0].topic == "mine/42/response"),
        send(lambda seen: Suback(seen.packet_id, [1])),
        expect("publish", response_topic="mine/42/response"),
        send(lambda seen: Puback(seen.packet_id), respond),
        ignore(),
        response_information="mine/42/",
    )
    with broker, Client(broker.url, properties={"request_response_information": 1}) as client:
        with pytest.raises(NotConnectedError):
            Client("memory://nobody", properties={"request_response_information": 1}).request("t")
        client.connect(5)
        assert client.request("t", b"?", 5).payload == b"yes"
    broker.broker.check()


def test_a_refused_request_ends_the_wait_at_once() -> None:
    broker = scripted(
        expect("subscribe"),
        send(lambda seen: Suback(seen.packet_id, [1])),
        expect("publish", message_expiry_interval=lambda seconds: 590 <= seconds <= 600),
        send(lambda seen: Puback(seen.packet_id, 0x87)),
        ignore(),
    )
    with broker, Client(broker.url) as client:
        client.connect(5)
        with pytest.raises(PublishRefused):
            client.request("t", b"?", 600)
    broker.broker.check()


def test_a_refused_response_topic_is_asked_for_again_by_the_next_request() -> None:
    broker = scripted(
        expect("subscribe"),
        send(lambda seen: Suback(seen.packet_id, [0x87])),
        expect("subscribe"),
        send(lambda seen: Suback(seen.packet_id, [0x87])),
        ignore(),
    )
    with broker, Client(broker.url) as client:
        client.connect(5)
        for _ in range(2):
            with pytest.raises(SubscribeRefused):
                client.request("t", b"?", 5)
    broker.broker.check()
