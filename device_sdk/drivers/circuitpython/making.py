"""Imports the class of a CircuitPython driver, and makes and sets up the object of a chip."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

from device_sdk._load import load_object
from device_sdk._text import did_you_mean
from device_sdk.drivers.bus import I2CBus
from device_sdk.drivers.circuitpython.faults import is_absent, translated
from device_sdk.drivers.circuitpython.identify import found_instead
from device_sdk.drivers.kinds import KERNEL
from device_sdk.drivers.values import shown
from device_sdk.errors import ArgumentError, DriverError, MissingDependency

__all__ = [
    "Call",
    "Maker",
    "check_address",
    "check_call",
    "has_value",
    "listed",
    "parse_calls",
    "parse_table",
    "public_names",
    "resolved",
]

# How the constructors of CircuitPython drivers call the address.
_ADDRESS_PARAMETERS = ("address", "addr", "device_address", "i2c_address", "i2c_addr")

# A word in the first parameter of a constructor -> what it wants instead of an I2C bus.
_OTHER_WIRES = {
    "pin": "a GPIO pin",
    "digitalinout": "a GPIO pin",
    "uart": "a serial line",
    "spi": "an SPI bus",
    "onewirebus": "a 1-wire bus",
}
_BY_FUNCTION = "the kind 'function' reads it by a function of yours that makes its object"

_CONSTANT = re.compile(r"([a-z_]\w*)(?:\.\w+)*:[A-Za-z_][\w.]*")


class Call(NamedTuple):
    """A method of the chip's object, with its arguments by name."""

    name: str
    arguments: Mapping[str, object] = {}


def check_address(address: object) -> None:
    """Raise ArgumentError for what is neither an address of 7 bits that chips may have, nor ``None``."""
    is_int = isinstance(address, int) and not isinstance(address, bool)
    if address is not None and not (is_int and 0x08 <= address <= 0x77):  # type: ignore[operator]
        found = f"{address:#x}" if is_int else shown(address)
        raise ArgumentError("address", f"expected 0x08 to 0x77, found {found}")


def parse_table(option: str, table: object) -> dict[str, object]:
    """Return the arguments or settings of a user, by name. Raises: ArgumentError: they are no table."""
    if table is None:
        return {}
    if not isinstance(table, Mapping) or not all(isinstance(name, str) for name in table):
        raise ArgumentError(option, f"expected a table of names and values, found {shown(table)}")
    return dict(table)


def parse_calls(option: str, calls: object) -> tuple[Call, ...]:
    """Return the calls in a user's list: names of methods, or tables with ``call`` and ``arguments``.

    Raises: ArgumentError: the list is wrong.
    """
    if isinstance(calls, str) or not isinstance(calls, Sequence):
        raise ArgumentError(option, f"expected a list of methods, found {calls!r:.80}")
    return tuple(_parse_call(option, each) for each in calls)


def _parse_call(option: str, given: object) -> Call:
    if isinstance(given, str) and given:
        return Call(given)
    if isinstance(given, Mapping) and given.keys() <= {"call", "arguments"}:
        name, arguments = given.get("call"), given.get("arguments", {})
        if isinstance(name, str) and name and isinstance(arguments, Mapping):
            return Call(name, arguments)
    raise ArgumentError(
        option, f"expected the name of a method, or {{call = name, arguments = {{...}}}}, found {given!r:.80}"
    )


