"""Parts of the machine that not every one has: CPU use and temperature, disks, the supply of a Raspberry Pi.

A part that is not there has no channel; one that cannot be read is ``bad`` and does not stop the others.

Source: Linux ``Documentation/filesystems/proc.rst`` (``/proc/stat``), ``Documentation/hwmon``:
``coretemp.rst``, ``k10temp.rst``; ``man 3 statvfs``; the Raspberry Pi firmware's ``GET_THROTTLED`` and its
kernel driver ``raspberrypi-hwmon``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from device_sdk.drivers.base import Channel, Reading
from device_sdk.drivers.sysfs.channels import Source
from device_sdk.drivers.sysfs.files import damaged, number, text
from device_sdk.drivers.sysfs.names import SUBSYSTEMS, devices
from device_sdk.drivers.values import Measurement, reading_of
from device_sdk.errors import BusError, DriverError

__all__ = ["Part", "check_disks", "find_parts"]


@dataclass(frozen=True, slots=True)
class Part:
    """Channels that are measured together."""

    channels: tuple[Channel, ...]
    measure: Callable[[], list[Measurement]]

    def read(self) -> list[Measurement]:
        """Measure all channels; if that fails, all are ``bad``."""
        try:
            return self.measure()
        except DriverError as error:
            return [Measurement(None, "bad", str(error))] * len(self.channels)


def find_parts(root: Path, disks: Sequence[str]) -> list[Part]:
    """Return the parts that this machine has, and the disks."""
    found = [_cpu_use(root), _cpu_temperature(root), *_supply(root)]
    return [part for part in found if part is not None] + [_disk(root, path) for path in disks]


# CPU use. Columns of /proc/stat, in ticks: user nice system idle iowait irq softirq steal; the two that
# follow are parts of user and nice.
_COLUMNS = 8
_IDLE = (3, 4)
_FEW_TICKS = 10


def _cpu_use(root: Path) -> Part | None:
    path = root / "proc/stat"
    if not path.exists():
        return None
    channel = Channel("cpu.use", "%", "time in which the CPUs worked, since the last read", 0, 100, 1)
    return Part((channel,), _CpuUse(path).measure)


class _CpuUse:
    """Remembers the counters of the last read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: list[int] | None = None
        try:
            self._last = self._ticks()
        except DriverError:
            pass  # reported by the first read

    def measure(self) -> list[Measurement]:
        last, self._last = self._last, None
        now = self._last = self._ticks()
        if last is None:
            return [Measurement(None, "bad", "the first read since the counters could not be read")]
        # Idle and waiting time may go back a little, says the kernel.
        spent = [max(0, after - before) for before, after in zip(last, now, strict=True)]
        total = sum(spent)
        if not total:
            return [Measurement(None, "bad", "no tick of the kernel's clock since the last read")]
        use = 100 * (total - sum(spent[column] for column in _IDLE)) / total
        if total < _FEW_TICKS:
            return [
                Measurement(use, "uncertain", f"only {total} ticks of the kernel's clock since the last read")
            ]
        return [Measurement(use)]

    def _ticks(self) -> list[int]:
        line = text(self._path).partition("\n")[0]
        name, *columns = line.split() or [""]
        if name != "cpu" or len(columns) < _COLUMNS or not all(map(_is_counter, columns)):
            raise damaged(self._path, f"'cpu' and {_COLUMNS} or more counters", line)
        return [int(column) for column in columns[:_COLUMNS]]


def _is_counter(column: str) -> bool:
    return re.fullmatch("[0-9]{1,20}", column) is not None


# The CPU's own thermal zone or monitor, the most exact first. Where several have one name (two sockets) the
# hottest counts, so that their numbers do not matter.
_CPU_SENSORS = {
    "thermal": (
        "cpu-thermal", "cpu_thermal", "CPU-therm", "cpu0-thermal", "x86_pkg_temp", "package-thermal",
        "soc-thermal", "soc_thermal", "imx_thermal_zone",
    ),
    "hwmon": ("coretemp", "k10temp", "zenpower", "cpu_thermal"),
}  # fmt: skip


def _cpu_temperature(root: Path) -> Part | None:
    for kind, names in _CPU_SENSORS.items():
        there = devices(kind, root)
        for name in names:
            folders = [device.folder for device in there if device.name == name]
            sources = [source for folder in folders for source in _first_source(kind, folder)]
            if sources:
                channel = replace(sources[0][0], name="cpu.temperature", description=f"of the CPU: {name}")
                return Part((channel,), partial(_hottest, sources))
    return None


