"""A chip that lost its supply between two reads is set up again before it is believed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from device_sdk.drivers import open_driver
from device_sdk.errors import DriverError
from device_sdk.testing.fake_i2c import (
    FakeI2CBus,
    FakeI2CDevice,
    FakeRegisterDevice,
    FakeWordDevice,
    NoAcknowledge,
)

ADDRESS = 0x23


class FakeBH1750(FakeI2CDevice):
    """ROHM BH1750FVI: it measures once it was told how, and its data are 0 after power-on."""

    mode = 0
    lux = 100.0

    def power_on(self) -> None:
        """Forget the mode."""
        self.mode = 0

    def write(self, data: bytes) -> None:
        """Take a command."""
        self.mode = data[0] if data else self.mode

    def read(self, count: int) -> bytes:
        """Return the light: 1.2 counts are 1 lx, twice as many in the mode 2 of high resolution."""
        counts = min(0xFFFF, int(self.lux * 1.2) * (1 + self.mode % 2))
        return (counts if self.mode & 0x30 else 0).to_bytes(2)[:count]


class FakeVEML7700(FakeWordDevice):
    """Vishay VEML7700: 16 bits of light in register 4; at the reset it is switched off."""

    byte_order = "little"
    light = 5000

    def power_on(self) -> None:
        """Reset the registers."""
        self.words = dict.fromkeys(range(8), 0) | {0: 1, 7: 0xC481}

    def word_read(self, register: int) -> int:
        """Return the light as long as it is switched on."""
        is_on = not self.words[0] & 1
        return self.light * is_on if register in (4, 5) else self.words[register]


class SwitchedOn(FakeRegisterDevice):
    """A chip that gives 0 until register 1 is 1."""

    busy = 0

    def power_on(self) -> None:
        """Reset the registers."""
        self.registers[:] = bytes(256)

    def register_read(self, register: int) -> int:
        """Return a measurement in register 0, if it is switched on."""
        return 7 * self.registers[1] if register == 0 else self.registers[register]

    def read(self, count: int) -> bytes:
        """Answer when it is not busy any more."""
        if self.busy:
            self.busy -= 1
            raise NoAcknowledge
        return super().read(count)


class Chip:
    """Its driver: as many, it hides faults behind errors and values of its own."""

    made = 0
    hide: Callable[[OSError], object] | None = None

    def __init__(self, i2c: Any) -> None:
        type(self).made += 1
        self._i2c = i2c
        self.gain = 0
        self.started = False
        i2c.writeto(ADDRESS, b"\x01\x01")

    def start(self) -> None:
        """Note that it was started."""
        self.started = True

    @property
    def light(self) -> object:
        """Ask twice, the second time for a busy chip."""
        answer = bytearray(1)
        for left in (1, 0):
            try:
                self._i2c.writeto_then_readfrom(ADDRESS, b"\x00", answer)
                break
            except OSError as error:
                if not left:
                    if self.hide is None:
                        raise
                    return self.hide(error)
        return answer[0] * self.gain * self.started


@pytest.fixture
def bus() -> FakeI2CBus:
    bus = FakeI2CBus("i2c-9")
    bus.add(ADDRESS, SwitchedOn())
    return bus


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Chip]]:
    module = ModuleType("chips")
    module.Chip = type("Chip", (Chip,), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "chips", module)
    yield module.Chip


OPTIONS: dict[str, Any] = {"driver": "chips:Chip", "settings": {"gain": 2}, "start": ["start"]}


def test_a_bh1750_that_was_without_supply_for_one_read_measures_again() -> None:
    pytest.importorskip("adafruit_bh1750", reason="needs adafruit-circuitpython-bh1750")
    bus = FakeI2CBus()
    bus.add(ADDRESS, FakeBH1750())
    with open_driver("circuitpython", driver="adafruit_bh1750:BH1750", bus=bus) as sensor:
        assert sensor.read()[0].value == pytest.approx(100)
        bus.unplug(ADDRESS)
        with pytest.raises(DriverError):
            sensor.read()
        bus.plug(ADDRESS)
        assert sensor.read()[0].value == pytest.approx(100)


def _other_error(error: OSError) -> object:
    raise RuntimeError("no data") from error


@pytest.mark.parametrize("hide", [None, _other_error, lambda error: None, lambda error: 0])
@pytest.mark.parametrize("reads", [1, 4])
def test_a_chip_without_acknowledge_is_set_up_before_its_next_good_sample(
    bus: FakeI2CBus, chip: type[Chip], hide: Callable[[OSError], object] | None, reads: int
) -> None:
    chip.hide = hide and staticmethod(hide)
    with open_driver("circuitpython", bus=bus, **OPTIONS) as sensor:
        assert sensor.read()[0].value == 14
        bus.unplug(ADDRESS)
        for _ in range(reads):
            try:
                sensor.read()
            except DriverError:
                pass
        bus.plug(ADDRESS)
        assert sensor.read()[0].value == 14
        made = chip.made
        assert sensor.read()[0].value == 14
        assert chip.made == made, "once, and not with each read"


def test_a_chip_whose_bus_was_stuck_is_set_up_again(bus: FakeI2CBus, chip: type[Chip]) -> None:
    with open_driver("circuitpython", bus=bus, **OPTIONS) as sensor:
        bus.stuck()
        with pytest.raises(DriverError):
            sensor.read()
        bus.plug(ADDRESS)  # without supply it had pulled the lines down
        bus.release()
        assert sensor.read()[0].value == 14


def test_a_busy_chip_is_not_set_up_again(bus: FakeI2CBus, chip: type[Chip]) -> None:
    device = SwitchedOn()
    bus.add(ADDRESS, device)
    with open_driver("circuitpython", bus=bus, **OPTIONS) as sensor:
        for _ in range(3):
            device.busy = 1
            assert sensor.read()[0].value == 14
    assert chip.made == 1


def test_a_light_sensor_in_more_light_than_it_can_measure_is_bad() -> None:
    pytest.importorskip("adafruit_bh1750", reason="needs adafruit-circuitpython-bh1750")
    bus, chip = FakeI2CBus(), FakeBH1750()
    bus.add(ADDRESS, chip)
    for resolution in ("HIGH", "MID"):
        settings = {"resolution": f"adafruit_bh1750:Resolution.{resolution}"}
        with open_driver(
            "circuitpython", driver="adafruit_bh1750:BH1750", bus=bus, settings=settings
        ) as sensor:
            chip.lux = 20_000
            assert sensor.read()[0].quality == "good"
            chip.lux = 1e6
            assert sensor.read()[0].quality == "bad"


@pytest.mark.parametrize("gain", ["ALS_GAIN_2", "ALS_GAIN_1", "ALS_GAIN_1_4", "ALS_GAIN_1_8"])
@pytest.mark.parametrize("duration", ["ALS_25MS", "ALS_50MS", "ALS_100MS", "ALS_800MS"])
def test_a_veml7700_in_more_light_than_it_can_measure_is_bad(gain: str, duration: str) -> None:
    pytest.importorskip("adafruit_veml7700", reason="needs adafruit-circuitpython-veml7700")
    bus, chip = FakeI2CBus(), FakeVEML7700()
    bus.add(0x10, chip)
    settings = {
        "light_gain": f"adafruit_veml7700:VEML7700.{gain}",
        "light_integration_time": f"adafruit_veml7700:VEML7700.{duration}",
    }
    with open_driver(
        "circuitpython", driver="adafruit_veml7700:VEML7700", bus=bus, settings=settings
    ) as sensor:
        for light, is_bad in [(5000, False), (0x7FFF, False), (0xFFFE, False), (0xFFFF, True)]:
            chip.light = light
            illuminance = next(each for each in sensor.read() if each.channel == "illuminance")
            assert (illuminance.quality == "bad") is is_bad