class Maker:
    """Makes the object of a chip: imports its class, calls it, sets attributes, calls methods to start it.

    ``address``: that of the chip, also if it is the driver's default; ``None``: not known.

    Args:
        path: ``"package.module:Class"``.
        bus_name: for messages.
        address: 7 bits; ``None``: the driver's own default.
        arguments, settings, start: as of :class:`CircuitPythonDriver`.
        addresses: those that the chip can have, for a driver whose package comes with the extra ``blinka``.
    """

    def __init__(
        self,
        path: str,
        bus_name: str,
        address: int | None,
        *,
        arguments: Mapping[str, object],
        settings: Mapping[str, object],
        start: tuple[Call, ...],
        addresses: tuple[int, ...] = (),
    ) -> None:
        self.path = path
        self._bus_name = bus_name
        self.address = self._address = address
        self._arguments = dict(arguments)
        self._settings = dict(settings)
        self._start = start
        self._addresses = addresses

    @property
    def place(self) -> str:
        """What is read, for messages: the driver, the bus, and the address as far as it is known."""
        at = "" if self.address is None else f" at 0x{self.address:02x}"
        return f"{self.path} on {self._bus_name}{at}"

    @property
    def starts(self) -> bool:
        """Whether methods are called to start the chip."""
        return bool(self._start)

    def load(self) -> Any:
        """Return the class.

        Raises: MissingDependency, ArgumentError: there is none, or it is not for I2C. DriverError: importing
        it failed.
        """
        try:
            factory = load_object(self.path, "driver")
        except ArgumentError:
            raise
        except ModuleNotFoundError as error:
            raise self._missing(error.name or "a module") from error
        except Exception as error:
            # Blinka looks for pins when it is imported, and fails in many ways where there are none.
            raise DriverError(
                f"importing {self.path} failed: {type(error).__name__}: {error}; if Blinka does not know"
                " this board, set BLINKA_OS_AGNOSTIC=1 in the environment"
            ) from error
        try:
            parameters = inspect.signature(factory).parameters
        except (TypeError, ValueError) as error:
            raise ArgumentError("driver", f"{self.path} is no class of a driver: {error}") from None
        self._check_wires(next(iter(parameters.values()), None))
        if self._address is None:
            named = [self._arguments.get(name, parameters[name].default) for name in _address_of(parameters)]
            self.address = next((each for each in named if isinstance(each, int)), None)
        return factory

    def make(self, factory: Any, bus: I2CBus) -> Any:
        """Make the object on a bus that is locked, set it up and start it.

        Raises: DriverError, DeviceNotFoundError: the chip is not there or does not work. ArgumentError: an
        argument, a setting or a method does not exist.
        """
        parameters = inspect.signature(factory).parameters
        arguments = resolved(self._arguments, self.path, "arguments")
        if self._address is not None:
            names = _address_of(parameters)
            if not names:
                raise ArgumentError("address", f"{self.path} takes no address, only {', '.join(parameters)}")
            arguments[names[0]] = self._address
        try:
            inspect.signature(factory).bind(bus, **arguments)
        except TypeError as error:
            raise ArgumentError("arguments", f"{self.path}: {error}") from None
        advice = partial(found_instead, bus, self.address, self._addresses)
        with translated(self.place, is_absent, advice), self._without_bus(bus):
            chip = factory(bus, **arguments)
        for name, value in resolved(self._settings, self.path, "settings").items():
            if not has_value(chip, name):
                raise ArgumentError("settings", _no(self.path, name, chip))
            with translated(f"{self.place}, setting {name}"):
                setattr(chip, name, value)
        for call in self._start:
            check_call(chip, call, self.path, "start")
            with translated(f"{self.place}, {call.name}()"):
                getattr(chip, call.name)(**resolved(call.arguments, self.path, "start"))
        return chip

    def _check_wires(self, first: inspect.Parameter | None) -> None:
        """Raise ArgumentError if the class wants a pin, or another bus than I2C."""
        if first is None:
            raise ArgumentError("driver", f"{self.path} takes no I2C bus, nor anything else")
        annotation = inspect.formatannotation(first.annotation)
        words = {*first.name.lower().split("_"), *re.findall(r"\w+", annotation.lower())}
        wires = [what for word, what in _OTHER_WIRES.items() if word in words]
        if wires and "i2c" not in words:
            raise ArgumentError("driver", self._other_wires(f"{wires[0]}, its {first.name!r}"))

    @contextmanager
    def _without_bus(self, bus: I2CBus) -> Iterator[None]:
        """Raise ArgumentError for a class that takes our bus for something else."""
        try:
            yield
        except (AttributeError, TypeError) as error:
            if type(bus).__name__ not in str(error):
                raise
            raise ArgumentError("driver", self._other_wires(f"something else ({error})")) from error

    def _other_wires(self, what: str) -> str:
        module = self.path.partition(":")[0].partition(".")[0]
        advice = KERNEL.get(module.removeprefix("adafruit_"), _BY_FUNCTION)
        return f"{self.path} wants {what}, and not an I2C bus; {advice}"

    def _missing(self, module: str) -> Exception:
        if self._addresses:
            return MissingDependency(f"{module} is not installed; this driver", "blinka")
        top = self.path.partition(":")[0].partition(".")[0]
        if module == top and top.startswith("adafruit_"):
            # The driver adafruit_sht31d is in the package adafruit-circuitpython-sht31d, and so on. That is a
            # guess from the user's word: no command to copy, for anybody can register a name that is free.
            package = top.replace("adafruit_", "adafruit-circuitpython-", 1).replace("_", "-")
            look = f"look on pypi.org for a package by Adafruit Industries, mostly {package}"
            if find_spec("adafruit_blinka") is not None:
                return MissingDependency(self.path, "blinka", f"there is no module {top}; {look}")
            return MissingDependency(
                f"{top} is not installed ({look}) and, like every CircuitPython driver,", "blinka"
            )
        if module == top or module.startswith(f"{top}."):
            return ArgumentError("driver", f"no module is called {module!r}")
        return MissingDependency(f"{self.path} imports {module}, which", "blinka")


