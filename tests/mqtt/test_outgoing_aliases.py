"""Outgoing topic aliases: when they are used, what is repeated, and the limits of the server."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk import Client
from device_sdk.errors import ArgumentError
from device_sdk.mqtt.packets import Connack, Puback, Pubrec
from device_sdk.mqtt.session import Session
from tests.engine.rig import Packets, Rig
from tests.mqtt.peer import Peer

ALIAS = "topic_alias"


class AliasingPeer(Peer):
    """A Peer past CONNACK whose client uses aliases."""

    def __init__(self, maximum: int | None, *, session: Session | None = None, **server: Any) -> None:
        super().__init__(session=session, use_aliases=True)
        self.connect(clean_start=session is None)
        if maximum is not None:
            server["topic_alias_maximum"] = maximum
        self.receive(Connack(session is not None, 0, server))


def seen(packets: Packets) -> list[tuple[str, int | None]]:
    return [(packet.topic, packet.properties.get(ALIAS)) for packet in packets]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_topic_name_is_sent_once(qos: int) -> None:
    rig = Rig(use_topic_aliases=True)
    rig.connect(topic_alias_maximum=5)
    for payload in (b"1", b"2", b"3"):
        rig.publish(payload, qos, topic="long/topic")
    packets = rig.sent()
    assert seen(packets) == [("long/topic", 1), ("", 1), ("", 1)]
    assert [packet.payload for packet in packets] == [b"1", b"2", b"3"]


@pytest.mark.conformance("5.0", "MQTT-3.2.2-17", "MQTT-3.2.2-18")
@pytest.mark.parametrize("maximum", [None, 0])
def test_a_server_that_allows_none_gets_none(maximum: int | None) -> None:
    peer = AliasingPeer(maximum)
    peer.publish(topic="long/topic")
    peer.publish(topic="long/topic")
    assert seen(peer.sent()) == [("long/topic", None)] * 2


@pytest.mark.conformance("5.0", "MQTT-3.2.2-17", "MQTT-3.3.2-9")
def test_the_least_recently_used_topic_gives_up_its_alias() -> None:
    peer = AliasingPeer(2)
    for topic in ("aaaa", "bbbb", "aaaa", "cccc", "aaaa", "bbbb"):
        peer.publish(topic=topic)
    assert seen(peer.sent()) == [("aaaa", 1), ("bbbb", 2), ("", 1), ("cccc", 2), ("", 1), ("bbbb", 2)]


def test_a_short_topic_gets_no_alias_because_that_would_cost_bytes() -> None:
    peer = AliasingPeer(2)
    for topic in ("abc", "abc", "abcd"):
        peer.publish(topic=topic)
    assert seen(peer.sent()) == [("abc", None), ("abc", None), ("abcd", 1)]


def test_other_properties_stay_and_long_packets_too() -> None:
    peer = AliasingPeer(2)
    pairs = [["name", "x" * 60]] * 4
    for _ in range(2):
        peer.publish(b"p" * 20_000, topic="long/topic", user_property=pairs)
    packets: Packets = peer.sent()
    assert seen(packets) == [("long/topic", 1), ("", 1)]
    assert [packet.properties["user_property"] for packet in packets] == [pairs, pairs]
    assert [packet.payload for packet in packets] == [b"p" * 20_000] * 2


@pytest.mark.conformance("5.0", "MQTT-3.3.2-7")
def test_a_repeat_has_the_full_topic_and_aliases_begin_anew() -> None:
    peer = AliasingPeer(2)
    for _ in range(2):
        peer.publish(topic="long/topic")
    assert seen(peer.sent()) == [("long/topic", 1), ("", 1)]
    peer.cut()
    again = AliasingPeer(2, session=peer.session)
    again.publish(topic="long/topic")
    packets: Packets = again.sent()
    assert [packet.dup for packet in packets] == [True, True, False]
    assert seen(packets) == [("long/topic", None), ("long/topic", None), ("long/topic", 1)]


def test_introducing_an_alias_keeps_to_the_servers_packet_size() -> None:
    full = 2 + 2 + 10 + 2 + 1 + 20  # the PUBLISH without an alias
    peer = AliasingPeer(2, maximum_packet_size=full)
    for _ in range(2):
        peer.publish(b"p" * 20, topic="long/topic")
    assert seen(peer.sent()) == [("long/topic", None)] * 2


def test_the_bytes_that_wait_are_counted_as_they_are() -> None:
    peer = AliasingPeer(2)
    for _ in range(3):
        peer.publish(topic="long/topic")
    waiting = peer.protocol.buffered
    assert waiting == len(peer.bytes_sent())


def test_acknowledgements_work_as_ever() -> None:
    peer = AliasingPeer(2)
    one, two = peer.publish(topic="long/topic"), peer.publish(qos=2, topic="long/topic")
    peer.sent()
    assert peer.receive(Puback(one.packet_id), Pubrec(two.packet_id)) == [one]
    [pubrel] = peer.sent()
    assert pubrel.type == "pubrel"


def test_mqtt_3_has_no_aliases() -> None:
    with pytest.raises(ArgumentError, match=r"use_topic_aliases: MQTT 3\.1\.1 has no topic aliases"):
        Client("memory://nobody", version="3.1.1", use_topic_aliases=True)
