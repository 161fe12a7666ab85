"""Finds the sensors of this machine that have a kernel driver; reads /sys, never a device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from device_sdk.drivers.base import Channel
from device_sdk.drivers.sysfs import SUBSYSTEMS, device_folders, device_name
from device_sdk.errors import DriverError

__all__ = ["Discovered", "discover"]

# hwmon copies of devices with a better place: a 1-wire thermometer there hides its power-on value.
_COPIES = {("hwmon", "w1_slave_temp")}


@dataclass(frozen=True, slots=True)
class Discovered:
    """A sensor that was found: ``open_driver(found.kind, **found.options)`` reads it."""

    kind: str
    options: Mapping[str, str]
    description: str
    channels: tuple[Channel, ...]


def discover(root: str | Path = "/") -> list[Discovered]:
    """Return the sensors that the Linux kernel reads: hwmon, IIO, 1-wire, thermal zones.

    A device is listed by its own name, and by its folder only if two have one name. Devices without a known
    channel are left out. A chip on an I2C bus without a kernel driver is not seen:
    :func:`~device_sdk.drivers.bus.list_buses` names the buses, ``scan()`` finds the chips.

    ``root`` is the folder that holds ``sys``.
    """
    found: list[Discovered] = []
    for kind in SUBSYSTEMS:
        folders = device_folders(kind, Path(root))
        names = [device_name(kind, folder) for folder in folders]
        count = Counter(names)
        for folder, name in zip(folders, names, strict=True):
            channels = () if (kind, name) in _COPIES else _channels(kind, folder)
            if not channels:
                continue
            options = {"device": f"{kind}:{name if count[name] == 1 else folder.name}"}
            if str(root) != "/":
                options["root"] = str(root)
            found.append(Discovered("sysfs", options, f"{name}, {folder}", channels))
    return found


def _channels(kind: str, folder: Path) -> tuple[Channel, ...]:
    try:
        return tuple(channel for channel, _ in SUBSYSTEMS[kind].sources(folder))
    except DriverError:
        # Unplugged meanwhile, or not readable.
        return ()
