"""A client with a store in a file: what survives a restart, and what the application sees of it."""

from __future__ import annotations

import os
import queue
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from device_sdk import Client
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.engine.events import ClientEvent
from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.errors import ClosedError, DeliveryExpiredError, QueueFullError, StoreError
from device_sdk.mqtt.packets import Connack, Puback, Pubcomp, Pubrec
from device_sdk.store import sqlite
from device_sdk.store.base import StorePolicy
from device_sdk.store.database import Database
from device_sdk.store.inspect import QueueReader
from device_sdk.store.pending import Pending
from device_sdk.store.sqlite import SqliteStore
from device_sdk.testing import BrokerServer, ModelBroker, ScriptedBroker
from device_sdk.testing.scripted_broker import expect, ignore, send, stall
from tests.client.test_fork_and_exit import in_child
from tests.steps import eventually

Server = BrokerServer[ModelBroker]

FAST = ReconnectPolicy(first=0.02, longest=0.05)
NOWHERE = "mqtt://127.0.0.1:1"  # a port on which nobody listens


class CountingDatabase(Database):
    """Counts what is written."""

    commits = 0
    rows = 0

    def write(self, batch: Pending) -> None:
        rows = len(batch.new)
        super().write(batch)
        CountingDatabase.commits += 1
        CountingDatabase.rows += rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[CountingDatabase]:
    monkeypatch.setattr(sqlite, "Database", CountingDatabase)
    CountingDatabase.commits = CountingDatabase.rows = 0
    return CountingDatabase


@pytest.fixture
def offline() -> Iterator[Any]:
    """Make clients that are closed in the end, whatever happens."""
    made: list[Client] = []

    def make(path: Path, **options: Any) -> Client:
        made.append(Client(NOWHERE, client_id="c", store=path, **options))
        return made[-1]

    yield make
    for client in made:
        client.close(0)


def payloads(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last)]


def on_disk(path: Path) -> list[bytes]:
    """The payloads that another process sees in the file."""
    with QueueReader(path) as reader:
        return [message.payload for message in reader.export()]


def arrived(server: Server, count: int, topic: str = "t") -> list[bytes]:
    """Wait for so many messages and return all of them."""
    server.wait_for(lambda: len(server.broker.payloads(topic)) >= count, timeout=20)
    return server.call(lambda: server.broker.payloads(topic))


def all_sent(client: Client) -> bool:
    """Whether nothing waits for the network or the store."""
    connection = client._engine.outgoing.online
    return connection is not None and not connection.has_output


def killed(path: Path) -> Path:
    """Return the path of what a process that dies now leaves behind."""
    copy = path.with_name("killed.db")
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    return copy


# Restart


def first_life() -> list[Any]:
    """A connection on which one QoS 1 and two QoS 2 messages stay unfinished, the first of them released."""
    return [
        expect("connect", client_id="c", clean_start=False),
        send(Connack()),
        expect("publish", payload=b"two", qos=2, packet_id=lambda number: number == 1),
        send(Pubrec(1)),
        expect("pubrel", packet_id=1),
        expect("publish", payload=b"one", qos=1),
        expect("publish", payload=b"three", qos=2),
        ignore(),
    ]


def live_once(url: str, path: Path, **options: Any) -> list[Delivery]:
    """Publish what :func:`first_life` expects, and stop."""
    with Client(url, client_id="c", store=path, **options) as client:
        client.connect(5)
        deliveries = [client.publish("t", b"two", qos=2)]
        eventually(lambda: client._engine.session.released)
        eventually(lambda: all_sent(client))
        deliveries.append(client.publish("t", b"one", qos=1))
        deliveries.append(client.publish("t", b"three", qos=2))
        eventually(lambda: client.stats.in_flight == 3 and all_sent(client))
        client.close(0)
    return deliveries


