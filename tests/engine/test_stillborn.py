"""A birth for which a server ends connections: it is found, named and left out, and the rest arrives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from device_sdk.engine.outgoing.birth_trial import AT_ONCE, LATE, NOT_AT_ALL, BirthTrial
from device_sdk.engine.outgoing.greetings import Greetings
from device_sdk.mqtt.message import Message
from device_sdk.mqtt.packets import Disconnect, Puback
from tests.engine.rig import Rig, payloads

QOS = pytest.mark.parametrize("qos", [0, 1])


class World(Rig):
    """A broker that reacts to each PUBLISH: ``ends(topic)`` says whether it ends the connection on it."""

    def __init__(self, ends: Callable[[str], bool], qos: int = 1, **options: Any) -> None:
        birth = Message("state", b"online", qos=qos, retain=True)
        super().__init__(greetings=Greetings("5.0", birth), **options)
        self.ends = ends
        self.connections: list[list[bytes]] = []
        self.reason: int | None = None

    def live(self, seconds: float) -> None:
        """Let so much time pass, second by second."""
        for _ in range(round(seconds)):
            if self.engine.wants_open:
                self.connections.append([])
                self.react(self.connect())
            self.react(self.advance(1))

    def react(self, packets: list[Any]) -> None:
        """Do what the broker does, until nothing more comes."""
        while packets:
            self.connections[-1] += payloads(packets)
            answers: list[Any] = []
            for packet in packets:
                if packet.type == "publish" and self.ends(packet.topic):
                    if self.reason is not None:
                        self.feed(Disconnect(self.reason))
                    else:
                        self.lose()
                    return
                if packet.type == "pingreq":
                    answers.append(b"\xd0\x00")
                elif packet.type == "publish" and packet.qos:
                    answers.append(Puback(packet.packet_id))
            packets = self.feed(*answers) if answers else []


@QOS
def test_a_forbidden_birth_is_found_named_and_left_out(qos: int) -> None:
    world = World(lambda topic: topic == "state", qos)
    waits = world.publish(b"reading")
    world.live(120)
    assert waits.state == "acknowledged"
    assert world.engine.life.state == "connected"
    assert len(world.connections) == 5, "three, one that says it late, one without it"
    assert world.connections[3] == [b"reading", b"online"]
    assert world.connections[4] == []
    (told,) = (event for event in world.event_objects() if event.kind == "no_birth")
    assert told.value == "state"
    assert "the broker ended connections while it was unanswered" in told.text


@QOS
def test_after_an_hour_one_connection_tries_it_late(qos: int) -> None:
    world = World(lambda topic: topic == "state", qos)
    world.live(120)
    count = len(world.connections)
    world.live(3600)
    world.lose()
    world.live(60)
    assert world.connections[count:] == [[b"online"], []]
    world.ends = lambda topic: False
    world.live(3700)
    world.lose()
    world.live(60)
    world.lose()
    world.live(60)
    assert world.connections[-1] == [b"online"], "it was taken, and is said at once again"
    assert world.engine.outgoing.presence.due is None


@QOS
def test_a_broker_that_ends_every_connection_does_not_cost_the_birth(qos: int) -> None:
    """It ends those without birth as well, so birth is innocent and said at once again."""
    world = World(lambda topic: False, qos)
    for _ in range(12):
        while not world.engine.wants_open:
            world.advance(1)
        world.connections.append(payloads(world.connect()))
        world.lose()
    said = [bool(connection) for connection in world.connections]
    assert said == [True, True, True, False] * 3
    assert "no_birth" not in world.events()


def test_a_busy_broker_and_one_that_takes_birth_prove_nothing() -> None:
    world = World(lambda topic: topic == "state")
    world.reason = 0x89
    world.live(600)
    assert all(connection == [b"online"] for connection in world.connections)
    assert len(world.connections) > 4
    taken = World(lambda topic: topic == "bad", on_poison="keep")
    taken.publish(b"x", topic="bad")
    taken.live(300)
    assert all(connection[0] in (b"online", b"x") for connection in taken.connections)
    assert all(b"online" in connection for connection in taken.connections[:1])


def test_on_poison_keep_says_it_for_ever() -> None:
    world = World(lambda topic: topic == "state", on_poison="keep")
    world.live(600)
    assert all(connection == [b"online"] for connection in world.connections)
    assert "no_birth" not in world.events()


def test_the_trial_is_daily_after_a_day_of_hours() -> None:
    trial, now = BirthTrial(), 0.0
    for _ in range(3):
        assert trial.place(now) == AT_ONCE
        assert not trial.ended_on(0.5, now, late=False)
    for hours in [1] * 24 + [24]:
        assert trial.place(now) == LATE
        assert trial.wait == 2.0
        assert trial.ended_on(0.5, now, late=True)
        assert trial.place(now + hours * 3600 - 1) == NOT_AT_ALL
        now += hours * 3600
    trial.answered()
    assert trial.place(now) == AT_ONCE
