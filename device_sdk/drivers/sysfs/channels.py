"""Channels from the files of a device below /sys: units, ranges and digits, and which values are none.

The range of a channel is that of the chip where its kernel name tells it, else what no device of its kind
exceeds. Files such as ``temp1_min`` are limits of alarms and ranges of nothing.

Source: Linux ``Documentation/hwmon/sysfs-interface.rst``, ``Documentation/ABI/testing/sysfs-bus-iio``,
``Documentation/w1/slaves/w1_therm.rst`` and ``w1_ds2438.rst``, ``Documentation/ABI/testing``:
``sysfs-class-thermal``, ``sysfs-class-power``; data sheets of the chips.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from device_sdk.drivers.base import Channel
from device_sdk.drivers.sysfs.files import damaged, label, number, sorted_files, text
from device_sdk.drivers.values import Measurement, Range, clean
from device_sdk.errors import BusError, ChecksumError, DriverError

__all__ = [
    "Source",
    "hwmon_sources",
    "iio_sources",
    "power_supply_sources",
    "thermal_sources",
    "w1_sources",
]


Source = tuple[Channel, Callable[[], Measurement]]
"""A channel and how to measure it."""


class Quantity(NamedTuple):
    """A quantity of the kernel: its unit here, the kernel's number for one unit, decimals and range."""

    unit: str
    divisor: float = 1
    decimals: int | None = None
    span: Range = Range()


# Chips that measure on boards and in processors; the extended format of remote diodes is the widest.
_BOARD = Range(-64, 191)
_VOLTS = Range(-1000, 1000)
_AMPERES = Range(-10_000, 10_000)
_WATTS = Range(-1_000_000, 1_000_000)

# Kernel name of a chip -> what it can measure, by unit. Data sheets, absolute or extended range.
_COLD = Range(-40, 85)
_WIDE = Range(-40, 125)
_HUMID = Range(0, 100)
_BOSCH = Range(30_000, 110_000)
_HUMID_CHIPS = "sht3x sts3x sht4x sht21 htu21 si7020 hdc1000 hdc1080 hdc2010 am2315"
_CHIP_ROWS: tuple[tuple[str, dict[str, Range]], ...] = (
    ("bmp085 bmp180 bmp280 bme280 bme680", {"Cel": _COLD, "Pa": _BOSCH, "%RH": _HUMID}),
    ("bmp380 bmp390 bmp580", {"Cel": _COLD, "Pa": Range(30_000, 125_000)}),
    ("dps310", {"Cel": _COLD, "Pa": Range(30_000, 120_000)}),
    ("lps22hb lps25h lps33hw", {"Cel": _COLD, "Pa": Range(26_000, 126_000)}),
    ("ms5611", {"Cel": _COLD, "Pa": Range(1_000, 120_000)}),
    (_HUMID_CHIPS, {"Cel": _WIDE, "%RH": _HUMID}),
    ("aht10", {"Cel": _COLD, "%RH": _HUMID}),
    ("hts221", {"Cel": Range(-40, 120), "%RH": _HUMID}),
    ("lm75 lm75a lm75b lm75c ds75 ds1621", {"Cel": Range(-55, 125)}),
    ("tmp102 tmp117 adt7410 adt7420", {"Cel": Range(-55, 150)}),
    ("jc42", {"Cel": _WIDE}),
    ("scd30", {"Cel": Range(-40, 70), "%RH": _HUMID, "ppm": Range(0, 40_000)}),
    ("scd4x", {"Cel": Range(-10, 60), "%RH": _HUMID, "ppm": Range(0, 40_000)}),
    ("bh1750", {"lx": Range(0, 100_000)}),
    ("opt3001", {"lx": Range(0, 83_866)}),
)
_CHIPS = {chip: ranges for chips, ranges in _CHIP_ROWS for chip in chips.split()}


def _channel(name: str, description: str, quantity: Quantity, chip: str, decimals: int | None) -> Channel:
    low, high = (end if math.isfinite(end) else None for end in _span(quantity, chip))
    return Channel(name, quantity.unit, description, low, high, decimals)


