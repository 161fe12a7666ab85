"""Threads: many publishers, wake-ups neither lost nor wasted, faults that end no thread, no leaks."""

from __future__ import annotations

import gc
import os
import selectors
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from pytest_mock import MockerFixture

from device_sdk import Client
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.engine.events import ClientEvent
from device_sdk.engine.reentry import has_lock
from device_sdk.errors import ClosedError, QueueFullError, TransportClosedError
from device_sdk.mqtt.packets import Connack
from device_sdk.net.base import Transport, open_transport
from device_sdk.store.base import StorePolicy
from device_sdk.testing import BrokerServer, ModelBroker, ScriptedBroker
from device_sdk.testing.scripted_broker import expect, ignore, send
from device_sdk.threads import CallbackThread, NetworkThread
from tests.steps import eventually, join_threads, sdk_threads

if TYPE_CHECKING:
    from collections.abc import Callable

FAST = ReconnectPolicy(first=0.02, longest=0.05)
Server = BrokerServer[ModelBroker]


def run_in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run ``work(index)`` in that many threads at once; the first exception is raised again here."""
    errors: list[BaseException] = []
    ready = threading.Barrier(count)

    def run(index: int) -> None:
        try:
            ready.wait(5)
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


class CountingSelector(selectors.EpollSelector):
    """Counts how often it returned: in ``returns`` all instances, in ``own`` this one."""

    returns = 0

    def __init__(self) -> None:
        super().__init__()
        self.own = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(timeout)
        CountingSelector.returns += 1
        self.own += 1
        return ready


@pytest.fixture
def selector(monkeypatch: pytest.MonkeyPatch) -> type[CountingSelector]:
    """Clients made from now on count the wake-ups of their network threads."""
    monkeypatch.setattr("device_sdk.threads.selectors.DefaultSelector", CountingSelector)
    CountingSelector.returns = 0
    return CountingSelector


def rests(client: Client) -> bool:
    """Whether the network thread sleeps, and no event is left that would make a publish wake it."""
    return client._engine.parked and not client._engine.wants_attention()


def come_to_rest(client: Client) -> None:
    """Wait until the first attempt has failed, its event has been taken, and the network thread sleeps."""
    eventually(lambda: client.state == "waiting" and rests(client))


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_eight_publishers_at_once_lose_nothing_and_keep_their_order(server: Server, qos: int) -> None:
    each = 250
    with Client(server.url, inflight=50) as client:
        client.connect(5)

        def publish(index: int) -> None:
            deliveries = [client.publish(f"t/{index}", b"%d" % n, qos=qos) for n in range(each)]
            for delivery in deliveries:
                delivery.wait(20)

        run_in_threads(8, publish)
    server.wait_for(lambda: len(server.broker.journal) >= 8 * each, timeout=20)
    for index in range(8):
        assert server.broker.payloads(f"t/{index}") == [b"%d" % n for n in range(each)]


def test_eight_publishers_and_a_full_queue_that_blocks_lose_nothing(server: Server) -> None:
    policy = StorePolicy(max_messages=5, overflow="block", block_timeout=20)
    with Client(server.url, policy=policy, inflight=3) as client:

        def publish(index: int) -> None:
            for _ in range(50):
                client.publish("t", b"x", qos=1)

        run_in_threads(8, publish)
    assert len(server.broker.payloads("t")) == 400


def test_close_during_publishing_never_leaves_a_delivery_undecided(server: Server) -> None:
    client = Client(server.url)
    client.connect(5)
    deliveries: list[Any] = []

    def publish(index: int) -> None:
        try:
            while True:
                deliveries.append(client.publish("t", b"x", qos=1))
        except (ClosedError, QueueFullError):
            return

    threads = [threading.Thread(target=publish, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    eventually(lambda: client.stats.acknowledged > 50)
    client.close(0.2)
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert all(delivery.done for delivery in deliveries)


def test_an_idle_client_does_not_wake_up(server: Server, selector: type[CountingSelector]) -> None:
    with Client(server.url) as client, Client(server.url) as busy:
        client.connect(5)
        client.publish("t", b"x", qos=1).wait(5)
        assert client._network is not None
        sleeper: Any = client._network._selector
        before = sleeper.own
        for _ in range(50):
            busy.publish("t", b"x", qos=1).wait(5)
        assert sleeper.own - before <= 2
        assert selector.returns > 50
        with client._engine.lock:
            deadline = client._engine.next_deadline()
        assert deadline is not None  # the next reason to wake up is the keep alive


def test_publishing_offline_does_not_wake_the_network_thread(selector: type[CountingSelector]) -> None:
    client = Client("memory://nobody", reconnect=ReconnectPolicy(first=1000, longest=1000))
    client.start()
    come_to_rest(client)
    before = selector.returns
    for _ in range(1000):
        client.publish("t", b"x", qos=1)
    assert client._engine.parked
    assert selector.returns == before
    client.close(0)


def test_an_expiry_shortens_the_sleep_of_the_network_thread() -> None:
    client = Client("memory://nobody", reconnect=ReconnectPolicy(first=1000, longest=1000))
    client.start()
    come_to_rest(client)
    delivery = client.publish("t", b"x", qos=1, expiry=0.05)
    eventually(lambda: delivery.state == "expired")
    client.close(0)


def test_a_drop_offline_is_told_at_once() -> None:
    events: list[ClientEvent] = []
    client = Client(
        "memory://nobody",
        reconnect=ReconnectPolicy(first=1000, longest=1000),
        policy=StorePolicy(max_messages=1, overflow="drop_oldest"),
        on_event=events.append,
    )
    client.start()
    come_to_rest(client)
    client.publish("t", b"0", qos=1)
    client.publish("t", b"1", qos=1)
    eventually(lambda: "dropped" in [event.kind for event in events])
    client.close(0)


def test_a_publish_while_the_network_thread_is_busy_does_not_write_the_eventfd(
    server: Server, mocker: MockerFixture
) -> None:
    with Client(server.url) as client:
        client.connect(5)
        eventually(lambda: rests(client))
        network = client._network
        assert network is not None
        wake = mocker.patch.object(network, "wake")
        client.publish("t", b"wakes it", qos=0)
        wake.assert_called_once_with()
        assert not client._engine.parked  # nobody really woke it: it counts as busy
        for _ in range(100):
            client.publish("t", b"adds to the heap", qos=0)
        wake.assert_called_once_with()
        mocker.stopall()
        network.wake()
        server.wait_for(lambda: len(server.broker.payloads("t")) == 101)


def test_a_publish_into_a_full_window_does_not_wake_the_network_thread() -> None:
    broker = ScriptedBroker([expect("connect"), send(Connack()), ignore()], version="5.0")
    with BrokerServer(broker) as server:
        client = Client(server.url, inflight=1)
        client.connect(5)
        client.publish("t", b"0", qos=1)
        eventually(lambda: rests(client) and client.stats.in_flight == 1)
        client.publish("t", b"1", qos=1)
        assert client._engine.parked
        client.close(0)


class FaultyTransport(Transport):
    """A TCP transport in which one method fails once as no transport should."""

    description = "faulty"

    def __init__(self, url: str, method: str) -> None:
        self._inner = open_transport(url)
        self._fails: str | None = method

    def _maybe_fail(self, method: str) -> None:
        if self._fails == method:
            self._fails = None
            raise ZeroDivisionError(f"{method} is broken")

    def open(self, deadline: float) -> None:
        self._maybe_fail("open")
        self._inner.open(deadline)

    def fileno(self) -> int:
        self._maybe_fail("fileno")
        return self._inner.fileno()

    def recv(self) -> bytes | None:
        self._maybe_fail("recv")
        return self._inner.recv()

    def send(self, data: bytes | bytearray | memoryview) -> int:
        self._maybe_fail("send")
        return self._inner.send(data)

    def wants_write(self) -> bool:
        self._maybe_fail("wants_write")
        return self._inner.wants_write()

    def next_deadline(self) -> float | None:
        self._maybe_fail("next_deadline")
        return self._inner.next_deadline()

    def abort(self) -> None:
        self._inner.abort()

    def close(self) -> None:
        self._inner.close()


@pytest.mark.parametrize("method", ["open", "fileno", "recv", "send", "wants_write", "next_deadline"])
def test_an_unforeseen_error_in_the_network_thread_is_an_event_and_a_reconnect(
    server: Server, method: str
) -> None:
    events: list[ClientEvent] = []
    transport = FaultyTransport(server.url, method)
    with Client(transport, reconnect=FAST, on_event=events.append) as client:
        client.publish("t", b"x", qos=1).wait(10)
    kinds = [event.kind for event in events]
    assert ("connect_failed" if method == "open" else "internal_error") in kinds
    assert "ZeroDivisionError" in events[0].text
    assert server.broker.payloads("t") == [b"x"]


def test_without_threads_for_an_attempt_the_attempt_fails_and_is_repeated(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_start = threading.Thread.start
    refused: list[str] = []

    def start(thread: threading.Thread) -> None:
        if thread.name == "device-sdk open" and len(refused) < 2:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        real_start(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with Client(server.url, reconnect=FAST) as client:
        client.publish("t", b"x", qos=1).wait(5)
    assert len(refused) == 2


def test_a_start_that_fails_can_be_repeated(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    real_start = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "device-sdk network":
            raise RuntimeError("can't start new thread")
        real_start(thread)

    client = Client(server.url)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError):
            client.start()
    join_threads()
    client.connect(5)
    client.close()


class HangingTransport(FaultyTransport):
    """Its first open() does not come back before the test lets it, as a name look-up may do."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "")
        self.opening, self.release = threading.Event(), threading.Event()
        self._hangs = True

    def open(self, deadline: float) -> None:
        if self._hangs:
            self._hangs = False
            self.opening.set()
            self.release.wait(20)
            raise TransportClosedError("late")
        super().open(deadline)


