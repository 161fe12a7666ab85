"""SqliteStore against the memory store, through restarts, kills and failing writes."""

from __future__ import annotations

import sqlite3
from collections import deque
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from device_sdk.store import sqlite
from device_sdk.store.base import SavedMessage, SavedSession
from device_sdk.store.database import Database
from device_sdk.store.memory import MemoryStore
from device_sdk.store.pending import Pending
from tests.store.contract import STEPS, History, saved_facts
from tests.store.sqlite_rig import Rig

Change = tuple[Any, ...]

STEP = st.tuples(st.sampled_from(STEPS), st.integers(0, 50))


class _FaultyDatabase(Database):
    """Fails as often as the test says."""

    faults: deque[int] = deque()

    def write(self, batch: Pending) -> None:
        if self.faults:
            error = sqlite3.OperationalError("injected")
            error.sqlite_errorcode = self.faults.popleft()
            raise error
        super().write(batch)


class StoreMachine(RuleBasedStateMachine):
    """The model is the list of changes; what a store should hold is what they make of a MemoryStore."""

    @initialize()
    def start(self) -> None:
        self.folder = TemporaryDirectory()
        self.patch = mock.patch.object(sqlite, "Database", _FaultyDatabase)
        self.patch.start()
        _FaultyDatabase.faults.clear()
        self.rig = Rig(Path(self.folder.name), linger=1000.0)
        self.rig.open()
        self.changes: list[Change] = []
        self.committed = 0  # of self.changes
        self.history = History()

    def teardown(self) -> None:
        if hasattr(self, "rig"):
            self.rig.store.close()
            self.patch.stop()
            self.folder.cleanup()

    def reference(self) -> MemoryStore:
        store = MemoryStore()
        store.submit(self.changes, len(self.changes))
        return store

    @rule(steps=st.lists(STEP, min_size=1, max_size=8))
    def submit(self, steps: list[tuple[str, int]]) -> None:
        changes = [change for step in steps for change in self.history.changes(*step)]
        self.rig.submit(*changes)
        self.changes += changes

    @rule()
    def write(self) -> None:
        self.rig.write()
        self.committed = len(self.changes)

    @rule(
        faults=st.lists(
            st.sampled_from([sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY]),
            min_size=1,
            max_size=7,
        ),
        meanwhile=st.lists(STEP, max_size=8),
    )
    def write_with_trouble(self, faults: list[int], meanwhile: list[tuple[str, int]]) -> None:
        store = self.rig.store
        _FaultyDatabase.faults.extend(faults)
        store.expedite(self.rig.number)
        self.rig.turn()
        self.submit(meanwhile)
        while store.failure is not None:
            self.rig.advance(60.0)
        _FaultyDatabase.faults.clear()
        self.write()
        assert store.failure is None

    @rule(after=st.integers(0, 20))
    def read_a_page(self, after: int) -> None:
        expected = self.reference()
        expected.request_page(after)
        page = expected.take_page()
        assert page is not None
        assert list(map(_facts, self.rig.page(after))) == list(map(_facts, page))

    @rule()
    def close_and_open(self) -> None:
        self.compare(self.rig.reopen())
        self.committed = len(self.changes)

    @precondition(lambda self: self.rig.lives < 5)
    @rule()
    def kill_and_open(self) -> None:
        saved = self.rig.kill()
        del self.changes[self.committed :]
        self.history.adopt(self.reference())
        self.compare(saved)

    def compare(self, saved: SavedSession) -> None:
        expected = self.reference().open()
        if self.rig.lives:  # a killed process may have used sequence numbers of which nothing was written
            assert saved.next_sequence > max((each.sequence for each in saved.messages), default=0)
            expected.next_sequence = saved.next_sequence
        assert saved_facts(saved) == saved_facts(expected)


def _facts(message: SavedMessage) -> tuple[Any, ...]:
    return tuple(getattr(message, name) for name in SavedMessage.__slots__)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