def _span(quantity: Quantity, chip: str) -> Range:
    return _CHIPS.get(chip, {}).get(quantity.unit, quantity.span)


def _scaled(value: float, quantity: Quantity) -> Measurement:
    # Multiplying by the whole inverse keeps 101.325 kPa at 101325 Pa.
    divisor = quantity.divisor
    result = value if divisor == 1 else value / divisor if divisor > 1 else value * round(1 / divisor)
    if quantity.unit == "Cel" and result <= _NO_TEMPERATURE:
        return Measurement(None, "bad", f"{result:g} degrees stand for no measurement: the sensor is off")
    return Measurement(result)


# The kernel's THERMAL_TEMP_INVALID is -274 degrees, an ACPI zone of 0 kelvin has -273.
_NO_TEMPERATURE = -273

_HWMON = {
    "temp": Quantity("Cel", 1000, 3, _BOARD),
    "in": Quantity("V", 1000, 3, _VOLTS),
    "curr": Quantity("A", 1000, 3, _AMPERES),
    "power": Quantity("W", 1_000_000, 6, _WATTS),
    "energy": Quantity("J", 1_000_000, 6, Range(0)),
    "humidity": Quantity("%RH", 1000, 3, _HUMID),
    "fan": Quantity("1/min", 1, 0, Range(0, 200_000)),
    "freq": Quantity("Hz", 1, 0, Range(0, 1e11)),
}
_HWMON_FILE = re.compile(rf"(?P<prefix>(?P<quantity>{'|'.join(_HWMON)})[0-9]+)_(?:input|average)", re.ASCII)


def hwmon_sources(folder: Path) -> list[Source]:
    """Return the channels of a folder below ``/sys/class/hwmon``."""
    chip = label(folder / "name")
    sources: dict[str, Source] = {}
    # "input" sorts after "average" and replaces it where a power sensor has both.
    for path in sorted_files(folder):
        if match := _HWMON_FILE.fullmatch(path.name):
            prefix = match["prefix"]
            quantity = _HWMON[match["quantity"]]
            description = label(folder / f"{prefix}_label") or f"{prefix} of {chip or folder.name}"
            fault = folder / f"{prefix}_fault"
            measure = partial(_hwmon_value, path, quantity, fault if fault.exists() else None)
            channel = _channel(prefix, description, quantity, chip, quantity.decimals)
            sources[prefix] = (channel, measure)
    return list(sources.values())


def _hwmon_value(path: Path, quantity: Quantity, fault: Path | None) -> Measurement:
    if fault is not None and number(fault):
        return Measurement(None, "bad", f"{fault.name} says that the sensor is faulty")
    return _scaled(number(path), quantity)


