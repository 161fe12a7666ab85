"""The queue at its bounds: full, expired, replaced, lost or failing, mostly without a connection."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence

import pytest
from pytest_mock import MockerFixture

from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.errors import ClosedError, DeliveryExpiredError, DroppedError, QueueFullError, StoreError
from device_sdk.mqtt.message import Subscription
from device_sdk.mqtt.packets import Connack, Puback, Publish, Pubrec, Suback
from device_sdk.mqtt.session import Session
from device_sdk.store.base import SavedMessage, StorePolicy, message_size
from device_sdk.store.memory import MemoryStore
from tests.engine.rig import Change, Packets, Rig, SlowStore, payloads, set_pages
from tests.engine.test_queue_histories import LateStore

PAGE = 4


@pytest.fixture(autouse=True)
def small_pages() -> Iterator[None]:
    """Let a page hold four messages, so that a queue of a dozen has several."""
    with pytest.MonkeyPatch.context() as patch:
        set_pages(patch, PAGE_MESSAGES=PAGE, PAGES_IN_MEMORY=2)
        yield


def numbers(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last)]


def queued(rig: Rig) -> int:
    with rig.engine.lock:
        return rig.engine.stats().queued


def objects(rig: Rig) -> int:
    """Messages that the engine keeps in memory."""
    gc.collect()
    mine = [one for one in gc.get_referrers(rig.engine.outgoing.outbox.waits) if isinstance(one, Delivery)]
    return len(mine) - 1  # one stands for all of QoS 0


def acknowledge_all(rig: Rig, packets: Packets) -> list[bytes]:
    """Acknowledge what was sent, and what follows, until nothing does; the payloads in their order."""
    arrived: list[bytes] = []
    while packets := [packet for packet in packets if packet.type == "publish"]:
        arrived += payloads(packets)
        packets = rig.feed(*(Puback(packet.packet_id) for packet in packets))
    return arrived


# Full


def test_the_oldest_are_dropped_however_long_there_is_no_connection() -> None:
    rig = Rig(store=MemoryStore(), policy=StorePolicy(max_messages=20, overflow="drop_oldest"))
    for payload in numbers(0, 100):
        rig.publish(payload)
    assert queued(rig) == 20
    assert acknowledge_all(rig, rig.connect()) == numbers(80, 100)


def test_the_oldest_of_an_earlier_process_are_dropped_as_far_as_the_store_has_read_them() -> None:
    store, policy = LateStore(), StorePolicy(max_messages=20, overflow="drop_oldest")
    first = Rig(store=store, policy=policy)
    for payload in numbers(0, 20):
        first.publish(payload)
    first.engine.end()
    first.engine.close_store()
    rig = Rig(store=store, policy=policy)
    held = [rig.publish(payload) for payload in numbers(100, 110)]
    assert queued(rig) == 20
    # The first page is gone; the next has not been read, so the oldest that are known made room.
    assert [one.state for one in held] == ["dropped"] * 6 + ["stored"] * 4
    store.read()
    assert not rig.publish(b"110").done
    assert held[6].state == "stored"
    packets = rig.connect()
    arrived: list[bytes] = []
    while packets:
        arrived += acknowledge_all(rig, packets)
        store.read()
        packets = rig.sent()
    assert arrived == [*numbers(5, 20), *numbers(106, 111)]


def test_a_message_of_an_earlier_process_that_is_replaced_before_it_is_read_is_counted_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_pages(monkeypatch, PAGE_BYTES=10)
    store, policy = LateStore(), StorePolicy(keep_last=("state",))
    first = Rig(store=store, policy=policy)
    first.publish(b"0")
    first.publish(b"old" * 10, topic="state")
    first.engine.end()
    first.engine.close_store()
    rig = Rig(store=store, policy=policy)
    rig.publish(b"new", topic="state")
    assert queued(rig) == 2
    packets, arrived = rig.connect(), list[bytes]()
    while packets:
        arrived += acknowledge_all(rig, packets)
        store.read()
        packets = rig.sent()
    assert (arrived, queued(rig)) == ([b"0", b"new"], 0)


def test_a_queue_that_is_above_its_bound_since_an_earlier_process_does_not_grow() -> None:
    store = LateStore()
    first = Rig(store=store)
    for payload in numbers(0, 40):
        first.publish(payload)
    first.engine.end()
    first.engine.close_store()
    rig = Rig(store=store, policy=StorePolicy(max_messages=20, overflow="drop_oldest"))
    most = queued(rig)
    assert most == 40
    for payload in numbers(100, 200):
        rig.publish(payload)
        assert queued(rig) <= most
        most = max(20, queued(rig))
        store.read()
    assert queued(rig) == 20
    assert rig.events().count("dropped") == rig.engine.events.stats.dropped


def test_drop_oldest_keeps_the_newest_of_what_a_failing_store_cannot_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Failing(SlowStore):
        """Nothing is durable from the first message on."""

        def backlog_messages(self) -> int:
            return len(self.memory._waiting)

        def first_unwritten(self, after: int) -> int:
            return next((sequence for sequence in self.memory._waiting if sequence > after), 0)

        def submit(self, changes: Sequence[Change], number: int) -> None:
            super().submit(changes, number)
            self.backlog_bytes = sum(map(message_size, self.memory._waiting.values()))

    monkeypatch.setattr("device_sdk.engine.outgoing.bounds._MEMORY_MESSAGES", 10)
    store = Failing()
    rig = Rig(store=store, policy=StorePolicy(overflow="drop_oldest"))
    store.fail()
    for payload in numbers(0, 30):
        assert not rig.publish(payload).done
        assert queued(rig) <= 10
    assert acknowledge_all(rig, rig.connect()) == numbers(20, 30)


def test_a_message_that_is_rejected_replaces_nothing() -> None:
    rig = Rig(policy=StorePolicy(max_bytes=60, keep_last=("#",)))
    old = rig.publish(b"old")
    rig.publish(bytes(30), topic="x")
    with pytest.raises(QueueFullError):
        rig.publish(bytes(30))
    assert (queued(rig), old.done) == (2, False)


def test_a_message_fits_into_the_place_of_the_one_that_it_replaces() -> None:
    rig = Rig(policy=StorePolicy(max_messages=2, keep_last=("state",)))
    rig.publish(b"1")
    rig.publish(b"old", topic="state")
    rig.publish(b"new", topic="state")
    assert payloads(rig.connect()) == [b"1", b"new"]


@pytest.mark.parametrize("store", [None, MemoryStore])
def test_replaced_messages_take_no_memory(store: type[MemoryStore] | None) -> None:
    rig = Rig(store=None if store is None else store(), policy=StorePolicy(keep_last=("state/#",)))
    rig.publish(b"other")
    for number in range(500):
        rig.publish(b"%d" % number, topic=f"state/{number % 2}")
        rig.events()
    assert queued(rig) == 3
    assert objects(rig) <= 8
    assert acknowledge_all(rig, rig.connect()) == [b"other", b"498", b"499"]


def test_large_messages_are_read_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    set_pages(monkeypatch, PAGE_BYTES=100, PAGE_MESSAGES=500)
    store = MemoryStore()
    first = Rig(store=store)
    for _ in range(40):
        first.publish(bytes(90))
    first.engine.end()
    first.engine.close_store()
    rig = Rig(store=store, inflight=1)
    packets = rig.connect()
    assert objects(rig) <= 4
    assert len(acknowledge_all(rig, packets)) == 40


def test_a_store_that_fails_takes_as_many_messages_as_a_queue_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Failing(SlowStore):
        def backlog_messages(self) -> int:
            return self.submitted

    monkeypatch.setattr("device_sdk.engine.outgoing.bounds._MEMORY_MESSAGES", 10)
    store = Failing()
    rig = Rig(store=store)
    store.fail()
    with pytest.raises(QueueFullError, match="cannot write"):
        for payload in numbers(0, 20):
            rig.publish(payload)
    assert 5 < queued(rig) <= 10


def test_who_waits_for_room_is_told_when_the_store_has_caught_up(mocker: MockerFixture) -> None:
    store = SlowStore()
    rig = Rig(store=store, policy=StorePolicy(overflow="block"))
    told = mocker.patch.object(rig.engine.outgoing.outbox.waits, "made_room")
    store.commit()
    told.assert_not_called()
    rig.engine.outgoing.outbox.waits.blocked = 1
    store.commit()
    told.assert_called_once_with()


def test_queued_messages_leave_packet_identifiers_to_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_sdk.engine.outgoing.replay._PACKET_IDS", 100)
    monkeypatch.setattr("device_sdk.mqtt.session._HIGHEST_PACKET_ID", 100)
    rig = Rig(inflight=100, store=MemoryStore(), draw=0.0)
    for payload in numbers(0, 100):
        rig.publish(payload)
    with rig.engine.lock:
        rig.engine.incoming.subscribe([Subscription("a", 1)], None)
    packets = rig.connect()
    assert len(payloads(packets)) == 99
    assert "dropped" not in rig.events()
    [last] = [p for p in rig.feed(Puback(packets[-1].packet_id)) if p.type == "publish"]
    assert last.payload == b"99"


def test_buffered_qos_0_is_read_no_faster_than_the_network_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    set_pages(monkeypatch, store=False, PAGE_BYTES=300)
    rig = Rig(store=MemoryStore(), buffer_qos0=True)
    for _ in range(200):
        rig.publish(bytes(100), qos=0)
    rig.open()
    rig.transport.room = 50
    rig.feed(Connack())
    assert queued(rig) >= 180
    rig.transport.room = None
    rig.engine.on_writable(rig.clock())
    packets: Packets = []
    while more := rig.sent():
        packets += more
    assert len(payloads(packets)) == 200
    assert queued(rig) == 0


def test_a_page_that_a_publisher_has_taken_is_sent_by_the_network() -> None:
    store, policy = LateStore(), StorePolicy(max_messages=20, overflow="drop_oldest")
    first = Rig(store=store, policy=policy)
    for payload in numbers(0, 20):
        first.publish(payload)
    first.engine.end()
    first.engine.close_store()
    rig = Rig(store=store, policy=policy, inflight=5)
    packets = rig.connect()
    while rig.engine.outgoing.outbox.backlog.queue:
        packets = rig.feed(*(Puback(packet.packet_id) for packet in packets if packet.type == "publish"))
    rig.feed(*(Puback(packet.packet_id) for packet in packets))
    store.read()
    while not rig.engine.outgoing.outbox.backlog.queue:
        rig.publish(b"new")
    assert payloads(rig.sent()) != []


def test_a_subscription_that_was_refused_is_not_asked_for_after_a_restart() -> None:
    store = MemoryStore()
    rig = Rig(store=store)
    with rig.engine.lock:
        rig.engine.incoming.subscribe([Subscription("good", 1), Subscription("bad", 1)], None)
    [packet] = [packet for packet in rig.connect() if packet.type == "subscribe"]
    rig.feed(Suback(packet.packet_id, [1, 0x87]))
    rig.engine.end()
    rig.engine.close_store()
    assert list(store.open().subscriptions) == ["good"]


# Gates


def test_the_commit_that_a_publish_waits_for_is_due_at_once_although_the_network_sleeps() -> None:
    store = SlowStore()
    rig = Rig(store=store)
    rig.connect()
    store.commit()
    delivery = rig.publish(b"two", qos=2)
    gate = store.submitted
    assert store.expedited == gate > delivery.change > 0
    rig.publish(b"one")
    assert store.expedited == gate  # nothing waits for the commit of QoS 1


def test_the_commit_that_a_pubrec_waits_for_is_due_at_once_although_the_network_sleeps() -> None:
    store = SlowStore()
    rig = Rig(store=store)
    rig.connect()
    store.commit()
    assert rig.feed(Publish("t", b"x", qos=2, packet_id=7)) == []
    store.expedited = 0
    rig.handle()
    assert store.changes[-1] == ("received", 7)
    assert store.expedited == store.submitted
    store.commit()
    assert rig.sent() == [Pubrec(7)]


# Expired


def test_a_message_that_only_the_store_holds_expires_for_who_waits() -> None:
    rig = Rig(store=MemoryStore())
    for payload in numbers(0, 20):
        rig.publish(payload)
    late = rig.publish(b"late", expiry=30)
    rig.advance(31)
    with pytest.raises(DeliveryExpiredError):
        late.wait(0)
    assert queued(rig) == 20
    assert acknowledge_all(rig, rig.connect()) == numbers(0, 20)


def test_what_is_too_old_makes_room_without_a_connection() -> None:
    policy = StorePolicy(max_age=60, max_messages=50)
    rig = Rig(store=MemoryStore(), policy=policy)
    for payload in numbers(0, 50):
        rig.publish(payload)
    rig.advance(60 + 50 / PAGE + 2)
    assert queued(rig) == 0
    assert rig.deadline() is None
    with rig.engine.lock:
        assert rig.engine.stats().expired == 50


# Lost by the store


def test_what_the_store_has_lost_ends_and_what_came_later_is_sent() -> None:
    store = LateStore()
    rig = Rig(store=store, inflight=3, policy=StorePolicy(keep_last=("state",)))
    held = [rig.publish(payload) for payload in numbers(0, 20)]
    rig.publish(b"old", topic="state")
    arrived = acknowledge_all(rig, rig.connect())
    assert arrived == numbers(0, 8)  # what was in memory
    store._waiting.clear()
    store.read()
    rig.publish(b"later")
    rig.publish(b"new", topic="state")
    arrived = acknowledge_all(rig, rig.sent())
    store.read()
    arrived += acknowledge_all(rig, rig.sent())
    assert arrived == [b"later", b"new"]
    with pytest.raises(DroppedError, match="the store lost it"):
        held[-1].wait(0)
    assert queued(rig) == 0
    with rig.engine.lock:
        assert rig.engine.stats().queued_bytes == 0
    assert "dropped" in rig.events()


def test_what_a_store_has_to_say_becomes_an_event_once() -> None:
    store = SlowStore()
    store.notice = "found damaged"
    rig = Rig(store=store)
    [event] = rig.event_objects()
    assert (event.kind, event.text) == ("store_replaced", "found damaged")
    store.notice = "damaged again"
    store.commit()
    store.commit()
    assert [event.text for event in rig.event_objects()] == ["damaged again"]


# Honest about what is stored


def test_each_report_of_a_store_becomes_an_event_once() -> None:
    store = SlowStore()
    store.reports.append(("shelf_full", "no room", "2"))
    rig = Rig(store=store)
    store.reports.append(("shelf_full", "no room again", "3"))
    rig.publish(b"0")  # a change for the store
    store.commit()
    store.reports.append(("shelf_full", "and again", "1"))
    store.commit()
    told = [(event.kind, event.text, event.value) for event in rig.event_objects()]
    assert told == [
        ("shelf_full", "no room", "2"),
        ("shelf_full", "no room again", "3"),
        ("shelf_full", "and again", "1"),
    ]


def test_messages_that_the_shelf_had_no_room_for_are_told_with_their_number() -> None:
    store = MemoryStore(StorePolicy(max_shelf_messages=1))
    rig = Rig(store=store)
    held = [rig.publish(payload) for payload in numbers(0, 3)]
    with rig.engine.lock:
        for delivery in held:
            rig.engine.session.record(("shelved", delivery.sequence, "refused", "forbidden", 0.0))
    rig.publish(b"3")
    assert [(event.kind, event.value) for event in rig.event_objects()] == [("shelf_full", "1")] * 2


def test_what_was_stored_stays_so_while_the_store_fails() -> None:
    store = SlowStore()
    rig = Rig(store=store)
    stored = rig.publish(b"1")
    store.commit()
    store.fail()
    unstored = rig.publish(b"2")
    stored.wait_stored(0)
    with pytest.raises(StoreError):
        unstored.wait_stored(0)
    assert (stored.state, unstored.state) == ("stored", "queued")


def test_the_end_tells_what_a_failing_store_could_not_keep() -> None:
    store = SlowStore()
    rig = Rig(store=store)
    stored = rig.publish(b"1")
    store.commit()
    store.fail()
    unstored = rig.publish(b"2")
    rig.engine.end()
    rig.engine.close_store()
    with pytest.raises(ClosedError):
        stored.wait(0)
    with pytest.raises(DroppedError, match="no space left"):
        unstored.wait(0)
    assert (stored.state, unstored.state) == ("stored", "dropped")
    with rig.engine.lock:
        assert rig.engine.stats().dropped == 1


def test_the_end_tells_what_could_not_be_kept_by_the_last_write() -> None:
    class Breaking(SlowStore):
        def close(self) -> None:
            self.failure = StoreError("no space left on device")
            super().close()

    rig = Rig(store=Breaking())
    delivery = rig.publish(b"1")
    rig.engine.end()
    rig.engine.close_store()
    assert delivery.state == "dropped"
    with pytest.raises(DroppedError, match="no space left"):
        delivery.wait(0)


# What an earlier client left


@pytest.mark.parametrize(("before", "after"), [("5.0", "3.1.1"), ("3.1.1", "5.0")])
def test_a_message_is_sent_in_the_words_of_the_present_version(before: str, after: str) -> None:
    store = MemoryStore()
    first = Rig(store=store, version=before, inflight=2, clean_start=False)
    first.connect()
    for payload in numbers(0, 20):
        first.publish(payload)
    first.sent()
    first.engine.drop_connection()
    first.engine.end()
    first.engine.close_store()
    rig = Rig(store=store, version=after, inflight=2, clean_start=False)
    assert acknowledge_all(rig, rig.connect(session_present=True)) == numbers(0, 20)
    with rig.engine.lock:
        assert rig.engine.stats().queued_bytes == 0


@pytest.mark.parametrize("given_out", [1, 1_023, 1_024, 1_025, 2_050, 64_000, 65_534, 65_535, 65_536])
def test_after_an_unclean_stop_identifiers_of_the_last_block_are_not_given_out(given_out: int) -> None:
    session = Session(journal=True)
    last = [session.allocate() for _ in range(given_out)][-1_024:]
    [*_, (_, reserved)] = session.take_changes()
    again = Session(journal=True)
    again.last_packet_id = reserved
    assert not set(last) & {again.allocate() for _ in range(1_024)}


@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
def test_the_exchanges_of_another_client_identifier_are_not_resumed(version: str) -> None:
    store = MemoryStore()
    first = Rig(store=store, version=version, clean_start=False)
    first.connect()
    first.publish(b"0", qos=2)
    first.sent()
    first.engine.end()
    first.engine.close_store()
    store._saved.facts["session"] = "another"
    rig = Rig(store=store, version=version, clean_start=False, draw=0.5)
    [again] = [packet for packet in rig.connect(session_present=True) if packet.type == "publish"]
    assert (again.payload, again.dup, again.packet_id > 1) == (b"0", False, True)


@pytest.mark.parametrize(("present", "expected"), [(True, [1, 3, 5]), (False, [1, 2, 3])])
def test_identifiers_that_an_earlier_client_withheld_are_not_given_out(
    present: bool, expected: list[int]
) -> None:
    store = MemoryStore()
    store._saved.withheld = {2, 4}
    store._saved.facts["session"] = "rig"
    rig = Rig(store=store, clean_start=False)
    rig.connect(session_present=present)
    for payload in numbers(0, 3):
        rig.publish(payload)
    assert [packet.packet_id for packet in rig.sent()] == expected


def test_identifiers_go_on_behind_those_reserved_although_they_have_wrapped_around() -> None:
    store = MemoryStore()
    message = SavedMessage(1, b"\0\1t", b"in flight", 2, b"\0", None)
    message.packet_id = 65_000
    store._in_flight[1] = message
    store._saved.next_sequence = 2
    store._saved.last_packet_id = 2_049
    store._saved.facts["session"] = "rig"
    rig = Rig(store=store, clean_start=False)
    rig.publish(b"new")
    packets = rig.connect(session_present=True)
    assert [packet.packet_id for packet in packets] == [65_000, 2_050]
