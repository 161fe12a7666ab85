"""The sysfs adapter against trees of its own: units, faults, discovery."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from device_sdk.drivers import Channel, Discovered, Reading, discover, open_driver
from device_sdk.drivers.sysfs import SysfsDriver
from device_sdk.errors import ArgumentError, BusError, ChecksumError, DeviceNotFoundError, DriverError
from device_sdk.testing.fake_sysfs import FakeSysfs

DS18B20 = "28-0316a2795f12"


@pytest.fixture
def sysfs(tmp_path: Path) -> FakeSysfs:
    return FakeSysfs(tmp_path)


def read(sysfs: FakeSysfs, device: str) -> dict[str, Reading]:
    with SysfsDriver(device, sysfs.root) as driver:
        return {reading.channel: reading for reading in driver.read()}


def values(sysfs: FakeSysfs, device: str) -> dict[str, tuple[object, str]]:
    return {name: (reading.value, reading.unit) for name, reading in read(sysfs, device).items()}


# hwmon


def test_hwmon_values_come_out_in_units_without_prefix(sysfs: FakeSysfs) -> None:
    sysfs.hwmon(
        "chip", temp1_input=-21500, in0_input=3312, curr1_input=57, power1_input=1_250_000,
        energy1_input=2_000_000, humidity1_input=43_200, fan1_input=1480, freq1_input=1_500_000_000,
    )  # fmt: skip
    assert values(sysfs, "hwmon:chip") == {
        "temp1": (-21.5, "Cel"), "in0": (3.312, "V"), "curr1": (0.057, "A"), "power1": (1.25, "W"),
        "energy1": (2.0, "J"), "humidity1": (43.2, "%RH"), "fan1": (1480, "1/min"),
        "freq1": (1_500_000_000, "Hz"),
    }  # fmt: skip


def test_hwmon_channels_are_in_the_order_of_their_numbers_with_labels(sysfs: FakeSysfs) -> None:
    sysfs.hwmon("chip", temp10_input=1000, temp2_input=2000, temp2_label="Core 0", temp2_max=90_000)
    with SysfsDriver("hwmon:chip", sysfs.root) as driver:
        assert driver.channels() == (
            Channel("temp2", "Cel", "Core 0", -64, 191, 3),
            Channel("temp10", "Cel", "temp10 of chip", -64, 191, 3),
        )


def test_a_power_sensor_with_average_and_input_is_one_channel(sysfs: FakeSysfs) -> None:
    sysfs.hwmon("chip", power1_average=1_000_000, power1_input=2_000_000, power2_average=3_000_000)
    assert values(sysfs, "hwmon:chip") == {"power1": (2.0, "W"), "power2": (3.0, "W")}


def test_a_sensor_that_reports_a_fault_is_bad(sysfs: FakeSysfs) -> None:
    device = sysfs.hwmon("chip", temp1_input=-40_000, temp1_fault=1)
    got = read(sysfs, "hwmon:chip")["temp1"]
    assert (got.value, got.quality, got.reason) == (None, "bad", "temp1_fault says that the sensor is faulty")
    device.set_value("temp1_fault", 0)
    assert read(sysfs, "hwmon:chip")["temp1"].value == -40


# IIO


def test_iio_values_that_the_kernel_computed_are_scaled_to_our_units(sysfs: FakeSysfs) -> None:
    sysfs.iio(
        "bme280", in_temp_input=21340, in_humidityrelative_input="43200", in_pressure_input="101.325000000"
    )
    assert values(sysfs, "iio:bme280") == {
        "humidity": (43.2, "%RH"), "pressure": (101_325.0, "Pa"), "temperature": (21.34, "Cel")
    }  # fmt: skip


def test_a_raw_iio_value_is_offset_first_and_then_scaled(sysfs: FakeSysfs) -> None:
    sysfs.iio("si7020", in_temp_raw=6400, in_temp_offset="-4368.000000000", in_temp_scale="10.725097656")
    assert values(sysfs, "iio:si7020") == {"temperature": (21.793, "Cel")}  # (6400 - 4368) * 10.725 m°C


def test_iio_channels_share_a_scale_unless_they_have_their_own(sysfs: FakeSysfs) -> None:
    differential: dict[str, int | str] = {"in_voltage0-voltage1_raw": -500, "in_voltage-voltage_scale": "0.5"}
    sysfs.iio(
        "ads1015", in_voltage0_raw=1000, in_voltage1_raw=1000, in_voltage1_scale=3, in_voltage_scale=2,
        **differential,
    )  # fmt: skip
    assert values(sysfs, "iio:ads1015") == {
        "voltage0": (2.0, "V"), "voltage0-1": (-0.25, "V"), "voltage1": (3.0, "V")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("files", "channel", "expected"),
    [
        ({"in_accel_x_raw": 100, "in_accel_scale": "0.01"}, "acceleration.x", (1.0, "m/s2")),
        ({"in_magn_y_raw": 5000, "in_magn_y_scale": "0.0001"}, "magnetic.y", (0.00005, "T")),
        ({"in_anglvel_z_raw": 3, "in_anglvel_scale": 1}, "gyro.z", (3.0, "rad/s")),
        ({"in_illuminance_input": "320.5"}, "illuminance", (320.5, "lx")),
        ({"in_illuminance0_raw": 10, "in_illuminance_scale": 2}, "illuminance0", (20.0, "lx")),
        ({"in_intensity_both_raw": 77}, "intensity.both", (77.0, "1")),
        ({"in_concentration_co2_input": "0.0812"}, "concentration.co2", (812.0, "ppm")),
        ({"in_concentration_raw": 812, "in_concentration_scale": "0.0001"}, "concentration", (812.0, "ppm")),
        ({"in_current3_raw": 250, "in_current3_scale": 2}, "current3", (0.5, "A")),
        ({"in_power2_raw": 4, "in_power2_scale": 500}, "power2", (2.0, "W")),
        ({"in_resistance_raw": 12, "in_resistance_scale": 10}, "resistance", (120.0, "Ohm")),
        ({"in_distance_raw": 57, "in_distance_scale": "0.001"}, "distance", (0.057, "m")),
        ({"in_temp_ir_raw": 100, "in_temp_scale": 20, "in_temp_offset": 5}, "temperature.ir", (2.1, "Cel")),
    ],
)  # fmt: skip
def test_each_iio_quantity_has_the_unit_of_the_abi(
    sysfs: FakeSysfs, files: dict[str, int | str], channel: str, expected: tuple[float, str]
) -> None:
    sysfs.iio("chip", **files, sampling_frequency=10, in_accel_scale_available="1 2")
    assert values(sysfs, "iio:chip") == {channel: (pytest.approx(expected[0]), expected[1])}


def test_a_computed_iio_value_wins_over_the_raw_one(sysfs: FakeSysfs) -> None:
    sysfs.iio("chip", in_temp_raw=1, in_temp_input=21_000)
    assert values(sysfs, "iio:chip") == {"temperature": (21.0, "Cel")}


# 1-wire


@pytest.mark.parametrize(("millidegrees", "expected"), [(21312, 21.312), (0, 0.0), (-10125, -10.125)])
def test_a_ds18b20_reads_in_degrees(sysfs: FakeSysfs, millidegrees: int, expected: float) -> None:
    sysfs.w1(DS18B20, millidegrees)
    assert values(sysfs, f"w1:{DS18B20}") == {"temperature": (expected, "Cel")}


def test_the_power_on_value_of_a_ds18b20_is_bad_and_says_why(sysfs: FakeSysfs) -> None:
    device = sysfs.w1(DS18B20, 21312)
    device.set_value("w1_slave", FakeSysfs.w1_slave(0, power_on=True))
    assert "50 05 4b 46 7f ff 0c 10 1c : crc=1c YES" in (device.folder / "w1_slave").read_text()
    got = read(sysfs, f"w1:{DS18B20}")["temperature"]
    assert (got.value, got.quality) == (None, "bad")
    assert "power-on" in got.reason


def test_a_true_85_degrees_is_good(sysfs: FakeSysfs) -> None:
    sysfs.w1(DS18B20, 85_000)
    got = read(sysfs, f"w1:{DS18B20}")["temperature"]
    assert (got.value, got.quality, got.reason) == (85.0, "good", "")


def test_85_degrees_without_the_scratchpad_are_uncertain(sysfs: FakeSysfs) -> None:
    device = sysfs.w1(DS18B20, 85_000)
    (device.folder / "w1_slave").unlink()
    got = read(sysfs, f"w1:{DS18B20}")["temperature"]
    assert (got.value, got.quality) == (85.0, "uncertain")
    device.set_value("temperature", 84_937)
    assert read(sysfs, f"w1:{DS18B20}")["temperature"].quality == "good"


def test_a_wrong_crc_on_the_wire_is_a_checksum_error(sysfs: FakeSysfs) -> None:
    device = sysfs.w1(DS18B20, 21312)
    device.set_value("w1_slave", FakeSysfs.w1_slave(21312, crc_ok=False))
    with pytest.raises(ChecksumError, match=rf"{DS18B20}/w1_slave: the CRC is wrong"):
        read(sysfs, f"w1:{DS18B20}")


def test_nine_zeros_are_a_shorted_line_and_not_0_degrees(sysfs: FakeSysfs) -> None:
    device = sysfs.w1(DS18B20, 0)
    zeros = " ".join(["00"] * 9)
    device.set_value("w1_slave", f"{zeros} : crc=00 YES\n{zeros} t=0")
    with pytest.raises(BusError, match="held low"):
        read(sysfs, f"w1:{DS18B20}")


@pytest.mark.parametrize("content", ["", "50 05 : crc=1c YES\n", "garbage"])
def test_a_damaged_w1_slave_says_what_was_expected(sysfs: FakeSysfs, content: str) -> None:
    sysfs.w1(DS18B20, 0).set_value("w1_slave", content)
    with pytest.raises(DriverError, match="w1_slave: expected nine bytes"):
        read(sysfs, f"w1:{DS18B20}")


# Thermal zones


def test_a_thermal_zone_is_found_by_its_type(sysfs: FakeSysfs) -> None:
    sysfs.thermal_zone("acpitz", 27_800)
    sysfs.thermal_zone("cpu-thermal", 48_312)
    assert values(sysfs, "thermal:cpu-thermal") == {"temperature": (48.312, "Cel")}
    assert values(sysfs, "thermal:acpitz") == {"temperature": (27.8, "Cel")}


# Which device


def test_an_unknown_device_lists_what_there_is_and_suggests_the_nearest(sysfs: FakeSysfs) -> None:
    sysfs.thermal_zone("cpu-thermal", 48_312)
    with pytest.raises(
        DeviceNotFoundError, match=r"'cpu_thermal'; there is: cpu-thermal; did you mean 'cpu-thermal'\?"
    ):
        SysfsDriver("thermal:cpu_thermal", sysfs.root).open()


def test_a_machine_without_one_wire_is_told_how_to_enable_it(sysfs: FakeSysfs) -> None:
    with pytest.raises(DeviceNotFoundError, match="dtoverlay=w1-gpio"):
        SysfsDriver(f"w1:{DS18B20}", sysfs.root).open()


def test_two_devices_of_one_name_are_told_apart_by_their_folders(sysfs: FakeSysfs) -> None:
    sysfs.hwmon("nvme", temp1_input=30_000)
    sysfs.hwmon("nvme", temp1_input=40_000)
    with pytest.raises(ArgumentError, match=r"2 devices .* write hwmon:hwmon0 or hwmon:hwmon1"):
        SysfsDriver("hwmon:nvme", sysfs.root).open()
    assert values(sysfs, "hwmon:hwmon1") == {"temp1": (40.0, "Cel")}


@pytest.mark.parametrize("device", ["", "hwmon", "hwmon:", "usb:stick", "/sys/class/hwmon/hwmon0"])
def test_a_device_that_is_none_is_an_argument_error(device: str) -> None:
    with pytest.raises(ArgumentError, match="expected one of hwmon:NAME, iio:NAME, w1:NAME, thermal:NAME"):
        SysfsDriver(device)


def test_a_device_without_a_known_channel_says_so(sysfs: FakeSysfs) -> None:
    sysfs.hwmon("chip", pwm1=128, temp1_max=90_000)
    with pytest.raises(DriverError, match="hwmon:chip has no channel"):
        SysfsDriver("hwmon:chip", sysfs.root).open()


def test_a_device_without_a_name_file_is_called_as_its_folder(sysfs: FakeSysfs) -> None:
    device = sysfs.hwmon("chip", temp1_input=1000)
    (device.folder / "name").unlink()
    assert values(sysfs, "hwmon:hwmon0") == {"temp1": (1.0, "Cel")}


# Faults


def test_an_io_error_of_the_only_channel_is_a_bus_error(sysfs: FakeSysfs) -> None:
    zone = sysfs.thermal_zone("cpu", 40_000)
    with SysfsDriver("thermal:cpu", sysfs.root) as driver:
        zone.make_unreadable("temp")
        with pytest.raises(
            BusError, match=r"thermal_zone0/temp cannot be read: Input/output error \(EIO\)"
        ) as caught:
            driver.read()
        assert caught.value.errno == errno.EIO
        zone.set_value("temp", 41_000)
        assert driver.read()[0].value == 41


def test_a_channel_that_fails_alone_is_bad_with_the_reason(sysfs: FakeSysfs) -> None:
    device = sysfs.hwmon("chip", temp1_input=40_000, fan1_input=1000)
    with SysfsDriver("hwmon:chip", sysfs.root) as driver:
        device.make_unreadable("fan1_input")
        fan, temperature = driver.read()
        assert (fan.value, fan.quality) == (None, "bad")
        assert "fan1_input cannot be read" in fan.reason
        assert temperature.value == 40
        device.make_unreadable("temp1_input")
        with pytest.raises(BusError, match="fan1_input"):
            driver.read()


def test_a_device_that_went_away_is_not_found_and_comes_back_by_itself(sysfs: FakeSysfs) -> None:
    device = sysfs.iio("bme280", in_temp_input=21_000)
    with SysfsDriver("iio:bme280", sysfs.root) as driver:
        device.remove()
        with pytest.raises(DeviceNotFoundError, match="in_temp_input is gone: was the device unplugged"):
            driver.read()
        device.plug()
        assert driver.read()[0].value == 21


@pytest.mark.parametrize("content", ["", "N/A", "nan", "1e5", "0x10", "12 13"])
def test_a_file_without_a_number_says_what_it_holds(sysfs: FakeSysfs, content: str) -> None:
    sysfs.thermal_zone("cpu", 0).set_value("temp", content)
    with pytest.raises(DriverError, match=f"temp: expected a number, found '{content}'"):
        read(sysfs, "thermal:cpu")


def test_a_driver_that_is_not_open_says_so(sysfs: FakeSysfs) -> None:
    sysfs.thermal_zone("cpu", 40_000)
    driver = open_driver("sysfs", device="thermal:cpu", root=sysfs.root)
    driver.open()  # does nothing
    driver.close()
    driver.close()
    for use in (driver.read, driver.channels):
        with pytest.raises(DriverError, match="thermal:cpu is not open"):
            use()


# Discovery


def test_discover_finds_every_subsystem_and_what_it_suggests_can_be_opened(sysfs: FakeSysfs) -> None:
    sysfs.hwmon("rp1_adc", in1_input=1479, temp1_input=52_000)
    sysfs.iio("bme280", in_temp_input=21_340, in_pressure_input="101.3")
    sysfs.w1(DS18B20, 19_000)
    sysfs.thermal_zone("cpu-thermal", 48_312)
    found = discover(sysfs.root)
    assert [sensor.options["device"] for sensor in found] == [
        "hwmon:rp1_adc", "iio:bme280", f"w1:{DS18B20}", "thermal:cpu-thermal"
    ]  # fmt: skip
    for sensor in found:
        with open_driver(sensor.kind, **sensor.options) as driver:
            assert tuple((c.name, c.unit) for c in driver.channels()) == tuple(
                (c.name, c.unit) for c in sensor.channels
            )
            assert {reading.quality for reading in driver.read()} == {"good"}


def test_discover_says_what_it_found(sysfs: FakeSysfs) -> None:
    sysfs.thermal_zone("cpu-thermal", 48_312)
    folder = sysfs.root / "sys/class/thermal/thermal_zone0"
    assert discover(sysfs.root) == [
        Discovered(
            "sysfs",
            {"device": "thermal:cpu-thermal", "root": str(sysfs.root)},
            f"cpu-thermal, {folder}",
            (Channel("temperature", "Cel", "cpu-thermal, thermal_zone0", -64, 191, 3),),
        )
    ]


def test_discover_leaves_out_copies_and_what_has_no_known_channel(sysfs: FakeSysfs) -> None:
    sysfs.hwmon("w1_slave_temp", temp1_input=85_000)
    sysfs.hwmon("pwmfan", pwm1=255)
    (sysfs.root / "sys/bus/w1/devices/00-400000000000").mkdir(parents=True)
    assert discover(sysfs.root) == []


def test_discover_on_this_machine_and_on_an_empty_one_does_not_fail(tmp_path: Path) -> None:
    assert discover(tmp_path) == []
    for sensor in discover():
        assert "root" not in sensor.options
