"""The host driver against trees of its own and against the real /proc."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from device_sdk.drivers.host import HostDriver
from device_sdk.errors import BusError, DeviceNotFoundError, DriverError

LOADAVG = "0.52 0.48 1.07 2/345 6789\n"
UPTIME = "350735.47 234388.90\n"
MEMINFO = """\
MemTotal:         948012 kB
MemFree:          112004 kB
MemAvailable:     701220 kB
Buffers:           40412 kB
HugePages_Total:       0
SwapTotal:        102396 kB
SwapFree:         102000 kB
"""
NET_DEV_HEAD = (
    "Inter-|   Receive                                                |  Transmit\n"
    " face |bytes    packets errs drop fifo frame compressed multicast"
    "|bytes    packets errs drop fifo colls carrier compressed\n"
)


def interface_line(name: str, received: str, sent: str) -> str:
    """A line as the kernel prints it: no space before a wide counter."""
    return f"{name:>6}:{received:>8} {sent}\n"


LO = interface_line("lo", "500  5 0 0 0 0 0 0", "500  5 0 0 0 0 0 0")
ETH0 = interface_line("eth0", "1234567  890 1 2 3 4 5 6", "765432  654 7 8 9 10 11 12")
WLAN0 = interface_line("wlan0", "4294967295  9 0 0 0 0 0 0", "8  7 0 0 0 0 0 0")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree as a Raspberry Pi with two interfaces would show it."""
    (tmp_path / "proc" / "net").mkdir(parents=True)
    for name, text in (
        ("loadavg", LOADAVG),
        ("uptime", UPTIME),
        ("meminfo", MEMINFO),
        ("net/dev", NET_DEV_HEAD + LO + ETH0 + WLAN0),
    ):
        (tmp_path / "proc" / name).write_text(text)
    return tmp_path


def read(driver: HostDriver) -> dict[str, object]:
    return {reading.channel: reading.value for reading in driver.read()}


def test_load_memory_uptime_and_counters_come_out_with_their_units(root: Path) -> None:
    with HostDriver(root) as driver:
        got = {reading.channel: (reading.value, reading.unit) for reading in driver.read()}
    assert got["load.1m"] == (0.52, "1")
    assert got["load.5m"] == (0.48, "1")
    assert got["load.15m"] == (1.07, "1")
    assert got["memory.total"] == (948012 * 1024, "B")
    assert got["memory.free"] == (112004 * 1024, "B")
    assert got["memory.available"] == (701220 * 1024, "B")
    assert got["swap.total"] == (102396 * 1024, "B")
    assert got["swap.free"] == (102000 * 1024, "B")
    assert got["uptime"] == (350735.47, "s")
    assert got["net.eth0.rx_bytes"] == (1234567, "B")
    assert got["net.eth0.rx_packets"] == (890, "count")
    assert got["net.eth0.rx_errors"] == (1, "count")
    assert got["net.eth0.tx_bytes"] == (765432, "B")
    assert got["net.eth0.tx_packets"] == (654, "count")
    assert got["net.eth0.tx_errors"] == (7, "count")
    assert got["net.wlan0.rx_bytes"] == (4294967295, "B"), "no space between the colon and a wide counter"


def test_readings_are_in_the_order_of_channels_and_carry_one_time(root: Path) -> None:
    with HostDriver(root) as driver:
        before = time.time()
        readings = driver.read()
        after = time.time()
        assert [(r.channel, r.unit) for r in readings] == [(c.name, c.unit) for c in driver.channels()]
    assert len({reading.time for reading in readings}) == 1
    assert before <= readings[0].time <= after
    assert {reading.quality for reading in readings} == {"good"}


def test_loopback_is_left_out_unless_asked_for(root: Path) -> None:
    with HostDriver(root) as driver:
        assert not [name for name in read(driver) if name.startswith("net.lo.")]
    with HostDriver(root, loopback=True) as driver:
        assert read(driver)["net.lo.rx_bytes"] == 500


def test_a_machine_without_interfaces_still_has_load_memory_and_uptime(root: Path) -> None:
    (root / "proc/net/dev").write_text(NET_DEV_HEAD + LO)
    with HostDriver(root, disks=()) as driver:
        assert len(driver.channels()) == 9


def test_an_interface_that_went_away_reads_as_bad_without_a_value(root: Path) -> None:
    with HostDriver(root) as driver:
        (root / "proc/net/dev").write_text(NET_DEV_HEAD + ETH0)
        got = {reading.channel: reading for reading in driver.read()}
        assert got["net.wlan0.rx_bytes"].value is None
        assert got["net.wlan0.rx_bytes"].quality == "bad"
        assert got["net.wlan0.rx_bytes"].reason == "the interface wlan0 is gone"
        assert got["net.eth0.rx_bytes"].quality == "good"


def test_an_interface_that_came_later_is_seen_by_the_next_open(root: Path) -> None:
    (root / "proc/net/dev").write_text(NET_DEV_HEAD + ETH0)
    driver = HostDriver(root)
    with driver:
        (root / "proc/net/dev").write_text(NET_DEV_HEAD + ETH0 + WLAN0)
        assert "net.wlan0.rx_bytes" not in read(driver)
    with driver:
        assert read(driver)["net.wlan0.tx_bytes"] == 8


