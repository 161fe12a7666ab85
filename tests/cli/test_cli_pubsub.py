"""``device-sdk pub`` and ``device-sdk sub`` against real brokers and against none."""

from __future__ import annotations

import io
import json
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from device_sdk.cli import main
from device_sdk.cli.common import ExitCode
from device_sdk.mqtt.packets import Connack, Puback, Suback
from device_sdk.testing.broker_process import BROKERS, ChildBroker
from device_sdk.testing.broker_server import BrokerServer
from device_sdk.testing.scripted_broker import ScriptedBroker, Step, expect, ignore, send

VERSIONS = [
    *(("mosquitto", version) for version in ("5.0", "3.1.1", "3.1")),
    *(("iotcore", version) for version in ("5.0", "3.1.1")),
]
RETAINED = "device-sdk/test/retained"
TOPIC = "device-sdk/test/live"


@pytest.fixture(scope="module", params=BROKERS)
def broker(request: pytest.FixtureRequest) -> Iterator[ChildBroker]:
    with new_broker(request.param) as running:
        yield running


def new_broker(name: str) -> ChildBroker:
    kind = BROKERS[name]
    if not kind.available():
        pytest.skip(f"needs {name}")
    return kind()


def subscriber(url: str, *options: str) -> subprocess.Popen[bytes]:
    """Start ``sub`` and return when its subscriptions are in place: a retained message has come."""
    assert main(["pub", "--url", url, "-t", f"{TOPIC}/ready", "-m", "ready", "-r", "-q", "1"]) == ExitCode.OK
    arguments = ["sub", "--url", url, "-t", f"{TOPIC}/#", "--timeout", "20", *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "device_sdk", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    if b"ready" not in first:
        process.kill()
        raise AssertionError(f"sub printed {first!r} and {process.communicate(timeout=20)}")
    return process


@pytest.mark.system
@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_what_pub_retains_sub_prints_in_every_version(
    name: str, version: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    # A broker each: iotcore with clients on both ports closes a connection now and then.
    with new_broker(name) as broker:
        for qos in "012":
            connection = ["--url", broker.url(version), "-V", version, "-t", f"{RETAINED}/{qos}", "-q", qos]
            assert main(["pub", *connection, "-r", "-m", f"21.5 °C at {qos}"]) == ExitCode.OK
            assert main(["sub", *connection, "-n", "1", "--timeout", "10"]) == ExitCode.OK
            assert capfdbinary.readouterr().out == f"21.5 °C at {qos}\n".encode()


@pytest.mark.system
def test_each_line_of_standard_input_is_a_message_in_order(
    broker: ChildBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = broker.url()
    lines = [b"line %d" % number for number in range(1500)] + [b"", b"  the last has no end"]
    with subscriber(url, "-q", "1", "-v", "-n", str(1 + len(lines))) as process:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\n".join(lines))))
        assert main(["pub", "--url", url, "-q", "1", "-t", f"{TOPIC}/lines", "--stdin-lines"]) == ExitCode.OK
        out, complaints = process.communicate(timeout=30)
    assert (process.returncode, complaints) == (ExitCode.OK, b"")
    assert out.splitlines() == [f"{TOPIC}/lines ".encode() + line for line in lines]


@pytest.mark.system
def test_json_carries_topic_qos_and_a_payload_of_any_kind(broker: ChildBroker) -> None:
    url = broker.url()
    with subscriber(url, "--json", "-q", "1", "-n", "3") as process:
        assert main(["pub", "--url", url, "-q", "1", "-t", f"{TOPIC}/json", "-m", "text"]) == ExitCode.OK
        # A byte that is no UTF-8 reaches Python's argv as a surrogate.
        assert main(["pub", "--url", url, "-q", "1", "-t", f"{TOPIC}/json", "-m", "\udcff"]) == ExitCode.OK
        out, _ = process.communicate(timeout=20)
    text, binary = (json.loads(line) for line in out.splitlines())
    assert (text["topic"], text["qos"], text["retain"]) == (f"{TOPIC}/json", 1, False)
    assert text["payload"] == "text"
    assert binary["payload_base64"] == "/w=="
    assert "payload" not in binary


@pytest.mark.system
def test_ctrl_c_ends_an_endless_sub_cleanly(broker: ChildBroker) -> None:
    with subscriber(broker.url()) as process:
        process.send_signal(signal.SIGINT)
        out, complaints = process.communicate(timeout=20)
    assert (process.returncode, out, complaints) == (ExitCode.OK, b"", b"")


@pytest.mark.system
def test_a_count_that_is_not_reached_in_time_says_how_far_it_came(
    broker: ChildBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["sub", "--url", broker.url(), "-t", f"{TOPIC}/silence", "-n", "2", "--timeout", "0.2"]
    assert main(argv) == ExitCode.TIMEOUT
    assert capsys.readouterr().err == "device-sdk: 0 of 2 messages arrived\n"


@pytest.mark.system
def test_time_that_runs_out_without_a_count_is_an_ordinary_end(broker: ChildBroker) -> None:
    assert main(["sub", "--url", broker.url(), "-t", f"{TOPIC}/silence", "--timeout", "0.2"]) == ExitCode.OK


@pytest.mark.system
def test_a_topic_with_a_wildcard_is_a_wrong_argument(
    broker: ChildBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pub", "--url", broker.url(), "-t", "a/#", "-m", "x"]) == ExitCode.USAGE
    assert "topic" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["pub", "-m", "x"], ["sub"]])
def test_without_a_broker_the_reason_is_one_line_and_code_3(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"mqtt://127.0.0.1:{nobody.getsockname()[1]}"
        assert main([*command, "-t", "a", "--url", url]) == ExitCode.NO_CONNECTION
    (line,) = capsys.readouterr().err.splitlines()
    assert "127.0.0.1" in line


def test_a_broker_that_never_answers_is_a_timeout(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"mqtt://127.0.0.1:{silent.getsockname()[1]}"
        assert main(["pub", "-t", "a", "-m", "x", "--url", url, "--timeout", "0.3"]) == ExitCode.TIMEOUT
    assert len(capsys.readouterr().err.splitlines()) == 1


NOT_AUTHORIZED = 0x87
REFUSALS: dict[str, tuple[list[str], list[Step]]] = {
    "connection": (["pub", "-m", "x"], [send(Connack(reason_code=NOT_AUTHORIZED))]),
    "message": (
        ["pub", "-m", "x", "-q", "1"],
        [
            send(Connack()),
            expect("publish"),
            send(lambda seen: Puback(seen.packet_id, NOT_AUTHORIZED)),
            ignore(),
        ],
    ),
    "subscription": (
        ["sub"],
        [
            send(Connack()),
            expect("subscribe"),
            send(lambda seen: Suback(seen.packet_id, [NOT_AUTHORIZED])),
            ignore(),
        ],
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_the_broker_refuses_is_told_with_its_reason_and_code_4(
    what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv, steps = REFUSALS[what]
    with BrokerServer(ScriptedBroker([expect("connect"), *steps])) as server:
        assert main([*argv, "-t", "a", "--url", server.url]) == ExitCode.REFUSED
    assert "not authorized" in capsys.readouterr().err.lower()


@pytest.mark.parametrize(("level", "logged"), [("warning", 0), ("info", 1)])
@pytest.mark.parametrize("command", [["pub", "-m", "x"], ["sub"]])
def test_a_refused_connection_is_told_once_and_not_logged_besides(
    command: list[str], level: str, logged: int, caplog: pytest.LogCaptureFixture
) -> None:
    root = logging.getLogger()
    before = root.level
    steps = [expect("connect"), send(Connack(reason_code=NOT_AUTHORIZED))]
    try:
        with BrokerServer(ScriptedBroker(steps)) as server:
            assert main([*command, "-t", "a", "--url", server.url, "--log-level", level]) == ExitCode.REFUSED
    finally:
        root.setLevel(before)
    assert sum("connect_failed" in message for message in caplog.messages) == logged


@pytest.mark.parametrize(
    "argv",
    [
        ["pub", "-m", "x"],
        ["pub", "-t", "a"],
        ["pub", "-t", "a", "-m", "x", "--stdin-lines"],
        ["pub", "-t", "a", "-m", "x", "-q", "3"],
        ["pub", "-t", "a", "-m", "x", "-V", "4"],
        ["pub", "-t", "a", "-m", "x", "--url", "gopher://127.0.0.1"],
        ["pub", "-t", "a", "-m", "x", "--url", "mqtt://127.0.0.1:99999"],
        ["sub"],
        ["sub", "-t", "a", "-v", "--json"],
        ["sub", "-t", "a", "-n", "0"],
    ],
)
def test_wrong_arguments_are_told_before_anything_is_done(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == ExitCode.USAGE
    assert capsys.readouterr().err
