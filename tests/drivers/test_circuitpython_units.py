"""The units of CircuitPython drivers, where they are not those of the design guide."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from device_sdk.drivers.circuitpython import CircuitPythonDriver, units
from device_sdk.errors import ArgumentError
from device_sdk.testing.fake_i2c import FakeI2CBus, FakeWordDevice


class FakeINA260(FakeWordDevice):
    """TI SBOS656C: 1.25 mA, 1.25 mV and 10 mW per bit. Here 1 A at 12 V."""

    def power_on(self) -> None:
        """Fill the registers."""
        self.words.update({0: 0x6127, 1: 800, 2: 9600, 3: 1200, 6: 0, 7: 0, 0xFE: 0x5449, 0xFF: 0x2270})


def test_the_power_of_an_ina260_is_in_watt() -> None:
    pytest.importorskip("adafruit_ina260", reason="needs adafruit-circuitpython-ina260")
    bus = FakeI2CBus()
    bus.add(0x40, FakeINA260())
    with CircuitPythonDriver("adafruit_ina260:INA260", bus) as sensor:
        got = {reading.channel: (reading.value, reading.unit) for reading in sensor.read()}
    assert got == {"current": (1.0, "A"), "voltage": (12.0, "V"), "power": (12.0, "W")}


# Package, property, what the driver gives -> what it is in our unit, by the docstrings of the drivers.
FACTS = [
    ("adafruit_ina219", "current", 57, 0.057),
    ("adafruit_ina219", "power", 0.6, 0.6),
    ("adafruit_ina219", "shunt_voltage", 0.01, 0.01),
    ("adafruit_ina228", "current", 2.5, 2.5),
    ("adafruit_ina228", "power", 12.0, 12.0),
    ("adafruit_ina23x", "current", 2.5, 2.5),
    ("adafruit_ina23x", "shunt_voltage", 0.01, 0.01),
    ("adafruit_ina260", "current", 1000.0, 1.0),
    ("adafruit_ina260", "power", 12_000, 12.0),
    ("adafruit_ina3221", "current", 250.0, 0.25),
    ("adafruit_ina3221", "shunt_voltage", 25.0, 0.025),
    ("adafruit_lsm9ds1", "magnetic", (0.5, 0.0, -0.25), (50e-6, 0.0, -25e-6)),
    ("adafruit_lsm9ds1", "gyro", (1.0, 2.0, 3.0), (1.0, 2.0, 3.0)),
    ("adafruit_lsm9ds0", "magnetic", (0.5, 0.0, -0.25), (50e-6, 0.0, -25e-6)),
    ("adafruit_lsm9ds0", "gyro", (180.0, 0.0, -90.0), (math.pi, 0.0, -math.pi / 2)),
    ("adafruit_lis3mdl", "magnetic", (48.0, 0.0, -1.0), (48e-6, 0.0, -1e-6)),
    ("adafruit_lsm6ds.lsm6dsox", "gyro", (1.0, 2.0, 3.0), (1.0, 2.0, 3.0)),
    ("adafruit_tmf8801.tmf8801", "distance", 570, 0.57),
    ("adafruit_vl53l1x", "distance", 57.0, 0.57),
]


@pytest.fixture
def chips(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module for driver classes of a package that nobody knows."""
    module = ModuleType("chips")
    monkeypatch.setitem(sys.modules, "chips", module)
    yield module


def chip_with(read: str, value: object) -> type:
    """A driver class that takes a bus and has one property."""
    return type("Chip", (), {"__init__": lambda self, i2c: None, read: property(lambda self: value)})


def got_from(read: str, value: object, path: str, **options: Any) -> list[tuple[str, object, str]]:
    sys.modules[path.partition(":")[0]].Chip = chip_with(read, value)  # type: ignore[attr-defined]
    with CircuitPythonDriver(path, FakeI2CBus(), **options) as sensor:
        return [(each.channel, each.value, each.unit) for each in sensor.read()]


