"""Finds the sensors of this machine that have a kernel driver; reads /sys, never a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from device_sdk.drivers.base import Channel
from device_sdk.drivers.sysfs.names import SUBSYSTEMS, Device, devices
from device_sdk.errors import DriverError

__all__ = ["Discovered", "discover"]

# hwmon copies of devices with a better place: a 1-wire thermometer there hides its power-on value.
_COPIES = {("hwmon", "w1_slave_temp")}


@dataclass(frozen=True, slots=True)
class Discovered:
    """A sensor that was found: ``open_driver(found.kind, **found.options)`` reads it, also after a boot.

    A sensor without a name that stays has no ``options``, and ``reason`` says why.
    """

    kind: str
    options: Mapping[str, str]
    description: str
    channels: tuple[Channel, ...]
    reason: str = ""


def discover(root: str | Path = "/") -> list[Discovered]:
    """Return the sensors that the Linux kernel reads: hwmon, IIO, 1-wire, thermal zones, power supplies.

    A device is proposed by a name that stays: its own, ``iio:ads1015``, and with its place where two have
    it, ``iio:ads1015@1-0048``. Devices without a known channel are left out. A chip on an I2C bus without a
    kernel driver is not seen: :func:`~device_sdk.drivers.bus.list_buses` names the buses, ``scan()`` finds
    the chips.

    ``root`` is the folder that holds ``sys``.
    """
    found: list[Discovered] = []
    for kind in SUBSYSTEMS:
        for device in devices(kind, Path(root)):
            channels = () if (kind, device.name) in _COPIES else _channels(device)
            if not channels:
                continue
            options = {"device": f"{kind}:{device.stable}"} if device.stable else {}
            if options and str(root) != "/":
                options["root"] = str(root)
            description = f"{device.name or device.folder.name}, {device.folder}"
            found.append(Discovered("sysfs", options, description, channels, device.reason))
    return found


def _channels(device: Device) -> tuple[Channel, ...]:
    try:
        return tuple(channel for channel, _ in SUBSYSTEMS[device.kind].sources(device.folder))
    except DriverError:
        # Unplugged meanwhile, or not readable.
        return ()
