"""``rm queue.db*`` under a running client: noticed, told, put back; nothing counts as stored that is not."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from device_sdk.errors import StoreError
from device_sdk.store.database import Database
from device_sdk.store.inspect import check
from device_sdk.store.sqlite import RETRY_S, SqliteStore
from tests.store.contract import message
from tests.store.sqlite_rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Generator[Rig]:
    (tmp_path / "store").mkdir()
    rig = Rig(tmp_path / "store")
    rig.open()
    yield rig
    rig.store.close()


def on_another_boot(rig: Rig, tmp_path: Path) -> list[int]:
    """What a process finds that starts with the files as they are now."""
    folder = tmp_path / "boot"
    folder.mkdir()
    for suffix in ("", "-wal"):
        if Path(f"{rig.path}{suffix}").exists():
            shutil.copy(f"{rig.path}{suffix}", folder / f"queue.db{suffix}")
    store = SqliteStore(folder / "queue.db", rig.policy)
    found = [each.sequence for each in store.open().messages]
    store.close()
    assert check(folder / "queue.db") == []
    return found


def remove(rig: Rig, pattern: str) -> None:
    found = list(rig.folder.glob(pattern))
    assert found
    for path in found:
        path.unlink()


@pytest.mark.parametrize("pattern", ["queue.db*", "queue.db", "queue.db-wal", "queue.db-shm", "queue.db-*"])
def test_files_that_were_removed_are_put_back_with_all_that_was_stored(
    rig: Rig, tmp_path: Path, pattern: str
) -> None:
    rig.write(message(1), message(2), ("fact", "client_id", "c"), ("sent", 1, 5), ("received", 7))
    remove(rig, pattern)
    rig.write(message(3))
    assert "was removed while it was open" in str(rig.store.notice)
    assert (rig.store.failure, rig.store.lost_through) == (None, -1)
    rig.write(message(4))
    assert on_another_boot(rig, tmp_path) == [1, 2, 3, 4]
    assert rig.path.stat().st_mode & 0o777 == 0o600
    saved = rig.reopen()
    assert ([each.sequence for each in saved.messages], saved.received) == ([1, 2, 3, 4], {7})
    assert saved.facts == {"client_id": "c"}
    assert saved.messages[0].packet_id == 5


def test_what_was_removed_while_nothing_happened_is_put_back_at_the_end(rig: Rig) -> None:
    rig.write(message(1))
    remove(rig, "queue.db*")
    rig.store.close()
    assert "was removed while it was open" in str(rig.store.notice)
    assert rig.store.kept == 1
    assert [each.sequence for each in rig.open().messages] == [1]


def test_a_folder_that_was_removed_is_made_again(rig: Rig) -> None:
    rig.write(message(1))
    shutil.rmtree(rig.folder)
    rig.write(message(2))
    assert [each.sequence for each in rig.reopen().messages] == [1, 2]


def test_a_lock_that_was_removed_is_taken_again(rig: Rig) -> None:
    rig.write(message(1))
    remove(rig, "queue.db.lock")
    rig.write(message(2))
    with pytest.raises(StoreError, match="only one client at a time"):
        SqliteStore(rig.path, rig.policy).open()


def test_a_reserve_that_was_removed_is_made_again(rig: Rig) -> None:
    remove(rig, "queue.db*")
    rig.write(message(1))
    rig.write(message(2))
    assert Path(f"{rig.path}.reserve").exists()


def test_another_store_that_took_the_name_meanwhile_keeps_it(rig: Rig) -> None:
    rig.write(message(1))
    remove(rig, "queue.db*")
    other = SqliteStore(rig.path, rig.policy)
    other.open()
    rig.store.expedite(rig.submit(message(2)))
    rig.wait(lambda: rig.store.failure is not None, "no failure")
    assert "only one client at a time" in str(rig.store.failure)
    assert rig.store.lost_through == rig.store.durable_through == 1
    other.close()
    rig.store.close()
    assert rig.store.kept == 0


def test_a_file_in_its_place_is_left_alone_until_it_is_moved_away(rig: Rig, tmp_path: Path) -> None:
    rig.write(message(1))
    (tmp_path / "theirs").write_text("precious")
    os.replace(tmp_path / "theirs", rig.path)
    rig.store.expedite(rig.submit(message(2)))
    rig.wait(lambda: rig.store.failure is not None, "no failure")
    assert "another file was put in its place" in str(rig.store.failure)
    assert rig.store.lost_through == rig.store.durable_through  # message 1 ends with this process
    assert rig.path.read_text() == "precious"
    rig.path.unlink()
    rig.advance(RETRY_S[1])
    assert (rig.store.failure, rig.store.lost_through) == (None, -1)
    assert [each.sequence for each in rig.reopen().messages] == [1, 2]


def test_a_disk_without_room_for_the_new_file_is_tried_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.write(message(1))
    remove(rig, "queue.db*")

    def full(*_: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr("device_sdk.store.place.sync_directory", full)
    rig.store.expedite(rig.submit(message(2)))
    rig.wait(lambda: rig.store.failure is not None, "no failure")
    assert "disk is full" in str(rig.store.failure)
    assert not rig.path.exists()  # half a file would be taken for a damaged one
    monkeypatch.undo()
    rig.advance(RETRY_S[1])
    assert [each.sequence for each in rig.reopen().messages] == [1, 2]


def test_a_file_that_was_removed_while_the_disk_failed_is_begun_anew_and_said_to_be_lost(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.write(message(1), ("fact", "client_id", "c"))

    def fail(self: Database, _: object) -> None:
        remove(rig, "queue.db*")
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    monkeypatch.setattr(Database, "write", fail)
    rig.store.expedite(rig.submit(message(2)))
    rig.wait(lambda: rig.store.failure is not None or rig.store.notice is not None, "nothing was told")
    monkeypatch.undo()
    rig.advance(RETRY_S[1])
    assert "removed while the disk failed" in str(rig.store.notice)
    assert rig.store.lost_through == 2
    saved = rig.reopen()
    assert ([each.sequence for each in saved.messages], saved.facts) == ([2], {"client_id": "c"})


def test_a_reader_beside_a_client_sees_the_new_file(rig: Rig) -> None:
    rig.write(message(1))
    remove(rig, "queue.db*")
    rig.write(message(2))
    count = "import sys; from device_sdk.store.inspect import QueueReader as R; print(R(sys.argv[1]).stat())"
    told = subprocess.run(
        [sys.executable, "-c", count, str(rig.path)], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    assert "'messages': 2" in told
