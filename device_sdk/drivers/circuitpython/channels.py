"""The channels that the properties and methods of a CircuitPython driver become.

Source of the property names and units: CircuitPython design guide, "Sensor properties and units".
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from device_sdk._text import did_you_mean
from device_sdk.drivers.base import Channel, Reading
from device_sdk.drivers.circuitpython.units import DIFFERING, factor, unit_of
from device_sdk.drivers.values import bad, check_unit, measured, shown
from device_sdk.errors import ArgumentError

__all__ = [
    "STANDARD_PROPERTIES",
    "ChannelTable",
    "PropertyChannel",
    "Source",
    "parse_channels",
    "standard_channels",
]

ChannelTable = Sequence[str] | Mapping[str, Mapping[str, object] | Sequence[Mapping[str, object]]]


@dataclass(frozen=True, slots=True)
class PropertyChannel:
    """The channel of one value of a property: ``value * scale`` in ``unit``.

    ``min``, ``max`` and ``precision`` as in :class:`Channel`, in that unit. ``key``: which value of the
    result it is: a key of a dict, a name of an object's attribute, or an index; ``None``: all of it.
    ``invalid``: results, before the scale, that stand for "not measured": the channel is bad then. ``names``:
    result -> text, or the path of a class whose constants give the names: ``"adafruit_lps2x:Rate"``.
    """

    name: str
    unit: str = "1"
    scale: float = 1.0
    min: float | None = None
    max: float | None = None
    precision: int | None = None
    description: str = ""
    key: str | int | None = None
    invalid: tuple[float, ...] = ()
    names: str | Mapping[str, str] = ""

    def channel(self, default: str) -> Channel:
        """Return the driver's channel; ``default``: its description if the table has none."""
        description = self.description or default
        return Channel(self.name, self.unit, description, self.min, self.max, self.precision)

    def reading(self, channel: Channel, value: object, time: float) -> Reading:
        """Make the reading out of the property's value."""
        try:
            return self._reading(channel, value, time)
        except Exception as error:  # the value's class belongs to the chip's driver
            return bad(channel, time, f"the value cannot be read: {shown(error)}")

    def _reading(self, channel: Channel, value: object, time: float) -> Reading:
        is_number = isinstance(value, numbers.Real) and not isinstance(value, _TRUTH)
        if is_number and value in self.invalid:
            return bad(channel, time, f"the chip says {value} when it could not measure")
        if isinstance(self.names, Mapping) and self.names:
            value = self.names.get(str(value), f"{value}")
        elif is_number and self.scale != 1:
            assert isinstance(value, numbers.Real)
            value = _scaled(float(value), self.scale)
        return measured(channel, value, time)


class Source(NamedTuple):
    """One property or method of the chip's object, and the channels in its result.

    ``read``: its name. ``arguments``: for the method. ``via``: path of a class; the property is that of an
    object made from the chip and ``arguments``, as ``AnalogIn`` of an analogue-digital converter.
    """

    read: str
    channels: tuple[PropertyChannel, ...]
    arguments: Mapping[str, object] = {}
    via: str = ""


def _vector(name: str, unit: str, scale: float = 1.0) -> tuple[PropertyChannel, ...]:
    return tuple(PropertyChannel(f"{name}.{axis}", unit, scale) for axis in "xyz")


STANDARD_PROPERTIES: dict[str, tuple[PropertyChannel, ...]] = {
    # What a TMP117 says before its first conversion, and a barometer that is switched off.
    "temperature": (PropertyChannel("temperature", "Cel", precision=3, invalid=(-256,)),),
    "relative_humidity": (PropertyChannel("humidity", "%RH", precision=2),),
    "humidity": (PropertyChannel("humidity", "%RH", precision=2),),
    "pressure": (PropertyChannel("pressure", "Pa", 100, precision=2, invalid=(0,)),),
    # Chips say 0 until they have measured; no air on earth is below 300 ppm.
    "CO2": (PropertyChannel("co2", "ppm", min=300, invalid=(0,)),),
    "eCO2": (PropertyChannel("eco2", "ppm", invalid=(0,)),),
    "TVOC": (PropertyChannel("tvoc", "ppm", 0.001),),
    "gas": (PropertyChannel("gas", "Ohm"),),
    "lux": (PropertyChannel("illuminance", "lx"),),
    "light": (PropertyChannel("light", "1"),),
    "proximity": (PropertyChannel("proximity", "1"),),
    "distance": (PropertyChannel("distance", "m", 0.01, min=0),),
    "sound_level": (PropertyChannel("sound_level", "1"),),
    "weight": (PropertyChannel("weight", "kg", 0.001),),
    "frequency": (PropertyChannel("frequency", "Hz"),),
    "voltage": (PropertyChannel("voltage", "V"),),
    "bus_voltage": (PropertyChannel("bus_voltage", "V"),),
    "shunt_voltage": (PropertyChannel("shunt_voltage", "V"),),
    "current": (PropertyChannel("current", "A", 0.001),),
    "power": (PropertyChannel("power", "W"),),
    "acceleration": _vector("acceleration", "m/s2"),
    "gyro": _vector("gyro", "rad/s"),
    "magnetic": _vector("magnetic", "T", 1e-6),
}
"""Property of a CircuitPython driver -> the channels it becomes; their units are SI where ours differ: Pa for
hPa, A for mA, m for cm, kg for g, T for µT, ppm for ppb. ``UNITS`` has drivers with units of their own."""


