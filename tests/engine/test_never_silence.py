"""Never silence: accepted = ended and told + kept for the next client, whatever the disk does.

A client takes over what the file holds and accepts messages; when it is closed, each of them was
acknowledged, refused, expired or dropped (all of which are counted and told), or is in the file.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.errors import ClosedError, DroppedError
from device_sdk.mqtt.packets import Puback, Pubcomp, Pubrec
from device_sdk.store import sqlite
from device_sdk.store.base import StorePolicy
from device_sdk.store.database import Database
from device_sdk.store.inspect import QueueReader
from device_sdk.store.memory import MemoryStore
from device_sdk.store.pending import Pending
from device_sdk.store.sqlite import SqliteStore
from tests.engine.rig import Rig, SlowStore, set_pages


class FaultyDatabase(Database):
    """Cannot write while ``fault`` is the code of an error; ``once``: a single time."""

    fault: int | None = None
    once = False

    def write(self, batch: Pending) -> None:
        fault = FaultyDatabase.fault
        if fault is not None:
            if FaultyDatabase.once:
                FaultyDatabase.fault = None
            error = sqlite3.OperationalError("injected")
            error.sqlite_errorcode = fault
            raise error
        super().write(batch)


@pytest.fixture(autouse=True)
def disk(monkeypatch: pytest.MonkeyPatch) -> Generator[type[FaultyDatabase]]:
    monkeypatch.setattr(sqlite, "Database", FaultyDatabase)
    FaultyDatabase.fault, FaultyDatabase.once = None, False
    yield FaultyDatabase
    FaultyDatabase.fault = None


@pytest.fixture
def memory_disk(tmp_path: Path) -> Generator[Path]:
    """A folder where a flush takes no time, if there is one."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def stored(path: Path) -> set[int]:
    """The sequence numbers of the messages that the file holds."""
    with QueueReader(path) as reader:
        return {message.sequence for message in reader.export()}


def begin(path: Path, **policy: Any) -> Rig:
    chosen = StorePolicy(**{"min_free": 0, "linger": 0.0, **policy})
    return Rig(store=SqliteStore(path, chosen), policy=chosen, clean_start=False)


def end(rig: Rig) -> None:
    rig.engine.drop_connection()
    rig.engine.end()
    rig.engine.close_store()


def told(rig: Rig) -> int:
    """How many messages have ended in a way that the counters tell."""
    stats = rig.engine.stats()
    return stats.acknowledged + stats.refused + stats.expired + stats.dropped


def test_a_store_that_fails_until_the_end_tells_every_message_it_loses(
    tmp_path: Path, disk: type[FaultyDatabase]
) -> None:
    disk.fault = sqlite3.SQLITE_IOERR
    rig = begin(tmp_path / "queue.db")
    held = [rig.publish(b"%d" % number) for number in range(3000)][:100]  # nobody holds the others
    end(rig)
    assert rig.engine.stats().dropped == 3000
    events = [event for event in rig.event_objects() if event.kind == "dropped"]
    assert len(events) == 1
    assert "3000 messages" in events[0].text
    assert "injected" in events[0].text
    assert {delivery.state for delivery in held} == {"dropped"}


def test_a_disk_that_takes_the_last_attempt_loses_nothing(tmp_path: Path, disk: type[FaultyDatabase]) -> None:
    disk.fault = sqlite3.SQLITE_IOERR
    rig = begin(tmp_path / "queue.db")
    held = [rig.publish(b"%d" % number) for number in range(20)]
    rig.engine.end()
    disk.fault = None
    rig.engine.close_store()
    assert (rig.engine.stats().dropped, len(stored(tmp_path / "queue.db"))) == (0, 20)
    for delivery in held:
        assert delivery.state == "stored"
        with pytest.raises(ClosedError, match="the store keeps the message"):
            delivery.wait(0)


def test_a_wait_ends_with_what_became_of_the_message_not_with_a_guess(
    tmp_path: Path, disk: type[FaultyDatabase]
) -> None:
    rig = begin(tmp_path / "queue.db", linger=1000.0)
    delivery = rig.publish(b"reading")
    disk.fault = sqlite3.SQLITE_IOERR
    rig.engine.end()
    assert [delivery.done] == [False]  # the store may keep it, or not
    rig.engine.close_store()
    with pytest.raises(DroppedError, match=r"could not keep the message: .*injected"):
        delivery.wait(0)


def test_messages_that_were_in_a_damaged_file_are_not_called_stored(
    tmp_path: Path, disk: type[FaultyDatabase]
) -> None:
    rig = begin(tmp_path / "queue.db")
    lost = [rig.publish(b"%d" % number) for number in range(10)]
    lost[-1].wait_stored(5)
    disk.fault, disk.once = sqlite3.SQLITE_CORRUPT, True
    kept = rig.publish(b"later")
    kept.wait_stored(5)
    assert {delivery.state for delivery in lost} == {"queued"}
    end(rig)
    assert ({one.state for one in lost}, kept.state) == ({"dropped"}, "stored")
    assert (rig.engine.stats().dropped, len(stored(tmp_path / "queue.db"))) == (10, 1)