def _address_of(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    return [name for name in _ADDRESS_PARAMETERS if name in parameters]


def has_value(chip: Any, name: str) -> bool:
    """Return whether the chip has this attribute, not a method, without reading it from the device."""
    missing = object()
    found = inspect.getattr_static(chip, name, missing)
    return found is not missing and not callable(found)


def public_names(thing: object) -> list[str]:
    """Return the names of an object that are for its users."""
    return [name for name in dir(thing) if not name.startswith("_")]


def check_call(chip: Any, call: Call, path: str, option: str) -> None:
    """Raise ArgumentError if the chip's object has no such method, or the method not these arguments."""
    method = inspect.getattr_static(chip, call.name, None)
    if not (callable(method) or isinstance(method, staticmethod | classmethod)):
        raise ArgumentError(option, _no(path, call.name, chip, "method"))
    try:
        inspect.signature(getattr(chip, call.name)).bind(**call.arguments)
    except TypeError as error:
        raise ArgumentError(option, f"{path}, {call.name}(): {error}") from None
    except ValueError:
        pass  # it has no signature that could be read


def resolved(values: Mapping[str, object], path: str, option: str) -> dict[str, Any]:
    """Return values with constants of the driver's package in place of their paths.

    ``"adafruit_lps2x:Rate.LPS25_RATE_1_HZ"`` is such a path.

    Raises: ArgumentError: there is no such constant.
    """
    top = path.partition(":")[0].partition(".")[0]
    found: dict[str, Any] = {}
    for name, value in values.items():
        match = _CONSTANT.fullmatch(value) if isinstance(value, str) else None
        found[name] = _constant(str(value), option) if match and match[1] == top else value
    return found


def _constant(path: str, option: str) -> object:
    first, *rest = path.partition(":")[2].split(".")
    try:
        value: object = load_object(f"{path.partition(':')[0]}:{first}", option)
    except ImportError as error:
        raise ArgumentError(option, f"{path} cannot be imported: {error}") from error
    for name in rest:
        if not hasattr(value, name):
            raise ArgumentError(
                option, f"{path}: there is no {name!r}{did_you_mean(name, public_names(value))}"
            )
        value = getattr(value, name)
    return value


def listed(addresses: tuple[int, ...]) -> str:
    """Return addresses as people write them."""
    return " or ".join(f"0x{address:02x}" for address in addresses)


def _no(path: str, name: str, chip: Any, what: str = "") -> str:
    return f"{path} has no {what and what + ' '}{name!r}{did_you_mean(name, public_names(chip))}"
