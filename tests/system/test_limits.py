"""A real Mosquitto that does not take what waits: its limits of today must not cost the queue."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from device_sdk import AsyncClient, Client, Message, StorePolicy
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.engine.events import ClientEvent
from tests.steps import eventually, eventually_in_loop
from tests.system.mosquitto_with import MosquittoWith

WAIT_S = 20.0
AT_ONCE = ReconnectPolicy(first=0.1, longest=0.5)
WHEN_ASKED = ReconnectPolicy(first=1e6, longest=1e6)
LIMITS = pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("max_qos 0", {"payload": b"x"}),
        ("max_qos 1", {"payload": b"x", "qos": 2}),
        ("max_packet_size 200", {"payload": bytes(400)}),
        ("retain_available false", {"payload": b"x", "retain": True}),
    ],
)


def needs_mosquitto() -> None:
    if not MosquittoWith.available():
        pytest.skip("needs mosquitto")


@LIMITS
def test_what_waits_in_a_store_outlives_a_broker_that_does_not_take_it(
    tmp_path: Path, setting: str, message: dict[str, Any]
) -> None:
    needs_mosquitto()
    told = threading.Event()
    received: list[Message] = []

    def on_event(event: ClientEvent) -> None:
        if event.kind == "held":
            told.set()

    client = Client("mqtt://127.0.0.1:1", client_id="node", store=tmp_path / "queue.db")
    for number in range(5):
        client.publish(f"a/{number}", **{"qos": 1, **message})
    client.close(0)
    with MosquittoWith() as broker:
        broker.terminate()
        broker.setting = setting
        broker.start()
        client = Client(
            broker.url(),
            client_id="node",
            store=tmp_path / "queue.db",
            reconnect=WHEN_ASKED,
            on_event=on_event,
        )
        with client:
            assert told.wait(WAIT_S)
            eventually(lambda: client.stats.held == 5)
            small = client.publish("b", b"small")
            assert (small.state, client.stats.queued) == ("sent", 5)
            broker.terminate()
            eventually(lambda: client.state == "waiting")
            broker.setting = ""
            broker.start()
            with Client(broker.url(), reconnect=AT_ONCE) as reader:
                reader.subscribe("a/#", qos=2, on_message=received.append).wait(WAIT_S)
                client.reconnect_now()
                eventually(lambda: {one.topic for one in received} == {f"a/{n}" for n in range(5)})
            eventually(lambda: client.stats.acknowledged == 5)
            assert (client.stats.held, client.stats.queued, client.stats.dropped) == (0, 0, 0)


def test_the_asyncio_client_lowers_the_qos_if_that_is_wanted() -> None:
    needs_mosquitto()

    async def main(url: str) -> None:
        policy = StorePolicy(unsendable="lower_qos")
        client = AsyncClient(url, policy=policy, reconnect=AT_ONCE)
        waiting = await client.publish("a", b"1", qos=2)
        await client.connect(WAIT_S)
        now = await client.publish("a", b"2", qos=1)
        await eventually_in_loop(lambda: waiting.state == "sent")
        assert (now.state, client.stats.held, client.stats.queued) == ("sent", 0, 0)
        await client.close(5)

    with MosquittoWith() as broker:
        broker.terminate()
        broker.setting = "max_qos 0"
        broker.start()
        asyncio.run(asyncio.wait_for(main(broker.url()), 60))


def test_what_exceeds_the_quota_is_published_again_and_the_order_stays() -> None:
    needs_mosquitto()
    received: list[Message] = []
    events: list[ClientEvent] = []
    payloads = [b"%02d" % number + bytes(98) for number in range(20)]
    with MosquittoWith() as broker:
        broker.terminate()
        # Room for two messages of QoS 2 that wait for their PUBREL; each further one is refused with 0x97.
        broker.setting = "max_inflight_bytes 200\nmax_queued_messages 40"
        broker.start()
        with Client(broker.url()) as reader, Client(broker.url(), on_event=events.append) as client:
            reader.subscribe("t", qos=2, on_message=received.append).wait(WAIT_S)
            eventually(lambda: client.state == "connected")
            deliveries = [client.publish("t", payload, qos=2) for payload in payloads]
            for delivery in deliveries:
                delivery.wait(WAIT_S)
            eventually(lambda: len(received) == len(payloads))
        assert [message.payload for message in received] == payloads
        assert (client.stats.refused, client.stats.held) == (0, 0)
        assert "postponed" in {event.kind for event in events}
