"""Which device is which: names that stay over a boot, and which numbers do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_sdk.drivers import discover, open_driver
from device_sdk.drivers.sysfs import SysfsDriver
from device_sdk.errors import ArgumentError, DeviceNotFoundError
from device_sdk.testing.fake_sysfs import FakeSysfs


@pytest.fixture
def sysfs(tmp_path: Path) -> FakeSysfs:
    return FakeSysfs(tmp_path)


def value(sysfs: FakeSysfs, device: str) -> object:
    with SysfsDriver(device, sysfs.root) as driver:
        return driver.read()[0].value


def proposed(sysfs: FakeSysfs) -> list[str]:
    return [sensor.options["device"] for sensor in discover(sysfs.root) if sensor.options]


# Two of one name


@pytest.mark.parametrize("order", [("1-0048", "1-0049"), ("1-0049", "1-0048")])
def test_two_chips_of_one_name_keep_their_values_in_whatever_order_a_boot_finds_them(
    sysfs: FakeSysfs, order: tuple[str, str]
) -> None:
    for place in order:
        volts = {"1-0048": 1000, "1-0049": 2000}[place]
        sysfs.iio("ads1015", place, in_voltage0_raw=volts, in_voltage_scale=1)
        sysfs.hwmon("lm75", place, temp1_input=volts)
    assert value(sysfs, "iio:ads1015@1-0048") == 1.0
    assert value(sysfs, "iio:ads1015@1-0049") == 2.0
    assert value(sysfs, "hwmon:lm75@1-0048") == 1.0
    assert sorted(proposed(sysfs)) == [
        "hwmon:lm75@1-0048", "hwmon:lm75@1-0049", "iio:ads1015@1-0048", "iio:ads1015@1-0049"
    ]  # fmt: skip
    for sensor in discover(sysfs.root):
        with open_driver(sensor.kind, **sensor.options) as driver:
            assert driver.read()[0].quality == "good"


def test_the_name_alone_is_proposed_while_it_is_unique_and_refused_when_a_twin_comes(
    sysfs: FakeSysfs,
) -> None:
    sysfs.iio("ads1015", "1-0048", in_voltage0_raw=1)
    assert proposed(sysfs) == ["iio:ads1015"]
    assert value(sysfs, "iio:ads1015@1-0048") == 1
    twin = sysfs.iio("ads1015", "1-0049", in_voltage0_raw=2)
    with pytest.raises(
        ArgumentError,
        match="2 devices are called 'iio:ads1015', write iio:ads1015@1-0048 or iio:ads1015@1-0049",
    ):
        SysfsDriver("iio:ads1015", sysfs.root).open()
    twin.remove()
    assert value(sysfs, "iio:ads1015") == 1


def test_a_place_where_the_device_is_not_is_not_found_and_the_message_lists_the_others(
    sysfs: FakeSysfs,
) -> None:
    sysfs.iio("ads1015", "1-0048", in_voltage0_raw=1)
    sysfs.iio("ads1015", "1-0049", in_voltage0_raw=1)
    with pytest.raises(DeviceNotFoundError, match="there is: ads1015@1-0048, ads1015@1-0049; did you mean"):
        SysfsDriver("iio:ads1015@1-004a", sysfs.root).open()


def test_a_number_of_this_boot_is_refused_and_the_message_says_what_to_write(sysfs: FakeSysfs) -> None:
    sysfs.hwmon("nvme", "pci/0000:01:00.0", temp1_input=30_000)
    sysfs.hwmon("nvme", "pci/0000:02:00.0", temp1_input=40_000)
    with pytest.raises(ArgumentError, match=r"number in hwmon:hwmon1 .* write 'hwmon:nvme@0000:02:00.0'"):
        SysfsDriver("hwmon:hwmon1", sysfs.root).open()
    assert value(sysfs, "hwmon:nvme@0000:02:00.0") == 40.0


def test_zones_of_one_type_have_no_name_that_stays_and_are_not_proposed(sysfs: FakeSysfs) -> None:
    for millidegrees in (30_000, 40_000):
        sysfs.thermal_zone("soc", millidegrees)
    sysfs.thermal_zone("cpu-thermal", 50_000)
    assert proposed(sysfs) == ["thermal:cpu-thermal"]
    first, second, _ = discover(sysfs.root)
    assert second.options == {}
    assert "2 devices are called 'soc', on no bus" in second.reason
    assert "'thermal:thermal_zone1'" in second.reason
    assert value(sysfs, "thermal:thermal_zone1") == 40.0
    assert first.channels[0].name == "temperature"
    with pytest.raises(ArgumentError, match="write thermal:thermal_zone0 or thermal:thermal_zone1"):
        SysfsDriver("thermal:soc", sysfs.root).open()


def test_two_of_one_name_at_one_place_have_none_either(sysfs: FakeSysfs) -> None:
    for millidegrees in (30_000, 40_000):
        sysfs.hwmon("amdgpu", "pci/0000:03:00.0", temp1_input=millidegrees)
    first, _ = discover(sysfs.root)
    assert (first.options, "more than one of them on 0000:03:00.0" in first.reason) == ({}, True)


@pytest.mark.parametrize("content", ["", "two\nlines", "x" * 81, "\x1b[31mred"])
def test_a_name_that_cannot_be_written_is_none(sysfs: FakeSysfs, content: str) -> None:
    sysfs.hwmon("chip", "1-0048", temp1_input=1000).set_value("name", content)
    (found,) = discover(sysfs.root)
    assert (found.options, "no name" in found.reason) == ({}, True)
    assert value(sysfs, "hwmon:hwmon0") == 1.0


def test_a_name_in_which_the_driver_counts_its_devices_is_not_proposed_but_found(sysfs: FakeSysfs) -> None:
    sysfs.hwmon("mt7921_phy0", "pci/0000:04:00.0", temp1_input=30_000)
    sysfs.power_supply("hid-0018:04F3:2C62.0001-battery", capacity=50)
    assert proposed(sysfs) == []
    assert {sensor.reason.partition("number in ")[2] for sensor in discover(sysfs.root)} == {
        "'mt7921_phy0'", "'hid-0018:04F3:2C62.0001-battery'"
    }  # fmt: skip
    assert value(sysfs, "hwmon:mt7921_phy0") == 30.0


# The place


def link(where: Path, to: Path) -> None:
    where.parent.mkdir(parents=True, exist_ok=True)
    to.mkdir(parents=True, exist_ok=True)
    where.symlink_to(to)


def device_of_a_class(root: Path, number: int, place: str) -> None:
    """An NVMe disk as the kernel has it: hwmon below nvme0 of the class nvme, below a PCI device."""
    pci = root / "sys/devices/pci0000:00" / place
    disk = pci / "nvme" / f"nvme{number}"
    monitor = disk / f"hwmon{number}"
    link(pci / "subsystem", root / "sys/bus/pci")
    link(disk / "subsystem", root / "sys/class/nvme")
    link(root / "sys/class/hwmon" / monitor.name, monitor)
    link(monitor / "device", disk)
    (monitor / "name").write_text("nvme\n")
    (monitor / "temp1_input").write_text(f"{30 + number}000\n")


@pytest.mark.parametrize("places", [("0000:01:00.0", "0000:02:00.0"), ("0000:02:00.0", "0000:01:00.0")])
def test_the_number_of_a_device_of_a_class_is_no_place_but_the_bus_above_is(
    sysfs: FakeSysfs, places: tuple[str, str]
) -> None:
    for number, place in enumerate(places):
        device_of_a_class(sysfs.root, number, place)
    assert sorted(proposed(sysfs)) == ["hwmon:nvme@0000:01:00.0", "hwmon:nvme@0000:02:00.0"]
    assert value(sysfs, f"hwmon:nvme@{places[1]}") == 31.0


def test_a_monitor_of_a_thermal_zone_is_on_no_bus(sysfs: FakeSysfs) -> None:
    for number in range(2):
        zone = sysfs.root / f"sys/devices/virtual/thermal/thermal_zone{number}"
        link(zone / "subsystem", sysfs.root / "sys/class/thermal")
        link(sysfs.root / f"sys/class/hwmon/hwmon{number}", zone / f"hwmon{number}")
        link(zone / f"hwmon{number}/device", zone)
        (zone / f"hwmon{number}/name").write_text("soc\n")
        (zone / f"hwmon{number}/temp1_input").write_text("30000\n")
    assert proposed(sysfs) == []


def test_a_bus_that_numbers_its_devices_is_no_place(sysfs: FakeSysfs) -> None:
    for number, socket in enumerate(("1-1:1.0", "1-2:1.0")):
        interface = sysfs.root / "sys/devices/usb1" / socket
        hid = interface / f"0003:1B1C:0C10.000{number}"
        link(interface / "subsystem", sysfs.root / "sys/bus/usb")
        link(hid / "subsystem", sysfs.root / "sys/bus/hid")
        link(sysfs.root / f"sys/class/hwmon/hwmon{number}", hid / f"hwmon/hwmon{number}")
        link(hid / f"hwmon/hwmon{number}/device", hid)
        (hid / f"hwmon/hwmon{number}/name").write_text("corsaircpro\n")
        (hid / f"hwmon/hwmon{number}/temp1_input").write_text("30000\n")
    assert proposed(sysfs) == ["hwmon:corsaircpro@1-1:1.0", "hwmon:corsaircpro@1-2:1.0"]


@pytest.mark.parametrize("sockets", [("1-1:1.0", "1-2:1.0"), ("1-2:1.0", "1-1:1.0")])
def test_chips_on_usb_adapters_are_told_apart_by_the_socket_and_not_by_the_number_of_the_bus(
    sysfs: FakeSysfs, sockets: tuple[str, str]
) -> None:
    for number, socket in enumerate(sockets):
        interface = sysfs.root / "sys/devices/usb1" / socket
        chip = interface / f"i2c-{number + 5}" / f"{number + 5}-0048"
        link(interface / "subsystem", sysfs.root / "sys/bus/usb")
        link(chip.parent / "subsystem", sysfs.root / "sys/bus/i2c")
        link(chip / "subsystem", sysfs.root / "sys/bus/i2c")
        link(sysfs.root / f"sys/class/hwmon/hwmon{number}", chip / f"hwmon/hwmon{number}")
        link(chip / f"hwmon/hwmon{number}/device", chip)
        (chip / f"hwmon/hwmon{number}/name").write_text("lm75\n")
        (chip / f"hwmon/hwmon{number}/temp1_input").write_text(f"2{socket[2]}000\n")
    assert sorted(proposed(sysfs)) == ["hwmon:lm75@1-1:1.0/0048", "hwmon:lm75@1-2:1.0/0048"]
    assert value(sysfs, "hwmon:lm75@1-2:1.0/0048") == 22.0


def test_the_target_of_the_link_device_is_the_place_in_a_tree_without_buses(sysfs: FakeSysfs) -> None:
    for number, place in enumerate(("1-0048", "1-0049")):
        folder = sysfs.root / f"sys/class/hwmon/hwmon{number}"
        link(folder / "device", sysfs.root / "sys/devices" / place)
        (folder / "name").write_text("lm75\n")
        (folder / "temp1_input").write_text("30000\n")
    assert proposed(sysfs) == ["hwmon:lm75@1-0048", "hwmon:lm75@1-0049"]


def test_a_device_that_takes_over_the_number_of_another_is_not_read_as_it(sysfs: FakeSysfs) -> None:
    first = sysfs.hwmon("lm75", "1-0048", temp1_input=20_000)
    sysfs.hwmon("lm75", "1-0049", temp1_input=30_000)
    with SysfsDriver("hwmon:lm75@1-0048", sysfs.root) as driver:
        first.remove()
        (sysfs.root / "sys/class/hwmon/hwmon1").rename(sysfs.root / "sys/class/hwmon/hwmon0")
        with pytest.raises(DeviceNotFoundError, match=r"1-0048/.*is gone"):
            driver.read()
