"""One topic filter that a broker ends connections for stops no other, and no good one is taken for one."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk.engine.incoming.subscribe_request import SubscribeRequest
from device_sdk.errors import SubscribeRefused
from device_sdk.mqtt.message import Subscription
from tests.engine.poison_world import PoisonWorld, Reaction

FORBIDDEN = "secret/#"


def ends_on_filter(*filters: str, how: Reaction = "closed") -> Any:
    """End the connection on each SUBSCRIBE with one of these filters."""

    def reacts(packet: Any) -> Reaction:
        if packet.type != "subscribe":
            return None
        return how if any(one.topic in filters for one in packet.subscriptions) else None

    return reacts


def subscribe(world: FilterWorld, *filters: str, qos: int = 1) -> SubscribeRequest:
    with world.engine.lock:
        request = world.engine.incoming.subscribe([Subscription(one, qos) for one in filters], world.got)
    world.turn()
    return request


class FilterWorld(PoisonWorld):
    """With what has arrived of others, by topic."""

    def begin(self) -> None:
        self.arrived: list[str] = []
        super().begin()

    def got(self, message: Any) -> None:
        self.arrived.append(message.topic)

    def asked(self, number: int) -> list[list[str]]:
        """The filters of each SUBSCRIBE that the broker read on one connection."""
        packets = self.place.connections[number]
        return [[each.topic for each in one.subscriptions] for one in packets if one.type == "subscribe"]


@pytest.mark.parametrize(
    ("version", "how"),
    [
        ("5.0", "closed"),
        ("5.0", "reset"),
        ("5.0", 0x8F),
        ("5.0", 0x87),
        ("3.1.1", "closed"),
        ("3.1.1", "reset"),
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_a_forbidden_filter_among_others_is_named_and_left_out(
    version: str, how: Reaction, together: bool
) -> None:
    world = FilterWorld(ends_on_filter(FORBIDDEN, how=how), version=version)
    filters = ["a/#", FORBIDDEN, "b/+"]
    if together:
        requests = [subscribe(world, *filters)]
    else:
        requests = [subscribe(world, one) for one in filters]
    world.until(lambda: all(request.done for request in requests))
    assert len(world.place.connections) < 10
    world.wait(60)
    assert world.engine.life.state == "connected"
    [text] = world.texts("subscribe_refused")
    assert text.startswith(f"{FORBIDDEN}: the broker ended ")
    [suspected] = world.texts("suspect")
    assert suspected.startswith(f"{FORBIDDEN}: SUBSCRIBE ")
    assert set(world.engine.incoming.router.wanted) == {"a/#", "b/+"}
    refused = requests[0] if together else requests[1]
    with pytest.raises(SubscribeRefused, match="alone was unanswered"):
        refused.wait(0)
    if together:
        assert [code >= 0x80 for code in refused.reason_codes] == [False, True, False]
    world.place.broker.publish("a/1", b"x")
    world.place.broker.publish("b/1", b"x")
    world.wait(1)
    lost = world.lost
    world.end("reset")
    world.until(lambda: world.engine.life.state == "connected")
    world.wait(60)
    assert world.lost == lost + 1  # and it is not asked for again


def test_two_forbidden_filters_are_both_found() -> None:
    world = FilterWorld(ends_on_filter("p", "q"))
    request = subscribe(world, "a", "p", "b", "q", "c")
    world.until(lambda: request.done)
    assert [code >= 0x80 for code in request.reason_codes] == [False, True, False, True, False]
    assert set(world.engine.incoming.router.wanted) == {"a", "b", "c"}


@pytest.mark.parametrize("version", ["5.0", "3.1.1"])
def test_a_filter_that_the_broker_has_speaks_for_it(version: str) -> None:
    """A session with subscriptions, and one more that the broker does not want, days later."""
    world = FilterWorld(ends_on_filter(FORBIDDEN), version=version)
    subscribe(world, "a/#", "b/+")
    world.wait(3600)
    request = subscribe(world, FORBIDDEN)
    world.until(lambda: request.done)
    assert isinstance(request.error, SubscribeRefused)
    assert len(world.place.connections) < 12
    world.wait(60)
    assert world.engine.life.state == "connected"
    again = [one for packets in world.place.connections for one in packets if one.type == "subscribe"]
    witness = next(one for one in again[1:] if one.subscriptions[0].topic == "a/#")
    assert version != "5.0" or witness.subscriptions[0].retain_handling == 2


def test_messages_speak_for_a_broker_that_has_one_filter_only() -> None:
    world = FilterWorld(ends_on_filter(FORBIDDEN))
    request = subscribe(world, FORBIDDEN)
    deliveries = []
    for number in range(200):
        deliveries.append(world.send("t", b"%d" % number))
        world.wait(1)
    assert isinstance(request.error, SubscribeRefused)
    assert {one.state for one in deliveries} == {"acknowledged"}
    assert len(world.place.connections) < 10


def test_the_only_filter_is_refused_only_if_the_broker_names_the_fault() -> None:
    for how, done in (("closed", False), (0x8F, True)):
        world = FilterWorld(ends_on_filter(FORBIDDEN, how=how))
        request = subscribe(world, FORBIDDEN)
        world.wait(1800)
        assert request.done is done
        assert "suspect" in world.events


@pytest.mark.parametrize("how", ["link", 0x8B, 0x8E, 0x97, 0x98])
def test_an_end_for_another_reason_never_counts(how: Reaction) -> None:
    world = FilterWorld(ends_on_filter("a", how=how))
    request = subscribe(world, "a", "b")
    world.until(lambda: world.lost == 12)
    assert not request.done
    assert "suspect" not in world.events
    assert world.asked(-1) == [["a", "b"]]


def test_an_end_while_the_kernel_holds_bytes_never_counts() -> None:
    world = FilterWorld(ends_on_filter("a"))
    transport: Any = world.place.transport
    transport.held_bytes = 7
    request = subscribe(world, "a", "b")
    world.until(lambda: world.lost == 12)
    assert not request.done
    assert "suspect" not in world.events


@pytest.mark.parametrize("how", ["closed", "reset"])
@pytest.mark.parametrize("lives", [0, 1, 2, 5])
def test_good_filters_survive_a_broker_in_a_crash_loop(how: str, lives: int) -> None:
    """The broker crashes at the so-many-th SUBSCRIBE of each connection, whatever it is, for an hour."""
    count = [0]
    end = [1e9]

    def reacts(packet: Any) -> Reaction:
        if packet.type == "connect":
            count[0] = 0
        count[0] += packet.type == "subscribe"
        return how if packet.type == "subscribe" and count[0] > lives and world.clock() < end[0] else None

    world = FilterWorld(reacts)
    end[0] = world.clock() + 3600
    requests = []
    for number in range(12):
        requests.append(subscribe(world, f"{number}/#"))
        world.wait(300)
    world.until(lambda: all(request.done for request in requests), 7200.0)
    assert [request.error for request in requests] == [None] * 12


@pytest.mark.parametrize("ends", range(12))
def test_good_filters_survive_ends_that_stop_at_the_worst_moment(ends: int) -> None:
    left = [ends]

    def reacts(packet: Any) -> Reaction:
        if packet.type == "subscribe" and left[0]:
            left[0] -= 1
            return "closed"
        return None

    world = FilterWorld(reacts, version="3.1.1")
    requests = [subscribe(world, one) for one in ("a", "b", "c")]
    world.until(lambda: all(request.done for request in requests))
    assert [request.error for request in requests] == [None] * 3
    world.wait(100)
    suspicion: Any = world.engine.outgoing.suspicion
    assert not suspicion.filters.is_watchful


@pytest.mark.parametrize("version", ["5.0", "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("every", [1, 7])
def test_good_filters_survive_a_message_that_ends_connections(version: str, qos: int, every: int) -> None:
    """It is published at once when there is a connection, so SUBSCRIBE is unanswered at each end, too."""

    def reacts(packet: Any) -> Reaction:
        return "closed" if packet.type == "publish" and packet.topic == "bad" else None

    world = FilterWorld(reacts, version=version)
    world.send("bad", b"", qos=qos)
    requests = [subscribe(world, one) for one in ("a", "b")]
    for second in range(300):
        if not second % every:
            world.send("bad", b"%d" % second, qos=qos)
        world.send("good", b"%d" % second)
        world.wait(1)
    world.until(lambda: all(request.done for request in requests))
    assert [request.error for request in requests] == [None, None]


def test_keep_asks_for_ever() -> None:
    world = FilterWorld(ends_on_filter(FORBIDDEN), on_poison="keep")
    request = subscribe(world, "a", FORBIDDEN)
    world.until(lambda: world.lost == 30)
    assert not request.done
    assert "suspect" not in world.events


def test_a_client_that_is_closed_meanwhile_ends_all_of_them() -> None:
    world = FilterWorld(ends_on_filter(FORBIDDEN))
    request = subscribe(world, "a", FORBIDDEN, "b")
    world.until(lambda: "suspect" in world.events)
    world.until(lambda: world.engine.life.state == "connected")
    world.engine.drop_connection()
    world.engine.end()
    assert request.done


def test_another_server_is_asked_for_everything() -> None:
    world = FilterWorld(ends_on_filter(FORBIDDEN))
    subscribe(world, "a", FORBIDDEN)
    world.until(lambda: "suspect" in world.events)
    suspicion: Any = world.engine.outgoing.suspicion
    suspicion.filters.prepare("another")
    assert not suspicion.filters.is_watchful
