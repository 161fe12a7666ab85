"""A bad topic filter beside a bad message, with answers that come late: both are found, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk.engine.outgoing.greetings import Greetings
from device_sdk.errors import SubscribeRefused
from device_sdk.mqtt.message import Message
from tests.engine.late_world import LateWorld, ends_on_filter
from tests.engine.poison_world import Reaction

BAD_FILTER, BAD_TOPIC = "secret/#", "bad"
VERSIONS = pytest.mark.parametrize("version", ["5.0", "3.1.1"])


def ends_on_both(packet: Any) -> Reaction:
    if packet.type == "publish":
        return "closed" if packet.topic == BAD_TOPIC else None
    reaction: Reaction = ends_on_filter(BAD_FILTER)(packet)
    return reaction


def ends_on_message(packet: Any) -> Reaction:
    return "closed" if packet.type == "publish" and packet.topic == BAD_TOPIC else None


@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
def test_no_good_filter_is_refused_beside_a_bad_message(version: str, qos: int) -> None:
    """They are asked for while the message is alone unanswered, and just before."""
    world = LateWorld(ends_on_message, version=version)
    requests = []
    bad = [world.send(BAD_TOPIC, b"0", qos)]
    for number in range(60):
        requests.append(world.subscribe(f"f/{number}"))
        world.send("good", b"%d" % number)
        world.wait(0.35)
        if not number % 9:
            bad.append(world.send(BAD_TOPIC, b"bad %d" % number, qos))
    for number in range(60, 400):
        world.send("good", b"%d" % number)
        world.wait(1)
    assert [one.error for one in requests] == [None] * 60
    assert {one.state for one in bad} == {"refused"}


@VERSIONS
def test_a_filter_is_found_while_more_is_published_than_the_window_holds(version: str) -> None:
    world = LateWorld(ends_on_filter(BAD_FILTER), version=version, inflight=2)
    deliveries = [world.send("t", b"%d" % number) for number in range(500)]
    request = world.subscribe(BAD_FILTER)
    other = world.subscribe("good")
    while not request.done:
        deliveries += [world.send("t", b"%d" % (len(deliveries) + number)) for number in range(3)]
        world.wait(1)
        assert world.connections < 12
    assert isinstance(request.error, SubscribeRefused)
    world.until(lambda: all(one.done for one in deliveries))
    assert other.error is None
    assert {one.state for one in deliveries} == {"acknowledged"}
    sent = [one.payload for packets in world.place.connections for one in packets if one.type == "publish"]
    assert [int(one) for one in dict.fromkeys(sent)] == list(range(len(deliveries)))


@pytest.mark.parametrize(("version", "session_expiry"), [("5.0", 0), ("5.0", 0xFFFF_FFFF), ("3.1.1", 0)])
@pytest.mark.parametrize("inflight", [1, 20])
def test_a_bad_filter_and_a_bad_message_do_not_hide_each_other(
    version: str, session_expiry: int, inflight: int
) -> None:
    world = LateWorld(ends_on_both, version=version, inflight=inflight, session_expiry=session_expiry)
    request = world.subscribe("a", BAD_FILTER, "b")
    bad = world.send(BAD_TOPIC, b"x")
    good = world.send("good", b"x")
    world.until(lambda: all(one.done for one in (request, bad, good)))
    assert [code >= 0x80 for code in request.reason_codes] == [False, True, False]
    assert (bad.state, good.state) == ("refused", "acknowledged")
    assert world.connections < 24
    world.wait(60)
    assert world.engine.life.state == "connected"


@pytest.mark.parametrize("session_expiry", [0, 0xFFFF_FFFF])
def test_good_filters_are_served_beside_a_message_that_nothing_can_clear(session_expiry: int) -> None:
    """It is the only message: nobody can say whether the broker takes any, and it is repeated for ever."""
    world = LateWorld(ends_on_both, session_expiry=session_expiry)
    bad = world.send(BAD_TOPIC, b"x")
    requests = [world.subscribe(one) for one in ("a", BAD_FILTER, "b")]
    world.until(lambda: all(one.done for one in requests))
    assert [one.error is None for one in requests] == [True, False, True]
    assert not bad.done
    assert world.connections < 24
    world.wait(600)
    assert not bad.done
    assert set(world.engine.incoming.router.wanted) == {"a", "b"}


@VERSIONS
def test_a_filter_beside_a_bad_one_can_be_unsubscribed_before_it_is_asked_for(version: str) -> None:
    world = LateWorld(ends_on_filter(BAD_FILTER), version=version)
    whole = world.subscribe(BAD_FILTER, "a", "b")
    world.until(lambda: world.lost == 1)
    requests = [world.unsubscribe("b"), world.subscribe("c")]
    world.until(lambda: all(one.done for one in (whole, *requests)))
    assert [one.error for one in requests] == [None, None]
    world.wait(5)
    assert set(world.place.broker.sessions["c"].subscriptions) == {"a", "c"}


@VERSIONS
@pytest.mark.parametrize("pause", [0.0, 0.2, 0.4, 0.7])
def test_a_suspect_that_is_unsubscribed_is_not_asked_for_afterwards(version: str, pause: float) -> None:
    """It was good: the broker has become well just before the connection without it."""
    world = LateWorld(ends_on_filter("x"), version=version)
    world.subscribe("a")
    world.wait(5)
    request = world.subscribe("x")
    world.until(lambda: "suspect" in world.events)
    world.place.reacts = lambda packet: None
    world.until(lambda: world.engine.life.state == "connected")
    world.wait(pause)
    over = world.unsubscribe("x")
    world.until(lambda: request.done and over.done)
    world.wait(5)
    assert (request.error, over.error) == (None, None)
    assert set(world.place.broker.sessions["c"].subscriptions) == {"a"}


@VERSIONS
def test_the_order_of_unsubscribe_and_subscribe_stays_for_each_filter(version: str) -> None:
    world = LateWorld(ends_on_filter(BAD_FILTER), version=version)
    world.subscribe("a", "b")
    world.wait(5)
    bad = world.subscribe(BAD_FILTER)
    world.until(lambda: world.lost == 2)
    requests = [
        world.unsubscribe("a", "b"),
        world.subscribe("b"),
        world.unsubscribe("b"),
        world.subscribe("a"),
    ]
    requests += [world.unsubscribe(BAD_FILTER), world.subscribe("c")]
    world.until(lambda: all(one.done for one in (bad, *requests)))
    assert [one.error for one in requests] == [None] * 6
    world.wait(5)
    assert set(world.engine.incoming.router.wanted) == {"a", "c"}
    assert set(world.place.broker.sessions["c"].subscriptions) == {"a", "c"}


def test_what_was_unsubscribed_elsewhere_is_held_against_nobody() -> None:
    """The suspect of one broker is no longer wanted when the client comes back to it."""
    world = LateWorld(brokers=2)
    first, second = world.places
    first.reacts = ends_on_filter(BAD_FILTER)
    second.is_down = True
    world.subscribe("a", BAD_FILTER)
    world.until(lambda: "suspect" in world.events)
    first.is_down, second.is_down = True, False
    world.until(lambda: world.engine.life.state == "connected" and world.here is second)
    world.wait(5)
    world.unsubscribe(BAD_FILTER)
    world.wait(5)
    first.is_down, second.is_down = False, True
    world.end("reset")
    world.until(lambda: world.engine.life.state == "connected" and world.here is first)
    world.wait(60)
    later = world.subscribe("b")
    world.wait(5)
    assert later.done
    assert later.error is None
    judgement = world.engine.outgoing.suspicion
    assert judgement is not None
    assert judgement.careful is None
    assert not judgement.is_watchful


def test_a_filter_that_speaks_for_the_broker_keeps_its_options_if_the_session_is_lost_meanwhile() -> None:
    world = LateWorld(ends_on_filter(BAD_FILTER))
    world.subscribe("a")
    world.wait(5)
    request = world.subscribe(BAD_FILTER)

    def lost_at_the_witness(packet: Any) -> Reaction:
        if packet.type == "subscribe" and packet.subscriptions[0].retain_handling == 2:
            lost.append(packet)
            return "closed"
        reaction: Reaction = ends_on_filter(BAD_FILTER)(packet)
        return reaction

    lost: list[Any] = []
    world.place.reacts = lost_at_the_witness
    world.until(lambda: lost)
    world.place.broker.sessions.clear()
    world.place.reacts = ends_on_filter(BAD_FILTER)
    world.until(lambda: request.done)
    asked = [one for packets in world.place.connections for one in packets if one.type == "subscribe"]
    again = [one for one in asked[asked.index(lost[0]) + 1 :] if one.subscriptions[0].topic == "a"]
    assert again[0].subscriptions[0].retain_handling == 0, "its retained messages are wanted"


@pytest.mark.parametrize("returns", [False, True])
def test_a_filter_that_one_broker_has_granted_stays_wanted_there(returns: bool) -> None:
    world = LateWorld(brokers=2)
    first, second = world.places
    request = world.subscribe("a", "mine")
    world.wait(5)
    assert request.error is None
    second.reacts = ends_on_filter("mine")
    first.is_down = True
    world.end("reset")
    world.until(lambda: "subscribe_refused" in world.events)
    world.wait(30)
    assert world.here is second
    assert world.engine.life.state == "connected"
    assert set(world.engine.incoming.router.wanted) == {"a", "mine"}
    count = len(second.connections)
    second.broker.sessions.clear()
    if returns:
        first.is_down, second.is_down = False, True
        first.broker.sessions.clear()
    world.end("reset")
    world.until(lambda: world.engine.life.state == "connected")
    world.wait(30)
    assert set(world.here.broker.sessions["c"].subscriptions) == ({"a", "mine"} if returns else {"a"})
    assert len(second.connections) <= count + 1, "it is not asked for again where it was refused"
    world.here.broker.publish("mine", b"x")
    world.wait(1)
    assert world.handled == [b"x"] * returns
    assert world.engine.incoming.router.route("mine") == (print,)


def test_a_filter_that_is_asked_for_again_by_the_program_gets_another_chance() -> None:
    world = LateWorld(ends_on_filter(BAD_FILTER))
    first = world.subscribe("a", BAD_FILTER)
    world.until(lambda: first.done)
    world.place.reacts = lambda packet: None
    again = world.subscribe(BAD_FILTER)
    world.wait(2)
    assert again.reason_codes == [1]


@pytest.mark.parametrize("how", ["closed", 0x8F])
def test_the_request_of_a_refused_filter_has_its_reason_code(how: Reaction) -> None:
    world = LateWorld(ends_on_filter(BAD_FILTER, how=how))
    world.subscribe("a")
    request = world.subscribe(BAD_FILTER)
    world.until(lambda: request.done)
    assert request.reason_codes == [how if isinstance(how, int) else 0x80]


@VERSIONS
def test_messages_do_not_wait_for_ever_for_a_filter_that_is_never_answered(version: str) -> None:
    world = LateWorld(ends_on_filter(BAD_FILTER), version=version)
    world.subscribe("a")
    world.subscribe(BAD_FILTER)
    world.until(lambda: world.lost == 2)
    world.place.reacts = ends_on_filter(BAD_FILTER, how="deaf")
    world.until(lambda: world.engine.life.state == "connected")
    world.wait(1)
    message, other = world.send("t", b"x"), world.subscribe("b")
    world.wait(20)
    assert not (message.done or other.done)
    world.wait(20)
    assert message.state == "acknowledged"
    assert other.reason_codes == [1]


def test_a_gateway_that_answers_no_ping_is_slow_and_no_more() -> None:
    def reacts(packet: Any) -> Reaction:
        return "deaf" if packet.type == "pingreq" else ends_on_both(packet)

    world = LateWorld(reacts)
    request = world.subscribe("a", BAD_FILTER, "b")
    deliveries = []
    for number in range(60):
        deliveries.append(world.send("t", b"%d" % number, number % 3))
        world.wait(10)
    assert [code >= 0x80 for code in request.reason_codes] == [False, True, False]
    world.until(lambda: all(one.done for one in deliveries))


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("inflight", [1, 20])
def test_a_birth_a_filter_and_a_message_are_told_apart(version: str, qos: int, inflight: int) -> None:
    """Each of them ends connections: an end of one says nothing for or against the others."""

    def reacts(packet: Any) -> Reaction:
        return "closed" if packet.type == "publish" and packet.topic == "birth" else ends_on_both(packet)

    birth = Greetings(version, Message("birth", b"on", qos=qos))
    world = LateWorld(reacts, version=version, inflight=inflight, greetings=birth)
    request = world.subscribe("a", BAD_FILTER, "b")
    bad = world.send(BAD_TOPIC, b"x")
    good = [world.send("good", b"%d" % number) for number in range(5)]
    world.until(lambda: request.done and all(one.done for one in (bad, *good)))
    assert [code >= 0x80 for code in request.reason_codes] == [False, True, False]
    assert (bad.state, {one.state for one in good}) == ("refused", {"acknowledged"})
    world.until(lambda: "no_birth" in world.events)
    assert world.connections < 30
    world.wait(60)
    assert world.engine.life.state == "connected"


def test_a_birth_of_qos_0_is_not_proved_by_answers_to_what_was_sent_before_it() -> None:
    def reacts(packet: Any) -> Reaction:
        return "closed" if packet.type == "publish" and packet.topic == "birth" else None

    world = LateWorld(reacts, inflight=2, greetings=Greetings("5.0", Message("birth", b"on")))
    for number in range(60):
        world.send("t", b"%d" % number, 2)
        world.wait(1)
    assert "no_birth" in world.events
    assert world.connections < 10