def standard_channels(read: str, path: object) -> tuple[PropertyChannel, ...]:
    """Return the channels that a property of a driver becomes, for the unit that this driver has.

    Args:
        path: the class, ``"package.module:Class"``.

    Raises: ArgumentError: drivers differ in the unit, and this one is not known.
    """
    channels = STANDARD_PROPERTIES.get(read, ())
    if not channels:
        return ()
    unit = channels[0].unit
    found = unit_of(path, read, unit)
    if found is None:
        raise ArgumentError(
            f"channels.{read}",
            f"drivers give it in {DIFFERING[read]}, and the unit of {path} is not known: look at its"
            f' docstring and say it, {{ unit = "{unit}", scale = ... }}, where scale makes {unit} of what the'
            " driver gives",
        )
    return tuple(replace(channel, scale=factor(found, unit) or 1.0) for channel in channels)


_TRUTH: type = bool  # is a number to Python; it has no scale


class _Kind(NamedTuple):
    """What a key of the table may be: types, and their name for people."""

    types: tuple[type, ...]
    called: str


_NUMBER = _Kind((int, float), "a number")
_TEXT = _Kind((str,), "a text")
_TABLE = _Kind((Mapping,), "a table")

# The keys of one channel, and those of the property or method around it.
_CHANNEL_KEYS = {
    "name": _TEXT,
    "unit": _TEXT,
    "scale": _NUMBER,
    "min": _NUMBER,
    "max": _NUMBER,
    "precision": _Kind((int,), "a whole number"),
    "description": _TEXT,
    "key": _Kind((str, int), "a text or a whole number"),
    "invalid": _Kind((list, tuple), "a list of numbers"),
    "names": _Kind((str, Mapping), "a table or 'package.module:Class'"),
}
_SOURCE_KEYS = {
    "read": _TEXT,
    "arguments": _TABLE,
    "via": _TEXT,
    "values": _Kind((list, tuple), "a list of tables"),
}


def parse_channels(channels: ChannelTable, path: object) -> tuple[Source, ...]:
    """Return the sources that a user's table names, in its order.

    Args:
        path: the class of the driver; its units are not always the standard ones.

    Raises: ArgumentError: the table is wrong; the message says where.
    """
    if isinstance(channels, str) or not isinstance(channels, Mapping | Sequence) or not channels:
        raise ArgumentError("channels", f"expected a list or a table of properties, found {channels!r:.80}")
    wanted = channels if isinstance(channels, Mapping) else {name: {} for name in channels}
    sources = tuple(_parse_source(name, given, path) for name, given in wanted.items())
    names = [channel.name for source in sources for channel in source.channels]
    if len(set(names)) != len(names):
        raise ArgumentError("channels", f"two channels have one name: {', '.join(names)}")
    return sources


