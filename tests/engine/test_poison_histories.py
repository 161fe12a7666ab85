"""Any history with a forbidden topic in it: no good message is refused, none is lost, and nothing hangs."""

from __future__ import annotations

import random
from typing import Any

import pytest

from device_sdk.store.memory import MemoryStore
from tests.engine.poison_world import PoisonWorld, Reaction

BAD = ("bad/1", "bad/2")
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
        self.good: list[Any] = []
        self.bad: list[Any] = []
        self.crashes = 0

    def reacts(self, packet: Any) -> Reaction:
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
        steps += [self.end, self.crash, self.lose_sessions] + [self.take_back] * 4 * self.takes_back
        for _ in range(80):
            self.dice.choice(steps)()
        self.crashes = 0
        for _ in range(400):
            if all(delivery.done for delivery in (*self.good, *self.bad)):
                return
            self.publish()
            self.world.wait(30)
        waiting = [delivery for delivery in (*self.good, *self.bad) if not delivery.done]
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
