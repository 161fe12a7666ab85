"""Samples wait in order, in a file, until the queue has them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from device_sdk.drivers import Reading
from device_sdk.errors import StoreError
from device_sdk.node.clock.waiting_room import WaitingRoom
from device_sdk.node.sample import Sample, pack
from device_sdk.store.memory import MemoryStore
from device_sdk.store.sqlite import SqliteStore

MIB = 1 << 20


def sample(number: int, text: str = "x") -> Sample:
    return Sample("n1/s", 1, False, number, "boot", float(number), (Reading("c", text, "1", 0.0),))


def room_in(path: Path, max_samples: int = 10_000, max_bytes: int = MIB) -> WaitingRoom:
    room = WaitingRoom(lambda _: SqliteStore(path), max_samples, max_bytes)
    room.open()
    return room


def add(room: WaitingRoom, *numbers: int, text: str = "x") -> None:
    for number in numbers:
        room.add(sample(number, text), pack(sample(number, text)))


def everything(room: WaitingRoom) -> list[int]:
    found = []
    while len(room):
        found.append(room.head.seq)
        room.leave(None)
    return found


def delivery(state: str) -> Any:
    return SimpleNamespace(state=state)


def test_samples_of_the_last_run_come_first_and_are_as_they_were(tmp_path: Path) -> None:
    first = room_in(tmp_path / "q.samples")
    add(first, 0, 1)
    first.close()
    second = room_in(tmp_path / "q.samples")
    add(second, 2)
    assert second.head == sample(0)
    assert everything(second) == [0, 1, 2]
    second.close()


def test_more_samples_than_one_page_of_the_file_come_in_order(tmp_path: Path) -> None:
    first = room_in(tmp_path / "q.samples")
    add(first, *range(1200))
    first.close()
    second = room_in(tmp_path / "q.samples")
    assert len(second) == 1200
    assert everything(second) == list(range(1200))
    assert second.is_settled
    second.close()
    third = room_in(tmp_path / "q.samples")
    assert len(third) == 0
    third.close()


def test_a_sample_stays_in_the_file_until_the_queue_has_stored_it(tmp_path: Path) -> None:
    first = room_in(tmp_path / "q.samples")
    add(first, 0, 1, 2)
    states = [delivery("queued"), delivery("queued")]
    for state in states:
        first.leave(state)
    states[0].state = "stored"
    first.settle()
    assert (len(first), first.is_settled) == (1, False)
    first.close()
    second = room_in(tmp_path / "q.samples")
    assert everything(second) == [1, 2]
    second.close()


@pytest.mark.parametrize("state", ["stored", "sent", "acknowledged", "dropped", "refused"])
def test_every_state_behind_queued_ends_the_wait_in_the_file(tmp_path: Path, state: str) -> None:
    room = room_in(tmp_path / "q.samples")
    add(room, 0)
    room.leave(delivery(state))
    room.settle()
    assert room.is_settled
    room.close()


def test_its_bounds_are_samples_and_bytes() -> None:
    room = WaitingRoom(lambda _: MemoryStore(), 3, 2000)
    room.open()
    add(room, 0, 1, 2)
    over = [room.is_over]
    add(room, 3)
    over.append(room.is_over)
    room.leave(None)
    over.append(room.is_over)
    add(room, 4, text="y" * 2000)
    room.leave(None)
    over.append(room.is_over)
    everything(room)
    over.append(room.is_over)
    assert over == [False, True, False, True, False]


def test_a_file_that_cannot_be_opened_is_told_and_memory_has_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "q.samples").write_text("my notes")
    room = room_in(tmp_path / "q.samples")
    assert "kept in memory" in caplog.text
    add(room, 0)
    assert everything(room) == [0]
    room.close()
    assert (tmp_path / "q.samples").read_text() == "my notes"


def test_a_message_in_the_file_that_is_no_sample_is_told_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteStore(tmp_path / "q.samples")
    store.open()
    store.submit([("message", 1, b"\0\1t", b"hello", 2, b"\0", None)], 1)
    store.close()
    room = room_in(tmp_path / "q.samples")
    assert len(room) == 0
    assert "cannot be read and is lost" in caplog.text
    room.close()


def test_two_rooms_do_not_share_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = room_in(tmp_path / "q.samples")
    add(first, 0)
    second = room_in(tmp_path / "q.samples")
    assert len(second) == 0
    assert "kept in memory" in caplog.text
    for room in (first, second):
        room.close()


def test_a_store_that_fails_to_be_made_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: bool) -> SqliteStore:
        raise StoreError("this Python has no sqlite3")

    room = WaitingRoom(fail, 1, 1)
    room.open()
    assert "no sqlite3" in caplog.text
