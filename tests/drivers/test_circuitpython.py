"""The CircuitPython adapter: Adafruit's own drivers on fake chips, and small drivers that misbehave."""

from __future__ import annotations

import enum
import errno
import math
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest

from device_sdk.drivers import Driver, Reading, open_driver
from device_sdk.drivers.circuitpython import (
    STANDARD_PROPERTIES,
    BME280Driver,
    CircuitPythonDriver,
    SHT4xDriver,
    guard,
    making,
    units,
)
from device_sdk.errors import (
    ArgumentError,
    BusError,
    ChecksumError,
    DeviceNotFoundError,
    DriverError,
    MissingDependency,
    ReadTimeoutError,
)
from device_sdk.testing import ManualClock
from device_sdk.testing.fake_bme280 import FakeBME280
from device_sdk.testing.fake_i2c import FakeI2CBus
from device_sdk.testing.fake_sht4x import FakeSHT4x


def read(driver: Driver) -> dict[str, Reading]:
    return {reading.channel: reading for reading in driver.read()}


def values(driver: Driver) -> dict[str, object]:
    return {name: reading.value for name, reading in read(driver).items()}


@pytest.fixture
def bus() -> FakeI2CBus:
    return FakeI2CBus("i2c-9")


# Adafruit's drivers on fake chips


@pytest.fixture
def bme280(bus: FakeI2CBus) -> FakeBME280:
    pytest.importorskip("adafruit_bme280.basic", reason="needs blinka")
    chip = FakeBME280(temperature=21.5, humidity=43.2, pressure=99_000)
    bus.add(0x76, chip)
    return chip


@pytest.fixture
def sht4x(bus: FakeI2CBus) -> FakeSHT4x:
    pytest.importorskip("adafruit_sht4x", reason="needs blinka")
    chip = FakeSHT4x(temperature=22.5, humidity=41.0)
    bus.add(0x44, chip)
    return chip


def test_adafruits_bme280_reads_what_the_fake_was_told(bus: FakeI2CBus, bme280: FakeBME280) -> None:
    with open_driver("bme280", bus=bus) as sensor:
        got = read(sensor)
        assert list(got) == ["temperature", "humidity", "pressure"]
        assert got["temperature"].value == pytest.approx(21.5, abs=0.005)
        assert got["humidity"].value == pytest.approx(43.2, abs=0.01)
        assert got["pressure"].value == pytest.approx(99_000, abs=0.2)
        assert [(r.unit, r.quality) for r in got.values()] == [
            ("Cel", "good"), ("%RH", "good"), ("Pa", "good")
        ]  # fmt: skip
        assert len({reading.time for reading in got.values()}) == 1
        assert [(c.name, c.unit) for c in sensor.channels()] == [(r.channel, r.unit) for r in got.values()]
        bme280.temperature = -12.25
        assert read(sensor)["temperature"].value == pytest.approx(-12.25, abs=0.005)


def test_adafruits_bme280_gives_the_worked_example_of_the_datasheet(
    bus: FakeI2CBus, bme280: FakeBME280
) -> None:
    bme280.set_raw(519888, 415148, 30000)
    with BME280Driver(bus) as sensor:
        got = values(sensor)
    assert got["temperature"] == pytest.approx(25.08, abs=0.005)
    assert got["pressure"] == pytest.approx(100_653, abs=1)


def test_adafruits_sht4x_reads_both_values_from_one_measurement(bus: FakeI2CBus, sht4x: FakeSHT4x) -> None:
    with open_driver("sht4x", bus=bus) as sensor:
        bus.history.clear()
        got = values(sensor)
    assert got["temperature"] == pytest.approx(22.5, abs=0.003)
    assert got["humidity"] == pytest.approx(41.0, abs=0.002)
    assert [transaction.written for transaction in bus.history] == [b"\xfd", None]


def test_a_class_path_and_an_address_are_enough(bus: FakeI2CBus, bme280: FakeBME280) -> None:
    with open_driver(
        "circuitpython", driver="adafruit_bme280.basic:Adafruit_BME280_I2C", bus=bus, address=0x76
    ) as sensor:
        got = read(sensor)
        assert len(sensor.channels()) == 3, "humidity and relative_humidity are one"
    assert {name: reading.unit for name, reading in got.items()} == {
        "temperature": "Cel", "humidity": "%RH", "pressure": "Pa"
    }  # fmt: skip
    assert got["pressure"].value == pytest.approx(99_000, abs=0.2)


def test_settings_are_made_before_the_first_read(bus: FakeI2CBus, bme280: FakeBME280) -> None:
    with CircuitPythonDriver(
        "adafruit_bme280.advanced:Adafruit_BME280_I2C", bus, 0x76,
        channels={"altitude": {"unit": "m"}},
        settings={"sea_level_pressure": 990.0, "overscan_temperature": 5},
    ) as sensor:  # fmt: skip
        assert read(sensor)["altitude"].value == pytest.approx(0, abs=0.1)
    assert bme280.registers[0xF4] >> 5 == 5


def test_a_wrong_checksum_is_a_checksum_error_and_the_next_read_is_good(
    bus: FakeI2CBus, sht4x: FakeSHT4x
) -> None:
    with SHT4xDriver(bus) as sensor:
        sht4x.corrupt_crc()
        with pytest.raises(ChecksumError, match=r"adafruit_sht4x:SHT4x on i2c-9 at 0x44: .*CRC"):
            sensor.read()
        assert values(sensor)["temperature"] == pytest.approx(22.5, abs=0.003)


def test_no_acknowledge_is_a_bus_error_and_the_next_read_is_good(bus: FakeI2CBus, bme280: FakeBME280) -> None:
    with BME280Driver(bus) as sensor:
        bus.nack(0x76)
        with pytest.raises(BusError, match="nothing answers at 0x76 on i2c-9") as caught:
            sensor.read()
        assert caught.value.errno == errno.EREMOTEIO
        assert values(sensor)["temperature"] == pytest.approx(21.5, abs=0.005)


