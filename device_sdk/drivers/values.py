"""From what a device or a function returned to a reading: its type, its range, its precision.

A number is judged twice. What is not possible in that unit, ``-274 Cel``, is no measurement: ``bad``, without
a value. What is possible but outside the range that the sensor can measure is ``uncertain``, with its value.

Source: RFC 8428 §12.1 and RFC 8798 §3 for the units; absolute zero, 0 K, for the temperature.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from device_sdk._text import did_you_mean
from device_sdk.drivers.base import Reading
from device_sdk.errors import ArgumentError

if TYPE_CHECKING:
    from device_sdk.drivers.base import Channel, Quality, Value

__all__ = [
    "POSSIBLE",
    "Measurement",
    "Range",
    "bad",
    "check_unit",
    "clean",
    "measured",
    "reading_of",
    "shown",
]


class Range(NamedTuple):
    """The numbers from ``low`` to ``high``, both included."""

    low: float = -math.inf
    high: float = math.inf

    def problem(self, number: float, unit: str) -> str:
        """Return why a number is not in this range, for people; empty if it is."""
        if number < self.low:
            return f"below the range, which begins at {self.low:g} {unit}"
        if number > self.high:
            return f"above the range, which ends at {self.high:g} {unit}"
        return ""


POSSIBLE: dict[str, Range] = {
    "Cel": Range(-273.15),
    "K": Range(0),
    # Formulas of humidity sensors overshoot: Sensirion's give -6 to 119 in saturated or very dry air.
    "%RH": Range(-6, 119),
    "lx": Range(0),
    "ppm": Range(0, 1e6),
    "Ohm": Range(0),
    "Hz": Range(0),
    "B": Range(0),
    "count": Range(0),
    "pH": Range(-2, 16),
}
"""Unit -> the numbers that can be true at all. Units that are not here, such as V or Pa (a difference of
pressures may be negative), have no such range."""

# What people write -> the SenML name.
_MEANT = {
    **dict.fromkeys(("°c", "degc", "celsius", "deg c", "cel"), "Cel"),
    **dict.fromkeys(("%rh", "% rh", "rh"), "%RH"),
    "lux": "lx",
    **dict.fromkeys(("ohms", "ohm", "ω"), "Ohm"),
    **dict.fromkeys(("volt", "volts"), "V"),
    **dict.fromkeys(("pascal", "pa"), "Pa"),
    "c": "Cel",  # also the coulomb, which no sensor gives
    **dict.fromkeys(("µg/m³", "µg/m3", "ug/m³"), "ug/m3"),
    **dict.fromkeys(("m/s²", "m/s^2"), "m/s2"),
    **dict.fromkeys(("°", "degree", "degrees"), "deg"),
    **dict.fromkeys(("°/s", "dps"), "deg/s"),
    **dict.fromkeys(("gauss", "gs"), "G"),
    **dict.fromkeys(("µt", "μt"), "uT"),
    **dict.fromkeys(("ampere", "amp", "amps"), "A"),
    **dict.fromkeys(("watt", "watts"), "W"),
    **dict.fromkeys(("percent",), "%"),
    "none": "1",
    "meter": "m",
    "seconds": "s",
}

# Text and truth values have no physical unit.
_UNITS_OF_WORDS = frozenset({"1", ""})

# RFC 8428 §12.1 without the coulomb, RFC 8798 §3 and §4, and what IANA has registered since.
_SENML = """
m kg g s A K cd mol Hz rad sr N Pa J W V F Ohm S Wb T H Cel lm lx Bq Gy Sv kat m2 m3 l m/s m/s2 m3/s l/s W/m2
cd/m2 bit bit/s lat lon pH dB dBW Bspl count / % %RH %EL EL 1/s 1/min beat/min beats S/m B VA VAs var vars J/m
kg/m3 deg NTU ms min h MHz kW kVA kvar Ah Wh kWh varh kvarh kVAh Wh/km KiB GB Mbit/s B/s MB/s mV mA dBm ug/m3
mm/h m/h ppm /100 /1000 hPa mm cm km km/h ppb ppt VAh mg/l ug/l g/l
"""
# Without a name there: ours, and those in which drivers give their properties.
_OTHERS = """
1 rad/s 1/m3 deg/s rpm G uT mT mW uA uV nV kPa bar mbar kHz GHz kOhm MOhm uS/cm mS/cm g/m3 mg/m3 ug MiB kB MB
KiB/s us ns d m/min l/min l/h m3/h N/m Nm mN kN V/m uW/cm2 W/m3 degF steps
"""
_UNITS = frozenset((_SENML + _OTHERS).split())

_USUAL = {"%RH": Range(0, 100)}

# Removes what binary fractions leave (0.23099999999999998), and keeps every digit of a 32-bit counter.
_DIGITS = 12

# Bounds of what is published: others cannot read more, and a driver may return anything.
_HIGHEST_INT = 2**64
_LONGEST_TEXT = 1000
_SHOWN = 120


def measured(channel: Channel, value: object, time: float) -> Reading:
    """Make a reading from the result of a device or a function.

    A number is rounded to ``channel.precision`` decimals and judged by :data:`POSSIBLE` and the channel's
    range, see above. Text, truth values, and members of an enumeration by their names, are good in the unit
    ``1`` and ``bad`` in any other. ``None``, NaN, infinity, and whatever cannot be published, such as a list,
    are ``bad`` with the value ``None``. Never
    raises.
    """
    try:
        plain = _plain(value)
    except Exception as error:  # a class of the device's driver computes it
        return bad(channel, time, f"the value cannot be read: {shown(error)}")
    match plain:
        case _Problem():
            return bad(channel, time, plain.reason)
        case bool() | str():
            if channel.unit in _UNITS_OF_WORDS:
                return Reading(channel.name, plain, channel.unit, time)
            what = "text" if isinstance(plain, str) else "truth value"
            return bad(
                channel, time, f"expected a number for {channel.unit}, found the {what} {shown(plain)}"
            )
        case number:
            return _judged(channel, number, time)


def check_unit(unit: object, argument: str) -> str:
    """Return a unit that a user gave.

    It is a SenML unit, or one of those that have no SenML name and are known as well.

    Raises: ArgumentError: it is no text, or no such unit; the message has the name that was meant.
    """
    if not isinstance(unit, str) or not unit:
        raise ArgumentError(argument, f"expected the name of a unit, found {shown(unit)}")
    meant = _MEANT.get(unit.lower(), unit)
    if meant != unit:
        raise ArgumentError(argument, f"the SenML name of {unit!r} is {meant!r}")
    if unit not in _UNITS:
        hint = did_you_mean(unit, _UNITS) or '; a number without a unit has the unit "1"'
        raise ArgumentError(argument, f"{unit!r:.40} is no SenML unit{hint}")
    return unit


def bad(channel: Channel, time: float, reason: str) -> Reading:
    """Make the reading of a channel that could not be measured."""
    return Reading(channel.name, None, channel.unit, time, "bad", reason)


def shown(value: object) -> str:
    """Return anything in one short line, an exception with its type; never raises."""
    try:
        text = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


@dataclass(frozen=True, slots=True)
class Measurement:
    """A value of one channel with the verdict of whoever measured it, before it becomes a reading."""

    value: Value
    quality: Quality = "good"
    reason: str = ""


def reading_of(channel: Channel, got: Measurement, time: float) -> Reading:
    """Make a reading with the worse of two verdicts: that of the measurement, and :func:`measured`."""
    reading = measured(channel, got.value, time)
    if got.quality == "good" or (reading.quality == "bad" and got.quality != "bad"):
        return reading
    return replace(
        reading, value=None if got.quality == "bad" else reading.value, quality=got.quality, reason=got.reason
    )


def clean(number: float, precision: int | None = None) -> float:
    """Return a number rounded to ``precision`` decimals and to 12 digits: the others are not measured."""
    if precision is not None:
        number = round(number, precision)
    return float(f"{number:.{_DIGITS}g}") + 0.0  # -0.0 is 0.0


def _range_of(channel: Channel) -> Range:
    low, high = _USUAL.get(channel.unit, Range())
    return Range(low if channel.min is None else channel.min, high if channel.max is None else channel.max)


class _Problem(NamedTuple):
    """Stands for a value that cannot be published."""

    reason: str


def _plain(value: object) -> bool | int | float | str | _Problem:
    """Return a value as one of the types that can be published."""
    if type(value) is float:  # the usual one, before the slow questions
        return value if math.isfinite(value) else _Problem(f"the value was {value}")
    match value:
        case None:
            return _Problem("no value")
        case Enum():
            return value.name
        case bool():
            return value
        case str():
            return _text(str.__str__(value))
        case numbers.Integral():
            number = int(value)
            return number if abs(number) < _HIGHEST_INT else _Problem("a whole number of more than 64 bits")
    if hasattr(type(value), "__float__"):  # Decimal and the numbers of NumPy, too
        real = float(value)  # type: ignore[arg-type]
        return real if math.isfinite(real) else _Problem(f"the value was {real}")
    return _Problem(f"expected a number, text or bool, found {shown(value)}")


def _text(text: str) -> str | _Problem:
    if len(text) > _LONGEST_TEXT:
        return _Problem(f"a text of {len(text)} characters, at most {_LONGEST_TEXT} are published")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        return _Problem(f"a text that is not Unicode: {shown(text)}")
    return text


def _judged(channel: Channel, number: int | float, time: float) -> Reading:
    if impossible := POSSIBLE.get(channel.unit, Range()).problem(number, channel.unit):
        return bad(channel, time, f"{number:.6g} is not possible: {impossible}")
    if isinstance(number, float):
        number = clean(number, channel.precision)
    reason = _range_of(channel).problem(number, channel.unit)
    return Reading(channel.name, number, channel.unit, time, "uncertain" if reason else "good", reason)
