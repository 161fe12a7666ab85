"""Statements about packet identifiers and the order of answers, beside those of the single exchanges."""

from __future__ import annotations

import pytest

from device_sdk import Subscription
from device_sdk.errors import SubscribeRefused
from device_sdk.mqtt import Connack, Pubrec, Suback
from device_sdk.testing import ScriptedBroker
from device_sdk.testing.scripted_broker import expect, send
from tests.conformance.scene import Scene
from tests.mqtt.peer import Peer, connected, end_of


@pytest.mark.conformance("5.0", "MQTT-2.2.1-3")
@pytest.mark.conformance("3.1.1", "MQTT-2.3.1-1")
@pytest.mark.parametrize("first", [0x32, 0x34], ids=["QoS 1", "QoS 2"])
@pytest.mark.parametrize("version", ["3.1", "3.1.1", "5.0"])
def test_packet_identifier_0_in_publish_ends_the_connection(version: str, first: int) -> None:
    body = bytes.fromhex("0001 74 0000") + (b"\0" if version == "5.0" else b"") + b"x"
    peer = connected(version)
    assert end_of(peer.receive_bytes(bytes((first, len(body))) + body)).reason_code == 0x82


def _subscribe(peer: Peer) -> int:
    return peer.protocol.subscribe([Subscription("a")])


def _publish(peer: Peer) -> int:
    return peer.publish(b"x", 1).packet_id


def _publish_to_pubrec(peer: Peer) -> int:
    packet_id = peer.publish(b"x", 2).packet_id
    peer.receive(Pubrec(packet_id))
    return packet_id


@pytest.mark.conformance("5.0", "MQTT-2.2.1-3")
@pytest.mark.conformance("3.1.1", "MQTT-2.3.1-2")
@pytest.mark.parametrize("use", [_subscribe, _publish, _publish_to_pubrec])
@pytest.mark.parametrize("before", [0, 1, 2, 65_534, 65_535])
def test_an_identifier_in_use_is_passed_over(use: object, before: int) -> None:
    """Whether it is the next one or the search comes to it, after 65,535 too."""
    assert callable(use)
    peer = connected()
    taken = []
    for start in (0, 1, 65_534):
        peer.session.last_packet_id = start
        taken.append(use(peer))
    assert taken == [1, 2, 65_535]
    peer.session.last_packet_id = before
    assert [peer.publish(b"x", 1).packet_id for _ in range(2)] == [3, 4]


@pytest.mark.conformance("5.0", "MQTT-3.8.4-7", "MQTT-3.9.3-1")
@pytest.mark.conformance("3.1.1", "MQTT-3.8.4-5", "MQTT-3.9.3-1")
@pytest.mark.parametrize("refused", range(3))
@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
def test_the_refused_filter_is_the_one_at_the_place_of_the_code(version: str, refused: int) -> None:
    codes = [0x80 if place == refused else place for place in range(3)]
    scene = Scene(
        ScriptedBroker(
            [expect("connect"), send(Connack()), expect("subscribe"), send(Suback(1, codes))], version=version
        ),
        version=version,
    )
    names = ["first", "second", "third"]
    request = scene.client.subscribe([Subscription(name, 2) for name in names])
    scene.start()
    with pytest.raises(SubscribeRefused) as caught:
        request.wait(0)
    assert [name for name in names if name in str(caught.value)] == [names[refused]]
    scene.close()