# IIO: in_<quantity>... -> channel and quantity. The kernel has m°C, mV, mA, mW, kPa, thousandths of a
# percent, gauss, percent of the volume.
_IIO: dict[str, tuple[str, Quantity]] = {
    "temp": ("temperature", Quantity("Cel", 1000, 3, Range(-273.15, 2500))),
    "humidityrelative": ("humidity", Quantity("%RH", 1000, 3, _HUMID)),
    "pressure": ("pressure", Quantity("Pa", 0.001, 2, Range(-1e6, 1e9))),
    "voltage": ("voltage", Quantity("V", 1000, 9, _VOLTS)),
    "current": ("current", Quantity("A", 1000, 9, _AMPERES)),
    "power": ("power", Quantity("W", 1000, 9, _WATTS)),
    "energy": ("energy", Quantity("J", span=Range(0))),
    "resistance": ("resistance", Quantity("Ohm", span=Range(0))),
    "illuminance": ("illuminance", Quantity("lx", span=Range(0, 1e6))),
    "intensity": ("intensity", Quantity("1", span=Range(0, 2**32))),
    "uvindex": ("uv_index", Quantity("1", span=Range(0, 100))),
    "proximity": ("proximity", Quantity("1", span=Range(0, 2**32))),
    "distance": ("distance", Quantity("m", span=Range(0, 1e8))),
    "accel": ("acceleration", Quantity("m/s2", span=Range(-10_000, 10_000))),
    "anglvel": ("gyro", Quantity("rad/s", span=Range(-1000, 1000))),
    "magn": ("magnetic", Quantity("T", 10_000, None, Range(-100, 100))),
    "concentration": ("concentration", Quantity("ppm", 0.0001, None, Range(0, 1e6))),
    "ph": ("ph", Quantity("pH", span=Range(0, 14))),
    "count": ("count", Quantity("count", span=Range(0, 2**63))),
}
_IIO_FILE = re.compile(
    rf"(?P<base>in_(?P<quantity>{'|'.join(_IIO)})(?P<index>[0-9]*)(?:-(?P=quantity)(?P<minus>[0-9]+))?"
    r"(?:_(?P<modifier>\w+))?)_(?P<kind>input|raw)",
    re.ASCII,
)
# Quantities that are numbers without a unit: nothing to be scaled.
_PLAIN = {"1", "count"}
_COUNTS = Quantity("1", 1, 0, Range(-(2**63), 2**64))


def iio_sources(folder: Path) -> list[Source]:
    """Return the channels of a folder below ``/sys/bus/iio/devices``."""
    sources: dict[str, Source] = {}
    chip = label(folder / "name")
    for path in sorted_files(folder):
        match = _IIO_FILE.fullmatch(path.name)
        # "input" sorts before "raw": where the kernel has computed the value, that one counts.
        if match is not None and match["base"] not in sources:
            sources[match["base"]] = _iio_source(path, match, chip)
    return list(sources.values())


def _iio_source(path: Path, match: re.Match[str], chip: str) -> Source:
    name, quantity = _IIO[match["quantity"]]
    name += match["index"] + (f"-{match['minus']}" if match["minus"] else "")
    name += f".{match['modifier']}" if match["modifier"] else ""
    description = f"{path.name} of {chip or path.parent.name}"
    if match["kind"] == "input":
        measure = partial(_iio_input, path, quantity)
        return _channel(name, description, quantity, chip, quantity.decimals), measure
    offset, scale = (_iio_attribute(path.parent, match, attribute) for attribute in ("offset", "scale"))
    if scale is None and quantity.unit not in _PLAIN:
        quantity, description = _COUNTS, f"counts, no scale in the kernel: {description}"
    decimals = _decimals(scale, quantity.divisor) if scale else quantity.decimals
    measure = partial(_iio_raw, path, offset, scale, quantity)
    return _channel(name, description, quantity, chip, decimals), measure


def _iio_attribute(folder: Path, match: re.Match[str], attribute: str) -> Path | None:
    """Return the file of a channel's scale or offset: its own, else the one shared by all of its quantity."""
    quantity, modifier = match["quantity"], match["modifier"]
    shared = f"in_{quantity}-{quantity}" if match["minus"] else f"in_{quantity}"
    candidates = [match["base"], f"{shared}_{modifier}", shared]
    return next((path for base in candidates if (path := folder / f"{base}_{attribute}").exists()), None)


def _decimals(scale: Path, divisor: float) -> int | None:
    """Return the decimals that hold one count at the finest scale of a channel, and one more."""
    scales: list[str] = []
    for path in (scale, scale.with_name(f"{scale.name}_available")):
        try:
            scales += re.findall(r"[0-9]+(?:\.[0-9]+)?", text(path))
        except DriverError:
            continue
    steps = [float(found) / divisor for found in scales if 0 < float(found) < math.inf]
    return 1 - math.floor(math.log10(min(steps))) if steps else None


def _iio_input(path: Path, quantity: Quantity) -> Measurement:
    return _scaled(number(path), quantity)


