"""The check of what a driver returned: whatever passes can be encoded."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from device_sdk.drivers.base import Quality, Reading
from device_sdk.errors import DriverError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["MAX_READINGS", "Taken", "checked"]

MAX_READINGS = 4096
"""Readings of one sample at most: a generator may have no end."""

_MAX_BITS = 1024  # of a whole number, as a float has them
_QUALITIES = get_args(Quality)
_EXACT = frozenset({bool, int, float, str, type(None)})
_TO_EXACT: tuple[tuple[type, Callable[[Any], object]], ...] = (
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
)


class Taken(NamedTuple):
    """The readings of one read, checked. ``uptime``: seconds of ``CLOCK_BOOTTIME`` just before it."""

    readings: tuple[Reading, ...]
    uptime: float


def checked(result: object) -> tuple[Reading, ...]:
    """Return what a driver's ``read()`` returned, as a tuple of readings that can be encoded.

    Raises: DriverError: it is no such thing; the message says what is wrong where.
    """
    if isinstance(result, str | bytes | dict) or not hasattr(result, "__iter__"):
        raise DriverError(f"read() returned no readings but {_shown(result)}")
    found = tuple(islice(_iterable(result), MAX_READINGS + 1))
    if not found:
        raise DriverError("it gave no readings")
    if len(found) > MAX_READINGS:
        raise DriverError(f"read() returned more than {MAX_READINGS} readings")
    readings = []
    names = set()
    for place, each in enumerate(found):
        if not isinstance(each, Reading):
            raise DriverError(f"read() returned {_shown(each)} in place {place}, expected a Reading")
        reading = _plain(each)
        problem = _problem(reading)
        if not problem and reading.channel in names:
            problem = "a second reading of this channel"
        if problem:
            raise DriverError(f"read() returned for the channel {_shown(reading.channel)} {problem}")
        names.add(reading.channel)
        readings.append(reading)
    return tuple(readings)


def _plain(reading: Reading) -> Reading:
    """Return a reading without subclasses, of it or of its fields: their methods are code of others."""
    fields = (
        reading.channel,
        reading.value,
        reading.unit,
        reading.time,
        reading.quality,
        reading.reason,
    )
    if type(reading) is Reading and all(type(field) in _EXACT for field in fields):
        return reading
    plain: tuple[Any, ...] = tuple(map(_exact, fields))
    return Reading(*plain)


def _exact(value: object) -> object:
    for kind, exact in _TO_EXACT:
        if type(value) not in _EXACT and isinstance(value, kind):
            return exact(value)
    return value


def _iterable(result: object) -> Iterable[object]:
    return result  # type: ignore[return-value]


def _problem(reading: Reading) -> str:
    """Say what is wrong with a reading, nothing if all is well."""
    for name in ("channel", "unit", "reason"):
        if not _is_text(getattr(reading, name)):
            return f"the {name} {_shown(getattr(reading, name))}, expected a text of Unicode characters"
    if reading.quality not in _QUALITIES:
        return f"the quality {_shown(reading.quality)}, expected good, uncertain or bad"
    if not _is_number(reading.time):
        return f"the time {_shown(reading.time)}, expected seconds since 1970"
    value = reading.value
    if value is None and reading.quality != "bad":
        return "no value, and the quality is not bad"
    if not (value is None or _is_number(value) or _is_text(value)):
        return f"the value {_shown(value)}, expected a finite number, a text or None"
    return ""


def _is_text(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False  # half of a pair of surrogates
    return True


def _is_number(value: object) -> bool:
    if isinstance(value, int):
        return value.bit_length() <= _MAX_BITS
    return isinstance(value, float) and math.isfinite(value)


def _shown(value: object) -> str:
    try:
        return f"{value!r:.80}"
    except Exception:
        return f"of the type {type(value).__name__}, which cannot be shown"
