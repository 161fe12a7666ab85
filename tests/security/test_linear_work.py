"""Twice the bytes cost at most about twice the work: counted in calls and copied bytes, not in time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from device_sdk.mqtt import (
    Connack,
    FilterTree,
    Packet,
    Publish,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsubscribe,
    decode_packet,
    encode_packet,
)
from device_sdk.mqtt.wire import encode_varint
from tests.calls import Calls
from tests.mqtt.peer import connected

SMALL = 8


def work(function: Callable[[], object]) -> int:
    """Count the calls, of Python and of C functions, that a function makes."""
    with Calls("call", "c_call") as calls:
        function()
    return calls.total


def assert_linear(work_for: Callable[[int], int]) -> None:
    """Sixteen times the size may cost sixteen times the work; quadratic work would be 256 times."""
    assert work_for(16 * SMALL) <= 16 * work_for(SMALL) + 50


PACKETS: dict[str, Callable[[int], Packet]] = {
    "topic filters": lambda size: Subscribe(1, [Subscription("a/b/#")] * size),
    "filters to unsubscribe": lambda size: Unsubscribe(1, ["a/b/#"] * size),
    "reason codes": lambda size: Suback(1, [0] * size),
    "levels of a topic": lambda size: Publish("a/" * size + "a"),
    "levels of a filter": lambda size: Subscribe(1, [Subscription("+/" * size + "#")]),
    "payload": lambda size: Publish("t", bytes(1_000 * size)),
    "text": lambda size: Connack(properties={"reason_string": "é" * 50 * size}),
    "user properties": lambda size: Connack(properties={"user_property": [["k", "v"]] * size}),
    "identifiers": lambda size: Publish("t", properties={"subscription_identifier": [1] * size}),
}


@pytest.mark.parametrize("kind", PACKETS)
def test_decoding_is_linear(kind: str) -> None:
    def work_for(size: int) -> int:
        data = encode_packet(PACKETS[kind](size), "5.0")
        return work(lambda: decode_packet(data, "5.0"))

    assert_linear(work_for)


@pytest.mark.parametrize("block", [b"\x26\x00\x01k\x00\x01v", b"\x26\x00\x00\x00\x00", b"\x0b\x01"])
def test_a_flood_of_properties_is_received_in_linear_time(block: bytes) -> None:
    """CVE-2021-41039 made the CPU busy with many user properties: each made the next one more expensive."""

    def work_for(size: int) -> int:
        properties = block * 4 * size
        body = b"\x00\x01t" + encode_varint(len(properties)) + properties
        packet = b"\x30" + encode_varint(len(body)) + body
        peer = connected()
        return work(lambda: peer.receive_bytes(packet))

    assert_linear(work_for)


@pytest.mark.parametrize("piece", [1, 7, 1_000])
def test_receiving_is_linear_however_the_bytes_come(piece: int) -> None:
    def work_for(size: int) -> int:
        data = encode_packet(Publish("t", bytes(100 * size)), "5.0") + encode_packet(Pubrel(1), "5.0") * size
        peer = connected()

        def receive() -> None:
            for start in range(0, len(data), piece):
                peer.receive_bytes(data[start : start + piece])

        return work(receive)

    assert_linear(work_for)


def test_finding_the_filters_of_a_topic_is_linear_in_its_levels() -> None:
    def work_for(levels: int) -> int:
        tree = FilterTree()
        for count in range(1, 20):
            tree.insert("a/" * count + "#", count)
        return work(lambda: tree.match("a/" * levels + "b"))

    assert_linear(work_for)