def _iio_raw(path: Path, offset: Path | None, scale: Path | None, quantity: Quantity) -> Measurement:
    # (raw + offset) * scale; read anew each time, because a driver may change its gain.
    factor = number(scale) if scale else 1
    if not factor:
        return Measurement(None, "bad", f"{path.name} has the scale 0")
    return _scaled((number(path) + (number(offset) if offset else 0)) * factor, quantity)


# Two lines: nine bytes of scratchpad with the CRC, the same bytes with the temperature.
_W1_SLAVE = re.compile(
    r"(?P<bytes>[0-9a-f]{2}(?: [0-9a-f]{2}){8}) : crc=[0-9a-f]{2} (?P<crc>YES|NO)\n"
    r".* t=(?P<value>-?[0-9]{1,9})",
    re.DOTALL,
)
_POWER_ON = 85_000
_POWER_ON_WHY = (
    "85 degrees is what the chip holds after power-on: it lost power while it converted, check its supply"
)
_WEAK = Range(127_930, 127_940)
_WEAK_WHY = (
    "127.94 degrees is what the chip gives with too little power: check its supply and the pull-up resistor"
)
_DS1825 = Range(-55, 125)
_FAULTS = {1: "the thermocouple is open", 2: "it is shorted to ground", 4: "it is shorted to the supply"}

# Family code -> range. 3b is the DS1825 and the MAX31850 with a thermocouple, whose scratchpad tells which.
_THERMOMETERS = {
    "10": Range(-55, 125),
    "22": Range(-55, 125),
    "28": Range(-55, 125),
    "3b": Range(-270, 1800),
    "42": Range(-40, 85),
}
# The battery monitor DS2438, family 26: file -> channel and quantity. The kernel does not scale it.
_MONITOR = "26"
_DS2438 = {
    "temperature": ("temperature", Quantity("Cel", 256, 5, Range(-40, 85))),
    "vad": ("voltage.vad", Quantity("V", 100, 2, Range(0, 10))),
    "vdd": ("voltage.vdd", Quantity("V", 100, 2, Range(0, 10))),
}


def w1_sources(folder: Path) -> list[Source]:
    """Return the channels of a folder below ``/sys/bus/w1/devices``; none for a family that is not known."""
    family = folder.name.partition("-")[0]
    if family == _MONITOR:
        return [_ds2438_source(folder / file) for file in _DS2438 if (folder / file).exists()]
    if family not in _THERMOMETERS:
        return []
    channel = Channel("temperature", "Cel", "1-wire thermometer", *_THERMOMETERS[family], 3)
    # w1_slave comes first because it shows the bytes, which distinguish 85 degrees from power-on.
    for name, measure in (("w1_slave", _w1_slave), ("temperature", _w1_temperature)):
        if (folder / name).exists():
            return [(channel, partial(measure, folder / name, family))]
    return []


def _ds2438_source(path: Path) -> Source:
    name, quantity = _DS2438[path.name]
    channel = _channel(name, f"{path.name} of a DS2438", quantity, "", quantity.decimals)
    return channel, partial(_iio_input, path, quantity)


def _w1_slave(path: Path, family: str) -> Measurement:
    found = text(path)
    match = _W1_SLAVE.fullmatch(found)
    if match is None:
        raise damaged(path, "nine bytes with 'crc=', then 't='", found)
    if match["crc"] == "NO":
        raise ChecksumError(f"{path}: the CRC is wrong: check the cable and the pull-up resistor")
    scratchpad = bytes.fromhex(match["bytes"])
    if not any(scratchpad):
        # Nine zeros have a correct CRC, and would be a credible 0 degrees.
        raise BusError(f"{path}: the device sent only zeros: the data line is held low")
    millidegrees = int(match["value"])
    if family == "3b":
        return _w1_3b(millidegrees, scratchpad)
    if family == "10" and not scratchpad[7]:
        raise BusError(f"{path}: the divisor in byte 7 is 0, from which the kernel makes 0 degrees")
    # Byte 6 is 0x0c after power-on; after a conversion to 85 degrees it is 0x10. A DS18S20 has 0x0c in both.
    return _judged(millidegrees, family != "10" and scratchpad[6] == 0x0C, family == "10")