def _parse_source(name: object, given: object, path: object) -> Source:
    where = f"channels.{name}"
    if not isinstance(name, str) or not isinstance(given, Mapping | list | tuple):
        raise ArgumentError(where, f"expected a table, or a list of tables, found {given!r:.80}")
    table: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {"values": given}
    of_source = {key: table.pop(key) for key in tuple(table) if key in _SOURCE_KEYS}
    _check_keys(where, of_source, _SOURCE_KEYS)
    values = of_source.pop("values", None)
    if values is not None and table:
        raise ArgumentError(where, f"values has tables of its own: write {', '.join(table)} in there")
    read = of_source.pop("read", name)
    of = _Property(where, read, of_source.get("via", path))
    standard = STANDARD_PROPERTIES.get(read, ())
    if values is None and len(standard) > 1 and "key" not in table:
        # What is said about a vector is said about each of its axes.
        _check_keys(where, table, _CHANNEL_KEYS)
        prefix = table.pop("name", name)
        values = [{**table, "name": f"{prefix}.{axis.name[-1]}"} for axis in standard]
    tables = [table] if values is None else values
    if not tables or not all(isinstance(each, Mapping) for each in tables):
        raise ArgumentError(where, f"expected a list of tables, found {tables!r:.80}")
    is_like = len(standard) == len(tables) or any("key" in each for each in tables)
    like = standard[0] if standard and is_like else None
    default = like.name if like and len(standard) == 1 and read == name else name
    found = tuple(_parse_channel(of, default, each, like) for each in tables)
    if 0 < sum(channel.key is None for channel in found) < len(found):
        raise ArgumentError(where, "either all of its tables have a key, or none")
    return Source(read, found, **of_source)


class _Property(NamedTuple):
    """What a line of the table reads: where it stands, the property, and the class that has it."""

    where: str
    read: str
    path: object

    def scale_to(self, unit: str, standard: PropertyChannel) -> float:
        """Return what to multiply with to get a unit. Raises: ArgumentError: it is not known."""
        found = unit_of(self.path, self.read, standard.unit)
        if found is None:
            standard_channels(self.read, self.path)  # raises
        scale = 1.0 if standard.unit == "1" else factor(str(found), unit)
        if scale is None:
            raise ArgumentError(
                f"{self.where}.scale",
                f"the driver gives {found}: say what to multiply with to make it {unit}, scale = ...; 1 if it"
                f" gives {unit}",
            )
        return scale


def _parse_channel(
    of: _Property, name: str, keys: Mapping[str, object], standard: PropertyChannel | None
) -> PropertyChannel:
    where = of.where
    _check_keys(where, keys, _CHANNEL_KEYS)
    given: dict[str, Any] = dict(keys)
    if "unit" in given:
        check_unit(given["unit"], f"{where}.unit")
    elif "names" not in given and standard is None:
        hint = did_you_mean(of.read, STANDARD_PROPERTIES)
        raise ArgumentError(where, f"{name!r} has no standard unit, say which: unit = ...{hint}")
    if standard is not None and "names" not in given:
        unit = given.setdefault("unit", standard.unit)
        if "scale" not in given:
            given["scale"] = of.scale_to(unit, standard)
        if unit == standard.unit:
            kept = {key: getattr(standard, key) for key in ("min", "max", "precision")}
            given = {**kept, **given}
    given["invalid"] = tuple(given.get("invalid", standard.invalid if standard else ()))
    channel = PropertyChannel(**{"name": name, **given})
    if channel.min is not None and channel.max is not None and channel.min > channel.max:
        raise ArgumentError(f"{where}.min", f"{channel.min:g} is above max, {channel.max:g}")
    return channel


def _check_keys(where: str, keys: Mapping[str, object], known: Mapping[str, _Kind]) -> None:
    for key, value in keys.items():
        if key not in known:
            names = [*_CHANNEL_KEYS, *_SOURCE_KEYS]
            raise ArgumentError(f"{where}.{key}", f"there is: {', '.join(names)}{did_you_mean(key, names)}")
        kind = known[key]
        numbers_ = value if key == "invalid" and isinstance(value, list | tuple) else [value]
        fits = isinstance(value, kind.types) and all(_is_usable(number, key) for number in numbers_)
        if not fits or value == "":
            raise ArgumentError(f"{where}.{key}", f"expected {kind.called}, found {value!r:.80}")


def _is_usable(value: object, key: str) -> bool:
    """Return whether a value is no truth value and no number that nothing can be compared with."""
    if key == "invalid" and not isinstance(value, int | float):
        return False
    return not isinstance(value, bool) and not (isinstance(value, float) and not math.isfinite(value))


def _scaled(number: float, scale: float) -> float:
    # 57 / 100 is 0.57, where 57 * 0.01 is 0.5700000000000001.
    inverse = round(1 / scale) if abs(scale) < 1 and scale else 0
    return number / inverse if inverse and 1 / inverse == scale else number * scale
