"""The store double keeps the contract too, and loses exactly what was not durable."""

from __future__ import annotations

import pytest

from device_sdk.store.base import Store, StorePolicy
from device_sdk.store.memory import MemoryStore
from tests.store.contract import StoreContract, message
from tests.store.doubles import SlowStore


class _ExpeditedStore(SlowStore):
    def expedite(self, number: int) -> None:
        self.commit()


class TestSlowStore(StoreContract):
    def new_store(self) -> Store:
        return _ExpeditedStore()

    def new_store_with(self, policy: StorePolicy) -> Store:
        return _ExpeditedStore(MemoryStore(policy))

    def reopened(self, store: Store) -> Store:
        assert isinstance(store, SlowStore)
        return _ExpeditedStore(store.durable)


@pytest.mark.parametrize("durable", [0, 1, 2, 3])
def test_a_power_cut_keeps_the_durable_changes_and_no_others(durable: int) -> None:
    store = SlowStore()
    store.open()
    store.submit([message(1), message(2)], 2)
    store.submit([("done", 1, "acknowledged")], 3)
    assert store.durable_through == 0
    store.commit(durable)
    assert store.durable_through == durable
    saved = store.cut_power().open()
    assert [each.sequence for each in saved.messages] == [[], [1], [1, 2], [2]][durable]
