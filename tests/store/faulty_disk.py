"""One short run of a SqliteStore for each system call of a kind that fails. Run under ``strace``.

``python -m tests.store.faulty_disk FOLDER CALL AT COUNT``: strace was told to let the AT-th CALL of each
thread fail. For N = 1 ... COUNT a child process makes AT - N such calls itself, in the store's thread, so
that the N-th call of the store is the one that fails. Ends with 0 if every child kept a store's promises.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from device_sdk.errors import StoreError
from device_sdk.store import sqlite
from device_sdk.store.base import StorePolicy
from device_sdk.store.database import Database
from device_sdk.store.inspect import check
from device_sdk.store.sqlite import SqliteStore
from tests.store.contract import message

DEADLINE_S = 10

#: What burns one system call, given a descriptor of a scratch file.
BURN: dict[str, Callable[[int], object]] = {
    "pwrite64": lambda fd: os.pwrite(fd, b"x", 0),
    "fdatasync": os.fdatasync,
    "fsync": os.fsync,
    "ftruncate": lambda fd: os.ftruncate(fd, 0),
    "unlink": lambda _: os.unlink("/proc/self/no such file"),
}


def opened(path: Path) -> SqliteStore:
    """Open a store; a disk that fails while it does may refuse once, and only with a StoreError."""
    store = SqliteStore(path, StorePolicy(min_free=0))
    try:
        store.open()
    except StoreError:
        store.open()
    return store


def write(store: SqliteStore, number: int, *changes: tuple[Any, ...]) -> int:
    """Hand over changes and wait until they are durable, through failures."""
    moved = threading.Event()
    store.on_progress = moved.set
    number += len(changes)
    store.submit(changes, number)
    store.expedite(number)
    while store.durable_through < number:
        assert moved.wait(DEADLINE_S), f"durable through {store.durable_through} of {number}"
        moved.clear()
    return number


def run(path: Path) -> None:
    """Write, delete, close and open again; nothing may be missing or too much."""
    store = opened(path)
    number = 0
    added = [message(at) for at in range(1, 11)]
    number = write(store, number, *added, ("sent", 1, 1), ("fact", "name", "value"))
    number = write(store, number, message(11), ("done", 1, "acknowledged"), ("done", 6, "dropped"))
    assert store.notice is None
    store.close()
    again = SqliteStore(path, StorePolicy(min_free=0))
    saved = again.open()
    again.close()
    expected = [2, 3, 4, 5, 7, 8, 9, 10, 11]
    assert [each.sequence for each in saved.messages] == expected, "messages"
    assert (saved.waiting, saved.facts) == (len(expected), {"name": "value"}), "session"
    assert check(path) == [], "the file is damaged"


def child(folder: Path, call: str, burn: int) -> None:
    """Let the store's thread use up calls before it opens the file, then run."""
    real_open = Database.open

    def burnt_open(self: Database) -> Any:
        nonlocal burn
        fd = os.open(folder / "scratch", os.O_RDWR | os.O_CREAT)
        for _ in range(burn):
            with suppress(OSError):  # the lock file was written before: the failing call may be one of these
                BURN[call](fd)
        burn = 0
        os.close(fd)
        return real_open(self)

    Database.open = burnt_open  # type: ignore[method-assign]
    sqlite.RETRY_S = (0.01, 0.02)
    run(folder / "queue.db")


def main(folder: str, call: str, at: str, count: str) -> int:
    """Fork a child for each N; return how many failed."""
    failed = 0
    for number in range(1, int(count) + 1):
        place = Path(folder) / f"{call} {number}"
        place.mkdir()
        pid = os.fork()
        if pid == 0:
            signal.alarm(DEADLINE_S * 3)
            try:
                child(place, call, int(at) - number)
            except BaseException as error:
                sys.stderr.write(f"{call} {number}: {error!r}\n")
                os._exit(1)
            os._exit(0)
        failed += os.waitpid(pid, 0)[1] != 0
    return min(failed, 100)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
