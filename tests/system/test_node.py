"""``device-sdk run`` as a process of its own, with a real broker, real signals and real outages."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from device_sdk import Client
from device_sdk.cli.common import ExitCode
from device_sdk.testing import FaultProxy
from device_sdk.testing.broker_process import ChildBroker
from device_sdk.testing.pty_line import PtyLine

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 20.0

CONFIG = """\
[node]
id = "n1"
[clock]
wait = 0
[broker]
url = "mqtt://127.0.0.1"
keep_alive = 2
reconnect_longest = 1
[[sensor]]
name = "climate"
driver = "bme280"
bus = "fake:tests.node.fakes:climate_bus"
interval = "250ms"
[[sensor]]
name = "machine"
driver = "host"
interval = "50ms"
[[sensor]]
name = "absent"
driver = "host"
interval = "50ms"
options = { root = "/nowhere" }
"""


class Node:
    """A running ``device-sdk run``; modules are looked for in the checkout, where the fake bus is."""

    def __init__(self, folder: Path, url: str) -> None:
        self.config = folder / "node.toml"
        self.config.write_text(CONFIG.replace("mqtt://127.0.0.1", url))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "device_sdk", "run", str(self.config)],
            cwd=ROOT, env={**os.environ, "BLINKA_OS_AGNOSTIC": "1"}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def log_until(self, pattern: str) -> str:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if re.search(pattern, line):
                return line
        raise AssertionError(f"the node ended without a line like {pattern!r}")

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, log

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE_S)


class Watcher:
    """Subscribes to everything of the node and keeps it by topic."""

    def __init__(self, url: str) -> None:
        self.payloads: dict[str, list[bytes]] = defaultdict(list)
        self._client = Client(url, receive_maximum=65_535)
        self._inbox = self._client.messages()
        self._client.connect(PATIENCE_S)
        self._client.subscribe("n1/#", qos=1).wait(PATIENCE_S)

    def until(self, predicate: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not predicate():
            message = self._inbox.get(max(0.0, deadline - time.monotonic()))
            self.payloads[message.topic].append(message.payload)

    def wait_for_more(self, name: str, count: int) -> None:
        enough = len(self.samples(name)) + count
        self.until(lambda: len(self.samples(name)) >= enough)

    def status(self, topic: str = "n1/status") -> bytes:
        return self.payloads[topic][-1] if self.payloads[topic] else b""

    def read_all(self) -> None:
        """Everything that the broker has by now: what is published next comes after it."""
        self._client.publish("n1/end", b"", qos=1)
        self.until(lambda: self.payloads["n1/end"])

    def samples(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(payload) for payload in self.payloads[f"n1/{name}"]]

    def missing(self, name: str) -> set[int]:
        numbers = {sample["seq"] for sample in self.samples(name)}
        return set(range(max(numbers) + 1)) - numbers

    def close(self) -> None:
        self._client.close(0)


@pytest.fixture
def watcher(mosquitto: ChildBroker) -> Iterator[Watcher]:
    found = Watcher(mosquitto.url())
    yield found
    found.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Node]]:
    with ExitStack() as stack:

        def started(url: str) -> Node:
            node = Node(tmp_path, url)
            stack.callback(node.kill)
            return node

        yield started


def port_of(broker: ChildBroker) -> int:
    return urlsplit(broker.url()).port or 0


def test_samples_arrive_one_sensor_is_absent_and_sigterm_drains(
    mosquitto: ChildBroker, watcher: Watcher, start: Callable[[str], Node]
) -> None:
    node = start(mosquitto.url())
    watcher.until(lambda: len(watcher.samples("machine")) >= 10 and len(watcher.samples("climate")) >= 3)
    assert [watcher.status(f"n1/{name}status") for name in ("", "climate/", "machine/", "absent/")] == [
        b"online", b"online", b"online", b"offline",
    ]  # fmt: skip
    code, log = node.end()
    watcher.read_all()
    assert code == ExitCode.OK
    assert re.search("sensor absent: absent: /nowhere/proc/.* is missing", log)
    assert {watcher.status(f"n1/{name}status") for name in ("", "climate/", "machine/")} == {b"offline"}
    assert not watcher.samples("absent")
    assert watcher.missing("machine") == watcher.missing("climate") == set()
    climate = watcher.samples("climate")[-1]["readings"]
    assert abs(climate["temperature"]["value"] - 21.5) < 0.1
    assert {reading["unit"] for reading in climate.values()} == {"Cel", "%RH", "Pa"}


def test_a_killed_node_is_offline_by_its_will(
    mosquitto: ChildBroker, watcher: Watcher, start: Callable[[str], Node]
) -> None:
    node = start(mosquitto.url())
    watcher.until(lambda: watcher.status() == b"online" and watcher.samples("machine"))
    node.kill()
    watcher.until(lambda: watcher.status() == b"offline")


def test_a_broker_that_is_away_for_a_while_gets_every_sample(
    mosquitto: ChildBroker, watcher: Watcher, start: Callable[[str], Node]
) -> None:
    with FaultProxy("127.0.0.1", port_of(mosquitto)) as proxy:
        node = start(f"mqtt://127.0.0.1:{proxy.port}")
        watcher.until(lambda: len(watcher.samples("machine")) >= 5)
        for _ in range(2):
            proxy.cut()
            for _ in range(3):
                node.log_until("connect_failed")
            proxy.restore()
            watcher.wait_for_more("machine", 10)
        watcher.until(lambda: watcher.status() == b"online")
        code, _ = node.end()
    watcher.read_all()
    assert code == ExitCode.OK
    assert watcher.missing("machine") == watcher.missing("climate") == set()


def test_the_same_node_over_a_serial_line_that_is_unplugged_twice_loses_nothing(
    mosquitto: ChildBroker, watcher: Watcher, start: Callable[[str], Node]
) -> None:
    with PtyLine("127.0.0.1", port_of(mosquitto)) as line:
        node = start(line.url)
        watcher.until(lambda: len(watcher.samples("machine")) >= 5)
        for _ in range(2):
            line.unplug()
            node.log_until("connect_failed")
            line.plug()
            watcher.wait_for_more("machine", 10)
        watcher.until(lambda: watcher.status() == b"online")
        code, _ = node.end()
    watcher.read_all()
    assert code == ExitCode.OK
    assert watcher.missing("machine") == watcher.missing("climate") == set()
