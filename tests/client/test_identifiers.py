"""Routing by subscription identifiers: the handlers of the filters, once for each message."""

from __future__ import annotations

import queue
from typing import Any

import pytest

from device_sdk import Client, Subscription
from device_sdk.engine.incoming.subscription_ids import SubscriptionIds
from device_sdk.errors import ArgumentError
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.packets import Connack, Publish, Suback
from device_sdk.testing import BrokerServer, ScriptedBroker
from device_sdk.testing.scripted_broker import expect, ignore, send
from tests.steps import eventually

IDENTIFIER = "subscription_identifier"


class Copies:
    """Two overlapping subscriptions ``a/#`` and ``a/+``, and what the broker sends for them."""

    def __init__(self, *sent: tuple[bytes, tuple[int, ...]], available: int = 1, **options: Any) -> None:
        self.sent = sent
        self.identifiers: list[int | None] = []
        self.calls: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        subscribe = [expect("subscribe"), send(self._suback)]
        server = {"subscription_identifiers_available": available} if not available else {}
        script = [expect("connect"), send(Connack(False, 0, server)), *subscribe, *subscribe]
        self.script = [*script, send(self._publish), ignore()]
        self.options = options

    def _suback(self, packet: Any) -> Suback:
        self.identifiers.append(packet.properties.get(IDENTIFIER))
        return Suback(packet.packet_id, [0])

    def _publish(self, packet: Any) -> bytes:
        packets = []
        for payload, numbers in self.sent:
            found = [self.identifiers[number] if number < 2 else number for number in numbers]
            properties = {IDENTIFIER: found} if found else {}
            packets.append(encode_packet(Publish("a/b", payload, properties=properties), "5.0"))
        return b"".join(packets)

    def run(self) -> list[tuple[str, bytes]]:
        with (
            BrokerServer(ScriptedBroker(self.script, version="5.0")) as broker,
            Client(broker.url, **self.options) as client,
        ):
            client.connect(5)
            client.subscribe("a/#", on_message=lambda m: self.calls.put(("#", m.payload)))
            client.subscribe(Subscription("a/+"), on_message=lambda m: self.calls.put(("+", m.payload)))
            eventually(lambda: client.stats.received == len(self.sent))
        assert broker.broker.failure is None
        return [self.calls.get(timeout=5) for _ in range(self.calls.qsize())]


def test_each_copy_goes_to_the_handlers_of_its_subscription() -> None:
    copies = Copies((b"1", (0,)), (b"2", (1,)), use_identifiers=True)
    assert copies.run() == [("#", b"1"), ("+", b"2")]
    assert all(copies.identifiers)


def test_one_message_with_both_identifiers_goes_to_both_handlers_once() -> None:
    assert sorted(Copies((b"1", (0, 1)), use_identifiers=True).run()) == [("#", b"1"), ("+", b"1")]


@pytest.mark.parametrize("numbers", [(), (268_435_455,), (0, 268_435_455)])
def test_without_identifiers_of_ours_the_filters_decide(numbers: tuple[int, ...]) -> None:
    copies = Copies((b"1", numbers), use_identifiers=True)
    assert sorted(copies.run()) == [("#", b"1"), ("+", b"1")]


def test_a_server_without_identifiers_and_a_client_that_does_not_ask_see_none() -> None:
    for copies in (Copies((b"1", ()), available=0, use_identifiers=True), Copies((b"1", ()))):
        assert sorted(copies.run()) == [("#", b"1"), ("+", b"1")]
        assert copies.identifiers == [None, None]


def test_mqtt_3_has_no_identifiers() -> None:
    with pytest.raises(ArgumentError, match="use_identifiers: MQTT"):
        Client("memory://nobody", version="3.1.1", use_identifiers=True)


def test_a_filter_that_is_subscribed_to_again_or_given_up_is_found_by_its_last_identifier() -> None:
    identifiers = SubscriptionIds()
    first, second = identifiers.new(), identifiers.new()
    identifiers.assign(first, ["a/#", "$share/g/a/+"])
    assert identifiers.matching((first,), "a/b") == ["a/#", "$share/g/a/+"]
    identifiers.assign(second, ["a/#"])
    assert identifiers.matching((first,), "a/b") == ["$share/g/a/+"]
    assert identifiers.matching((first, second), "a") == ["a/#"]
    identifiers.forget("a/#")
    assert identifiers.matching((first, second), "a/b") == []
