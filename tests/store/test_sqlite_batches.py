"""When SqliteStore writes, and what it never writes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from device_sdk.store.database import Database
from device_sdk.store.inspect import QueueReader
from device_sdk.store.pending import BATCH_BYTES, BATCH_MESSAGES, LAZY_CHANGES, LAZY_S, Pending
from tests.store.contract import message
from tests.store.sqlite_rig import DEADLINE_S, Rig

ROOT = Path(__file__).resolve().parent.parent.parent

LINGER_S = 0.1


@pytest.fixture
def rig(tmp_path: Path) -> Generator[Rig]:
    rig = Rig(tmp_path, linger=LINGER_S)
    rig.open()
    yield rig
    rig.store.close()


def test_a_message_is_written_when_it_has_lingered(rig: Rig) -> None:
    rig.submit(message(1))
    rig.advance(LINGER_S - 0.01)
    assert (rig.store.durable_through, rig.on_disk()) == (0, [])
    rig.advance(0.01)
    assert (rig.store.durable_through, rig.on_disk()) == (1, [1])


def test_the_oldest_unacknowledged_message_says_when(rig: Rig) -> None:
    rig.submit(message(1))
    rig.advance(LINGER_S - 0.01)
    rig.submit(message(2), ("done", 1, "acknowledged"))
    rig.advance(LINGER_S - 0.01)
    assert rig.on_disk() == []
    rig.advance(0.01)
    assert rig.on_disk() == [2]


def test_a_message_that_ends_in_time_is_never_written(rig: Rig) -> None:
    before = rig.written_bytes()
    for sequence in range(1, 300):
        rig.submit(message(sequence, b"never", qos=2), ("sent", sequence, sequence))
        assert rig.store.durable_through < rig.number
        rig.submit(("released", sequence), ("done", sequence, "acknowledged"))
        assert (rig.store.durable_through, rig.store.backlog_bytes) == (rig.number, 0)
    rig.advance(LAZY_S * 2)
    assert rig.written_bytes() == before


def test_the_thread_is_woken_only_when_it_would_be_late(rig: Rig, mocker: MockerFixture) -> None:
    rig.turn()
    notify = mocker.spy(rig.store._wake, "notify")
    for sequence in range(1, BATCH_MESSAGES):
        rig.submit(message(sequence), ("sent", sequence, sequence))
        rig.clock.advance(LINGER_S / BATCH_MESSAGES / 2)
    assert notify.call_count <= 1
    rig.submit(("done", 1, "acknowledged"))
    assert notify.call_count <= 1


def test_a_full_batch_does_not_linger(rig: Rig) -> None:
    rig.submit(*(message(number) for number in range(1, BATCH_MESSAGES)))
    rig.turn()
    assert rig.on_disk() == []
    rig.submit(message(BATCH_MESSAGES))
    rig.wait(lambda: rig.store.durable_through == BATCH_MESSAGES, "the batch was full")


def test_a_large_batch_does_not_linger(rig: Rig) -> None:
    rig.submit(message(1, bytes(BATCH_BYTES)))
    rig.wait(lambda: rig.store.durable_through == 1, "the batch was large")


def test_who_waits_for_a_change_does_not_linger(rig: Rig) -> None:
    rig.submit(message(1), message(2))
    rig.store.expedite(1)
    rig.wait(lambda: rig.store.durable_through == 2, "somebody waits")
    assert rig.on_disk() == [1, 2]


def test_who_waits_for_what_is_durable_causes_no_write(rig: Rig) -> None:
    rig.write(message(1))
    rig.submit(message(2))
    before = rig.written_bytes()
    rig.store.expedite(1)
    rig.turn()
    assert rig.written_bytes() == before


def test_acknowledgements_of_written_messages_are_lazy(rig: Rig) -> None:
    rig.write(*(message(number) for number in range(1, 4)))
    rig.submit(("sent", 1, 1), ("done", 1, "acknowledged"))
    rig.advance(LAZY_S - 0.01)
    assert (rig.store.durable_through, rig.on_disk()) == (3, [1, 2, 3])
    rig.advance(0.01)
    assert (rig.store.durable_through, rig.on_disk()) == (5, [2, 3])


def test_lazy_changes_go_with_the_next_batch(rig: Rig) -> None:
    rig.write(message(1))
    rig.submit(("done", 1, "acknowledged"), ("fact", "name", "value"))
    rig.write(message(2))
    assert rig.on_disk() == [2]


def test_many_lazy_changes_are_written_at_once(rig: Rig) -> None:
    rig.write(*(message(number) for number in range(1, LAZY_CHANGES + 2)))
    rig.submit(*(("done", number, "acknowledged") for number in range(1, LAZY_CHANGES + 1)))
    rig.wait(lambda: rig.store.durable_through == rig.number, "enough is enough")
    assert rig.on_disk() == [LAZY_CHANGES + 1]


def test_a_number_is_durable_only_when_all_before_it_are(rig: Rig) -> None:
    rig.submit(message(1), message(2), message(3), ("done", 2, "dropped"), ("done", 3, "dropped"))
    assert rig.store.durable_through == 0
    rig.submit(("done", 1, "dropped"))
    assert rig.store.durable_through == 6


def test_the_backlog_is_what_is_not_durable(rig: Rig) -> None:
    rig.submit(message(1, b"12345"), message(2, b"123"))
    assert rig.store.backlog_bytes == 2 * 4 + 8
    rig.submit(("done", 1, "acknowledged"))
    assert rig.store.backlog_bytes == 4 + 3
    rig.advance(LINGER_S)
    assert rig.store.backlog_bytes == 0


def test_the_backlog_is_only_what_waits(rig: Rig) -> None:
    rig.submit(message(1), message(2), message(3), ("sent", 1, 7))
    assert (rig.store.backlog_messages(), rig.store.backlog_bytes) == (2, 2 * 4 + 2)
    assert [rig.store.first_unwritten(after) for after in range(4)] == [2, 2, 3, 0]
    rig.submit(("lost",))
    assert (rig.store.backlog_messages(), rig.store.first_unwritten(0)) == (3, 1)
    rig.write()
    assert (rig.store.backlog_messages(), rig.store.first_unwritten(0)) == (0, 0)


def test_what_leaves_the_queue_while_it_is_being_written_is_no_backlog(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = threading.Event(), threading.Event()
    write = Database.write

    def slow(database: Database, batch: Pending) -> None:
        begun.set()
        assert may_end.wait(DEADLINE_S)
        write(database, batch)

    monkeypatch.setattr(Database, "write", slow)
    rig.submit(message(1), message(2), message(3), message(4))
    rig.store.expedite(rig.number)
    assert begun.wait(DEADLINE_S)
    rig.submit(("done", 1, "dropped"), ("sent", 2, 7), message(5), ("done", 2, "acknowledged"))
    assert (rig.store.backlog_messages(), rig.store.backlog_bytes) == (3, 3 * 5)
    assert [rig.store.first_unwritten(after) for after in (0, 3, 4, 5)] == [3, 4, 5, 0]
    may_end.set()
    rig.write()
    assert rig.on_disk() == [3, 4, 5]
    assert (rig.store.backlog_messages(), rig.store.backlog_bytes) == (0, 0)


@pytest.mark.parametrize("durability", ["sync", "batch", "os"])
def test_only_sync_writes_without_being_asked(tmp_path: Path, durability: str) -> None:
    rig = Rig(tmp_path, durability=durability)
    rig.open()
    rig.submit(message(1))
    if durability == "sync":
        rig.wait(lambda: rig.store.durable_through == 1, "sync does not linger")
    rig.turn()
    assert rig.on_disk() == ([1] if durability == "sync" else [])
    rig.store.close()


def test_a_killed_process_leaves_what_was_durable(rig: Rig) -> None:
    rig.write(message(1), ("sent", 1, 7), ("reserved", 64))
    rig.submit(message(2), ("done", 1, "acknowledged"))
    saved = rig.kill()
    assert [(each.sequence, each.packet_id) for each in saved.messages] == [(1, 7)]
    assert (saved.next_sequence, saved.last_packet_id, saved.waiting) == (2, 64, 0)


def test_a_closed_process_leaves_everything(rig: Rig) -> None:
    rig.submit(message(1), message(2), ("done", 1, "acknowledged"))
    saved = rig.reopen()
    assert ([each.sequence for each in saved.messages], saved.next_sequence) == ([2], 3)


@pytest.mark.parametrize("end", ["reopen", "kill"])
def test_the_counters_add_up_across_restarts(rig: Rig, end: str) -> None:
    for life in range(3):
        first = 10 * life + 1
        rig.write(*(message(first + at) for at in range(6)))
        rig.write(("done", first, "acknowledged"), ("done", first + 1, "expired"), ("done", first + 2, "odd"))
        rig.submit(message(first + 6), ("done", first + 6, "acknowledged"))
        rig.turn()
        getattr(rig, end)()
    with QueueReader(rig.path) as reader:
        stat = reader.stat()
        assert reader.check() == []
    ended = sum(stat[name] for name in ("acknowledged", "refused", "expired", "dropped"))
    assert stat["accepted"] == stat["messages"] + ended
    assert (stat["messages"], stat["expired"], stat["dropped"]) == (9, 3, 3)
    assert stat["acknowledged"] == (6 if end == "reopen" else 3)


def test_what_a_program_says_at_each_start_is_written_once(rig: Rig) -> None:
    start = [
        ("fact", "client_id", "node"),
        ("subscribed", "cmd/#", 1, False, False, 0),
        ("unsubscribed", "old"),
    ]
    rig.write(*start)
    rig.reopen()
    before = rig.written_bytes()
    rig.write(*start)
    assert rig.written_bytes() == before
    rig.write(("subscribed", "cmd/#", 2, False, False, 0), ("fact", "client_id", "other"))
    saved = rig.reopen()
    assert (saved.facts, saved.subscriptions) == ({"client_id": "other"}, {"cmd/#": (2, False, False, 0)})


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize(("durability", "flushes"), [("sync", True), ("batch", True), ("os", False)])
def test_what_is_stored_is_flushed_unless_the_policy_is_os(
    tmp_path: Path, durability: str, flushes: bool
) -> None:
    program = (
        "import sys, os; from device_sdk.store.sqlite import SqliteStore\n"
        "from device_sdk.store.base import StorePolicy\n"
        "store = SqliteStore(sys.argv[1], StorePolicy(durability=sys.argv[2], min_free=0)); store.open()\n"
        "os.write(2, b'begin')\n"
        "store.submit([('message', 1, b'', b'', 2, b'', None)], 1); store.expedite(1)\n"
        "while store.durable_through < 1: pass\n"
        "os.write(2, b'stored')\n"
        "store.close()\n"
    )
    log = tmp_path / "log"
    run = subprocess.run(
        [
            *("strace", "-f", "-qq", "-o", str(log), "-e", "trace=fsync,fdatasync,write"),
            *(sys.executable, "-c", program, str(tmp_path / "queue.db"), durability),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if "ptrace" in run.stderr:
        pytest.skip("needs ptrace")
    assert run.returncode == 0, run.stderr
    calls = log.read_text()
    until_stored = calls[calls.index("begin") : calls.index("stored")]
    assert ("fdatasync" in until_stored) == flushes
    # Before that the lock is, once in the life of a file: it vouches for what a power cut may leave of it.
    assert ("sync(" in calls[calls.index("begin") :]) == flushes
