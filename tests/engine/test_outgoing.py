"""Who holds whom in the queue: nothing of it needs the collector to be freed."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from device_sdk.engine.consumers import Consumers
from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.engine.outgoing.outbox import Outbox
from device_sdk.mqtt.session import Session
from device_sdk.store.base import Store, StorePolicy
from device_sdk.store.memory import MemoryStore


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def add(outbox: Outbox, payload: bytes) -> Delivery:
    delivery = Delivery(outbox.waits, b"\0\1t", payload, 2, b"\0")
    outbox.add(delivery, 0.0)
    return delivery


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("kind", [None, MemoryStore])
@pytest.mark.parametrize("keep_last", [(), ("t",)])
def test_a_queue_is_freed_at_once_while_the_application_holds_deliveries_of_it(
    kind: type[Store] | None, keep_last: tuple[str, ...]
) -> None:
    store = None if kind is None else kind()
    session = Session(journal=store is not None)
    outbox = Outbox(threading.RLock(), session, StorePolicy(keep_last=keep_last), store, Consumers())
    held = [add(outbox, b"held"), add(outbox, b"held, too")]
    gone: list[weakref.ref[object]] = [weakref.ref(outbox), weakref.ref(outbox.sent_qos0)]
    gone.append(weakref.ref(add(outbox, b"nobody holds this one")))
    del outbox
    assert [one() for one in gone] == [None] * 3
    assert [delivery.topic for delivery in held] == ["t", "t"]


@pytest.mark.usefixtures("no_collector")
def test_the_last_delivery_that_is_dropped_frees_what_deliveries_wait_with() -> None:
    outbox = Outbox(threading.RLock(), Session(), StorePolicy(), None, Consumers())
    delivery = add(outbox, b"held")
    waits = weakref.ref(outbox.waits)
    del outbox
    assert waits() is not None
    with pytest.raises(TimeoutError):
        delivery.wait(0)
    del delivery
    assert waits() is None
