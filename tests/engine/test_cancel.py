"""``Delivery.cancel()``: a message that still waits is taken back, wherever it waits.

What it does to the counters in any history is in test_queue_histories.py; threads are in tests/client.
"""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.engine.outgoing.stepped_over import SteppedOver
from device_sdk.errors import DeliveryCancelledError, QueueFullError
from device_sdk.mqtt.packets import Puback, Pubrec
from device_sdk.store.base import StorePolicy
from device_sdk.store.memory import MemoryStore
from tests.engine.rig import Rig, SlowStore, payloads, set_pages
from tests.engine.test_queue_histories import LateStore


def queued(rig: Rig) -> tuple[int, int]:
    with rig.engine.lock:
        stats = rig.engine.stats()
    return stats.queued, stats.cancelled


def is_cancelled(delivery: Delivery) -> bool:
    with pytest.raises(DeliveryCancelledError, match="took it back"):
        delivery.wait(0)
    return (delivery.state, delivery.done, delivery.reason_code) == ("cancelled", True, None)


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("store", [None, MemoryStore], ids=["memory", "store"])
def test_a_message_that_waits_is_never_sent_and_those_around_it_are(qos: int, store: Any) -> None:
    rig = Rig(store=store and store())
    first, second, third = (rig.publish(text, qos) for text in (b"1", b"2", b"3"))
    assert second.cancel()
    assert is_cancelled(second)
    assert queued(rig) == (2, 1)
    assert not second.cancel()
    assert queued(rig) == (2, 1)
    assert payloads(rig.connect()) == [b"1", b"3"]
    assert (first.state, third.state) == ("sent", "sent")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_all_may_be_taken_back(order: tuple[int, ...]) -> None:
    rig = Rig()
    deliveries = [rig.publish(b"%d" % number) for number in range(3)]
    assert [deliveries[number].cancel() for number in order] == [True] * 3
    assert queued(rig) == (0, 3)
    assert payloads(rig.connect()) == []
    rig.publish(b"next")
    assert payloads(rig.sent()) == [b"next"]


def test_what_was_sent_or_has_ended_stays_as_it_is() -> None:
    rig = Rig()
    rig.connect()
    qos0, qos1, qos2 = (rig.publish(b"x", qos) for qos in range(3))
    assert not (qos0.cancel() or qos1.cancel() or qos2.cancel())
    rig.feed(Pubrec(qos2.packet_id), Puback(qos1.packet_id))
    assert not (qos1.cancel() or qos2.cancel())
    assert (qos0.state, qos1.state, qos2.state) == ("sent", "acknowledged", "sent")
    assert queued(rig) == (0, 0)
    assert rig.publish(b"x", 0).state == "sent"


def test_behind_a_full_window_it_waits_and_in_flight_it_does_not() -> None:
    rig = Rig(inflight=1)
    rig.connect()
    flying, waiting, last = (rig.publish(text) for text in (b"1", b"2", b"3"))
    rig.sent()
    assert (flying.cancel(), waiting.cancel()) == (False, True)
    assert payloads(rig.feed(Puback(flying.packet_id))) == [b"3"]
    assert last.state == "sent"


def test_the_program_is_told_as_of_other_ends() -> None:
    rig = Rig()
    delivery = rig.publish(b"x", topic="a/b")
    woken = delivery._waits.done_event(delivery)
    rig.events()
    delivery.cancel()
    assert woken.is_set()
    (event,) = rig.event_objects()
    assert (event.kind, event.error) == ("cancelled", delivery.error)
    assert event.text == "a/b: the program took it back before it was sent"


def test_its_room_is_free_for_others() -> None:
    rig = Rig(policy=StorePolicy(max_messages=1))
    first = rig.publish(b"1")
    with pytest.raises(QueueFullError):
        rig.publish(b"2")
    first.cancel()
    rig.publish(b"2")
    assert payloads(rig.connect()) == [b"2"]


@pytest.mark.parametrize("overflow", ["reject", "drop_oldest"])
@pytest.mark.parametrize("replay", ["history", "live"])
def test_a_message_that_only_the_store_holds_is_forgotten_there(
    monkeypatch: pytest.MonkeyPatch, replay: str, overflow: str
) -> None:
    set_pages(monkeypatch, PAGE_MESSAGES=2, PAGES_IN_MEMORY=1)
    store = MemoryStore()
    rig = Rig(store=store, policy=StorePolicy(replay=replay, overflow=overflow), inflight=100)
    deliveries = [rig.publish(b"%d" % number) for number in range(9)]
    assert rig.engine.outgoing.outbox.backlog.pages.beyond > 4
    assert deliveries[7].cancel()
    assert deliveries[1].cancel()
    assert queued(rig) == (7, 2)
    sent = payloads(rig.connect())
    for _ in range(5):
        sent += payloads(rig.sent())
    assert sent == [b"0", b"2", b"3", b"4", b"5", b"6", b"8"]
    assert queued(rig) == (0, 2)


