"""The files of a SqliteStore: whose they are, who may open them, and what becomes of them in a fork."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from device_sdk.errors import StoreError
from device_sdk.store import schema
from device_sdk.store.base import StorePolicy
from device_sdk.store.files import RESERVE_BYTES, Reserve, StoreLock, is_locked
from device_sdk.store.inspect import QueueReader, check
from device_sdk.store.schema import MIGRATIONS
from device_sdk.store.sqlite import SqliteStore
from tests.store.contract import message
from tests.store.sqlite_rig import Rig

ROOT = Path(__file__).resolve().parent.parent.parent
FIXTURES = Path(__file__).parent / "databases"


def mode(path: Path | str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def store_at(path: Path) -> SqliteStore:
    return SqliteStore(path, StorePolicy(min_free=0))


def restored(path: Path, fixture: str) -> None:
    """Make a database of the SQL text in a fixture."""
    connection = sqlite3.connect(path)
    connection.executescript((FIXTURES / fixture).read_text())
    connection.close()


# Rights


def test_nobody_else_can_read_the_files(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = store_at(tmp_path / "new" / "folder" / "queue.db")
        store.open()
        store.submit([message(1)], 1)
        store.expedite(1)
        store.close()
        store.open()
    finally:
        os.umask(before)
    folder = tmp_path / "new" / "folder"
    assert {path.name: mode(path) for path in folder.iterdir()} == dict.fromkeys(
        ["queue.db", "queue.db-shm", "queue.db-wal", "queue.db.lock", "queue.db.reserve"], 0o600
    )
    assert (mode(folder), mode(folder.parent)) == (0o700, 0o700)
    store.close()


def test_rights_that_others_have_on_the_file_are_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    path.touch(0o666)
    path.chmod(0o666)
    store = store_at(path)
    store.open()
    assert mode(path) == 0o600
    store.close()


@pytest.mark.parametrize("name", ["queue.db", "queue.db.lock"])
def test_a_symbolic_link_is_not_followed(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / name).symlink_to(victim)
    with pytest.raises(StoreError, match="symbolic link"):
        store_at(tmp_path / "queue.db").open()
    assert victim.read_text() == "precious"


def test_a_folder_that_cannot_be_made_is_named_with_what_to_do() -> None:
    with pytest.raises(StoreError) as caught:
        SqliteStore("/proc/nope/x.db").open()
    assert str(caught.value) == (
        "/proc/nope: No such file or directory; the folder of the store cannot be made: make it, "
        "or name a file in another one"
    )


def test_a_folder_in_which_we_may_not_write_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file = os.open

    def refuse(path: str, flags: int, *rest: Any) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return open_file(path, flags, *rest)

    monkeypatch.setattr("device_sdk.store.files.os.open", refuse)
    with pytest.raises(StoreError) as caught:
        StoreLock(f"{tmp_path}/x.db").acquire()
    assert str(caught.value) == (
        f"{tmp_path}/x.db.lock: Permission denied; let this user write in the folder {tmp_path}, "
        "or name a file in another one"
    )


def test_a_folder_or_a_pipe_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(StoreError, match="not a regular file"):
            store_at(tmp_path / name).open()


# One client at a time


def test_another_process_is_told_who_has_it_open(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    store = store_at(path)
    store.open()
    program = (
        "import sys; from device_sdk.store.sqlite import SqliteStore\n"
        "try: SqliteStore(sys.argv[1]).open()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    other = [sys.executable, "-c", program, str(path)]
    told = subprocess.run(other, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True).stdout
    assert told.startswith("StoreError ")
    assert f"process {os.getpid()} has it open" in told
    store.close()
    assert not subprocess.run(other, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True).stdout


def test_who_looks_whether_it_is_open_does_not_disturb(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    assert not is_locked(str(path))
    lock = StoreLock(str(path))
    lock.acquire()
    assert is_locked(str(path))
    lock.release()
    assert not is_locked(str(path))


def test_a_forked_child_lets_go_and_the_parent_goes_on(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.open()
    rig.write(message(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: this process has threads
        pid = os.fork()
    if pid == 0:
        store = rig.store
        store.submit([message(2)], 2)
        refused = isinstance(store.failure, StoreError) and "fork" in str(store.failure)
        store.close()
        os._exit(0 if refused else 1)
    assert os.waitpid(pid, 0)[1] == 0
    rig.write(message(3))
    assert rig.on_disk() == [1, 3]
    assert is_locked(str(rig.path))
    rig.store.close()
    assert not is_locked(str(rig.path))


def test_a_program_that_ends_without_closing_loses_only_what_lingered(tmp_path: Path) -> None:
    program = (
        "import sys; from device_sdk.store.sqlite import SqliteStore\n"
        "store = SqliteStore(sys.argv[1]); store.open()\n"
        "for at in (1, 2): store.submit([('message', at, b'', b'', 2, b'', None)], at)\n"
        "store.expedite(2)\n"
        "while store.durable_through < 2: pass\n"
        "store.submit([('message', 3, b'', b'', 2, b'', None)], 3)\n"
    )
    path = tmp_path / "queue.db"
    subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, timeout=20, check=True)
    store = store_at(path)
    assert [each.sequence for each in store.open().messages][:2] == [1, 2]
    store.close()


# Versions


def test_the_first_schema_can_still_be_read(tmp_path: Path) -> None:
    restored(tmp_path / "queue.db", "version-1.sql")
    store = store_at(tmp_path / "queue.db")
    saved = store.open()
    assert [(each.sequence, each.packet_id, each.released) for each in saved.messages] == [
        (3, 3, False),
        (1, 1, True),
        (4, 0, False),
        (6, 0, False),
    ]
    assert (saved.waiting, saved.waiting_bytes, saved.latest) == (2, 18, {b"\0\x04last": (6, 10)})
    assert (saved.received, saved.last_packet_id, saved.next_sequence) == ({77}, 64, 7)
    assert saved.facts == {"client_id": "node-17"}
    assert saved.subscriptions == {"cmd/#": (1, False, True, 2)}
    store.close()


def test_the_second_schema_can_still_be_read_with_its_shelf(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    restored(path, "version-2.sql")
    store = store_at(path)
    saved = store.open()
    assert [(each.sequence, each.packet_id) for each in saved.messages] == [
        *((3, 3), (1, 1)),
        *((4, 0), (6, 0), (9, 0)),
    ]
    assert (saved.waiting, saved.shelved, saved.withheld, saved.next_sequence) == (3, 2, {65, 66}, 10)
    assert saved.facts == {"client_id": "node-17", "session": "node-17"}
    assert list(store.reports) == []
    store.close()
    with QueueReader(path) as reader:
        shelf = [(each.sequence, each.state, each.reason, each.payload) for each in reader.shelf()]
    assert shelf == [
        (7, "refused", "reason code 0x87", b"refused"),
        (8, "damaged", "by hand", b"damaged"),
    ]
    assert check(path) == []


def test_a_database_is_brought_up_to_date_step_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "queue.db"
    restored(path, "version-1.sql")
    monkeypatch.setattr(
        schema,
        "MIGRATIONS",
        [
            *MIGRATIONS,
            ("ALTER TABLE fact ADD COLUMN second INTEGER",),
            ("UPDATE fact SET second = 3", "ALTER TABLE fact RENAME COLUMN second TO third"),
        ],
    )
    connection = sqlite3.connect(path, isolation_level=None)
    schema.define(connection)
    schema.migrate(connection, 1)
    latest = len(MIGRATIONS) + 2
    assert schema.version_of(connection, str(path)) == latest
    assert connection.execute("SELECT name, third FROM fact").fetchall() == [("client_id", 3)]
    schema.migrate(connection, latest)
    connection.close()


def test_a_step_that_fails_leaves_the_version_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "queue.db"
    restored(path, "version-1.sql")
    monkeypatch.setattr(schema, "MIGRATIONS", [*MIGRATIONS, ("DELETE FROM fact", "nonsense")])
    connection = sqlite3.connect(path, isolation_level=None)
    schema.define(connection)
    with pytest.raises(sqlite3.OperationalError):
        schema.migrate(connection, 1)
    assert schema.version_of(connection, str(path)) == len(MIGRATIONS)
    assert connection.execute("SELECT count(*) FROM fact").fetchone() == (1,)
    connection.close()


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    restored(path, "version-1.sql")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"newer release \(schema 99"):
        store_at(path).open()
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*damaged*"))


def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        store_at(path).open()
    assert path.read_bytes() == before


def test_opening_does_not_look_at_every_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path)
    rig.open()
    rig.write(*(message(number, keep_last=number == 5) for number in range(1, 20_000)))
    rig.store.close()
    connect = sqlite3.connect
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 100

    def counting(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        connection.set_progress_handler(count, 100)
        return connection

    monkeypatch.setattr(sqlite3, "connect", counting)
    saved = rig.open()
    rig.store.close()
    assert (saved.waiting, saved.latest) == (19_999, {b"\0\1t": (5, 5)})
    assert 0 < steps < 20_000, f"{steps} steps of SQLite's machine"


# The reserve


def test_a_reserve_that_was_given_away_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    reserve = Reserve(str(path), 0)
    reserve.keep()
    file = Path(f"{path}.reserve")
    assert file.stat().st_size == RESERVE_BYTES
    reserve.release()
    assert not file.exists()
    reserve.keep()
    assert file.stat().st_size == RESERVE_BYTES


def test_messages_must_leave_room_for_a_reserve_that_was_given_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = Reserve(str(tmp_path / "queue.db"), 1000)
    monkeypatch.setattr(reserve, "free", lambda: 1000 + RESERVE_BYTES)
    assert reserve.shortage(1) is not None
    assert reserve.shortage(0) is None
    reserve.keep()
    assert reserve.shortage(RESERVE_BYTES) is None
    assert reserve.shortage(RESERVE_BYTES + 1) is not None
