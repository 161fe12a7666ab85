"""What not every machine has: CPU use and temperature, disks, the supply of a Raspberry Pi."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from device_sdk.drivers import Reading
from device_sdk.drivers.host import HostDriver
from device_sdk.errors import ArgumentError
from device_sdk.testing.fake_sysfs import FakeSysfs
from tests.drivers.test_host_driver import root

__all__ = ["root"]

THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"


def read(driver: HostDriver) -> dict[str, Reading]:
    return {reading.channel: reading for reading in driver.read()}


def stat(root: Path, *columns: int) -> None:
    """Write counters as the kernel does: user nice system idle iowait irq softirq steal guest guest_nice."""
    line = f"cpu  {' '.join(map(str, columns))}\n"
    (root / "proc/stat").write_text(f"{line}cpu0 1 2 3 4 5 6 7 8 9 10\nintr 12345\nbtime 1795324828\n")


# CPU use


def test_cpu_use_is_the_share_of_ticks_that_were_not_idle_since_the_last_read(root: Path) -> None:
    stat(root, 1000, 0, 500, 8000, 100, 0, 0, 0, 0, 0)
    with HostDriver(root) as driver:
        stat(root, 1100, 50, 600, 8700, 150, 0, 0, 0, 90, 0)  # 250 of 1000; guest is part of user
        first = read(driver)["cpu.use"]
        assert (first.value, first.unit, first.quality) == (25.0, "%", "good")
        stat(root, 1100, 50, 600, 8800, 150, 0, 0, 0, 90, 0)
        assert read(driver)["cpu.use"].value == 0.0
        stat(root, 1403, 50, 600, 8800, 150, 0, 0, 0, 90, 0)
        assert read(driver)["cpu.use"].value == 100.0


def test_no_tick_is_no_use_and_few_are_uncertain(root: Path) -> None:
    stat(root, 10, 0, 0, 10, 0, 0, 0, 0)
    with HostDriver(root) as driver:
        reading = read(driver)["cpu.use"]
        assert (reading.value, reading.quality) == (None, "bad")
        stat(root, 12, 0, 0, 11, 0, 0, 0, 0)
        reading = read(driver)["cpu.use"]
        assert (reading.value, reading.quality) == (66.7, "uncertain")
        assert "only 3 ticks" in reading.reason


def test_counters_that_go_back_do_not_make_more_than_100_percent(root: Path) -> None:
    stat(root, 1000, 0, 0, 1000, 500, 0, 0, 0)
    with HostDriver(root) as driver:
        stat(root, 1100, 0, 0, 1000, 400, 0, 0, 0)
        assert read(driver)["cpu.use"].value == 100.0


@pytest.mark.parametrize(
    "content",
    [
        "",
        "cpu\n",
        "cpu  1 2 3\n",
        "cpu  1 2 3 4 5 6 7 x\n",
        f"cpu  {'1' * 3000} 2\n",
        "cpu0 1 2 3 4 5 6 7 8\n",
    ],
)
def test_damaged_counters_are_bad_alone_and_recover(root: Path, content: str) -> None:
    stat(root, 100, 0, 0, 100, 0, 0, 0, 0)
    with HostDriver(root) as driver:
        (root / "proc/stat").write_text(content)
        got = read(driver)
        assert (got["cpu.use"].quality, got["load.1m"].quality) == ("bad", "good")
        assert "proc/stat: expected 'cpu' and 8 or more counters" in got["cpu.use"].reason
        stat(root, 200, 0, 0, 100, 0, 0, 0, 0)
        assert "could not be read" in read(driver)["cpu.use"].reason
        stat(root, 300, 0, 0, 100, 0, 0, 0, 0)
        assert read(driver)["cpu.use"].value == 100.0


def test_this_machine_works_while_it_counts() -> None:
    with HostDriver() as driver:
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass
        reading = read(driver)["cpu.use"]
    assert isinstance(reading.value, float) and 0 < reading.value <= 100


# CPU temperature


def temperature(root: Path) -> Reading | None:
    with HostDriver(root) as driver:
        return read(driver).get("cpu.temperature")


@pytest.mark.parametrize("zone", ["cpu-thermal", "cpu_thermal", "x86_pkg_temp", "soc-thermal"])
def test_the_temperature_is_that_of_the_cpus_zone(root: Path, zone: str) -> None:
    sysfs = FakeSysfs(root)
    sysfs.thermal_zone("acpitz", 20_000)
    sysfs.thermal_zone(zone, 48_312)
    got = temperature(root)
    assert got is not None
    assert (got.value, got.unit, got.quality) == (48.312, "Cel", "good")


@pytest.mark.parametrize("chip", ["coretemp", "k10temp", "zenpower"])
def test_without_a_zone_it_is_that_of_the_cpus_monitor(root: Path, chip: str) -> None:
    sysfs = FakeSysfs(root)
    sysfs.hwmon("nvme", temp1_input=70_000)
    sysfs.hwmon(chip, "platform/chip.0", temp1_input=51_000, temp2_input=60_000, temp1_label="Package id 0")
    got = temperature(root)
    assert got is not None
    assert got.value == 51.0


def test_of_two_sockets_the_hottest_counts_and_one_that_is_off_does_not(root: Path) -> None:
    sysfs = FakeSysfs(root)
    first = sysfs.thermal_zone("x86_pkg_temp", 48_000)
    second = sysfs.thermal_zone("x86_pkg_temp", 52_000)
    with HostDriver(root) as driver:
        assert read(driver)["cpu.temperature"].value == 52.0
        second.set_value("temp", 2_147_483_647)
        assert read(driver)["cpu.temperature"].value == 48.0
        second.make_unreadable("temp")
        assert read(driver)["cpu.temperature"].value == 48.0
        first.set_value("temp", -274_000)
        assert (read(driver)["cpu.temperature"].value, read(driver)["load.1m"].quality) == (None, "good")
        first.make_unreadable("temp")
        reading = read(driver)["cpu.temperature"]
        assert (reading.value, "cannot be read" in reading.reason) == (None, True)


def test_a_machine_without_them_has_no_such_channels(root: Path) -> None:
    FakeSysfs(root).thermal_zone("acpitz", 20_000)
    FakeSysfs(root).hwmon("nvme", temp1_input=70_000)
    with HostDriver(root, disks=()) as driver:
        names = {channel.name for channel in driver.channels()}
    assert not {name for name in names if name.startswith(("cpu.", "power.", "disk."))}


# The supply of a Raspberry Pi


def test_the_monitor_of_the_kernel_tells_of_under_voltage(root: Path) -> None:
    monitor = FakeSysfs(root).hwmon("rpi_volt", in0_lcrit_alarm=0)
    path = root / THROTTLED
    path.parent.mkdir(parents=True)
    path.write_text("50005\n")
    with HostDriver(root) as driver:
        assert read(driver)["power.under_voltage"].value is False
        assert "cpu.throttled" not in read(driver), "reading the firmware's file makes the kernel warn"
        monitor.set_value("in0_lcrit_alarm", 1)
        assert read(driver)["power.under_voltage"].value is True


@pytest.mark.parametrize("folder", ["soc/soc:firmware", "soc@107c000000/soc@107c000000:firmware"])
@pytest.mark.parametrize(
    ("content", "bits"),
    [
        ("0", (0, 0, 0, 0)), ("50005", (1, 0, 1, 0)), ("0x2", (0, 1, 0, 0)), ("8", (0, 0, 0, 1)),
        ("f0000", (0, 0, 0, 0)),
    ],
)  # fmt: skip
def test_the_bits_of_the_firmware_are_those_of_now(
    root: Path, folder: str, content: str, bits: tuple[int, ...]
) -> None:
    path = root / "sys/devices/platform" / folder / "get_throttled"
    path.parent.mkdir(parents=True)
    path.write_text(f"{content}\n")
    names = ("power.under_voltage", "cpu.frequency_capped", "cpu.throttled", "cpu.soft_limited")
    with HostDriver(root) as driver:
        assert tuple(read(driver)[name].value for name in names) == tuple(map(bool, bits))
        path.write_text("error\n")
        assert {read(driver)[name].quality for name in names} == {"bad"}


# Disks


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A file system of 1000 blocks: 300 free, 250 of them for everybody; and which paths are mounted."""
    state = SimpleNamespace(
        f_frsize=4096, f_blocks=1000, f_bfree=300, f_bavail=250, asked=[], fail=0, mounted=True
    )

    def statvfs(path: Path) -> SimpleNamespace:
        state.asked.append(str(path))
        if state.fail:
            raise OSError(state.fail, os.strerror(state.fail))
        return state

    monkeypatch.setattr("os.statvfs", statvfs)
    monkeypatch.setattr("os.path.ismount", lambda path: state.mounted)
    return state