def _first_source(kind: str, folder: Path) -> list[Source]:
    """Return the first temperature: of the package (coretemp), or what controls the fan (k10temp)."""
    try:
        found = SUBSYSTEMS[kind].sources(Path(os.path.realpath(folder)))
    except DriverError:
        return []
    return [source for source in found if source[0].unit == "Cel"][:1]


def _hottest(sources: list[Source]) -> list[Measurement]:
    found: list[Reading] = []
    failed: DriverError | None = None
    for channel, measure in sources:
        try:
            found.append(reading_of(channel, measure(), 0.0))
        except DriverError as error:
            failed = error
    if failed is not None and not found:
        raise failed
    # A sensor that is off neither hides the others nor wins.
    best = max(found, key=lambda got: (_RANKS[got.quality], got.value or 0))
    return [Measurement(best.value, best.quality, best.reason)]


_RANKS = {"good": 2, "uncertain": 1, "bad": 0}

# Bit of the Raspberry Pi's get_throttled -> channel. The bits from 16 on are those since the last time that
# the kernel asked.
_THROTTLED = {
    0: ("power.under_voltage", "the supply is below 4.63 V"),
    1: ("cpu.frequency_capped", "the CPU's frequency is capped"),
    2: ("cpu.throttled", "the CPU is throttled"),
    3: ("cpu.soft_limited", "the CPU is at its soft temperature limit"),
}


def _supply(root: Path) -> Iterator[Part]:
    # The kernel calls the file of the firmware deprecated and warns when it is read: the monitor goes first.
    for device in devices("hwmon", root):
        alarm = Path(os.path.realpath(device.folder)) / "in0_lcrit_alarm"
        if device.name == "rpi_volt" and alarm.exists():
            yield Part((Channel(_THROTTLED[0][0], "1", _THROTTLED[0][1]),), partial(_alarm, alarm))
            return
    for path in sorted((root / "sys/devices/platform").glob("soc*/soc*:firmware/get_throttled")):
        channels = tuple(Channel(name, "1", description) for name, description in _THROTTLED.values())
        yield Part(channels, partial(_throttled, path))
        return


def _alarm(path: Path) -> list[Measurement]:
    return [Measurement(bool(number(path)))]


def _throttled(path: Path) -> list[Measurement]:
    found = text(path)
    if not re.fullmatch(r"(0x)?[0-9a-f]{1,8}", found):
        raise damaged(path, "a hexadecimal number of 32 bits", found)
    bits = int(found, 16)
    return [Measurement(bool(bits >> bit & 1)) for bit in _THROTTLED]


def check_disks(disks: object) -> str:
    """Return what is wrong with a list of mount points; empty if nothing is."""
    if isinstance(disks, str) or not isinstance(disks, Sequence):
        return f"expected a list of mount points, found {disks!r:.80}"
    for path in disks:
        if (
            not isinstance(path, str)
            or not path.startswith("/")
            or "\0" in path
            or os.path.normpath(path) != path
        ):
            return f"expected mount points such as '/' or '/var/log', found {path!r:.80}"
    return "a mount point stands there twice" if len(set(disks)) != len(disks) else ""


def _disk(root: Path, path: str) -> Part:
    channels = (
        Channel(f"disk.{path}.total", "B", f"size of the file system on {path}"),
        Channel(f"disk.{path}.used", "B", f"used on {path}"),
        Channel(f"disk.{path}.free", "B", f"free on {path} for programs without root's rights"),
    )
    return Part(channels, partial(_space, root / path.lstrip("/"), path))


def _space(place: Path, path: str) -> list[Measurement]:
    try:
        # Else these would be the numbers of the file system below, as long as the disk is missing.
        if path != "/" and not os.path.ismount(place):
            raise BusError(f"nothing is mounted on {path}")
        found = os.statvfs(place)
    except OSError as error:
        if isinstance(error, BusError):
            raise
        raise BusError(f"{path}: the file system gives no numbers: {error.strerror or error}") from error
    if not found.f_blocks:
        raise BusError(f"{path}: the file system has no size")
    used, free = found.f_blocks - found.f_bfree, found.f_bavail
    return [Measurement(blocks * found.f_frsize) for blocks in (found.f_blocks, used, free)]
