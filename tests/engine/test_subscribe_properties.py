"""Properties on SUBSCRIBE and UNSUBSCRIBE: user properties, and an identifier of the program's choice."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk import Client, Subscription
from device_sdk.errors import ArgumentError, ArgumentTypeError, SubscribeRefused
from device_sdk.mqtt.packets import Suback
from tests.engine.rig import Rig

PAIRS = [("ticket", "17"), ("ticket", "18")]
BOTH = {"user_property": PAIRS, "subscription_identifier": 7}


def ask(rig: Rig, *topics: str, properties: dict[str, Any] | None = None) -> Any:
    with rig.engine.lock:
        return rig.engine.incoming.subscribe([Subscription(topic, 1) for topic in topics], None, properties)


def shown(packet: Any) -> tuple[list[str], dict[str, Any]]:
    """Topic filters and properties of a SUBSCRIBE, pairs as tuples."""
    properties = dict(packet.properties)
    if "user_property" in properties:
        properties["user_property"] = [tuple(pair) for pair in properties["user_property"]]
    return [wanted.topic for wanted in packet.subscriptions], properties


def test_they_are_sent_and_repeated_with_their_subscriptions() -> None:
    rig = Rig()
    ask(rig, "a", "b", properties=BOTH)
    ask(rig, "c")
    ask(rig, "d", properties={"subscription_identifier": 8})
    wanted = [(["a", "b"], BOTH), (["c"], {}), (["d"], {"subscription_identifier": 8})]
    for _ in range(2):
        packets = rig.connect()
        assert [shown(packet) for packet in packets] == wanted
        rig.feed(*(Suback(packet.packet_id, [1] * len(packet.subscriptions)) for packet in packets))
        rig.lose()
        rig.advance(60)


def test_the_last_subscribe_of_a_filter_counts() -> None:
    rig = Rig()
    ask(rig, "a", properties=BOTH)
    ask(rig, "a")
    packets = rig.connect()
    rig.feed(*(Suback(packet.packet_id, [1]) for packet in packets))
    rig.lose()
    rig.advance(60)
    assert [shown(packet) for packet in rig.connect()] == [(["a"], {})]


def test_user_properties_of_an_unsubscribe_are_sent() -> None:
    rig = Rig()
    rig.connect()
    with rig.engine.lock:
        rig.engine.incoming.unsubscribe(["a"], {"user_property": PAIRS})
    (packet,) = rig.sent()
    assert [tuple(pair) for pair in packet.properties["user_property"]] == PAIRS


def test_parts_of_a_repeat_that_is_too_large_keep_them() -> None:
    rig = Rig()
    topics = [f"{number}/{'x' * 60}" for number in range(4)]
    ask(rig, *topics, properties=BOTH)
    (packet,) = rig.connect()
    rig.feed(Suback(packet.packet_id, [1] * 4))
    rig.lose()
    rig.advance(60)
    packets = rig.connect(maximum_packet_size=200)
    assert [topic for packet in packets for topic in shown(packet)[0]] == topics
    assert all(shown(packet)[1] == BOTH for packet in packets) and len(packets) > 1


def test_a_server_without_identifiers_is_not_asked_with_one() -> None:
    """Source: MQTT 5.0 §3.2.2.3.12: it would be a protocol error."""
    rig = Rig()
    request, other = ask(rig, "a", properties=BOTH), ask(rig, "b", properties={"user_property": PAIRS})
    (packet,) = rig.connect(subscription_identifiers_available=0)
    assert shown(packet) == (["b"], {"user_property": PAIRS})
    assert not other.done
    with pytest.raises(SubscribeRefused) as caught:
        request.wait(0)
    assert caught.value.reason_code == 0xA1
    assert "a" not in rig.engine.incoming.router.wanted


def test_the_client_s_own_identifiers_leave_room_for_user_properties() -> None:
    rig = Rig(use_identifiers=True)
    ask(rig, "a", properties={"user_property": PAIRS})
    (packet,) = rig.connect()
    topics, properties = shown(packet)
    assert (topics, properties["user_property"]) == (["a"], PAIRS)
    assert properties["subscription_identifier"] >= 1


WRONG: list[tuple[dict[str, Any], Any, type[Exception]]] = [
    ({}, 7, ArgumentTypeError),
    ({}, [("a", "b")], ArgumentTypeError),
    ({}, {"subscription_identifier": 0}, ArgumentError),
    ({}, {"subscription_identifier": 268_435_456}, ArgumentError),
    ({}, {"subscription_identifier": "7"}, ArgumentTypeError),
    ({}, {"reason_string": "x"}, ArgumentError),
    ({}, {"user_property": [("a",)]}, ArgumentTypeError),
    ({"version": "3.1.1"}, {"user_property": PAIRS}, ArgumentError),
    ({"use_identifiers": True}, {"subscription_identifier": 7}, ArgumentError),
]


@pytest.mark.parametrize(("options", "properties", "kind"), WRONG)
def test_what_no_broker_would_take_is_refused_before_anything_is_asked(
    options: dict[str, Any], properties: Any, kind: type[Exception]
) -> None:
    client = Client("memory://nobody", **options)
    with pytest.raises(kind):
        client.subscribe("a", properties=properties)
    assert client._engine.incoming.router.wanted == {}
    if "subscription_identifier" not in (properties if isinstance(properties, dict) else {}):
        with pytest.raises(kind):
            client.unsubscribe("a", properties=properties)
    client.close(0)


def test_an_unsubscribe_has_no_identifier() -> None:
    client = Client("memory://nobody")
    with pytest.raises(ArgumentError, match="subscription_identifier"):
        client.unsubscribe("a", properties={"subscription_identifier": 7})
    client.close(0)


def test_what_the_program_changes_afterwards_is_not_sent() -> None:
    client = Client("memory://nobody")
    properties: dict[str, Any] = {"user_property": [["a", "1"]]}
    request = client.subscribe("a", properties=properties)
    properties["user_property"][0][1] = 2
    properties["user_property"].append("nonsense")
    assert request.sent_properties == {"user_property": [("a", "1")]}
    client.close(0)
