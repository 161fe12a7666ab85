"""Topics of which only the newest message waits: what each takes in memory, as docs/limits.md says."""

from __future__ import annotations

import tracemalloc

import pytest

from device_sdk.engine.outgoing.keep_last import KeepLast

TOPICS = 10_000
EMPTY_BYTES = 33  # what Python adds to the bytes of a name


@pytest.mark.parametrize(("by_sequence", "most"), [(False, 90), (True, 160)])
def test_a_topic_takes_little_more_than_its_name(by_sequence: bool, most: int) -> None:
    tracemalloc.start()
    try:
        keep_last = KeepLast(("#",), by_sequence=by_sequence)
        for number in range(TOPICS):
            keep_last.put(b"\0\x14site/17/sensor/%06d" % number, 1_000 + number, 1_000)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken / TOPICS - EMPTY_BYTES - 23 < most


def test_sequence_number_and_bytes_come_back_whole() -> None:
    keep_last = KeepLast(("#",))
    keep_last.put(b"\0\x01a", (1 << 50) + 1, (1 << 32) - 1)
    assert keep_last.get(b"\0\x01a") == ((1 << 50) + 1, (1 << 32) - 1)
    keep_last.discard(b"\0\x01a", 1 << 50)
    assert keep_last.pop(b"\0\x01a") == ((1 << 50) + 1, (1 << 32) - 1)
    assert keep_last.pop(b"\0\x01a") is None
