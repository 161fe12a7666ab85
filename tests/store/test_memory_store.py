"""MemoryStore keeps the contract of every store, and is durable at once."""

from __future__ import annotations

from device_sdk.store.base import Store, StorePolicy
from device_sdk.store.memory import MemoryStore
from tests.store.contract import StoreContract, message


class TestMemoryStore(StoreContract):
    def new_store(self) -> Store:
        return MemoryStore()

    def new_store_with(self, policy: StorePolicy) -> Store:
        return MemoryStore(policy)

    def reopened(self, store: Store) -> Store:
        return store


def test_a_change_is_durable_when_submit_returns() -> None:
    store = MemoryStore()
    store.open()
    store.submit([message(1), message(2)], 2)
    assert store.durable_through == 2