@pytest.fixture
def known_identifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new session begins with packet identifier 1."""
    monkeypatch.setattr("device_sdk.client_base.random_fraction", lambda: 0.0)


@pytest.mark.usefixtures("known_identifiers")
def test_a_restart_goes_on_with_every_exchange_if_the_session_is_there(path: Path) -> None:
    second_life = [
        expect("connect", client_id="c", clean_start=False),
        send(Connack(True)),
        expect("pubrel", packet_id=1),
        expect("publish", payload=b"one", qos=1, dup=True, packet_id=2),
        expect("publish", payload=b"three", qos=2, dup=True, packet_id=3),
        send(Puback(2), Pubrec(3), Pubcomp(1)),
        expect("pubrel", packet_id=3),
        send(Pubcomp(3)),
        ignore(),
    ]
    with BrokerServer(ScriptedBroker(first_life(), second_life)) as server:
        for delivery in live_once(server.url, path):
            with pytest.raises(ClosedError, match="the store keeps the message"):
                delivery.wait(0)
        with Client(server.url, client_id="c", store=path) as client:
            eventually(lambda: client.stats.acknowledged == 3)
            assert client.stats.in_flight == client.stats.queued == 0
        server.call(server.broker.check)
    assert on_disk(path) == []


@pytest.mark.usefixtures("known_identifiers")
def test_a_restart_publishes_as_new_if_the_session_is_gone(path: Path) -> None:
    second_life = [
        expect("connect", clean_start=False),
        send(Connack(False)),
        expect("publish", payload=b"one", dup=False),
        send(lambda seen: Puback(seen.packet_id)),
        expect("publish", payload=b"three", dup=False),
        send(lambda seen: Pubrec(seen.packet_id)),
        expect("pubrel"),
        send(lambda seen: Pubcomp(seen.packet_id)),
        ignore(),
    ]
    events: list[str] = []
    with BrokerServer(ScriptedBroker(first_life(), second_life)) as server:
        live_once(server.url, path)
        with Client(
            server.url, client_id="c", store=path, on_event=lambda event: events.append(event.kind)
        ) as client:
            eventually(lambda: client.stats.acknowledged == 3)
            eventually(lambda: "session_lost" in events)
        server.call(server.broker.check)
    assert on_disk(path) == []


@pytest.mark.usefixtures("known_identifiers")
def test_a_restart_can_end_the_messages_of_a_lost_session_instead(path: Path) -> None:
    second_life = [expect("connect"), send(Connack(False)), stall()]
    with BrokerServer(ScriptedBroker(first_life(), second_life)) as server:
        live_once(server.url, path)
        with Client(server.url, client_id="c", store=path, on_session_lost="fail") as client:
            client.connect(5)
            assert (client.stats.queued, client.stats.in_flight) == (0, 0)
        server.call(server.broker.check)
    assert on_disk(path) == []


def test_a_killed_process_leaves_what_was_stored(server: Server, path: Path, offline: Any) -> None:
    client = offline(path)
    for payload in payloads(0, 50):
        delivery = client.publish("t", payload, qos=2)
    delivery.wait_stored(5)
    copy = killed(path)
    with Client(server.url, client_id="c", store=copy) as again:
        again.connect(5)
        assert arrived(server, 50) == payloads(0, 50)


def test_the_client_identifier_that_was_made_up_is_kept_in_the_store(path: Path, tmp_path: Path) -> None:
    names = []
    for _ in range(2):
        client = Client(NOWHERE, store=path)
        names.append(client.client_id)
        client.close(0)
    other = Client(NOWHERE, store=tmp_path / "other.db")
    other.close(0)
    assert names[0] == names[1] != other.client_id


def test_a_second_client_on_the_same_file_is_told_so(path: Path) -> None:
    first = Client(NOWHERE, store=path)
    try:
        with pytest.raises(StoreError, match="open"):
            Client(NOWHERE, store=path)
    finally:
        first.close(0)
    Client(NOWHERE, store=path).close(0)


def test_subscriptions_are_asked_for_again_after_a_restart(server: Server, path: Path) -> None:
    with Client(server.url, client_id="c", store=path) as client:
        client.subscribe("a/#", qos=1).wait(5)
        client.subscribe("b", qos=1).wait(5)
        client.unsubscribe("b").wait(5)
    server.call(server.broker.forget_sessions, 0.0)
    received: list[bytes] = []
    with Client(
        server.url, client_id="c", store=path, on_message=lambda message: received.append(message.payload)
    ) as client:
        client.connect(5)
        server.wait_for(lambda: list(server.broker.sessions["c"].subscriptions) == ["a/#"])
        client.publish("b", b"not wanted", qos=1).wait(5)
        client.publish("a/1", b"wanted", qos=1).wait(5)
        eventually(lambda: received == [b"wanted"])


PROGRAM = """
import sys
from device_sdk import Client
client = Client("mqtt://127.0.0.1:1", store=sys.argv[1])
for number in range(10):
    client.publish("t", b"%d" % number, qos=1)