def _w1_3b(millidegrees: int, scratchpad: bytes) -> Measurement:
    if not scratchpad[4] & 0x80:
        got = _judged(millidegrees, scratchpad[6] == 0x0C, doubtful=False)
        why = _DS1825.problem(millidegrees / 1000, "Cel") if got.quality == "good" else ""
        return Measurement(got.value, "uncertain", why) if why else got
    if scratchpad[0] & 1:  # MAX31850
        faults = [words for bit, words in _FAULTS.items() if scratchpad[2] & bit]
        return Measurement(None, "bad", " and ".join(faults) or "the chip says that its input is faulty")
    return Measurement(millidegrees / 1000)


def _w1_temperature(path: Path, family: str) -> Measurement:
    return _judged(number(path), False, doubtful=True)


def _judged(millidegrees: float, power_on: bool, doubtful: bool) -> Measurement:
    """Tell 85 degrees of power-on and 127.94 of too little power from temperatures."""
    if not _WEAK.problem(millidegrees, ""):
        return Measurement(None, "bad", _WEAK_WHY)
    if millidegrees == _POWER_ON and power_on:
        return Measurement(None, "bad", _POWER_ON_WHY)
    if millidegrees == _POWER_ON and doubtful:
        return Measurement(millidegrees / 1000, "uncertain", _POWER_ON_WHY)
    return Measurement(millidegrees / 1000)


_ZONE = Quantity("Cel", 1000, 3, _BOARD)


def thermal_sources(folder: Path) -> list[Source]:
    """Return the channel of a folder below ``/sys/class/thermal``."""
    path = folder / "temp"
    description = f"{label(folder / 'type') or 'thermal zone'}, {folder.name}"
    channel = _channel("temperature", description, _ZONE, "", _ZONE.decimals)
    return [(channel, partial(_thermal_value, path))] if path.exists() else []


def _thermal_value(path: Path) -> Measurement:
    got = _scaled(number(path), _ZONE)
    if isinstance(got.value, float) and clean(got.value, _ZONE.decimals) == 0:
        why = "exactly 0 degrees is what a zone gives while its sensor is off"
        return Measurement(0.0, "uncertain", why)
    return got


_STATES = ("Charging", "Discharging", "Not charging", "Full")
_SUPPLY = {
    "capacity": ("capacity", Quantity("%EL", 1, 0, Range(0, 100))),
    "voltage_now": ("voltage", Quantity("V", 1_000_000, 6, Range(0, 1000))),
    "current_now": ("current", Quantity("A", 1_000_000, 6, _AMPERES)),
    "power_now": ("power", Quantity("W", 1_000_000, 6, _WATTS)),
    "temp": ("temperature", Quantity("Cel", 10, 1, _BOARD)),
    "status": ("status", Quantity("1")),
    "online": ("online", Quantity("1")),
}


def power_supply_sources(folder: Path) -> list[Source]:
    """Return the channels of a folder below ``/sys/class/power_supply``."""
    flag = folder / "present"
    present = flag if flag.exists() else None
    sources: list[Source] = []
    for file, (name, quantity) in _SUPPLY.items():
        if (path := folder / file).exists():
            channel = _channel(name, f"{file} of {folder.name}", quantity, "", quantity.decimals)
            sources.append((channel, partial(_supply_value, path, quantity, present)))
    return sources


def _supply_value(path: Path, quantity: Quantity, present: Path | None) -> Measurement:
    if present is not None and not number(present):
        return Measurement(None, "bad", "the battery is not there")
    if path.name == "online":
        return Measurement(bool(number(path)))
    if path.name != "status":
        return _scaled(number(path), quantity)
    state = text(path)
    if state == "Unknown":
        return Measurement(None, "bad", "the kernel does not know the state")
    if state not in _STATES:
        raise damaged(path, f"one of {', '.join(_STATES)}, Unknown", state)
    return Measurement(state)
