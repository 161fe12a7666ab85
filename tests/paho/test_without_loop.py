"""Publishing without a network loop: messages leave in the thread that publishes, before CONNACK too."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import device_sdk.paho.client as mqtt
from device_sdk.mqtt import decode_packet
from device_sdk.mqtt.packets import Connack, Puback, Publish
from device_sdk.testing import BrokerServer, ModelBroker
from device_sdk.testing.scripted_broker import expect, ignore, send
from tests.paho.conftest import SECONDS, Clients, scripted
from tests.steps import eventually


class MuteBroker:
    """A broker's end that takes what comes and says nothing; ``read()`` is what has come up to the end."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(SECONDS)
        self.port: int = self._listener.getsockname()[1]
        self._accepted: list[socket.socket] = []

    def accept(self) -> socket.socket:
        sock, _ = self._listener.accept()
        sock.settimeout(SECONDS)
        self._accepted.append(sock)
        return sock

    def close(self) -> None:
        for sock in (self._listener, *self._accepted):
            sock.close()


@pytest.fixture
def mute() -> Iterator[MuteBroker]:
    broker = MuteBroker()
    yield broker
    broker.close()


def packets(data: bytes) -> list[Any]:
    """Decode what a broker has read."""
    found = []
    while data:
        decoded = decode_packet(data, "3.1.1")
        assert decoded is not None
        found.append(decoded[0])
        data = data[decoded[1] :]
    return found


def what_came(sock: socket.socket) -> list[Any]:
    """Return the packets that have come, without waiting for more than the first bytes."""
    data = b""
    while select.select([sock], [], [], 0 if data else SECONDS)[0]:
        data += sock.recv(65536)
    return packets(data)


def types_and_payloads(found: list[Any]) -> list[Any]:
    return [packet.payload if isinstance(packet, Publish) else packet.type for packet in found]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_has_left_when_publish_returns(clients: Clients, mute: MuteBroker, qos: int) -> None:
    client = clients("c")
    client.connect("127.0.0.1", mute.port)
    server = mute.accept()
    assert [client.publish("a", str(number), qos).rc for number in range(3)] == [0, 0, 0]
    assert types_and_payloads(what_came(server)) == ["connect", b"0", b"1", b"2"]


def test_the_window_holds_before_connack(clients: Clients, mute: MuteBroker) -> None:
    client = clients("c")
    client.max_inflight_messages_set(2)
    client.connect("127.0.0.1", mute.port)
    server = mute.accept()
    for number in range(4):
        client.publish("a", str(number), 1)
    assert types_and_payloads(what_came(server)) == ["connect", b"0", b"1"]


def test_messages_that_waited_for_a_connection_leave_before_the_new_one(
    clients: Clients, mute: MuteBroker
) -> None:
    client = clients("c")
    old = client.publish("a", "old", 1)
    client.connect("127.0.0.1", mute.port)
    server = mute.accept()
    new = client.publish("a", "new", 1)
    found = what_came(server)
    assert types_and_payloads(found) == ["connect", b"old", b"new"]
    assert [packet.packet_id for packet in found[1:]] == [old.mid, new.mid]


def test_every_connection_of_a_client_without_a_loop_has_its_own_window(
    clients: Clients, mute: MuteBroker
) -> None:
    client = clients("c")
    client.max_inflight_messages_set(2)
    for round_ in range(3):  # nothing is ever acknowledged
        client.connect("127.0.0.1", mute.port)
        server = mute.accept()
        for number in range(2):
            client.publish("a", f"{round_}{number}", 1)
        wanted = ["connect", b"%d0" % round_, b"%d1" % round_]
        assert types_and_payloads(what_came(server)) == wanted
        server.close()


def test_a_loop_that_comes_later_goes_on_without_repeating(clients: Clients) -> None:
    script = [expect("connect"), expect("publish", dup=False), send(Connack(), Puback(1))]
    with scripted([*script, expect("publish", payload=b"2"), send(Puback(2)), ignore()]) as server:
        client = clients("c")
        client.connect("127.0.0.1", server.port)
        first = client.publish("a", "1", 1)
        client.loop_start()
        first.wait_for_publish(SECONDS)
        client.publish("a", "2", 1).wait_for_publish(SECONDS)


