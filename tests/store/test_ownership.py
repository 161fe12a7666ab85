"""Files that are not ours are refused and stay as they are; what is left of ours is still taken for ours."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from device_sdk.errors import StoreError
from device_sdk.paho import client as paho
from device_sdk.store.base import StorePolicy
from device_sdk.store.files import RESERVE_BYTES
from device_sdk.store.inspect import QueueReader, check, purge
from device_sdk.store.sqlite import SqliteStore
from tests.store.contract import message
from tests.store.sqlite_rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Generator[Rig]:
    rig = Rig(tmp_path)
    rig.open()
    yield rig
    rig.store.close()


CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUf0\n-----END CERTIFICATE-----\n"
PICTURE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 40
DISK_IMAGE = bytes(32_768) + b"\1CD001\1" + bytes(4_096)
DUMP = (Path(__file__).parent / "databases" / "version-1.sql").read_bytes()

FOREIGN = {
    "a text": (b"dear diary " * 500, "a text file"),
    "the configuration": (
        b'[broker]\nurl = "mqtt://127.0.0.1"\n[queue]\nfile = "node.toml"\n',
        "a text file",
    ),
    "one letter": (b"x", "a text file"),
    "a dump of a store": (DUMP, "a text file"),
    "a certificate": (CERTIFICATE, "a PEM file"),
    "a certificate with a text before it": (b"# of the broker\n" + CERTIFICATE, "a PEM file"),
    "a picture": (PICTURE, "other data"),
    "a disk image": (DISK_IMAGE, "other data"),
    "less than a header": (b"SQLite format 3\0", "the SQLite database of another program"),
}


def everything(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Mode, time of change and content of each file."""
    found = {}
    for path in folder.iterdir():
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[path.name] = (status.st_mode, status.st_mtime_ns, content)
    return found


def open_store(path: Path) -> None:
    store = SqliteStore(path, StorePolicy(min_free=0))
    store.open()
    store.close()


def open_drop_in(path: Path) -> None:
    paho.Client(paho.CallbackAPIVersion.VERSION2, store=str(path))


def refuse_everywhere(path: Path, problem: str) -> None:
    """Each way to a store refuses the file, and nothing in its folder changes."""
    ways: list[Callable[[Path], object]] = [open_store, open_drop_in, QueueReader, check, purge]
    for way in ways:
        before = everything(path.parent)
        with pytest.raises(StoreError, match=problem) as caught:
            way(path)
        assert str(path) in str(caught.value)
        assert everything(path.parent) == before


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    content, problem = FOREIGN[name]
    path = tmp_path / "file"
    path.write_bytes(content)
    path.chmod(0o644)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    refuse_everywhere(path, f"this is {problem}, not a database of this package.*name another file")