@pytest.mark.parametrize(("package", "read", "given", "ours"), FACTS)
def test_a_known_package_has_its_own_units(
    monkeypatch: pytest.MonkeyPatch, package: str, read: str, given: object, ours: object
) -> None:
    for name in {package, package.partition(".")[0]}:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    choices: list[dict[str, Any]] = [{}, {"channels": [read]}, {"channels": {read: {}}}]
    for options in choices:
        got = got_from(read, given, f"{package}:Chip", **options)
        expected = ours if isinstance(ours, tuple) else (ours,)
        assert [value for _, value, _ in got] == [pytest.approx(each) for each in expected]


def test_a_vector_that_is_computed_on_demand_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "adafruit_lsm9ds1", ModuleType("adafruit_lsm9ds1"))
    got = got_from("acceleration", map(float, (1, 2, 3)), "adafruit_lsm9ds1:Chip")
    assert [value for _, value, _ in got] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("read", sorted(units.DIFFERING))
def test_a_unit_that_differs_from_driver_to_driver_is_never_guessed(chips: ModuleType, read: str) -> None:
    value = (1.0, 2.0, 3.0) if read in ("magnetic", "gyro") else 1.0
    words = rf"channels.{read}: drivers give it in .* or .*the unit of chips:Chip is not known: .*scale = "
    unit = {"current": "A", "power": "W", "shunt_voltage": "V", "magnetic": "T", "gyro": "rad/s"}[read]
    choices: list[dict[str, Any]] = [{}, {"channels": [read]}, {"channels": {read: {"unit": unit}}}]
    for options in choices:
        with pytest.raises(ArgumentError, match=words):
            got_from(read, value, "chips:Chip", **options)


def test_a_unit_that_is_not_known_is_said_with_its_scale(chips: ModuleType) -> None:
    current = {"current": {"unit": "A", "scale": 1}}
    assert got_from("current", 2.5, "chips:Chip", channels=current) == [("current", 2.5, "A")]
    field = {"magnetic": {"unit": "T", "scale": 1e-4, "name": "field"}}
    assert got_from("magnetic", (0.5, 1.0, 0.0), "chips:Chip", channels=field) == [
        ("field.x", 50e-6, "T"), ("field.y", 1e-4, "T"), ("field.z", 0.0, "T")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("read", "given", "options", "value", "unit"),
    [
        # With the standard unit its scale stays, and what else the table says about it.
        ("pressure", 1013.25, {"unit": "Pa"}, 101_325.0, "Pa"),
        ("TVOC", 57, {"unit": "ppm"}, 0.057, "ppm"),
        ("distance", 57, {"unit": "m", "max": 2}, 0.57, "m"),
        ("temperature", 21.23456, {"unit": "Cel"}, 21.235, "Cel"),
        # The driver's own unit, and one that is a multiple.
        ("pressure", 1013.25, {"unit": "hPa"}, 1013.25, "hPa"),
        ("distance", 57, {"unit": "mm"}, 570.0, "mm"),
        # A scale of the user comes first.
        ("pressure", 14.5, {"unit": "Pa", "scale": 6894.757}, 99973.98, "Pa"),
        ("light", 17, {"unit": "lx"}, 17, "lx"),
    ],
)
def test_a_unit_keeps_or_makes_its_scale(
    chips: ModuleType, read: str, given: object, options: dict[str, Any], value: float, unit: str
) -> None:
    [(_, got, in_unit)] = got_from(read, given, "chips:Chip", channels={read: options})
    assert (got, in_unit) == (pytest.approx(value), unit)


def test_a_unit_that_nothing_leads_to_needs_a_scale(chips: ModuleType) -> None:
    words = "channels.pressure.scale: the driver gives hPa: say what to multiply with to make it bar"
    with pytest.raises(ArgumentError, match=words):
        CircuitPythonDriver("chips:Chip", FakeI2CBus(), channels={"pressure": {"unit": "bar"}})


def test_the_unit_of_a_known_package_is_kept_with_the_standard_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    for package, given, unit, expected in [
        ("adafruit_ina260", 1000, "A", 1.0),
        ("adafruit_ina23x", 2.5, "A", 2.5),
        ("adafruit_ina23x", 2.5, "mA", 2500.0),
        ("adafruit_ina219", 57, "mA", 57),
    ]:
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
        got = got_from("current", given, f"{package}:Chip", channels={"current": {"unit": unit}})
        assert got == [("current", pytest.approx(expected), unit)]
