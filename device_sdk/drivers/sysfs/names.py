"""Which device below /sys is which: by names that stay, not by the numbers of this boot.

The numbers in ``hwmon0``, ``iio:device1`` or ``thermal_zone2`` are given in the order in which the drivers
happen to be ready. A name that stays is the device's own, ``lm75``; where two have it, the name with the
place on its bus, ``lm75@1-0048``: I2C bus 1, address 0x48.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from device_sdk._text import did_you_mean
from device_sdk.drivers.sysfs.channels import (
    Source,
    hwmon_sources,
    iio_sources,
    power_supply_sources,
    thermal_sources,
    w1_sources,
)
from device_sdk.drivers.sysfs.files import label
from device_sdk.errors import ArgumentError, DeviceNotFoundError

__all__ = ["SUBSYSTEMS", "Device", "Subsystem", "devices", "find_device"]


@dataclass(frozen=True, slots=True)
class Subsystem:
    """The place of a kernel subsystem's devices, and the function that finds their channels.

    ``name_file`` holds the name of the device; an empty text: the folder has that name. ``numbered`` matches
    names in which drivers count their devices.
    """

    folder: str
    pattern: str
    name_file: str
    sources: Callable[[Path], list[Source]]
    when_none: str
    numbered: str = ""


_NONE = "this machine has none"
SUBSYSTEMS: dict[str, Subsystem] = {
    "hwmon": Subsystem("sys/class/hwmon", r"hwmon\d+", "name", hwmon_sources, _NONE, r".+_phy\d+"),
    "iio": Subsystem(
        "sys/bus/iio/devices", r"iio:device\d+", "name", iio_sources,
        f"{_NONE}: is the sensor's kernel driver loaded?",
    ),
    "w1": Subsystem(
        "sys/bus/w1/devices", r"[0-9a-f]{2}-[0-9a-f]{12}", "", w1_sources,
        f"{_NONE}: enable 1-wire (Raspberry Pi: dtoverlay=w1-gpio in /boot/firmware/config.txt)",
    ),
    "thermal": Subsystem("sys/class/thermal", r"thermal_zone\d+", "type", thermal_sources, _NONE),
    "power_supply": Subsystem(
        "sys/class/power_supply", "[ -~]+", "", power_supply_sources, _NONE,
        r"hid-.+|(hidpp|wacom|sony_controller)_battery_.+",
    ),
}  # fmt: skip
"""The kernel's subsystems by the word that begins a device's name."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device of a subsystem, the folder below ``/sys/class`` or ``/sys/bus``.

    ``name`` is its own, empty if it has none; ``place`` its name on the bus, empty if it is on none.
    ``stable`` is the name that stays; empty if there is none, ``reason`` says why.
    """

    kind: str
    folder: Path
    name: str
    place: str = ""
    stable: str = ""
    reason: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names that a user may write."""
        with_place = f"{self.name}@{self.place}" if self.name and self.place else ""
        return tuple(name for name in (self.name, with_place) if name)


def devices(kind: str, root: Path) -> list[Device]:
    """Return the devices of a subsystem, in the order of their numbers."""
    subsystem = SUBSYSTEMS[kind]
    found: list[Device] = []
    try:
        folders = list((root / subsystem.folder).iterdir())
    except OSError:
        return []
    for folder in sorted(folders, key=lambda folder: (len(folder.name), folder.name)):
        if re.fullmatch(subsystem.pattern, folder.name, re.ASCII):
            own = label(folder / subsystem.name_file) if subsystem.name_file else folder.name
            found.append(Device(kind, folder, own, _place(folder) if subsystem.name_file else ""))
    count = Counter(name for device in found for name in device.names)
    return [_judged(device, count) for device in found]


def find_device(kind: str, wanted: str, root: Path) -> Device:
    """Return the one device of this name.

    Raises: DeviceNotFoundError: there is none; the message lists those that are there. ArgumentError: two
    have the name, or it is a number that changes; the message says what to write.
    """
    there = devices(kind, root)
    found = [device for device in there if wanted in device.names]
    if len(found) > 1:
        choice = " or ".join(f"{kind}:{device.stable or device.folder.name}" for device in found)
        raise ArgumentError("device", f"{len(found)} devices are called '{kind}:{wanted}', write {choice}")
    if not found:
        found = [device for device in there if device.folder.name == wanted]
        if found and found[0].stable:
            raise ArgumentError(
                "device",
                f"the number in {kind}:{wanted} changes from boot to boot, write '{kind}:{found[0].stable}'",
            )
    if found:
        return found[0]
    names = sorted({device.stable or device.folder.name for device in there})
    there_is = f"there is: {', '.join(names)}" if names else SUBSYSTEMS[kind].when_none
    hint = did_you_mean(wanted, names)
    raise DeviceNotFoundError(f"no {kind} device is called {wanted!r}; {there_is}{hint}")


def _judged(device: Device, count: Counter[str]) -> Device:
    stable = next((name for name in device.names if count[name] == 1), "")
    reason = ""
    if re.fullmatch(SUBSYSTEMS[device.kind].numbered, device.name, re.ASCII) and device.name:
        stable, reason = "", f"no name stays: the driver has counted the number in {device.name!r}"
    elif not stable:
        twins = f"{count[device.name]} devices are called {device.name!r}" if device.name else "no name"
        where = f"more than one of them on {device.place}" if device.name and device.place else "on no bus"
        reason = (
            f"no name stays ({twins}, {where}): only '{device.kind}:{device.folder.name}' selects it,"
            " a number that may be another device's after a boot"
        )
    return Device(device.kind, device.folder, device.name, device.place, stable, reason)


# Buses that number their devices in the order in which they come: the name to use is that further up.
_NUMBERING = {"hid", "iio", "scsi"}


def _place(folder: Path) -> str:
    """Return the name of the nearest device on a bus that a device belongs to; empty if it is on none.

    That is the target of the link ``device``, or the folder above. A device of a class (``nvme0``,
    ``thermal_zone1``, ``phy0``) has a number of this boot as well, so the search goes on above it.
    """
    link = folder / "device"
    linked = link.exists()
    at = Path(os.path.realpath(link)) if linked else Path(os.path.realpath(folder)).parent
    for each in (at, *at.parents):
        if each.name in _OUTSIDE:
            return ""
        bus = _bus(each)
        if bus and bus not in _NUMBERING:
            return _of_adapter(each) if bus == "i2c" else each.name
        if linked and each == at and not (each / "subsystem").exists():
            return each.name
    return ""


_OUTSIDE = ("", "devices", "class", "bus", "virtual")


def _bus(device: Path) -> str:
    """Return the bus of a device below ``/sys/devices``; empty for one of a class, or of none."""
    subsystem = Path(os.path.realpath(device / "subsystem"))
    return subsystem.name if subsystem.parent.name == "bus" and (device / "subsystem").exists() else ""


def _of_adapter(chip: Path) -> str:
    """Return the place of an I2C chip: where its adapter is on USB, that socket, and the chip's address.

    The number of such a bus is that of this boot.
    """
    socket = next((each.name for each in chip.parents if _bus(each) == "usb"), "")
    return f"{socket}/{chip.name.rpartition('-')[2]}" if socket else chip.name
