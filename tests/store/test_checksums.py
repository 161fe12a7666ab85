"""What the disk gives back is what was written, or it is told and not sent."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from device_sdk.errors import StoreError
from device_sdk.store.database import Database
from device_sdk.store.inspect import QueueReader, check, purge, retry
from device_sdk.store.pending import Pending
from device_sdk.store.wal import examine
from tests.store.contract import message, shelved
from tests.store.sqlite_rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Generator[Rig]:
    rig = Rig(tmp_path)
    rig.open()
    yield rig
    rig.store.close()


def altered(rig: Rig, *statements: str) -> None:
    """Change the file as a disk does: without the checksums. The store is closed."""
    connection = sqlite3.connect(rig.path, isolation_level=None)
    for statement in statements:
        assert connection.execute(statement).rowcount > 0, statement
    connection.close()


def told(rig: Rig) -> list[str]:
    return [text for kind, text, _ in rig.store.reports if kind == "store_damaged"]


def on_shelf(rig: Rig) -> dict[int, str]:
    with QueueReader(rig.path) as reader:
        return {each.sequence: each.state for each in reader.shelf()}


# Messages


@pytest.mark.parametrize(
    "change",
    [
        "payload = x'34'",
        "payload = '3'",
        "payload = NULL",
        "topic = x'000175'",
        "properties = x'01'",
        "flags = flags | 1",
        "expires_at = expires_at + 1",
        "life = 7",
        "wall_expiry = NULL",
        "boot = 3",
        "written = 7",
        "written_bytes = 7",
        "checksum = checksum + 1",
        "checksum = NULL",
    ],
)
@pytest.mark.parametrize("sent", [False, True])
def test_a_message_that_was_altered_goes_to_the_shelf_and_the_others_are_sent(
    rig: Rig, change: str, sent: bool
) -> None:
    rig.write(*(message(number, b"%d" % number, expires_at=1e6) for number in range(1, 6)))
    rig.write(*([("sent", 3, 9)] if sent else []))
    rig.store.close()
    column, _, value = change.partition(" = ")
    not_null = value == "NULL" and column == "payload"
    altered(rig, f"UPDATE message SET {'payload = 17' if not_null else change} WHERE sequence = 3")
    saved = rig.open()
    assert [each.payload for each in saved.messages] == [b"1", b"2", b"4", b"5"]
    assert (saved.waiting, saved.shelved, saved.withheld) == (4, 1, {9} if sent else set())
    (text,) = told(rig)
    assert "not what was stored, and on the shelf instead of sent: message 3 (" in text
    assert on_shelf(rig) == {3: "damaged"}
    saved = rig.reopen()
    assert (saved.waiting, saved.shelved, saved.withheld, told(rig)) == (4, 1, {9} if sent else set(), [])
    rig.store.close()
    assert retry(rig.path) == 0
    assert on_shelf(rig) == {3: "damaged"}


def test_the_last_message_may_be_altered_although_it_has_the_totals(rig: Rig) -> None:
    rig.write(*(message(number, bytes(number)) for number in range(1, 6)))
    rig.store.close()
    altered(rig, "UPDATE message SET written = 1000000, written_bytes = 5 WHERE sequence > 3")
    saved = rig.open()
    assert (saved.waiting, saved.waiting_bytes, saved.shelved, saved.next_sequence) == (3, 4 * 3 + 6, 2, 6)
    rig.write(message(6))
    assert rig.reopen().waiting == 4


def test_damage_that_a_page_meets_is_told_and_the_page_goes_on(rig: Rig) -> None:
    rig.write(*(message(number) for number in range(1, 1001)))
    rig.store.close()
    altered(rig, "UPDATE message SET payload = x'00' WHERE sequence IN (700, 800)")
    rig.open()
    assert told(rig) == []
    assert [each.sequence for each in rig.page(698)] == [699, *range(701, 800), *range(801, 1001)]
    assert "message 700 ('t', 1 bytes), message 800 (" in told(rig)[0]
    assert on_shelf(rig) == {700: "damaged", 800: "damaged"}
    rig.store.reports.clear()
    rig.page(698)
    assert told(rig) == []


def test_a_report_names_a_few_messages_and_no_control_character(rig: Rig) -> None:
    rig.write(*(message(number, topic_field=b"\0\4\x1b[2J") for number in range(1, 9)))
    rig.store.close()
    altered(rig, "UPDATE message SET payload = x'00'")
    rig.open()
    (text,) = told(rig)
    assert text.isprintable()
    assert r"message 5 ('\x1b[2J', 1 bytes) and 3 more" in text
    assert len(on_shelf(rig)) == 8
    with QueueReader(rig.path) as reader:
        assert all(each.reason.isprintable() for each in reader.shelf())


def test_a_row_that_cannot_be_read_does_not_hide_those_behind_it(rig: Rig) -> None:
    rig.write(message(1), message(2, bytes(10_000)), message(3))
    rig.store.close()
    with rig.path.open("r+b") as file:  # the first overflow page goes on at a page that is not there
        data = file.read()
        page = next(at for at in range(2048, len(data), 2048) if not any(data[at + 4 : at + 2048]))
        file.seek(page)
        file.write(b"\x7f\0\0\0")
    saved = rig.open()
    assert [each.sequence for each in saved.messages] == [1, 3]
    assert "message 2 (cannot be read: " in told(rig)[0]
    assert rig.store.notice is None
    assert on_shelf(rig) == {2: "damaged"}
    rig.write(("done", 1, "acknowledged"), message(4))
    assert [each.sequence for each in rig.reopen().messages] == [3, 4]


def test_a_message_in_flight_that_is_gone_has_a_packet_identifier_still(rig: Rig) -> None:
    rig.write(message(1), message(2), ("sent", 1, 9))
    rig.store.close()
    altered(rig, "DELETE FROM message WHERE sequence = 1")
    saved = rig.open()
    assert (saved.withheld, saved.waiting, [each.sequence for each in saved.messages]) == ({9}, 1, [2])
    assert "message 1 (is gone)" in told(rig)[0]
    saved = rig.reopen()
    assert (saved.withheld, saved.waiting, told(rig)) == ({9}, 1, [])


def test_damage_among_those_that_wait_is_told_beside_damage_in_flight(rig: Rig) -> None:
    rig.write(*(message(number) for number in range(1, 6)), ("sent", 1, 9), ("received", 7))
    rig.store.close()
    altered(
        rig,
        "UPDATE message SET payload = x'00' WHERE sequence IN (1, 4)",
        "UPDATE received SET packet_id = 8",
    )
    assert [each.sequence for each in rig.open().messages] == [2, 3, 5]
    assert on_shelf(rig) == {1: "damaged", 4: "damaged"}
    assert len(told(rig)) == 3


def test_totals_are_right_where_a_message_is_gone_and_the_session_is_damaged(rig: Rig) -> None:
    rig.write(message(1, bytes(9)), message(2), message(3), ("sent", 1, 9), ("sent", 2, 10))
    rig.store.close()
    altered(rig, "DELETE FROM message WHERE sequence = 1", "UPDATE session SET removed = 7")
    saved = rig.open()
    assert (saved.waiting, saved.waiting_bytes, len(saved.messages), saved.withheld) == (1, 5, 2, {9})
    rig.store.close()
    assert check(rig.path) == []


def test_messages_of_an_older_schema_are_not_checked_and_new_ones_are(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    connection = sqlite3.connect(rig.path)
    connection.executescript((Path(__file__).parent / "databases" / "version-1.sql").read_text())
    connection.close()
    assert [each.sequence for each in rig.open().messages] == [3, 1, 4, 6]
    rig.write(message(7))
    rig.store.close()
    altered(rig, "UPDATE message SET checksum = NULL")
    assert [each.sequence for each in rig.open().messages] == [3, 1, 4, 6]
    assert on_shelf(rig) == {7: "damaged"}
    rig.store.close()


# Messages that an earlier damage has taken, and that are sent from memory


def lost_with_its_file(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages 1 to 3 are in the file that is set aside; message 4 is the first in the new one."""
    rig.write(message(1), message(2), message(3))
    real, faults = Database.write, [sqlite3.SQLITE_CORRUPT]

    def write(self: Database, batch: Pending) -> None:
        if faults:
            error = sqlite3.DatabaseError("injected")
            error.sqlite_errorcode = faults.pop()
            raise error
        real(self, batch)

    monkeypatch.setattr(Database, "write", write)
    rig.write(message(4))
    assert "set aside" in str(rig.store.notice)
    rig.write(("sent", 1, 7), ("sent", 2, 8), ("sent", 4, 9))


