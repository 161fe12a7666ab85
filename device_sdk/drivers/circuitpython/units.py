"""The units in which CircuitPython drivers give their properties.

The CircuitPython design guide names a unit for each property, but not every driver keeps to it. Source: the
docstrings of the drivers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

__all__ = ["DIFFERING", "UNITS", "factor", "unit_of"]

# Property -> the guide's unit where it is not ours.
_GUIDE = {
    "pressure": "hPa",
    "TVOC": "ppb",
    "distance": "cm",
    "weight": "g",
    "current": "mA",
    "magnetic": "uT",
}

# A unit of a driver -> our unit, and what to multiply with.
_OURS = {
    "hPa": ("Pa", 100.0),
    "kPa": ("Pa", 1000.0),
    "ppb": ("ppm", 0.001),
    "cm": ("m", 0.01),
    "mm": ("m", 0.001),
    "g": ("kg", 0.001),
    "mA": ("A", 0.001),
    "mV": ("V", 0.001),
    "mW": ("W", 0.001),
    "uT": ("T", 1e-6),
    "G": ("T", 1e-4),
    "deg/s": ("rad/s", math.pi / 180),
}

DIFFERING: dict[str, str] = {
    "current": "A or mA",
    "power": "W or mW",
    "shunt_voltage": "V or mV",
    "magnetic": "uT or G",
    "gyro": "rad/s or deg/s",
}
"""Properties whose unit differs from driver to driver: it is known for the packages of ``UNITS`` only."""

_MICROTESLA = {"magnetic": "uT"}
_RADIANS = {"gyro": "rad/s"}

UNITS: dict[str, Mapping[str, str]] = {
    "adafruit_bno055": _MICROTESLA | _RADIANS,
    "adafruit_bno08x": _MICROTESLA | _RADIANS,
    "adafruit_icm20x": _MICROTESLA | _RADIANS,
    "adafruit_ina219": {"current": "mA", "power": "W", "shunt_voltage": "V"},
    "adafruit_ina228": {"current": "A", "power": "W", "shunt_voltage": "V"},
    "adafruit_ina23x": {"current": "A", "power": "W", "shunt_voltage": "V"},
    "adafruit_ina260": {"current": "mA", "power": "mW"},
    "adafruit_ina3221": {"current": "mA", "shunt_voltage": "mV"},
    "adafruit_l3gd20": _RADIANS,
    "adafruit_lis2mdl": _MICROTESLA,
    "adafruit_lis3mdl": _MICROTESLA,
    "adafruit_lsm303dlh_mag": _MICROTESLA,
    "adafruit_lsm6ds": _RADIANS,
    "adafruit_lsm9ds0": {"magnetic": "G", "gyro": "deg/s"},
    "adafruit_lsm9ds1": {"magnetic": "G", "gyro": "rad/s"},
    "adafruit_mlx90393": _MICROTESLA,
    "adafruit_mlx90395": _MICROTESLA,
    "adafruit_mmc56x3": _MICROTESLA,
    "adafruit_mpu6050": _RADIANS,
    "adafruit_qmc5883p": _MICROTESLA,
    "adafruit_tlv493d": _MICROTESLA,
    "adafruit_tmag5273": _MICROTESLA,
    "adafruit_tmf8801": {"distance": "mm"},
    "adafruit_tmf8806": {"distance": "mm"},
}
"""Package of a driver -> the units of its properties where drivers differ."""


def unit_of(path: object, read: str, ours: str) -> str | None:
    """Return the unit in which the driver at a path gives a property; ``None``: nobody knows.

    Args:
        ours: the unit of our channel.
    """
    package = path.partition(":")[0].partition(".")[0] if isinstance(path, str) else ""
    known = UNITS.get(package, {}).get(read)
    return known or (None if read in DIFFERING else _GUIDE.get(read, ours))


def factor(found: str, wanted: str) -> float | None:
    """Return what to multiply with to get from one unit to another; ``None``: not known."""
    (base, of_found), (other, of_wanted) = (_OURS.get(unit, (unit, 1.0)) for unit in (found, wanted))
    return (of_found if of_wanted == 1 else of_found / of_wanted) if base == other else None
