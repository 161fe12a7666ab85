"""Asks the object of a chip for its properties and methods, and takes the results apart into channels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

from device_sdk._load import load_object
from device_sdk._text import did_you_mean
from device_sdk.drivers.base import Channel, Reading
from device_sdk.drivers.circuitpython.channels import (
    STANDARD_PROPERTIES,
    PropertyChannel,
    Source,
    standard_channels,
)
from device_sdk.drivers.circuitpython.faults import translated
from device_sdk.drivers.circuitpython.making import Call, check_call, has_value, public_names, resolved
from device_sdk.drivers.values import bad, shown
from device_sdk.errors import ArgumentError, BusError, DriverError, ReadTimeoutError

__all__ = ["Reader", "condition", "question", "standard_sources"]


class Reader:
    """Reads the sources of one chip's object.

    Raises: ArgumentError: it has no such property or method. DriverError: making an object for ``via``
    failed.
    """

    def __init__(
        self, chip: Any, sources: tuple[Source, ...], path: str, place: str, *, is_started: bool
    ) -> None:
        self._place = place
        self._asked = [
            (Source(source.read, _named(source)), question(chip, source, path, place)) for source in sources
        ]
        self.channels: tuple[Channel, ...] = tuple(
            channel.channel(f"{source.read} of {place}")
            for source, _ in self._asked
            for channel in source.channels
        )
        self._nothing = _advice_for_nothing(chip, is_started)

    def read(self, time: float) -> tuple[Reading, ...]:
        """Ask for each source once; one that fails costs its own channels.

        Raises: BusError, ReadTimeoutError: the chip does not answer. DriverError: every source failed.
        """
        channels = iter(self.channels)
        readings: list[Reading] = []
        failures: list[DriverError] = []
        for source, ask in self._asked:
            try:
                with translated(self._place):
                    values = _take_apart(source, ask())
            except (BusError, ReadTimeoutError):
                raise
            except DriverError as error:
                failures.append(error)
                values = [_Fault(str(error))] * len(source.channels)
            for each, value in zip(source.channels, values, strict=True):
                channel = next(channels)
                if isinstance(value, _Fault):
                    readings.append(bad(channel, time, value.reason))
                elif value is None:
                    readings.append(bad(channel, time, self._nothing))
                else:
                    readings.append(each.reading(channel, value, time))
        if len(failures) == len(self._asked):
            raise failures[0]
        return tuple(readings)


def _advice_for_nothing(chip: Any, is_started: bool) -> str:
    """Return why a chip gives None: most that can be started give it before they have measured."""
    if is_started:
        return "no value; if it is the first one, name what the chip says that is ready: 'ready'"
    starts = [f"{name}()" for name in dir(chip) if name.startswith("start") and not has_value(chip, name)]
    return f"no value; does the chip need {' or '.join(starts)}, see 'start'?" if starts else "no value"


class _Fault(NamedTuple):
    """Stands for a value that is not there."""

    reason: str


def standard_sources(chip: Any, path: str) -> tuple[Source, ...]:
    """Return the standard properties that the chip measures; one that can be set is a setting.

    Raises: ArgumentError: it has none, or one whose unit is not known.
    """
    found: dict[tuple[PropertyChannel, ...], Source] = {}
    for name in STANDARD_PROPERTIES:
        # Some drivers have both humidity and relative_humidity: one value, one channel.
        if has_value(chip, name) and not _is_setting(chip, name):
            channels = standard_channels(name, path)
            found.setdefault(channels, Source(name, channels))
    if not found:
        raise ArgumentError(
            "channels",
            f"{path} has none of the standard properties: say which to read of"
            f" {', '.join(public_names(chip))}",
        )
    return tuple(found.values())


def condition(chip: Any, name: str, path: str) -> Callable[[], bool]:
    """Return what asks the chip whether a property, or the result of a method, is true.

    Raises: ArgumentError: it has no such property or method.
    """
    ask = question(chip, Source(name, ()), path)
    return lambda: bool(ask())


def _is_setting(chip: Any, name: str) -> bool:
    found = inspect.getattr_static(chip, name)
    return isinstance(found, property) and found.fset is not None


def question(chip: Any, source: Source, path: str, place: str = "") -> Callable[[], object]:
    """Return what asks the chip for a source.

    Raises: ArgumentError: it has no such property or method.
    """
    option = f"channels.{source.read}"
    target, arguments = chip, source.arguments
    if source.via:
        target, path, arguments = _made(chip, source, place), source.via, {}
    if has_value(target, source.read):
        if arguments:
            raise ArgumentError(option, f"{source.read} of {path} is a property, it takes no arguments")
        return lambda: getattr(target, source.read)
    if not hasattr(type(target), source.read):
        hint = did_you_mean(source.read, public_names(target))
        raise ArgumentError("channels", f"{path} has no property {source.read!r}{hint}")
    check_call(target, Call(source.read, arguments), path, option)
    values = resolved(arguments, path, option)
    return lambda: getattr(target, source.read)(**values)


def _made(chip: Any, source: Source, place: str) -> Any:
    option = f"channels.{source.read}.via"
    try:
        factory = load_object(source.via, option)
    except ImportError as error:
        raise ArgumentError(option, f"{source.via} cannot be imported: {error}") from error
    try:
        inspect.signature(factory).bind(chip, **source.arguments)
    except (TypeError, ValueError) as error:
        raise ArgumentError(option, f"{source.via}: {error}") from None
    with translated(f"{place}, {source.via}"):
        return factory(chip, **resolved(source.arguments, source.via, option))


def _named(source: Source) -> tuple[PropertyChannel, ...]:
    """Return the channels of a source with their names of values looked up."""
    return tuple(
        replace(channel, names=_constants(channel.names)) if isinstance(channel.names, str) and channel.names
        else channel
        for channel in source.channels
    )  # fmt: skip


def _constants(path: str) -> dict[str, str]:
    """Return the constants of a class: value -> name. Raises: ArgumentError: there is no such class."""
    option = "channels.names"
    try:
        found = load_object(path, option)
    except ImportError as error:
        raise ArgumentError(option, f"{path} cannot be imported: {error}") from error
    members = {str(value): name for name, value in vars(found).items() if name.isupper()}
    if not members:
        raise ArgumentError(option, f"{path} has no constants")
    return members


def _take_apart(source: Source, value: Any) -> list[object]:
    """Return the value of each channel of a source."""
    channels = source.channels
    if isinstance(value, Iterator):  # the driver of the LSM9DS1 gives a map, which reads nothing by itself
        value = tuple(islice(value, len(channels) + 1))
    if channels[0].key is not None:
        return [None if value is None else _item(source.read, value, channel.key) for channel in channels]
    if len(channels) == 1 and not isinstance(value, tuple | list):
        return [value]
    values = [None] * len(channels) if value is None else value
    if not isinstance(values, tuple | list) or len(values) != len(channels):
        count = "1 channel" if len(channels) == 1 else f"{len(channels)} channels"
        reason = f"{source.read} has {count} and gave {shown(value)}; list as many as it has numbers, or give"
        return [_Fault(f"{reason} each a key")] * len(channels)
    return list(values)


def _item(read: str, value: Any, key: str | int | None) -> object:
    """Return what a key stands for in a result."""
    if isinstance(value, Mapping):
        there, known = key in value, [str(each) for each in value]
        found = value[key] if there else None
    elif isinstance(key, str):
        there, known = hasattr(value, key), public_names(value)
        found = getattr(value, key, None)
    else:
        there = isinstance(value, tuple | list) and -len(value) <= (key or 0) < len(value)
        known = []
        found = value[key or 0] if there else None
    if there:
        return found
    what = f", there is: {', '.join(known)}" if known else f" in {shown(value)}"
    return _Fault(f"{read} gave no {key!r}{what}")
