"""Sensors that the Linux kernel reads: hwmon, IIO, 1-wire thermometers, thermal zones; no library needed.

A device is named by its subsystem and its own name, ``"thermal:cpu-thermal"``, because the numbers in
``hwmon0`` or ``iio:device1`` change from boot to boot. :func:`~device_sdk.drivers.sysfs_discover.discover`
lists the devices.

Source: Linux ``Documentation/hwmon/sysfs-interface.rst``, ``Documentation/ABI/testing/sysfs-bus-iio``,
``Documentation/w1/slaves/w1_therm.rst``, ``Documentation/ABI/testing/sysfs-class-thermal``.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from device_sdk._text import did_you_mean
from device_sdk.drivers.base import Channel, Driver, Quality, Reading
from device_sdk.errors import ArgumentError, BusError, ChecksumError, DeviceNotFoundError, DriverError

__all__ = ["SUBSYSTEMS", "Measurement", "Subsystem", "SysfsDriver", "device_folders", "device_name"]

# The longest file read here is w1_slave with 75 bytes; the kernel never gives more than a page.
_MAX_FILE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Measurement:
    """A value of one channel before it becomes a reading."""

    value: float | None
    quality: Quality = "good"
    reason: str = ""


Source = tuple[Channel, Callable[[], Measurement]]
"""A channel and how to measure it."""


@dataclass(frozen=True, slots=True)
class Subsystem:
    """The place of a kernel subsystem's devices, and the function that finds their channels.

    ``name_file`` holds the name of the device; an empty text: the folder has that name.
    """

    folder: str
    pattern: str
    name_file: str
    sources: Callable[[Path], list[Source]]
    when_none: str


class SysfsDriver(Driver):
    """A sensor that a Linux kernel driver reads, from /sys: hwmon, IIO, 1-wire or thermal zone.

    Units by the kernel's ABI: temperature ``Cel``, humidity ``%RH``, pressure ``Pa``, voltage ``V``, current
    ``A``, power ``W``, energy ``J``, fan ``1/min``, illuminance ``lx``, acceleration ``m/s2`` and so on. Each
    file is opened once for each ``read()`` and not kept open, so a device that comes back is read again.

    A channel whose file fails while others do not reads as ``bad``. Duration of one ``read()``: below 1 ms
    for most; a DS18B20 converts for 750 ms at 12 bits, and its bus is busy for that time.

    Args:
        device: ``"hwmon:NAME"``, ``"iio:NAME"``, ``"w1:28-0316a2795f12"`` or ``"thermal:TYPE"``; where two
            devices have one name, the folder's: ``"hwmon:hwmon2"``.
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
        ArgumentError: two devices have that name. DriverError: it has no channel that we know.
        """
        if self._sources:
            return
        folder = self._find()
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
            readings.append(Reading(channel.name, got.value, channel.unit, now, got.quality, got.reason))
        if first_error is not None and failed == len(readings):
            raise first_error
        return tuple(readings)

    def close(self) -> None:
        """Forget the channels. There is nothing to release: the files are open only while they are read."""
        self._sources = []

    def _require_open(self) -> None:
        if not self._sources:
            raise DriverError(f"{self._device} is not open: call open() first, or use it in a with statement")

    def _find(self) -> Path:
        folders = {
            folder: device_name(self._kind, folder) for folder in device_folders(self._kind, self._root)
        }
        found = [folder for folder, name in folders.items() if self._name in (name, folder.name)]
        if len(found) == 1:
            return found[0]
        if found:
            choice = " or ".join(f"{self._kind}:{folder.name}" for folder in found)
            raise ArgumentError("device", f"{len(found)} devices are called {self._device!r}, write {choice}")
        names = sorted(set(folders.values()))
        there_is = f"there is: {', '.join(names)}" if names else SUBSYSTEMS[self._kind].when_none
        hint = did_you_mean(self._name, names)
        raise DeviceNotFoundError(f"no {self._kind} device is called {self._name!r}; {there_is}{hint}")


def device_folders(kind: str, root: Path) -> list[Path]:
    """Return the folders of a subsystem's devices, in the order of their numbers."""
    subsystem = SUBSYSTEMS[kind]
    found = (root / subsystem.folder).glob(subsystem.pattern)
    return sorted(found, key=lambda folder: (len(folder.name), folder.name))


def device_name(kind: str, folder: Path) -> str:
    """Return the device's own name, or that of its folder."""
    name_file = SUBSYSTEMS[kind].name_file
    if not name_file:
        return folder.name
    try:
        return _text(folder / name_file)
    except DriverError:
        return folder.name


