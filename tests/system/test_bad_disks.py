"""A disk that takes no writes, or hangs, and Mosquitto: what is stored is sent, and close() returns."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from device_sdk import Client, StorePolicy
from device_sdk.engine.events import ClientEvent
from device_sdk.store.inspect import QueueReader
from tests.steps import eventually
from tests.store.disks import hanging, read_only, small_ext4

if TYPE_CHECKING:
    from device_sdk.testing.broker_process import ChildBroker

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

NOWHERE = "mqtt://127.0.0.1:1"
SMALL = StorePolicy(min_free=0)


def test_stored_messages_are_sent_from_a_disk_that_takes_no_writes(
    mosquitto: ChildBroker, tmp_path: Path
) -> None:
    received: list[bytes] = []
    events: list[ClientEvent] = []
    with (
        small_ext4(tmp_path, 4096) as where,
        Client(mosquitto.url(), client_id="watcher") as watcher,
    ):
        watcher.subscribe("t", qos=2, on_message=lambda message: received.append(message.payload)).wait(5)
        path = where / "queue.db"
        with Client(NOWHERE, client_id="c", store=path, policy=SMALL) as client:
            for number in range(1000):
                delivery = client.publish("t", b"stored %d" % number, qos=1 + number % 2)
            delivery.wait_stored(10)
            client.close(drain=0)
        with read_only(where):
            client = Client(mosquitto.url(), client_id="c", store=path, policy=SMALL, on_event=events.append)
            assert client.stats.queued == 1000
            client.start()
            client.publish("t", b"new", qos=1).wait(20)
            eventually(lambda: len(received) == 1001)
            [told] = [event for event in events if event.kind == "store_failed"]
            assert "Read-only file system" in told.text
        eventually(lambda: any(event.kind == "store_recovered" for event in events), timeout=60)
        client.close()
        assert sorted(received) == sorted([b"new", *(b"stored %d" % number for number in range(1000))])
        with QueueReader(path) as reader:
            assert reader.stat()["messages"] == 0


def test_close_returns_in_the_time_that_it_promises_while_the_disk_hangs(
    mosquitto: ChildBroker, tmp_path: Path
) -> None:
    events: list[ClientEvent] = []
    with hanging(tmp_path) as disk:
        client = Client(mosquitto.url(), client_id="c", store=disk.where / "queue.db", on_event=events.append)
        client.connect(10)
        disk.hang()
        client.publish("t", b"reading", qos=2)
        begin = time.monotonic()
        client.close(drain=1)
        assert time.monotonic() - begin < 1 + 4
        disk.answer()
    assert client.state == "closed"
