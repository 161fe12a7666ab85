"""The chips of docs/circuitpython.md: each configuration, as it stands there, on its data sheet's double."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from device_sdk.drivers import Driver, driver_class
from device_sdk.drivers.circuitpython import presets
from device_sdk.errors import (
    BusError,
    ChecksumError,
    DeviceNotFoundError,
    DriverError,
    ReadTimeoutError,
)
from device_sdk.node.config import parse_config
from device_sdk.testing import ManualClock
from device_sdk.testing.fake_i2c import FakeI2CBus, FakeI2CDevice
from tests.drivers.chips.light import FakeTSL2591, FakeVEML7700
from tests.drivers.chips.others import FakeAHT20, FakeLPS22HB, FakePMSA003I
from tests.drivers.chips.sensirion import FakeSCD41, FakeSGP40, FakeSHT31
from tests.drivers.chips.texas import FakeADS1115, FakeINA219, FakeTMP117
from tests.pages.page import blocks

NODE = '[node]\nid = "n"\n[broker]\nurl = "mqtt://127.0.0.1"\n'
CONFIGURATIONS = {
    text.split('name = "', 1)[1].split('"', 1)[0]: text
    for _, language, text in blocks("circuitpython.md")
    if language == "toml"
}

# Chip -> its address and its double, and what the example of its data sheet is in our units.
Make = Callable[[ManualClock], FakeI2CDevice]
CHIPS: dict[str, tuple[int, Make, dict[str, object]]] = {
    "scd41": (
        0x62,
        FakeSCD41,
        {"co2": 500, "temperature": pytest.approx(25, abs=0.005), "humidity": pytest.approx(37, abs=0.005)},
    ),
    "pmsa003i": (
        0x12,
        lambda clock: FakePMSA003I(1, 2, 3, 4, 12, 35, 1200, 300, 40, 5, 2, 1),
        {"pm1": 4, "pm2_5": 12, "pm10": 35, "particles": 12_000_000},
    ),
    "sgp40": (0x59, lambda clock: FakeSGP40(), {"voc_index": None}),
    "ads1115": (0x48, lambda clock: FakeADS1115(2.5, 0, 1.0, 1.25), {"battery": 12.5, "bridge": -0.25}),
    "sht31d": (0x44, lambda clock: FakeSHT31(0x6666, 0x8000), {"temperature": 25.0, "humidity": 50.0}),
    "ina219": (
        0x40,
        lambda clock: FakeINA219(),
        {"bus_voltage": 11.98, "current": 0.2, "power": 2.396, "overflow": False},
    ),
    "tmp117": (0x48, FakeTMP117, {"temperature": 25.0, "too_warm": False, "too_cold": False}),
    "veml7700": (0x10, lambda clock: FakeVEML7700(100.8), {"illuminance": 100.8}),
    "tsl2591": (
        0x29,
        lambda clock: FakeTSL2591(1000, 300),
        {"illuminance": pytest.approx(2072.64), "full": 1000, "infrared": 300},
    ),
    "lps22hb": (
        0x5D,
        lambda clock: FakeLPS22HB(),
        {"pressure": pytest.approx(102_330, abs=5), "temperature": 21.5, "data_rate": "LPS22_RATE_1_HZ"},
    ),
    "aht20": (0x38, lambda clock: FakeAHT20(0x80000, 0x60000), {"temperature": 25.0, "humidity": 50.0}),
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    return ManualClock()


@pytest.fixture
def bus() -> FakeI2CBus:
    return FakeI2CBus("i2c-1")


def open_chip(
    name: str, bus: FakeI2CBus, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, **more: Any
) -> tuple[Driver, Any]:
    """Open the driver of a chip by its configuration on the page; all waits are the clock's."""
    (table,) = parse_config(NODE + CONFIGURATIONS[name]).sensor
    pytest.importorskip(table.options["driver"].partition(":")[0], reason="needs blinka")
    let_time_pass_by(clock, monkeypatch)
    # The configuration is enough by itself: nobody has to prepare a chip.
    monkeypatch.setattr(presets, "PRESETS", {})
    address, make, _ = CHIPS[name]
    chip = make(clock)
    bus.add(address, chip)
    driver = driver_class(table.driver)(**{**table.driver_options, "bus": bus, **more})
    driver.open()
    return driver, chip


