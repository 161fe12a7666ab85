"""The queue beyond the window: pages from the store, only the newest of a topic, age, order of the replay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.errors import DeliveryExpiredError, DroppedError
from device_sdk.mqtt.packets import Puback
from device_sdk.store.base import StorePolicy
from device_sdk.store.memory import MemoryStore
from tests.engine.rig import Packets, Rig, payloads, set_pages

PAGE = 4


@pytest.fixture(autouse=True)
def small_pages() -> Iterator[None]:
    """Let a page hold four messages, so that a queue of a dozen has several."""
    with pytest.MonkeyPatch.context() as patch:
        set_pages(patch, PAGE_MESSAGES=PAGE, PAGES_IN_MEMORY=2)
        yield


def numbers(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last)]


def acknowledge_all(rig: Rig, packets: Packets) -> list[bytes]:
    """Acknowledge what was sent, and what follows, until nothing does; the payloads in their order."""
    arrived: list[bytes] = []
    while packets := [packet for packet in packets if packet.type == "publish"]:
        arrived += payloads(packets)
        packets = rig.feed(*(Puback(packet.packet_id) for packet in packets))
    return arrived


def queued(rig: Rig) -> int:
    with rig.engine.lock:
        return rig.engine.stats().queued


def objects(rig: Rig) -> int:
    """Messages that the engine keeps in memory."""
    gc.collect()
    mine = [one for one in gc.get_referrers(rig.engine.outgoing.outbox.waits) if isinstance(one, Delivery)]
    return len(mine) - 1  # one stands for all of QoS 0


# Pages


def test_of_a_long_queue_only_two_pages_are_in_memory() -> None:
    rig = Rig(store=MemoryStore())
    for payload in numbers(0, 100):
        rig.publish(payload)
    assert (queued(rig), objects(rig)) == (100, 2 * PAGE)


def test_a_long_queue_leaves_in_order_and_completely() -> None:
    rig = Rig(store=MemoryStore(), inflight=3)
    for payload in numbers(0, 50):
        rig.publish(payload)
    assert acknowledge_all(rig, rig.connect()) == numbers(0, 50)
    assert queued(rig) == 0


def test_what_is_published_meanwhile_does_not_overtake_what_the_store_holds() -> None:
    rig = Rig(store=MemoryStore(), inflight=1)
    for payload in numbers(0, 20):
        rig.publish(payload)
    first = rig.connect()
    rig.publish(b"late")
    assert acknowledge_all(rig, first) == [*numbers(0, 20), b"late"]


def test_a_delivery_beyond_memory_is_the_one_that_completes() -> None:
    rig = Rig(store=MemoryStore(), inflight=2)
    deliveries = [rig.publish(payload) for payload in numbers(0, 20)]
    assert {delivery.state for delivery in deliveries} == {"stored"}
    acknowledge_all(rig, rig.connect())
    assert {delivery.state for delivery in deliveries} == {"acknowledged"}


def test_a_restart_finds_the_whole_queue() -> None:
    store = MemoryStore()
    rig = Rig(store=store)
    for payload in numbers(0, 30):
        rig.publish(payload)
    rig.engine.end()
    rig.engine.close_store()
    again = Rig(store=store, inflight=3)
    assert queued(again) == 30
    assert objects(again) <= 2 * PAGE
    again.publish(b"late")
    assert acknowledge_all(again, again.connect()) == [*numbers(0, 30), b"late"]


def test_the_bound_counts_what_only_the_store_holds() -> None:
    rig = Rig(store=MemoryStore(), policy=StorePolicy(max_messages=20, overflow="drop_oldest"))
    first = rig.publish(b"first")
    for payload in numbers(0, 20):
        rig.publish(payload)
    assert (queued(rig), first.state) == (20, "dropped")
    assert acknowledge_all(rig, rig.connect()) == numbers(0, 20)


def test_closing_ends_the_wait_for_a_message_beyond_memory() -> None:
    rig = Rig(store=MemoryStore())
    last = [rig.publish(payload) for payload in numbers(0, 20)][-1]
    rig.engine.end()
    rig.engine.close_store()
    assert last.state == "stored"
    assert last.done


def test_a_large_message_counts_against_the_memory_of_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    set_pages(monkeypatch, store=False, PAGE_BYTES=100)
    rig = Rig(store=MemoryStore())
    for _ in range(5):
        rig.publish(bytes(150))
    assert (queued(rig), objects(rig)) == (5, 1)


# Only the newest of a topic


@pytest.mark.parametrize("store", [None, MemoryStore])
@pytest.mark.parametrize("before", [0, 20])
def test_only_the_newest_message_of_a_topic_waits(store: Any, before: int) -> None:
    rig = Rig(store=store and store(), policy=StorePolicy(keep_last=("state/+",)))
    for payload in numbers(0, before):
        rig.publish(payload)
    old = rig.publish(b"old", topic="state/door")
    rig.publish(b"other", topic="state/window")
    new = rig.publish(b"new", topic="state/door")
    assert queued(rig) == before + 2
    assert (old.state, new.done) == ("dropped", False)
    with pytest.raises(DroppedError, match="keep_last"):
        old.wait(0)
    assert acknowledge_all(rig, rig.connect()) == [*numbers(0, before), b"other", b"new"]
    assert queued(rig) == 0


def test_a_message_in_flight_is_not_replaced() -> None:
    rig = Rig(policy=StorePolicy(keep_last=("#",)), inflight=1)
    rig.connect()
    first = rig.publish(b"1")
    rig.publish(b"2")
    rig.publish(b"3")
    packets = rig.sent()
    assert first.state == "sent"
    assert acknowledge_all(rig, packets) == [b"1", b"3"]


def test_the_newest_of_a_topic_is_known_after_a_restart() -> None:
    store = MemoryStore()
    policy = StorePolicy(keep_last=("state",))
    rig = Rig(store=store, policy=policy)
    for payload in numbers(0, 20):
        rig.publish(payload)
    rig.publish(b"old", topic="state")
    rig.engine.end()
    rig.engine.close_store()
    again = Rig(store=store, policy=policy)
    again.publish(b"new", topic="state")
    assert queued(again) == 21
    assert acknowledge_all(again, again.connect()) == [*numbers(0, 20), b"new"]


def test_a_replaced_message_is_counted_and_reported() -> None:
    rig = Rig(policy=StorePolicy(keep_last=("#",)))
    rig.publish(b"1")
    rig.publish(b"2")
    with rig.engine.lock:
        assert rig.engine.stats().dropped == 1
    assert rig.events() == ["dropped"]


def test_keep_last_wants_topic_filters() -> None:
    with pytest.raises(ValueError, match="#"):
        Rig(policy=StorePolicy(keep_last=("a/#/b",)))


# Age


def test_a_message_waits_no_longer_than_the_age_that_is_allowed() -> None:
    rig = Rig(policy=StorePolicy(max_age=60))
    old = rig.publish(b"old")
    rig.advance(59)
    rig.publish(b"new")
    rig.advance(1)
    with pytest.raises(DeliveryExpiredError):
        old.wait(0)
    assert payloads(rig.connect()) == [b"new"]


def test_the_broker_is_not_told_of_the_age() -> None:
    rig = Rig(policy=StorePolicy(max_age=60))
    rig.publish(b"x")
    (packet,) = (packet for packet in rig.connect() if packet.type == "publish")
    assert packet.properties == {}


def test_a_message_with_an_expiry_of_its_own_keeps_it() -> None:
    rig = Rig(policy=StorePolicy(max_age=60))
    rig.publish(b"x", expiry=300)
    rig.advance(100)
    (packet,) = (packet for packet in rig.connect() if packet.type == "publish")
    assert packet.properties == {"message_expiry_interval": 200}


def test_the_age_goes_on_over_a_restart() -> None:
    store = MemoryStore()
    rig = Rig(store=store, policy=StorePolicy(max_age=60))
    rig.publish(b"old")
    rig.engine.end()
    rig.engine.close_store()
    again = Rig(store=store, policy=StorePolicy(max_age=60))
    again.advance(61)
    assert payloads(again.connect()) == []


# Replay


def test_live_messages_overtake_what_waited() -> None:
    rig = Rig(store=MemoryStore(), policy=StorePolicy(replay="live"), inflight=4)
    for payload in numbers(0, 20):
        rig.publish(payload)
    packets = rig.connect()
    assert payloads(packets) == [b"0", b"1"]  # half of the window is for what comes now
    rig.publish(b"live 1")
    rig.publish(b"live 2")
    rig.publish(b"live 3")
    packets += rig.sent()
    assert payloads(packets) == [b"0", b"1", b"live 1", b"live 2"]
    assert acknowledge_all(rig, packets)[4:] == [b"live 3", *numbers(2, 20)]
    assert queued(rig) == 0


def test_what_was_live_when_the_connection_broke_is_sent_on_the_next_one() -> None:
    rig = Rig(store=MemoryStore(), policy=StorePolicy(replay="live"), inflight=2)
    for payload in numbers(0, 20):
        rig.publish(payload)
    rig.connect()
    live = [b"live %d" % number for number in range(12)]
    for payload in live:
        rig.publish(payload)
    rig.lose()
    rig.advance(60)
    arrived = acknowledge_all(rig, rig.connect(session_present=True))
    assert sorted(arrived) == sorted([*numbers(0, 20), *live])
    assert queued(rig) == 0


def test_the_past_is_sent_at_the_rate_that_was_asked_for() -> None:
    rig = Rig(policy=StorePolicy(replay_rate=2), inflight=100)
    for payload in numbers(0, 10):
        rig.publish(payload)
    assert payloads(rig.connect()) == [b"0"]
    assert payloads(rig.advance(0.5)) == [b"1"]
    assert len(payloads(rig.advance(2))) == 4
    assert len(payloads(rig.advance(60))) == 4


def test_a_rate_does_not_hold_back_what_is_live() -> None:
    rig = Rig(policy=StorePolicy(replay="live", replay_rate=1), inflight=100)
    for payload in numbers(0, 5):
        rig.publish(payload)
    rig.connect()
    for payload in numbers(100, 120):
        rig.publish(payload)
    assert payloads(rig.sent()) == numbers(100, 120)


def test_a_full_window_makes_no_deadline_for_the_replay() -> None:
    rig = Rig(policy=StorePolicy(replay_rate=100), inflight=1, keep_alive=0)
    for payload in numbers(0, 5):
        rig.publish(payload)
    rig.connect()
    rig.advance(1)
    assert rig.deadline() is None


# Any history


class Model:
    """Plays a client through any history and notes what has to arrive."""

    def __init__(self, replay: str) -> None:
        self.store = MemoryStore()
        self.policy = StorePolicy(replay=replay)
        self.published = 0
        self.arrived: list[bytes] = []
        self.unacknowledged: Packets = []
        self.begin()

    def begin(self) -> None:
        self.rig = Rig(store=self.store, policy=self.policy, inflight=3, clean_start=False)
        self.rig.answers_pings = True

    def publish(self, count: int) -> None:
        for _ in range(count):
            self.rig.publish(b"%d" % self.published)
            self.published += 1
        self.take(self.rig.sent())

    def connect(self, _: int) -> None:
        if self.rig.engine.life.state == "connected":
            return
        self.rig.advance(60)
        self.unacknowledged = []
        self.take(self.rig.connect(session_present=True))

    def acknowledge(self, count: int) -> None:
        if self.rig.engine.life.state != "connected":
            return
        for _ in range(min(count, len(self.unacknowledged))):
            self.take(self.rig.feed(Puback(self.unacknowledged.pop(0).packet_id)))

    def lose(self, _: int) -> None:
        if self.rig.engine.life.state == "connected":
            self.rig.lose()

    def restart(self, _: int) -> None:
        self.rig.engine.drop_connection()
        self.rig.engine.end()
        self.rig.engine.close_store()
        self.begin()

    def take(self, packets: Packets) -> None:
        sent = [packet for packet in packets if packet.type == "publish"]
        self.unacknowledged += sent
        self.arrived += [packet.payload for packet in sent if not packet.dup]

    def finish(self) -> None:
        self.connect(0)
        while self.unacknowledged:
            self.acknowledge(1)


STEPS = st.tuples(
    st.sampled_from(["publish", "publish", "connect", "acknowledge", "acknowledge", "lose", "restart"]),
    st.integers(1, 15),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_any_history_brings_every_message_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    model = Model("history")
    for step, count in steps:
        getattr(model, step)(count)
    model.finish()
    assert model.arrived == numbers(0, model.published)
    assert queued(model.rig) == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_any_history_with_live_messages_first_brings_every_message_once(steps: list[tuple[str, int]]) -> None:
    model = Model("live")
    for step, count in steps:
        getattr(model, step)(count)
    model.finish()
    assert sorted(model.arrived) == sorted(numbers(0, model.published))
    assert queued(model.rig) == 0