def test_a_page_that_is_on_its_way_does_not_bring_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    set_pages(monkeypatch, PAGE_MESSAGES=2, PAGES_IN_MEMORY=1)
    store = SlowStore()
    rig = Rig(store=store, inflight=100)
    deliveries = [rig.publish(b"%d" % number) for number in range(6)]
    rig.engine.outgoing.outbox.backlog.pages.request()
    assert deliveries[3].cancel()
    sent = payloads(rig.connect())
    for _ in range(5):
        sent += payloads(rig.sent())
    assert sent == [b"0", b"1", b"2", b"4", b"5"]


def test_the_newest_of_a_topic_that_is_taken_back_leaves_none() -> None:
    rig = Rig(policy=StorePolicy(keep_last=("state/#",)))
    rig.publish(b"1", topic="state/a")
    newest = rig.publish(b"2", topic="state/a")
    assert newest.cancel()
    assert queued(rig) == (0, 1)
    rig.publish(b"3", topic="state/a")
    assert queued(rig) == (1, 1)
    assert payloads(rig.connect()) == [b"3"]


def test_a_message_that_this_broker_cannot_take_is_taken_back_too() -> None:
    rig = Rig()
    held, other = rig.publish(bytes(100)), rig.publish(b"x")
    assert payloads(rig.connect(maximum_packet_size=50)) == [b"x"]
    assert rig.engine.stats().held == 1
    assert held.cancel()
    assert (rig.engine.stats().held, queued(rig)) == (0, (0, 1))
    rig.feed(Puback(other.packet_id))
    rig.lose()
    rig.advance(60)
    assert payloads(rig.connect()) == []


def test_a_message_that_is_stepped_over_is_taken_back_too() -> None:
    rig = Rig()
    stepped, other = rig.publish(b"1"), rig.publish(b"2")
    over = SteppedOver(rig.engine.outgoing.outbox.backlog)
    over.add_first()
    assert stepped.cancel()
    over.rejoin()
    assert queued(rig) == (1, 1)
    assert payloads(rig.connect()) == [b"2"]
    assert other.state == "sent"


def test_a_message_that_waits_again_after_the_session_was_lost_is_taken_back() -> None:
    rig = Rig()
    rig.connect()
    first, second = rig.publish(b"1"), rig.publish(b"2")
    rig.sent()
    rig.lose()
    assert not first.cancel()  # in flight: the broker may have it
    rig.advance(1)
    rig.open()
    with rig.engine.lock:
        rig.engine.outgoing.outbox.put_back(rig.engine.session.lose()[0])
    assert first.cancel()
    assert second.state == "queued"


@pytest.mark.parametrize("store", [None, SlowStore], ids=["memory", "store"])
def test_after_close_it_is_too_late(store: Any) -> None:
    rig = Rig(store=store and store())
    delivery = rig.publish(b"x")
    rig.engine.drop_connection()
    rig.engine.end()
    assert not delivery.cancel()  # the store has not said yet whether it keeps it
    rig.engine.close_store()
    state = delivery.state
    assert not delivery.cancel()
    assert delivery.state == state != "cancelled"


def test_of_a_queue_that_is_read_again_those_in_memory_are_taken_back_there() -> None:
    """Otherwise one that only the store holds would be counted out in their place."""
    store = LateStore()
    rig = Rig(store=store)
    large, first, second = rig.publish(bytes(100)), rig.publish(b"1"), rig.publish(b"2")
    assert payloads(rig.connect(maximum_packet_size=50)) == [b"1", b"2"]
    rig.lose()
    rig.advance(60)
    assert payloads(rig.connect(receive_maximum=1)) == [b"1"]
    assert second.cancel()
    store.read()
    assert payloads(rig.feed(Puback(first.packet_id))) == [bytes(100)]
    rig.feed(Puback(large.packet_id))
    assert (large.state, queued(rig)) == ("acknowledged", (0, 1))
    backlog = rig.engine.outgoing.outbox.backlog
    assert (backlog.pages.beyond, backlog.memory_bytes) == (0, 0)
