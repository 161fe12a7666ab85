"""``device-sdk run`` and ``device-sdk config`` from outside. tests/system/test_node.py has real brokers."""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_sdk.cli import main
from device_sdk.cli.common import ExitCode
from device_sdk.mqtt.packets import Connack
from device_sdk.node.example import EXAMPLE
from device_sdk.node.schema import node_schema
from device_sdk.testing import BrokerServer, FaultProxy, ModelBroker, ScriptedBroker
from device_sdk.testing.scripted_broker import expect, send
from tests.node.manager import Manager

PATIENCE_S = 20.0
MISTAKES = """\
[node]
id = "n1"
[broker]
url = "mqtt://me:geheim@127.0.0.1:port"
pasword = "geheim"
[[sensor]]
name = "machine"
driver = "hots"
interval = "soon"
"""
GOOD = """\
[node]
id = "n1"
drain = "{drain}"
[clock]
wait = 0
[broker]
url = "{url}"
[[sensor]]
name = "lamp"
driver = "function"
interval = "20ms"
options = {{ function = "lamp:brightness", units = "lx" }}
"""

HANGS = """\
import time
reads = 0
def brightness():
    global reads
    reads += 1
    time.sleep(0 if reads < 3 else 3600)
    return 320
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def log_level_and_path_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    level = logging.getLogger().level
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    logging.getLogger().setLevel(level)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start ``run`` with a function beside the configuration as its only sensor."""
    processes: list[subprocess.Popen[str]] = []

    def started(
        url: str,
        drain: str = "10s",
        *options: str,
        more: str = "",
        lamp: str = "def brightness(): return 320\n",
    ) -> subprocess.Popen[str]:
        (tmp_path / "lamp.py").write_text(lamp)
        (tmp_path / "node.toml").write_text(GOOD.format(url=url, drain=drain) + more)
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "device_sdk", "run", str(tmp_path / "node.toml"), *options],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
        return processes[-1]

    yield started
    for process in processes:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


def log_until(process: subprocess.Popen[str], pattern: str) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if re.search(pattern, line):
            return line
    raise AssertionError(f"no line like {pattern!r}")


# config


def test_config_schema_prints_the_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == node_schema()


def test_the_example_passes_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "example"]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert shown == EXAMPLE
    path = tmp_path / "node.toml"
    path.write_text(shown)
    assert main(["config", "check", str(path)]) == ExitCode.OK
    assert capsys.readouterr().out == (
        f"{path}: no errors; node greenhouse-1, 2 sensors, tcp 127.0.0.1:1883\n"
    )


