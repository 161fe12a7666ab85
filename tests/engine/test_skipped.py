"""Messages that are skipped, with a store and behind a busy handler: once, in turn, in little memory."""

from __future__ import annotations

import tracemalloc

import pytest

from device_sdk.mqtt.message import Message
from device_sdk.mqtt.packets import Puback, Pubcomp, Publish, Pubrec, Pubrel
from tests.engine.rig import Rig, SlowStore

KIB = 1024


def large(packet_id: int, qos: int, topic: str = "t", *, dup: bool = False) -> Publish:
    return Publish(topic, bytes(300 * KIB), qos=qos, packet_id=packet_id, dup=dup)


def rig_with(store: SlowStore | None, *, present: bool = False) -> Rig:
    rig = Rig(version="3.1.1", store=store)
    rig.connect(session_present=present)
    return rig


def test_the_pubrec_of_a_skipped_message_waits_for_the_store() -> None:
    store = SlowStore()
    rig = rig_with(store)
    store.commit()
    assert rig.feed(large(7, 2)) == []
    store.commit()
    assert rig.sent() == [Pubrec(7)]
    assert rig.feed(Pubrel(7)) == []
    store.commit()
    assert rig.sent() == [Pubcomp(7)]
    assert rig.engine.stats().skipped == 1


def test_after_a_restart_a_repeated_message_that_was_skipped_is_answered_and_not_counted_again() -> None:
    store = SlowStore()
    first = rig_with(store)
    first.feed(large(7, 2))
    store.commit()
    assert first.sent() == [Pubrec(7)]
    store.close()
    second = rig_with(store, present=True)
    assert second.feed(large(7, 2, dup=True)) == [Pubrec(7)]
    assert second.engine.stats().skipped == 0


@pytest.mark.parametrize("qos", [1, 2])
def test_what_is_skipped_behind_a_busy_handler_takes_little_memory(qos: int) -> None:
    rig = rig_with(None)
    rig.feed(Publish("t", b"x", qos=1, packet_id=1))
    with rig.engine.lock:
        [message] = [item for item in rig.engine.events.take() if isinstance(item, Message)]
    topic = "t" * 60_000
    rig.feed(large(2, qos, topic))
    tracemalloc.start()
    try:
        for packet_id in range(3, 103):
            rig.feed(large(packet_id, qos, topic))
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 200 * KIB
    message.handled = True
    with rig.engine.lock:
        rig.engine.handled(1)
    answer = Puback if qos == 1 else Pubrec
    assert rig.sent() == [Puback(1), *(answer(packet_id) for packet_id in range(2, 103))]
