"""SqliteStore keeps the contract of every store in each durability."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from device_sdk.store.base import Store, StorePolicy
from device_sdk.store.sqlite import SqliteStore
from tests.store.contract import StoreContract


class SqliteContract(StoreContract):
    durability = ""

    @pytest.fixture(autouse=True)
    def folder(self) -> Generator[None]:
        with TemporaryDirectory() as folder:
            self.directory = Path(folder)
            self.made = 0
            yield

    def new_store(self) -> Store:
        self.made += 1
        return self.store(self.directory / f"{self.made}.db")

    def new_store_with(self, policy: StorePolicy) -> Store:
        self.made += 1
        policy.durability = self.durability
        return SqliteStore(self.directory / f"{self.made}.db", policy)

    def reopened(self, store: Store) -> Store:
        assert isinstance(store, SqliteStore)
        return self.store(store.path)

    def store(self, path: Path | str) -> SqliteStore:
        return SqliteStore(path, StorePolicy(durability=self.durability, min_free=0))


class TestBatch(SqliteContract):
    durability = "batch"


class TestSync(SqliteContract):
    durability = "sync"


class TestOs(SqliteContract):
    durability = "os"
