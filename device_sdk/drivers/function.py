"""A Python function as a sensor: the shortest way to a device without a driver."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from device_sdk._load import check_path, load_object
from device_sdk.drivers.base import Channel, Driver, Reading
from device_sdk.drivers.values import bad, check_unit, measured, shown
from device_sdk.errors import ArgumentError, BusError, DeviceSdkError, DriverError, ReadTimeoutError

__all__ = ["FunctionDriver"]


class FunctionDriver(Driver):
    """A Python function that returns a number, a dict, a dataclass or a tuple.

    ================================== ====================================================================
    the function returns               channels
    ================================== ====================================================================
    a number, text, bool or ``None``   one, called as in ``units``, or ``value``
    a dict                             its keys
    a dataclass object, a namedtuple   its fields
    another tuple or list              in order, called as in ``units``, or ``value0``, ``value1`` ...
    ================================== ====================================================================

    With ``units`` the channels are known beforehand: values that it does not name are left out, missing ones
    read as ``bad``. Without it ``open()`` calls the function once to learn the channels; their unit is ``1``,
    and later results must not have others. Duration of one ``read()``: that of the function.

    Args:
        function: a callable without parameters of its own, or its path ``"package.module:name"``.
        units: channel -> SenML unit, for example ``{"temperature": "Cel"}``; or the unit of the only value.
        arguments: arguments for the function, by name.
    """

    def __init__(
        self,
        function: str | Callable[..., object],
        units: Mapping[str, str] | str | None = None,
        *,
        arguments: Mapping[str, object] | None = None,
    ) -> None:
        if not callable(function) and not isinstance(function, str):
            raise ArgumentError(
                "function", f"expected a function or 'package.module:name', found {function!r:.80}"
            )
        self._function = function
        self._place = (
            function if isinstance(function, str) else getattr(function, "__qualname__", repr(function))
        )
        if not isinstance(units, Mapping | str | None):
            raise ArgumentError("units", f"expected a unit, or a table of units, found {shown(units)}")
        if not isinstance(arguments, Mapping | None):
            raise ArgumentError("arguments", f"expected a table, found {shown(arguments)}")
        given = {"value": units} if isinstance(units, str) else dict(units or {})
        self._units = {str(name): check_unit(unit, f"units.{name}") for name, unit in given.items()}
        self._arguments = dict(arguments or {})
        self._call: Callable[..., object] | None = None
        self._channels: tuple[Channel, ...] = ()
        if isinstance(function, str):
            check_path(function, "function")

    def channels(self) -> tuple[Channel, ...]:
        """Return the channels of ``units``, or those of the function's first result."""
        self._require_open()
        return self._channels

    def open(self) -> None:
        """Import the function; without ``units`` call it once.

        Raises: ArgumentError: there is no such function. Else as :meth:`read`.
        """
        if self._call is not None:
            return
        call = self._find()
        units = self._units or dict.fromkeys(self._values(call, ()), "1")
        if not units:
            raise DriverError(f"{self._place} returned nothing to name channels after: give it units")
        self._channels = tuple(
            Channel(name, unit, f"{name} of {self._place}") for name, unit in units.items()
        )
        self._call = call

    def read(self) -> tuple[Reading, ...]:
        """Call the function once.

        Raises: BusError, ReadTimeoutError: it raised OSError or TimeoutError. DriverError: it raised anything
        else, or returned a result that does not fit the channels. Our own errors pass unchanged.
        """
        call = self._require_open()
        now = time.time()
        names = tuple(channel.name for channel in self._channels)
        values = self._values(call, names)
        new = values.keys() - set(names)
        if new and not self._units:
            raise DriverError(f"{self._place} returned new values {sorted(new)}: name all of them in units")
        returned = f"the function returned {shown(', '.join(values))[1:-1] or 'nothing'}"
        if values.keys().isdisjoint(names):
            raise DriverError(f"{self._place}: {returned}; units names {', '.join(names)}")
        return tuple(
            measured(channel, values[channel.name], now)
            if channel.name in values
            else bad(channel, now, f"no value: {returned}")
            for channel in self._channels
        )

    def close(self) -> None:
        """Drop the function. It is not called."""
        self._call = None
        self._channels = ()

    def _require_open(self) -> Callable[..., object]:
        if self._call is None:
            raise DriverError(f"{self._place} is not open: call open() first, or use it in a with statement")
        return self._call

    def _find(self) -> Callable[..., object]:
        if not isinstance(self._function, str):
            return self._function
        try:
            found = load_object(self._function, "function")
        except ImportError as error:
            raise ArgumentError("function", f"{self._function} cannot be imported: {error}") from error
        if not callable(found):
            raise ArgumentError("function", f"{self._function} is no function but a {type(found).__name__}")
        return found  # type: ignore[no-any-return]

    def _values(self, call: Callable[..., object], names: Sequence[str]) -> dict[str, object]:
        """Call the function and return its values by channel; they are asked as well, so they may raise."""
        try:
            return self._named(call(**self._arguments), names)
        except (DeviceSdkError, KeyboardInterrupt, GeneratorExit):
            raise
        except TimeoutError as error:
            raise ReadTimeoutError(f"{self._place}: {_words(error)}") from error
        except OSError as error:
            raise BusError(f"{self._place}: {_words(error)}") from error
        except BaseException as error:  # also SystemExit: a function must not end the thread that reads it
            raise DriverError(f"{self._place}: {shown(error)}") from error

    def _named(self, result: Any, names: Sequence[str]) -> dict[str, object]:
        """Return the values of a result by channel; ``names`` are those of the channels known so far."""
        if isinstance(result, Mapping):
            return {str(name): value for name, value in result.items()}
        if dataclasses.is_dataclass(result) and not isinstance(result, type):
            return {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
        if hasattr(result, "_asdict"):
            return dict(result._asdict())
        if isinstance(result, tuple | list):
            names = names or [f"value{number}" for number in range(len(result))]
            if len(result) != len(names):
                raise DriverError(
                    f"{self._place}: expected {len(names)} values ({', '.join(names)}), found {shown(result)}"
                )
            return dict(zip(names, result, strict=True))
        if result is None:
            return dict.fromkeys(names or ("value",))
        if len(names) > 1:
            raise DriverError(f"{self._place}: expected {', '.join(names)}, found {shown(result)}")
        return {names[0] if names else "value": result}


def _words(error: OSError) -> str:
    return shown(error).partition(": ")[2]
