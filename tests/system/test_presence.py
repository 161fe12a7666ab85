"""Birth, will and farewell at a real Mosquitto: what it retains of a client that comes and leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from device_sdk import AsyncClient, Client, Message, Will
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.testing import FaultProxy
from device_sdk.testing.broker_process import ChildBroker
from tests.steps import eventually
from tests.system.test_mosquitto import VERSIONS
from tests.system.test_restarts import kill

FAST = ReconnectPolicy(first=0.02, longest=0.1)
STATE = "site/17/state"
BIRTH = Message(STATE, b"online", qos=1, retain=True)
WILL = Will(STATE, b"offline", qos=1, retain=True)
FAREWELL = Message(STATE, b"left", qos=1, retain=True)
COUNT = 1_000


class Watcher:
    """Keeps what it hears, in order; ``retained()`` asks the broker anew."""

    def __init__(self, broker: ChildBroker, version: str = "5.0") -> None:
        self._broker = broker
        self._version = version
        self.heard: list[tuple[str, bytes]] = []
        self._client = Client(
            broker.url(version), client_id="watcher", version=version, clean_start=False, reconnect=FAST
        )
        heard = self.heard
        wanted = self._client.subscribe(
            "site/#", qos=1, on_message=lambda message: heard.append((message.topic, message.payload))
        )
        self._client.connect(5)
        wanted.wait(5)

    def states(self) -> list[bytes]:
        return [payload for topic, payload in self.heard if topic == STATE]

    def retained(self) -> bytes:
        client = Client(self._broker.url(self._version), version=self._version)
        inbox = client.messages()
        try:
            client.connect(5)
            client.subscribe(STATE, qos=1).wait(5)
            return inbox.get(timeout=5).payload
        finally:
            client.close(0)

    def close(self) -> None:
        self._client.close(0)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def watcher(mosquitto: ChildBroker, version: str) -> Iterator[Watcher]:
    found = Watcher(mosquitto, version)
    yield found
    found.close()


def node(url: str, version: str, store: Path | None = None) -> Client:
    return Client(
        url, client_id="node-17", version=version, store=store, reconnect=FAST,
        birth=BIRTH, will=WILL, farewell=FAREWELL,
    )  # fmt: skip


def test_after_a_broken_connection_the_state_is_online_again(
    mosquitto: ChildBroker, watcher: Watcher, version: str
) -> None:
    with FaultProxy("127.0.0.1", urlsplit(mosquitto.url(version)).port or 0) as proxy:
        client = node(f"mqtt://127.0.0.1:{proxy.port}", version)
        client.connect(5)
        eventually(lambda: watcher.states() == [b"online"])
        proxy.cut()
        eventually(lambda: watcher.states() == [b"online", b"offline"])
        proxy.restore()
        eventually(lambda: watcher.states() == [b"online", b"offline", b"online"])
        assert watcher.retained() == b"online"
        client.close()


def test_a_broker_that_was_killed_has_online_again(
    mosquitto: ChildBroker, watcher: Watcher, version: str
) -> None:
    with node(mosquitto.url(version), version) as client:
        eventually(lambda: watcher.states() == [b"online"])
        kill(mosquitto)
        eventually(lambda: client.state != "connected")
        mosquitto.start()
        eventually(lambda: client.stats.connects == 2)
        client.publish("site/17/sample", b"x", qos=1).wait(10)  # behind birth
        assert watcher.retained() == b"online"
    assert watcher.retained() == b"left"


def test_birth_comes_before_a_backlog_and_the_last_runs_offline_never_follows_it(
    mosquitto: ChildBroker, watcher: Watcher, version: str, tmp_path: Path
) -> None:
    earlier = Client("mqtt://127.0.0.1:1", client_id="node-17", version=version, store=tmp_path / "queue.db")
    for number in range(COUNT):
        earlier.publish("site/17/sample", b"%d" % number, qos=1)
    earlier.publish(STATE, b"the last run's offline", qos=1, retain=True).wait_stored(10)
    earlier.close(0)
    client = node(mosquitto.url(version), version, tmp_path / "queue.db")
    with client:
        eventually(lambda: len(watcher.heard) == COUNT + 1)
        eventually(lambda: client.stats.queued == client.stats.in_flight == 0)
        assert client.stats.dropped == 1
        assert watcher.retained() == b"online"
    assert watcher.heard[0] == (STATE, b"online")
    assert [payload for _, payload in watcher.heard[1 : COUNT + 1]] == [b"%d" % each for each in range(COUNT)]
    eventually(lambda: watcher.states() == [b"online", b"left"])


def test_an_asyncio_client_says_both_too(mosquitto: ChildBroker, watcher: Watcher, version: str) -> None:
    async def main() -> None:
        async with AsyncClient(
            mosquitto.url(version), version=version, birth=lambda: BIRTH, will=WILL, farewell=FAREWELL
        ) as client:
            await (await client.publish("site/17/sample", b"x", qos=1)).wait(5)

    asyncio.run(main())
    eventually(lambda: watcher.states() == [b"online", b"left"])
    assert watcher.retained() == b"left"
