"""The loops of the façade: of the program, in a thread, and in pieces for another event loop."""

from __future__ import annotations

import asyncio
import gc
import select
import socket
import threading
import time
import weakref
from itertools import pairwise
from typing import Any

import pytest

import device_sdk.paho.client as mqtt
from device_sdk.mqtt.packets import Connack, Disconnect
from device_sdk.paho._stream import SocketStream
from device_sdk.store.memory import MemoryStore
from device_sdk.testing import BrokerServer, ModelBroker
from device_sdk.testing.scripted_broker import close, expect, ignore, send, stall
from tests.paho.conftest import SECONDS, Clients, loop_threads, loop_until, scripted, start
from tests.steps import eventually, join_threads


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def test_connect_and_publish_write_at_once_without_a_loop(clients: Clients) -> None:
    with scripted([expect("connect"), expect("publish", topic="a"), ignore()]) as server:
        client = clients("c")
        client.connect("127.0.0.1", server.port)
        assert client.publish("a", "b").is_published()
        server.wait_for(lambda: server.broker.done, SECONDS)


def test_loop_tells_why_the_connection_has_ended(clients: Clients) -> None:
    with scripted([expect("connect"), send(Connack()), close()]) as server:
        client = clients("c")
        client.connect("127.0.0.1", server.port)
        codes = [client.loop(1.0)]
        while codes[-1] == mqtt.MQTT_ERR_SUCCESS:
            codes.append(client.loop(1.0))
        assert codes[-1] == mqtt.MQTT_ERR_CONN_LOST
        assert client.loop() == mqtt.MQTT_ERR_NO_CONN
        assert client.socket() is None


def test_a_broker_that_does_not_answer_pings_is_left(clients: Clients) -> None:
    with scripted([expect("connect"), send(Connack()), expect("pingreq"), stall(), ignore()]) as server:
        server.broker.answer_pings = False
        reasons: list[Any] = []
        client = clients("c", reconnect_on_failure=False)
        client.on_disconnect = lambda c, d, flags, reason, properties: reasons.append(reason)
        start(client, server, keepalive=1)
        eventually(lambda: reasons)
        assert reasons == ["Keep alive timeout"]


def test_loop_forever_raises_when_the_first_connection_of_connect_async_fails(clients: Clients) -> None:
    failed: list[str] = []
    client = clients("c")
    client.on_connect_fail = lambda *_: failed.append("once")
    client.connect_async("127.0.0.1", closed_port())
    with pytest.raises(ConnectionRefusedError):
        client.loop_forever()
    assert failed == ["once"]


def test_loop_forever_can_retry_the_first_connection(clients: Clients) -> None:
    failed: list[float] = []

    def on_connect_fail(client: mqtt.Client, data: object) -> None:
        failed.append(time.monotonic())
        if len(failed) == 4:
            client.disconnect()

    client = clients("c")
    client.on_connect_fail = on_connect_fail
    client.reconnect_delay_set(0.05, 0.1)
    client.connect_async("127.0.0.1", closed_port())
    client.loop_forever(retry_first_connection=True)
    waits = [later - earlier for earlier, later in pairwise(failed)]
    assert waits[0] >= 0.05
    assert min(waits[1:]) >= 0.1  # doubled, and then the longest


def test_connect_does_not_call_on_connect_fail(clients: Clients) -> None:
    failed: list[object] = []
    client = clients("c")
    client.on_connect_fail = lambda *_: failed.append(1)
    with pytest.raises(ConnectionRefusedError):
        client.connect("127.0.0.1", closed_port())
    assert not failed


def test_the_thread_connects_again_and_the_program_subscribes_once_per_connection(clients: Clients) -> None:
    def session() -> list[Any]:
        return [expect("connect"), send(Connack()), expect("subscribe", packet_id=lambda number: number > 0)]

    with scripted([*session(), close()], [*session(), ignore()]) as server:
        client = clients("c")
        client.reconnect_delay_set(0.01)
        client.on_connect = lambda *_: client.subscribe("a")
        client.connect("127.0.0.1", server.port)
        client.loop_start()
        server.wait_for(lambda: server.broker.done, SECONDS)


def test_without_reconnect_on_failure_the_loop_ends_with_the_connection(clients: Clients) -> None:
    with scripted([expect("connect"), send(Connack()), close()]) as server:
        client = clients("c", reconnect_on_failure=False)
        client.connect("127.0.0.1", server.port)
        assert client.loop_forever() == mqtt.MQTT_ERR_CONN_LOST


def test_loop_start_twice_and_loop_stop_without_a_thread_are_invalid(clients: Clients) -> None:
    client = clients("c")
    assert client.loop_stop() == mqtt.MQTT_ERR_INVAL
    assert client.loop_start() == mqtt.MQTT_ERR_SUCCESS
    assert client.loop_start() == mqtt.MQTT_ERR_INVAL
    assert client.loop_stop() == mqtt.MQTT_ERR_SUCCESS