def test_a_message_of_a_lost_file_is_not_lost_again_by_being_sent(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost_with_its_file(rig, monkeypatch)
    saved = rig.reopen()
    assert ([each.sequence for each in saved.messages], saved.waiting) == ([4], 0)
    assert saved.withheld == {7, 8}  # the broker may have them, and nobody knows any more what they were
    assert told(rig) == []
    assert check(rig.path) == []


def test_an_answer_to_a_message_of_a_lost_file_frees_its_identifier(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost_with_its_file(rig, monkeypatch)
    rig.write(("released", 2), ("done", 1, "acknowledged"), ("done", 2, "acknowledged"))
    saved = rig.reopen()
    assert (saved.withheld, [each.packet_id for each in saved.messages]) == (set(), [9])
    assert check(rig.path) == []


# The session

CHANGES = [
    message(1), message(2), message(3),
    ("sent", 1, 5), ("received", 7), ("withheld", 8), shelved(3),
    ("subscribed", "cmd/#", 1, False, False, 0), ("subscribed", "b", 1, False, False, 0),
    ("fact", "session", "node"), ("fact", "client_id", "node"), ("reserved", 64),
]  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "table", "anew"),
    [
        ("UPDATE in_flight SET packet_id = 6", "in_flight", True),
        ("UPDATE in_flight SET released = 1", "in_flight", True),
        ("UPDATE in_flight SET sequence = 2", "in_flight", True),
        ("UPDATE received SET packet_id = 6", "received", True),
        ("UPDATE withheld SET packet_id = 6", "withheld", True),
        ("UPDATE session SET last_packet_id = 1", "session", True),
        ("UPDATE session SET removed = 2", "session", True),
        ("UPDATE session SET next_sequence = 2", "session", True),
        (
            "UPDATE subscription SET topic_filter = 'cmd/+' WHERE topic_filter = 'cmd/#'",
            "subscription",
            False,
        ),
        ("UPDATE subscription SET qos = 2 WHERE topic_filter = 'cmd/#'", "subscription", False),
        ("UPDATE fact SET value = 'edon' WHERE name = 'client_id'", "fact", False),
        ("UPDATE shelf SET sequence = 2", "shelf", False),
    ],
)
def test_a_row_of_the_session_that_was_altered_is_left_out_and_told(
    rig: Rig, statement: str, table: str, anew: bool
) -> None:
    rig.write(*CHANGES)
    rig.store.close()
    altered(rig, statement)
    saved = rig.open()
    (text,) = told(rig)
    assert f"parts of the session are not what was stored, and are left out: {table}" in text
    assert ("begins anew" in text) is anew
    assert saved.facts == ({} if anew else {"session": "node"}) | (
        {} if table == "fact" else {"client_id": "node"}
    )
    assert saved.received == (set() if table == "received" else {7})
    assert saved.withheld == (set() if table == "withheld" else {8})
    assert list(saved.subscriptions) == (["b"] if table == "subscription" else ["b", "cmd/#"])
    assert saved.shelved == (table != "shelf")
    assert {each.sequence: each.packet_id for each in rig.page()} | {
        each.sequence: each.packet_id for each in saved.messages
    } == ({1: 0, 2: 0} if table == "in_flight" else {1: 5, 2: 0}) | ({3: 0} if table == "shelf" else {})
    assert saved.waiting == len(rig.page())
    assert saved.next_sequence == 4
    rig.reopen()
    assert told(rig) == []
    rig.store.close()
    assert check(rig.path) == []