@pytest.mark.parametrize("content", [b"dear diary", b"\x89PNG\0" * 100, b"\xff" * 4096, b""])
def test_a_check_changes_nothing_where_the_queue_s_file_would_be(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path, queue = tmp_path / "node.toml", tmp_path / "queue.db"
    path.write_text(
        f'node.id = "n"\nbroker.url = "mqtt://127.0.0.1"\nqueue.file = "{queue}"\n'
        '[[sensor]]\nname = "machine"\ndriver = "host"\ninterval = "1m"\n'
    )
    queue.write_bytes(content)
    before = {each: (each.read_bytes(), each.stat().st_mtime_ns) for each in tmp_path.iterdir()}
    assert main(["config", "check", str(path)]) == ExitCode.OK
    assert {each: (each.read_bytes(), each.stat().st_mtime_ns) for each in tmp_path.iterdir()} == before


@pytest.mark.parametrize("command", [["config", "check"], ["run"]])
def test_check_and_run_refuse_a_wrong_file_with_the_same_words(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "node.toml"
    path.write_text(MISTAKES)
    assert main([*command, str(path)]) == ExitCode.USAGE
    shown = capsys.readouterr().err
    assert "geheim" not in shown
    first, *others = shown.splitlines()
    assert first == "device-sdk: node.toml has 4 errors:"
    assert [line.split()[2] for line in others] == [
        "broker.url:",
        "broker.pasword:",
        "sensor[0].driver:",
        "sensor[0].interval:",
    ]
    assert others[1] == "  line 5: broker.pasword: there is no such key; did you mean 'password'?"


@pytest.mark.parametrize("command", [["config", "check"], ["run"]])
def test_a_file_that_is_not_there_is_one_line(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, str(tmp_path / "none.toml")]) == ExitCode.USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("none.toml cannot be read: No such file or directory")


@pytest.mark.parametrize("command", [["config", "check"], ["run"]])
def test_values_that_only_together_are_wrong_are_a_wrong_configuration(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "node.toml"
    path.write_text(EXAMPLE.replace("[queue]", 'version = "3.1.1"\npassword = "geheim"\n[queue]'))
    assert main([*command, str(path)]) == ExitCode.USAGE
    shown = capsys.readouterr().err
    assert "user name" in shown.replace("_", " ")
    assert "geheim" not in shown


@pytest.mark.parametrize("argv", [["config"], ["config", "check"], ["config", "paint"], ["run"]])
def test_wrong_arguments_end_with_the_usage_code(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == ExitCode.USAGE
    assert capsys.readouterr().err


def test_without_msgspec_the_commands_say_what_to_install() -> None:
    program = "import sys; sys.modules['msgspec'] = None; from device_sdk.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "config", "example"],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == ExitCode.MISSING
    assert "pip install 'msgspec>=" in done.stderr


# run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_drains_and_ends_with_success(number: signal.Signals, start: Start) -> None:
    with BrokerServer(ModelBroker()) as server:
        process = start(server.url)
        server.wait_for(lambda: len(server.broker.payloads("n1/lamp")) >= 3, PATIENCE_S)
        process.send_signal(number)
        out, log = process.communicate(timeout=PATIENCE_S)
        retained = {topic: message.payload for topic, message in server.broker.retained.items()}
    assert (process.returncode, out) == (ExitCode.OK, "")
    assert retained == {"n1/lamp/status": b"offline", "n1/status": b"offline"}
    assert b'"value":{"value":320,"unit":"lx"}' in server.broker.payloads("n1/lamp")[0]
    assert "sensor lamp: ok" in log
    assert log.splitlines()[-1].endswith("stopped, the broker has everything")


def test_the_log_level_can_be_lowered(start: Start) -> None:
    with BrokerServer(ModelBroker()) as server:
        process = start(server.url, "10s", "--log-level", "warning")
        server.wait_for(lambda: server.broker.payloads("n1/lamp"), PATIENCE_S)
        process.terminate()
        _, log = process.communicate(timeout=PATIENCE_S)
    assert log == ""


def test_a_stop_without_a_broker_ends_after_the_drain_with_the_code_for_no_connection(start: Start) -> None:
    with FaultProxy("127.0.0.1", 1) as proxy:
        proxy.cut()
        process = start(f"mqtt://127.0.0.1:{proxy.port}", "100ms")
        log_until(process, "sensor lamp: ok")
        log_until(process, "connect_failed")
        process.terminate()
        _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.NO_CONNECTION
    assert re.fullmatch(r"device-sdk: \d+ messages are lost: .*refused.*", log.splitlines()[-1])


def test_a_second_signal_does_not_wait_for_the_drain(start: Start) -> None:
    with FaultProxy("127.0.0.1", 1) as proxy:
        proxy.cut()
        process = start(f"mqtt://127.0.0.1:{proxy.port}", "10m")
        log_until(process, "connect_failed")
        process.terminate()
        log_until(process, "stopping: waiting up to 600 s")
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.NO_CONNECTION


def test_a_node_that_the_broker_refuses_goes_on_trying_and_ends_with_the_code_for_it(start: Start) -> None:
    refusal = [expect("connect"), send(Connack(reason_code=0x87))]
    with BrokerServer(ScriptedBroker(*[refusal] * 20)) as server:
        process = start(server.url, "100ms")
        log_until(process, "connect_failed|refused")
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.REFUSED


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.close()


def test_systemd_is_told_of_start_life_and_stop(
    manager: Manager, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    with BrokerServer(ModelBroker()) as server:
        process = start(server.url)
        assert manager.wait_for("READY=1") == ["READY=1"]
        manager.wait_for("STATUS=1 of 1 sensors online")
        fed = manager.wait_for("WATCHDOG=1") + manager.wait_for("WATCHDOG=1")
        assert "WATCHDOG=1" in fed[-1]
        process.terminate()
        assert manager.wait_for("STOPPING=1")[-1] == "STOPPING=1"
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.OK


def test_the_watchdog_starves_when_a_bus_has_failed_and_the_node_goes_on_until_it_is_stopped(
    manager: Manager, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    with BrokerServer(ModelBroker()) as server:
        soon = 'read_timeout = "100ms"\n'
        table = GOOD[GOOD.index("[[sensor]]") :].format()
        others = [table.replace('"lamp"', f'"lamp{number}"') + soon for number in (2, 3)]
        process = start(server.url, more=soon + "".join(others), lamp=HANGS)
        manager.wait_for("function has failed: restart the node")
        manager.heard()
        server.wait_for(lambda: server.broker.retained["n1/lamp/status"].payload == b"offline", PATIENCE_S)
        with pytest.raises(TimeoutError):
            manager.wait_for("WATCHDOG=1", seconds=1.0)
        assert process.poll() is None
        process.terminate()
        manager.wait_for("STOPPING=1")
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.OK


def test_a_worker_that_dies_ends_the_node_instead_of_leaving_it_half_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("device_sdk.node.service.Service.is_alive", False)
    path = tmp_path / "node.toml"
    with BrokerServer(ModelBroker()) as server:
        path.write_text(GOOD.format(url=server.url, drain="5s"))
        assert main(["run", str(path)]) == ExitCode.FAILED
    assert "worker" in capsys.readouterr().err
