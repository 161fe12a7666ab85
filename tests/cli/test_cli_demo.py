"""``device-sdk demo`` from outside: real brokers, a real outage, real signals."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from device_sdk.cli import main
from device_sdk.cli.common import ExitCode
from device_sdk.cli.demo.command import _through
from device_sdk.mqtt.packets import Connack
from device_sdk.testing.broker_process import BROKERS
from device_sdk.testing.broker_server import BrokerServer
from device_sdk.testing.scripted_broker import ScriptedBroker, expect, ignore, send
from tests.processes import ended_within, processes_with

KEYS = ["published", "delivered", "lost", "duplicates", "longest_outage_s", "peak_queue"]

# One second of samples does not fit an outage of 8 s, so each of these takes 12 s; they run side by side.
OUTAGES = {
    "mosquitto": ("mosquitto", "--broker", "mosquitto"),
    "iotcore": ("iotcore", "--broker", "iotcore"),
    "3.1.1": ("mosquitto", "--broker", "mosquitto", "-V", "3.1.1"),
    "restart": ("mosquitto", "--restart-broker"),
}


class Demo:
    """A running demo in a session of its own, as if it had a terminal; its processes carry a marker."""

    def __init__(self, name: str, temporary: Path, *options: str) -> None:
        self.marker = f"DEVICE_SDK_TEST_DEMO={os.getpid()}-{name}"
        key, _, value = self.marker.partition("=")
        temporary.mkdir()
        self.temporary = temporary
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "device_sdk", "demo", "--json", *options],
            env={**os.environ, key: value, "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def read_until(self, pattern: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if re.search(pattern, line):
                return line
        raise AssertionError(f"the demo ended without a line like {pattern!r}")

    def finish(self) -> tuple[int, dict[str, Any]]:
        out, complaints = self.process.communicate(timeout=50)
        assert complaints == ""
        result: dict[str, Any] = json.loads(out.splitlines()[-1])
        assert list(result) == KEYS
        return self.process.returncode, result

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        with self.process:
            pass


def needs(broker: str) -> None:
    if not BROKERS[broker].available():
        pytest.skip(f"needs {broker}")


@pytest.fixture(scope="module")
def outages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Demo]]:
    """One demo of each kind, started together."""
    temporary = tmp_path_factory.mktemp("demos")
    with ExitStack() as stack:
        demos = {}
        for name, (broker, *options) in OUTAGES.items():
            if BROKERS[broker].available():
                demos[name] = Demo(name, temporary / name, "--seconds", "1", *options)
                stack.callback(demos[name].kill)
        yield demos


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    with ExitStack() as stack:

        def started(name: str, *options: str) -> Demo:
            demo = Demo(name, tmp_path / name, *options)
            stack.callback(demo.kill)
            return demo

        yield started


@pytest.mark.system
@pytest.mark.parametrize("name", OUTAGES)
def test_an_outage_of_8_seconds_loses_nothing_and_leaves_nothing(name: str, outages: dict[str, Demo]) -> None:
    needs(OUTAGES[name][0])
    demo = outages[name]
    code, result = demo.finish()
    assert code == ExitCode.OK
    assert result["lost"] == 0
    assert result["delivered"] == result["published"] >= 100
    assert result["longest_outage_s"] >= 8
    assert result["peak_queue"] >= 60
    assert processes_with(demo.marker) == []
    assert list(demo.temporary.iterdir()) == []


@pytest.mark.system
def test_without_an_outage_every_sample_arrives_at_a_broker_of_somebody_else(
    start: Callable[..., Demo],
) -> None:
    needs("mosquitto")
    with BROKERS["mosquitto"]() as broker:
        demo = start("url", "--seconds", "1", "--no-outage", "--url", broker.url())
        code, result = demo.finish()
        broker.terminate()
        assert broker.folder is not None
        left = (broker.folder / "mosquitto.db").read_bytes()
    assert (code, result["lost"], result["longest_outage_s"]) == (ExitCode.OK, 0, 0.0)
    assert 9 <= result["published"] <= 10
    assert b"demo-sub" not in left, "the subscriber's session was left at the broker"
    assert processes_with(demo.marker) == []


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_outage_drains_reports_and_leaves_nothing(
    number: signal.Signals, start: Callable[..., Demo]
) -> None:
    needs("mosquitto")
    demo = start(number.name, "--seconds", "5", "--broker", "mosquitto")
    demo.read_until(" s  DOWN ")
    # As Ctrl-C in a terminal does: to the whole process group.
    os.killpg(demo.process.pid, number)
    code, result = demo.finish()
    assert code == ExitCode.OK
    assert result["lost"] == 0
    assert 0 < result["published"] < 60
    assert processes_with(demo.marker) == []
    assert list(demo.temporary.iterdir()) == []


@pytest.mark.system
def test_a_killed_demo_takes_broker_and_subscriber_with_it(start: Callable[..., Demo]) -> None:
    needs("mosquitto")
    demo = start("killed", "--seconds", "30", "--broker", "mosquitto")
    demo.read_until(" s  up ")
    children = [pid for pid in processes_with(demo.marker) if pid != demo.process.pid]
    assert len(children) == 3, "guard, broker, subscriber"
    demo.process.kill()
    demo.process.wait(20)
    assert all(ended_within(pid, 15) for pid in children)
    assert list(demo.temporary.iterdir()) == []


@pytest.mark.system
def test_a_subscriber_that_dies_loses_samples_and_the_demo_says_so(start: Callable[..., Demo]) -> None:
    needs("mosquitto")
    demo = start("lossy", "--seconds", "2", "--no-outage", "--broker", "mosquitto")
    demo.read_until(" s  up ")
    for pid in processes_with(demo.marker):
        if b"device_sdk.cli.demo.subscriber" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    code, result = demo.finish()
    assert code == ExitCode.FAILED
    assert result["published"] >= 15
    assert result["lost"] == result["published"] - result["delivered"] > 0


def test_the_way_through_the_proxy_keeps_the_credentials() -> None:
    assert _through("mqtt://broker.example", 4711) == "mqtt://127.0.0.1:4711"
    assert _through("mqtt://me:s%40cret@[::1]:1883", 4711) == "mqtt://me:s%40cret@127.0.0.1:4711"


def test_without_any_broker_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in BROKERS.values():
        monkeypatch.setattr(kind, "available", classmethod(lambda cls: False))
    assert main(["demo"]) == ExitCode.MISSING
    (line,) = capsys.readouterr().err.splitlines()
    assert "apt install mosquitto" in line
    assert "pip install 'iotcore>=" in line


def test_a_url_where_nobody_listens_is_no_connection(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        assert main(["demo", "--url", f"mqtt://127.0.0.1:{port}"]) == ExitCode.NO_CONNECTION
    assert f"no broker answers at 127.0.0.1:{port}: Connection refused\n" in capsys.readouterr().err


def test_a_broker_that_refuses_the_node_is_told_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    # The first connection is the look whether anybody listens.
    scripts = [[ignore()], [expect("connect"), send(Connack(reason_code=0x87))]]
    with BrokerServer(ScriptedBroker(*scripts)) as server:
        assert main(["demo", "--url", server.url]) == ExitCode.REFUSED
    assert "not authorized" in capsys.readouterr().err.lower()


@pytest.mark.parametrize(
    "options",
    [
        ["--seconds", "0"],
        ["--seconds", "soon"],
        ["--url", "mqtts://127.0.0.1"],
        ["--url", "127.0.0.1"],
        ["--url", "mqtt://127.0.0.1:port"],
        ["--url", "mqtt://127.0.0.1", "--restart-broker"],
        ["--url", "mqtt://127.0.0.1", "--broker", "mosquitto"],
        ["--broker", "iotcore", "--restart-broker"],
        ["--broker", "emqx"],
        ["--no-outage", "--restart-broker"],
    ],
)
def test_options_that_do_not_fit_together_are_told_at_once(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", *options]) == ExitCode.USAGE
    assert capsys.readouterr().err
