"""A client with a list of brokers, on sockets and with threads: failover, the way back, tokens, refusals."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from device_sdk import Client, MemoryStore, ReconnectPolicy, Subscription, Will
from device_sdk.engine.events import ClientEvent
from device_sdk.errors import ConnectFailedError, StoreError, TransportClosedError
from device_sdk.mqtt.packets import Connack, Connect
from device_sdk.net.base import Transport, open_transport
from device_sdk.testing import BrokerServer, ModelBroker, ScriptedBroker
from device_sdk.testing.scripted_broker import expect, send
from tests.steps import eventually

FAST = ReconnectPolicy(first=0.02, longest=0.1, stable=0.1)
Server = BrokerServer[ModelBroker]


def connected_to(events: list[ClientEvent]) -> list[str | None]:
    return [event.value for event in events if event.kind == "connected"]


def place(server: BrokerServer[Any]) -> str:
    return server.url.replace("mqtt://", "tcp ")


def free_url() -> str:
    """Where nobody listens any more."""
    with BrokerServer(ModelBroker()) as server:
        return server.url


def test_connect_succeeds_if_any_broker_of_the_list_is_there(server: Server) -> None:
    events: list[ClientEvent] = []
    with Client([free_url(), server.url], on_event=events.append) as client:
        client.connect(5)
        client.publish("t", b"x", qos=1).wait(5)
    assert connected_to(events) == [place(server)]


def test_connect_fails_when_each_of_them_has_failed() -> None:
    client = Client([free_url(), free_url()])
    with pytest.raises(ConnectFailedError):
        client.connect(5)
    client.close(0)


def test_a_broker_that_dies_is_followed_by_the_next_and_nothing_unanswered_is_lost(server: Server) -> None:
    received: list[bytes] = []
    with (
        BrokerServer(ModelBroker()) as first,
        Client(server.url) as watcher,
        Client([first.url, server.url], reconnect=FAST) as client,
    ):
        watcher.subscribe("t", qos=1, on_message=lambda m: received.append(m.payload)).wait(5)
        client.connect(5)
        client.publish("t", b"at the first", qos=1).wait(5)
        first.stop()
        deliveries = [client.publish("t", b"%d" % number, qos=1) for number in range(100)]
        for delivery in deliveries:
            delivery.wait(5)
        eventually(lambda: len(set(received)) == 100)
    assert sorted(set(received)) == sorted(b"%d" % number for number in range(100))


def test_subscriptions_follow_the_client(server: Server) -> None:
    received: list[bytes] = []
    with (
        BrokerServer(ModelBroker()) as first,
        Client(server.url) as source,
        Client([first.url, server.url], reconnect=FAST) as client,
    ):
        client.subscribe("cmd", qos=1, on_message=lambda m: received.append(m.payload)).wait(5)
        first.stop()
        eventually(lambda: client.stats.connects == 2)
        client.subscribe([Subscription("later")]).wait(5)  # the ones before it have been answered as well
        source.publish("cmd", b"on", qos=1).wait(5)
        eventually(lambda: received)


def test_the_first_broker_is_returned_to_when_it_is_back(server: Server) -> None:
    events: list[ClientEvent] = []
    broker = ModelBroker()
    with BrokerServer(broker) as first:
        port = int(first.url.rpartition(":")[2])
    with Client([f"mqtt://127.0.0.1:{port}", server.url], return_to_first=0.05, reconnect=FAST,
                on_event=events.append) as client:  # fmt: skip
        client.connect(5)
        # It is still away: the connection must not suffer from looking.
        eventually(lambda: any("the present connection goes on" in event.text for event in events))
        assert client.state == "connected"
        with BrokerServer(broker, port=port) as again:
            eventually(lambda: connected_to(events)[-1] == place(again))
            client.publish("t", b"x", qos=1).wait(5)
            client.close()
    assert connected_to(events)[0] == place(server)


def test_the_store_keeps_where_the_session_is() -> None:
    store = MemoryStore()

    def run_at(name: str) -> bool:
        """One life of the program with this broker; whether it began clean."""
        script = [expect("connect"), send(Connack()), expect("disconnect")]
        with BrokerServer(ScriptedBroker(script, version="5.0")) as broker:
            transport: Any = open_transport(broker.url)
            transport.description = name
            client = Client(transport, client_id="node", store=store)
            client.connect(5)
            client.close()
            connect = broker.broker.received[0]
        assert isinstance(connect, Connect)
        return connect.clean_start

    assert [run_at(name) for name in ("a", "a", "b", "b", "a")] == [False, False, True, False, True]


# Credentials and will


def test_credentials_are_asked_for_each_attempt_in_a_thread_of_their_own(server: Server) -> None:
    threads: list[str] = []

    def credentials() -> tuple[str, str]:
        threads.append(threading.current_thread().name)
        return "node", f"token-{len(threads)}"

    with Client([free_url(), server.url], credentials=credentials) as client:
        client.connect(5)
    assert threads == ["device-sdk open"] * 2


def test_credentials_that_raise_fail_the_attempt_and_are_asked_again(server: Server) -> None:
    calls: list[int] = []

    def credentials() -> tuple[str, str]:
        calls.append(1)
        if len(calls) == 1:
            raise KeyError("no token yet")
        return "node", "token"

    client = Client(server.url, credentials=credentials)
    with pytest.raises(ConnectFailedError, match="credentials: the callable raised KeyError"):
        client.connect(5)
    client.connect(5)
    client.close()
    assert len(calls) == 2


def test_a_client_closes_in_time_while_credentials_hang(server: Server) -> None:
    entered, leave = threading.Event(), threading.Event()

    def credentials() -> None:
        entered.set()
        leave.wait(10)

    client = Client(server.url, credentials=credentials)
    client.start()
    try:
        assert entered.wait(5)
        client.close(0)
        assert client.state == "closed"
    finally:
        leave.set()


def test_a_will_is_made_for_each_attempt() -> None:
    script = [expect("connect"), send(Connack()), expect("disconnect")]
    with BrokerServer(ScriptedBroker(script, version="5.0")) as broker:
        client = Client(broker.url, will=lambda: Will("state", b"made now"))
        client.connect(5)
        client.close()
        broker.wait_for(lambda: broker.broker.done, timeout=5)
        connect: Any = broker.broker.received[0]
    assert connect.will.payload == b"made now"


# A store by its path


def test_a_path_is_a_store_on_disk(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    offline = Client("memory://nobody", client_id="node", store=path)
    offline.publish("t", b"kept", qos=1).wait_stored(5)
    offline.close(0)
    received: list[bytes] = []
    with Client(server.url) as watcher:
        watcher.subscribe("t", qos=1, on_message=lambda m: received.append(m.payload)).wait(5)
        with Client(server.url, client_id="node", store=os.fspath(path)):
            eventually(lambda: received)
    assert received == [b"kept"]


def test_a_path_that_cannot_be_opened_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError):
        Client("memory://nobody", store=tmp_path / "file" / "queue.db")


def test_a_python_without_sqlite_says_so(tmp_path: Path, mocker: MockerFixture) -> None:
    missing = ModuleNotFoundError("No module named '_sqlite3'", name="_sqlite3")
    mocker.patch("device_sdk.engine.build.load", side_effect=missing)
    with pytest.raises(StoreError, match="sqlite3, which was left out of this Python"):
        Client("memory://nobody", store=tmp_path / "queue.db")


# A stuck window


def test_ack_timeout_ends_a_connection_that_acknowledges_nothing() -> None:
    events: list[ClientEvent] = []
    silent = [expect("connect"), send(Connack()), expect("publish"), expect("disconnect")]
    with BrokerServer(ScriptedBroker(silent, version="5.0")) as broker:
        client = Client(broker.url, ack_timeout=0.2, on_event=events.append)
        client.connect(5)
        client.publish("t", b"x", qos=1)
        eventually(lambda: any(event.kind == "disconnected" for event in events))
        client.close(0)
    error = next(event.error for event in events if event.kind == "disconnected")
    assert isinstance(error, TransportClosedError)
    assert "ack_timeout" in str(error)


class Counting(Transport):
    """Refuses every attempt, and counts them."""

    def __init__(self, name: str) -> None:
        self.description = name
        self.opens = 0

    def open(self, deadline: float) -> None:
        self.opens += 1
        raise ConnectFailedError(f"{self.description}: refused")

    def fileno(self) -> int:
        raise TransportClosedError("never open")

    def recv(self) -> bytes | None:
        raise TransportClosedError("never open")

    def send(self, data: bytes | bytearray | memoryview) -> int:
        raise TransportClosedError("never open")

    def abort(self) -> None:
        """Nothing is open."""

    def close(self) -> None:
        """Nothing is open."""


def test_every_broker_has_its_turn_and_then_the_client_waits() -> None:
    transports = [Counting(f"b{number}") for number in range(3)]
    with Client(transports, reconnect=ReconnectPolicy(first=1000, longest=1000)) as client:
        eventually(lambda: client.state == "waiting" and transports[2].opens)
        assert [transport.opens for transport in transports] == [1, 1, 1]
        client.close(0)
