"""Any history of a client whose store answers late: bounds, counters, ages, replaced and lost messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.errors import (
    DeliveryCancelledError,
    DeliveryExpiredError,
    DroppedError,
    LocalProtocolError,
    QueueFullError,
)
from device_sdk.mqtt.packets import Puback
from device_sdk.store.base import SavedMessage, StorePolicy
from device_sdk.store.memory import MemoryStore
from tests.engine.rig import Packets, Rig, set_pages

PAGE = 4
PAGE_BYTES = 40
WINDOW = 3
MOST = 14
MOST_BYTES = 300
LARGEST = 150
LIMITS: list[dict[str, int]] = [
    {"maximum_packet_size": 40},
    {},
    {"maximum_qos": 0},
    {"maximum_packet_size": 32},
    {},
]


@pytest.fixture(autouse=True)
def small_pages() -> Iterator[None]:
    """Let a page hold four messages or forty bytes."""
    with pytest.MonkeyPatch.context() as patch:
        set_pages(patch, PAGE_MESSAGES=PAGE, PAGE_BYTES=PAGE_BYTES)
        yield


class LateStore(MemoryStore):
    """Reads a page when :meth:`read` is called, not when it is asked for one."""

    def __init__(self) -> None:
        super().__init__()
        self._wanted: int | None = None

    def request_page(self, after: int) -> None:
        """Remember it."""
        assert self._wanted is None and self._page is None, "one request at a time"
        self._wanted = after

    def read(self) -> None:
        """Do what a store's thread does."""
        if self._wanted is not None:
            self._page = self._page_after(self._wanted)
            self._wanted = None

    def open(self) -> Any:
        """A new client has asked for nothing."""
        self._wanted = self._page = None
        return super().open()

    def waiting(self) -> list[SavedMessage]:
        """Every message that waits."""
        return list(self._waiting.values())


class Model:
    """Plays a client through any history and notes what became of every message."""

    def __init__(self, replay: str, overflow: str) -> None:
        self.store = LateStore()
        self.policy = StorePolicy(
            replay=replay, overflow=overflow, max_messages=MOST, max_bytes=MOST_BYTES, keep_last=("state/+",)
        )
        self.published = 0
        self.held: dict[bytes, Delivery] = {}
        self.cancelled: dict[bytes, int] = {}  # and how often each was sent before
        self.arrived: list[tuple[str, bytes]] = []
        self.unacknowledged: Packets = []
        self.now = 1_000.0  # where the clock of a rig begins
        self.begin()

    def begin(self) -> None:
        self.rig = Rig(store=self.store, policy=self.policy, inflight=WINDOW, clean_start=False)
        self.rig.clock.advance_to(self.now)
        self.rig.answers_pings = True
        self.held.clear()

    def message(self, count: int) -> None:
        for _ in range(count):
            self.one("plain", b"", None)

    def state(self, count: int) -> None:
        self.one(f"state/{count % 2}", bytes(count // 4 * 60), None)

    def large(self, count: int) -> None:
        self.one("large", bytes(2 * count + 20), None)

    def short_lived(self, count: int) -> None:
        self.one("short", b"", float(count))

    def one(self, topic: str, rest: bytes, expiry: float | None) -> None:
        payload = b"%06d" % self.published + rest
        try:
            delivery = self.rig.publish(payload, topic=topic, expiry=expiry)
        except (QueueFullError, LocalProtocolError):
            self.check()
            return
        self.published += 1
        if self.published % 2:  # the application drops the others
            self.held[payload] = delivery
        self.take(self.rig.sent())

    def cancel(self, count: int) -> None:
        """The application takes back one of the messages that it holds."""
        if not self.held:
            return
        payload = list(self.held)[count % len(self.held)]
        delivery = self.held[payload]
        waited = delivery.status == "queued"
        before = [one for _, one in self.arrived].count(payload)
        assert delivery.cancel() is waited
        if waited:
            self.cancelled[payload] = before
            assert (delivery.state, delivery.done) == ("cancelled", True)
        assert not delivery.cancel()
        self.take(self.rig.sent())

    def read(self, _: int) -> None:
        self.store.read()
        self.take(self.rig.sent())

    def later(self, count: int) -> None:
        self.take(self.rig.advance(count))

    def connect(self, count: int) -> None:
        if self.rig.engine.life.state == "connected":
            return
        self.rig.advance(60)
        self.unacknowledged = []
        limits = LIMITS[count % len(LIMITS)]
        self.take(self.rig.connect(session_present=count % 3 > 0, **limits))

    def acknowledge(self, count: int) -> None:
        if self.rig.engine.life.state != "connected":
            return
        for _ in range(min(count, len(self.unacknowledged))):
            self.take(self.rig.feed(Puback(self.unacknowledged.pop(0).packet_id)))

    def lose(self, _: int) -> None:
        if self.rig.engine.life.state == "connected":
            self.rig.lose()

    def restart(self, _: int) -> None:
        self.now = self.rig.clock()
        self.rig.engine.drop_connection()
        self.rig.engine.end()
        self.rig.engine.close_store()
        self.begin()

    def take(self, packets: Packets) -> None:
        sent = [packet for packet in packets if packet.type == "publish"]
        self.unacknowledged += sent
        self.arrived += [(packet.topic, packet.payload) for packet in sent if not packet.dup]

    def check(self) -> None:
        with self.rig.engine.lock:
            stats = self.rig.engine.stats()
        waiting = self.store.waiting()
        assert stats.queued == len(waiting)
        assert stats.queued_bytes == sum(
            len(one.topic_field) + len(one.properties) + len(one.payload) for one in waiting
        )
        # Above the bound: what a lost session gives back.
        assert stats.held <= stats.queued + stats.in_flight
        assert stats.queued <= MOST + WINDOW
        assert stats.queued_bytes <= MOST_BYTES + WINDOW * LARGEST

    def finish(self) -> None:
        """A server without limits takes everything."""
        self.lose(0)
        self.connect(1)
        for _ in range(1_000):
            self.read(0)
            self.acknowledge(1)
            if not (self.unacknowledged or self.store.waiting()):
                break
        self.check()
        assert not self.store.waiting()
        arrived = {payload for _, payload in self.arrived}
        for payload, delivery in self.held.items():
            assert delivery.done, delivery
            assert (delivery.error is None) == (delivery.state == "acknowledged")
            if delivery.error is None:
                assert payload in arrived
            else:
                assert isinstance(delivery.error, ENDS)
        for payload, before in self.cancelled.items():
            assert [one for _, one in self.arrived].count(payload) == before


ENDS = (DroppedError, DeliveryExpiredError, DeliveryCancelledError)
KINDS = ["message", "message", "state", "large", "short_lived", "read", "read", "later", "connect"]
STEPS = st.tuples(
    st.sampled_from([*KINDS, "acknowledge", "acknowledge", "lose", "restart", "cancel", "cancel"]),
    st.integers(1, 9),
)


@pytest.mark.parametrize("replay", ["history", "live"])
@pytest.mark.parametrize("overflow", ["reject", "drop_oldest", "drop_newest"])
def test_any_history_ends_every_message_once_and_counts_right(replay: str, overflow: str) -> None:
    @settings(max_examples=200, deadline=None)
    @given(st.lists(STEPS, min_size=8, max_size=60))
    def history(steps: list[tuple[str, int]]) -> None:
        model = Model(replay, overflow)
        for step, count in steps:
            getattr(model, step)(count)
            model.check()
        model.finish()

    history()
