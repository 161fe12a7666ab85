"""A start on a bad disk is no worse than a run on one: full, without writes, hanging."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from device_sdk.errors import StoreError, StoreUnavailableError
from device_sdk.store import sqlite
from device_sdk.store.access import INDEX_BYTES
from device_sdk.store.inspect import QueueReader, check, purge
from device_sdk.store.sqlite import RETRY_S
from tests.store.contract import message
from tests.store.disks import HangingDisk, fill, hanging, read_only, small_ext4, small_tmpfs
from tests.store.sqlite_rig import Rig

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

DISKS = ["tmpfs", "ext4 of 1 KiB", "ext4 of 4 KiB"]


def small_disk(kind: str, folder: Path) -> AbstractContextManager[Path]:
    if kind == "tmpfs":
        return small_tmpfs(folder)
    return small_ext4(folder, 1024 if "1 KiB" in kind else 4096)


@pytest.fixture(params=DISKS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Path]:
    with small_disk(request.param, tmp_path) as where:
        yield where


@pytest.fixture
def ext4(tmp_path: Path) -> Generator[Path]:
    with small_ext4(tmp_path, 4096) as where:
        yield where


def used_before(where: Path) -> Rig:
    """A store with three messages and a session, closed."""
    rig = Rig(where)
    rig.open()
    rig.write(message(1), message(2), message(3), ("sent", 1, 7), ("fact", "client_id", "c"), ("received", 5))
    rig.store.close()
    return rig


def found(rig: Rig) -> list[int]:
    return [each.sequence for each in rig.open().messages]


def recover(rig: Rig) -> None:
    """Let the store try again until it works."""
    for _ in range(3):
        rig.advance(RETRY_S[1])
    assert (rig.store.failure, rig.store.durable_through) == (None, rig.number)


START = """
import json, sys
from pathlib import Path
from tests.store.contract import message
from tests.store.sqlite_rig import Rig
rig = Rig(Path(sys.argv[1]))
messages = [each.sequence for each in rig.open().messages]
rig.write(("done", 2, "acknowledged"))
rig.submit(*(message(number, bytes(2000)) for number in range(10, 2010)))
rig.store.expedite(rig.number)
rig.wait(lambda: rig.store.failure is not None, "the disk never fills")
print(json.dumps([messages, str(rig.store.failure)]))
rig.store.close()
"""


@pytest.mark.parametrize("leave", [0, 1000, 3000, 40_000])
def test_a_start_on_a_full_disk_is_as_good_as_a_run_on_one(disk: Path, leave: int) -> None:
    used_before(disk)
    fill(disk, leave=leave)
    # In a process of its own: what the kernel does to one that writes to mapped memory is SIGBUS.
    run = subprocess.run(
        [sys.executable, "-c", START, str(disk)], cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr.decode()
    messages, failure = json.loads(run.stdout)
    assert messages == [1, 2, 3]
    assert "full" in failure or "free on the disk" in failure


def test_the_reserve_is_given_up_for_a_start(disk: Path) -> None:
    rig = used_before(disk)
    fill(disk)
    assert found(rig) == [1, 2, 3]
    assert rig.store.failure is None
    assert not Path(f"{rig.path}.reserve").exists()
    assert Path(f"{rig.path}-shm").exists()  # so others can look at the queue
    assert rig.on_disk() == [1, 2, 3]
    rig.store.close()


def test_without_room_for_its_index_the_log_is_used_alone_until_there_is_some(disk: Path) -> None:
    rig = used_before(disk)
    Path(f"{rig.path}.reserve").unlink()
    filler = fill(disk)
    assert found(rig) == [1, 2, 3]
    assert not Path(f"{rig.path}-shm").exists()
    filler.unlink()
    rig.write(message(4), ("done", 2, "acknowledged"))
    assert Path(f"{rig.path}-shm").exists()
    assert rig.on_disk() == [1, 3, 4]
    assert found_after_close(rig) == [1, 3, 4]


def found_after_close(rig: Rig) -> list[int]:
    rig.store.close()
    messages = found(rig)
    rig.store.close()
    assert check(rig.path) == []
    return messages


def test_the_index_of_the_log_has_its_room_before_the_disk_fills(tmp_path: Path) -> None:
    with small_ext4(tmp_path, 1024) as where:
        rig = used_before(where)
        rig.open()
        index = Path(f"{rig.path}-shm").stat()
        assert index.st_blocks * 512 >= index.st_size > 0
        rig.store.close()


def test_a_full_disk_without_a_file_keeps_messages_in_memory_until_it_can_be_made(disk: Path) -> None:
    filler = fill(disk)
    rig = Rig(disk / "made" / "here")
    assert found(rig) == []
    assert re.search("No space left|full", str(rig.store.failure))
    rig.submit(message(1), message(2), ("fact", "client_id", "c"), ("done", 1, "acknowledged"))
    rig.advance(RETRY_S[1])
    assert rig.store.failure is not None
    assert [each.sequence for each in rig.page()] == [2]
    filler.unlink()
    recover(rig)
    assert found_after_close(rig) == [2]
    assert rig.path.stat().st_mode & 0o777 == 0o600


# A disk that takes no writes


@pytest.mark.parametrize("closed", [True, False])
def test_a_file_on_a_disk_that_takes_no_writes_is_read_and_told(ext4: Path, closed: bool) -> None:
    rig = used_before(ext4)
    if not closed:  # a power cut: the log is there, and perhaps its index
        rig.open()
        rig.write(*(message(number, bytes(1000)) for number in range(4, 1001)))
        log = Path(f"{rig.path}-wal").read_bytes()
        database = rig.path.read_bytes()
        rig.store.close()
        rig.path.write_bytes(database)
        Path(f"{rig.path}-wal").write_bytes(log)
    before = {path.name: path.read_bytes() for path in ext4.glob("queue*")}
    last = 3 if closed else 1000
    with read_only(ext4):
        saved = rig.open()
        assert saved.messages[0].packet_id == 7
        assert (saved.waiting, saved.facts, saved.received) == (last - 1, {"client_id": "c"}, {5})
        assert "Read-only file system" in str(rig.store.failure)
        assert [each.sequence for each in rig.page(last - 1)] == [last]
        rig.submit(message(2000), ("done", 2, "acknowledged"))
        rig.advance(RETRY_S[1])
        assert rig.store.failure is not None
        assert [each.sequence for each in rig.page(last - 1)] == [last, 2000]
        assert rig.store.durable_through == 0
        assert {path.name: path.read_bytes() for path in ext4.glob("queue*")} == before
        assert len(rig.on_disk()) == last
        with QueueReader(rig.path) as reader:
            assert reader.stat()["messages"] == last
        assert check(rig.path) == []
        with pytest.raises(StoreError, match="has it open"):
            purge(rig.path)
    recover(rig)
    assert rig.on_disk() == [1, *range(3, last + 1), 2000]
    assert found_after_close(rig)[:2] == [1, 3]


def test_what_ends_on_a_disk_without_writes_is_sent_again_and_counted(ext4: Path) -> None:
    rig = used_before(ext4)
    with read_only(ext4):
        rig.open()
        rig.submit(("done", 2, "acknowledged"), message(9))
        rig.store.close()
        assert rig.store.kept == 2  # 1 and 3
        assert rig.store.failure is not None
    assert found_after_close(rig) == [1, 2, 3]


def test_a_disk_without_writes_and_without_a_file_keeps_messages_in_memory(ext4: Path) -> None:
    rig = Rig(ext4)
    with read_only(ext4):
        assert found(rig) == []
        assert "Read-only file system" in str(rig.store.failure)
        rig.submit(message(1))
        rig.advance(RETRY_S[1])
        assert rig.store.failure is not None
    recover(rig)
    assert found_after_close(rig) == [1]


def test_a_file_that_appears_later_is_left_alone(ext4: Path) -> None:
    rig = Rig(ext4)
    with read_only(ext4):
        assert found(rig) == []
    sqlite3.connect(rig.path).executescript("CREATE TABLE a (b)").close()
    before = rig.path.read_bytes()
    rig.submit(message(1))
    rig.advance(RETRY_S[1])
    assert "a file has appeared there" in str(rig.store.failure)
    assert rig.path.read_bytes() == before
    rig.path.unlink()
    recover(rig)
    assert found_after_close(rig) == [1]


def test_an_older_file_cannot_be_used_before_it_can_be_brought_up_to_date(ext4: Path) -> None:
    rig = Rig(ext4)
    connection = sqlite3.connect(rig.path)
    connection.executescript((Path(__file__).parent / "databases" / "version-2.sql").read_text())
    connection.close()
    with (
        read_only(ext4),
        pytest.raises(StoreUnavailableError, match=r"older release \(schema 2\).*Read-only"),
    ):
        rig.open()
    assert found(rig) == [3, 1, 4, 6, 9]
    rig.store.close()


def test_a_second_client_is_refused_without_writes_too(ext4: Path) -> None:
    rig = used_before(ext4)
    with read_only(ext4):
        rig.open()
        with pytest.raises(StoreError, match="only one client at a time"):
            Rig(ext4).open()
        rig.store.close()


@pytest.mark.parametrize("kind", DISKS)
def test_the_queue_can_be_looked_at_and_emptied_on_a_full_disk(kind: str, tmp_path: Path) -> None:
    with small_disk(kind, tmp_path) as where:
        rig = used_before(where)
        fill(where)
        assert rig.on_disk() == [1, 2, 3]
        assert purge(rig.path) == 2
        assert rig.on_disk() == [1]


def test_a_disk_with_little_room_is_enough(ext4: Path) -> None:
    rig = used_before(ext4)
    Path(f"{rig.path}.reserve").unlink()
    fill(ext4, leave=INDEX_BYTES + 8192)
    assert found(rig) == [1, 2, 3]
    assert Path(f"{rig.path}-shm").exists()
    rig.store.close()


# A disk that hangs


@pytest.fixture
def slow(tmp_path: Path) -> Generator[HangingDisk]:
    with hanging(tmp_path) as disk:
        yield disk


def test_a_disk_that_hangs_holds_nobody_for_longer_than_open_timeout(slow: HangingDisk) -> None:
    rig = used_before(slow.where)
    slow.hang()
    rig = Rig(slow.where, open_timeout=0.3)
    for _ in range(2):  # the second finds the first attempt still there, and begins no other one
        begin = time.monotonic()
        with pytest.raises(StoreUnavailableError, match=r"did not answer within 0.3 s \(open_timeout\)"):
            rig.store.open()
        assert time.monotonic() - begin < 5
    slow.answer()
    rig.store.policy.open_timeout = 30.0
    assert [each.sequence for each in rig.store.open().messages] == [1, 2, 3]
    rig.store.close()


def test_a_disk_that_cannot_be_read_is_an_error_until_it_can(slow: HangingDisk) -> None:
    rig = used_before(slow.where)
    slow.fail("all")
    with pytest.raises(StoreUnavailableError, match="Input/output error"):
        rig.open()
    slow.answer()
    assert found(rig) == [1, 2, 3]
    rig.store.close()


def test_a_disk_of_which_every_write_fails_is_read_and_told(slow: HangingDisk) -> None:
    rig = used_before(slow.where)
    slow.fail("writes")
    saved = rig.open()
    assert ([each.sequence for each in saved.messages], saved.facts) == ([1, 2, 3], {"client_id": "c"})
    rig.submit(message(4), ("done", 2, "acknowledged"))
    rig.advance(RETRY_S[1])
    assert rig.store.failure is not None
    assert [each.sequence for each in rig.page()] == [3, 4]
    slow.answer()
    recover(rig)
    assert found_after_close(rig) == [1, 3, 4]


def test_a_disk_that_hangs_holds_close_for_a_moment_and_the_rest_is_written_if_it_answers(
    slow: HangingDisk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite, "_CLOSE_S", 0.3)
    rig = used_before(slow.where)
    rig.open()
    thread = rig.store._thread
    assert thread is not None
    slow.hang()
    rig.submit(message(4))
    begin = time.monotonic()
    rig.store.close()
    assert time.monotonic() - begin < 5
    assert rig.store.kept is None
    assert "the disk did not answer within 0.3 s" in caplog.text
    slow.answer()
    thread.join(30)
    assert found_after_close(rig) == [1, 2, 3, 4]


END = """
import sys
from device_sdk import Client
from device_sdk.store import sqlite
sqlite._CLOSE_S = 0.2
client = Client("mqtt://127.0.0.1:1", client_id="c", store=sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
client.publish("t", b"reading", qos=1)
if "at the end" not in sys.argv:
    client.close(drain=0)
    print("closed", flush=True)
"""


@pytest.mark.parametrize("who", ["close()", "at the end"])
def test_the_end_of_a_process_waits_for_a_disk_that_hangs(slow: HangingDisk, who: str) -> None:
    path = slow.where / "queue.db"
    program = subprocess.Popen(
        [sys.executable, "-c", END, str(path), who],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stdout.readline() == b"open\n"
        slow.hang()
        program.stdin.write(b"\n")
        program.stdin.flush()
        if who == "close()":
            assert program.stdout.readline() == b"closed\n"
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(1.5)
        slow.answer()
        assert program.wait(30) == 0
    with QueueReader(path) as reader:
        assert [each.payload for each in reader.export()] == [b"reading"]
