"""Whatever the files hold: an error of ours or readings, and no good one that cannot be."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sdk.drivers import Reading
from device_sdk.drivers.host import HostDriver
from device_sdk.drivers.sysfs import SysfsDriver
from device_sdk.drivers.sysfs.names import SUBSYSTEMS
from device_sdk.errors import DriverError

HERE = {
    "hwmon": (
        "sys/class/hwmon/hwmon0",
        ("temp1_input", "temp1_fault", "in0_input", "fan1_input", "power1_input"),
    ),
    "iio": (
        "sys/bus/iio/devices/iio:device0",
        ("in_temp_raw", "in_temp_scale", "in_temp_offset", "in_voltage0_raw", "in_pressure_input"),
    ),
    "w1": ("sys/bus/w1/devices/28-0316a2795f12", ("w1_slave", "temperature")),
    "thermal": ("sys/class/thermal/thermal_zone0", ("temp",)),
    "power_supply": ("sys/class/power_supply/BAT0", ("capacity", "voltage_now", "temp", "status", "online")),
}  # fmt: skip
# What a good reading may be, wider than the ranges of the driver.
CREDIBLE = {
    "Cel": (-270, 2500),
    "%RH": (0, 100),
    "V": (-1000, 1000),
    "1/min": (0, 2e5),
    "%EL": (0, 100),
    "W": (-1e6, 1e6),
}
NUMBERS = st.one_of(
    st.integers(-(2**66), 2**66).map(str),
    st.sampled_from([0, 85_000, 127_937, -274_000, 2**31 - 1, 2**32 - 1]).map(str),
    st.floats(allow_nan=True).map(lambda number: f"{number:f}"),
    st.integers(1, 4200).map(lambda count: "9" * count),
)
CONTENT = st.one_of(
    NUMBERS.map(str.encode), st.binary(max_size=40), st.sampled_from([b"Full", b"\xd9\xa3", b"1e9"])
)


def check(readings: tuple[Reading, ...]) -> None:
    for reading in readings:
        assert (reading.value is None) == (reading.quality == "bad"), reading
        assert (reading.quality == "good") == (reading.reason == ""), reading
        if reading.quality == "good" and isinstance(reading.value, (int, float)):
            low, high = CREDIBLE.get(reading.unit, (-math.inf, math.inf))
            assert math.isfinite(reading.value), reading
            assert low <= reading.value <= high, reading


@pytest.mark.parametrize("kind", list(SUBSYSTEMS))
def test_any_content_is_an_error_or_credible(tmp_path: Path, kind: str) -> None:
    place, files = HERE[kind]
    folder = tmp_path / place
    folder.mkdir(parents=True)

    @settings(max_examples=150, deadline=None)
    @given(st.lists(CONTENT, min_size=len(files), max_size=len(files)))
    def run(contents: list[bytes]) -> None:
        for file, content in zip(files, contents, strict=True):
            (folder / file).write_bytes(content)
        try:
            with SysfsDriver(f"{kind}:{folder.name}", tmp_path) as driver:
                check(driver.read())
        except DriverError:
            pass

    run()


def test_any_counters_of_the_host_are_an_error_or_credible(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    (proc / "net").mkdir(parents=True)
    files = ("loadavg", "uptime", "meminfo", "net/dev", "stat")
    real = [Path("/proc", file).read_bytes() for file in files]

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from(range(len(files))), st.integers(0, 400), CONTENT)
    def run(which: int, at: int, content: bytes) -> None:
        for index, file in enumerate(files):
            whole = real[index]
            (proc / file).write_bytes(whole[:at] + content + whole[at + 1 :] if index == which else whole)
        try:
            with HostDriver(tmp_path) as driver:
                check(driver.read())
        except DriverError:
            pass

    run()