# hwmon: <quantity><number>_input -> unit, and the kernel's number for one unit.
_HWMON = {
    "temp": ("Cel", 1000),
    "in": ("V", 1000),
    "curr": ("A", 1000),
    "power": ("W", 1_000_000),
    "energy": ("J", 1_000_000),
    "humidity": ("%RH", 1000),
    "fan": ("1/min", 1),
    "freq": ("Hz", 1),
}
_HWMON_FILE = re.compile(rf"(?P<prefix>(?P<quantity>{'|'.join(_HWMON)})\d+)_(?:input|average)")


def _hwmon_sources(folder: Path) -> list[Source]:
    sources: dict[str, Source] = {}
    # "input" sorts after "average" and replaces it where a power sensor has both.
    for path in _sorted_files(folder):
        if match := _HWMON_FILE.fullmatch(path.name):
            prefix = match["prefix"]
            unit, divisor = _HWMON[match["quantity"]]
            label = folder / f"{prefix}_label"
            description = _text(label) if label.exists() else f"{prefix} of {device_name('hwmon', folder)}"
            fault = folder / f"{prefix}_fault"
            measure = partial(_hwmon_value, path, divisor, fault if fault.exists() else None)
            sources[prefix] = (Channel(prefix, unit, description), measure)
    return list(sources.values())


def _hwmon_value(path: Path, divisor: int, fault: Path | None) -> Measurement:
    if fault is not None and _number(fault):
        return Measurement(None, "bad", f"{fault.name} says that the sensor is faulty")
    return Measurement(_number(path) / divisor)


# IIO: in_<quantity>... -> channel, unit, and the kernel's number for one unit: m°C, mV, mA, mW, kPa,
# thousandths of a percent, gauss, percent of the volume.
_IIO: dict[str, tuple[str, str, float]] = {
    "temp": ("temperature", "Cel", 1000),
    "humidityrelative": ("humidity", "%RH", 1000),
    "pressure": ("pressure", "Pa", 0.001),
    "voltage": ("voltage", "V", 1000),
    "current": ("current", "A", 1000),
    "power": ("power", "W", 1000),
    "energy": ("energy", "J", 1),
    "resistance": ("resistance", "Ohm", 1),
    "illuminance": ("illuminance", "lx", 1),
    "intensity": ("intensity", "1", 1),
    "uvindex": ("uv_index", "1", 1),
    "proximity": ("proximity", "1", 1),
    "distance": ("distance", "m", 1),
    "accel": ("acceleration", "m/s2", 1),
    "anglvel": ("gyro", "rad/s", 1),
    "magn": ("magnetic", "T", 10_000),
    "concentration": ("concentration", "ppm", 0.0001),
    "ph": ("ph", "pH", 1),
    "count": ("count", "count", 1),
}
_IIO_FILE = re.compile(
    rf"(?P<base>in_(?P<quantity>{'|'.join(_IIO)})(?P<index>\d*)(?:-(?P=quantity)(?P<minus>\d+))?"
    r"(?:_(?P<modifier>\w+))?)_(?P<kind>input|raw)"
)


def _iio_sources(folder: Path) -> list[Source]:
    sources: dict[str, Source] = {}
    for path in _sorted_files(folder):
        match = _IIO_FILE.fullmatch(path.name)
        # "input" sorts before "raw": where the kernel has computed the value, that one counts.
        if match is None or match["base"] in sources:
            continue
        name, unit, divisor = _IIO[match["quantity"]]
        name += match["index"] + (f"-{match['minus']}" if match["minus"] else "")
        name += f".{match['modifier']}" if match["modifier"] else ""
        if match["kind"] == "input":
            measure = partial(_iio_input, path, divisor)
        else:
            offset, scale = (_iio_attribute(folder, match, attribute) for attribute in ("offset", "scale"))
            measure = partial(_iio_raw, path, offset, scale, divisor)
        description = f"{path.name} of {device_name('iio', folder)}"
        sources[match["base"]] = (Channel(name, unit, description), measure)
    return list(sources.values())


def _iio_attribute(folder: Path, match: re.Match[str], attribute: str) -> Path | None:
    """Return the file of a channel's scale or offset: its own, else the one shared by all of its quantity."""
    quantity, modifier = match["quantity"], match["modifier"]
    shared = f"in_{quantity}-{quantity}" if match["minus"] else f"in_{quantity}"
    candidates = [match["base"], f"{shared}_{modifier}", shared]
    return next((path for base in candidates if (path := folder / f"{base}_{attribute}").exists()), None)


def _iio_input(path: Path, divisor: float) -> Measurement:
    return Measurement(_divided(_number(path), divisor))


def _iio_raw(path: Path, offset: Path | None, scale: Path | None, divisor: float) -> Measurement:
    # (raw + offset) * scale; read anew each time, because a driver may change its gain.
    raw = _number(path) + (_number(offset) if offset else 0)
    return Measurement(_divided(raw * (_number(scale) if scale else 1), divisor))


