"""Values of kernel sensors that are none, or outside what the device can measure; and their digits."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from device_sdk.drivers import Channel, Reading, discover
from device_sdk.drivers.sysfs import SysfsDriver
from device_sdk.errors import BusError, DriverError
from device_sdk.testing.fake_sysfs import FakeSysfs


@pytest.fixture
def sysfs(tmp_path: Path) -> FakeSysfs:
    return FakeSysfs(tmp_path)


def read(sysfs: FakeSysfs, device: str) -> dict[str, Reading]:
    with SysfsDriver(device, sysfs.root) as driver:
        return {reading.channel: reading for reading in driver.read()}


def channels(sysfs: FakeSysfs, device: str) -> dict[str, Channel]:
    with SysfsDriver(device, sysfs.root) as driver:
        return {channel.name: channel for channel in driver.channels()}


# hwmon


@pytest.mark.parametrize(
    ("files", "quality"),
    [
        ({"temp1_input": -274_000}, "bad"),  # THERMAL_TEMP_INVALID
        ({"temp1_input": -273_150}, "bad"),  # 0 kelvin
        ({"temp1_input": -64_000}, "good"),
        ({"temp1_input": -128_000}, "uncertain"),
        ({"temp1_input": 2_147_483_647}, "uncertain"),
        ({"in0_input": 2_147_483_647}, "uncertain"),
        ({"fan1_input": 4_294_967_295}, "uncertain"),
        ({"fan1_input": -1}, "uncertain"),
        ({"humidity1_input": 104_000}, "uncertain"),
        ({"humidity1_input": 250_000}, "bad"),
        ({"temp1_input": "9" * 400}, "bad"),
        ({"freq1_input": "9" * 4000}, "bad"),
    ],
)  # fmt: skip
def test_a_number_that_no_monitoring_chip_measures_is_not_good(
    sysfs: FakeSysfs, files: dict[str, int | str], quality: str
) -> None:
    sysfs.hwmon("chip", **files)
    (reading,) = read(sysfs, "hwmon:chip").values()
    assert (reading.quality, reading.value is None) == (quality, quality == "bad")
    assert bool(reading.reason) == (quality != "good")


def test_the_limits_of_alarms_are_no_range(sysfs: FakeSysfs) -> None:
    sysfs.hwmon("chip", temp1_input=95_000, temp1_max=90_000, temp1_crit=100_000, temp1_max_alarm=1)
    assert read(sysfs, "hwmon:chip")["temp1"].quality == "good"


def test_a_chip_that_is_known_has_its_own_range(sysfs: FakeSysfs) -> None:
    sysfs.hwmon("sht3x", temp1_input=126_000, humidity1_input=50_000)
    got = read(sysfs, "hwmon:sht3x")
    assert (got["temp1"].value, got["temp1"].quality) == (126.0, "uncertain")
    assert channels(sysfs, "hwmon:sht3x")["temp1"].max == 125
    sysfs.iio("bme280", in_pressure_input="29.9", in_temp_input=21_000, in_humidityrelative_input=50_000)
    assert {name: reading.quality for name, reading in read(sysfs, "iio:bme280").items()} == {
        "humidity": "good", "pressure": "uncertain", "temperature": "good"
    }  # fmt: skip


def test_values_have_the_digits_of_their_unit(sysfs: FakeSysfs) -> None:
    sysfs.hwmon("chip", power1_input=231_000, in0_input=231, fan1_input=1480, energy1_input=1)
    got = {name: str(reading.value) for name, reading in read(sysfs, "hwmon:chip").items()}
    assert got == {"power1": "0.231", "in0": "0.231", "fan1": "1480", "energy1": "1e-06"}
    assert {name: channel.precision for name, channel in channels(sysfs, "hwmon:chip").items()} == {
        "power1": 6, "in0": 3, "fan1": 0, "energy1": 6
    }  # fmt: skip


def test_a_label_that_cannot_be_read_does_not_hide_the_channel(sysfs: FakeSysfs) -> None:
    device = sysfs.hwmon("chip", temp1_input=1000, temp1_label="Core")
    device.make_unreadable("temp1_label")
    assert channels(sysfs, "hwmon:chip")["temp1"].description == "temp1 of chip"


def test_files_with_digits_of_other_scripts_are_none_of_the_kernel(sysfs: FakeSysfs) -> None:
    device = sysfs.hwmon("chip", temp1_input=1000)
    for name in ("temp\u0663_input", "temp\u00b2_input", "in\u0661_input"):
        device.set_value(name, 5)
    device.set_value("temp1_input", "\u0663\u0663")
    with pytest.raises(DriverError, match="expected a number"):
        read(sysfs, "hwmon:chip")
    assert list(channels(sysfs, "hwmon:chip")) == ["temp1"]


# IIO


def test_a_raw_value_without_a_scale_is_in_counts_and_never_in_volts(sysfs: FakeSysfs) -> None:
    sysfs.iio("adc", in_voltage0_raw=1023, in_temp_raw=88, in_pressure_raw=7, in_proximity_raw=12)
    got = {name: (reading.value, reading.unit) for name, reading in read(sysfs, "iio:adc").items()}
    assert got == {
        "voltage0": (1023, "1"), "temperature": (88, "1"), "pressure": (7, "1"), "proximity": (12, "1")
    }  # fmt: skip
    assert "counts, no scale" in channels(sysfs, "iio:adc")["voltage0"].description
    assert "counts" not in channels(sysfs, "iio:adc")["proximity"].description


def test_a_scale_of_zero_is_bad_and_not_0_volts(sysfs: FakeSysfs) -> None:
    sysfs.iio("adc", in_voltage0_raw=1023, in_voltage_scale="0.000000000")
    reading = read(sysfs, "iio:adc")["voltage0"]
    assert (reading.value, reading.quality, reading.reason) == (
        None,
        "bad",
        "in_voltage0_raw has the scale 0",
    )


@pytest.mark.parametrize(
    ("scale", "available", "precision", "shown"),
    [
        ("3", None, 4, "0.231"),  # 77 counts of 3 mV
        ("0.125000", None, 5, "0.00962"),
        ("3", "6 3 2 1 0.500000 0.250000", 5, "0.231"),
        ("0.000000149", None, 11, "1.147e-08"),
        ("1000000", None, -2, "77000.0"),
    ],
)
def test_the_digits_follow_the_finest_scale_of_the_converter(
    sysfs: FakeSysfs, scale: str, available: str | None, precision: int, shown: str
) -> None:
    device = sysfs.iio("adc", in_voltage0_raw=77, in_voltage_scale=scale)
    if available:
        device.set_value("in_voltage_scale_available", available)
    assert channels(sysfs, "iio:adc")["voltage0"].precision == precision
    reading = read(sysfs, "iio:adc")["voltage0"]
    assert str(reading.value).startswith(shown)


def test_a_thermocouple_may_be_hot(sysfs: FakeSysfs) -> None:
    sysfs.iio("max31855", in_temp_raw=4800, in_temp_scale=250)
    assert read(sysfs, "iio:max31855")["temperature"].value == 1200
    assert read(sysfs, "iio:max31855")["temperature"].quality == "good"


# 1-wire


def slave(raw: int, *, byte4: int = 0x7F, byte6: int = 0x10, byte2: int = 0x4B, milli: int) -> str:
    """Two lines of w1_slave: ``raw`` in bytes 0 and 1."""
    data = raw.to_bytes(2, "little", signed=raw < 0) + bytes([byte2, 0x46, byte4, 0xFF, byte6, 0x10, 0x33])
    return f"{data.hex(' ')} : crc=33 YES\n{data.hex(' ')} t={milli}"


@pytest.mark.parametrize("byte6", [0x0C, 0x01])
def test_127_94_degrees_of_a_ds18b20_are_too_little_power(sysfs: FakeSysfs, byte6: int) -> None:
    device = sysfs.w1("28-0316a2795f12", 0)
    device.set_value("w1_slave", slave(0x07FF, byte6=byte6, milli=127_937))
    reading = read(sysfs, "w1:28-0316a2795f12")["temperature"]
    assert (reading.value, reading.quality) == (None, "bad")
    assert "too little power" in reading.reason
    (device.folder / "w1_slave").unlink()
    device.set_value("temperature", 127_937)
    assert read(sysfs, "w1:28-0316a2795f12")["temperature"].quality == "bad"


@pytest.mark.parametrize(
    ("family", "raw", "milli", "quality"),
    [
        ("28", 0x07D0, 125_000, "good"),
        ("28", 0x07D8, 125_500, "uncertain"),
        ("22", -880, -55_000, "good"),
        ("42", 0x0550, 85_000, "good"),
        ("42", 0x0560, 86_000, "uncertain"),
        ("28", -1760, -110_000, "uncertain"),
    ],
)  # fmt: skip
def test_a_thermometer_has_the_range_of_its_family(
    sysfs: FakeSysfs, family: str, raw: int, milli: int, quality: str
) -> None:
    name = f"{family}-0316a2795f12"
    sysfs.w1(name, 0).set_value("w1_slave", slave(raw, milli=milli))
    assert read(sysfs, f"w1:{name}")["temperature"].quality == quality


# MAX31850 data sheet, tables 4 to 6: 14 bits of which one is 0.25 degrees, fault bits in bytes 0 and 2;
# the kernel tells it from the DS1825 by the highest bit of byte 4.
@pytest.mark.parametrize(
    ("raw", "milli"),
    [(0x12C0, 300_000), (0x6400, 1_600_000), (0x064C, 100_750), (-16, -1_000), (0xF060 - 0x10000, -250_000)],
)  # fmt: skip
def test_a_max31850_measures_what_a_thermocouple_can(sysfs: FakeSysfs, raw: int, milli: int) -> None:
    sysfs.w1("3b-0000001921e8", 0).set_value("w1_slave", slave(raw, byte4=0xF3, byte6=0xFF, milli=milli))
    reading = read(sysfs, "w1:3b-0000001921e8")["temperature"]
    assert (reading.value, reading.quality) == (milli / 1000, "good")


@pytest.mark.parametrize(
    ("fault", "words"), [(1, "is open"), (2, "to ground"), (4, "to the supply"), (0, "faulty")]
)
def test_a_max31850_without_a_thermocouple_is_bad(sysfs: FakeSysfs, fault: int, words: str) -> None:
    content = slave(0x0191, byte4=0xF3, byte2=0x50 | fault, byte6=0xFF, milli=25_000)
    sysfs.w1("3b-0000001921e8", 0).set_value("w1_slave", content)
    reading = read(sysfs, "w1:3b-0000001921e8")["temperature"]
    assert (reading.value, reading.quality) == (None, "bad")
    assert words in reading.reason


@pytest.mark.parametrize(
    ("raw", "milli", "quality"), [(0x12C0, 300_000, "uncertain"), (0x0190, 25_000, "good")]
)
def test_a_ds1825_of_the_same_family_is_no_thermocouple(
    sysfs: FakeSysfs, raw: int, milli: int, quality: str
) -> None:
    sysfs.w1("3b-0000001921e8", 0).set_value("w1_slave", slave(raw, milli=milli))
    assert read(sysfs, "w1:3b-0000001921e8")["temperature"].quality == quality


def test_a_ds18s20_cannot_tell_its_power_on_value_from_85_degrees(sysfs: FakeSysfs) -> None:
    sysfs.w1("10-000801234567", 0).set_value("w1_slave", slave(0x00AA, byte6=0x0C, milli=85_000))
    reading = read(sysfs, "w1:10-000801234567")["temperature"]
    assert (reading.value, reading.quality) == (85.0, "uncertain")


def test_a_ds18s20_whose_divisor_is_zero_is_an_error_and_not_0_degrees(sysfs: FakeSysfs) -> None:
    content = slave(0x00AA, byte6=0x0C, milli=0).replace("0c 10 33", "0c 00 33")
    sysfs.w1("10-000801234567", 0).set_value("w1_slave", content)
    with pytest.raises(BusError, match="byte 7 is 0"):
        read(sysfs, "w1:10-000801234567")


def test_a_ds2438_is_scaled_as_the_kernel_says(sysfs: FakeSysfs) -> None:
    folder = sysfs.root / "sys/bus/w1/devices/26-000001abcdef"
    folder.mkdir(parents=True)
    for file, content in (("temperature", 6584), ("vad", 152), ("vdd", 501)):
        (folder / file).write_text(f"{content}\n")
    got = {name: (r.value, r.unit) for name, r in read(sysfs, "w1:26-000001abcdef").items()}
    assert got == {"temperature": (25.71875, "Cel"), "voltage.vad": (1.52, "V"), "voltage.vdd": (5.01, "V")}


def test_a_1_wire_device_of_another_family_has_no_temperature(sysfs: FakeSysfs) -> None:
    sysfs.w1("1d-0000000a1b2c", 21_000)
    assert discover(sysfs.root) == []


# Thermal zones


@pytest.mark.parametrize(
    ("millidegrees", "quality"),
    [
        (-274_000, "bad"), (-273_000, "bad"), (0, "uncertain"), (-1000, "good"), (125_000, "good"),
        (-65_000, "uncertain"), (200_000, "uncertain"), (-2_147_483_648, "bad"),
    ],
)  # fmt: skip
def test_what_a_zone_gives_without_a_sensor_is_not_good(
    sysfs: FakeSysfs, millidegrees: int, quality: str
) -> None:
    sysfs.thermal_zone("soc", millidegrees)
    assert read(sysfs, "thermal:soc")["temperature"].quality == quality


def test_a_zone_that_is_0_when_it_is_rounded_is_0(sysfs: FakeSysfs) -> None:
    sysfs.thermal_zone("soc", 1).set_value("temp", "-0.0001")
    reading = read(sysfs, "thermal:soc")["temperature"]
    assert (str(reading.value), reading.quality) == ("0.0", "uncertain")


# Power supplies


def test_a_battery_reads_in_our_units(sysfs: FakeSysfs) -> None:
    sysfs.power_supply(
        "BAT0", type="Battery", present=1, capacity=87, voltage_now=12_231_000, current_now=-512_000,
        power_now=6_262_272, temp=253, status="Discharging",
    )  # fmt: skip
    got = {name: (reading.value, reading.unit) for name, reading in read(sysfs, "power_supply:BAT0").items()}
    assert got == {
        "capacity": (87, "%EL"), "voltage": (12.231, "V"), "current": (-0.512, "A"), "power": (6.262272, "W"),
        "temperature": (25.3, "Cel"), "status": ("Discharging", "1"),
    }  # fmt: skip
    assert [sensor.options["device"] for sensor in discover(sysfs.root)] == ["power_supply:BAT0"]


def test_mains_are_online_or_not(sysfs: FakeSysfs) -> None:
    device = sysfs.power_supply("AC", type="Mains", online=1)
    assert read(sysfs, "power_supply:AC")["online"].value is True
    device.set_value("online", 0)
    assert read(sysfs, "power_supply:AC")["online"].value is False


def test_a_battery_that_is_not_there_has_no_values(sysfs: FakeSysfs) -> None:
    sysfs.power_supply("BAT0", present=0, capacity=50, status="Unknown")
    assert {r.reason for r in read(sysfs, "power_supply:BAT0").values()} == {"the battery is not there"}


@pytest.mark.parametrize(("status", "quality"), [("Full", "good"), ("Unknown", "bad"), ("\x1b[2J", "bad")])
def test_a_state_is_one_that_the_kernel_has(sysfs: FakeSysfs, status: str, quality: str) -> None:
    sysfs.power_supply("BAT0", capacity=101, status=status)
    got = read(sysfs, "power_supply:BAT0")
    assert (got["status"].quality, got["capacity"].quality) == (quality, "uncertain")


def test_a_value_that_a_fuel_gauge_does_not_have_is_bad_alone(sysfs: FakeSysfs) -> None:
    device = sysfs.power_supply("BAT0", capacity=50, current_now=0)
    device.make_unreadable("current_now")
    got = read(sysfs, "power_supply:BAT0")
    assert (got["current"].quality, got["capacity"].value) == ("bad", 50)
    device.make_unreadable("capacity")
    with pytest.raises(BusError) as caught:
        read(sysfs, "power_supply:BAT0")
    assert caught.value.errno == errno.EIO
