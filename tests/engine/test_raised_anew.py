"""An error that several waits raise is a new one each time: none collects the frames of the others."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import pytest

from device_sdk.engine.connecting.authentication import Reauthentication
from device_sdk.errors import ClosedError, DeviceSdkError, DroppedError, StoreError
from device_sdk.mqtt.message import Subscription
from tests.engine.rig import Rig, SlowStore


def frames(error: BaseException) -> int:
    count = 0
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        count, traceback = count + 1, traceback.tb_next
    return count


def raised(wait: Callable[[], object]) -> list[DeviceSdkError]:
    """What five waits raise."""
    found = []
    for _ in range(5):
        with pytest.raises(DeviceSdkError) as caught:
            wait()
        found.append(caught.value)
    return found


def check(kept: BaseException | None, found: list[DeviceSdkError]) -> None:
    assert kept is not None
    assert kept.__traceback__ is None, "the one that is kept collects frames"
    assert len(set(map(id, found))) == len(found)
    assert len({(type(error), str(error), frames(error)) for error in found}) == 1
    assert (type(found[0]), str(found[0])) == (type(kept), str(kept))


@pytest.mark.parametrize("wait", ["wait", "wait_stored"])
def test_of_a_delivery_that_ended(wait: str) -> None:
    rig = Rig()
    delivery = rig.publish(b"reading")
    rig.engine.end()
    found = raised(lambda: getattr(delivery, wait)(0))
    assert isinstance(found[0], DroppedError)
    check(delivery.error, found)


def test_of_a_store_that_fails() -> None:
    store = SlowStore()
    rig = Rig(store=store)
    delivery = rig.publish(b"reading")
    store.fail()
    found = raised(lambda: delivery.wait_stored(0))
    assert isinstance(found[0], StoreError)
    check(store.failure, found)


def test_of_deliveries_that_share_the_end_of_their_client() -> None:
    rig = Rig(store=SlowStore())
    deliveries = [rig.publish(b"reading") for _ in range(5)]
    with rig.engine.lock:
        rig.engine.disown()
    each = iter(deliveries)
    check(deliveries[0].error, raised(lambda: next(each).wait(0)))


def test_of_subscriptions_that_share_it() -> None:
    rig = Rig()
    with rig.engine.lock:
        requests = [rig.engine.incoming.subscribe([Subscription("a", 1)], None) for _ in range(5)]
    rig.engine.end()
    each = iter(requests)
    found = raised(lambda: next(each).wait(0))
    assert isinstance(found[0], ClosedError)
    check(requests[0].error, found)


def test_of_a_re_authentication() -> None:
    class Over:
        def set(self) -> None:
            """Nobody waits."""

        def is_set(self) -> bool:
            return True

    over: Any = Over()
    attempt = Reauthentication(over, None)
    attempt.finish(StoreError("ended"))
    check(attempt.error, raised(lambda: attempt.outcome(1)))