def test_interface_names_may_hold_dots_and_colons(root: Path) -> None:
    (root / "proc/net/dev").write_text(
        NET_DEV_HEAD + ETH0.replace("eth0", "eth0.100") + WLAN0.replace("wlan0", "eth0:1")
    )
    with HostDriver(root) as driver:
        got = read(driver)
    assert got["net.eth0.100.rx_bytes"] == 1234567
    assert got["net.eth0:1.tx_packets"] == 7


@pytest.mark.parametrize("name", ["loadavg", "uptime", "meminfo", "net/dev"])
def test_a_missing_file_is_named_when_the_driver_opens(root: Path, name: str) -> None:
    (root / "proc" / name).unlink()
    with pytest.raises(DeviceNotFoundError, match=str(root / "proc" / name)):
        HostDriver(root).open()


def test_a_root_without_proc_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(DeviceNotFoundError, match="is missing"):
        HostDriver(tmp_path / "nowhere").open()


def test_a_file_that_cannot_be_read_is_a_bus_error(root: Path) -> None:
    (root / "proc/uptime").unlink()
    (root / "proc/uptime").mkdir()
    with pytest.raises(BusError, match="uptime cannot be read"):
        HostDriver(root).open()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("loadavg", "", "three decimal numbers"),
        ("loadavg", "0.52 0.48\n", "three decimal numbers"),
        ("loadavg", "nan 0.48 1.07 2/345 6789\n", "three decimal numbers"),
        ("loadavg", "-0.52 0.48 1.07 2/345 6789\n", "three decimal numbers"),
        ("uptime", "for ever\n", "two decimal numbers"),
        ("uptime", "350735.47\n", "two decimal numbers"),
        ("meminfo", MEMINFO.replace("MemAvailable", "MemAvailabel"), "'MemAvailable: <number> kB'"),
        ("meminfo", MEMINFO.replace("948012 kB", "948012 MB"), "'MemTotal: <number> kB'.*948012 MB"),
        ("meminfo", MEMINFO[: MEMINFO.index("102000")], "'SwapFree: <number> kB'"),
        ("net/dev", "", "two heading lines"),
        ("net/dev", NET_DEV_HEAD + ETH0[:40], "16 counters"),
        ("net/dev", NET_DEV_HEAD + ETH0.replace("890", "89x"), "16 counters"),
        ("net/dev", NET_DEV_HEAD + ETH0.replace(":", " "), "16 counters"),
        ("net/dev", NET_DEV_HEAD + ETH0.replace("eth0:", ":"), "16 counters"),
    ],
)
def test_damaged_content_names_the_file_and_what_was_expected(
    root: Path, name: str, content: str, expected: str
) -> None:
    with HostDriver(root) as driver:
        (root / "proc" / name).write_text(content)
        with pytest.raises(DriverError, match=f"{root / 'proc' / name}: expected .*{expected}"):
            driver.read()


def test_bytes_that_are_not_text_are_damaged_content(root: Path) -> None:
    (root / "proc/loadavg").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DriverError, match="expected three decimal numbers"):
        HostDriver(root).open()


def test_a_file_without_end_is_not_read_into_memory(root: Path) -> None:
    with (root / "proc/meminfo").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(DriverError, match="longer than 1048576 bytes"):
        HostDriver(root).open()


def test_a_failed_read_leaves_the_driver_open_for_the_next_one(root: Path) -> None:
    with HostDriver(root) as driver:
        (root / "proc/loadavg").write_text("garbage")
        with pytest.raises(DriverError):
            driver.read()
        (root / "proc/loadavg").write_text(LOADAVG)
        assert read(driver)["load.1m"] == 0.52


def test_a_failed_open_leaves_the_driver_closed(root: Path) -> None:
    (root / "proc/loadavg").write_text("garbage")
    driver = HostDriver(root)
    with pytest.raises(DriverError):
        driver.open()
    with pytest.raises(DriverError, match="not open"):
        driver.read()


def test_a_driver_that_is_not_open_says_so(root: Path) -> None:
    driver = HostDriver(root)
    with pytest.raises(DriverError, match="not open"):
        driver.channels()
    driver.open()
    driver.close()
    driver.close()
    with pytest.raises(DriverError, match="not open"):
        driver.read()


def test_opening_twice_keeps_the_interfaces_of_the_first_time(root: Path) -> None:
    driver = HostDriver(root)
    driver.open()
    channels = driver.channels()
    (root / "proc/net/dev").write_text(NET_DEV_HEAD)
    driver.open()
    assert driver.channels() == channels


def test_the_real_machine_gives_plausible_values() -> None:
    with HostDriver() as driver:
        got = read(driver)
        later = read(driver)
    got.pop("cpu.use", None)  # there may be no tick yet
    numbers = [value for value in got.values() if isinstance(value, (int, float))]
    assert len(numbers) == len(got)
    assert all(math.isfinite(number) and number >= 0 for number in numbers)
    assert got["memory.total"] == later["memory.total"]
    assert isinstance(got["memory.available"], int) and isinstance(got["memory.total"], int)
    assert 0 < got["memory.available"] <= got["memory.total"]
    assert isinstance(got["uptime"], float) and isinstance(later["uptime"], float)
    assert 0 < got["uptime"] <= later["uptime"]
