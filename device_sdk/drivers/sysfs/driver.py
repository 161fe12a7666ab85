"""Sensors that the Linux kernel reads: hwmon, IIO, 1-wire, thermal zones, power supplies; no library needed.

A device is named by its subsystem and its own name, ``"thermal:cpu-thermal"``, because the numbers in
``hwmon0`` or ``iio:device1`` change from boot to boot: ``names.py`` finds it, ``channels.py``
makes channels from its files. :func:`~device_sdk.drivers.sysfs.discover.discover` lists the devices.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from device_sdk.drivers.base import Channel, Driver, Reading
from device_sdk.drivers.sysfs.channels import Source
from device_sdk.drivers.sysfs.names import SUBSYSTEMS, find_device
from device_sdk.drivers.values import Measurement, reading_of
from device_sdk.errors import ArgumentError, DriverError

__all__ = ["SysfsDriver"]


class SysfsDriver(Driver):
    """A sensor that a Linux kernel driver reads, from /sys: hwmon, IIO, 1-wire, thermal zone, power supply.

    Units: temperature ``Cel``, humidity ``%RH``, pressure ``Pa``, voltage ``V``, current ``A``, power ``W``,
    energy ``J``, fan ``1/min``, illuminance ``lx``, acceleration ``m/s2``, charge of a battery ``%EL`` and so
    on; a raw value of IIO without a scale is in counts, ``1``. Each file is opened once for each ``read()``
    and not kept open.

    A channel whose file fails while others do not reads as ``bad``. Duration of one ``read()``: below 1 ms
    for most; a DS18B20 converts for 750 ms at 12 bits, and its bus is busy for that time.

    Args:
        device: ``"hwmon:NAME"``, ``"iio:NAME"``, ``"w1:28-0316a2795f12"``, ``"thermal:TYPE"`` or
            ``"power_supply:NAME"``; where two have one name, with its place: ``"iio:ads1015@1-0048"``.
        root: folder that holds ``sys``; a test passes a tree of its own.
    """

    def __init__(self, device: str, root: str | Path = "/") -> None:
        kind, _, name = device.partition(":")
        if kind not in SUBSYSTEMS or not name:
            raise ArgumentError(
                "device",
                f"expected one of {', '.join(f'{known}:NAME' for known in SUBSYSTEMS)}, found {device!r}",
            )
        self._device = device
        self._kind = kind
        self._name = name
        self._root = Path(root)
        self._sources: list[Source] = []

    def channels(self) -> tuple[Channel, ...]:
        """Return the channels that the kernel's files make."""
        self._require_open()
        return tuple(channel for channel, _ in self._sources)

    def open(self) -> None:
        """Find the device's folder and the channels in it.

        Raises: DeviceNotFoundError: no device of that name; the message lists those that are there.
        ArgumentError: two devices have that name, or it is a number that changes. DriverError: it has no
        channel that we know.
        """
        if self._sources:
            return
        folder = find_device(self._kind, self._name, self._root).folder
        # Behind the link: another device that gets this number later has another folder.
        folder = Path(os.path.realpath(folder)) if folder.is_symlink() else folder
        sources = SUBSYSTEMS[self._kind].sources(folder)
        if not sources:
            raise DriverError(f"{self._device} has no channel that can be read in {folder}")
        self._sources = sources

    def read(self) -> tuple[Reading, ...]:
        """Read the file of every channel.

        Raises: DeviceNotFoundError: the files are gone. BusError: the kernel could not reach the device.
        ChecksumError: the CRC of a 1-wire device is wrong. DriverError: a file holds no number. All of these
        only when no channel could be read.
        """
        self._require_open()
        now = time.time()
        readings: list[Reading] = []
        first_error: DriverError | None = None
        failed = 0
        for channel, measure in self._sources:
            try:
                got = measure()
            except DriverError as error:
                first_error = first_error or error
                failed += 1
                got = Measurement(None, "bad", str(error))
            readings.append(reading_of(channel, got, now))
        if first_error is not None and failed == len(readings):
            raise first_error
        return tuple(readings)

    def close(self) -> None:
        """Forget the channels. There is nothing to release: the files are open only while they are read."""
        self._sources = []

    def _require_open(self) -> None:
        if not self._sources:
            raise DriverError(f"{self._device} is not open: call open() first, or use it in a with statement")