def test_loop_stop_in_a_callback_ends_the_thread_after_it(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    client = clients("c")
    client.on_connect = lambda *_: client.loop_stop()
    client.connect("127.0.0.1", server.port)
    client.loop_start()
    join_threads("paho-mqtt-client-c")
    assert client.is_connected()


def test_loop_stop_ends_a_wait_between_two_attempts(clients: Clients) -> None:
    client = clients("c")
    tried = threading.Event()
    client.on_connect_fail = lambda *_: tried.set()
    client.reconnect_delay_set(60)
    client.connect_async("127.0.0.1", closed_port())
    client.loop_start()
    assert tried.wait(SECONDS)
    began = time.monotonic()
    client.loop_stop()
    assert time.monotonic() - began < 2


def test_a_thread_that_began_without_a_host_connects_later(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    client = clients("c")
    client.reconnect_delay_set(0.05)
    client.loop_start()
    client.connect_async("127.0.0.1", server.port)
    eventually(client.is_connected)


def test_socket_callbacks_come_in_the_documented_order(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    calls: list[str] = []
    client = clients("c")
    for name in (
        "on_socket_open",
        "on_socket_register_write",
        "on_socket_unregister_write",
        "on_socket_close",
    ):

        def noting(client: mqtt.Client, data: object, sock: socket.socket, name: str = name) -> None:
            assert sock.fileno() >= 0
            calls.append(name.removeprefix("on_socket_"))

        setattr(client, name, noting)
    client.connect("127.0.0.1", server.port)
    assert calls == ["open", "register_write"]
    assert client.want_write()
    client.loop_write()
    assert calls == ["open", "register_write", "unregister_write"]
    assert not client.want_write()
    loop_until(client, client.is_connected)
    client.publish("a", "b")
    assert calls[3:] == ["register_write"]
    client.loop_write()
    client.disconnect()
    client.loop_write()
    assert calls[3:] == ["register_write", "unregister_write", "register_write", "unregister_write", "close"]
    assert client.loop_read() == client.loop_write() == client.loop_misc() == mqtt.MQTT_ERR_NO_CONN


def test_a_select_loop_of_the_program_works(clients: Clients, server: BrokerServer[ModelBroker]) -> None:
    seen: list[bytes] = []
    client = clients("c")
    client.on_connect = lambda *_: client.subscribe("a", 1)
    client.on_subscribe = lambda *_: client.publish("a", b"x" * 300_000, 1)
    client.on_publish = lambda *_: client.disconnect() if seen else None
    client.on_message = lambda c, d, message: seen.append(message.payload)
    client.connect("127.0.0.1", server.port)
    deadline = time.monotonic() + SECONDS
    while client.socket() is not None and time.monotonic() < deadline:
        sock = client.socket()
        readable, writable, _ = select.select([sock], [sock] if client.want_write() else [], [], 0.1)
        if readable:
            client.loop_read()
        if writable:
            client.loop_write()
        client.loop_misc()
    assert [len(payload) for payload in seen] == [300_000]


def test_an_asyncio_loop_of_the_program_works(clients: Clients, server: BrokerServer[ModelBroker]) -> None:
    async def run() -> bytes:
        loop = asyncio.get_running_loop()
        got: asyncio.Future[bytes] = loop.create_future()
        closed: asyncio.Future[bool] = loop.create_future()
        client = clients("c")
        client.on_socket_open = lambda c, d, sock: loop.add_reader(sock, client.loop_read)
        client.on_socket_close = lambda c, d, sock: closed.set_result(loop.remove_reader(sock))
        client.on_socket_register_write = lambda c, d, sock: loop.add_writer(sock, client.loop_write)
        client.on_socket_unregister_write = lambda c, d, sock: loop.remove_writer(sock)
        client.on_connect = lambda *_: client.subscribe("a", 1)
        client.on_subscribe = lambda *_: client.publish("a", b"x" * 300_000, 1)
        client.on_message = lambda c, d, message: got.set_result(message.payload)
        client.connect("127.0.0.1", server.port)
        client.socket().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        payload = await asyncio.wait_for(got, SECONDS)
        client.disconnect()
        await asyncio.wait_for(closed, SECONDS)
        return payload

    assert len(asyncio.run(run())) == 300_000


def test_publishers_wake_a_loop_that_waits(clients: Clients, server: BrokerServer[ModelBroker]) -> None:
    client = start(clients("c"), server)
    latencies = []
    for _ in range(20):
        began = time.perf_counter()
        client.publish("a", "b", 1).wait_for_publish(SECONDS)
        latencies.append(time.perf_counter() - began)
    assert sorted(latencies)[10] < 0.04  # without a wake-up it would be the loop's second


def test_system_exit_in_a_callback_ends_the_thread(
    clients: Clients, server: BrokerServer[ModelBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda report: None)  # Python's own would say nothing either

    def on_connect(*_: object) -> None:
        raise SystemExit

    client = clients("c")
    client.on_connect = on_connect
    client.connect("127.0.0.1", server.port)
    client.loop_start()
    join_threads("paho-mqtt-client-c")


def test_disconnect_in_on_connect_ends_loop_forever(clients: Clients) -> None:
    with scripted([expect("connect"), send(Connack()), expect(Disconnect()), ignore()]) as server:
        ended: list[Any] = []
        client = clients("c")
        client.on_connect = lambda *_: client.disconnect()
        client.on_disconnect = lambda c, d, flags, reason, properties: ended.append(reason)
        client.connect("127.0.0.1", server.port)
        client.loop_forever()
        assert ended == ["Normal disconnection"]


def test_a_dropped_client_ends_its_connection_without_the_garbage_collector(
    server: BrokerServer[ModelBroker],
) -> None:
    gc.disable()
    try:
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", server.port)
        loop_until(client, client.is_connected)
        sock, gone = client.socket(), weakref.ref(client)
        del client
        assert gone() is None
        assert sock.fileno() == -1
    finally:
        gc.enable()


def test_loop_start_and_loop_stop_race_without_harm(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, codes = clients("c"), list[object]()
    made, go = threading.Event(), threading.Event()

    class SlowThread(threading.Thread):
        def start(self) -> None:
            if self.name.startswith("paho"):
                made.set()
                go.wait(0.2)
            super().start()

    monkeypatch.setattr(threading, "Thread", SlowThread)
    first = threading.Thread(target=client.loop_start, daemon=True)
    first.start()
    assert made.wait(SECONDS)
    second = threading.Thread(target=lambda: codes.append(client.loop_stop()), daemon=True)
    second.start()
    second.join(SECONDS)
    first.join(SECONDS)
    assert codes == [mqtt.MQTT_ERR_SUCCESS]
    assert loop_threads("c") == []


def test_a_connack_of_a_connection_that_another_thread_has_left_counts_for_nothing(
    clients: Clients, server: BrokerServer[ModelBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Overtaken(SocketStream):
        """After its thread has read, another one calls reconnect(), which begins with this."""

        def recv(self) -> bytes | None:
            data = super().recv()
            if data:
                client._core.leave()
            return data

    monkeypatch.setattr("device_sdk.paho._endpoint.SocketStream", Overtaken)
    client = clients("c")
    client.connect("127.0.0.1", server.port)
    loop_until(client, lambda: client.socket() is None)
    assert not client.is_connected()
    monkeypatch.undo()
    start(client, server)


def test_a_loop_in_a_thread_goes_on_after_reinitialise(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    client = start(clients("c"), server)
    client.reinitialise("d")
    start(client, server)  # its loop_start() finds that there is a loop
    client.publish("a", "b", 1).wait_for_publish(SECONDS)
    assert client.loop_stop() == mqtt.MQTT_ERR_SUCCESS
    assert loop_threads("c") == []


def test_a_callback_may_reinitialise_the_client_that_loop_forever_runs(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    client = clients("c")
    connected: list[str] = []

    def again(*_: object) -> None:
        connected.append("d")
        client.disconnect()

    def begin_anew(*_: object) -> None:
        connected.append("c")
        client.reinitialise("d")
        client.on_connect = again
        client.connect("127.0.0.1", server.port)

    client.on_connect = begin_anew
    client.connect("127.0.0.1", server.port)
    client.loop_forever()
    assert connected == ["c", "d"]


def test_a_loop_that_was_started_first_serves_the_store_that_is_set_then(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    client = clients("c")
    client.loop_start()
    client.store_set(MemoryStore())
    start(client, server)
    client.publish("a", "b", 1).wait_for_publish(SECONDS)


@pytest.mark.parametrize("manual_ack", [False, True])
def test_a_dropped_client_is_freed_whatever_it_was_made_with(
    server: BrokerServer[ModelBroker], manual_ack: bool
) -> None:
    gc.disable()
    try:
        store = MemoryStore()
        client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, "c", clean_session=False, manual_ack=manual_ack, store=store
        )
        start(client, server)
        info = client.publish("a", "b", 1)
        info.wait_for_publish(SECONDS)
        client.loop_stop()
        sock, gone = client.socket(), weakref.ref(client)
        del client
        assert gone() is None
        assert sock.fileno() == -1
        store.open()  # which raises while a client uses it
    finally:
        gc.enable()