def let_time_pass_by(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the modules that take part a clock of their own; other threads keep the true one."""
    import device_sdk.drivers.circuitpython.ready  # noqa: F401, one of them

    def monotonic() -> float:
        return clock()

    fake = SimpleNamespace(sleep=clock.advance, monotonic=monotonic, time=time.time)
    for name, module in tuple(sys.modules.items()):
        if name.startswith(("adafruit_", "device_sdk.drivers.circuitpython.ready")):
            _replace(module, fake, monkeypatch)


def _replace(module: ModuleType, fake: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    if getattr(module, "time", None) is time:
        monkeypatch.setattr(module, "time", fake)
    if getattr(module, "sleep", None) is time.sleep:
        monkeypatch.setattr(module, "sleep", fake.sleep)


def test_every_chip_of_the_page_has_a_double() -> None:
    assert CONFIGURATIONS.keys() == CHIPS.keys()


@pytest.mark.parametrize("name", sorted(CHIPS))
def test_a_chip_runs_by_its_configuration_alone(
    name: str, bus: FakeI2CBus, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, _ = open_chip(name, bus, clock, monkeypatch)
    got = {reading.channel: reading for reading in driver.read()}
    _, _, expected = CHIPS[name]
    assert {channel: reading.value for channel, reading in got.items()} == expected
    wanted = {channel: "bad" if value is None else "good" for channel, value in expected.items()}
    assert {channel: reading.quality for channel, reading in got.items()} == wanted
    driver.close()
    driver.open()
    assert [reading.quality for reading in driver.read()] == list(wanted.values())


# What each chip does when it is not well


def values(driver: Driver) -> dict[str, object]:
    return {reading.channel: reading.value for reading in driver.read()}


def qualities(driver: Driver) -> dict[str, str]:
    return {reading.channel: reading.quality for reading in driver.read()}


@pytest.fixture
def scd41(
    bus: FakeI2CBus, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Driver, FakeSCD41]]:
    driver, chip = open_chip("scd41", bus, clock, monkeypatch)
    yield driver, chip
    driver.close()


def test_the_first_measurement_is_waited_for_and_the_last_one_kept(
    scd41: tuple[Driver, FakeSCD41], clock: ManualClock
) -> None:
    driver, chip = scd41
    begin = clock()
    first = driver.read()
    assert 4.9 < clock() - begin < 5.2
    chip.words[0] = 800
    assert driver.read() == first, "with the time when it was measured"
    clock.advance(5)
    assert values(driver)["co2"] == 800


def test_a_chip_that_stopped_is_found_out_and_started_again(
    scd41: tuple[Driver, FakeSCD41], clock: ManualClock
) -> None:
    driver, chip = scd41
    driver.read()
    chip.power_on()  # its supply failed for a moment
    assert driver.read()[0].quality == "good"
    clock.advance(11)
    with pytest.raises(ReadTimeoutError, match=r"SCD4X on i2c-1 at 0x62: no new measurement for 11\.\d s"):
        driver.read()
    driver.close()
    driver.open()
    assert values(driver)["co2"] == 500


def test_a_chip_that_measures_nothing_does_not_hold_the_first_read_for_ever(
    scd41: tuple[Driver, FakeSCD41], clock: ManualClock
) -> None:
    driver, chip = scd41
    chip.power_on()
    with pytest.raises(ReadTimeoutError, match="no new measurement for 10"):
        driver.read()


@pytest.mark.parametrize(
    ("ppm", "quality"), [(0, "bad"), (150, "uncertain"), (420, "good"), (6000, "uncertain")]
)
def test_co2_that_no_air_has_is_not_good_and_costs_nothing_else(
    scd41: tuple[Driver, FakeSCD41], ppm: int, quality: str
) -> None:
    driver, chip = scd41
    chip.words[0] = ppm
    assert qualities(driver) == {"co2": quality, "temperature": "good", "humidity": "good"}


def test_a_damaged_word_is_a_checksum_error(scd41: tuple[Driver, FakeSCD41]) -> None:
    driver, chip = scd41
    chip.corrupt_crc = 1
    with pytest.raises(ChecksumError, match="adafruit_scd4x:SCD4X on i2c-1"):
        driver.read()


def test_a_fault_of_the_bus_is_one_though_the_driver_made_another_error_of_it(
    bus: FakeI2CBus, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, chip = open_chip("pmsa003i", bus, clock, monkeypatch)
    chip.damaged = 1
    with pytest.raises(ChecksumError, match=r"Invalid PM2\.5 checksum"):
        driver.read()
    bus.unplug(0x12)
    with pytest.raises(BusError, match="nothing answers at 0x12 on i2c-1") as caught:
        driver.read()
    assert caught.value.errno == errno.EREMOTEIO
    bus.plug(0x12)
    assert values(driver)["pm2_5"] == 12


def test_arguments_of_a_method_reach_the_chip_and_the_index_becomes_good(
    bus: FakeI2CBus, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, chip = open_chip("sgp40", bus, clock, monkeypatch)
    found = [driver.read()[0].quality for _ in range(50)]
    assert (found[0], found[-1]) == ("bad", "good")
    humidity, temperature = chip.compensation
    assert humidity == pytest.approx(45 * 65535 / 100, abs=1)
    assert temperature == pytest.approx((22 + 45) * 65535 / 175, abs=1)


def test_a_property_that_raises_costs_its_own_channel(
    bus: FakeI2CBus, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, chip = open_chip("tsl2591", bus, clock, monkeypatch)
    chip.full = 40_000
    lux, full, infrared = driver.read()
    assert (lux.quality, full.value, infrared.quality) == ("bad", 40_000, "good")
    assert "Overflow reading light channels" in lux.reason


def test_minus_256_degrees_is_no_temperature(
    bus: FakeI2CBus, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, chip = open_chip("tmp117", bus, clock, monkeypatch, watch=[])
    chip.power_on()
    assert qualities(driver)["temperature"] == "bad"
    chip.word = 0x0F80  # 31 degrees
    clock.advance(2)
    assert values(driver)["temperature"] == 31.0


@pytest.mark.parametrize(("name", "identifier"), [("tmp117", 15), ("tsl2591", 0x12), ("lps22hb", 0x0F)])
def test_another_chip_at_the_address_is_not_the_device(
    name: str, identifier: int, bus: FakeI2CBus, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, chip = open_chip(name, bus, clock, monkeypatch)
    driver.close()
    registers = chip.words if isinstance(chip, FakeTMP117) else chip.registers
    registers[identifier] = 0x42
    with pytest.raises(DeviceNotFoundError, match=r"a chip is at 0x..; is it the chip of this driver"):
        driver.open()


@pytest.mark.parametrize("name", ["ina219", "lps22hb", "tmp117", "tsl2591", "veml7700"])
def test_a_chip_that_restarted_is_found_out_and_set_up_again(
    name: str, bus: FakeI2CBus, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, chip = open_chip(name, bus, clock, monkeypatch)
    before = values(driver)
    chip.power_on()  # its supply failed for a moment
    with pytest.raises(
        DriverError, match=r"on i2c-1 at 0x..: the chip has restarted, \w+ was .* check its supply"
    ):
        driver.read()
    clock.advance(2)
    assert values(driver) == before
    assert values(driver) == before


@pytest.mark.parametrize("channels", [["temperature"], ["temperature", "relative_humidity"]])
@pytest.mark.parametrize("after", range(6))
def test_a_chip_that_vanishes_in_the_middle_of_a_read_gives_no_values(
    after: int, channels: list[str], bus: FakeI2CBus, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, _ = open_chip("aht20", bus, clock, monkeypatch, channels=channels)
    bus.cut(0x38, after)
    with pytest.raises(BusError) as caught:
        driver.read()
    in_the_last = after and len(channels) == 1
    words = (
        "0x38 stopped to answer in the middle of a read: check its plug" if in_the_last else "nothing answers"
    )
    assert words in str(caught.value)
    bus.plug(0x38)
    assert set(qualities(driver).values()) == {"good"}


# Chips that are known need the path of their driver and no more


def open_known(
    name: str, bus: FakeI2CBus, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, **more: Any
) -> tuple[Driver, Any]:
    (table,) = parse_config(NODE + CONFIGURATIONS[name]).sensor
    path = table.options["driver"]
    pytest.importorskip(path.partition(":")[0], reason="needs blinka")
    let_time_pass_by(clock, monkeypatch)
    address, make, _ = CHIPS[name]
    chip = make(clock)
    bus.add(address, chip)
    driver = driver_class("circuitpython")(**{"driver": path, "bus": bus, **more})
    driver.open()
    return driver, chip


@pytest.mark.parametrize("name", ["ina219", "lps22hb", "tsl2591", "veml7700"])
def test_a_known_chip_that_restarted_is_found_out(
    name: str, bus: FakeI2CBus, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, chip = open_known(name, bus, clock, monkeypatch)
    before = values(driver)
    chip.power_on()
    with pytest.raises(DriverError, match="the chip has restarted"):
        driver.read()
    assert values(driver) == before
    driver, chip = open_known(name, bus, clock, monkeypatch, watch=[])
    chip.power_on()
    driver.read()  # as the user wants it


def test_a_known_chip_is_started_and_waited_for_unless_the_user_starts_it(
    bus: FakeI2CBus, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, _ = open_known("scd41", bus, clock, monkeypatch)
    assert values(driver)["co2"] == 500
    driver, _ = open_known("scd41", bus, clock, monkeypatch, start=[])
    assert set(qualities(driver).values()) == {"bad"}


@pytest.mark.parametrize(
    ("word", "quality"), [(0x4B00, "good"), (0x4B01, "uncertain"), (0xE400, "uncertain")]
)
def test_a_known_chip_has_its_range_unless_the_user_gives_one(
    word: int, quality: str, bus: FakeI2CBus, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, chip = open_known("tmp117", bus, clock, monkeypatch)
    chip.word = word
    clock.advance(2)
    assert qualities(driver) == {"temperature": quality}
    mine = {"temperature": {"min": -100, "max": 200}}
    driver, chip = open_known("tmp117", bus, clock, monkeypatch, channels=mine)
    chip.word = word
    clock.advance(2)
    assert qualities(driver) == {"temperature": "good"}


@pytest.mark.parametrize("path", sorted(presets.PRESETS))
def test_what_is_known_about_a_chip_is_in_its_driver(path: str) -> None:
    module, _, name = path.partition(":")
    pytest.importorskip(module, reason=f"needs {module}")
    members = dir(getattr(sys.modules[module], name))
    known = presets.PRESETS[path]
    watched = [each for each in known.watch if isinstance(each, str)]
    named = [*known.ranges, *known.invalid, *known.start, *watched, *([known.ready] if known.ready else [])]
    assert set(named) <= set(members)


# The doubles themselves, by the examples of the data sheets


def test_the_doubles_say_what_the_examples_of_the_data_sheets_say() -> None:
    scd41 = FakeSCD41(lambda: 100.0)
    scd41.write(bytes.fromhex("21b1"))
    scd41.write(bytes.fromhex("e4b8"))
    assert scd41.read(3) == bytes.fromhex("8000a2")  # SCD4x, section 3.8.2
    scd41.next = 0.0
    scd41.write(bytes.fromhex("ec05"))
    assert scd41.read(9) == bytes.fromhex("01f433 6667a2 5eb93c")  # SCD4x, section 3.5.2

    ina219 = FakeINA219()
    ina219.write(bytes.fromhex("055000"))
    registers = []
    for register in (1, 2, 4, 3):
        ina219.write(bytes([register]))
        registers.append(ina219.read(2).hex())
    assert registers == ["07d0", "5d9a", "2710", "1766"]  # INA219, table 8, with the bit "converted"

    ads1115 = FakeADS1115(2.048, 4.096, 5.0)
    codes = []
    for command in ("01c383", "01d383", "01e383", "018383"):  # inputs 0, 1, 2, and 0 minus 1
        ads1115.write(bytes.fromhex(command))
        ads1115.write(b"\0")
        codes.append(ads1115.read(2).hex())
    assert codes == ["4000", "7fff", "7fff", "c000"]  # ADS1115, table 8-3


@pytest.mark.parametrize(
    ("word", "degrees"), [(0xF380, -25), (0xFFFF, -0.008), (0, 0), (0x0C80, 25), (0x3200, 100)]
)
def test_the_thermometer_gives_the_temperatures_of_its_data_sheet(
    word: int, degrees: float, bus: FakeI2CBus, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, chip = open_chip("tmp117", bus, clock, monkeypatch, channels=["temperature"])
    chip.word = word
    clock.advance(2)
    assert values(driver)["temperature"] == degrees
