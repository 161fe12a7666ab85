"""Messages that a careful connection steps over: the backlog counts them as before."""

from __future__ import annotations

import threading

from device_sdk.engine.consumers import Consumers
from device_sdk.engine.outgoing.backlog import Backlog
from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.engine.outgoing.outbox import CAREFUL
from device_sdk.engine.outgoing.stepped_over import SteppedOver
from device_sdk.engine.outgoing.waits import Waits
from device_sdk.store.base import KEEP_LAST, StorePolicy
from device_sdk.store.memory import MemoryStore
from tests.engine.rig import Rig


class Queue:
    """A backlog with a store, and what has been stepped over."""

    def __init__(self, **policy: object) -> None:
        chosen = StorePolicy(**policy)  # type: ignore[arg-type]
        store = MemoryStore()
        self.waits = Waits(threading.RLock(), store, Consumers())
        self.backlog = Backlog(chosen, store, self.waits)
        self.over = SteppedOver(self.backlog)
        self.number = 0

    def put(self, topic: bytes, *, expires_at: float | None = None, flags: int = 2) -> Delivery:
        delivery = Delivery(self.waits, topic, b"x", flags, b"", expires_at)
        self.number += 1
        delivery.sequence = self.number
        self.backlog.append(delivery, len(topic) + 1)
        return delivery


def test_the_message_that_is_taken_out_is_the_one_that_was_named() -> None:
    queue = Queue()
    first, second, third = (queue.put(b"a") for _ in range(3))
    queue.over.take_out(second)
    assert list(queue.backlog.queue) == [first, third]
    queue.over.add_first()
    queue.over.take_out(first)
    assert (list(queue.backlog.queue), queue.backlog.messages, len(queue.over)) == ([third], 1, 0)


def test_one_message_is_the_first_of_all_or_none() -> None:
    rig = Rig(policy=StorePolicy(replay="live"), inflight=1, buffer_qos0=True)
    past = rig.publish(b"past", qos=0)
    outbox = rig.engine.outgoing.outbox
    outbox.detour(CAREFUL, True)
    rig.connect()
    live = [rig.publish(b"%d" % number) for number in range(2)]
    protocol = rig.engine.connection.protocol  # type: ignore[union-attr]
    for _ in range(3):
        outbox.fill(protocol, rig.clock(), 1)
    assert [one.state for one in live] == ["sent", "queued"]
    assert past.state == "queued"  # it is not its turn, and nobody has judged it


def test_a_message_that_was_stepped_over_is_in_memory_when_it_expires() -> None:
    queue = Queue(keep_last=["a"])
    queue.put(b"a", expires_at=5.0, flags=2 | KEEP_LAST)
    queue.over.add_first()
    queue.backlog.take_expired(9.0)
    assert queue.backlog.pages.beyond == 0
    queue.over.rejoin()
    assert queue.backlog.next_expiry is not None
    queue.backlog.take_expired(99.0)
    assert (queue.backlog.messages, queue.backlog.memory_bytes, queue.backlog.pages.beyond) == (0, 0, 0)