def test_a_disk_has_its_size_what_is_used_and_what_is_free_for_everybody(
    root: Path, disk: SimpleNamespace
) -> None:
    with HostDriver(root) as driver:
        got = {name: (r.value, r.unit) for name, r in read(driver).items() if name.startswith("disk.")}
    assert got == {
        "disk./.total": (1000 * 4096, "B"), "disk./.used": (700 * 4096, "B"), "disk./.free": (250 * 4096, "B")
    }  # fmt: skip


def test_only_the_configured_paths_are_asked(root: Path, disk: SimpleNamespace) -> None:
    with HostDriver(root, disks=["/", "/var/log"]) as driver:
        assert disk.asked == []
        assert read(driver)["disk./var/log.free"].value == 250 * 4096
        assert disk.asked == [str(root), str(root / "var/log")]
        disk.asked.clear()
    with HostDriver(root, disks=[]) as driver:
        read(driver)
    assert disk.asked == []


def test_a_disk_that_is_not_mounted_is_bad_and_has_not_the_numbers_of_the_one_below(
    root: Path, disk: SimpleNamespace
) -> None:
    with HostDriver(root, disks=["/", "/mnt/stick"]) as driver:
        disk.mounted = False
        got = read(driver)
        assert (got["disk./mnt/stick.free"].value, got["disk./.free"].value) == (None, 250 * 4096)
        assert got["disk./mnt/stick.free"].reason == "nothing is mounted on /mnt/stick"
        disk.mounted = True
        assert read(driver)["disk./mnt/stick.free"].quality == "good"


