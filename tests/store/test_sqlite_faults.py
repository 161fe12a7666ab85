"""Disks that are full, read-only, failing or damaged: SqliteStore goes on and recovers by itself."""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import deque
from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from device_sdk.errors import StoreError
from device_sdk.store import sqlite
from device_sdk.store.base import StorePolicy
from device_sdk.store.database import Database
from device_sdk.store.files import RESERVE_BYTES
from device_sdk.store.pending import Pending
from device_sdk.store.sqlite import RETRY_S, SqliteStore
from tests.store.contract import message
from tests.store.sqlite_rig import Rig

ROOT = Path(__file__).resolve().parent.parent.parent

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class _FaultyDatabase(Database):
    faults: deque[int] = deque()
    attempts = 0

    def write(self, batch: Pending) -> None:
        _FaultyDatabase.attempts += 1
        if self.faults:
            error = sqlite3.OperationalError("injected")
            error.sqlite_errorcode = self.faults.popleft()
            raise error
        super().write(batch)


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Rig]:
    monkeypatch.setattr(sqlite, "Database", _FaultyDatabase)
    _FaultyDatabase.faults.clear()
    rig = Rig(tmp_path)
    rig.open()
    yield rig
    _FaultyDatabase.faults.clear()
    rig.store.close()


# Every call that can fail, one after the other


