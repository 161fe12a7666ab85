"""Whole clients whose clock has gone on in suspend, while that of the kernel's time-outs stood still."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

import pytest

from device_sdk import AsyncClient, Client, Message, _clock
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.paho import client as paho
from device_sdk.store.clock import ExpiryClock
from device_sdk.store.sqlite import SqliteStore
from device_sdk.testing import BrokerServer, ModelBroker
from tests.steps import eventually, eventually_in_loop

Server = BrokerServer[ModelBroker]
FAST = ReconnectPolicy(first=0.02, longest=0.05)
AN_HOUR = 3600.0
WAIT_S = 5


class Suspended:
    """CLOCK_BOOTTIME of a machine that has been suspended for ``seconds``."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._clock = _clock.boottime

    def __call__(self) -> float:
        return self._clock() + self.seconds


@pytest.fixture
def suspended(monkeypatch: pytest.MonkeyPatch) -> Suspended:
    """The clock of every module that asks it, with looks at it every 20 ms."""
    clock, real = Suspended(), _clock.boottime
    for name, module in list(sys.modules.items()):
        if name.startswith("device_sdk"):
            if getattr(module, "boottime", None) is real:
                monkeypatch.setattr(module, "boottime", clock)
            if hasattr(module, "LONGEST_WAIT"):
                monkeypatch.setattr(module, "LONGEST_WAIT", 0.02)
    return clock


def test_a_client_that_wakes_up_looks_at_its_connection_at_once(server: Server, suspended: Suspended) -> None:
    lost: list[str] = []
    with Client(server.url, reconnect=FAST, on_disconnect=lambda error: lost.append(str(error))) as client:
        client.connect(WAIT_S)
        suspended.seconds = AN_HOUR
        eventually(lambda: client.stats.reconnects == 1)
        client.publish("t", b"x", qos=1).wait(WAIT_S)
    assert "this machine was suspended" in lost[0]


def test_an_asyncio_client_that_wakes_up_looks_at_its_connection_at_once(
    server: Server, suspended: Suspended
) -> None:
    async def main() -> None:
        async with AsyncClient(server.url, reconnect=FAST) as client:
            await client.connect(WAIT_S)
            suspended.seconds = AN_HOUR
            await eventually_in_loop(lambda: client.stats.reconnects == 1)
            await (await client.publish("t", b"x", qos=1)).wait(WAIT_S)

    asyncio.run(main())


def test_the_drop_in_looks_at_its_connection_at_once(server: Server, suspended: Suspended) -> None:
    connected, lost = threading.Semaphore(0), threading.Event()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
    client.on_connect = lambda *_: connected.release()
    client.on_disconnect = lambda *_: lost.set()
    client.reconnect_delay_set(1, 1)
    client.connect("127.0.0.1", server.port)
    client.loop_start()
    assert connected.acquire(timeout=WAIT_S)
    suspended.seconds = AN_HOUR
    assert lost.wait(WAIT_S)
    assert connected.acquire(timeout=WAIT_S)
    client.disconnect()
    client.loop_stop()


@pytest.mark.parametrize("seconds", [AN_HOUR, -AN_HOUR, 1e7])
def test_no_moment_of_one_clock_is_taken_for_one_of_the_other(
    server: Server, suspended: Suspended, tmp_path: Path, seconds: float
) -> None:
    suspended.seconds = seconds
    store = SqliteStore(tmp_path / "queue.db", clock=ExpiryClock(suspended))
    offline = Client(server.url, client_id="one", store=store)
    kept = offline.publish("t", b"1", qos=1, expiry=30)
    offline.close(0)
    assert kept.state == "stored"
    received: list[tuple[bytes, int]] = []

    def note(message: Message) -> None:
        assert message.properties is not None
        received.append((message.payload, message.properties["message_expiry_interval"]))

    with Client(server.url, reconnect=FAST) as reader:
        reader.subscribe("t", qos=1, on_message=note).wait(WAIT_S)
        store = SqliteStore(tmp_path / "queue.db", clock=ExpiryClock(suspended))
        with Client(server.url, client_id="one", store=store) as client:
            client.publish("t", b"2", qos=1, expiry=30).wait(WAIT_S)
            eventually(lambda: len(received) == 2)
            assert client.stats.reconnects == 0
    assert [payload for payload, _ in received] == [b"1", b"2"]
    assert all(28 <= left <= 30 for _, left in received)
