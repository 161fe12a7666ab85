"""``device-sdk run`` on a machine whose clock nobody vouches for, killed while samples wait for the time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from device_sdk import Client, Message
from device_sdk.errors import StoreError
from device_sdk.store.inspect import QueueReader
from device_sdk.testing.broker_process import ChildBroker

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 30.0

CONFIG = """\
[node]
id = "n1"
[clock]
wait = "never"
topic = "site/time"
[broker]
url = "{url}"
[queue]
file = "queue.db"
[[sensor]]
name = "machine"
driver = "host"
interval = "50ms"
"""
# The machine that runs this test may have NTP.
CLOCKLESS = """\
import sys
from device_sdk.node.clock import build
build.EVIDENCE = ()
from device_sdk.cli.node import run
sys.exit(run([sys.argv[1]]))
"""


def start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", CLOCKLESS, str(folder / "node.toml")], cwd=ROOT)


def waiting(folder: Path) -> int:
    with suppress(StoreError), QueueReader(folder / "queue.db.samples") as reader:
        return int(reader.stat()["messages"])
    return 0


def until(condition: Callable[[], bool], each_time: Callable[[], object] = lambda: None) -> None:
    pause, deadline = threading.Event(), time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        each_time()
        pause.wait(0.1)


def test_samples_of_a_killed_node_get_their_time_from_the_broker_in_the_next_run(
    mosquitto: ChildBroker, tmp_path: Path
) -> None:
    (tmp_path / "node.toml").write_text(CONFIG.format(url=mosquitto.url()))
    begin = time.time()
    got: list[dict[str, Any]] = []

    def take(message: Message) -> None:
        got.append(json.loads(message.payload))

    with Client(mosquitto.url()) as watcher:
        watcher.subscribe("n1/machine", qos=1, on_message=take).wait(PATIENCE_S)
        watcher.publish("site/time", "1800000000", qos=1, retain=True).wait(
            PATIENCE_S
        )  # no time: since when?
        first = start(tmp_path)
        try:
            until(lambda: waiting(tmp_path) >= 5)
        finally:
            first.kill()
            first.wait(PATIENCE_S)
        kept = waiting(tmp_path)
        second = start(tmp_path)
        try:
            until(lambda: waiting(tmp_path) >= kept + 5)
            assert got == []
            until(
                lambda: len(got) >= kept + 10,
                lambda: watcher.publish("site/time", f"{time.time():.3f}", qos=1),
            )
            until(lambda: waiting(tmp_path) == 0)
        finally:
            second.terminate()
            second.wait(PATIENCE_S)
    assert second.returncode == os.EX_OK
    begins = [place for place, sample in enumerate(got) if sample["seq"] == 0]
    assert begins[0] == 0
    assert len(begins) == 2
    runs = got[: begins[1]], got[begins[1] :]
    assert len(runs[0]) >= kept
    for run in runs:
        assert [sample["seq"] for sample in run] == list(range(len(run)))
    times = [sample["time"] for sample in got]
    assert times == sorted(times)
    assert begin - 5 < times[0] <= times[-1] < time.time() + 5
