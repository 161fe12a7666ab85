"""Messages beyond a limit of the connected broker: held in their place, dropped, or sent with a lower QoS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from device_sdk.errors import DeliveryExpiredError, DroppedError, LocalProtocolError
from device_sdk.mqtt.packets import Connack, Puback, Pubcomp, Pubrec
from device_sdk.store.base import Store, StorePolicy
from device_sdk.store.memory import MemoryStore
from tests.engine.rig import Rig, payloads, set_pages
from tests.engine.test_queue_bounds import acknowledge_all, numbers, objects, queued
from tests.engine.test_queue_histories import LateStore

PAGE = 4

#: What a wrong or second broker may say in CONNACK, and a message that it cannot take.
LIMITS = pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"maximum_qos": 0}, {}),
        ({"maximum_qos": 1}, {"qos": 2}),
        ({"maximum_packet_size": 40}, {"payload": bytes(60)}),
        ({"retain_available": 0}, {"retain": True}),
    ],
    ids=["Maximum QoS 0", "Maximum QoS 1", "Maximum Packet Size", "Retain Available 0"],
)

STORES = pytest.mark.parametrize("store", [None, MemoryStore], ids=["memory", "store"])


@pytest.fixture(autouse=True)
def small_pages() -> Iterator[None]:
    """Let a page hold four messages, so that a queue of a dozen has several."""
    with pytest.MonkeyPatch.context() as patch:
        set_pages(patch, PAGE_MESSAGES=PAGE, PAGES_IN_MEMORY=2)
        yield


def made(kind: type[Store] | None) -> Store | None:
    return None if kind is None else kind()


def held(rig: Rig) -> int:
    with rig.engine.lock:
        return rig.engine.stats().held


def begin_again(rig: Rig, **properties: Any) -> list[Any]:
    """Lose the connection, and get another one without a session."""
    rig.lose()
    rig.advance(60)
    return rig.connect(**properties)


@LIMITS
@STORES
def test_one_connack_does_not_delete_the_queue(
    limits: dict[str, Any], message: dict[str, Any], store: Any
) -> None:
    rig = Rig(store=made(store))
    fields = {"payload": b"x", **message}
    deliveries = [rig.publish(**fields, topic=f"t/{number}") for number in range(30)]
    assert rig.connect(**limits) == []
    assert (queued(rig), held(rig)) == (30, 30)
    assert rig.events() == ["connected", "held"]
    assert {one.done for one in deliveries} == {False}
    packets = begin_again(rig)
    arrived: list[str] = []
    while packets:
        arrived += [packet.topic for packet in packets if packet.type == "publish"]
        answers: list[Any] = [Pubrec(p.packet_id) if p.qos == 2 else Puback(p.packet_id) for p in packets]
        answers += [Pubcomp(p.packet_id) for p in packets if p.qos == 2]
        packets = [packet for packet in rig.feed(*answers) if packet.type == "publish"]
    assert arrived == [f"t/{number}" for number in range(30)]
    assert (queued(rig), held(rig)) == (0, 0)


@LIMITS
@STORES
def test_a_session_that_is_resumed_keeps_what_its_broker_does_not_take_any_more(
    limits: dict[str, Any], message: dict[str, Any], store: Any
) -> None:
    rig = Rig(store=made(store), inflight=2, clean_start=False)
    rig.connect()
    fields = {"payload": b"x", **message}
    first, second, third = (rig.publish(**fields) for _ in range(3))
    before = rig.sent()
    rig.lose()
    rig.advance(60)
    assert rig.connect(session_present=True, **limits) == []
    assert held(rig) == 3
    rig.lose()
    rig.advance(60)
    again = rig.connect(session_present=True)
    assert [(p.packet_id, p.dup) for p in again] == [(p.packet_id, True) for p in before]
    assert (first.state, second.state, third.done, held(rig)) == ("sent", "sent", False, 0)


@STORES
def test_others_are_sent_and_overtake_nothing_of_their_own_kind(store: Any) -> None:
    rig = Rig(store=made(store), inflight=2)
    for number in range(20):
        rig.publish(b"%d" % number, qos=2 if number % 2 else 1)
    packets = rig.connect(maximum_qos=1)
    arrived: list[bytes] = []
    while packets:
        arrived += acknowledge_all(rig, packets)
        packets = rig.sent()
    assert arrived == [b"%d" % number for number in range(0, 20, 2)]
    late = rig.publish(b"late")
    assert payloads(rig.sent()) == [b"late"]
    assert (late.state, held(rig)) == ("sent", 10)
    assert payloads(begin_again(rig))[:1] == [b"late"]  # of the lost session, before all that waits


def test_what_is_held_takes_no_memory_if_a_store_has_it() -> None:
    rig = Rig(store=MemoryStore())
    for payload in numbers(0, 200):
        rig.publish(payload)
    rig.connect(maximum_qos=0)
    while rig.sent():
        pass
    assert (held(rig), queued(rig), objects(rig)) == (200, 200, 0)


def test_the_same_limits_again_cost_no_second_look() -> None:
    store = LateStore()
    rig = Rig(store=store)
    for payload in numbers(0, 40):
        rig.publish(payload)
    rig.connect(maximum_qos=0)
    for _ in range(20):
        store.read()
        rig.sent()
    assert held(rig) == 40
    begin_again(rig, maximum_qos=0)
    assert (held(rig), store._wanted) == (40, None)


@STORES
@pytest.mark.parametrize("kind", ["expiry", "max_age"])
def test_what_is_held_ends_with_its_expiry_or_age(store: Any, kind: str) -> None:
    rig = Rig(store=made(store), policy=StorePolicy(max_age=30 if kind == "max_age" else None))
    expiry = 30 if kind == "expiry" else None
    mine = rig.publish(b"mine", expiry=expiry)
    for _ in range(20):
        rig.publish(b"nobody holds it", expiry=expiry)
    rig.connect(maximum_qos=0)
    rig.sent()
    assert held(rig) == 21
    rig.advance(40)
    assert (queued(rig), held(rig), mine.state) == (0, 0, "expired")
    with pytest.raises(DeliveryExpiredError):
        mine.wait(0)
    with rig.engine.lock:
        assert rig.engine.stats().expired == 21
        assert rig.engine.stats().queued_bytes == 0
    assert begin_again(rig) == []


@STORES
def test_what_is_held_counts_in_the_bounds_and_makes_room_first(store: Any) -> None:
    rig = Rig(store=made(store), policy=StorePolicy(max_messages=10, overflow="drop_oldest"))
    old = [rig.publish(payload) for payload in numbers(0, 10)]
    rig.connect(maximum_qos=0)
    rig.lose()
    for payload in numbers(10, 14):
        assert not rig.publish(payload).done
        assert queued(rig) == 10
    assert [one.state for one in old] == ["dropped"] * 4 + [old[-1].state] * 6
    rig.advance(60)
    assert acknowledge_all(rig, rig.connect()) == numbers(4, 14)


@STORES
def test_a_newer_message_on_its_topic_replaces_one_that_is_held(store: Any) -> None:
    rig = Rig(store=made(store), policy=StorePolicy(keep_last=("state/#",)))
    for number in range(12):
        rig.publish(b"old %d" % number, topic=f"state/{number}")
    rig.connect(maximum_qos=0)
    rig.lose()
    for number in range(6):
        rig.publish(b"new %d" % number, topic=f"state/{number}")
    assert (queued(rig), held(rig)) == (12, 6)
    rig.advance(60)
    expected = [b"old %d" % number for number in range(6, 12)] + [b"new %d" % number for number in range(6)]
    assert acknowledge_all(rig, rig.connect()) == expected


@LIMITS
def test_publish_raises_while_the_only_broker_is_connected(
    limits: dict[str, Any], message: dict[str, Any]
) -> None:
    rig = Rig(store=MemoryStore())
    rig.connect(**limits)
    with pytest.raises(LocalProtocolError):
        rig.publish(**{"payload": b"x", **message})
    assert (queued(rig), held(rig)) == (0, 0)


@LIMITS
def test_drop_drops_what_the_broker_does_not_take(limits: dict[str, Any], message: dict[str, Any]) -> None:
    rig = Rig(policy=StorePolicy(unsendable="drop"))
    delivery = rig.publish(**{"payload": b"x", **message})
    rig.connect(**limits)
    assert delivery.state == "dropped"
    with pytest.raises(DroppedError):
        delivery.wait(0)


@STORES
@pytest.mark.parametrize(("maximum", "state"), [(0, "sent"), (1, "acknowledged")])
def test_lower_qos_sends_with_the_highest_qos_that_the_broker_takes(
    store: Any, maximum: int, state: str
) -> None:
    rig = Rig(store=made(store), policy=StorePolicy(unsendable="lower_qos"))
    waiting = rig.publish(b"waiting", qos=2)
    large = rig.publish(bytes(100), qos=2)
    first = rig.connect(maximum_qos=maximum, maximum_packet_size=60)
    now = rig.publish(b"now", qos=2)
    packets = [*first, *rig.sent()]
    assert [(p.payload, p.qos) for p in packets] == [(b"waiting", maximum), (b"now", maximum)]
    if maximum:
        rig.feed(*(Puback(packet.packet_id) for packet in packets))
    assert (waiting.state, now.state, large.done, held(rig)) == (state, state, False, 1)
    with pytest.raises(LocalProtocolError, match="Maximum Packet Size"):
        rig.publish(bytes(100), qos=2)


def test_the_window_is_not_exceeded_by_messages_with_a_lower_qos() -> None:
    rig = Rig(policy=StorePolicy(unsendable="lower_qos"), inflight=3)
    for payload in numbers(0, 10):
        rig.publish(payload, qos=2)
    packets = rig.connect(maximum_qos=1)
    assert payloads(packets) == numbers(0, 3)
    assert acknowledge_all(rig, packets) == numbers(0, 10)


def test_closing_does_not_wait_for_what_is_held() -> None:
    rig = Rig(store=MemoryStore())
    rig.publish(b"x")
    rig.connect(maximum_qos=0)
    with rig.engine.lock:
        rig.engine.drain(await_handlers=False)
        assert rig.engine.is_drained()


def test_a_held_message_in_flight_does_not_make_a_connection_look_stuck() -> None:
    rig = Rig(ack_timeout=10.0, clean_start=False, keep_alive=0)
    rig.connect()
    rig.publish(b"x", qos=2)
    rig.sent()
    rig.lose()
    rig.advance(1)
    rig.connect(session_present=True, maximum_qos=1)
    rig.advance(100)
    assert rig.engine.life.state == "connected"
    fine = rig.publish(b"y")
    [packet] = rig.sent()
    rig.feed(Puback(packet.packet_id))
    assert fine.state == "acknowledged"
    with rig.engine.lock:
        rig.engine.drain(await_handlers=False)
        assert rig.engine.is_drained()


def test_connack_without_limits_is_not_slower_to_publish_on() -> None:
    rig = Rig()
    assert rig.open()[0].type == "connect"
    rig.feed(Connack())
    assert rig.engine.outgoing.online is not None
    assert not rig.engine.outgoing.online.output.refused_flags