THEIRS = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement)
os._exit(0)
"""


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE theirs (x)", "INSERT INTO theirs VALUES (1)"],
        ["PRAGMA application_id = 77", "CREATE TABLE theirs (x)"],
        ["PRAGMA application_id = 77"],
        ["PRAGMA journal_mode = WAL", "CREATE TABLE theirs (x)", "INSERT INTO theirs VALUES (1)"],
        ["PRAGMA journal_mode = WAL", "PRAGMA application_id = 77"],
        [
            "CREATE TABLE theirs (x)", "PRAGMA cache_size = 1", "PRAGMA cache_spill = 1", "BEGIN",
            "INSERT INTO theirs VALUES (randomblob(100000))",
        ],
    ],
    ids=["tables", "number and tables", "number", "log", "log without tables", "journal to be replayed"],
)  # fmt: skip
def test_another_program_s_database_keeps_its_log_and_its_journal(
    tmp_path: Path, statements: list[str]
) -> None:
    path = tmp_path / "theirs.db"
    subprocess.run([sys.executable, "-c", THEIRS, str(path), *statements], timeout=20, check=True)
    path.chmod(0o640)
    refuse_everywhere(path, "this is the SQLite database of another program")


def test_a_log_or_journal_of_which_the_database_is_missing_is_not_deleted(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    statements = ["PRAGMA journal_mode = WAL", "CREATE TABLE theirs (x)"]
    subprocess.run([sys.executable, "-c", THEIRS, theirs / "q", *statements], timeout=20, check=True)
    for suffix, content in (
        ("-wal", b"my notes"),
        ("-journal", b"my diary"),
        ("-wal", (theirs / "q-wal").read_bytes()),
    ):
        folder = tmp_path / f"{suffix}{len(content)}"
        folder.mkdir()
        (folder / f"q{suffix}").write_bytes(content)
        for make_empty in (False, True):
            if make_empty:
                (folder / "q").touch(0o644)
            before = everything(folder)
            with pytest.raises(StoreError, match=f"q{suffix}: this is .*name another file"):
                open_store(folder / "q")
            assert everything(folder) == before


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".lock", b'# generated by a tool\nversion = "1"\n'),
        (".lock", b"4711\nanother line than the number of a process\n"),
        (".reserve", b"for a rainy day"),
        (".reserve", bytes(RESERVE_BYTES - 1) + b"x"),
        (".reserve", bytes(RESERVE_BYTES + 1)),
    ],
)
def test_a_file_with_the_name_of_our_lock_or_reserve_is_not_overwritten(
    rig: Rig, suffix: str, content: bytes
) -> None:
    rig.write(message(1))
    rig.store.close()
    beside = Path(f"{rig.path}{suffix}")
    beside.unlink(missing_ok=True)
    beside.write_bytes(content)
    for way in (open_store, purge):
        with pytest.raises(StoreError, match=f"queue.db{suffix}: this is not the .* of a store"):
            way(rig.path)
        assert beside.read_bytes() == content


def make_folder(path: Path) -> None:
    path.mkdir()


def make_socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


@pytest.mark.parametrize("make", [make_folder, os.mkfifo, make_socket])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "thing"
    make(path)
    before = everything(tmp_path)
    with pytest.raises(StoreError, match="not a regular file"):
        open_store(path)
    with pytest.raises(StoreError, match="no such file"):
        QueueReader(path)
    assert everything(tmp_path) == before


def test_a_device_is_not_even_opened(mocker: MockerFixture) -> None:
    spy = mocker.spy(os, "open")
    with pytest.raises(StoreError, match="/dev/null: this is not a regular file"):
        open_store(Path("/dev/null"))
    opened = [call.args[:2] for call in spy.call_args_list]
    assert "/dev/null" not in {path for path, _ in opened}
    assert not any(flags & os.O_CREAT for _, flags in opened)


@pytest.mark.parametrize("aim", ["file", "folder", "missing"])
def test_a_symbolic_link_is_refused_with_all_that_it_leads_to(tmp_path: Path, aim: str) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    path = tmp_path / "link"
    path.symlink_to(tmp_path / aim)
    before = everything(tmp_path)
    for way in (open_store, purge):
        with pytest.raises(StoreError, match="link: this is a symbolic link"):
            way(path)
    with pytest.raises(StoreError, match=r"a text file|no such file"):
        QueueReader(path)
    assert everything(tmp_path) == before


def test_a_store_can_be_read_through_a_symbolic_link_and_is_purged_by_its_own_name_only(rig: Rig) -> None:
    rig.write(message(1))
    link = rig.folder / "link"
    link.symlink_to(rig.path)
    with QueueReader(link) as reader:
        assert reader.stat()["messages"] == 1
    rig.store.close()
    with QueueReader(link) as reader:
        assert reader.stat()["messages"] == 1
    with pytest.raises(StoreError, match="symbolic link"):
        purge(link)


def test_a_file_put_into_the_place_of_an_open_store_is_not_renamed(rig: Rig) -> None:
    rig.write(*(message(number, bytes(1000)) for number in range(1, 400)))
    rig.reopen()
    rig.path.rename(rig.folder / "moved.db")
    rig.path.write_text("precious")
    with (rig.folder / "moved.db").open("r+b") as file:
        file.seek(file.seek(0, os.SEEK_END) // 2)
        file.write(b"\xff" * 100_000)
    rig.store.request_page(100)
    rig.wait(lambda: rig.store.failure is not None, "no failure")
    assert "a text file" in str(rig.store.failure)
    assert rig.path.read_text() == "precious"
    assert not list(rig.folder.glob("*damaged*"))


# What is left of our own


def sound_store(rig: Rig) -> bytes:
    rig.write(*(message(number, bytes(300)) for number in range(1, 60)))
    rig.store.close()
    return rig.path.read_bytes()


def test_a_store_that_was_killed_before_its_log_was_emptied_is_ours(rig: Rig) -> None:
    rig.write(message(1))
    assert rig.path.read_bytes()[68:72] == bytes(4), "its header has no application id yet"
    assert [each.sequence for each in rig.kill().messages] == [1]


def test_a_store_without_tables_is_ours_to_fill(rig: Rig) -> None:
    rig.store.close()
    for path in rig.folder.iterdir():
        path.unlink()
    connection = sqlite3.connect(rig.path)
    connection.execute("PRAGMA page_size = 2048")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    rig.open()
    assert rig.store.notice is None


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "zeros": lambda sound: bytes(len(sound)),
    "the first sector never written": lambda sound: bytes(512) + sound[512:],
    "only the first sector written": lambda sound: sound[:512] + bytes(len(sound) - 512),
    "the first page never written": lambda sound: bytes(2048) + sound[2048:],
    "the header overwritten": lambda sound: b"\0" + b"\xa5" * 99 + sound[100:],
    "the magic overwritten": lambda sound: b"\0" + b"\xa5" * 15 + sound[16:],
    "cut off in the header": lambda sound: sound[:80],
    "garbage": lambda sound: b"\0" + b"\xa5" * len(sound),
    "the first sector erased": lambda sound: b"\xff" * 512 + sound[512:],
    "the first pages erased": lambda sound: b"\xff" * 8192 + sound[8192:],
    "everything erased": lambda sound: b"\xff" * len(sound),
    "the application id overwritten": lambda sound: (
        sound[:24] + bytes(20) + sound[44:68] + b"\0\0\0\7" + sound[72:100] + b"\xa5" * 8 + sound[108:]
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_damage_has_left_of_a_store_is_set_aside(rig: Rig, kind: str) -> None:
    damaged = DAMAGE[kind](sound_store(rig))
    rig.path.write_bytes(damaged)
    rig.open()
    assert Path(f"{rig.path}.damaged-1").read_bytes() == damaged
    rig.write(message(1))
    assert rig.on_disk() == [1]


@pytest.mark.parametrize("beside", [".lock", ".reserve"])
def test_a_damaged_copy_for_which_no_lock_vouches_is_left_alone(
    rig: Rig, tmp_path: Path, beside: str
) -> None:
    damaged = DAMAGE["the header overwritten"](sound_store(rig))
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "queue.db").write_bytes(damaged)
    shutil.copy(f"{rig.path}{beside}", copy / f"queue.db{beside}")
    refuse_everywhere(copy / "queue.db", "other data")


def test_an_archive_of_a_store_is_no_store(rig: Rig, tmp_path: Path) -> None:
    """It has our tables in its first pages."""
    archive = tmp_path / "backup" / "queue.db"
    archive.parent.mkdir()
    archive.write_bytes(b"queue.db".ljust(512, b"\0") + sound_store(rig))
    refuse_everywhere(archive, "other data")


OTHER_DATABASE = ["PRAGMA application_id = 77", "CREATE TABLE theirs (x)"]


@pytest.mark.parametrize("content", [PICTURE, DISK_IMAGE, b"\xff" * 9000, None])
def test_a_file_that_was_put_into_the_place_of_a_closed_store_is_not_ours(
    rig: Rig, tmp_path: Path, content: bytes | None
) -> None:
    """All that lies beside it is ours, and its inode may even have the number that ours had."""
    sound_store(rig)
    for path in rig.folder.glob("queue.db-*"):
        path.unlink()
    rig.path.unlink()
    if content is None:
        subprocess.run([sys.executable, "-c", THEIRS, rig.path, *OTHER_DATABASE], timeout=20, check=True)
    else:
        rig.path.write_bytes(content)
    refuse_everywhere(rig.path, "other data" if content else "the SQLite database of another program")


def test_a_database_that_was_copied_over_a_closed_store_is_not_ours(rig: Rig, tmp_path: Path) -> None:
    sound_store(rig)
    theirs = tmp_path / "theirs"
    subprocess.run([sys.executable, "-c", THEIRS, theirs, *OTHER_DATABASE], timeout=20, check=True)
    rig.path.write_bytes(theirs.read_bytes())
    refuse_everywhere(rig.path, "the SQLite database of another program")


def test_a_lock_that_was_copied_vouches_for_the_file_of_its_folder_from_the_next_start_on(
    rig: Rig, tmp_path: Path
) -> None:
    sound = sound_store(rig)
    copy = tmp_path / "copy"
    copy.mkdir()
    for suffix in ("", ".lock"):
        shutil.copy(f"{rig.path}{suffix}", copy / f"queue.db{suffix}")
    open_store(copy / "queue.db")
    (copy / "queue.db").write_bytes(b"\xff" * len(sound))
    open_store(copy / "queue.db")
    assert (copy / "queue.db.damaged-1").exists()


@pytest.mark.parametrize(("how", "word"), [("truncate", "emptied"), ("unlink", "removed")])
def test_a_file_of_ours_that_lost_everything_between_two_runs_is_told_once(
    rig: Rig, how: str, word: str
) -> None:
    sound_store(rig)
    if how == "truncate":
        os.truncate(rig.path, 0)
    else:
        rig.path.unlink()
    assert rig.open().messages == []
    assert f"queue.db: it was {word}" in str(rig.store.notice)
    assert "are lost" in str(rig.store.notice)
    rig.write(message(1))
    assert [each.sequence for each in rig.reopen().messages] == [1]
    assert rig.store.notice is None


def test_a_file_that_was_empty_all_along_is_not_told(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.path.touch()
    rig.open()
    assert rig.store.notice is None
    rig.store.close()


def test_our_lock_and_reserve_beside_it_do_not_make_a_text_ours(rig: Rig) -> None:
    sound_store(rig)
    assert Path(f"{rig.path}.reserve").exists()
    shutil.copyfile(__file__, rig.path)
    refuse_everywhere(rig.path, "a text file")


def test_reading_beside_a_client_in_the_same_process_ends_no_lock_of_sqlite(rig: Rig) -> None:
    rig.write(message(1))
    with QueueReader(rig.path) as reader:
        assert reader.stat()["in_use"]
    exclusive = (
        "import sqlite3, sys\nconnection = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)\n"
        "try: connection.execute('PRAGMA journal_mode = DELETE')\n"
        "except sqlite3.OperationalError as error: print(error)"
    )
    told = subprocess.run(
        [sys.executable, "-c", exclusive, str(rig.path)],
        capture_output=True, text=True, timeout=20, check=True,
    ).stdout  # fmt: skip
    assert "locked" in told


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_new_store_opens_whatever_a_power_cut_has_left_in_its_log_or_journal(rig: Rig, suffix: str) -> None:
    rig.store.close()
    rig.path.write_bytes(b"")
    Path(f"{rig.path}{suffix}").write_bytes(b"what was in these sectors before" * 100)
    rig.open()
    rig.write(message(1))
    assert rig.on_disk() == [1]
