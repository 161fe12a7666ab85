"""Manual acknowledgement through the client: handlers, the inbox, other threads, messages for nobody."""

from __future__ import annotations

import pickle
import queue
import threading

import pytest

from device_sdk import Client, Message
from device_sdk.testing import BrokerServer, ModelBroker
from tests.steps import eventually

Server = BrokerServer[ModelBroker]


def test_another_thread_acknowledges_long_after_the_handler(server: Server) -> None:
    held: queue.SimpleQueue[Message] = queue.SimpleQueue()
    with Client(server.url, manual_ack=True) as client:
        client.subscribe("t", qos=2, on_message=held.put).wait(5)
        for qos in (1, 2):
            client.publish("t", b"x", qos=qos).wait(5)
        messages = [held.get(timeout=5) for _ in range(2)]
        assert client.stats.acks_held == 2

        def acknowledge() -> None:
            for message in reversed(messages):
                message.acknowledge()

        thread = threading.Thread(target=acknowledge)
        thread.start()
        thread.join(5)
        assert client.stats.acks_held == 0


def test_a_handler_that_raises_leaves_its_message_unacknowledged(server: Server) -> None:
    def handler(message: Message) -> None:
        raise ValueError("not now")

    with Client(server.url, manual_ack=True) as client:
        client.subscribe("t", qos=1, on_message=handler).wait(5)
        client.publish("t", b"x", qos=1).wait(5)
        eventually(lambda: client.stats.received == 1)
        client.subscribe("other").wait(5)
        assert client.stats.acks_held == 1


def test_a_message_of_the_inbox_waits_for_its_acknowledgement_too(server: Server) -> None:
    with Client(server.url, manual_ack=True) as client:
        inbox = client.messages()
        client.subscribe("t", qos=1).wait(5)
        for payload in (b"1", b"2"):
            client.publish("t", payload, qos=1).wait(5)
        first, second = inbox.get(5), inbox.get(5)
        assert client.stats.acks_held == 2
        first.acknowledge()
        second.acknowledge()
        assert client.stats.acks_held == 0


def test_what_nobody_handles_is_acknowledged_because_nobody_could(server: Server) -> None:
    with Client(server.url, manual_ack=True) as client:
        client.subscribe("t", qos=1).wait(5)
        client.publish("t", b"x", qos=1).wait(5)
        eventually(lambda: client.stats.received == 1 and client.stats.acks_held == 0)


def test_an_acknowledgement_after_close_does_nothing(server: Server) -> None:
    held: queue.SimpleQueue[Message] = queue.SimpleQueue()
    with Client(server.url, manual_ack=True) as client:
        client.subscribe("t", qos=1, on_message=held.put).wait(5)
        client.publish("t", b"x", qos=1).wait(5)
        message = held.get(timeout=5)
    message.acknowledge()


def test_a_message_may_go_to_another_process_which_cannot_acknowledge_it(server: Server) -> None:
    with Client(server.url, manual_ack=True) as client:
        inbox = client.messages()
        client.subscribe("t", qos=1).wait(5)
        client.publish("t", b"x", qos=1, properties={"user_property": [("unit", "V")]})
        message = inbox.get(5)
        arrived = pickle.loads(pickle.dumps(message))
        assert (arrived.payload, arrived.properties) == (b"x", message.properties)
        assert arrived.redelivery_key == message.redelivery_key
        with pytest.raises(RuntimeError, match="this is a copy"):
            arrived.acknowledge()
        assert client.stats.acks_held == 1
        message.acknowledge()
        assert client.stats.acks_held == 0


def test_who_waits_for_the_next_message_gets_it_although_too_much_is_held(server: Server) -> None:
    """With manual_ack reading pauses at inbox_bytes, but not for who waits for one more message."""
    with (
        Client(server.url, manual_ack=True, inbox_bytes=1_000) as client,
        Client(server.url) as source,
    ):
        inbox = client.messages()
        client.subscribe("t", qos=1).wait(5)
        for _ in range(5):
            source.publish("t", bytes(2_000), qos=1).wait(5)
        taken = [inbox.get(5) for _ in range(5)]
        for message in taken:
            message.acknowledge()
        assert client.stats.acks_held == 0


def test_a_thread_that_holds_too_much_still_gets_the_answers_that_it_waits_for(server: Server) -> None:
    held: queue.SimpleQueue[Message] = queue.SimpleQueue()
    with (
        Client(server.url, manual_ack=True, inbox_bytes=1_000) as client,
        Client(server.url) as source,
    ):
        client.subscribe("t", qos=1, on_message=held.put).wait(5)
        for _ in range(5):
            source.publish("t", bytes(2_000), qos=1).wait(5)
        messages = [held.get(timeout=5)]
        client.publish("result", b"x", qos=2).wait(5)
        client.subscribe("other", qos=1).wait(5)
        while len(messages) < 5:
            messages[-1].acknowledge()
            messages.append(held.get(timeout=5))
        messages[-1].acknowledge()
        eventually(lambda: client.stats.acks_held == 0)
