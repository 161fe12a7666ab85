"""A SqliteStore under the test's control: its clocks stand still, and it can be killed."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from device_sdk._clock import EARLIEST
from device_sdk.store.base import SavedMessage, SavedSession, StorePolicy
from device_sdk.store.clock import ExpiryClock
from device_sdk.store.inspect import QueueReader
from device_sdk.store.sqlite import SqliteStore
from device_sdk.testing.clock import ManualClock

__all__ = ["DEADLINE_S", "Rig"]

Change = tuple[Any, ...]

DEADLINE_S = 10.0


class Rig:
    """One store file and the clients that open it one after another.

    ``clock`` is the monotonic clock, ``wall`` the wall clock; both move only when told to.
    """

    def __init__(self, folder: Path, **policy: Any) -> None:
        self.folder = folder
        self.policy = StorePolicy(**{"min_free": 0, **policy})
        self.clock = ManualClock()
        self.wall = ManualClock(EARLIEST + 1_000_000)
        self.boot = "first boot"
        self.path = folder / "queue.db"
        self.lives = 0
        self.store = self._new_store()
        self.number = 0
        self._moved = threading.Event()

    def _new_store(self) -> SqliteStore:
        clock = ExpiryClock(self.clock, self.wall, self.boot)
        return SqliteStore(self.path, self.policy, monotonic=self.clock, clock=clock)

    def open(self) -> SavedSession:
        """Open the file, with a new store, as a new process does."""
        self.store = self._new_store()
        self.number = 0
        saved = self.store.open()
        self.store.on_progress = self._moved.set
        return saved

    def reopen(self) -> SavedSession:
        """Close and open again."""
        self.store.close()
        return self.open()

    def kill(self) -> SavedSession:
        """Open what a process that dies now would leave behind."""
        self.turn()
        self.lives += 1
        folder = self.folder / f"life {self.lives}"
        folder.mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(f"{self.path}{suffix}", folder / f"queue.db{suffix}")
        self.store.close()
        self.path = folder / "queue.db"
        return self.open()

    def submit(self, *changes: Change) -> int:
        """Hand over changes and return the number of the last one."""
        self.number += len(changes)
        self.store.submit(changes, self.number)
        return self.number

    def wait(self, condition: Callable[[], bool], problem: str) -> None:
        """Wait until the store's thread has made something true."""
        while not condition():
            assert self._moved.wait(DEADLINE_S), problem
            self._moved.clear()

    def write(self, *changes: Change) -> None:
        """Hand over changes and wait until they are durable."""
        number = self.submit(*changes)
        self.store.expedite(number)
        self.wait(lambda: self.store.durable_through >= number, "not durable in time")

    def page(self, after: int = 0) -> list[SavedMessage]:
        """Ask for a page and wait for it."""
        self.store.request_page(after)
        found: list[list[SavedMessage]] = []

        def came() -> bool:
            page = self.store.take_page()
            if page is not None:
                found.append(page)
            return bool(found)

        self.wait(came, "no page came")
        return found[0]

    def turn(self) -> None:
        """Let the thread look at the clock once and do what is due."""
        self.page(1 << 62)

    def advance(self, seconds: float) -> None:
        """Let time pass, and the thread see it."""
        self.clock.advance(seconds)
        self.wall.advance(seconds)
        self.turn()

    def on_disk(self) -> Sequence[int]:
        """The sequence numbers that another process sees in the file now."""
        with QueueReader(self.path) as reader:
            return [message.sequence for message in reader.export()]

    def written_bytes(self) -> bytes:
        """Everything that lies in the file and its log."""
        log = Path(f"{self.path}-wal")
        return self.path.read_bytes() + (log.read_bytes() if log.exists() else b"")