@pytest.fixture
def memory_disk(tmp_path: Path) -> Generator[Path]:
    """A folder where a flush takes no time, if there is one."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@needs_strace
@pytest.mark.parametrize(
    ("call", "error", "count"),
    [
        ("pwrite64", "EIO", 110),
        ("pwrite64", "ENOSPC", 110),
        ("fdatasync", "EIO", 14),
        ("fsync", "EIO", 6),
        ("ftruncate", "EIO", 6),
        ("unlink", "EIO", 6),
    ],
)
def test_a_store_survives_any_one_call_that_fails(
    memory_disk: Path, call: str, error: str, count: int
) -> None:
    log = memory_disk / "log"
    run = subprocess.run(
        [
            *("strace", "-f", "--seccomp-bpf", "-qq", "-o", str(log), "-e", f"trace={call}"),
            *("-e", f"inject={call}:error={error}:when={count}"),
            *(
                sys.executable,
                "-m",
                "tests.store.faulty_disk",
                str(memory_disk),
                call,
                str(count),
                str(count),
            ),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    if "ptrace" in run.stderr:
        pytest.skip("needs ptrace")
    assert run.returncode == 0, run.stderr
    injected = len(re.findall("INJECTED", log.read_text()))
    assert 0 < injected < count, "the run makes more calls than were tried"


# Failing and recovering


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY])
def test_a_disk_that_fails_is_told_and_tried_again(rig: Rig, code: int) -> None:
    _FaultyDatabase.faults.extend([code] * 50)
    rig.store.expedite(rig.submit(message(1)))
    rig.wait(lambda: rig.store.failure is not None, "no failure")
    failure = rig.store.failure
    assert isinstance(failure, StoreError)
    assert str(rig.path) in str(failure)
    assert (rig.store.durable_through, rig.store.backlog_bytes) == (0, 5)
    _FaultyDatabase.faults.clear()
    rig.advance(RETRY_S[0])
    assert (rig.store.failure, rig.store.durable_through) == (None, 1)


def test_attempts_become_rarer_and_nobody_can_hurry_them(rig: Rig) -> None:
    _FaultyDatabase.faults.extend([sqlite3.SQLITE_IOERR] * 1000)
    rig.store.expedite(rig.submit(message(1)))
    rig.wait(lambda: rig.store.failure is not None, "no failure")
    _FaultyDatabase.attempts = 0
    for second in range(600):
        rig.store.expedite(rig.submit(message(second + 2)))
        rig.advance(1.0)
    assert 600 / RETRY_S[1] <= _FaultyDatabase.attempts <= 600 / RETRY_S[1] + 6


def test_a_failing_store_forgets_what_ends_meanwhile(rig: Rig) -> None:
    rig.write(message(1))
    _FaultyDatabase.faults.extend([sqlite3.SQLITE_IOERR] * 1000)
    rig.store.expedite(rig.submit(*(message(number) for number in range(2, 500))))
    rig.wait(lambda: rig.store.failure is not None, "no failure")
    rig.submit(*(("done", number, "acknowledged") for number in range(1, 499)))
    assert rig.store.backlog_bytes == 5
    _FaultyDatabase.faults.clear()
    rig.advance(RETRY_S[1])
    assert (rig.on_disk(), rig.store.failure) == ([499], None)


def test_pages_come_while_the_disk_is_full(rig: Rig) -> None:
    rig.write(message(1), message(2), message(3))
    _FaultyDatabase.faults.extend([sqlite3.SQLITE_FULL] * 1000)
    rig.store.expedite(rig.submit(message(4), ("done", 2, "dropped")))
    rig.wait(lambda: rig.store.failure is not None, "no failure")
    assert [each.sequence for each in rig.page()] == [1, 3, 4]


def test_a_store_that_recovers_with_nothing_left_to_write_says_so(rig: Rig) -> None:
    _FaultyDatabase.faults.extend([sqlite3.SQLITE_IOERR] * 3)
    rig.store.expedite(rig.submit(message(1)))
    rig.wait(lambda: rig.store.failure is not None, "no failure")
    rig.submit(("done", 1, "acknowledged"))
    for _ in range(3):
        rig.advance(RETRY_S[1])
    assert rig.store.failure is None


def test_closing_with_a_failing_disk_ends(rig: Rig) -> None:
    _FaultyDatabase.faults.extend([sqlite3.SQLITE_IOERR] * 1000)
    rig.submit(message(1))
    rig.store.close()
    assert rig.store.failure is not None
    _FaultyDatabase.faults.clear()
    assert rig.open().messages == []


# Full


def test_below_min_free_messages_wait_in_memory_and_the_rest_is_written(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.write(message(1), message(2))
    monkeypatch.setattr(Database, "shortage", lambda *_: "only a little is free")
    rig.store.expedite(rig.submit(message(3), ("done", 1, "acknowledged"), ("fact", "a", 1)))
    rig.wait(lambda: rig.store.failure is not None, "no failure")
    assert (rig.on_disk(), rig.store.durable_through) == ([2], 2)
    assert "only a little" in str(rig.store.failure)
    monkeypatch.undo()
    rig.advance(RETRY_S[0])
    assert (rig.on_disk(), rig.store.durable_through, rig.store.failure) == ([2, 3], 5, None)


def test_min_free_is_looked_at(tmp_path: Path) -> None:
    rig = Rig(tmp_path, min_free=1 << 60)
    rig.open()
    rig.store.expedite(rig.submit(message(1, bytes(10_000))))  # more than a new file has room for
    rig.wait(lambda: rig.store.failure is not None, "no failure")
    assert "min_free" in str(rig.store.failure)
    rig.store.close()
    assert not Path(f"{rig.path}.reserve").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 6 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(rig: Rig, sequence: int) -> int:
    """Add messages until the disk is full; return the last sequence number."""
    while rig.store.failure is None:
        first, sequence = sequence + 1, sequence + 20
        rig.submit(*(message(number, bytes(2000)) for number in range(first, sequence + 1)))
        rig.store.expedite(rig.number)
        rig.wait(lambda: rig.store.durable_through == rig.number or rig.store.failure is not None, "stuck")
        assert sequence < 10_000, "the disk never fills"
    return sequence


@needs_root
def test_a_full_disk_takes_acknowledgements_and_their_room_takes_messages(small_disk: Path) -> None:
    rig = Rig(small_disk, linger=0.0)
    rig.open()
    reserve = Path(f"{rig.path}.reserve")
    filler = small_disk / "filler"
    filler.touch()
    assert reserve.stat().st_size == RESERVE_BYTES
    last = fill(rig, 0)
    written = rig.on_disk()
    assert 0 < len(written) < last
    with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    # Not a byte is free. Acknowledgements are written, and make room for what waited in memory.
    gone = len(written) // 2
    rig.submit(*(("done", number, "acknowledged") for number in written[:gone]), ("received", 5))
    for _ in range(3):
        rig.advance(RETRY_S[1])
    assert (rig.store.failure, rig.store.durable_through) == (None, rig.number)
    assert rig.on_disk() == list(range(gone + 1, last + 1))
    last = fill(rig, last)
    filler.unlink()
    rig.submit(*(("done", number, "acknowledged") for number in range(gone + 1, last - 20)))
    rig.advance(RETRY_S[1])
    assert (rig.store.failure, rig.store.durable_through) == (None, rig.number)
    assert rig.on_disk() == list(range(last - 20, last + 1))
    rig.store.close()


# Damaged


OUR_HEADER = b"SQLite format 3\0".ljust(68, b"\7") + b"DSDK"


@pytest.mark.parametrize(
    "garbage",
    [b"\0" * 8192, OUR_HEADER.ljust(5000, b"\7"), OUR_HEADER[:72], bytes(68) + b"DSDK" + b"\7" * 500],
)
def test_what_is_left_of_a_store_is_set_aside(tmp_path: Path, garbage: bytes) -> None:
    rig = Rig(tmp_path)
    rig.path.write_bytes(garbage)
    assert rig.open().messages == []
    assert f"{rig.path}.damaged-1" in str(rig.store.notice)
    assert Path(f"{rig.path}.damaged-1").read_bytes() == garbage
    rig.write(message(1))
    assert [each.sequence for each in rig.reopen().messages] == [1]
    assert rig.store.notice is None
    rig.store.close()


def test_the_last_two_damaged_files_are_kept(tmp_path: Path) -> None:
    for number in range(1, 5):
        rig = Rig(tmp_path)
        rig.path.write_bytes(OUR_HEADER + b"damage %d" % number * 1000)
        rig.open()
        rig.store.close()
    kept = {path.name: path.read_bytes()[72:80] for path in tmp_path.glob("*.damaged-*")}
    assert kept == {"queue.db.damaged-1": b"damage 3", "queue.db.damaged-2": b"damage 4"}


def test_any_damaged_bytes_never_keep_a_store_from_opening(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.open()
    rig.write(*(message(number, bytes(300)) for number in range(1, 60)), ("fact", "client_id", "c"))
    rig.store.close()
    sound = rig.path.read_bytes()
    chance = random.Random(5)
    for _ in range(60):
        damaged = bytearray(sound)
        at = chance.randrange(len(damaged) - 64)
        damaged[at : at + 64] = chance.randbytes(64)
        rig.path.write_bytes(damaged)
        try:
            rig.open()
        except StoreError as error:
            # The header may now say that it belongs to another program, or to a newer release.
            assert "another program" in str(error) or "newer release" in str(error)
            continue
        rig.write(message(1000))
        assert 1000 in {each.sequence for each in rig.reopen().messages} or rig.page(999)
        rig.store.close()


def test_damage_at_run_time_begins_a_new_file_with_what_is_in_memory(rig: Rig) -> None:
    rig.write(
        message(1), ("fact", "client_id", "c"), ("subscribed", "a/#", 1, False, True, 2), ("received", 9)
    )
    rig.write(("reserved", 64), ("fact", "other", 5), ("received", 8), ("completed", 9))
    _FaultyDatabase.faults.append(sqlite3.SQLITE_CORRUPT)
    rig.write(message(2), ("done", 1, "acknowledged"))
    assert "damaged-1" in str(rig.store.notice)
    assert rig.store.failure is None
    saved = rig.reopen()
    assert [each.sequence for each in saved.messages] == [2]
    assert (saved.facts, saved.received, saved.last_packet_id) == ({"client_id": "c", "other": 5}, {8}, 64)
    assert saved.subscriptions == {"a/#": (1, False, True, 2)}
    assert (saved.next_sequence, saved.waiting) == (3, 1)


def test_damage_that_a_page_meets_is_noticed(rig: Rig) -> None:
    rig.write(*(message(number, bytes(1000)) for number in range(1, 400)))
    rig.reopen()
    size = rig.path.stat().st_size
    with rig.path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size // 4))
    rig.store.request_page(100)
    rig.wait(lambda: rig.store.notice is not None, "no notice")
    assert rig.page(100) == []
    rig.write(message(1000))
    assert rig.on_disk() == [1000]


def test_a_store_on_a_path_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Not a directory"):
        SqliteStore(tmp_path / "file" / "queue.db", StorePolicy()).open()
