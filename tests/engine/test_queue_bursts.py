"""A burst: the application publishes faster than the store works, at every bound and by every policy."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.errors import QueueFullError
from device_sdk.store.base import SavedMessage, StorePolicy
from device_sdk.store.database import Database
from device_sdk.store.pending import Pending
from device_sdk.store.sqlite import SqliteStore
from tests.engine.rig import Rig, set_pages
from tests.engine.test_queue_bounds import acknowledge_all
from tests.engine.test_queue_histories import LateStore

DEADLINE_S = 10.0
PAGE = 4
PAGE_BYTES = 400
OVERFLOWS = ("reject", "drop_oldest", "drop_newest", "block")
BOUNDS: tuple[dict[str, Any], ...] = (
    {"max_messages": 30},
    {"max_bytes": 900},
    {"max_messages": 30, "max_bytes": 900},
)


@pytest.fixture(autouse=True)
def small_pages() -> Iterator[None]:
    """Let a page hold four messages, so that a queue of thirty has several."""
    with pytest.MonkeyPatch.context() as patch:
        set_pages(patch, PAGE_MESSAGES=PAGE, PAGE_BYTES=PAGE_BYTES, PAGES_IN_MEMORY=2)
        yield


def size_of(message: SavedMessage | Delivery) -> int:
    return len(message.topic_field) + len(message.properties) + len(message.payload)


class Burst:
    """A client without a connection, and by its side the queue as a list: what is to wait, oldest first."""

    def __init__(self, policy: StorePolicy, store: LateStore | None) -> None:
        self.policy = policy
        self.store = store
        self.rig = Rig(store=store, policy=policy, clean_start=False)
        self.expected: list[tuple[str, bytes]] = []
        self.held: list[Delivery] = []

    def publish(self, topic: str, payload: bytes, *, hold: bool) -> None:
        kept = topic.startswith("state/")
        rest = [one for one in self.expected if not (kept and one[0] == topic)]
        fits = self.fits([*rest, (topic, payload)])
        field = len(topic).to_bytes(2, "big") + topic.encode()
        with self.rig.engine.lock:
            try:
                delivery = self.rig.engine.outgoing.publish(field, payload, 2, b"\0", None, self.rig.clock())
            except QueueFullError:
                assert not fits and self.policy.overflow == "reject"
                return
        if delivery is None:
            assert not fits and self.policy.overflow == "block"
            return
        if not fits and self.policy.overflow == "drop_newest":
            assert delivery.state == "dropped"
            return
        assert fits or self.policy.overflow == "drop_oldest"
        assert not delivery.done
        oldest_first = self.expected
        while not fits:
            oldest_first = oldest_first[1:]
            rest = [one for one in oldest_first if not (kept and one[0] == topic)]
            fits = self.fits([*rest, (topic, payload)])
        self.expected = [*rest, (topic, payload)]
        if hold:
            self.held.append(delivery)

    def fits(self, messages: list[tuple[str, bytes]]) -> bool:
        total = sum(len(topic) + len(payload) + 3 for topic, payload in messages)
        return len(messages) <= (self.policy.max_messages or 1 << 62) and total <= (
            self.policy.max_bytes or 1 << 62
        )

    def check(self) -> None:
        """Count again: what the client says, what the store has, and what is to wait."""
        with self.rig.engine.lock:
            stats = self.rig.engine.stats()
        total = sum(len(topic) + len(payload) + 3 for topic, payload in self.expected)
        assert (stats.queued, stats.queued_bytes) == (len(self.expected), total)
        if self.store is not None:
            waiting = sorted(self.store.waiting(), key=lambda message: message.sequence)
            assert [one.payload for one in waiting] == [payload for _, payload in self.expected]
            assert sum(map(size_of, waiting)) == total
        assert sum(not one.done for one in self.held) <= len(self.expected)


@pytest.mark.parametrize("bounds", BOUNDS, ids=lambda bounds: "+".join(bounds))
@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "store"])
@pytest.mark.parametrize("replay", ["history", "live"])
def test_every_bound_holds_at_each_instant_and_the_policy_says_what_goes(
    bounds: dict[str, Any], overflow: str, on_disk: bool, replay: str
) -> None:
    for seed in range(12):
        dice = random.Random(seed)
        policy = StorePolicy(overflow=overflow, keep_last=("state/+",), replay=replay, **bounds)
        burst = Burst(policy, LateStore() if on_disk else None)
        for number in range(200):
            topic = f"state/{dice.randrange(4)}" if dice.random() < 0.3 else "plain"
            payload = b"%04d" % number + bytes(dice.choice((0, 0, 10, 60)))
            burst.publish(topic, payload, hold=dice.random() < 0.5)
            burst.check()
            if burst.store is not None and dice.random() < 0.1:
                burst.store.read()
        wanted = [payload for _, payload in burst.expected]
        arrived: list[bytes] = []
        packets = burst.rig.connect()
        while packets or len(arrived) < len(wanted):
            arrived += acknowledge_all(burst.rig, packets)
            if burst.store is not None:
                burst.store.read()
            packets = burst.rig.sent()
        assert arrived == wanted
        assert all(one.done for one in burst.held)


class StuckDisk:
    """A disk that takes no batch before :meth:`release`."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.begun, self._may_end = threading.Event(), threading.Event()
        write = Database.write

        def stuck(database: Database, batch: Pending) -> None:
            self.begun.set()
            assert self._may_end.wait(DEADLINE_S)
            write(database, batch)

        patch.setattr(Database, "write", stuck)

    def release(self) -> None:
        """Let the disk go on."""
        self._may_end.set()


@pytest.mark.parametrize("overflow", ["reject", "block", "drop_newest", "drop_oldest"])
def test_a_message_that_was_replaced_while_it_is_written_takes_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overflow: str
) -> None:
    disk = StuckDisk(monkeypatch)
    policy = StorePolicy(
        max_bytes=1_000, keep_last=("state",), overflow=overflow, durability="sync", min_free=0
    )
    store = SqliteStore(tmp_path / "queue.db", policy)
    rig = Rig(store=store, policy=policy)
    rig.publish(bytes(600), topic="state")
    assert disk.begun.wait(DEADLINE_S)
    for _ in range(5):
        assert not rig.publish(bytes(700), topic="state").done
    with rig.engine.lock:
        assert rig.engine.stats().queued == 1
    disk.release()
    rig.engine.end()
    rig.engine.close_store()


def test_messages_in_flight_take_no_room_in_the_queue(tmp_path: Path) -> None:
    """Nor in the memory for what the store has not written, although it has written none of them."""
    policy = StorePolicy(max_bytes=1_000, linger=60.0, min_free=0)
    store = SqliteStore(tmp_path / "queue.db", policy)
    rig = Rig(store=store, policy=policy, inflight=3)
    rig.connect()
    for _ in range(3):
        rig.publish(bytes(600))
    assert not rig.publish(bytes(600)).done  # waits: the only one
    with rig.engine.lock:
        assert rig.engine.stats().queued == 1
    with pytest.raises(QueueFullError, match="604 of 1000 bytes; wait for acknowledgements"):
        rig.publish(bytes(600))
    rig.engine.drop_connection()
    rig.engine.end()
    rig.engine.close_store()
