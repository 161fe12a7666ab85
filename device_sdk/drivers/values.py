"""From what a device or a function returned to a reading: its type, its range, its precision.

A number is judged twice. What is not possible in that unit, ``-274 Cel``, is no measurement: ``bad``, without
a value. What is possible but outside the range that the sensor can measure is ``uncertain``, with its value.

Source: RFC 8428 §12.1 and RFC 8798 §3 for the units; absolute zero, 0 K, for the temperature.
"""

from __future__ import annotations

import math
import numbers
from typing import TYPE_CHECKING, NamedTuple

from device_sdk.drivers.base import Reading
from device_sdk.errors import DriverError

if TYPE_CHECKING:
    from device_sdk.drivers.base import Channel, Value

__all__ = ["POSSIBLE", "Range", "clean", "measured"]


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

_USUAL = {"%RH": Range(0, 100)}

# Removes what binary fractions leave (0.23099999999999998), and keeps every digit of a 32-bit counter.
_DIGITS = 12


def measured(channel: Channel, value: object, time: float) -> Reading:
    """Make a reading from the result of a device or a function.

    A real number is rounded to ``channel.precision`` decimals and judged by :data:`POSSIBLE` and the
    channel's range, see above; text and truth values are good. ``None``, NaN and infinity are ``bad``, with
    the value ``None``.

    Raises: DriverError: the value is of another type, for example a list.
    """
    number: Value
    match value:
        case None:
            return _bad(channel, time, "no value")
        case bool() | str():
            return Reading(channel.name, value, channel.unit, time)
        case numbers.Integral():
            number = int(value)
        case numbers.Real():
            number = float(value)
            if not math.isfinite(number):
                return _bad(channel, time, f"the value was {number}")
        case _:
            raise DriverError(f"channel {channel.name}: expected a number, text or bool, found {value!r:.80}")
    if impossible := POSSIBLE.get(channel.unit, Range()).problem(number, channel.unit):
        return _bad(channel, time, f"{number:.6g} is not possible: {impossible}")
    if isinstance(number, float):
        number = clean(number, channel.precision)
    reason = _range_of(channel).problem(number, channel.unit)
    return Reading(channel.name, number, channel.unit, time, "uncertain" if reason else "good", reason)


def clean(number: float, precision: int | None = None) -> float:
    """Return a number rounded to ``precision`` decimals and to 12 digits: the others are not measured."""
    if precision is not None:
        number = round(number, precision)
    return float(f"{number:.{_DIGITS}g}") + 0.0  # -0.0 is 0.0


def _range_of(channel: Channel) -> Range:
    low, high = _USUAL.get(channel.unit, Range())
    return Range(low if channel.min is None else channel.min, high if channel.max is None else channel.max)


def _bad(channel: Channel, time: float, reason: str) -> Reading:
    return Reading(channel.name, None, channel.unit, time, "bad", reason)