def test_the_bus_is_free_after_every_kind_of_failure(bus: FakeI2CBus, sht4x: FakeSHT4x) -> None:
    with SHT4xDriver(bus) as sensor:
        faults: list[Callable[[], None]] = [sht4x.corrupt_crc, bus.stuck, lambda: bus.unplug(0x44)]
        for fault in faults:
            fault()
            with pytest.raises(DriverError):
                sensor.read()
            bus.release()
            with pytest.raises(DriverError, match="does not have the lock"):
                bus.unlock()


def test_an_unplugged_sensor_fails_until_it_is_opened_again(bus: FakeI2CBus, bme280: FakeBME280) -> None:
    sensor = BME280Driver(bus)
    with sensor:
        bus.unplug(0x76)
        with pytest.raises(BusError):
            sensor.read()
    with pytest.raises(DeviceNotFoundError):
        sensor.open()
    bus.plug(0x76)
    with sensor:
        assert values(sensor)["temperature"] == pytest.approx(21.5, abs=0.005)


def test_an_absent_sensor_tells_which_addresses_the_chip_can_have(
    bus: FakeI2CBus, bme280: FakeBME280
) -> None:
    with pytest.raises(
        DeviceNotFoundError, match=r"on i2c-9 at 0x77.*check the wiring.*which is 0x76 or 0x77 for this chip"
    ):
        BME280Driver(bus, 0x77).open()


def test_another_chip_at_the_address_is_named_with_its_driver(bus: FakeI2CBus, bme280: FakeBME280) -> None:
    bus.add(0x76, FakeBME280(chip_id=0x58))
    with pytest.raises(DeviceNotFoundError, match="Chip ID 0x58") as caught:
        BME280Driver(bus).open()
    assert str(caught.value).endswith(
        "; a BMP280 is at 0x76, not the chip of this driver; it has a CircuitPython driver: the kind"
        " 'circuitpython' with driver = 'adafruit_bmp280:Adafruit_BMP280_I2C'"
    )


@pytest.mark.parametrize(
    ("identifier", "named"), [(0x60, "the kind 'bme280' reads it"), (0x61, "adafruit_bme680:")]
)
def test_the_chip_is_named_for_a_driver_of_another_one(
    bus: FakeI2CBus, chips: ModuleType, identifier: int, named: str
) -> None:
    def refuse(i2c: FakeI2CBus, address: int = 0x76) -> object:
        raise RuntimeError("no BMP388")

    bus.add(0x76, FakeBME280(chip_id=identifier))
    with pytest.raises(DeviceNotFoundError, match=named):
        driver_for(chips, bus, refuse).open()


def test_the_other_address_of_a_chip_is_tried_when_it_is_not_found(
    bus: FakeI2CBus, bme280: FakeBME280
) -> None:
    with pytest.raises(DeviceNotFoundError, match=r"nothing answers at 0x77: .*; a BME280 answers at 0x76$"):
        BME280Driver(bus, 0x77).open()


def test_a_chip_that_no_register_names_is_a_chip(bus: FakeI2CBus, chips: ModuleType) -> None:
    def refuse(i2c: FakeI2CBus, address: int = 0x44) -> object:
        raise ValueError("odd")

    bus.add(0x44, FakeSHT4x())
    with pytest.raises(DeviceNotFoundError, match="a chip is at 0x44; is it the chip of this driver"):
        driver_for(chips, bus, refuse).open()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("adafruit_dht:DHT22", r"wants a GPIO pin, its 'pin', .*dtoverlay=dht11,gpiopin=4"),
        ("adafruit_hx711.hx711:HX711", r"wants a GPIO pin, its 'data_pin', .*kind 'function'"),
        ("adafruit_ds18x20:DS18X20", r"wants a 1-wire bus, its 'bus', .*dtoverlay=w1-gpio"),
        ("adafruit_bme280.basic:Adafruit_BME280_SPI", r"wants an SPI bus, its 'spi'"),
        ("adafruit_pm25.uart:PM25_UART", r"wants a serial line, its 'uart'"),
    ],
)
def test_a_driver_for_other_wires_says_which_and_what_to_do(bus: FakeI2CBus, path: str, words: str) -> None:
    pytest.importorskip(path.partition(":")[0], reason="needs adafruit-circuitpython-dht, -hx711, -ds18x20")
    with pytest.raises(ArgumentError, match=f"driver: {path} {words}"):
        CircuitPythonDriver(path, bus).open()


def test_a_driver_that_takes_the_bus_for_something_else_says_so(bus: FakeI2CBus, chips: ModuleType) -> None:
    def construct(line: Any) -> object:
        return line.id

    with pytest.raises(
        ArgumentError, match=r"wants something else \('GuardedBus' object has no attribute 'id'"
    ):
        driver_for(chips, bus, construct).open()
    with pytest.raises(ArgumentError, match="takes no I2C bus"):
        driver_for(chips, bus, lambda: None).open()


def test_a_stuck_bus_is_not_mistaken_for_an_absent_sensor(bus: FakeI2CBus, bme280: FakeBME280) -> None:
    bus.stuck()
    with pytest.raises(BusError, match="holds SCL low"):
        BME280Driver(bus).open()


def test_a_value_outside_the_sensors_range_is_uncertain(bus: FakeI2CBus, sht4x: FakeSHT4x) -> None:
    with SHT4xDriver(bus) as sensor:
        sht4x.temperature = 128.0
        hot = read(sensor)["temperature"]
        assert hot.quality == "uncertain"
        assert "ends at 125 Cel" in hot.reason
        sht4x.temperature = -41.0
        assert "begins at -40 Cel" in read(sensor)["temperature"].reason
        assert read(sensor)["humidity"].quality == "good"


def test_an_address_that_the_chip_cannot_have_is_an_argument_error(bus: FakeI2CBus) -> None:
    with pytest.raises(ArgumentError, match="expected 0x08 to 0x77, found '0x76'"):
        BME280Driver(bus, "0x76")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="expected 0x76 or 0x77, found 0x44"):
        BME280Driver(bus, 0x44)


