"""``device-sdk sensors``."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from device_sdk.cli import main
from device_sdk.cli.common import ExitCode
from device_sdk.drivers import DRIVERS, Reading
from device_sdk.drivers.host import HostDriver


def test_list_names_every_driver_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sensors", "list"]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(DRIVERS)
    host = "host           The machine itself: load, memory, uptime, network, CPU, disks, supply."
    assert host in lines


def test_read_shows_a_table_with_units(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sensors", "read", "host"]) == ExitCode.OK
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split()[:4] == ["CHANNEL", "VALUE", "UNIT", "QUALITY"]
    table = {row.split()[0]: row.split()[1:] for row in rows}
    assert table["load.1m"][1:] == ["1", "good"]
    assert int(table["memory.total"][0]) > 0
    assert table["memory.total"][1] == "B"


def test_read_json_is_one_object_per_sample(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sensors", "read", "host", "--json", "--interval", "0.01", "--count", "3"]) == ExitCode.OK
    samples = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(samples) == 3
    assert samples[0]["driver"] == "host"
    assert samples[0]["time"] <= samples[1]["time"] <= samples[2]["time"]
    uptime = samples[0]["readings"]["uptime"]
    assert uptime["unit"] == "s"
    assert uptime["quality"] == "good"
    assert uptime["value"] > 0


def test_a_channel_without_a_value_shows_a_dash(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = (Reading("net.wwan0.rx_bytes", None, "B", 0.0, "bad"),)
    monkeypatch.setattr(HostDriver, "read", lambda self: gone)
    assert main(["sensors", "read", "host"]) == ExitCode.SENSOR
    assert capsys.readouterr().out.splitlines()[1].split() == ["net.wwan0.rx_bytes", "-", "B", "bad"]


@pytest.fixture
def lamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with lamp_beside_me.py, which one is in; nothing of it stays."""
    (tmp_path / "lamp_beside_me.py").write_text(
        "left = [None, 5.0]\ndef nothing(): return None\ndef once(): return {'a': None, 'b': left.pop()}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.delitem(sys.modules, "lamp_beside_me", raising=False)
    return tmp_path


def test_no_channel_that_could_be_measured_is_an_error_with_its_reason(
    lamp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read = ["sensors", "read", "function", "-o", "function=lamp_beside_me:nothing"]
    assert main(read) == ExitCode.SENSOR
    shown = capsys.readouterr()
    assert [line.split() for line in shown.out.splitlines()] == [
        ["CHANNEL", "VALUE", "UNIT", "QUALITY", "REASON"], ["value", "-", "1", "bad", "no", "value"]
    ]  # fmt: skip
    assert shown.err == "device-sdk: no channel of function could be measured: no value\n"
    assert main([*read, "--json"]) == ExitCode.SENSOR
    assert json.loads(capsys.readouterr().out)["readings"]["value"]["reason"] == "no value"


def test_one_channel_that_could_be_measured_is_a_success(
    lamp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    units = 'units={a="V", b="V"}'
    assert (
        main(["sensors", "read", "function", "-o", "function=lamp_beside_me:once", "-o", units])
        == ExitCode.OK
    )
    assert capsys.readouterr().out.splitlines()[2].split() == ["b", "5.0", "V", "good"]


def test_a_function_beside_the_user_is_found_behind_what_is_installed(lamp: Path) -> None:
    (lamp / "json.py").write_text("raise RuntimeError('not this one')\n")
    before = list(sys.path)
    assert main(["sensors", "read", "function", "-o", "function=lamp_beside_me:nothing"]) == ExitCode.SENSOR
    assert sys.path == [*before, str(lamp)]
    sys.path.remove(str(lamp))
    assert main(["sensors", "read", "host", "-o", "loopback=true"]) == ExitCode.OK
    assert sys.path == before, "only for functions"


def test_a_sensor_that_is_not_there_is_one_line_and_its_own_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sensors", "read", "host", "--root", str(tmp_path)]) == ExitCode.SENSOR
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/proc/net/dev is missing" in line


def sensors_process(*options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "device_sdk", "sensors", "read", "host", "--json", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "code"), [((), ExitCode.OK), (("--count", "1000000"), ExitCode.INTERRUPTED)]
)
def test_ctrl_c_ends_an_endless_read_cleanly_and_interrupts_a_counted_one(
    options: tuple[str, ...], code: ExitCode
) -> None:
    with sensors_process("--interval", "0.01", *options) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=20)
    assert (process.returncode, complaints) == (code, "")


def test_a_reader_that_leaves_the_pipe_ends_it_quietly() -> None:
    with sensors_process("--interval", "0.01") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == ExitCode.INTERRUPTED
        assert process.stderr.read() == ""


# Options of the driver


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A folder with a /proc that has the loopback interface only."""
    (tmp_path / "proc" / "net").mkdir(parents=True)
    for name in ("loadavg", "meminfo", "uptime"):
        (tmp_path / "proc" / name).write_bytes(Path("/proc", name).read_bytes())
    counters = " ".join("0" * 16)
    (tmp_path / "proc" / "net" / "dev").write_text(f"a|b\nc|d\nlo: {counters}\n")
    return tmp_path


def test_options_reach_the_driver_as_toml_values_or_texts(
    proc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["-o", f"root={proc}", "-o", "loopback=true", "--json"]
    assert main(["sensors", "read", "host", *options]) == ExitCode.OK
    assert "net.lo.rx_bytes" in json.loads(capsys.readouterr().out)["readings"]


def test_any_kind_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["-o", "function=time:time", "-o", "units=s", "--json"]
    assert main(["sensors", "read", "function", *options]) == ExitCode.OK
    sample = json.loads(capsys.readouterr().out)
    assert sample["readings"]["value"]["unit"] == "s"
    assert sample["readings"]["value"]["value"] >= sample["time"] - 0.01, "12 digits are published"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "lopback=true"], ["lopback", "did you mean 'loopback'"]),
        (["-o", "loopback=maybe"], ["loopback", "true or false", '"maybe"']),
        (["-o", "loopback"], ["NAME=VALUE"]),
        (["-o", "=x"], ["NAME=VALUE"]),
        (["-o", "a=1", "-o", "b=2"], ["a: host has no such option", "b: host has no such option"]),
    ],
)
def test_a_wrong_option_is_told_before_anything_is_opened(
    options: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sensors", "read", "host", *options]) == ExitCode.USAGE
    shown = capsys.readouterr().err
    assert all(word in shown for word in words), shown


# discover


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with one thermal zone and an I2C bus."""
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("cpu thermal\n")
    (zone / "temp").write_text("48312\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "i2c-1").touch()
    return tmp_path


def test_discover_shows_what_can_be_read_and_how(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sensors", "discover", "--root", str(machine)]) == ExitCode.OK
    first, second, count, advice = capsys.readouterr().out.splitlines()
    assert first == f"sysfs -o 'device=thermal:cpu thermal' -o root={machine}"
    assert second.startswith("    cpu thermal, ") and second.endswith(": temperature")
    assert count.startswith("The kernel reads 1 sensor. I2C buses: i2c-1;")
    assert "'device-sdk sensors read' and the words above" in advice
    assert main(["sensors", "read", *shlex.split(first)]) == ExitCode.OK
    assert "48.312" in capsys.readouterr().out


def test_discover_says_why_a_sensor_is_not_proposed(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(machine / "sys/class/thermal/thermal_zone0", machine / "sys/class/thermal/thermal_zone1")
    assert main(["sensors", "discover", "--root", str(machine)]) == ExitCode.OK
    first, why, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("not proposed: cpu thermal, ") and first.endswith(": temperature")
    assert "2 devices are called 'cpu thermal'" in why
    assert main(["sensors", "discover", "--json", "--root", str(machine)]) == ExitCode.OK
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["options"], "2 devices" in each["reason"]) for each in found] == [({}, True)] * 2


def test_discover_json_is_one_object_per_sensor(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sensors", "discover", "--json", "--root", str(machine)]) == ExitCode.OK
    (found,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found["driver"] == "sysfs"
    assert found["options"]["device"] == "thermal:cpu thermal"
    assert found["channels"] == ["temperature"]


def test_discover_finds_nothing_on_a_bare_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sensors", "discover", "--root", str(tmp_path)]) == ExitCode.OK
    count, advice = capsys.readouterr().out.splitlines()
    assert count.startswith("The kernel reads no sensors. I2C buses: none;")
    assert "'device-sdk sensors read' and host" in advice