def test_a_message_beyond_memory_that_keep_last_replaces_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_pages(monkeypatch, PAGE_MESSAGES=2, PAGES_IN_MEMORY=1)
    rig = begin(tmp_path / "queue.db", keep_last=["t"])
    for number in range(10):
        rig.publish(b"%d" % number, topic="u")
    for number in range(5):
        rig.publish(b"%d" % number)  # nobody holds these, and they are not in memory
    assert rig.engine.stats().dropped == 4
    end(rig)
    assert len(stored(tmp_path / "queue.db")) == 11


def test_a_store_that_cannot_say_what_it_keeps_is_asked_what_it_has_not_written() -> None:
    class Backlogged(SlowStore):
        def backlog_messages(self) -> int:
            return 7

    rig = Rig(store=Backlogged())
    for number in range(7):
        rig.publish(b"%d" % number)
    end(rig)
    assert rig.engine.stats().dropped == 7


def test_a_store_in_memory_keeps_everything_and_says_so() -> None:
    store = MemoryStore()
    rig = Rig(store=store)
    delivery = rig.publish(b"reading")
    end(rig)
    assert (delivery.state, rig.engine.stats().dropped, store.kept) == ("stored", 0, 1)


POLICIES: list[dict[str, Any]] = [
    {},
    {"max_messages": 25, "overflow": "drop_oldest"},
    {"max_messages": 25, "overflow": "drop_newest"},
    {"keep_last": ["t"]},
    {"max_age": 20.0},
    {"replay": "live"},
]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: "-".join(map(str, policy)) or "plain")
@pytest.mark.parametrize("seed", [2, 9, 4])
def test_the_sum_is_right_after_any_history(
    memory_disk: Path, monkeypatch: pytest.MonkeyPatch, policy: dict[str, Any], seed: int
) -> None:
    set_pages(monkeypatch, PAGE_MESSAGES=10)
    dice = random.Random(seed)
    path = memory_disk / "queue.db"
    before = 0
    for _ in range(4):
        life = Life(begin(path, **policy), dice)
        for _ in range(25):
            life.step()
            stats = life.rig.engine.stats()
            assert before + stats.published == told(life.rig) + stats.queued + stats.in_flight
        end(life.rig)
        FaultyDatabase.fault = None
        rows = stored(path)
        after = len(rows)
        again = len(rows & life.ends_not_written())
        assert before + life.rig.engine.stats().published == told(life.rig) + after - again, before
        before = after


class Life:
    """One client on a disk that fails at times, and the broker's end of its connection."""

    def __init__(self, rig: Rig, dice: random.Random) -> None:
        self.rig = rig
        self._dice = dice
        self._unanswered: list[Any] = []
        self._held: list[Delivery] = []
        store = rig.engine.outgoing.outbox.waits._store
        assert isinstance(store, SqliteStore)
        self._store = store
        self._moved = threading.Event()
        self._progressed = store.on_progress
        store.on_progress = self._on_progress

    def _on_progress(self) -> None:
        assert self._progressed is not None
        self._progressed()
        self._moved.set()

    def step(self) -> None:
        dice = self._dice
        dice.choice([self._publish, self._publish, self._connect, self._answer, self._answer, self._fate])()
        self._let_the_disk_work()

    def ends_not_written(self) -> set[int]:
        """Messages that have ended; those that the file has all the same are sent again next time."""
        return set(self._store._pending.gone)

    def _let_the_disk_work(self) -> None:
        """Wait until what was handed over is durable, or the store has found that it cannot be."""
        store = self._store
        store.expedite(store._submitted)
        while store.failure is None and store.durable_through < store._submitted:
            assert self._moved.wait(10)
            self._moved.clear()
        self._unanswered += self.rig.sent()

    def _publish(self) -> None:
        dice = self._dice
        for _ in range(dice.randint(1, 12)):
            topic = dice.choice(["t", "u"])
            expiry = dice.choice([None, None, 30.0])
            delivery = self.rig.publish(b"x", dice.choice([1, 2]), topic=topic, expiry=expiry)
            if dice.random() < 0.3:
                self._held.append(delivery)
        self._unanswered += self.rig.sent()

    def _connect(self) -> None:
        if self.rig.engine.life.state == "connected":
            self.rig.lose()
        self.rig.advance(61)
        self._unanswered = self.rig.connect(session_present=self._dice.random() < 0.8)

    def _answer(self) -> None:
        if self.rig.engine.life.state != "connected":
            return
        for packet in self._unanswered[: self._dice.randint(1, 20)]:
            self._unanswered.remove(packet)
            if self.rig.engine.life.state != "connected":
                return
            refused = self._dice.random() < 0.1
            if packet.type == "publish" and packet.qos == 1:
                answer: Any = Puback(packet.packet_id, 0x87 if refused else 0)
            elif packet.type == "publish":
                answer = Pubrec(packet.packet_id)
            elif packet.type == "pubrel":
                answer = Pubcomp(packet.packet_id)
            else:
                continue
            self._unanswered += self.rig.feed(answer)

    def _fate(self) -> None:
        FaultyDatabase.fault = self._dice.choice(
            [None, None, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CORRUPT]
        )
        FaultyDatabase.once = FaultyDatabase.fault == sqlite3.SQLITE_CORRUPT
        self._held.clear()
