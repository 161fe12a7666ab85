"""Birth and farewell of a client with threads, and of one with an event loop, against scripted brokers."""

from __future__ import annotations

import asyncio
import threading
import time
from queue import SimpleQueue
from typing import Any

import pytest

from device_sdk import AsyncClient, Client, Message
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.errors import ArgumentError, ArgumentTypeError
from device_sdk.mqtt.packets import Connack, Puback
from device_sdk.testing import BrokerServer, ModelBroker, ScriptedBroker
from device_sdk.testing.scripted_broker import expect, send

PATIENCE = 10.0
FAST = ReconnectPolicy(first=0.01, longest=0.02)
ONLINE = Message("state", b"online", qos=1, retain=True)
OFFLINE = Message("state", b"offline", qos=1, retain=True)


def in_thread(url: str, drain: float) -> None:
    client = Client(url, birth=ONLINE, farewell=OFFLINE)
    client.connect(PATIENCE)
    client.close(drain)


def in_loop(url: str, drain: float) -> None:
    async def main() -> None:
        client = AsyncClient(url, birth=ONLINE, farewell=OFFLINE)
        await client.connect(PATIENCE)
        await client.close(drain)

    asyncio.run(main())


EACH_CLIENT = pytest.mark.parametrize("use", [in_thread, in_loop])


@EACH_CLIENT
def test_close_says_the_farewell_and_waits_for_its_answer(use: Any) -> None:
    broker = ScriptedBroker([
        expect("connect"), send(Connack()), expect("publish", payload=b"online"), send(Puback(1)),
        expect("publish", payload=b"offline"), send(Puback(2)), expect("disconnect", reason_code=0),
    ])  # fmt: skip
    with BrokerServer(broker) as server:
        begin = time.monotonic()
        use(server.url, PATIENCE)
        assert time.monotonic() - begin < PATIENCE, "it does not wait for its drain to be over"
        server.wait_for(lambda: broker.done)
        server.call(broker.check)


@EACH_CLIENT
@pytest.mark.parametrize("drain", [0.0, 0.2])
def test_a_farewell_that_is_not_acknowledged_is_bounded_by_the_drain(use: Any, drain: float) -> None:
    """DISCONNECT follows: a broker that reads it has read the farewell before."""
    broker = ScriptedBroker([
        expect("connect"), send(Connack()), expect("publish", payload=b"online"), send(Puback(1)),
        expect("publish", payload=b"offline"), expect("disconnect"),
    ])  # fmt: skip
    with BrokerServer(broker) as server:
        begin = time.monotonic()
        use(server.url, drain)
        assert time.monotonic() - begin < 5
        server.wait_for(lambda: broker.done)
        server.call(broker.check)


def test_a_broker_that_is_gone_gets_no_farewell_and_close_is_bounded() -> None:
    with BrokerServer(ModelBroker()) as server:
        client = Client(server.url, birth=ONLINE, farewell=OFFLINE)
        client.connect(PATIENCE)
        server.stop()
        begin = time.monotonic()
        client.close(0.2)
        assert time.monotonic() - begin < 5


def test_a_callable_has_a_thread_of_its_own_and_may_use_the_client() -> None:
    threads: list[str] = []

    def birth() -> Message:
        threads.append(threading.current_thread().name)
        client.publish("log", b"asked", qos=1)
        return ONLINE

    with BrokerServer(ModelBroker()) as server:
        client = Client(server.url, birth=birth)
        with client:
            server.wait_for(lambda: len(server.broker.journal) == 2)
        assert [message.payload for message in server.broker.journal] == [b"online", b"asked"]
        assert server.broker.violations == []
    assert threads == ["device-sdk open"]


def test_a_callable_that_raises_costs_the_birth_and_not_the_connection() -> None:
    told: SimpleQueue[Any] = SimpleQueue()
    with BrokerServer(ModelBroker()) as server:
        client = Client(server.url, birth=lambda: 1 / 0, on_event=told.put)  # type: ignore[arg-type,return-value]
        client.connect(PATIENCE)
        client.publish("t", b"x", qos=1).wait(PATIENCE)
        client.close()
        assert server.broker.payloads() == [b"x"]
    events = {}
    while not told.empty():
        event = told.get()
        events[event.kind] = event.text
    assert events["no_birth"] == "birth: the callable raised ZeroDivisionError: division by zero"


def test_a_callable_that_hangs_costs_one_attempt_and_then_only_the_birth() -> None:
    go_on, told = threading.Event(), SimpleQueue[Any]()

    def birth() -> Message:
        go_on.wait(PATIENCE)
        return ONLINE

    with BrokerServer(ModelBroker()) as server:
        client = Client(
            server.url, birth=birth, connect_timeout=0.05, reconnect=FAST, on_event=told.put
        )  # fmt: skip
        try:
            client.start()
            client.publish("t", b"x", qos=1).wait(PATIENCE)
            texts = [told.get(timeout=PATIENCE).text for _ in range(3)]
            begin = time.monotonic()
            client.close()
            assert time.monotonic() - begin < 8
        finally:
            go_on.set()
        assert server.broker.payloads() == [b"x"]
    assert "credentials(), will() or birth() has not returned within 0.05 s" in texts[0]
    assert any("birth: the call for an earlier attempt has not returned yet" in text for text in texts)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_wrong_greetings_are_errors_of_the_constructor(kind: type[Client | AsyncClient]) -> None:
    with pytest.raises(ArgumentError, match=r"birth\.qos: must be 0 or 1"):
        kind("mqtt://localhost", birth=Message("a", b"", qos=2))
    with pytest.raises(ArgumentTypeError, match="farewell: must be a Message, not str"):
        kind("mqtt://localhost", farewell="offline")  # type: ignore[arg-type]
