"""Looking into a store's file from outside, also while a client has it open."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from device_sdk.errors import StoreError
from device_sdk.store.inspect import QueueReader, check, purge, purge_shelf, retry
from device_sdk.store.schema import MIGRATIONS, PAGE_SIZE
from tests.store.contract import message, shelved
from tests.store.sqlite_rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Generator[Rig]:
    rig = Rig(tmp_path)
    rig.open()
    yield rig
    rig.store.close()


def fill(rig: Rig) -> None:
    rig.write(
        *(message(number, b"%d" % number, 2) for number in range(1, 8)),
        message(8, b"last", topic_field=b"\0\4a/\xc3\xa9", keep_last=True),
    )
    rig.write(
        ("sent", 2, 5), ("sent", 3, 6), ("released", 3), ("done", 1, "acknowledged"), ("done", 4, "expired"),
        ("received", 9), ("subscribed", "cmd/#", 1, False, False, 0), ("fact", "client_id", "node"),
    )  # fmt: skip


def test_the_figures_of_a_queue_in_use(rig: Rig) -> None:
    fill(rig)
    with QueueReader(rig.path) as reader:
        stat = reader.stat()
    assert stat.pop("file_bytes") > 10_000
    assert stat.pop("free_bytes") == 2 * PAGE_SIZE  # of the table shelf of schema 2, and its index
    assert stat == {
        "path": str(rig.path),
        "schema": len(MIGRATIONS),
        "in_use": True,
        "messages": 6,
        "waiting": 4,
        "in_flight": 1,
        "released": 1,
        "bytes": 5 * 5 + 11,
        "first_sequence": 2,
        "last_sequence": 8,
        "received": 1,
        "subscriptions": ["cmd/#"],
        "facts": {"client_id": "node"},
        "accepted": 8,
        "acknowledged": 1,
        "sent": 0,
        "refused": 0,
        "expired": 1,
        "dropped": 0,
        "invalidated": 0,
        "damaged": 0,
        "shelf": {"refused": 0, "damaged": 0, "bytes": 0, "pushed_off": 0, "withheld": 0},
    }


def test_messages_are_shown_in_the_order_in_which_they_were_published(rig: Rig) -> None:
    fill(rig)
    with QueueReader(rig.path) as reader:
        assert [(each.sequence, each.state) for each in reader.peek(3)] == [
            (2, "sent"),
            (3, "released"),
            (5, "waiting"),
        ]
        last = list(reader.export())[-1]
    assert (last.topic, last.payload, last.qos, last.retain, last.keep_last) == (
        "a/é",
        b"last",
        1,
        False,
        True,
    )


def test_a_long_export_sees_each_message_once_while_the_client_goes_on(rig: Rig) -> None:
    rig.write(*(message(number) for number in range(1, 1001)))
    seen: list[int] = []
    with QueueReader(rig.path) as reader:
        for each in reader.export():
            seen.append(each.sequence)
            if each.sequence == 100:
                rig.write(*(("done", number, "acknowledged") for number in range(1, 900)), message(1001))
    assert seen == [*range(1, 201), *range(900, 1002)]


def test_a_reader_keeps_the_client_from_nothing(rig: Rig) -> None:
    rig.write(message(1))
    with QueueReader(rig.path) as reader:
        reader.peek(1)
        rig.write(message(2))
        rig.reopen()
        assert [each.sequence for each in reader.export()] == [1, 2]


def test_a_closed_store_can_be_read(rig: Rig) -> None:
    fill(rig)
    rig.store.close()
    with QueueReader(rig.path) as reader:
        assert (reader.stat()["in_use"], len(list(reader.export()))) == (False, 6)
    assert check(rig.path) == []


def test_check_finds_damage(rig: Rig) -> None:
    rig.write(*(message(number, os.urandom(300)) for number in range(1, 200)))
    rig.store.close()
    with rig.path.open("r+b") as file:
        file.seek(rig.path.stat().st_size // 2)
        file.write(bytes(5000))
    assert check(rig.path)


def test_check_finds_totals_that_are_wrong(rig: Rig) -> None:
    fill(rig)
    rig.store.close()
    assert check(rig.path) == []
    connection = sqlite3.connect(rig.path)
    connection.execute("UPDATE session SET removed = removed - 1")
    connection.execute("INSERT INTO in_flight (sequence, packet_id, released, turn) VALUES (99, 9, 0, 1)")
    connection.commit()
    connection.close()
    assert check(rig.path) == [
        "6 messages of 36 bytes are there, the totals say 7 of 36",
        "1 packet identifiers belong to no message",
        "the row of the table session is not what was stored",
        "rows of the table in_flight are not what was stored",
    ]


def test_purge_drops_what_waits_and_keeps_the_session(rig: Rig) -> None:
    fill(rig)
    rig.store.close()
    assert purge(rig.path) == 4
    assert check(rig.path) == []
    with QueueReader(rig.path) as reader:
        assert reader.stat()["dropped"] == 4
    saved = rig.open()
    assert [(each.sequence, each.packet_id) for each in saved.messages] == [(2, 5), (3, 6)]
    assert (saved.waiting, saved.waiting_bytes, saved.next_sequence, saved.received) == (0, 0, 9, {9})
    rig.write(message(9))
    assert check(rig.path) == []


def test_purge_needs_the_store_for_itself(rig: Rig) -> None:
    fill(rig)
    with pytest.raises(StoreError, match="has it open"):
        purge(rig.path)


# The shelf


def fill_shelf(rig: Rig) -> None:
    """Messages 2 (sent), 3 (damaged) and 1 on the shelf; 4 in flight, 5 waits."""
    rig.write(
        *(message(number, b"%d" % number, keep_last=number == 1) for number in range(1, 5)),
        message(5, b"five", topic_field=b"\0\1u"),
        ("sent", 2, 7), ("sent", 4, 8),
        shelved(2), shelved(3, "damaged"), shelved(1),
    )  # fmt: skip


def test_the_figures_tell_the_shelf_apart(rig: Rig) -> None:
    fill_shelf(rig)
    with QueueReader(rig.path) as reader:
        stat = reader.stat()
    assert stat["shelf"] == {"refused": 2, "damaged": 1, "bytes": 15, "pushed_off": 0, "withheld": 1}
    assert (stat["messages"], stat["waiting"], stat["in_flight"], stat["bytes"]) == (2, 1, 1, 13)
    assert (stat["accepted"], stat["refused"], stat["damaged"]) == (5, 2, 1)
    assert check(rig.path) == []


def test_the_shelf_is_read_apart_from_the_queue_the_oldest_first(rig: Rig) -> None:
    fill_shelf(rig)
    with QueueReader(rig.path) as reader:
        assert [each.sequence for each in reader.export()] == [4, 5]
        assert [each.sequence for each in reader.peek(9)] == [4, 5]
        on_shelf = list(reader.shelf())
    assert [(each.sequence, each.state, each.payload) for each in on_shelf] == [
        (2, "refused", b"2"), (3, "damaged", b"3"), (1, "refused", b"1"),
    ]  # fmt: skip
    assert {(each.reason, each.at) for each in on_shelf} == {(shelved(1)[3], shelved(1)[4])}


def test_a_long_shelf_is_read_in_steps(rig: Rig) -> None:
    rig.write(*(message(number) for number in range(1, 501)), *(shelved(n) for n in range(500, 0, -1)))
    with QueueReader(rig.path) as reader:
        assert [each.sequence for each in reader.shelf()] == list(range(500, 0, -1))


def test_retry_makes_new_messages_of_the_refused_ones_at_the_end_of_the_queue(rig: Rig) -> None:
    fill_shelf(rig)
    rig.store.close()
    assert retry(rig.path) == 2
    assert check(rig.path) == []
    with QueueReader(rig.path) as reader:
        assert [(each.sequence, each.payload) for each in reader.export()] == [
            (4, b"4"), (5, b"five"), (6, b"2"), (7, b"1"),
        ]  # fmt: skip
        assert [each.sequence for each in reader.shelf()] == [3]
        assert (reader.stat()["refused"], reader.stat()["accepted"]) == (2, 7)
    saved = rig.open()
    assert (saved.waiting, saved.waiting_bytes, saved.next_sequence) == (3, 8 + 5 + 5, 8)
    assert (saved.withheld, saved.shelved, saved.latest) == ({7}, 1, {b"\0\1t": (7, 5)})
    rig.write(message(8))
    assert check(rig.path) == []


def test_purging_the_shelf_leaves_the_queue_and_the_other_way_round(rig: Rig) -> None:
    fill_shelf(rig)
    rig.store.close()
    assert purge(rig.path) == 1
    assert check(rig.path) == []
    with QueueReader(rig.path) as reader:
        assert [each.sequence for each in reader.export()] == [4]
        assert len(list(reader.shelf())) == 3
    assert purge_shelf(rig.path) == 3
    assert check(rig.path) == []
    with QueueReader(rig.path) as reader:
        assert ([each.sequence for each in reader.export()], list(reader.shelf())) == ([4], [])
        stat = reader.stat()
    assert (stat["refused"], stat["damaged"], stat["dropped"], stat["accepted"]) == (2, 1, 1, 5)
    assert (rig.open().withheld, list(rig.store.reports)) == ({7}, [])


@pytest.mark.parametrize("change", [purge_shelf, retry])
def test_whoever_changes_the_shelf_needs_the_store_for_itself(rig: Rig, change: Callable[..., int]) -> None:
    with pytest.raises(StoreError, match="has it open"):
        change(rig.path)


def test_messages_that_the_shelf_had_no_room_for_are_counted_in_the_file(tmp_path: Path) -> None:
    rig = Rig(tmp_path, max_shelf_messages=1)
    rig.open()
    rig.write(message(1), message(2), message(3), shelved(1), shelved(2), shelved(3, "damaged"))
    assert [value for _, _, value in rig.store.reports] == ["2"]
    with QueueReader(rig.path) as reader:
        stat = reader.stat()
    assert (stat["shelf"]["pushed_off"], stat["accepted"], stat["refused"], stat["damaged"]) == (2, 3, 2, 1)
    assert check(rig.path) == []
    rig.reopen()
    assert not rig.store.reports
    rig.store.close()


def test_a_file_of_the_first_schema_is_read_without_being_changed(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    connection = sqlite3.connect(path)
    connection.executescript((Path(__file__).parent / "databases" / "version-1.sql").read_text())
    connection.close()
    before = path.read_bytes()
    with QueueReader(path) as reader:
        assert [each.sequence for each in reader.export()] == [1, 3, 4, 6]
        assert list(reader.shelf()) == []
        stat = reader.stat()
    assert (stat["schema"], stat["waiting"], stat["shelf"]["withheld"]) == (1, 2, 0)
    assert path.read_bytes() == before
    assert retry(path) == 0
    with QueueReader(path) as reader:
        assert reader.stat()["schema"] == len(MIGRATIONS)
        assert [each.sequence for each in reader.export()] == [1, 3, 4, 6]


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(StoreError, match="no such file"):
        QueueReader(path)
    path.write_bytes(b"text" * 1000)
    with pytest.raises(StoreError, match="this is a text file, not a database of this package"):
        QueueReader(path)
    with pytest.raises(StoreError, match="this is a text file, not a database of this package"):
        purge(path)
    path.write_bytes(b"")
    with pytest.raises(StoreError, match="not a store of this release"):
        QueueReader(path)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