def test_a_bus_by_name_is_opened_and_given_back(
    monkeypatch: pytest.MonkeyPatch, bus: FakeI2CBus, bme280: FakeBME280, sht4x: FakeSHT4x
) -> None:
    module = ModuleType("rig_buses")
    made: list[FakeI2CBus] = []

    def make() -> FakeI2CBus:
        made.append(bus)
        return bus

    module.make = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rig_buses", module)
    name = "fake:rig_buses:make"
    with open_driver("bme280", bus=name) as first, open_driver("sht4x", bus=name) as second:
        assert len(values(first)) == 3
        assert len(values(second)) == 2
    assert len(made) == 1, "both sensors share one bus and its lock"
    with pytest.raises(DeviceNotFoundError):
        open_driver("bme280", bus=name, address=0x77)
    with open_driver("sht4x", bus=name):
        assert len(made) == 3, "a driver that did not open gave the bus back"


def test_two_threads_read_two_sensors_on_one_bus_without_mixing(
    bus: FakeI2CBus, bme280: FakeBME280, sht4x: FakeSHT4x
) -> None:
    with BME280Driver(bus) as first, SHT4xDriver(bus) as second, ThreadPoolExecutor(2) as pool:
        bus.history.clear()
        tasks = [
            pool.submit(lambda sensor: [sensor.read() for _ in range(5)], each) for each in (first, second)
        ]
        for task in tasks:
            for readings in task.result(timeout=20):
                assert {reading.quality for reading in readings} == {"good"}
    order = [(transaction.address, transaction.written) for transaction in bus.history]
    after_commands = [order[index + 1] for index, each in enumerate(order) if each == (0x44, b"\xfd")]
    assert after_commands == [(0x44, None)] * 5, "nothing came between a command and its answer"


# Small drivers that behave as CircuitPython drivers may


