"""PUBACK and PUBREC with 0x97, quota exceeded: the message is published again, before others on its topic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from device_sdk.mqtt.packets import Puback, Pubcomp, Publish, Pubrec
from device_sdk.store.base import StorePolicy
from device_sdk.store.memory import MemoryStore
from tests.calls import Calls
from tests.engine.rig import Packets, Rig, payloads, set_pages
from tests.engine.test_queue_bounds import numbers, queued

QUOTA = 0x97
STORES = pytest.mark.parametrize("store", [None, MemoryStore], ids=["memory", "store"])


@pytest.fixture(autouse=True)
def small_pages() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        set_pages(patch, PAGE_MESSAGES=4, PAGES_IN_MEMORY=2)
        yield


def refuse(rig: Rig, packet: Any) -> Packets:
    answer = Pubrec if packet.qos == 2 else Puback
    return [one for one in rig.feed(answer(packet.packet_id, QUOTA)) if one.type == "publish"]


def rig_with(store: Any, **options: Any) -> Rig:
    rig = Rig(store=None if store is None else store(), keep_alive=0, **options)
    rig.connect()
    return rig


@STORES
@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_over_the_quota_is_published_again_after_a_second_as_a_new_one(
    store: Any, qos: int
) -> None:
    rig = rig_with(store)
    delivery = rig.publish(b"x", qos)
    [first] = rig.sent()
    rig.events()
    assert refuse(rig, first) == []
    with rig.engine.lock:
        stats = rig.engine.stats()
    assert (stats.queued, stats.held, stats.in_flight, delivery.done) == (0, 1, 1, False)
    assert "published again in 1 s" in rig.event_objects()[0].text
    assert rig.advance(0.9) == []
    [again] = rig.advance(0.2)
    assert isinstance(again, Publish)
    assert (again.payload, again.qos, again.dup, again.packet_id != first.packet_id) == (
        b"x",
        qos,
        False,
        True,
    )
    with rig.engine.lock:
        stats = rig.engine.stats()
    assert (stats.refused, stats.queued, stats.held, stats.in_flight) == (0, 0, 0, 1)
    packet_id = again.packet_id or 0
    rig.feed(*([Puback(packet_id)] if qos == 1 else [Pubrec(packet_id), Pubcomp(packet_id)]))
    assert (delivery.state, delivery.reason_code) == ("acknowledged", 0)


@STORES
def test_the_pause_doubles_up_to_five_minutes_and_begins_anew_after_a_success(store: Any) -> None:
    rig = rig_with(store)
    rig.publish(b"x")
    [packet] = rig.sent()
    for pause in (1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300):
        refuse(rig, packet)
        assert rig.advance(pause - 0.1) == []
        [packet] = rig.advance(0.2)
    rig.feed(Puback(packet.packet_id))
    rig.publish(b"y")
    [packet] = rig.sent()
    refuse(rig, packet)
    assert payloads(rig.advance(1.1)) == [b"y"]


@STORES
def test_others_on_its_topic_wait_behind_it_and_other_topics_go_on(store: Any) -> None:
    rig = rig_with(store, inflight=1)
    mine = [rig.publish(payload, topic="full") for payload in numbers(0, 12)]
    other = rig.publish(b"other", topic="free")
    [first] = rig.sent()
    packets = refuse(rig, first)
    while not packets:
        packets = rig.sent()
    assert payloads(packets) == [b"other"]
    rig.feed(Puback(packets[0].packet_id))
    late = rig.publish(b"late", topic="free")
    [packet] = rig.sent()
    assert (packet.payload, other.state) == (b"late", "acknowledged")
    rig.feed(Puback(packet.packet_id))
    rig.publish(b"12", topic="full")
    assert rig.sent() == []
    arrived: list[bytes] = []
    packets = rig.advance(1.1)
    while packets:
        arrived += payloads(packets)
        packets = rig.feed(*(Puback(packet.packet_id) for packet in packets))
        packets += rig.sent()
    assert arrived == numbers(0, 13)
    assert {one.state for one in (*mine, late)} == {"acknowledged"}
    with rig.engine.lock:
        stats = rig.engine.stats()
    assert (stats.queued, stats.held, stats.in_flight) == (0, 0, 0)


@STORES
def test_several_over_the_quota_keep_their_order(store: Any) -> None:
    rig = rig_with(store)
    for payload in numbers(0, 4):
        rig.publish(payload)
    packets = rig.sent()
    rig.feed(*(Puback(packet.packet_id, QUOTA) for packet in packets))
    [packet] = rig.advance(1.1)
    assert packet.payload == b"0"
    arrived = [b"0"]
    packets = rig.feed(Puback(packet.packet_id)) + rig.sent()
    while packets:
        arrived += payloads(packets)
        packets = rig.feed(*(Puback(packet.packet_id) for packet in packets))
        packets += rig.sent()
    assert arrived == numbers(0, 4)
    assert queued(rig) == 0


@STORES
@pytest.mark.parametrize("present", [False, True])
def test_on_the_next_connection_it_is_tried_at_once(store: Any, present: bool) -> None:
    rig = rig_with(store, clean_start=False)
    rig.publish(b"0")
    rig.publish(b"1")
    first = rig.sent()[0]
    refuse(rig, first)
    rig.lose()
    rig.advance(60)
    assert payloads(rig.connect(session_present=present)) == [b"0", b"1"]
    assert queued(rig) == 0


@STORES
def test_a_message_that_expires_meanwhile_ends_and_its_topic_goes_on(store: Any) -> None:
    rig = rig_with(store, inflight=1)
    short = rig.publish(b"short", expiry=3)
    rig.publish(b"next")
    for pause in (1, 2):
        [packet] = rig.sent() or rig.advance(pause)
        refuse(rig, packet)
    packets = rig.advance(10)
    assert (short.state, payloads([*packets, *rig.sent()])) == ("expired", [b"next"])


@STORES
def test_no_thread_waits_for_a_message_that_is_due_and_finds_no_room(store: Any) -> None:
    rig = rig_with(store, inflight=1)
    rig.publish(b"0", topic="full")
    refuse(rig, rig.sent()[0])
    rig.publish(b"1", topic="free")
    [blocking] = rig.sent()
    assert rig.advance(100) == []
    assert rig.engine.next_deadline() is None  # it would be now, again and again
    assert payloads(rig.feed(Puback(blocking.packet_id))) == [b"0"]


@pytest.mark.parametrize("tries", [1, 2])
def test_a_restart_repeats_it_with_its_last_identifier(tries: int) -> None:
    store = MemoryStore()
    rig = Rig(store=store, clean_start=False)
    rig.connect()
    rig.publish(b"x")
    [packet] = rig.sent()
    for pause in range(1, tries):
        refuse(rig, packet)
        [packet] = rig.advance(pause + 0.1)
    refuse(rig, packet)
    rig.engine.drop_connection()
    rig.engine.end()
    rig.engine.close_store()
    again = Rig(store=store, clean_start=False)
    [repeat] = again.connect(session_present=True)
    assert (repeat.payload, repeat.packet_id) == (b"x", packet.packet_id)


def test_it_is_not_waited_for_in_the_window() -> None:
    rig = rig_with(None, inflight=2)
    for payload in numbers(0, 2):
        rig.publish(payload, topic="full")
    rig.feed(*(Puback(packet.packet_id, QUOTA) for packet in rig.sent()))
    for payload in numbers(2, 5):
        rig.publish(payload, topic="free")
    assert payloads(rig.sent()) == numbers(2, 4)
    assert rig.advance(1.1) == []  # until there is room
    connection = rig.engine.connection
    assert connection is not None
    assert (connection.protocol.outbound.window, len(rig.engine.session)) == (4, 4)


def test_the_drain_of_close_waits_for_it() -> None:
    rig = rig_with(None)
    rig.publish(b"x")
    [packet] = rig.sent()
    refuse(rig, packet)
    with rig.engine.lock:
        assert not rig.engine.is_drained()
    [packet] = rig.advance(1.1)
    rig.feed(Puback(packet.packet_id))
    with rig.engine.lock:
        assert rig.engine.is_drained()


@STORES
@pytest.mark.parametrize("present", [False, True])
def test_the_order_stays_when_the_connection_is_lost_meanwhile(store: Any, present: bool) -> None:
    rig = rig_with(store, clean_start=False)
    for payload in numbers(0, 3):
        rig.publish(payload)
    rig.feed(*(Puback(packet.packet_id, QUOTA) for packet in rig.sent()))
    assert payloads(rig.advance(1.1)) == [b"0"]
    rig.lose()
    rig.advance(60)
    assert payloads(rig.connect(session_present=present)) == numbers(0, 3)


@pytest.mark.parametrize("replay", ["history", "live"])
@STORES
def test_what_is_held_behind_it_keeps_its_place_among_the_new_ones(store: Any, replay: str) -> None:
    rig = rig_with(store, inflight=2, policy=StorePolicy(replay=replay))
    mine = [rig.publish(b"0", topic="full")]
    refuse(rig, rig.sent()[0])
    mine += [rig.publish(payload, topic="full") for payload in numbers(1, 6)]
    [packet] = [one for one in rig.advance(1.1) if one.type == "publish"]
    free = [rig.publish(payload, topic="free") for payload in numbers(10, 13)]
    arrived = [packet]
    packets = rig.sent()
    last = rig.publish(b"6", topic="full")
    packets += rig.feed(Puback(packet.packet_id))
    while packets:
        arrived += packets
        packets = rig.feed(*(Puback(one.packet_id) for one in packets)) + rig.sent()
    assert [one.payload for one in arrived if one.topic == "full"] == numbers(0, 7)
    assert {one.state for one in (*mine, *free, last)} == {"acknowledged"}
    with rig.engine.lock:
        stats, outbox = rig.engine.stats(), rig.engine.outgoing.outbox
    assert (stats.queued, stats.held, stats.dropped, outbox.backlog.memory_bytes) == (0, 0, 0, 0)


def test_a_topic_goes_on_when_one_that_was_refused_behind_the_first_has_expired() -> None:
    rig = rig_with(None)
    rig.publish(b"0")
    rig.publish(b"1", expiry=2)
    rig.feed(*(Puback(packet.packet_id, QUOTA) for packet in rig.sent()))
    last = rig.publish(b"2")
    [packet] = rig.advance(1.1)
    rig.advance(5)
    [packet] = rig.feed(Puback(packet.packet_id)) or rig.sent()
    assert (packet.payload, last.state) == (b"2", "sent")


@STORES
def test_those_held_behind_it_expire_and_count(store: Any) -> None:
    rig = rig_with(store)
    rig.publish(b"0")
    refuse(rig, rig.sent()[0])
    short = rig.publish(b"1", expiry=3)
    rig.publish(b"2")
    with rig.engine.lock:
        assert (rig.engine.stats().queued, rig.engine.stats().held) == (2, 3)
    [packet] = rig.advance(1.1)
    refuse(rig, packet)
    rig.advance(8)
    with rig.engine.lock:
        stats = rig.engine.stats()
    assert (short.state, stats.expired, stats.queued) == ("expired", 1, 1)


def test_drop_oldest_may_drop_those_held_behind_it() -> None:
    rig = rig_with(None, policy=StorePolicy(max_messages=2, overflow="drop_oldest"))
    rig.publish(b"0")
    refuse(rig, rig.sent()[0])
    behind = [rig.publish(payload) for payload in numbers(1, 4)]
    assert [one.state for one in behind] == ["dropped", "queued", "queued"]


def postponed(topics: int, **options: Any) -> Rig:
    """So many topics, each with one message over the quota."""
    rig = rig_with(None, inflight=20, policy=StorePolicy(max_messages=10_000), **options)
    for number in range(topics):
        rig.publish(b"x", topic=f"full/{number}")
    packets = rig.sent()
    while packets:
        packets = [again for packet in packets for again in refuse(rig, packet)] + rig.sent()
    return rig


def test_an_acknowledgement_costs_the_same_however_many_topics_are_postponed() -> None:
    costs = []
    for topics in (40, 1_200):
        rig = postponed(topics)
        for payload in numbers(0, 12):
            rig.publish(payload, topic="free")
        waiting = rig.sent()
        with Calls("call") as calls:
            for packet in waiting:
                rig.feed(Puback(packet.packet_id))
        costs.append(calls.total)
    assert costs[1] < 1.1 * costs[0], costs


def test_each_postponed_topic_costs_the_same_however_many_there_are() -> None:
    costs = []
    for topics in (40, 1_200):
        rig = postponed(topics)
        arrived = 0
        with Calls("call") as calls:
            packets = rig.advance(1.1)
            while packets:
                arrived += len(packets)
                packets = [packet for one in packets for packet in rig.feed(Puback(one.packet_id))]
                packets += rig.sent()
        assert arrived == topics
        with rig.engine.lock:
            assert rig.engine.stats().in_flight == 0
            assert rig.deadline() is None
        costs.append(calls.total / topics)
    assert costs[1] < 1.2 * costs[0], costs


def test_one_that_is_due_and_finds_no_room_expires_in_its_time() -> None:
    rig = rig_with(None, inflight=1)
    short = rig.publish(b"0", expiry=5, topic="full")
    refuse(rig, rig.sent()[0])
    rig.publish(b"1", topic="free")
    [packet] = rig.sent()
    behind = rig.publish(b"2", topic="full")
    assert rig.advance(4) == []
    assert not short.done
    assert rig.advance(2) == []
    assert short.state == "expired"
    packets = rig.feed(Puback(packet.packet_id)) + rig.sent()
    assert (payloads(packets), behind.state) == ([b"2"], "sent")


def test_several_of_qos_2_follow_each_other() -> None:
    rig = rig_with(None)
    deliveries = [rig.publish(payload, 2) for payload in numbers(0, 3)]
    for packet in rig.sent():
        refuse(rig, packet)
    arrived: list[bytes] = []
    packets = rig.advance(1.1)
    while packets:
        arrived += payloads(packets)
        ids = [packet.packet_id or 0 for packet in packets if packet.type == "publish"]
        packets = rig.feed(*(Pubrec(one) for one in ids)) + rig.feed(*(Pubcomp(one) for one in ids))
        packets = [packet for packet in packets if packet.type == "publish"] + rig.sent()
    assert arrived == numbers(0, 3)
    assert {one.state for one in deliveries} == {"acknowledged"}