"""


def test_a_program_that_ends_without_a_connection_leaves_its_messages(path: Path) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM, str(path)], timeout=30, check=True)
    assert on_disk(path) == payloads(0, 10)


# What a delivery says


def test_a_delivery_goes_from_queued_to_acknowledged(path: Path) -> None:
    script = [
        expect("connect"),
        send(Connack()),
        expect("publish"),
        stall(0.2),
        send(lambda seen: Puback(seen.packet_id)),
        ignore(),
    ]
    with BrokerServer(ScriptedBroker(script)) as server:
        client = Client(server.url, client_id="c", store=path, policy=StorePolicy(linger=60))
        delivery = client.publish("t", b"x", qos=1)
        assert delivery.state == "queued"
        delivery.wait_stored(5)
        assert delivery.state == "stored"
        client.start()
        eventually(lambda: delivery.state == "sent")
        delivery.wait(5)
        assert delivery.state == "acknowledged"
        client.close()


def test_an_acknowledgement_is_as_good_as_being_stored(server: Server, path: Path) -> None:
    class NeverInAHurry(SqliteStore):
        def expedite(self, number: int) -> None:
            pass

    store = NeverInAHurry(path, StorePolicy(linger=60))
    with Client(server.url, client_id="c", store=store) as client:
        delivery = client.publish("t", b"x", qos=1)
        delivery.wait_stored(5)
        assert delivery.state == "acknowledged"


def _note_kind(kinds: queue.SimpleQueue[str], event: ClientEvent) -> None:
    kinds.put(event.kind)


def test_qos_0_is_kept_only_if_that_was_asked_for(server: Server, path: Path) -> None:
    for buffers in (False, True):
        kinds: queue.SimpleQueue[str] = queue.SimpleQueue()
        with Client(
            NOWHERE, client_id="c", store=path, buffer_qos0=buffers, reconnect=FAST,
            on_event=partial(_note_kind, kinds),
        ) as client:  # fmt: skip
            assert kinds.get(timeout=5) == "connect_failed"
            client.publish("t", b"asked" if buffers else b"not asked")
            client.close(0)
    with Client(server.url, client_id="c", store=path) as client:
        assert arrived(server, 1) == [b"asked"]


# A long queue


def test_ten_thousand_messages_leave_in_order_through_pages(server: Server, path: Path) -> None:
    with Client(NOWHERE, client_id="c", store=path) as client:
        for payload in payloads(0, 10_000):
            client.publish("t", payload, qos=1)
        client.close(0)
    with Client(server.url, client_id="c", store=path) as client:
        assert client.stats.queued == 10_000
        client.publish("t", b"10000", qos=1)
        client.close(drain=30)
        assert client.stats.acknowledged == 10_001
    assert arrived(server, 10_001) == payloads(0, 10_001)
    assert on_disk(path) == []


def test_a_short_drain_leaves_the_rest_in_the_store(path: Path) -> None:
    broker = ScriptedBroker([expect("connect"), send(Connack()), ignore()])
    with BrokerServer(broker) as server, Client(server.url, client_id="c", store=path) as client:
        client.connect(5)
        for payload in payloads(0, 2_000):
            client.publish("t", payload, qos=1)
        client.close(drain=0.1)
    assert on_disk(path) == payloads(0, 2_000)


def test_the_oldest_are_dropped_from_the_disk_as_well(server: Server, path: Path, offline: Any) -> None:
    client = offline(path, policy=StorePolicy(max_messages=1_500, overflow="drop_oldest"))
    for number in range(6_000):
        assert not client.publish("t", b"%d" % number, qos=1).done
        assert client.stats.queued <= 1_500
    assert client.stats.dropped == 6_000 - 1_500
    client.close(0)
    assert on_disk(path) == payloads(4_500, 6_000)


def test_the_bound_in_bytes_counts_what_is_on_disk(path: Path, offline: Any) -> None:
    client = offline(path)
    assert client._engine.outgoing.outbox.bounds.max_bytes == 64 * 1024 * 1024
    client.close(0)
    client = offline(path, policy=StorePolicy(max_bytes=2_000_000))
    with pytest.raises(QueueFullError, match="of 2000000 bytes"):
        for _ in range(300):
            client.publish("t", bytes(10_000), qos=1)
    assert client.stats.queued == 199
    client.close(0)
    client = offline(path, policy=StorePolicy(max_bytes=2_000_000))
    with pytest.raises(QueueFullError, match="of 2000000 bytes"):
        client.publish("t", bytes(10_000), qos=1)


def test_a_publisher_waits_for_room_in_a_queue_on_disk(server: Server, path: Path) -> None:
    policy = StorePolicy(max_messages=1_200, overflow="block", block_timeout=20)
    client = Client(server.url, client_id="c", store=path, policy=policy)
    done = threading.Event()

    def publish() -> None:
        for payload in payloads(0, 3_000):
            client.publish("t", payload, qos=1)
        done.set()

    publisher = threading.Thread(target=publish, daemon=True)
    publisher.start()
    eventually(lambda: client.stats.queued == 1_200)
    assert not done.is_set()
    client.start()
    assert done.wait(20)
    publisher.join(5)
    client.close(20)
    assert arrived(server, 3_000) == payloads(0, 3_000)


def test_only_the_newest_of_a_topic_is_on_disk(server: Server, path: Path, offline: Any) -> None:
    policy = StorePolicy(keep_last=("state/+",), linger=0.0)
    client = offline(path, policy=policy)
    for payload in payloads(0, 1_200):
        client.publish("t", payload, qos=1)
    for payload in payloads(0, 50):
        client.publish("state/1", payload, qos=1).wait_stored(5)
    client.close(0)
    client = offline(path, policy=policy)
    newest = client.publish("state/1", b"newest", qos=1)
    assert client.stats.queued == 1_201
    client.close(0)
    assert newest.state == "stored"
    assert on_disk(path) == [*payloads(0, 1_200), b"newest"]


def test_a_message_that_is_too_old_is_never_sent(server: Server, path: Path, offline: Any) -> None:
    policy = StorePolicy(max_age=0.2)
    client = offline(path, policy=policy)
    client.start()
    old = [client.publish("t", payload, qos=1) for payload in payloads(0, 1_500)]
    with pytest.raises(DeliveryExpiredError):
        old[-1].wait(10)
    eventually(lambda: client.stats.queued == 0, 10)
    assert client.stats.expired == 1_500
    client.close(0)
    assert on_disk(path) == []


def test_live_messages_overtake_a_history_on_disk(server: Server, path: Path, offline: Any) -> None:
    client = offline(path)
    for payload in payloads(0, 2_000):
        client.publish("t", payload, qos=1)
    client.close(0)
    policy = StorePolicy(replay="live", replay_rate=100)
    with Client(server.url, client_id="c", store=path, policy=policy) as client:
        client.connect(5)
        for payload in payloads(0, 200):
            client.publish("live", payload, qos=1)
        assert arrived(server, 200, "live") == payloads(0, 200)
        history = server.call(lambda: server.broker.payloads("t"))
        assert len(history) < 1_000
        client.close(0)
    with Client(server.url, client_id="c", store=path) as client:
        client.close(20)
    # A message whose acknowledgement did not come before the restart has come twice.
    assert list(dict.fromkeys(arrived(server, 2_000))) == payloads(0, 2_000)


# Fork


def test_a_forked_child_leaves_the_store_alone(server: Server, path: Path) -> None:
    with Client(server.url, client_id="c", store=path) as client:
        client.connect(5)

        def work() -> None:
            with pytest.raises(ClosedError):
                client.publish("t", b"child", qos=1)
            with pytest.raises(StoreError):
                Client(NOWHERE, store=path)
            client.close()

        assert in_child(work) == ""
        client.publish("t", b"parent", qos=2).wait(5)
        assert arrived(server, 1) == [b"parent"]


# How often the disk is written


def test_an_online_message_that_is_acknowledged_in_time_is_never_written(
    server: Server, path: Path, counted: type[CountingDatabase]
) -> None:
    with Client(server.url, client_id="c", store=path, policy=StorePolicy(linger=5.0)) as client:
        client.connect(5)
        client.publish("t", b"first", qos=1).wait(5)  # reserves packet identifiers
        before = counted.commits
        for payload in payloads(0, 200):
            client.publish("t", payload, qos=1).wait(5)
        assert (counted.rows, counted.commits) == (0, before)


def test_a_qos_2_message_costs_a_commit_before_publish_and_one_before_pubrel(
    server: Server, path: Path, counted: type[CountingDatabase]
) -> None:
    with Client(server.url, client_id="c", store=path, policy=StorePolicy(linger=5.0)) as client:
        client.connect(5)
        client.publish("t", b"first", qos=2).wait(5)
        before = counted.commits
        for payload in payloads(0, 20):
            client.publish("t", payload, qos=2).wait(5)
        assert counted.commits - before == 2 * 20
        assert counted.rows == 21


def test_a_received_qos_2_message_costs_a_commit_before_pubrec_and_one_before_pubcomp(
    server: Server, path: Path, counted: type[CountingDatabase]
) -> None:
    received: list[bytes] = []
    with Client(server.url, client_id="c", store=path, policy=StorePolicy(linger=5.0)) as client:
        client.connect(5)
        client.subscribe("t", qos=2, on_message=lambda message: received.append(message.payload)).wait(5)
        server.call(server.broker.publish, "t", b"first", qos=2)
        eventually(lambda: received and not client._engine.session.received and all_sent(client))
        before = counted.commits
        for payload in payloads(0, 10):
            server.call(server.broker.publish, "t", payload, qos=2)
            server.wait_for(lambda: not server.broker.sessions["c"].in_flight)
            eventually(lambda: not client._engine.session.received and all_sent(client))
        assert len(received) == 11
        assert counted.commits - before <= 2 * 10


# Disks that fail


class FailingDatabase(Database):
    """Raises this error code, if it is not 0, for everything that is to be written."""

    code = 0

    def write(self, batch: Pending) -> None:
        if self.code:
            error = sqlite3.OperationalError("injected")
            error.sqlite_errorcode = self.code
            raise error
        super().write(batch)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FailingDatabase]]:
    monkeypatch.setattr(sqlite, "Database", FailingDatabase)
    monkeypatch.setattr(sqlite, "RETRY_S", (0.02, 0.05))
    yield FailingDatabase
    FailingDatabase.code = 0


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY])
def test_a_disk_that_fails_stops_nothing_and_is_told_once(
    server: Server, path: Path, failing: type[FailingDatabase], code: int
) -> None:
    events: list[str] = []
    received: list[bytes] = []
    with Client(
        server.url,
        client_id="c",
        store=path,
        on_event=lambda event: events.append(event.kind),
        reconnect=FAST,
    ) as client:
        client.connect(5)
        client.subscribe("in", qos=2, on_message=lambda message: received.append(message.payload)).wait(5)
        client.publish("t", b"0", qos=2).wait(5)
        failing.code = code
        first = client.publish("t", b"1", qos=2)
        first.wait(5)
        for payload in payloads(2, 100):
            client.publish("t", payload, qos=2).wait(5)
        server.call(server.broker.publish, "in", b"x", qos=2)
        eventually(lambda: received == [b"x"] and not client._engine.session.received)
        eventually(lambda: "store_failed" in events)
        client.close(0)
        failing.code = 0
    assert arrived(server, 100) == payloads(0, 100)
    assert (events.count("store_failed"), events.count("store_recovered")) == (1, 0)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY])
def test_what_was_queued_while_the_disk_failed_is_stored_when_it_recovers(
    path: Path, failing: type[FailingDatabase], code: int
) -> None:
    events: list[str] = []
    client = Client(
        NOWHERE, client_id="c", store=path, on_event=lambda event: events.append(event.kind), reconnect=FAST
    )
    client.start()
    before = client.publish("t", b"0", qos=1)
    before.wait_stored(5)
    failing.code = code
    queued = [client.publish("t", payload, qos=1) for payload in payloads(1, 1_500)]
    with pytest.raises(StoreError, match="injected"):
        queued[0].wait_stored(5)
    assert (before.state, queued[0].state, queued[-1].state) == ("stored", "queued", "queued")
    eventually(lambda: "store_failed" in events)
    failing.code = 0
    eventually(lambda: queued[-1].state == "stored")
    eventually(lambda: "store_recovered" in events)
    assert (events.count("store_failed"), events.count("store_recovered")) == (1, 1)
    client.close(0)
    assert on_disk(path) == payloads(0, 1_500)


def test_a_failing_disk_has_the_bound_of_a_queue_in_memory(
    path: Path, offline: Any, failing: type[FailingDatabase], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_sdk.engine.outgoing.bounds._MEMORY_MESSAGES", 100)
    client = offline(path)
    failing.code = sqlite3.SQLITE_IOERR
    first = client.publish("t", b"0", qos=1)
    with pytest.raises(StoreError, match="injected"):
        first.wait_stored(5)
    with pytest.raises(QueueFullError, match="cannot write"):
        for payload in payloads(1, 200):
            client.publish("t", payload, qos=1)
    assert client.stats.queued == 100
    failing.code = 0
    eventually(lambda: first.state == "stored")
    client.publish("t", b"100", qos=1)
    client.close(0)
    assert on_disk(path) == payloads(0, 101)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_empties_itself_and_nothing_is_lost(
    server: Server, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "RETRY_S", (0.02, 0.05))
    path = small_disk / "queue.db"
    events: list[str] = []
    client = Client(
        server.url,
        client_id="c",
        store=path,
        policy=StorePolicy(min_free=0, linger=0.0),
        on_event=lambda event: events.append(event.kind),
    )
    count = 0
    with pytest.raises(StoreError):
        while count < 5_000:
            delivery = client.publish("t", b"%04d" % count + bytes(2_000), qos=1)
            count += 1
            delivery.wait_stored(5)
    assert delivery.state == "queued"
    for _ in range(20):
        client.publish("t", b"%04d" % count + bytes(2_000), qos=1)
        count += 1
    assert 0 < len(on_disk(path)) < count
    client.start()
    came = arrived(server, count)
    eventually(lambda: events.count("store_recovered") == 1)
    assert events.count("store_failed") == 1
    client.close()
    assert [int(payload[:4]) for payload in came] == list(range(count))
    assert on_disk(path) == []


# A damaged file


def test_a_damaged_file_is_set_aside_and_reported(path: Path) -> None:
    path.write_bytes(bytes(20_000))  # as a power cut may leave it
    events: list[Any] = []
    with Client(NOWHERE, client_id="c", store=path, on_event=events.append) as client:
        client.publish("t", b"x", qos=1).wait_stored(5)
        eventually(lambda: [event for event in events if event.kind == "store_replaced"])
        client.close(0)
    [event] = [event for event in events if event.kind == "store_replaced"]
    assert "damaged-1" in event.text
    assert Path(f"{path}.damaged-1").exists()


def test_a_message_that_the_disk_altered_is_not_sent_and_the_others_are(path: Path, server: Server) -> None:
    with Client(NOWHERE, client_id="c", store=path) as client:
        client.publish("t", b"one", qos=1)
        client.publish("t", b"two", qos=1)
        client.publish("t", b"three", qos=1).wait_stored(5)
        client.close(0)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE message SET payload = x'74776e' WHERE sequence = 2")
    connection.commit()
    connection.close()
    events: list[ClientEvent] = []
    with Client(server.url, client_id="c", store=path, on_event=events.append) as client:
        assert arrived(server, 2) == [b"one", b"three"]
        eventually(lambda: client.stats.queued + client.stats.in_flight == 0)
        client.close(5)
    [event] = [event for event in events if event.kind == "store_damaged"]
    assert event.value == "1"
    assert "message 2 ('t', 3 bytes)" in event.text
    with QueueReader(path) as reader:
        assert [(each.sequence, each.state) for each in reader.shelf()] == [(2, "damaged")]