def test_check_lists_what_was_altered(rig: Rig) -> None:
    rig.write(*CHANGES)
    rig.store.close()
    altered(
        rig,
        "UPDATE message SET payload = x'00' WHERE sequence = 2",
        "UPDATE fact SET value = 'x'",
        "UPDATE session SET last_packet_id = 1",
    )
    assert check(rig.path) == [
        "the row of the table session is not what was stored",
        "rows of the table fact are not what was stored",
        "not what was stored: message 2 ('t', 1 bytes)",
    ]
    with pytest.raises(StoreError, match="it is damaged; a client that opens it"):
        purge(rig.path)


# The log


def logged(rig: Rig, *, commits: int) -> bytearray:
    """Return a log with so many commits, each of one message."""
    rig.reopen()
    for number in range(1, commits + 1):
        rig.write(message(number, b"%d" % number * 100))
    return bytearray(Path(f"{rig.path}-wal").read_bytes())


def reopened(rig: Rig, log: bytes | bytearray) -> list[int]:
    """Open what a kill leaves, with this log; return the waiting messages."""
    rig.turn()
    database = rig.path.read_bytes()
    rig.store.close()
    rig.path.write_bytes(database)
    Path(f"{rig.path}-wal").write_bytes(log)
    return [each.sequence for each in rig.open().messages]


FRAME = 24 + 2048


def frames(log: bytes | bytearray) -> int:
    return (len(log) - 32) // FRAME


