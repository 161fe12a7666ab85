"""Rig files, and what a rig says it can do."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from device_sdk.config.faults import ConfigFaults
from device_sdk.errors import ConfigError
from device_sdk_hil.rig import CAPABILITIES, VIRTUAL_RIG, Rig, load_rig

RIG = '[rig]\nname = "r"\n'
CHIPS = 'chips = [{ chip = "bme280", address = 0x76 }]\n'


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Rig]:
    def load(text: str) -> Rig:
        path = tmp_path / "rig.toml"
        path.write_text(text)
        return load_rig(path)

    return load


@pytest.mark.system
def test_the_virtual_rig_can_do_everything() -> None:
    rig = load_rig(VIRTUAL_RIG)
    assert {name: rig.missing(name) for name in CAPABILITIES} == dict.fromkeys(CAPABILITIES, "")


def test_the_example_of_a_bench_is_a_valid_rig_file() -> None:
    rig = load_rig(VIRTUAL_RIG.with_name("bench-example.toml"))
    assert rig.patience == 60
    assert "there is no /dev/serial/by-id/" in rig.missing("serial_line.unplug")
    assert rig.missing("serial_line.noise") == "[serial_line] of the rig bench-1 cannot do it"
    assert rig.missing("sensor_bus.sht4x") == "[sensor_bus] of the rig bench-1 cannot do it"
    assert rig.missing("broker") == ""


def test_a_rig_without_a_section_says_so(load: Callable[[str], Rig]) -> None:
    assert load(RIG).missing("sensor_bus.nack") == "the rig r has no [sensor_bus]"


def test_a_port_without_commands_cannot_be_unplugged(load: Callable[[str], Rig]) -> None:
    rig = load(RIG + '[serial_line]\ndriver = "port"\nurl = "serial:///dev/null"\n')
    assert rig.missing("serial_line") == ""
    assert rig.missing("serial_line.unplug") == "[serial_line] of the rig r cannot do it"


def test_a_missing_extra_is_named(load: Callable[[str], Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    rig = load(RIG + '[serial_line]\ndriver = "pty"\n[sensor_bus]\ndriver = "fake"\n' + CHIPS)
    assert "pip install 'pyserial>=" in rig.missing("serial_line.unplug")
    assert "pip install 'adafruit-blinka>=" in rig.missing("sensor_bus")


def test_a_machine_without_a_broker_says_what_to_install(
    load: Callable[[str], Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_sdk.testing.broker_process.BROKERS", {})
    assert "sudo apt install mosquitto" in load(RIG + '[broker]\ndriver = "local"\n').missing("broker")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[broker]\ndriver = 'local'\n", r"expected a table \[rig\] with its name, but it is missing"),
        (RIG + "patience = 0\n", r"line 3: rig.patience: expected seconds or \"20s\".*found 0"),
        (RIG + "[broker]\n", r'line 3: broker.driver: expected one of "local", "url", but it is missing'),
        ('broker = "local"\n' + RIG, r'line 1: broker: expected a table \[broker\], found "local"'),
        (RIG + "[broker]\ndriver = 1\n", r'line 4: broker.driver: expected one of .*, found 1'),
        (
            RIG + '[broker]\ndriver = "url"\nurl = "tcp://x"\n',
            r"line 5: broker.url: expected mqtt://..., found tcp://...",
        ),
        (
            RIG + '[broker]\ndriver = "url"\nurl = "mqtt://x"\nwatch = "a/#/b"\n',
            r"line 6: broker.watch: .*#",
        ),
        (
            RIG + '[broker]\ndriver = "local"\nprogram = "hivemq"\n',
            r'line 5: broker.program: expected one of "mosquitto", "iotcore", found "hivemq"',
        ),
        (
            RIG + '[serial_line]\ndriver = "port"\nurl = "serial:///dev/x"\nunplug = ["x"]\n',
            r"line 3: serial_line: expected both of the commands unplug and plug or none, found one",
        ),
        (
            RIG + '[serial_line]\ndriver = "pty"\nport = "/dev/x"\n',
            r"line 5: serial_line.port: there is no such key",
        ),
        (
            RIG + f'[sensor_bus]\ndriver = "i2c"\nbus = "i2c1"\n{CHIPS}',
            r"line 5: sensor_bus.bus: expected 'i2c-1'.*found 'i2c1'",
        ),
        (
            RIG + '[sensor_bus]\ndriver = "fake"\nchips = []\n',
            r"line 5: sensor_bus.chips: expected at least one .*, found \[\]",
        ),
        (
            RIG + '[sensor_bus]\ndriver = "fake"\nchips = [{ chip = "bmp280", address = 0x99 }]\n',
            r'(?s)chips\[0\].chip: .*did you mean .bme280.*chips\[0\].address: expected an .*found 153',
        ),
        (
            RIG + '[sensor_bus]\ndriver = "fake"\n'
            'chips = [{ chip = "bme280", address = 0x76 }, { chip = "sht4x", address = 0x76 }]\n',
            r"line 5: sensor_bus.chips: expected every address once, found one twice",
        ),
        ("[rig\n", r"line 1: not TOML"),
    ],
)  # fmt: skip
def test_an_error_says_where_what_was_expected_and_what_was_found(
    load: Callable[[str], Rig], text: str, problem: str
) -> None:
    with pytest.raises(ConfigFaults, match=problem):
        load(text)


def test_a_rig_file_that_is_no_text_is_an_error_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "rig.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load_rig(path)
