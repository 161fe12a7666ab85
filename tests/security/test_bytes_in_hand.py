"""A broker that sends large messages faster than they are handled: the bytes in hand are bounded too."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from device_sdk.engine.incoming.in_hand import InHand
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.message import Message
from device_sdk.mqtt.packets import Puback, Publish
from device_sdk.mqtt.wire import decode_properties, encode_varint
from tests.engine.rig import Rig

KIB = 1024
LARGE = encode_packet(Publish("t", bytes(255 * KIB)), "5.0")


def reads(rig: Rig) -> bool:
    interest = rig.engine.interest()
    assert interest is not None
    return interest[1]


def finish(rig: Rig, count: int) -> bool:
    with rig.engine.lock:
        return rig.engine.handled(count)


def test_reading_pauses_when_sixteen_mebibytes_are_in_hand() -> None:
    rig = Rig()
    rig.connect()
    received = 0
    while reads(rig):
        rig.transport.incoming.extend(LARGE[at : at + 64 * KIB] for at in range(0, len(LARGE), 64 * KIB))
        while rig.transport.incoming:
            rig.engine.on_readable(rig.clock())
        received += 1
        assert received < 100
    assert received == 65
    assert finish(rig, 2)  # the shell has to be woken, to read on
    assert reads(rig)


def test_messages_that_are_handled_weigh_nothing() -> None:
    rig = Rig()
    rig.connect()
    for _ in range(200):
        rig.feed(LARGE)
        finish(rig, 1)
        assert reads(rig)


def test_acknowledgements_between_two_messages_hardly_count() -> None:
    rig = Rig()
    rig.connect()
    flood = encode_packet(Puback(1), "5.0") * (16 * KIB)
    for _ in range(300):  # 18 MiB
        rig.feed(flood)
    rig.feed(LARGE)
    assert reads(rig)


@pytest.mark.parametrize(
    ("finished", "held"), [([1, 1, 1], [100, 100, 0]), ([3], [0]), ([2, 5], [100, 0]), ([0], [150])]
)
def test_the_bytes_of_a_read_leave_with_the_last_of_its_messages(
    finished: list[int], held: list[int]
) -> None:
    weight = InHand(1_000, 120, 1_000)
    seen: list[Any] = []
    for size, messages in ((50, 1), (100, 2)):
        weight.came(size)
        weight.arrived(messages)
    assert weight.full
    for count in finished:
        weight.finished(count)
        seen.append(weight.held)
        assert weight.full is (weight.held >= 120)
    assert seen == held


PAIRS = 20_000
# Five bytes each on the wire, a list with two strings in memory.
SMALL_PAIRS = b"\x26\x00\x00\x00\x00" * PAIRS


def flood() -> bytes:
    """A PUBLISH of 100 KB whose properties take a mebibyte and more."""
    body = b"\x00\x01t" + encode_varint(len(SMALL_PAIRS)) + SMALL_PAIRS
    return b"\x30" + encode_varint(len(body)) + body


def test_a_decoded_message_counts_with_the_memory_that_it_takes() -> None:
    rig = Rig()
    rig.connect()
    rig.feed(flood())
    with rig.engine.lock:
        [message] = [item for item in rig.engine.events.take() if isinstance(item, Message)]
    tracemalloc.start()
    try:
        kept = decode_properties(flood(), 7, len(flood()), "publish")
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept[0] == message.properties
    assert taken <= rig.engine.incoming.in_hand.held < 2 * taken


def test_reading_pauses_for_messages_that_are_small_on_the_wire_and_large_in_memory() -> None:
    rig = Rig()
    rig.connect()
    received = 0
    while reads(rig):
        rig.feed(flood())
        received += 1
        assert received < 100
    assert received == 10
    assert finish(rig, 1)
    assert reads(rig)


def test_what_a_message_took_is_free_when_it_is_finished() -> None:
    rig = Rig()
    rig.connect()
    for _ in range(30):
        rig.feed(flood())
        finish(rig, 1)
    assert rig.engine.incoming.in_hand.held == 0