def test_publish_in_a_callback_waits_for_connack(clients: Clients, mute: MuteBroker) -> None:
    client = clients("c")
    answers: list[int] = []

    def on_disconnect(*_: Any) -> None:
        client.on_disconnect = None
        client.reconnect()
        answers.append(client.publish("a", "x", 1).rc)

    client.on_disconnect = on_disconnect
    client.connect("127.0.0.1", mute.port)
    mute.accept().close()
    while not answers:
        client.loop(0.05)
    assert types_and_payloads(what_came(mute.accept())) == ["connect"]


def test_with_a_thread_messages_wait_for_the_limits_in_connack(clients: Clients) -> None:
    limited = Connack(False, 0, {"maximum_packet_size": 40})
    with scripted([expect("connect"), send(limited), ignore()], version="5.0") as server:
        client = clients("c", protocol=mqtt.MQTTv5)
        client.connect_async("127.0.0.1", server.port)
        info = client.publish("a", bytes(100), 1)
        client.loop_start()
        with pytest.raises(RuntimeError):
            info.wait_for_publish(SECONDS)


@pytest.mark.parametrize("runs", [False, True])
def test_disconnect_sends_first_what_waits_for_connack(
    clients: Clients, mute: MuteBroker, runs: bool
) -> None:
    client = clients("c")
    client.connect("127.0.0.1", mute.port)
    server = mute.accept()
    if runs:
        client.loop_start()
    for number in range(3):
        client.publish("a", str(number), 1)
    read: list[bytes] = []

    def serve() -> None:
        data = b""
        while not data.endswith(b"\xe0\x00"):
            data += server.recv(65536)
        read.append(data)
        server.close()

    serving = threading.Thread(target=serve)
    serving.start()
    assert client.disconnect() == mqtt.MQTT_ERR_SUCCESS
    serving.join(SECONDS)
    assert types_and_payloads(packets(read[0])) == ["connect", b"0", b"1", b"2", "disconnect"]


def test_disconnect_hears_the_broker_out_so_that_no_reset_overtakes_a_message(
    clients: Clients, mute: MuteBroker
) -> None:
    client = clients("c")
    client.connect("127.0.0.1", mute.port)
    server = mute.accept()
    client.publish("a", "x", 1)
    leaving = threading.Thread(target=client.disconnect)
    leaving.start()
    data = b""
    while not data.endswith(b"\xe0\x00"):
        data += server.recv(65536)
    server.sendall(b"\x20\x02\x00\x00\x40\x02\x00\x01")  # CONNACK and PUBACK, later than DISCONNECT
    assert leaving.is_alive()
    server.shutdown(socket.SHUT_WR)
    leaving.join(SECONDS)
    assert server.recv(1) == b""  # an end, no reset
    assert client.socket() is None


def test_an_event_loop_of_the_program_is_never_kept_waiting(clients: Clients, mute: MuteBroker) -> None:
    client = clients("c")
    client.on_socket_register_write = lambda *_: None
    client.connect("127.0.0.1", mute.port)
    mute.accept()
    client.publish("a", "x", 1)
    client.disconnect()
    assert client.loop_write() == mqtt.MQTT_ERR_SUCCESS  # returns, although the broker says nothing
    assert client.socket() is None


def test_five_of_five_arrive_without_a_loop(clients: Clients, server: BrokerServer[ModelBroker]) -> None:
    client = clients("c")
    client.connect("127.0.0.1", server.port)
    assert [client.publish("a", str(number), 1).rc for number in range(5)] == [0] * 5
    assert client.disconnect() == mqtt.MQTT_ERR_SUCCESS
    eventually(lambda: len(server.call(lambda: list(server.broker.journal))) == 5)
