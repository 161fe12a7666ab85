"""Any history with a forbidden topic in it: no good message is refused, none is lost, and nothing hangs.

:class:`LateHistory` has forbidden topic filters as well, several brokers, and answers that are late.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from device_sdk.engine.outgoing.greetings import Greetings
from device_sdk.mqtt.message import Message, Subscription
from device_sdk.store.memory import MemoryStore
from tests.engine.late_world import LateWorld
from tests.engine.poison_world import PoisonWorld, Reaction

BAD = ("bad/1", "bad/2")
BAD_FILTER = "bad/filter"
GOOD = ("good/1", "good/2", "good/3")
ENDS: tuple[str | int, ...] = ("closed", "reset", "link", 0x8B, 0x8E, 0x97, 0x95, 0x87)


class History:
    """A client, a broker that closes for some topics, and what else happens to both."""

    def __init__(self, seed: int, *, takes_back: bool = False) -> None:
        self.takes_back = takes_back
        self.dice = dice = random.Random(seed)
        self.how: Reaction = dice.choice(("closed", "reset", 0x95, 0x87))
        self.has_bad_topics = dice.random() < 0.7
        self.world = PoisonWorld(
            self.reacts,
            version=dice.choice(("5.0", "5.0", "3.1.1")) if not isinstance(self.how, int) else "5.0",
            store=dice.choice((None, MemoryStore())),
            inflight=dice.choice((1, 2, 20)),
        )
        self.asked: dict[str, Any] = {}
        self.good: list[Any] = []
        self.bad: list[Any] = []
        self.crashes = 0

    def reacts(self, packet: Any) -> Reaction:
        if packet.type == "subscribe" and self.has_bad_topics:
            return self.how if any(one.topic == BAD_FILTER for one in packet.subscriptions) else None
        if packet.type != "publish":
            return None
        if self.crashes:
            self.crashes -= 1
            return self.dice.choice(("closed", "reset"))
        return self.how if packet.topic in BAD else None

    def publish(self) -> None:
        self.good.append(self.send(self.dice.choice(GOOD)))

    def publish_badly(self) -> None:
        if self.has_bad_topics:
            self.bad.append(self.send(self.dice.choice(BAD)))

    def subscribe(self) -> None:
        filters = [f"f/{len(self.asked)}", f"g/{len(self.asked)}"]
        if self.has_bad_topics and self.dice.random() < 0.3 and BAD_FILTER not in self.asked:
            filters.insert(1, BAD_FILTER)
        with self.world.engine.lock:
            request = self.world.engine.incoming.subscribe([Subscription(one, 1) for one in filters], None)
        self.asked.update(dict.fromkeys(filters, request))

    def send(self, topic: str) -> Any:
        return self.world.send(topic, b"%d" % len((*self.good, *self.bad)), qos=self.dice.randint(1, 2))

    def wait(self) -> None:
        self.world.wait(self.dice.choice((0.0, 0.1, 1.0, 20.0)))

    def end(self) -> None:
        if self.world.engine.life.state == "connected":
            how = self.dice.choice(ENDS)
            self.world.end(how if self.world.version == "5.0" or isinstance(how, str) else "closed")

    def crash(self) -> None:
        self.crashes = self.dice.randint(1, 30)

    def lose_sessions(self) -> None:
        if self.world.engine.life.state != "connected":
            self.world.place.broker.sessions.clear()

    def take_back(self) -> None:
        """The application cancels one of the messages that wait, were stepped over or are suspect."""
        delivery = self.dice.choice((*self.good, *self.bad)) if self.good else None
        if delivery is not None:
            waited = delivery.status == "queued"
            assert delivery.cancel() is waited

    def play(self) -> None:
        steps = [self.publish] * 4 + [self.publish_badly] * 2 + [self.wait] * 4
        steps += [self.end, self.crash, self.lose_sessions, self.subscribe]
        steps += [self.take_back] * 4 * self.takes_back
        for _ in range(80):
            self.dice.choice(steps)()
        self.crashes = 0
        for _ in range(400):
            if all(one.done for one in (*self.good, *self.bad, *self.asked.values())):
                return
            self.publish()
            self.world.wait(30)
        waiting = [one for one in (*self.good, *self.bad, *self.asked.values()) if not one.done]
        raise AssertionError(f"{waiting[:5]} after hours; {self.world.events[-20:]}")


@pytest.mark.parametrize("seed", range(100))
def test_any_history_ends_every_message_as_it_should(seed: int) -> None:
    history = History(seed)
    history.play()
    states = {delivery.state for delivery in history.good}
    assert states == {"acknowledged"}, [one for one in history.good if one.state != "acknowledged"]
    assert {delivery.state for delivery in history.bad} <= {"refused"}
    received = [payload for topic in GOOD for payload in history.world.place.broker.payloads(topic)]
    assert set(received) >= {delivery.payload or b"" for delivery in history.good if delivery.qos == 1}
    assert set(history.world.engine.incoming.router.wanted) == history.asked.keys() - {BAD_FILTER}
    assert history.world.engine.outgoing.outbox.queued == 0
    assert not history.world.engine.connection.protocol.outbound.left_out  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", range(40))
def test_messages_that_are_taken_back_change_nothing_for_the_others(seed: int) -> None:
    history = History(seed, takes_back=True)
    history.play()
    outbox, stats = history.world.engine.outgoing.outbox, history.world.engine.stats()
    assert {delivery.state for delivery in history.good} <= {"acknowledged", "cancelled"}
    assert {delivery.state for delivery in history.bad} <= {"refused", "cancelled"}
    states = [delivery.state for delivery in (*history.good, *history.bad)]
    assert stats.cancelled == states.count("cancelled")
    assert (outbox.queued, outbox.queued_bytes, outbox.backlog.memory_bytes) == (0, 0, 0)
    connection = history.world.engine.connection
    assert connection is None or not connection.protocol.outbound.left_out


class LateHistory:
    """One to three brokers that close for some filters, topics and births; their answers come late.

    Every number and option is drawn: a client without any message, or without any good filter, too.
    """

    def __init__(self, seed: int) -> None:
        self.dice = dice = random.Random(seed)
        self.how = dice.choice(("closed", "reset", 0x8F, 0x87, 0x95))
        version = "5.0" if isinstance(self.how, int) else dice.choice(("5.0", "3.1.1"))
        count = dice.choice((1, 1, 1, 2, 3))
        options: dict[str, Any] = {"clean_start": dice.choice((None, None, None, True))}
        if count > 1:
            options["return_to_first"] = dice.choice((None, 40.0))
        if dice.random() < 0.2:
            options["greetings"] = Greetings(version, Message("birth", b"on", qos=dice.randint(0, 1)))
        self.has_bad_birth = dice.random() < 0.4
        self.world = LateWorld(
            brokers=count,
            late=dice.choice((0.3, 0.3, 0.05, 2.0)),
            version=version,
            store=dice.choice((None, None, MemoryStore())),
            inflight=dice.choice((1, 2, 20)),
            session_expiry=dice.choice((0, 0xFFFF_FFFF, 0xFFFF_FFFF)),
            **options,
        )
        self.bad_filters = [f"bad/f{number}" for number in range(dice.choice((0, 1, 1, 2, 3)))]
        self.good_filters = [f"f/{number}" for number in range(dice.choice((0, 1, 2, 5, 12)))]
        self.bad_topics = [f"bad/t{number}" for number in range(dice.choice((0, 0, 1, 1, 2)))]
        self.good_topics = GOOD[: dice.choice((0, 1, 3))]
        self.crashes = 0
        self.crashes_on = dice.choice((("publish",), ("publish", "subscribe")))
        for place in self.world.places:
            place.reacts = self.reacts
            place.transport.loses_answers = dice.random() < 0.3
        self.good: list[Any] = []
        self.bad: list[Any] = []
        self.requests: list[tuple[list[str], Any]] = []
        self.wanted: dict[str, bool] = {}

    def reacts(self, packet: Any) -> Reaction:
        if self.crashes and packet.type in self.crashes_on:
            self.crashes -= 1
            return self.dice.choice(("closed", "reset"))
        if packet.type == "subscribe":
            is_bad = any(one.topic in self.bad_filters for one in packet.subscriptions)
        elif packet.type == "publish":
            is_bad = packet.topic in self.bad_topics or (packet.topic == "birth" and self.has_bad_birth)
        else:
            return None
        return self.how if is_bad else None

    def publish(self, topics: Any = None) -> None:
        topics = topics or self.good_topics
        if topics:
            to = self.good if topics == self.good_topics else self.bad
            payload = b"%d" % len((*self.good, *self.bad))
            to.append(self.world.send(self.dice.choice(topics), payload, self.dice.randint(1, 2)))

    def publish_badly(self) -> None:
        self.publish(self.bad_topics)

    def publish_qos0(self) -> None:
        topics = (*self.good_topics, *self.bad_topics)
        if topics:
            self.world.send(self.dice.choice(topics), b"0", 0)

    def burst(self) -> None:
        for _ in range(40):
            self.publish()

    def subscribe(self) -> None:
        names = [one for one in (*self.good_filters, *self.bad_filters) if one not in self.wanted]
        if names:
            some = self.dice.sample(names, self.dice.randint(1, min(3, len(names))))
            self.requests.append((some, self.world.subscribe(*some)))
            self.wanted.update(dict.fromkeys(some, True))

    def unsubscribe(self) -> None:
        names = [one for one, wanted in self.wanted.items() if wanted]
        if names:
            name = self.dice.choice(names)
            self.requests.append(([], self.world.unsubscribe(name)))
            self.wanted[name] = self.dice.random() < 0.6
            if self.wanted[name]:
                self.requests.append(([name], self.world.subscribe(name)))

    def wait(self) -> None:
        self.world.wait(self.dice.choice((0.0, 0.1, 0.4, 1.0, 20.0)))

    def end(self) -> None:
        if self.world.engine.life.state == "connected":
            how = self.dice.choice(ENDS)
            self.world.end(how if self.world.version == "5.0" or isinstance(how, str) else "closed")

    def crash(self) -> None:
        self.crashes = self.dice.randint(1, 20)

    def lose_sessions(self) -> None:
        if all(place.transport.link is None for place in self.world.places):
            for place in self.world.places:
                place.broker.sessions.clear()

    def fail_over(self) -> None:
        place = self.dice.choice(self.world.places)
        place.is_down = len(self.world.places) > 1 and not place.is_down

    def play(self) -> None:
        steps = [self.publish, self.wait] * 4 + [self.subscribe] * 3
        steps += [self.publish_badly, self.burst, self.publish_qos0, self.unsubscribe, self.fail_over]
        steps += [self.end, self.lose_sessions, self.crash] * self.dice.randint(0, 1)
        for _ in range(self.dice.choice((5, 20, 50))):
            self.dice.choice(steps)()
        self.crashes = 0
        for place in self.world.places:
            place.is_down = False
        for _ in range(20):
            self.subscribe()
        self.settle()

    def settle(self) -> None:
        """Go on until everything has come to its end that can."""
        world, begun = self.world, self.world.connections
        most = len(world.places) * (40 + 14 * len(self.bad_filters) + 21 * len(self.bad_topics))
        while not all(one.done for one in self.awaited):
            assert world.connections < begun + most, f"{[one for one in self.awaited if not one.done][:5]}"
            self.publish()
            world.wait(7)

    @property
    def speaks(self) -> bool:
        """Whether anything but the bad filters says how the broker is."""
        return bool(self.good_topics) or any(self.wanted[one] for one in self.good_filters)

    @property
    def awaited(self) -> list[Any]:
        if not self.speaks:
            return []  # a broker that takes nothing of a client looks like one that is broken
        found = [request for _, request in self.requests]
        # One bad message and no good one: so it is with messages, too.
        return [*found, *self.good, *self.bad] if self.good_topics or not self.bad_topics else found

    def check(self) -> None:
        for names, request in self.requests:
            is_bad = [one in self.bad_filters for one in names]
            if request.done and any(is_bad):
                assert [code >= 0x80 for code in request.reason_codes] == is_bad
            assert not request.done or (request.error is not None) == any(is_bad), (names, request.error)
        assert {one.state for one in self.good if one.done} <= {"acknowledged"}
        assert {one.state for one in self.bad if one.done} <= {"refused"}
        for place in self.world.places:
            for topic in self.good_topics if len(self.world.places) == 1 else ():
                packets = [one for each in place.connections for one in each if one.type == "publish"]
                sent = dict.fromkeys(int(one.payload) for one in packets if one.topic == topic)
                sent.pop(0, None)
                assert list(sent) == sorted(sent), "the order of one topic"
        if self.speaks and (self.good_topics or not self.bad_topics):
            self.check_quiet()

    def check_quiet(self) -> None:
        """There is nothing more to be found: the connection lasts, and has every good filter."""
        world = self.world
        world.wait(7200 if self.world.options.get("return_to_first") else 1200)
        lost = world.lost
        world.wait(300)
        assert (world.lost, world.engine.life.state) == (lost, "connected")
        wanted = {one for one in self.good_filters if self.wanted[one]}
        assert set(world.here.broker.sessions["c"].subscriptions) == wanted
        assert set(world.engine.incoming.router.wanted) == wanted
        outbox, suspicion = world.engine.outgoing.outbox, world.engine.outgoing.suspicion
        assert suspicion is not None
        assert not suspicion.filters.is_watchful
        assert (outbox.queued, outbox.backlog.memory_bytes) == (0, 0)


@pytest.mark.parametrize("seed", [*range(97), 1_551, 2_940, 6_108])
def test_any_late_history_ends_every_filter_and_message_as_it_should(seed: int) -> None:
    history = LateHistory(seed)
    history.play()
    history.check()
