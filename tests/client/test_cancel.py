"""``Delivery.cancel()`` and threads: who waits is woken, the store forgets, a signal may come anywhere."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from device_sdk import Client, Delivery, ReconnectPolicy, StorePolicy
from device_sdk.errors import DeliveryCancelledError
from device_sdk.store.inspect import QueueReader
from device_sdk.testing import BrokerServer, ModelBroker
from tests.interrupts import Interrupter, in_another_thread, places
from tests.steps import eventually

NOWHERE = "mqtt://127.0.0.1:9"
LATER = ReconnectPolicy(first=1_000, longest=1_000)


def test_whoever_waits_for_the_message_is_told() -> None:
    client = Client(NOWHERE)
    delivery = client.publish("t", b"x", qos=1)
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            delivery.wait(20)
        except DeliveryCancelledError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    eventually(lambda: delivery.on_done)
    assert delivery.cancel()
    thread.join(10)
    assert len(caught) == 1
    client.close(0)


def test_a_publisher_that_waits_for_room_gets_it() -> None:
    client = Client(NOWHERE, policy=StorePolicy(max_messages=1, overflow="block", block_timeout=20))
    first = client.publish("t", b"1", qos=1)
    published: list[Delivery] = []
    thread = threading.Thread(target=lambda: published.append(client.publish("t", b"2", qos=1)))
    thread.start()
    eventually(lambda: client._engine.outgoing.outbox.waits.blocked)
    assert first.cancel()
    thread.join(10)
    assert published[0].state == "queued"
    client.close(0)


def test_close_does_not_wait_for_what_was_taken_back() -> None:
    client = Client(NOWHERE, reconnect=LATER)
    client.start()
    delivery = client.publish("t", b"x", qos=1)
    closing = threading.Thread(target=client.close, args=(60,))
    closing.start()
    eventually(lambda: client._engine.draining)
    assert delivery.cancel()
    closing.join(10)
    assert client.state == "closed"


def test_the_next_client_of_a_store_does_not_send_it(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    client = Client(NOWHERE, store=path)
    kept, taken_back, also = (client.publish("t", text, qos=1) for text in (b"1", b"2", b"3"))
    taken_back.wait_stored(10)
    assert taken_back.state == "stored"
    assert taken_back.cancel()
    assert also.cancel()
    client.close(0)
    assert (kept.state, taken_back.state) == ("stored", "cancelled")
    with QueueReader(path) as reader:
        assert [message.payload for message in reader.export()] == [b"1"]


def test_a_delivery_whose_client_is_gone_is_not_taken_back() -> None:
    client = Client(NOWHERE)
    delivery = client.publish("t", b"x", qos=1)
    del client  # freed at once, although the delivery is held
    assert not delivery.cancel()


def test_two_threads_take_it_back_once() -> None:
    client = Client(NOWHERE)
    deliveries = [client.publish("t", b"x", qos=1) for _ in range(200)]
    results: list[list[bool]] = []
    start = threading.Barrier(2)

    def cancel() -> None:
        start.wait(5)
        results.append([delivery.cancel() for delivery in deliveries])

    threads = [threading.Thread(target=cancel) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [one is not other for one, other in zip(*results, strict=True)] == [True] * 200
    assert (client.stats.queued, client.stats.queued_bytes, client.stats.cancelled) == (0, 0, 200)
    client.close(0)


def test_a_message_is_taken_back_or_delivered_and_never_both() -> None:
    """While the network thread sends them."""
    with BrokerServer(ModelBroker()) as server, Client(server.url, inflight=1) as client:
        deliveries = [client.publish("t", b"%d" % number, qos=1) for number in range(300)]
        cancelled = [delivery.cancel() for delivery in reversed(deliveries)][::-1]
        for delivery, taken_back in zip(deliveries, cancelled, strict=True):
            if taken_back:
                with pytest.raises(DeliveryCancelledError):
                    delivery.wait(10)
            else:
                delivery.wait(10)
        arrived = server.call(lambda: [entry.payload for entry in server.broker.journal])
        stats = client.stats
    assert arrived == [b"%d" % number for number, taken in enumerate(cancelled) if not taken]
    assert stats.acknowledged + stats.cancelled == 300


def ctrl_c(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("topic", ["t", "state/a"])
@pytest.mark.parametrize("stored", [False, True], ids=["memory", "store"])
def test_ctrl_c_anywhere_in_cancel_leaves_it_waiting_or_ended(
    tmp_path: Path, stored: bool, topic: str
) -> None:
    path = tmp_path / "queue.db"
    client = Client(NOWHERE, store=path if stored else None, policy=StorePolicy(keep_last=("state/#",)))

    def interrupted(interrupter: Interrupter) -> None:
        ended = client.stats.cancelled
        delivery = client.publish(topic, b"x", qos=1)
        try:
            interrupter.run(delivery.cancel)
        except KeyboardInterrupt:
            assert interrupter.reached
        waits = delivery.state in ("queued", "stored")
        assert (client.stats.queued, client.stats.cancelled) == (waits, ended + (not waits))
        in_another_thread(delivery.cancel)
        assert isinstance(delivery.error, DeliveryCancelledError)
        assert (client.stats.queued, client.stats.queued_bytes) == (0, 0)
        assert client.stats.cancelled == ended + 1

    found = places(interrupted, ctrl_c)
    assert any("Backlog.withdraw" in place for place in found)
    assert any("Endings.end" in place for place in found)
    in_another_thread(lambda: client.close(0))
    if stored:
        with QueueReader(path) as reader:
            assert list(reader.export()) == []
