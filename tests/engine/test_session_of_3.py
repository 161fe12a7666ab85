"""The session of MQTT 3.x, which ends with a connection that asked for a clean one."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk.engine.outgoing.greetings import Greetings
from device_sdk.mqtt.message import Message, Subscription, Will
from device_sdk.mqtt.packets import Connack, Puback, Publish, Suback
from device_sdk.store.memory import MemoryStore
from tests.engine.rig import Rig, payloads, types
from tests.engine.test_brokers_failover import Several

VERSIONS = pytest.mark.parametrize("version", ["3.1.1", "3.1"])


def wants(rig: Rig) -> None:
    with rig.engine.lock:
        rig.engine.incoming.subscribe([Subscription("cmd", 1)], None)


def reconnect(rig: Rig, *, present: bool = False) -> list[Any]:
    """Lose the connection; ``present``: the server has the session, which it cannot say in MQTT 3.1."""
    rig.lose()
    rig.advance(60)
    (connect,) = rig.opened()
    return [connect, *rig.feed(Connack(present and rig.version == "3.1.1", 0))]


@VERSIONS
def test_a_named_client_clears_the_session_first_and_then_begins_one_that_is_kept(version: str) -> None:
    greetings = Greetings(version, Message("state", b"online", qos=1))
    rig = Rig(version=version, greetings=greetings)
    rig.engine.options.identify("me", b"secret", Will("state", b"offline"))
    wants(rig)
    rig.publish(b"waits")
    (clearing,) = rig.opened()
    assert (clearing.clean_start, clearing.will, clearing.user_name) == (True, None, "me")
    assert types(rig.feed(Connack())) == ["disconnect"], "nothing else of the program's"
    assert rig.engine.wants_open, "at once"
    assert rig.events() == []
    (connect,) = rig.opened()
    assert (connect.clean_start, connect.will) == (False, Will("state", b"offline"))
    sent = rig.feed(Connack())
    assert types(sent) == ["subscribe", "publish", "publish"]
    assert payloads(sent) == [b"online", b"waits"]
    rig.feed(Suback(sent[0].packet_id, [1]), *(Puback(packet.packet_id) for packet in sent[1:]))
    again = reconnect(rig, present=True)
    assert (again[0].clean_start, payloads(again)) == (False, [b"online"]), (
        "the session goes on: no SUBSCRIBE"
    )
    rig.feed(Publish("cmd", b"sent during the outage", qos=1, packet_id=1))
    assert [message.payload for message in rig.handle()] == [b"sent during the outage"]
    assert rig.engine.events.stats.connects == 2


@VERSIONS
def test_a_made_up_name_without_subscriptions_leaves_no_session_behind(version: str) -> None:
    rig = Rig(version=version, made_up_name=True)
    for _ in range(3):
        (connect,) = rig.opened()
        assert connect.clean_start
        rig.publish(b"x")
        (sent,) = rig.feed(Connack())
        rig.feed(Puback(sent.packet_id))
        rig.lose()
        rig.advance(60)
    assert "session_lost" not in rig.events(), "it was not meant to be kept"
    rig.open()
    rig.feed(Connack())
    rig.publish(b"unanswered")
    rig.sent()
    assert payloads(reconnect(rig)) == [b"unanswered"]


@VERSIONS
def test_a_made_up_name_with_subscriptions_needs_no_clearing(version: str) -> None:
    """Nobody else knows it, so no server has a session of it."""
    rig = Rig(version=version, made_up_name=True)
    wants(rig)
    (connect,) = rig.opened()
    assert not connect.clean_start
    (subscribe,) = rig.feed(Connack())
    assert subscribe.packet_id == 1
    rig.feed(Suback(1, [1]))
    assert [packet.type for packet in reconnect(rig, present=True)] == ["connect"]


@VERSIONS
def test_a_subscription_that_came_later_is_kept_from_the_next_connection_on(version: str) -> None:
    rig = Rig(version=version, made_up_name=True)
    assert rig.opened()[0].clean_start
    rig.feed(Connack())
    wants(rig)
    (subscribe,) = rig.sent()
    rig.feed(Suback(subscribe.packet_id, [1]))
    connect, subscribe = reconnect(rig)
    assert (connect.clean_start, subscribe.type) == (False, "subscribe")


@pytest.mark.parametrize("options", [{"clean_start": False}, {"clean_start": True}, {"store": MemoryStore}])
def test_what_the_program_has_decided_is_one_connection(options: dict[str, Any]) -> None:
    made = {name: value() if name == "store" else value for name, value in options.items()}
    rig = Rig(version="3.1.1", **made)
    (connect,) = rig.opened()
    assert connect.clean_start is bool(options.get("clean_start"))
    assert "disconnect" not in types(rig.feed(Connack()))
    assert rig.engine.life.state == "connected"


@pytest.mark.parametrize("store", [None, MemoryStore])
def test_a_second_broker_is_cleared_too_and_keeps_the_session_then(store: Any) -> None:
    rig = Several(version="3.1.1", store=store and store())
    rig.connect()
    rig.lose()
    rig.advance(60)
    assert rig.opened()[0].clean_start
    assert types(rig.feed(Connack())) == ["disconnect"]
    assert (rig.open()[0].clean_start, rig.at) == (False, "b1")


def test_a_refused_clearing_is_a_failed_attempt_and_is_tried_again() -> None:
    rig = Rig(version="3.1.1")
    assert rig.opened()[0].clean_start
    rig.feed(Connack(False, 5))
    assert rig.engine.life.state == "waiting"
    rig.advance(60)
    assert rig.opened()[0].clean_start
    assert types(rig.feed(Connack())) == ["disconnect"]
    rig.refuse()
    rig.advance(60)
    assert not rig.opened()[0].clean_start, "it is cleared already"


def test_close_during_the_clearing_ends_the_client() -> None:
    rig = Rig(version="3.1.1")
    rig.opened()
    with rig.engine.lock:
        rig.engine.close_connection()
    assert types(rig.feed(Connack())) == ["disconnect"]
    assert not rig.engine.wants_open


def test_mqtt_5_has_an_expiry_and_needs_one_connection() -> None:
    rig = Rig()
    assert rig.opened()[0].clean_start
    assert types(rig.feed(Connack())) == []
    assert rig.engine.life.state == "connected"
