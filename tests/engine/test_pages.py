"""What is known of messages that only the store holds."""

from __future__ import annotations

import tracemalloc

from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.engine.outgoing.pages import Pages


def _put(pages: Pages, sequence: int) -> Delivery:
    delivery = Delivery(None, b"\0\1t", b"", 2, b"")  # type: ignore[arg-type]
    delivery.sequence = sequence
    pages.put(delivery, 3)
    return delivery


def test_a_delivery_that_the_application_holds_is_found_among_many_that_it_dropped() -> None:
    pages = Pages(None)
    held = _put(pages, 1)
    for sequence in range(2, 10_000):
        _put(pages, sequence)
    assert pages.find(1) is held
    assert pages.deliveries() == [held]
    assert pages.find(5_000) is None


def test_messages_whose_deliveries_were_dropped_take_no_memory() -> None:
    pages = Pages(None)
    for sequence in range(1, 5_000):
        _put(pages, sequence)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for sequence in range(5_000, 100_000):
            _put(pages, sequence)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 300_000  # a thousand references and the table for them, not 95,000