# Two lines: nine bytes of scratchpad with the CRC, the same bytes with the temperature.
_W1_SLAVE = re.compile(
    r"(?P<bytes>[0-9a-f]{2}(?: [0-9a-f]{2}){8}) : crc=[0-9a-f]{2} (?P<crc>YES|NO)\n.* t=(?P<value>-?\d+)",
    re.DOTALL,
)
_POWER_ON_MILLIDEGREES = 85_000
_POWER_ON = (
    "85 degrees is what a DS18B20 holds after power-on: it lost power while it converted, check its supply"
)
_W1_TEMPERATURE = Channel("temperature", "Cel", "1-wire thermometer")


def _w1_sources(folder: Path) -> list[Source]:
    # w1_slave comes first because it shows the bytes, which distinguish 85 degrees from power-on.
    for name, measure in (("w1_slave", _w1_slave), ("temperature", _w1_temperature)):
        if (folder / name).exists():
            return [(_W1_TEMPERATURE, partial(measure, folder / name))]
    return []


def _w1_slave(path: Path) -> Measurement:
    text = _text(path)
    match = _W1_SLAVE.fullmatch(text)
    if match is None:
        raise _damaged(path, "nine bytes with 'crc=', then 't='", text)
    if match["crc"] == "NO":
        raise ChecksumError(f"{path}: the CRC is wrong: check the cable and the pull-up resistor")
    scratchpad = bytes.fromhex(match["bytes"])
    if not any(scratchpad):
        # Nine zeros have a correct CRC, and would be a credible 0 degrees.
        raise BusError(f"{path}: the device sent only zeros: the data line is held low")
    millidegrees = int(match["value"])
    # Byte 6 is 0x0c after power-on; after a conversion to 85 degrees it is 0x10.
    if millidegrees == _POWER_ON_MILLIDEGREES and scratchpad[6] == 0x0C:
        return Measurement(None, "bad", _POWER_ON)
    return Measurement(millidegrees / 1000)


def _w1_temperature(path: Path) -> Measurement:
    millidegrees = _number(path)
    if millidegrees == _POWER_ON_MILLIDEGREES:
        return Measurement(millidegrees / 1000, "uncertain", _POWER_ON)
    return Measurement(millidegrees / 1000)


def _thermal_sources(folder: Path) -> list[Source]:
    channel = Channel("temperature", "Cel", f"{device_name('thermal', folder)}, {folder.name}")
    path = folder / "temp"
    return [(channel, partial(_iio_input, path, 1000))] if path.exists() else []


SUBSYSTEMS: dict[str, Subsystem] = {
    "hwmon": Subsystem("sys/class/hwmon", "hwmon*", "name", _hwmon_sources, "this machine has none"),
    "iio": Subsystem(
        "sys/bus/iio/devices", "iio:device*", "name", _iio_sources,
        "this machine has none: is the sensor's kernel driver loaded?",
    ),
    "w1": Subsystem(
        "sys/bus/w1/devices", "*-*", "", _w1_sources,
        "this machine has none: enable 1-wire (Raspberry Pi: dtoverlay=w1-gpio in /boot/firmware/config.txt)",
    ),
    "thermal": Subsystem(
        "sys/class/thermal", "thermal_zone*", "type", _thermal_sources, "this machine has none"
    ),
}  # fmt: skip
"""The kernel's subsystems by the word that begins a device's name."""


def _sorted_files(folder: Path) -> list[Path]:
    """Return the folder's files, ``temp2_input`` before ``temp10_input``."""

    def order(path: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]

    try:
        return sorted(folder.iterdir(), key=order)
    except OSError as error:
        raise _failed(folder, error) from error


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise _failed(path, error) from error
    return data.decode("utf-8", "backslashreplace").strip()


def _number(path: Path) -> float:
    text = _text(path)
    if not re.fullmatch(r"-?\d+(\.\d+)?", text):
        raise _damaged(path, "a number", text)
    return float(text)


def _divided(value: float, divisor: float) -> float:
    # Multiplying by the whole inverse keeps 101.325 kPa at 101325 Pa.
    return value / divisor if divisor >= 1 else round(value * round(1 / divisor), 9)


def _failed(path: Path, error: OSError) -> DriverError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return DeviceNotFoundError(
            f"{path} is gone: was the device unplugged, or its kernel driver unloaded?"
        )
    code = error.errno or errno.EIO
    failed = BusError(f"{path} cannot be read: {os.strerror(code)} ({errno.errorcode.get(code, code)})")
    failed.errno = code
    return failed


def _damaged(path: Path, expected: str, found: str) -> DriverError:
    return DriverError(f"{path}: expected {expected}, found {found!r:.80}")