@pytest.fixture
def chips(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module for driver classes."""
    module = ModuleType("chips")
    monkeypatch.setitem(sys.modules, "chips", module)
    yield module


def chip_class(**properties: Callable[[], object]) -> type:
    """A driver class that takes a bus and an address and has these properties."""

    def construct(self: Any, i2c: FakeI2CBus, address: int = 0x10) -> None:
        self.address = address

    members = {name: property(_getter(get)) for name, get in properties.items()}
    return type("Chip", (), {"__init__": construct, **members})


def _getter(get: Callable[[], object]) -> Callable[[Any], object]:
    return lambda chip: get()


def fail(error: BaseException) -> Callable[[], object]:
    def get() -> object:
        raise error

    return get


def driver_for(chips: ModuleType, bus: FakeI2CBus, chip: Callable[..., object], **options: Any) -> Driver:
    chips.Chip = chip  # type: ignore[attr-defined]
    return CircuitPythonDriver("chips:Chip", bus, **options)


# What most drivers give where they differ.
USUAL_UNITS = {"current": "mA", "power": "W", "shunt_voltage": "V", "magnetic": "uT", "gyro": "rad/s"}

STANDARD_VALUES = {
    # property: value in CircuitPython's unit -> channels with value and unit in ours
    "temperature": (21.5, {"temperature": (21.5, "Cel")}),
    "relative_humidity": (43.0, {"humidity": (43.0, "%RH")}),
    "humidity": (43.0, {"humidity": (43.0, "%RH")}),
    "pressure": (1013.25, {"pressure": (101_325.0, "Pa")}),
    "CO2": (812, {"co2": (812, "ppm")}),
    "eCO2": (400, {"eco2": (400, "ppm")}),
    "TVOC": (57, {"tvoc": (0.057, "ppm")}),
    "gas": (12_000, {"gas": (12_000, "Ohm")}),
    "lux": (320.5, {"illuminance": (320.5, "lx")}),
    "light": (17, {"light": (17, "1")}),
    "proximity": (3, {"proximity": (3, "1")}),
    "distance": (57, {"distance": (0.57, "m")}),
    "sound_level": (4.0, {"sound_level": (4.0, "1")}),
    "weight": (1500, {"weight": (1.5, "kg")}),
    "frequency": (50, {"frequency": (50, "Hz")}),
    "voltage": (3.3, {"voltage": (3.3, "V")}),
    "bus_voltage": (12.0, {"bus_voltage": (12.0, "V")}),
    "shunt_voltage": (0.01, {"shunt_voltage": (0.01, "V")}),
    "current": (57, {"current": (0.057, "A")}),
    "power": (0.6, {"power": (0.6, "W")}),
    "acceleration": (
        (0.1, 0.2, 9.8),
        {"acceleration.x": (0.1, "m/s2"), "acceleration.y": (0.2, "m/s2"), "acceleration.z": (9.8, "m/s2")},
    ),
    "gyro": ((1.0, 2.0, 3.0), {"gyro.x": (1.0, "rad/s"), "gyro.y": (2.0, "rad/s"), "gyro.z": (3.0, "rad/s")}),
    "magnetic": (
        (48.0, 0.0, -1.0),
        {"magnetic.x": (48e-6, "T"), "magnetic.y": (0.0, "T"), "magnetic.z": (-1e-6, "T")},
    ),
}


@pytest.mark.parametrize("name", sorted(STANDARD_PROPERTIES))
def test_a_standard_property_comes_out_in_our_unit(
    chips: ModuleType, bus: FakeI2CBus, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(units.UNITS, "chips", USUAL_UNITS)
    value, expected = STANDARD_VALUES[name]
    with driver_for(chips, bus, chip_class(**{name: lambda: value})) as sensor:
        assert {r.channel: (r.value, r.unit) for r in sensor.read()} == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_what_is_no_number_never_leaves_as_a_value(
    chips: ModuleType, bus: FakeI2CBus, value: float | None
) -> None:
    chip = chip_class(temperature=lambda: value, pressure=lambda: 1000.0)
    with driver_for(chips, bus, chip) as sensor:
        got = read(sensor)
    assert (got["temperature"].value, got["temperature"].quality) == (None, "bad")
    assert got["temperature"].reason
    assert (got["pressure"].value, got["pressure"].quality) == (100_000.0, "good")


@pytest.mark.parametrize(
    ("raised", "expected", "words"),
    [
        (RuntimeError("CRC mismatch"), ChecksumError, "CRC mismatch"),
        (RuntimeError("Checksum did not validate. Try again."), ChecksumError, "Try again"),
        (RuntimeError("Timed out waiting for data"), ReadTimeoutError, "Timed out"),
        (RuntimeError("DHT sensor not found"), DriverError, "not found"),
        (OSError(121, "Remote I/O error"), BusError, "chips:Chip on i2c-9 at 0x10: Remote I/O error"),
        (ValueError("odd"), DriverError, "ValueError: odd"),
        (ZeroDivisionError("division"), DriverError, "ZeroDivisionError"),
    ],
)
def test_what_a_driver_raises_becomes_our_error(
    chips: ModuleType, bus: FakeI2CBus, raised: Exception, expected: type[DriverError], words: str
) -> None:
    with driver_for(chips, bus, chip_class(temperature=fail(raised))) as sensor:
        with pytest.raises(DriverError, match=words) as caught:
            sensor.read()
        assert type(caught.value) is expected
        with pytest.raises(DriverError):
            sensor.read()


def test_the_bus_is_locked_from_the_first_property_to_the_last(chips: ModuleType, bus: FakeI2CBus) -> None:
    with ThreadPoolExecutor(1) as elsewhere:

        def free() -> bool:
            return elsewhere.submit(bus.try_lock).result(timeout=10)

        with driver_for(chips, bus, chip_class(light=free, proximity=free)) as sensor:
            assert values(sensor) == {"light": False, "proximity": False}
        assert free()


def test_a_tuple_property_can_be_given_its_channels(chips: ModuleType, bus: FakeI2CBus) -> None:
    channels = {"euler": [{"name": "heading", "unit": "deg"}, {"name": "pitch", "unit": "deg", "scale": 2}]}
    with driver_for(chips, bus, chip_class(euler=lambda: (90.0, 1.5)), channels=channels) as sensor:
        assert values(sensor) == {"heading": 90.0, "pitch": 3.0}


@pytest.mark.parametrize("value", [(1.0, 2.0), 5.0, "text"])
def test_a_value_of_another_shape_than_the_table_says_so(
    chips: ModuleType, bus: FakeI2CBus, value: object
) -> None:
    channels = {"euler": [{"name": axis, "unit": "deg"} for axis in "abc"]}
    chip = chip_class(euler=lambda: value, temperature=lambda: 21.5)
    with driver_for(chips, bus, chip, channels={**channels, "temperature": {}}) as sensor:
        *euler, temperature = sensor.read()
    assert [reading.quality for reading in euler] == ["bad", "bad", "bad"]
    assert "euler has 3 channels and gave" in euler[0].reason
    assert temperature.quality == "good"


class Level(enum.Enum):
    LOW = 1


class Flags(NamedTuple):
    hot: bool
    cold: bool


def methods_chip(**more: Any) -> type:
    """A driver class with a property, and methods that are called once for each read."""

    class Chip(chip_class(temperature=lambda: 21.5)):  # type: ignore[misc]
        gain = 1

        def __init__(self, i2c: FakeI2CBus) -> None:
            self.started: list[object] = []

        def start(self, rate: int = 1) -> None:
            self.started.append(rate)

        def read(self) -> object:
            return {"fine": 12, "count": 3}

        def scaled(self, factor: float) -> float:
            return 2 * factor

    for name, member in more.items():
        setattr(Chip, name, member)
    return Chip


def recorded(cls: type, made: list[Any]) -> Callable[[FakeI2CBus], object]:
    """Return a constructor that notes the objects it makes."""

    def construct(i2c: FakeI2CBus) -> object:
        made.append(cls(i2c))
        return made[-1]

    return construct


def test_methods_are_called_after_each_construction_with_their_arguments(
    chips: ModuleType, bus: FakeI2CBus
) -> None:
    made: list[Any] = []
    start = ["start", {"call": "start", "arguments": {"rate": 4}}]
    with driver_for(chips, bus, recorded(methods_chip(), made), start=start) as sensor:
        sensor.read()
        sensor.close()
        sensor.open()
    assert [chip.started for chip in made] == [[1, 4], [1, 4]]


def test_a_method_may_return_a_dict_an_object_or_a_number(chips: ModuleType, bus: FakeI2CBus) -> None:
    chip = methods_chip(flags=property(lambda self: Flags(hot=True, cold=False)))
    channels = {
        "read": [{"key": "fine", "name": "pm2_5", "unit": "ug/m3"}, {"key": "count", "unit": "1"}],
        "flags": [{"key": "hot", "name": "hot", "unit": "1"}, {"key": 1, "name": "cold", "unit": "1"}],
        "twice": {"read": "scaled", "arguments": {"factor": 1.5}, "unit": "V"},
    }
    with driver_for(chips, bus, chip, channels=channels) as sensor:
        assert values(sensor) == {"pm2_5": 12, "read": 3, "hot": True, "cold": False, "twice": 3.0}


def test_a_key_that_the_result_does_not_have_costs_its_channel(chips: ModuleType, bus: FakeI2CBus) -> None:
    channels = {
        "read": [{"key": "fine", "name": "a", "unit": "1"}, {"key": "coarse", "name": "b", "unit": "1"}]
    }
    with driver_for(chips, bus, methods_chip(), channels=channels) as sensor:
        good, missing = sensor.read()
    assert (good.quality, missing.quality) == ("good", "bad")
    assert missing.reason == "read gave no 'coarse', there is: fine, count"


def test_an_object_made_from_the_chip_is_asked_for_its_property(chips: ModuleType, bus: FakeI2CBus) -> None:
    class Input:
        def __init__(self, chip: Any, pin: int) -> None:
            self.voltage = pin * 1.1

    chips.Input = Input  # type: ignore[attr-defined]
    channels = {"battery": {"via": "chips:Input", "arguments": {"pin": 3}, "read": "voltage", "scale": 2}}
    with driver_for(chips, bus, methods_chip(), channels=channels) as sensor:
        assert values(sensor) == {"battery": 6.6}
        assert sensor.channels()[0].unit == "V"


def test_names_stand_for_numbers(chips: ModuleType, bus: FakeI2CBus) -> None:
    class Mode:
        SLEEP = 0
        NORMAL = 3

    chips.Mode = Mode  # type: ignore[attr-defined]
    chip = chip_class(mode=lambda: 3, state=lambda: 1, other=lambda: 7, level=lambda: Level.LOW)
    table = {"0": "off", "1": "on"}
    channels = {
        "mode": {"names": "chips:Mode"}, "state": {"names": table}, "other": {"names": table},
        "level": {"unit": "1"},
    }  # fmt: skip
    with driver_for(chips, bus, chip, channels=channels) as sensor:
        assert values(sensor) == {"mode": "NORMAL", "state": "on", "other": "7", "level": "LOW"}


def test_a_path_in_the_drivers_package_stands_for_its_constant(chips: ModuleType, bus: FakeI2CBus) -> None:
    chips.GAIN_HIGH = 16  # type: ignore[attr-defined]
    made: list[Any] = []
    settings = {"gain": "chips:GAIN_HIGH", "started": "other:GAIN_HIGH"}
    driver_for(chips, bus, recorded(methods_chip(), made), settings=settings).open()
    assert (made[0].gain, made[0].started) == (16, "other:GAIN_HIGH")
    with pytest.raises(ArgumentError, match=r"settings: .*no 'GAIN_HIHG'; did you mean 'GAIN_HIGH'\?"):
        driver_for(chips, bus, methods_chip(), settings={"gain": "chips:GAIN_HIHG"}).open()


def test_a_property_that_can_be_set_is_a_setting_unless_it_is_asked_for(
    chips: ModuleType, bus: FakeI2CBus
) -> None:
    chip = chip_class(temperature=lambda: 1.0)
    chip.frequency = property(lambda self: 4, lambda self, value: None)  # type: ignore[attr-defined]
    with driver_for(chips, bus, chip) as sensor:
        assert list(values(sensor)) == ["temperature"]
    with driver_for(chips, bus, chip, channels=["frequency"]) as sensor:
        assert values(sensor) == {"frequency": 4}


@pytest.mark.parametrize(
    "raised", [ValueError("odd"), RuntimeError("CRC mismatch"), SystemExit(1), Exception()]
)
def test_a_property_that_raises_anything_costs_its_channels_only(
    chips: ModuleType, bus: FakeI2CBus, raised: BaseException
) -> None:
    chip = chip_class(temperature=fail(raised), pressure=lambda: 1000.0)
    with driver_for(chips, bus, chip) as sensor:
        temperature, pressure = sensor.read()
    assert (temperature.quality, pressure.quality) == ("bad", "good")
    assert str(raised) in temperature.reason


def test_a_value_of_an_unsupported_type_costs_its_channel_only(chips: ModuleType, bus: FakeI2CBus) -> None:
    chip = chip_class(temperature=lambda: object(), pressure=lambda: 1000.0)
    with driver_for(chips, bus, chip) as sensor:
        temperature, pressure = sensor.read()
    assert (temperature.quality, pressure.quality) == ("bad", "good")
    assert "expected a number, text or bool" in temperature.reason


def test_a_number_that_stands_for_nothing_is_bad(chips: ModuleType, bus: FakeI2CBus) -> None:
    chip = chip_class(distance=lambda: 819.0, eCO2=lambda: 0)
    channels = {"distance": {"invalid": [819]}, "eCO2": {}}
    with driver_for(chips, bus, chip, channels=channels) as sensor:
        assert [reading.reason for reading in sensor.read()] == [
            "the chip says 819.0 when it could not measure", "the chip says 0 when it could not measure"
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": "go"}, "start: expected a list of methods, found 'go'"),
        ({"start": [5]}, "start: expected the name of a method"),
        ({"start": [{"call": "start", "argument": {}}]}, "start: expected the name of a method"),
        ({"ready": "is_ready", "ready_within": 0}, "ready_within: expected seconds, above 0 to 3600"),
        ({"ready": "is_ready", "ready_within": math.nan}, "ready_within: expected seconds"),
        ({"start": ["strat"]}, r"start: chips:Chip has no method 'strat'; did you mean 'start'\?"),
        ({"start": [{"call": "start", "arguments": {"rat": 1}}]}, r"start: .*start\(\): .*'rat'"),
        ({"ready": "raedy"}, "has no property 'raedy'"),
        ({"channels": {"scaled": {"unit": "V"}}}, r"scaled\(\): missing a required argument: 'factor'"),
        (
            {"channels": {"gain": {"unit": "V", "arguments": {"a": 1}}}},
            "is a property, it takes no arguments",
        ),
        ({"channels": {"gain": {"names": "chips:Nothing"}}}, "the module chips has no 'Nothing'"),
        ({"channels": {"gain": {"names": "no_such_chips:A"}}}, "no_such_chips:A cannot be imported"),
        ({"channels": {"gain": {"names": "chips:Empty"}}}, "chips:Empty has no constants"),
        ({"channels": {"a": {"unit": "V", "via": "chips:Nothing"}}}, "has no 'Nothing'"),
        ({"channels": {"a": {"unit": "V", "via": "no_such_chips:A"}}}, "cannot be imported"),
        ({"channels": {"a": {"unit": "V", "via": "chips:Empty"}}}, r"channels.a.via: chips:Empty: too many"),
    ],
)
def test_a_wrong_call_says_where_and_what(
    chips: ModuleType, bus: FakeI2CBus, options: dict[str, Any], words: str
) -> None:
    class Empty:
        def __init__(self) -> None:
            """Take no chip."""

    chips.Empty = Empty  # type: ignore[attr-defined]
    with pytest.raises(ArgumentError, match=words):
        driver_for(chips, bus, methods_chip(), **options).open()


def test_a_chip_without_a_value_is_asked_to_be_started_if_it_can_be(
    chips: ModuleType, bus: FakeI2CBus
) -> None:
    chip = methods_chip(CO2=property(lambda self: None))
    with driver_for(chips, bus, chip, channels=["CO2"]) as sensor:
        assert sensor.read()[0].reason == "no value; does the chip need start(), see 'start'?"
    with driver_for(chips, bus, chip, channels=["CO2"], start=["start"]) as sensor:
        assert "'ready'" in sensor.read()[0].reason


def test_a_fault_tells_the_driver_the_bus_its_address_and_what_to_do(
    bus: FakeI2CBus, sht4x: FakeSHT4x
) -> None:
    with open_driver("circuitpython", driver="adafruit_sht4x:SHT4x", bus=bus) as sensor:
        sht4x.corrupt_crc(5)
        with pytest.raises(ChecksumError) as caught:
            sensor.read()
    assert str(caught.value) == (
        "adafruit_sht4x:SHT4x on i2c-9 at 0x44: Invalid CRC calculated; check the cable and the pull-ups, or"
        " lower the speed of the bus"
    )


def test_a_start_that_fails_leaves_the_driver_closed(chips: ModuleType, bus: FakeI2CBus) -> None:
    chip = methods_chip(start=lambda self: 1 / 0)
    sensor = driver_for(chips, bus, chip, start=["start"])
    with pytest.raises(DriverError, match=r"chips:Chip on i2c-9, start\(\): ZeroDivisionError"):
        sensor.open()
    with pytest.raises(DriverError, match="not open"):
        sensor.read()


def test_a_vector_without_a_value_has_bad_channels(chips: ModuleType, bus: FakeI2CBus) -> None:
    with driver_for(chips, bus, chip_class(acceleration=lambda: None)) as sensor:
        assert [reading.quality for reading in sensor.read()] == ["bad", "bad", "bad"]


def test_a_unit_of_ones_own_leaves_the_value_as_it_is(chips: ModuleType, bus: FakeI2CBus) -> None:
    chip = chip_class(pressure=lambda: 1013.25, current=lambda: 57)
    channels = {
        "pressure": {"unit": "hPa"},
        "current": {"name": "load", "description": "at the fuse", "scale": 0.001},
    }
    with driver_for(chips, bus, chip, channels=channels) as sensor:
        assert values(sensor) == {"pressure": 1013.25, "load": 0.057}
        assert sensor.channels()[1].description == "at the fuse"


def test_a_list_of_names_takes_the_standard_channels(chips: ModuleType, bus: FakeI2CBus) -> None:
    chip = chip_class(temperature=lambda: 1.0, acceleration=lambda: (1, 2, 3), pressure=lambda: 1000)
    with driver_for(chips, bus, chip, channels=["acceleration", "temperature"]) as sensor:
        assert list(values(sensor)) == ["acceleration.x", "acceleration.y", "acceleration.z", "temperature"]


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        ([], "channels: expected a list or a table"),
        ("temperature", "channels: expected a list or a table"),
        (["colour"], "channels.colour: 'colour' has no standard unit"),
        (["powr"], r"channels.powr: 'powr' has no standard unit, .*; did you mean 'power'\?"),
        ({"temperature": {"unit": "celsius"}}, "the SenML name of 'celsius' is 'Cel'"),
        ({"colour": {"unit": "Kel"}}, "channels.colour.unit: 'Kel' is no SenML unit"),
        ({"temperature": {"units": "K"}}, r"channels.temperature.units: there is:.*did you mean 'unit'\?"),
        ({"temperature": {"scale": "2"}}, "channels.temperature.scale: expected a number, found '2'"),
        ({"temperature": {"min": True}}, "channels.temperature.min: expected a number, found True"),
        ({"temperature": {"unit": 5}}, "channels.temperature.unit: expected a text, found 5"),
        ({"temperature": 5}, "channels.temperature: expected a table, or a list of tables"),
        ({"euler": []}, "channels.euler: expected a list of tables"),
        ({"euler": ["a", "b"]}, "channels.euler: expected a list of tables"),
        ({"temperature": {"precision": 1.5}}, "channels.temperature.precision: expected a whole number"),
        ({"temperature": {"scale": math.nan}}, "channels.temperature.scale: expected a number, found nan"),
        ({"temperature": {"invalid": ["0"]}}, "channels.temperature.invalid: expected a list of numbers"),
        ({"temperature": {"min": 5, "max": 1}}, "channels.temperature.min: 5 is above max, 1"),
        ({"read": [{"key": "a", "unit": "V"}, {"name": "b", "unit": "V"}]}, "all of its tables have a key"),
        ({"a": {"unit": "V", "values": [{}]}}, "values has tables of its own: write unit in there"),
        (["relative_humidity", "humidity"], "two channels have one name: humidity, humidity"),
    ],
)
def test_a_wrong_channel_table_says_where_and_what(channels: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        CircuitPythonDriver("chips:Chip", "i2c-1", channels=channels)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": ["pressure"]}, r"has no property 'pressure'"),
        ({"channels": {"temprature": {"unit": "Cel"}}}, r"'temprature'; did you mean 'temperature'\?"),
        ({"settings": {"adress": 1}}, r"settings: .* has no 'adress'; did you mean 'address'\?"),
        ({"arguments": {"colour": 1}}, r"arguments: .*unexpected keyword argument 'colour'"),
    ],
)
def test_a_name_that_the_class_does_not_have_is_an_argument_error(
    chips: ModuleType, bus: FakeI2CBus, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ArgumentError, match=words):
        driver_for(chips, bus, chip_class(temperature=lambda: 1.0), **options).open()


def test_a_class_without_standard_properties_needs_a_table(chips: ModuleType, bus: FakeI2CBus) -> None:
    with pytest.raises(ArgumentError, match="none of the standard properties"):
        driver_for(chips, bus, chip_class(value=lambda: 1)).open()


def test_what_is_private_is_never_proposed(chips: ModuleType, bus: FakeI2CBus) -> None:
    chip = methods_chip(_conversion_flag=property(lambda self: True))
    wrong: list[dict[str, Any]] = [
        {"ready": "conversion_flag"},
        {"channels": {"conversion_flag": {"unit": "1"}}},
        {"settings": {"conversion_flag": 1}},
        {"start": ["conversion_flag"]},
    ]
    for options in wrong:
        with pytest.raises(ArgumentError, match="conversion_flag") as caught:
            driver_for(chips, bus, chip, **options).open()
        assert "_conversion_flag'?" not in str(caught.value)


@pytest.mark.parametrize("path", ["adafruit_mcp9808", "adafruit_mcp9808.py", "a b:C", ":C", "a:"])
def test_a_path_of_a_wrong_form_is_found_before_anything_is_opened(path: str) -> None:
    with pytest.raises(ArgumentError, match=r"driver: expected 'package.module:name', found"):
        CircuitPythonDriver(path)


def test_a_setting_that_the_chip_refuses_says_which(chips: ModuleType, bus: FakeI2CBus) -> None:
    with pytest.raises(DriverError, match=r"on i2c-9 at 0x10, setting temperature: AttributeError"):
        driver_for(chips, bus, chip_class(temperature=lambda: 1.0), settings={"temperature": 5}).open()


def test_a_register_that_only_an_object_can_read_is_a_property_and_a_method_is_none(
    chips: ModuleType, bus: FakeI2CBus
) -> None:
    class Register:
        def __get__(self, chip: Any, owner: type) -> float:
            return float(chip.address)  # fails on the class, as adafruit_register's do

    chip = chip_class(temperature=lambda: 1.0)
    chip.lux = Register()  # type: ignore[attr-defined]
    chip.light = lambda chip: 5  # type: ignore[attr-defined]
    with driver_for(chips, bus, chip, address=0x20) as sensor:
        assert values(sensor) == {"temperature": 1.0, "illuminance": 32.0}
    with driver_for(chips, bus, chip, channels=["lux"]) as sensor:
        assert values(sensor) == {"illuminance": 16.0}


@pytest.mark.parametrize("parameter", ["address", "addr", "i2c_address"])
def test_the_address_goes_to_the_parameter_that_is_called_so(
    chips: ModuleType, bus: FakeI2CBus, parameter: str
) -> None:
    made: dict[str, dict[str, object]] = {}
    source = (
        f"lambda i2c, reset=None, {parameter}=1: made.update(seen=dict(reset=reset, at={parameter})) or chip"
    )
    chip = chip_class(temperature=lambda: 1.0)(bus)
    factory = eval(source, {"made": made, "chip": chip})
    driver_for(chips, bus, factory, address=0x12).open()
    assert made["seen"] == {"reset": None, "at": 0x12}


def test_an_address_for_a_driver_that_takes_none_is_an_argument_error(
    chips: ModuleType, bus: FakeI2CBus
) -> None:
    with pytest.raises(ArgumentError, match="takes no address, only i2c, gain"):
        driver_for(chips, bus, lambda i2c, gain=1: None, address=0x12).open()


@pytest.mark.parametrize("address", [0, 0x07, 0x78, 0x176])
def test_a_reserved_address_is_an_argument_error(address: int) -> None:
    with pytest.raises(ArgumentError, match="expected 0x08 to 0x77"):
        CircuitPythonDriver("chips:Chip", "i2c-1", address)


def test_a_bus_that_no_name_fits_is_found_before_open() -> None:
    with pytest.raises(ArgumentError, match="expected 'i2c-1'"):
        CircuitPythonDriver("chips:Chip", "spi0.0")


def test_a_missing_package_names_the_extra_and_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "find_spec", lambda name: None)
    with pytest.raises(
        MissingDependency,
        match=r"adafruit_nosuch_chip .*by Adafruit .*adafruit-circuitpython-nosuch-chip\).* 'adafruit-blinka",
    ) as caught:
        open_driver("circuitpython", driver="adafruit_nosuch_chip:Chip", bus="i2c-1")
    assert caught.value.extra == "blinka"


def test_a_missing_package_beside_blinka_is_all_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "find_spec", lambda name: object())
    with pytest.raises(MissingDependency) as caught:
        open_driver("circuitpython", driver="adafruit_nosuch_chip:Chip", bus="i2c-1")
    assert str(caught.value) == (
        "adafruit_nosuch_chip:Chip needs what is not installed: there is no module adafruit_nosuch_chip;"
        " look on pypi.org for a package by Adafruit Industries, mostly adafruit-circuitpython-nosuch-chip"
    )


def test_a_chip_whose_package_is_in_the_extra_asks_for_that_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("adafruit_bme280", "adafruit_bme280.basic"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency) as caught:
        open_driver("bme280", bus="i2c-1")
    assert str(caught.value) == (
        "adafruit_bme280.basic is not installed; this driver needs what is not installed: pip install "
        "'adafruit-blinka>=9.2' 'adafruit-circuitpython-bme280>=2.6.4' 'adafruit-circuitpython-sht4x>=1.0'"
    )


def test_a_driver_without_blinka_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "adafruit_lonely.py").write_text("import no_such_busio\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependency, match=r"adafruit_lonely:Chip imports no_such_busio, which needs"):
        CircuitPythonDriver("adafruit_lonely:Chip").open()


@pytest.mark.parametrize("path", ["json.nosuch:Chip", "my_nosuch_module:Chip"])
def test_a_module_that_is_no_package_to_install_is_an_argument_error(path: str) -> None:
    with pytest.raises(ArgumentError, match=f"driver: no module is called '{path.partition(':')[0]}'"):
        CircuitPythonDriver(path).open()


@pytest.mark.parametrize("path", ["", "chips", "chips:", ":Chip"])
def test_a_path_that_is_none_is_an_argument_error(path: str) -> None:
    with pytest.raises(ArgumentError, match=r"expected 'package.module:name'"):
        CircuitPythonDriver(path).open()


def test_a_class_that_the_module_does_not_have_is_an_argument_error(
    chips: ModuleType, bus: FakeI2CBus
) -> None:
    chips.SHT31D = object  # type: ignore[attr-defined]
    with pytest.raises(ArgumentError, match=r"chips has no 'SHT31'; did you mean 'SHT31D'\?"):
        CircuitPythonDriver("chips:SHT31", bus).open()


def test_an_import_that_fails_on_this_board_says_how_to_get_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "board_bound_chip.py").write_text("raise NotImplementedError('Board not supported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DriverError, match=r"Board not supported.*BLINKA_OS_AGNOSTIC=1"):
        CircuitPythonDriver("board_bound_chip:Chip").open()


def test_a_bus_that_is_not_there_is_not_found(chips: ModuleType) -> None:
    chips.Chip = chip_class(temperature=lambda: 1.0)  # type: ignore[attr-defined]
    with pytest.raises(DeviceNotFoundError, match="there is no /dev/i2c-4711"):
        CircuitPythonDriver("chips:Chip", "i2c-4711").open()


def test_a_driver_that_is_not_open_says_so(chips: ModuleType, bus: FakeI2CBus) -> None:
    driver = driver_for(chips, bus, chip_class(temperature=lambda: 1.0))
    for use in (driver.read, driver.channels):
        with pytest.raises(DriverError, match="not open"):
            use()
    with driver:
        driver.open()  # does nothing
        driver.read()
    driver.close()
    with pytest.raises(DriverError, match="not open"):
        driver.read()


# Drivers that wait for ever, chips that restart


def test_a_driver_that_waits_for_its_chip_for_ever_is_ended(
    chips: ModuleType, bus: FakeI2CBus, bme280: FakeBME280, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    monkeypatch.setattr(guard, "time", SimpleNamespace(monotonic=lambda: clock.advance(0.5)))

    class Waiting:
        def __init__(self, i2c: FakeI2CBus) -> None:
            self._i2c = i2c

        @property
        def temperature(self) -> float:
            while True:
                try:
                    self._i2c.writeto(0x76, b"\xf3")
                except Exception:
                    pass

    with driver_for(chips, bus, Waiting) as sensor:
        for _ in range(2):
            with pytest.raises(ReadTimeoutError, match=r"on i2c-9: its driver waits .* than 20 s"):
                sensor.read()
    with ThreadPoolExecutor(1) as elsewhere:
        assert elsewhere.submit(bus.try_lock).result(timeout=10), "the bus is free"


def test_a_bme280_that_restarted_measures_right(bus: FakeI2CBus, bme280: FakeBME280) -> None:
    with BME280Driver(bus) as sensor:
        before = values(sensor)
        bme280.power_on()
        assert values(sensor) == before


def test_the_bus_of_a_chip_is_the_same_bus_with_the_same_lock(bus: FakeI2CBus) -> None:
    guarded = guard.GuardedBus(bus)
    assert guarded.try_lock()
    with ThreadPoolExecutor(1) as elsewhere:
        assert not elsewhere.submit(bus.try_lock).result(timeout=10)
    guarded.unlock()
    bus.add(0x44, FakeSHT4x())
    assert guarded.scan() == [0x44]
    guarded.deinit()
    assert guarded.scan() == [0x44], "it belongs to others, too"


@pytest.mark.parametrize("watch", ["gain", [True], [256], [""], [None], 5])
def test_a_wrong_watch_is_an_argument_error(watch: Any) -> None:
    with pytest.raises(ArgumentError, match="watch: expected a list of properties and registers"):
        CircuitPythonDriver("chips:Chip", "i2c-1", watch=watch)


def test_what_cannot_be_watched_is_an_argument_error(chips: ModuleType, bus: FakeI2CBus) -> None:
    with pytest.raises(ArgumentError, match="has no property 'gian'; did you mean 'gain'"):
        driver_for(chips, bus, methods_chip(), watch=["gian"]).open()
    with pytest.raises(ArgumentError, match="watch: a register needs an address"):
        driver_for(chips, bus, methods_chip(), watch=[0x10]).open()


# Options of a wrong type, unit or name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"driver": 5}, "driver: expected 'package.module:Class', found 5"),
        ({"bus": 5}, "bus: expected the name of a bus or an I2CBus, found 5"),
        ({"address": "0x76"}, "address: expected 0x08 to 0x77, found '0x76'"),
        ({"address": True}, "address: expected 0x08 to 0x77, found True"),
        ({"arguments": 5}, "arguments: expected a table of names and values, found 5"),
        ({"settings": {5: 1}}, "settings: expected a table of names and values"),
        (
            {"channels": {"temperature": {"unit": "°C"}}},
            "channels.temperature.unit: the SenML name of '°C' is 'Cel'",
        ),
        ({"channels": {"lux": {"unit": "Lux"}}}, "channels.lux.unit: the SenML name of 'Lux' is 'lx'"),
    ],
)
def test_a_wrong_option_says_what_was_expected(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        CircuitPythonDriver(**{"driver": "chips:Chip", "bus": "i2c-4711", **options}).open()


def test_a_value_whose_class_raises_costs_its_channel(chips: ModuleType, bus: FakeI2CBus) -> None:
    class Odd(float):
        def __eq__(self, other: object) -> bool:
            raise RuntimeError("no comparison")

        __hash__ = None  # type: ignore[assignment]

    chip = chip_class(temperature=lambda: 1.0, CO2=lambda: Odd(5.0))
    with driver_for(chips, bus, chip) as sensor:
        temperature, co2 = sensor.read()
    assert (temperature.quality, co2.quality) == ("good", "bad")
    assert co2.reason == "the value cannot be read: RuntimeError: no comparison"