def test_a_disk_that_fails_is_bad_alone(root: Path, disk: SimpleNamespace) -> None:
    with HostDriver(root) as driver:
        disk.fail = errno.EIO
        got = read(driver)
        assert (got["disk./.free"].quality, got["load.1m"].quality) == ("bad", "good")
        assert "/: the file system gives no numbers: Input/output error" in got["disk./.free"].reason
        disk.fail, disk.f_blocks = 0, 0
        assert "has no size" in read(driver)["disk./.total"].reason


@pytest.mark.parametrize(
    ("disks", "words"),
    [
        ("/", "expected a list of mount points, found '/'"),
        (["var"], "expected mount points such as '/' or '/var/log', found 'var'"),
        (["/var/"], "found '/var/'"),
        (["/a\0b"], "found"),
        ([7], "found 7"),
        (["/", "/"], "stands there twice"),
        (7, "expected a list"),
    ],
)
def test_a_disk_that_is_no_path_is_an_argument_error(disks: list[str], words: str) -> None:
    with pytest.raises(ArgumentError, match=words) as caught:
        HostDriver(disks=disks)
    assert caught.value.argument == "disks"


def test_the_disk_of_this_machine_is_not_larger_than_it_is() -> None:
    with HostDriver() as driver:
        got = {name: reading.value for name, reading in read(driver).items()}
    total, used, free = (got[f"disk./.{name}"] for name in ("total", "used", "free"))
    assert isinstance(total, int) and isinstance(used, int) and isinstance(free, int)
    assert 0 <= free <= total and 0 <= used <= total
