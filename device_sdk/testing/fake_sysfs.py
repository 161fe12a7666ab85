"""A /sys with sensors in it, in a folder: for programs that read the sensors of the kernel."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FakeSysfs", "FakeSysfsDevice"]

Content = str | int | float


class FakeSysfsDevice:
    """One device's folder in the tree."""

    def __init__(self, folder: Path, files: Mapping[str, Content], link: Path | None = None) -> None:
        self.folder = folder
        self._files = dict(files)
        self._link = link
        self.plug()

    def set_value(self, file: str, value: Content) -> None:
        """Change the content of a file, or add one; readable again if it was not."""
        self._files[file] = value
        path = self.folder / file
        path.unlink(missing_ok=True)
        path.write_text(f"{value}\n")

    def make_unreadable(self, file: str) -> None:
        """Let each read of a file fail with ``EIO``, as for a device that does not answer."""
        path = self.folder / file
        path.unlink()
        # The first page of a process cannot be read: a real EIO, for root as well.
        path.symlink_to("/proc/self/mem")

    def remove(self) -> None:
        """Remove the device with all its files."""
        shutil.rmtree(self.folder)
        if self._link is not None:
            self._link.unlink()

    def plug(self) -> None:
        """Put the device back as it was last, every file readable."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._link is not None:
            _link(self._link, self.folder)
        for file, value in self._files.items():
            self.set_value(file, value)


class FakeSysfs:
    """A tree of sensors below ``root``, which holds ``sys`` as ``/`` does.

    Files are keyword arguments; a name that is no Python identifier goes into a dict:
    ``**{"in_voltage0-voltage1_raw": 5}``. Values are the kernel's: ``temp1_input=21500`` is 21.5 degrees
    Celsius.

    ``at`` is the device's place on a bus, ``"1-0048"`` for I2C bus 1, address 0x48, ``"pci/0000:01:00.0"``
    for another bus: the folder is below ``sys/devices`` then, with the links that the kernel makes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._count: Counter[str] = Counter()

    def hwmon(self, name: str, at: str = "", /, **files: Content) -> FakeSysfsDevice:
        """Add ``/sys/class/hwmon/hwmonN`` with these files."""
        return self._numbered("sys/class/hwmon", "hwmon", {"name": name, **files}, at, "hwmon")

    def iio(self, name: str, at: str = "", /, **files: Content) -> FakeSysfsDevice:
        """Add ``/sys/bus/iio/devices/iio:deviceN`` with these files."""
        return self._numbered("sys/bus/iio/devices", "iio:device", {"name": name, **files}, at)

    def thermal_zone(self, type_: str, millidegrees: int) -> FakeSysfsDevice:
        """Add ``/sys/class/thermal/thermal_zoneN``."""
        return self._numbered("sys/class/thermal", "thermal_zone", {"type": type_, "temp": millidegrees})

    def power_supply(self, name: str, /, **files: Content) -> FakeSysfsDevice:
        """Add ``/sys/class/power_supply/NAME`` with these files."""
        return FakeSysfsDevice(self.root / "sys/class/power_supply" / name, files)

    def w1(self, identifier: str, millidegrees: int) -> FakeSysfsDevice:
        """Add a DS18B20, ``/sys/bus/w1/devices/28-...``; :meth:`w1_slave` makes other contents."""
        folder = self.root / "sys/bus/w1/devices" / identifier
        return FakeSysfsDevice(folder, {"w1_slave": self.w1_slave(millidegrees), "temperature": millidegrees})

    @staticmethod
    def w1_slave(millidegrees: int, *, crc_ok: bool = True, power_on: bool = False) -> str:
        """Return the content of ``w1_slave`` for a temperature in steps of 62.5 thousandths of a degree.

        ``power_on`` gives the scratchpad that a DS18B20 has before its first conversion: 85 degrees.
        """
        raw = round((85_000 if power_on else millidegrees) * 16 / 1000)
        count_remain = 0x0C if power_on else 0x10 - (raw & 0x0F)
        scratchpad = raw.to_bytes(2, "little", signed=True) + bytes(
            [0x4B, 0x46, 0x7F, 0xFF, count_remain, 0x10]
        )
        crc = _crc8(scratchpad)
        data = (scratchpad + bytes([crc if crc_ok else crc ^ 0xFF])).hex(" ")
        verdict = "YES" if crc_ok else "NO"
        return f"{data} : crc={crc:02x} {verdict}\n{data} t={int(raw * 62.5)}"

    def _numbered(
        self, folder: str, prefix: str, files: Mapping[str, Content], at: str = "", between: str = ""
    ) -> FakeSysfsDevice:
        number = self._count[prefix]
        self._count[prefix] += 1
        known = self.root / folder / f"{prefix}{number}"
        if not at:
            return FakeSysfsDevice(known, files)
        bus, _, place = at.rpartition("/")
        device = self.root / "sys/devices" / (bus or "i2c") / place
        (self.root / "sys/bus" / (bus or "i2c")).mkdir(parents=True, exist_ok=True)
        _link(device / "subsystem", self.root / "sys/bus" / (bus or "i2c"))
        found = FakeSysfsDevice(device / between / known.name, files, known)
        if between:  # a device of a class
            _link(found.folder / "device", device)
        return found


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def _crc8(data: bytes) -> int:
    """Return the 1-wire checksum: polynomial 0x31, bits reversed, start 0."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x8C if crc & 1 else 0)
    return crc