@pytest.mark.parametrize("place", [0, 4, 8, 12, 16, 24, 2000])
def test_what_sqlite_drops_behind_a_bad_frame_is_told_and_kept(rig: Rig, place: int) -> None:
    log = logged(rig, commits=6)
    log[32 + 2 * FRAME + place] ^= 1
    found = reopened(rig, log)
    assert found == list(range(1, len(found) + 1))
    assert len(found) < 5
    (text,) = told(rig)
    assert f"left out, {frames(log) - 2} pages in " in text
    assert "messages that counted as stored may be lost" in text
    assert "begins anew" in text
    kept = Path(f"{rig.path}.damaged-log-1")
    assert str(kept) in text
    assert kept.read_bytes() == log
    assert kept.stat().st_mode & 0o777 == 0o600
    rig.reopen()
    assert told(rig) == []


def test_the_last_two_logs_are_kept(rig: Rig) -> None:
    logs = []
    for _ in range(3):
        log = logged(rig, commits=3)
        log[32 + 30] ^= 1
        logs.append(bytes(log))
        reopened(rig, log)
        (text,) = told(rig)
        rig.write(*(("done", number, "acknowledged") for number in range(1, 4)))
    kept = [Path(f"{rig.path}.damaged-log-{number}").read_bytes() for number in (1, 2)]
    assert kept == logs[1:]
    assert text.count("damaged-log-2")


def test_a_damaged_header_of_the_log_is_told(rig: Rig) -> None:
    log = logged(rig, commits=3)
    log[17] ^= 4
    assert reopened(rig, log) == []
    assert f"left out, {frames(log)} pages in " in told(rig)[0]


def test_one_commit_at_the_end_may_have_been_torn_by_a_power_cut(rig: Rig) -> None:
    log = logged(rig, commits=3)
    log[-1] ^= 1
    found = reopened(rig, log)
    assert found == [1, 2]
    (text,) = told(rig)
    assert "in 1 commits: if a power cut has torn it, nothing is missing" in text
    assert "begins anew" not in text


def test_looking_at_the_log_ends_no_lock_of_sqlite(rig: Rig) -> None:
    log = logged(rig, commits=3)
    reopened(rig, log)
    program = (
        "import fcntl, sys\n"
        "with open(sys.argv[1], 'r+b') as file:\n"
        "    try: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 128)\n"
        "    except BlockingIOError: sys.exit(7)\n"
    )  # https://www.sqlite.org/src/file/src/os_unix.c, UNIX_SHM_DMS: who gets it empties the index
    run = subprocess.run([sys.executable, "-c", program, f"{rig.path}-shm"], timeout=30, check=False)
    assert run.returncode == 7


def test_a_log_whose_header_is_zeros_is_of_nobody(rig: Rig) -> None:
    log = logged(rig, commits=3)
    reopened(rig, bytes(len(log)))
    assert told(rig) == []


@pytest.mark.parametrize("cut", [1, 24, 2048, FRAME, FRAME + 1])
def test_what_was_never_committed_is_no_loss(rig: Rig, cut: int) -> None:
    log = logged(rig, commits=3)
    assert reopened(rig, log[:-cut]) in ([1, 2], [1])
    assert told(rig) == []


def test_an_older_log_behind_the_present_one_is_none_of_ours(rig: Rig) -> None:
    rig.reopen()
    for number in range(1, 40):
        rig.write(message(number, bytes(40_000)))  # several times around the log
    log = Path(f"{rig.path}-wal").read_bytes()
    assert len(reopened(rig, log)) > 0
    assert told(rig) == []


def test_a_log_for_which_there_is_no_room_is_told_all_the_same(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = logged(rig, commits=3)
    log[32 + 30] ^= 1
    monkeypatch.setattr("device_sdk.store.files.Reserve.shortage", lambda *_: "the disk is full")
    reopened(rig, log)
    assert "it could not be kept: the disk is full" in told(rig)[0]
    assert not list(rig.folder.glob("*damaged*"))


@pytest.mark.parametrize("action", [purge, retry])
def test_who_changes_the_file_does_not_drop_the_end_of_a_log(rig: Rig, action: Callable[[Path], int]) -> None:
    log = logged(rig, commits=3)
    log[32 + 30] ^= 1
    rig.turn()
    database = rig.path.read_bytes()
    rig.store.close()
    rig.path.write_bytes(database)
    Path(f"{rig.path}-wal").write_bytes(log)
    assert "the end of the write-ahead log is damaged" in check(rig.path)[0]
    with pytest.raises(StoreError, match="it is damaged; a client that opens it"):
        action(rig.path)


def test_a_log_in_use_is_whole(rig: Rig) -> None:
    logged(rig, commits=5)
    assert examine(str(rig.path)) is None
    assert check(rig.path) == []