def test_an_attempt_that_does_not_return_is_left_behind(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_sdk.engine.connecting.attempt._GRACE_SECONDS", 0.05)
    events: list[ClientEvent] = []
    transport = HangingTransport(server.url)
    with Client(transport, connect_timeout=0.05, reconnect=FAST, on_event=events.append) as client:
        client.publish("t", b"x", qos=1).wait(5)
        assert "has not returned within" in events[0].text
        transport.release.set()  # the latecomer disturbs nobody
        client.publish("t", b"y", qos=1).wait(5)
    assert client.stats.connects == 1


def test_several_threads_share_the_inbox(server: Server) -> None:
    taken: list[bytes] = []
    with Client(server.url) as client:
        inbox = client.messages()
        client.subscribe("t", qos=1).wait(5)
        threads = [
            threading.Thread(target=lambda: taken.extend(message.payload for message in inbox))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for number in range(200):
            client.publish("t", b"%d" % number, qos=1)
        eventually(lambda: len(taken) == 200)
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()  # close() ends the iteration
    assert sorted(taken, key=int) == [b"%d" % number for number in range(200)]


def test_handlers_and_hooks_never_run_under_the_lock(server: Server) -> None:
    free: list[bool] = []

    def look(*_: object) -> None:
        free.append(not has_lock(client._engine.lock))

    client = Client(server.url, on_connect=look, on_disconnect=look, on_event=look)
    client.connect(5)
    client.subscribe("t", on_message=look).wait(5)
    client.publish("t", b"x", qos=1).wait(5)
    server.disconnect_all()
    eventually(lambda: client.stats.connects == 1 and len(free) >= 5)
    client.close(0)
    assert all(free)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_two_hundred_lives_leave_no_descriptor_and_no_thread_behind(server: Server) -> None:
    def live() -> None:
        client = Client(server.url)
        client.connect(5)
        client.publish("t", b"x", qos=1).wait(5)
        client.close()

    live()
    gc.collect()
    server.wait_for(lambda: not server.broker.links)
    join_threads()
    before = descriptors()
    for _ in range(200):
        live()
    gc.collect()
    # The server has forgotten a client at its DISCONNECT, and closes the socket a moment later.
    server.wait_for(lambda: descriptors() <= before)
    assert sdk_threads() == []


def test_failed_lives_leave_nothing_behind_either() -> None:
    client = Client("memory://nobody", reconnect=FAST)
    gc.collect()
    before = descriptors()
    for _ in range(50):
        with pytest.raises(OSError, match="nobody listens"):
            client.connect(5)
    join_threads("device-sdk open")
    gc.collect()
    assert descriptors() <= before
    client.close()


def test_a_deadline_in_forty_days_is_waited_for_in_parts() -> None:
    """epoll() takes no more than 24 days, and raises OverflowError."""
    client = Client("mqtt://127.0.0.1:9")
    callbacks = CallbackThread(client._engine, lambda: None, client._wake)
    network = NetworkThread(client._engine, callbacks, 1.0)
    client.publish("t", b"x", qos=1, expiry=40 * 86_400)
    deadline = client._engine.next_deadline()
    assert deadline is not None
    network.wake()
    network._wait(deadline - monotonic())
    client.close(0)
