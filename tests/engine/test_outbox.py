"""Messages on their way out: the queue and its bounds, the window, expiry, deliveries, the store."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk.engine.life_cycle import CLOSED
from device_sdk.errors import (
    ClosedError,
    DeliveryExpiredError,
    DroppedError,
    LocalProtocolError,
    PublishRefused,
    QueueFullError,
    SessionLostError,
    StoreError,
)
from device_sdk.mqtt.packets import Connack, Puback, Pubcomp, Publish, Pubrec, Pubrel
from device_sdk.store.base import StorePolicy
from device_sdk.store.memory import MemoryStore
from tests.engine.rig import Rig, SlowStore, payloads, types


def numbers(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last)]


def test_what_was_queued_offline_leaves_in_order_when_the_connection_comes() -> None:
    rig = Rig()
    for payload in numbers(0, 5):
        assert rig.publish(payload).state == "queued"
    assert payloads(rig.connect()) == numbers(0, 5)


def test_the_window_lets_only_so_many_out_and_each_acknowledgement_one_more() -> None:
    rig = Rig(inflight=2)
    rig.connect()
    for payload in numbers(0, 5):
        rig.publish(payload)
    first = rig.sent()
    assert payloads(first) == numbers(0, 2)
    assert payloads(rig.feed(Puback(first[0].packet_id))) == [b"2"]
    with rig.engine.lock:
        stats = rig.engine.stats()
    assert (stats.in_flight, stats.queued, stats.acknowledged) == (2, 2, 1)


def test_the_server_may_make_the_window_smaller() -> None:
    rig = Rig(inflight=20)
    rig.connect(receive_maximum=3)
    for payload in numbers(0, 5):
        rig.publish(payload)
    assert payloads(rig.sent()) == numbers(0, 3)


def test_the_window_holds_on_a_reconnect_too() -> None:
    rig = Rig(inflight=4)
    rig.connect()
    for payload in numbers(0, 8):
        rig.publish(payload)
    assert payloads(rig.sent()) == numbers(0, 4)
    rig.lose()
    rig.advance(1)
    again = rig.connect(session_present=True, receive_maximum=2)
    assert payloads(again) == numbers(0, 2)
    assert all(isinstance(packet, Publish) and packet.dup for packet in again)
    seen = []
    while again:
        seen += payloads(again)
        again = [p for packet in again for p in rig.feed(Puback(packet.packet_id))]
    assert seen == numbers(0, 8)


def test_qos_0_is_dropped_without_a_connection_unless_it_is_buffered() -> None:
    rig = Rig()
    rig.connect()
    rig.lose()
    dropped = rig.publish(b"x", qos=0)
    assert dropped.state == "dropped"
    with pytest.raises(DroppedError, match="buffer_qos0"):
        dropped.wait(0)
    kept = Rig(buffer_qos0=True)
    kept.connect()
    kept.lose()
    kept.publish(b"x", qos=0)
    kept.advance(1)
    assert payloads(kept.connect()) == [b"x"]


def test_qos_0_waits_until_the_first_attempt_is_decided() -> None:
    rig = Rig()
    early = rig.publish(b"before the transport is open", qos=0)
    rig.open()
    late = rig.publish(b"between CONNECT and CONNACK", qos=0)
    assert payloads(rig.feed(b"\x20\x03\x00\x00\x00")) == [
        b"before the transport is open",
        b"between CONNECT and CONNACK",
    ]
    early.wait(0)
    late.wait(0)
    assert early.state == late.state == "sent"


def test_a_message_that_expired_in_the_queue_is_not_sent() -> None:
    rig = Rig()
    short, long = rig.publish(b"short", expiry=5), rig.publish(b"long", expiry=500)
    assert rig.deadline() == rig.clock() + 5
    rig.advance(6)
    assert short.state == "expired"
    with pytest.raises(DeliveryExpiredError):
        short.wait(0)
    [sent] = rig.connect()
    assert (sent.payload, sent.properties["message_expiry_interval"]) == (b"long", 494)
    assert long.state == "sent"
    assert "expired" in rig.events()


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("restarts", [False, True])
def test_a_message_that_expired_in_flight_is_reported_and_not_repeated(qos: int, restarts: bool) -> None:
    store = MemoryStore()
    rig = Rig(store=store, clean_start=False)
    rig.connect()
    short, long = rig.publish(b"short", qos, expiry=3), rig.publish(b"long", qos, expiry=30)
    identifiers = [packet.packet_id for packet in rig.sent()]
    if restarts:
        rig.engine.drop_connection()
        rig.engine.end()
        rig.engine.close_store()
        rig = Rig(store=store, clean_start=False)
        rig.clock.advance(7)
    else:
        rig.lose()
        rig.advance(7)
    rig.events()
    [packet] = rig.connect(session_present=True)
    assert (packet.payload, packet.dup, packet.packet_id) == (b"long", True, identifiers[1])
    assert packet.properties == {"message_expiry_interval": 23}
    assert [event.text for event in rig.event_objects() if event.kind == "expired"] == [
        "t: it expired in flight, unacknowledged: it is not repeated, and the broker may have it"
    ]
    with rig.engine.lock:
        assert rig.engine.stats().expired == 1
    assert rig.engine.session.withheld == {identifiers[0]}
    if not restarts:
        assert (short.state, long.state) == ("expired", "sent")
        with pytest.raises(DeliveryExpiredError, match="may have it"):
            short.wait(0)


def test_a_session_whose_packet_identifiers_are_used_up_is_replaced() -> None:
    rig = Rig(store=MemoryStore(), clean_start=False)
    rig.connect()
    delivery = rig.publish(b"x")
    rig.sent()
    rig.engine.session.restore_withheld(range(2, 60_003))
    rig.lose()
    rig.advance(1)
    [connect] = rig.open()
    assert connect.clean_start
    [packet] = rig.feed(Connack())
    assert (packet.payload, packet.dup, delivery.state) == (b"x", False, "sent")
    assert rig.engine.session.withheld == set()
    assert "session_lost" in rig.events()


def test_a_republished_message_still_expires_in_the_queue() -> None:
    rig = Rig(inflight=1)
    rig.connect()
    delivery = rig.publish(b"x", expiry=100)
    rig.publish(b"y")
    rig.sent()
    rig.lose()
    rig.advance(1)
    rig.open()
    rig.feed(b"\x20\x03\x00\x00\x00")  # the session is gone: both are queued anew, one fits
    rig.lose()
    assert delivery.state == "sent"  # in flight: it may have arrived, so it is repeated whatever its age
    rig.advance(200)
    rig.connect()
    assert delivery.state == "expired"


@pytest.mark.parametrize("bounds", [{"max_messages": 3}, {"max_bytes": 3 * (3 + 1 + 1)}])
def test_reject_raises_and_keeps_what_is_queued(bounds: dict[str, Any]) -> None:
    rig = Rig(policy=StorePolicy(**bounds))
    for payload in numbers(0, 3):
        rig.publish(payload)
    with pytest.raises(QueueFullError, match="the queue holds 3"):
        rig.publish(b"3")
    assert payloads(rig.connect()) == numbers(0, 3)


def test_a_dropped_message_says_how_full_the_queue_was() -> None:
    rig = Rig(policy=StorePolicy(max_messages=2, overflow="drop_oldest"))
    first = rig.publish(b"1")
    for payload in (b"2", b"3"):
        rig.publish(payload)
    assert "the queue holds 2 of 2 messages" in str(first.error)


def test_drop_oldest_makes_room_and_says_so() -> None:
    rig = Rig(policy=StorePolicy(max_messages=3, overflow="drop_oldest"))
    deliveries = [rig.publish(payload) for payload in numbers(0, 5)]
    assert [delivery.state for delivery in deliveries] == ["dropped"] * 2 + ["queued"] * 3
    assert rig.events() == ["dropped"] * 2
    with rig.engine.lock:
        assert rig.engine.stats().dropped == 2
    assert payloads(rig.connect()) == numbers(2, 5)


def test_drop_newest_keeps_the_old_ones() -> None:
    rig = Rig(policy=StorePolicy(max_messages=3, overflow="drop_newest"))
    deliveries = [rig.publish(payload) for payload in numbers(0, 5)]
    assert [delivery.state for delivery in deliveries] == ["queued"] * 3 + ["dropped"] * 2
    assert payloads(rig.connect()) == numbers(0, 3)


@pytest.mark.parametrize("overflow", ["reject", "drop_oldest", "drop_newest", "block"])
def test_a_message_larger_than_the_whole_queue_is_refused_and_drops_nothing(overflow: str) -> None:
    rig = Rig(policy=StorePolicy(max_bytes=100, overflow=overflow))
    kept = rig.publish(b"small")
    with pytest.raises(QueueFullError, match="payload"):
        rig.publish(b"x" * 101)
    assert kept.state == "queued"
    assert rig.events() == []


def test_block_tells_the_shell_to_wait() -> None:
    rig = Rig(policy=StorePolicy(max_messages=1, overflow="block"))
    rig.publish(b"0")
    with rig.engine.lock:
        assert rig.engine.outgoing.publish(b"\0\1t", b"1", 2, b"\0", None, None) is None


@pytest.mark.parametrize(
    ("overflow", "state"), [("drop_oldest", "dropped"), ("drop_newest", "dropped"), ("block", None)]
)
def test_qos_0_that_the_network_does_not_take_follows_the_policy(overflow: str, state: str | None) -> None:
    rig = Rig(policy=StorePolicy(max_bytes=100, overflow=overflow))
    rig.connect()
    rig.transport.room = 0
    rig.publish(b"x" * 200, qos=0)
    with rig.engine.lock:
        delivery = rig.engine.outgoing.publish(b"\0\1t", b"y", 0, b"\0", None, None)
    assert (delivery and delivery.state) == state


def test_qos_0_that_the_network_does_not_take_is_refused_under_reject() -> None:
    rig = Rig(policy=StorePolicy(max_bytes=100))
    rig.connect()
    rig.transport.room = 0
    rig.publish(b"x" * 200, qos=0)
    with pytest.raises(QueueFullError, match="wait for the network"):
        rig.publish(b"y", qos=0)


def test_a_lost_session_is_published_again_as_new() -> None:
    rig = Rig()
    rig.connect()
    deliveries = [rig.publish(payload) for payload in numbers(0, 3)]
    rig.sent()
    rig.lose()
    rig.advance(1)
    again = rig.connect(session_present=False)
    assert payloads(again) == numbers(0, 3)
    assert not any(isinstance(packet, Publish) and packet.dup for packet in again)
    assert [delivery.state for delivery in deliveries] == ["sent"] * 3
    assert "session_lost" in rig.events()


def test_a_lost_session_fails_its_messages_if_that_is_wanted() -> None:
    rig = Rig(on_session_lost="fail")
    rig.connect()
    delivery = rig.publish(b"x")
    rig.sent()
    rig.lose()
    waiting = rig.publish(b"never sent yet")
    rig.advance(1)
    assert payloads(rig.connect(session_present=False)) == [b"never sent yet"]
    assert (delivery.state, waiting.state) == ("invalidated", "sent")
    with pytest.raises(SessionLostError):
        delivery.wait(0)


def test_qos_2_past_pubrec_counts_as_acknowledged_when_the_session_is_lost() -> None:
    rig = Rig()
    rig.connect()
    delivery = rig.publish(b"x", qos=2)
    [publish] = rig.sent()
    assert types(rig.feed(Pubrec(publish.packet_id))) == ["pubrel"]
    rig.lose()
    rig.advance(1)
    assert rig.connect(session_present=False) == []
    assert delivery.state == "acknowledged"


def test_qos_2_past_pubrec_goes_on_with_pubrel_in_a_resumed_session() -> None:
    rig = Rig()
    rig.connect()
    delivery = rig.publish(b"x", qos=2)
    [publish] = rig.sent()
    rig.feed(Pubrec(publish.packet_id))
    rig.lose()
    rig.advance(1)
    assert rig.connect(session_present=True) == [Pubrel(publish.packet_id)]
    rig.feed(Pubcomp(publish.packet_id))
    delivery.wait(0)


def test_a_refused_message_says_why_and_frees_its_place() -> None:
    rig = Rig(inflight=1)
    rig.connect()
    refused, following = rig.publish(b"0"), rig.publish(b"1")
    [first] = rig.sent()
    assert payloads(rig.feed(Puback(first.packet_id, 0x87))) == [b"1"]
    assert (refused.state, following.state) == ("refused", "sent")
    with pytest.raises(PublishRefused) as caught:
        refused.wait(0)
    assert caught.value.reason_code == 0x87
    assert "refused" in rig.events()


@pytest.mark.parametrize(
    ("qos", "retain", "limits"),
    [
        (2, False, {"maximum_qos": 1}),
        (1, True, {"retain_available": 0}),
        (1, False, {"maximum_packet_size": 20}),
        (0, False, {"maximum_packet_size": 20}),
    ],
)
@pytest.mark.parametrize("with_store", [False, True])
def test_what_the_connected_server_does_not_take_is_refused_and_kept_nowhere(
    qos: int, retain: bool, limits: dict[str, Any], with_store: bool
) -> None:
    store = SlowStore() if with_store else None
    rig = Rig(store=store)
    rig.connect(**limits)
    with pytest.raises(LocalProtocolError):
        rig.publish(b"x" * 30, qos=qos, retain=retain)
    assert rig.sent() == []
    if store is not None:
        store.close()
        assert MemoryStore.open(store.memory).messages == []


def test_what_was_queued_and_the_server_does_not_take_is_dropped_if_that_is_wanted() -> None:
    rig = Rig(policy=StorePolicy(unsendable="drop"))
    delivery, fine = rig.publish(b"x", qos=2), rig.publish(b"y")
    assert payloads(rig.connect(maximum_qos=1)) == [b"y"]
    assert (delivery.state, fine.state) == ("dropped", "sent")
    assert "dropped" in rig.events()


def test_publish_after_the_end_raises() -> None:
    rig = Rig()
    rig.engine.end()
    rig.engine.close_store()
    assert rig.engine.life.state == CLOSED
    with pytest.raises(ClosedError):
        rig.publish(b"x")


def test_the_end_drops_what_is_left_and_says_how_much() -> None:
    rig = Rig()
    deliveries = [rig.publish(payload) for payload in numbers(0, 3)]
    rig.engine.end()
    rig.engine.close_store()
    for delivery in deliveries:
        with pytest.raises(DroppedError):
            delivery.wait(0)
    [event] = rig.event_objects()
    assert (event.kind, "3 messages" in event.text) == ("dropped", True)


# With a store


def test_wait_stored_without_a_store_is_an_honest_error() -> None:
    rig = Rig()
    with pytest.raises(StoreError, match="store="):
        rig.publish(b"x").wait_stored(0)


def test_a_message_is_stored_when_its_change_is_durable() -> None:
    store = SlowStore()
    rig = Rig(store=store)
    delivery = rig.publish(b"x")
    assert delivery.state == "queued"
    with pytest.raises(TimeoutError, match="was not stored"):
        delivery.wait_stored(0.01)
    assert store.expedited == delivery.change
    store.commit()
    assert delivery.state == "stored"
    delivery.wait_stored(0)


def test_qos_1_leaves_before_the_store_has_it_and_qos_2_only_after() -> None:
    store = SlowStore()
    rig = Rig(store=store)
    rig.connect()
    store.commit()
    rig.publish(b"one")
    assert payloads(rig.sent()) == [b"one"]
    rig.publish(b"two", qos=2)
    rig.publish(b"behind")
    assert rig.sent() == []
    with rig.engine.lock:
        rig.engine.parked = True
    store.commit()
    assert rig.wakes == 1  # a parked shell is told that the gate is open
    assert payloads(rig.sent()) == [b"two", b"behind"]


def test_a_ping_passes_a_gate_that_is_closed() -> None:
    store = SlowStore()
    rig = Rig(store=store, keep_alive=10)
    rig.connect()
    store.commit()
    rig.publish(b"two", qos=2)
    assert types(rig.advance(10)) == ["pingreq"]


def test_pubrel_waits_until_its_pubrec_is_durable() -> None:
    store = SlowStore()
    rig = Rig(store=store)
    rig.connect()
    rig.publish(b"two", qos=2)
    store.commit()
    [publish] = rig.sent()
    assert rig.feed(Pubrec(publish.packet_id)) == []
    store.commit()
    assert rig.sent() == [Pubrel(publish.packet_id)]


def test_a_failing_store_opens_the_gates_and_says_so_once() -> None:
    store = SlowStore()
    rig = Rig(store=store)
    rig.connect()
    store.commit()
    delivery = rig.publish(b"two", qos=2)
    assert rig.sent() == []
    rig.events()
    store.fail()
    assert payloads(rig.sent()) == [b"two"]
    with pytest.raises(StoreError, match="no space left"):
        rig.publish(b"more").wait_stored(0)
    assert payloads(rig.sent()) == [b"more"]
    assert rig.events() == ["store_failed"]
    assert delivery.state == "sent"


def test_a_second_client_goes_on_where_the_first_one_stopped() -> None:
    store = MemoryStore()
    first = Rig(store=store)
    first.connect()
    acknowledged, released, sent = first.publish(b"0"), first.publish(b"1", qos=2), first.publish(b"2")
    packets = first.sent()
    first.feed(Puback(packets[0].packet_id), Pubrec(packets[1].packet_id))
    first.lose()
    waiting = first.publish(b"3")
    first.engine.end()
    first.engine.close_store()
    assert acknowledged.state == "acknowledged"
    for delivery in (released, sent, waiting):
        with pytest.raises(ClosedError, match="the store keeps the message"):
            delivery.wait(0)

    second = Rig(store=store)
    again = second.connect(session_present=True)
    assert types(again) == ["pubrel", "publish", "publish"]
    assert payloads(again) == [b"2", b"3"]
    assert [packet.dup for packet in again if isinstance(packet, Publish)] == [True, False]


def test_a_restart_that_finds_the_session_gone_says_so() -> None:
    store = MemoryStore()
    first = Rig(store=store)
    first.connect()
    first.publish(b"0")
    first.sent()
    first.engine.end()
    first.engine.close_store()
    second = Rig(store=store)
    assert payloads(second.connect(session_present=False)) == [b"0"]
    assert "session_lost" in second.events()


def test_an_expiry_in_the_queue_is_told_to_the_store_at_once() -> None:
    store = SlowStore()
    rig = Rig(store=store)
    delivery = rig.publish(b"x", expiry=5)
    rig.advance(5)
    assert store.changes[-1] == ("done", delivery.sequence, "expired")


def test_a_wait_that_is_over_says_why_there_is_no_connection() -> None:
    rig = Rig()
    delivery = rig.publish(b"x")
    rig.refuse()
    with pytest.raises(TimeoutError, match="not acknowledged within 0 s; no connection: connection refused"):
        delivery.wait(0)
    rig.advance(60)
    rig.connect()
    with pytest.raises(TimeoutError, match=r"within 0 s$"):
        delivery.wait(0)
