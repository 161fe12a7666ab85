"""The model broker answers what Mosquitto answers: tests on the model say something about the world."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from device_sdk.mqtt.decode import decode_packet
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.message import Subscription
from device_sdk.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Unsubscribe,
)
from device_sdk.testing.broker_server import BrokerServer
from device_sdk.testing.model_broker import ModelBroker

if TYPE_CHECKING:
    from device_sdk.testing.broker_process import ChildBroker

NO_MATCHING_SUBSCRIBERS = 0x10
PACKET_IDENTIFIER_NOT_FOUND = 0x92


def traces(version: str) -> dict[str, list[list[Packet]]]:
    """What one client sends, connection by connection; without a DISCONNECT the stream just ends."""
    keep = {"session_expiry_interval": 600} if version == "5.0" else {}
    connect = Connect("c1", clean_start=False, properties=keep)
    subscribe = Subscribe(1, [Subscription("a", 2), Subscription("b/#", 1)])
    return {
        "publish at every QoS to oneself": [
            [
                connect,
                subscribe,
                Publish("a", b"0"),
                Publish("a", b"1", qos=1, packet_id=2),
                Publish("a", b"2", qos=2, packet_id=3),
                Pubrel(3),
                Publish("b/x", b"3", qos=2, packet_id=4),
                Pubrel(4),
                Disconnect(),
            ]
        ],
        "unfinished messages to the client are sent again": [
            [
                connect,
                subscribe,
                Publish("a", b"1", qos=1, packet_id=2),
                Publish("b", b"2", qos=1, packet_id=3),
            ],
            [connect, Puback(1)],
            [connect, Puback(2), Disconnect()],
            [connect, Disconnect()],
        ],
        "a half received QoS 2 message goes on with PUBREL": [
            [connect, subscribe, Publish("a", b"2", qos=2, packet_id=2), Pubrel(2), Pubrec(1)],
            [connect, Disconnect()],
        ],
        # Without a subscriber: the model delivers at PUBLISH, Mosquitto at PUBREL. §4.3.3 allows both.
        "a half sent QoS 2 message is acknowledged again": [
            [connect, Publish("a", b"x", qos=2, packet_id=5)],
            [connect, Publish("a", b"x", qos=2, packet_id=5, dup=True), Pubrel(5), Disconnect()],
        ],
        "PUBREL for what is not there": [[connect, Disconnect()], [connect, Pubrel(9), Disconnect()]],
        "retained messages and unsubscribe": [
            [
                connect,
                Publish("a", b"old", retain=True),
                Publish("a", b"new", retain=True),
                subscribe,
                Unsubscribe(2, ["a", "unknown"]),
                Publish("a", b"", retain=True),
                subscribe,
                Disconnect(),
            ]
        ],
        "clean start forgets": [
            [connect, subscribe, Disconnect()],
            [Connect("c1", clean_start=True), Publish("a", b"nobody"), Disconnect()],
        ],
    }


def play(port: int, version: str, connections: list[list[Packet]]) -> list[dict[str, list[Packet]]]:
    """Play a trace; the answers of each connection by packet type, in order within the type."""
    answers = []
    for packets in connections:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as stream:
            found: dict[str, list[Packet]] = {}
            buffer = b""
            for packet in packets:
                last = isinstance(packet, Disconnect)
                # The PINGRESP says that all answers to the packet before it have come.
                stream.sendall(b"".join(encode_packet(p, version) for p in [packet, Pingreq()][: 2 - last]))
                buffer = _read(stream, version, buffer, found, until=None if last else "pingresp")
            answers.append(found)
    return answers


def _read(
    stream: socket.socket, version: str, data: bytes, found: dict[str, list[Packet]], until: str | None
) -> bytes:
    while True:
        decoded = decode_packet(data, version)
        if decoded is None:
            more = stream.recv(65_536)
            if not more:
                assert until is None, f"closed after {found}"
                return b""
            data += more
            continue
        data = data[decoded[1] :]
        if decoded[0].type == until:
            return data
        found.setdefault(decoded[0].type, []).append(comparable(decoded[0]))


def comparable(packet: Packet) -> Packet:
    """Take away what brokers may choose, and that Mosquitto never says "packet identifier not found"."""
    if isinstance(packet, Connack):
        packet.properties = {}
    if isinstance(packet, Puback | Pubrec) and packet.reason_code == NO_MATCHING_SUBSCRIBERS:
        packet.reason_code = 0
    if isinstance(packet, Pubcomp) and packet.reason_code == PACKET_IDENTIFIER_NOT_FOUND:
        packet.reason_code = 0
    return packet


@pytest.mark.parametrize("version", ["3.1", "3.1.1", "5.0"])
@pytest.mark.parametrize("name", list(traces("5.0")))
def test_the_model_answers_what_mosquitto_answers(mosquitto: ChildBroker, version: str, name: str) -> None:
    trace: Any = traces(version)[name]
    real = play(urlsplit(mosquitto.url(version)).port or 0, version, trace)
    with BrokerServer(ModelBroker()) as server:
        model = play(server.port, version, trace)
        assert server.broker.violations == []
    assert model == real
