"""A node that cannot open the file of its queue at the start samples into memory, and takes it later."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_sdk._clock import boottime
from device_sdk.errors import StoreError, StoreUnavailableError
from device_sdk.node import uplink
from device_sdk.store.base import SavedSession, Store
from device_sdk.store.inspect import QueueReader
from device_sdk.store.memory import MemoryStore
from device_sdk.testing import BrokerServer, ModelBroker
from tests.node.test_service import samples, server, service, status, told
from tests.steps import eventually, steps
from tests.store.disks import HangingDisk, hanging

__all__ = ["server", "steps"]  # fixtures

Server = BrokerServer[ModelBroker]

NOBODY = "mqtt://127.0.0.1:1"


class LateStore(MemoryStore):
    """A store that cannot be opened until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.error: StoreError | None = StoreUnavailableError("queue.db: the disk did not answer")

    def open(self) -> SavedSession:
        if self.error is not None:
            raise self.error
        return super().open()


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> LateStore:
    store = LateStore()

    def make_store(_: object) -> Store:
        return store

    monkeypatch.setattr(uplink, "make_store", make_store)
    monkeypatch.setattr(uplink, "RETRY_S", 0.05)
    return store


def numbers(server: Server, name: str) -> list[int]:
    return [sample["seq"] for sample in samples(server, name)]


def test_a_node_samples_into_memory_and_takes_its_file_back(
    server: Server, late: LateStore, caplog: pytest.LogCaptureFixture
) -> None:
    opened = told(caplog, "it is open now")
    node = service(server.url, "climate")
    with node:
        server.wait_for(lambda: len(samples(server, "climate")) >= 3)
        first = node.client
        late.error = None
        assert opened.wait(10)
        assert node.client is not first
        count = len(samples(server, "climate"))
        server.wait_for(lambda: len(samples(server, "climate")) >= count + 3)
        server.wait_for(lambda: status(server, "n1/status") == b"online")
    got = numbers(server, "climate")
    assert sorted(set(got)) == list(range(max(got) + 1))  # none is lost, some may come twice
    assert status(server, "n1/status") == b"offline"
    assert late.kept == 0
    assert "samples are kept in memory, and the file is tried again" in caplog.text


def test_what_waited_in_memory_is_in_the_file_then_and_in_its_order(
    late: LateStore, caplog: pytest.LogCaptureFixture
) -> None:
    opened = told(caplog, "it is open now")
    node = service(NOBODY, "climate")
    node.start()
    for _ in range(3):
        node._uplink.publish("t", b"more", qos=2, retain=True)
    late.error = None
    assert opened.wait(10)
    assert node.stop(drain=0) == 0
    messages = late.open().messages
    mine = [each for each in messages if each.topic_field == b"\0\1t"]
    assert [(each.payload, each.flags & 0x0F) for each in mine] == [(b"more", 5)] * 3
    seqs = [json.loads(each.payload)["seq"] for each in messages if each.topic_field == b"\0\nn1/climate"]
    assert seqs == sorted(seqs)
    assert seqs[0] == 0


def test_a_stop_before_the_file_is_back_counts_what_is_lost(late: LateStore) -> None:
    node = service(NOBODY, "climate")
    node.start()
    for _ in range(100):
        node._uplink.publish("t", b"x", qos=1, retain=False)
    assert node.stop(drain=0) >= 100


def test_a_file_that_is_another_programs_still_is_an_error_at_the_start(late: LateStore) -> None:
    late.error = StoreError("queue.db: this is the SQLite database of another program")
    with pytest.raises(StoreError, match="another program"):
        service(NOBODY, "climate")


def test_one_that_turns_out_to_be_so_later_is_told_and_looked_at_again(
    late: LateStore, caplog: pytest.LogCaptureFixture
) -> None:
    opened, wrong = told(caplog, "it is open now"), told(caplog, "another program; samples are still kept")
    with service(NOBODY, "climate") as node:
        late.error = StoreError("queue.db: this is the SQLite database of another program")
        assert wrong.wait(10)
        late.error = None
        assert opened.wait(10)
        assert node.healthy


def test_a_sample_that_nobody_wants_any_more_is_not_moved() -> None:
    store = MemoryStore()
    store.open()
    store.submit(
        [
            ("message", 1, b"\0\1t", b"old", 2, b"\0", boottime() - 1.0),
            ("message", 2, b"\0\1t", b"in flight", 2, b"\0", None),
            ("message", 3, b"\0\1t", b"waits", 2, b"\0", boottime() + 1000.0),
            ("sent", 2, 1),
        ],
        4,
    )
    store.close()
    assert [each.payload for each in uplink._messages(store)] == [b"in flight", b"waits"]
    assert store.kept == 3  # closed again


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[HangingDisk]:
    with hanging(tmp_path) as disk:
        yield disk


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_node_on_a_disk_that_hangs_starts_and_uses_the_disk_when_it_answers(
    slow: HangingDisk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(uplink, "RETRY_S", 0.05)
    caplog.set_level(logging.WARNING)
    opened = told(caplog, "it is open now")
    path = slow.where / "queue.db"
    slow.hang()
    more = f'[queue]\nfile = "{path}"\nopen_timeout = "500ms"\n'
    node = service(NOBODY, "climate", more=more)
    assert "did not answer within 0.5 s" in caplog.text
    node.start()
    slow.answer()
    assert opened.wait(30)
    eventually(lambda: node.client.stats.queued > 0)
    assert node.stop(drain=0) == 0
    with QueueReader(path) as reader:
        assert len(list(reader.export())) > 0
    assert threading.active_count() < 50
