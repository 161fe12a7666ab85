"""Any CircuitPython sensor driver on one of our I2C buses: about 400 chips, maintained by others.

The driver gets our own bus object, so Adafruit's detection of the board is not used: a board that Blinka does
not know, or a fake bus, works as well. The packages come with the extra ``blinka``.

Source of the property names and units: CircuitPython design guide, "Sensor properties and units".
"""

from __future__ import annotations

import inspect
import numbers
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from device_sdk._load import load_object
from device_sdk._text import did_you_mean
from device_sdk.drivers.base import Channel, Driver, Reading
from device_sdk.drivers.bus import I2CBus, check_bus_name, close_bus, open_bus
from device_sdk.drivers.bus.i2c import NO_ACKNOWLEDGE
from device_sdk.drivers.values import measured
from device_sdk.errors import (
    ArgumentError,
    BusError,
    ChecksumError,
    DeviceNotFoundError,
    DeviceSdkError,
    DriverError,
    MissingDependency,
    ReadTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    ChannelTable = Sequence[str] | Mapping[str, Mapping[str, object] | Sequence[Mapping[str, object]]]

__all__ = ["STANDARD_PROPERTIES", "BME280Driver", "CircuitPythonDriver", "PropertyChannel", "SHT4xDriver"]


@dataclass(frozen=True, slots=True)
class PropertyChannel:
    """The channel of one number of a property: ``value * scale`` in ``unit``.

    ``min``, ``max`` and ``precision`` as in :class:`Channel`, in that unit.
    """

    name: str
    unit: str
    scale: float = 1.0
    min: float | None = None
    max: float | None = None
    precision: int | None = None
    description: str = ""

    def channel(self, default: str) -> Channel:
        """Return the driver's channel; ``default``: its description if the table has none."""
        description = self.description or default
        return Channel(self.name, self.unit, description, self.min, self.max, self.precision)

    def reading(self, channel: Channel, value: object, time: float) -> Reading:
        """Make the reading out of the property's value."""
        if self.scale != 1 and isinstance(value, numbers.Real) and not isinstance(value, _TRUTH):
            value = _scaled(float(value), self.scale)
        return measured(channel, value, time)


def _vector(name: str, unit: str, scale: float = 1.0) -> tuple[PropertyChannel, ...]:
    return tuple(PropertyChannel(f"{name}.{axis}", unit, scale) for axis in "xyz")


STANDARD_PROPERTIES: dict[str, tuple[PropertyChannel, ...]] = {
    "temperature": (PropertyChannel("temperature", "Cel"),),
    "relative_humidity": (PropertyChannel("humidity", "%RH"),),
    "humidity": (PropertyChannel("humidity", "%RH"),),
    "pressure": (PropertyChannel("pressure", "Pa", 100),),
    "CO2": (PropertyChannel("co2", "ppm"),),
    "eCO2": (PropertyChannel("eco2", "ppm"),),
    "TVOC": (PropertyChannel("tvoc", "ppm", 0.001),),
    "gas": (PropertyChannel("gas", "Ohm"),),
    "lux": (PropertyChannel("illuminance", "lx"),),
    "light": (PropertyChannel("light", "1"),),
    "proximity": (PropertyChannel("proximity", "1"),),
    "distance": (PropertyChannel("distance", "m", 0.01),),
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
hPa, A for mA, m for cm, kg for g, T for µT, ppm for ppb."""

_TRUTH: type = bool  # is a number to Python; it has no scale

# How the constructors of CircuitPython drivers call the address.
_ADDRESS_PARAMETERS = ("address", "addr", "device_address", "i2c_address", "i2c_addr")

# CircuitPython drivers raise RuntimeError for everything; the words identify the fault.
_RUNTIME_ERRORS: tuple[tuple[tuple[str, ...], type[DriverError]], ...] = (
    (("crc", "checksum"), ChecksumError),
    (("timeout", "timed out"), ReadTimeoutError),
)


class CircuitPythonDriver(Driver):
    """Any CircuitPython driver of an I2C sensor, by the path of its class.

    One ``read()`` asks for each property once, with the bus locked. ``open()`` makes the driver object anew,
    so a sensor that was unplugged is set up again by ``close()`` and ``open()``.

    Units: those of the table ``STANDARD_PROPERTIES``; a property that is not in it needs a unit. Duration of
    one ``read()``: the chip's measuring time, 10 to 500 ms for most; the bus is locked for that time.

    Args:
        driver: ``"adafruit_bme280.basic:Adafruit_BME280_I2C"``.
        bus: ``"i2c-1"``, ``"fake:module:name"``, or a bus object.
        address: 7 bits; ``None``: the driver's own default.
        channels: properties to read: a list of names, or a table ``{"pressure": {"unit": "hPa"}}`` with the
            keys of :class:`PropertyChannel`; a property that gives several numbers has a list of such tables.
            ``None``: every standard property that the class has.
        arguments: further arguments for the constructor, by name.
        settings: attributes set after each construction, for example ``{"sea_level_pressure": 1020}``.

    Raises: ArgumentError: a wrong argument; a wrong name of a property or setting is found by ``open()``.
    """

    def __init__(
        self,
        driver: str,
        bus: str | I2CBus = "i2c-1",
        address: int | None = None,
        *,
        channels: ChannelTable | None = None,
        arguments: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        if isinstance(bus, str):
            check_bus_name(bus)
        if address is not None and not 0x08 <= address <= 0x77:
            raise ArgumentError("address", f"expected 0x08 to 0x77, found {address:#x}")
        self._path = driver
        self._bus_name = bus
        self._address = address
        self._table = None if channels is None else _parse_channels(channels)
        self._arguments = dict(arguments or {})
        self._settings = dict(settings or {})
        where = bus if isinstance(bus, str) else bus.name
        self._place = f"{driver} on {where}" + ("" if address is None else f" at 0x{address:02x}")
        self._advice = "check the wiring and the address"
        self._sources: dict[str, tuple[PropertyChannel, ...]] = {}
        self._channels: tuple[Channel, ...] = ()
        self._chip: Any = None
        self._bus: I2CBus | None = None
        self._release = ExitStack()

    def channels(self) -> tuple[Channel, ...]:
        """Return the channels of the properties, in the order of the table."""
        self._require_open()
        return self._channels

    def open(self) -> None:
        """Import the CircuitPython driver, open the bus and construct the driver on it.

        Raises: MissingDependency: a package is not installed. DeviceNotFoundError: nothing answers at the
        address, or another chip does. BusError, ChecksumError, DriverError: the bus or the chip failed.
        ArgumentError: the class, an argument, a property or a setting does not exist.
        """
        if self._chip is not None:
            return
        factory = self._import()
        with ExitStack() as undo:
            if isinstance(self._bus_name, str):
                bus = open_bus(self._bus_name)
                undo.callback(close_bus, bus)
            else:
                bus = self._bus_name
            with bus.locked():
                chip = self._construct(factory, bus)
            self._sources = self._find_properties(chip)
            self._channels = tuple(
                source.channel(f"{name} of {self._place}")
                for name, sources in self._sources.items()
                for source in sources
            )
            self._bus, self._chip = bus, chip
            self._release = undo.pop_all()

    def read(self) -> tuple[Reading, ...]:
        """Read every property once.

        Raises: ChecksumError: the chip's CRC did not match. BusError, ReadTimeoutError: the bus failed.
        DriverError: anything else that the CircuitPython driver raised; the message has its words.
        """
        bus = self._require_open()
        with bus.locked(), _translated(self._place):
            now = time.time()
            values = {name: getattr(self._chip, name) for name in self._sources}
        channels = iter(self._channels)
        return tuple(
            source.reading(next(channels), value, now)
            for name, sources in self._sources.items()
            for source, value in self._pairs(name, sources, values[name])
        )

    def close(self) -> None:
        """Drop the driver object and release the bus."""
        self._chip = None
        self._bus = None
        self._release.close()

    def _require_open(self) -> I2CBus:
        if self._bus is None:
            raise DriverError(f"{self._place} is not open: call open() first, or use it in a with statement")
        return self._bus

    def _import(self) -> Any:
        try:
            return load_object(self._path, "driver")
        except ArgumentError:
            raise
        except ModuleNotFoundError as error:
            raise self._missing(error.name or "a module") from error
        except Exception as error:
            # Blinka looks for pins when it is imported, and fails in many ways where there are none.
            raise DriverError(
                f"importing {self._path} failed: {type(error).__name__}: {error}; if Blinka does not know"
                " this board, set BLINKA_OS_AGNOSTIC=1 in the environment"
            ) from error

    def _missing(self, module: str) -> Exception:
        top = self._path.partition(":")[0].partition(".")[0]
        if module == top and top.startswith("adafruit_"):
            # The driver adafruit_sht31d is in the package adafruit-circuitpython-sht31d, and so on. That is a
            # guess from the user's word: no command to copy, for anybody can register a name that is free.
            package = top.replace("adafruit_", "adafruit-circuitpython-", 1).replace("_", "-")
            return MissingDependency(
                f"{top} is not installed (look on pypi.org for a package by Adafruit Industries, mostly "
                f"{package}) and, like every CircuitPython driver,",
                "blinka",
            )
        if module == top or module.startswith(f"{top}."):
            return ArgumentError("driver", f"no module is called {module!r}")
        return MissingDependency(f"{self._path} imports {module}, which", "blinka")

    def _construct(self, factory: Any, bus: I2CBus) -> Any:
        parameters = inspect.signature(factory).parameters
        arguments = dict(self._arguments)
        if self._address is not None:
            name = next((name for name in _ADDRESS_PARAMETERS if name in parameters), None)
            if name is None:
                raise ArgumentError("address", f"{self._path} takes no address, only {', '.join(parameters)}")
            arguments[name] = self._address
        try:
            inspect.signature(factory).bind(bus, **arguments)
        except TypeError as error:
            raise ArgumentError("arguments", f"{self._path}: {error}") from None
        with _translated(self._place, (ValueError, RuntimeError), self._advice):
            chip = factory(bus, **arguments)
        for name, value in self._settings.items():
            if not _has_value(chip, name):
                hint = did_you_mean(name, dir(chip))
                raise ArgumentError("settings", f"{self._path} has no {name!r}{hint}")
            with _translated(f"{self._place}, setting {name}"):
                setattr(chip, name, value)
        return chip

    def _find_properties(self, chip: Any) -> dict[str, tuple[PropertyChannel, ...]]:
        if self._table is not None:
            for name in self._table:
                if not _has_value(chip, name):
                    hint = did_you_mean(name, dir(chip))
                    raise ArgumentError("channels", f"{self._path} has no property {name!r}{hint}")
            return self._table
        found: dict[str, tuple[PropertyChannel, ...]] = {}
        for name, sources in STANDARD_PROPERTIES.items():
            # Some drivers have both humidity and relative_humidity: one value, one channel.
            if _has_value(chip, name) and sources not in found.values():
                found[name] = sources
        if not found:
            raise ArgumentError(
                "channels", f"{self._path} has none of the standard properties: say which to read"
            )
        return found

    def _pairs(
        self, name: str, sources: tuple[PropertyChannel, ...], value: Any
    ) -> list[tuple[PropertyChannel, object]]:
        if len(sources) == 1 and not isinstance(value, tuple | list):
            return [(sources[0], value)]
        values = [None] * len(sources) if value is None else value
        if not isinstance(values, tuple | list) or len(values) != len(sources):
            raise DriverError(
                f"{self._place}: {name} has {len(sources)} channels and gave {value!r:.80}; give it a list"
                " of as many channels as it has numbers"
            )
        return list(zip(sources, values, strict=True))


@dataclass(frozen=True, slots=True)
class _Chip:
    driver: str
    addresses: tuple[int, ...]
    properties: dict[str, tuple[PropertyChannel, ...]]


class _ChipDriver(CircuitPythonDriver):
    """A chip that needs no configuration but the bus; a subclass only sets ``chip``."""

    chip: ClassVar[_Chip]

    def __init__(self, bus: str | I2CBus = "i2c-1", address: int | None = None) -> None:
        possible = self.chip.addresses
        if address is not None and address not in possible:
            raise ArgumentError("address", f"expected {_listed(possible)}, found {address:#x}")
        super().__init__(self.chip.driver, bus, possible[0] if address is None else address)
        self._table = self.chip.properties
        self._advice += f", which is {_listed(possible)} for this chip"

    def _missing(self, module: str) -> Exception:
        # The package of each of these chips comes with the extra.
        return MissingDependency(f"{module} is not installed; this driver", "blinka")


class BME280Driver(_ChipDriver):
    """Bosch BME280 on I2C: temperature, relative humidity, pressure.

    Units: temperature ``Cel`` (-40 to 85, resolution 0.01), humidity ``%RH`` (0 to 100, 0.008), pressure
    ``Pa`` (30000 to 110000, 0.18). Duration of one ``read()``: about 0.15 s.

    Args:
        bus: ``"i2c-1"``, ``"fake:module:name"``, or a bus object.
        address: 0x76 (default, SDO low) or 0x77 (SDO high, Adafruit's and SparkFun's boards).

    Source: Bosch BST-BME280-DS001 rev. 1.23, sections 1.2 to 1.4 and 6.2.
    """

    chip = _Chip(
        "adafruit_bme280.basic:Adafruit_BME280_I2C",
        (0x76, 0x77),
        {
            "temperature": (PropertyChannel("temperature", "Cel", 1, -40, 85),),
            "relative_humidity": (PropertyChannel("humidity", "%RH", 1, 0, 100),),
            "pressure": (PropertyChannel("pressure", "Pa", 100, 30_000, 110_000),),
        },
    )


class SHT4xDriver(_ChipDriver):
    """Sensirion SHT40, SHT41, SHT43, SHT45 on I2C: temperature, relative humidity.

    Units: temperature ``Cel`` (-40 to 125, resolution 0.01), humidity ``%RH`` (0 to 100, 0.01). Both come
    from one measurement and have a CRC. Duration of one ``read()``: about 11 ms.

    Args:
        bus: ``"i2c-1"``, ``"fake:module:name"``, or a bus object.
        address: 0x44 (default), 0x45 or 0x46, by the letter in the part number.

    Source: Sensirion SHT4x datasheet, sections 2 to 4.
    """

    chip = _Chip(
        "adafruit_sht4x:SHT4x",
        (0x44, 0x45, 0x46),
        {
            "measurements": (
                PropertyChannel("temperature", "Cel", 1, -40, 125),
                PropertyChannel("humidity", "%RH", 1, 0, 100),
            )
        },
    )


def _has_value(chip: Any, name: str) -> bool:
    """Return whether the chip has this attribute, not a method, without reading it from the device."""
    missing = object()
    found = inspect.getattr_static(chip, name, missing)
    return found is not missing and not callable(found)


@contextmanager
def _translated(place: str, absent: tuple[type[Exception], ...] = (), advice: str = "") -> Iterator[None]:
    """Translate errors of a CircuitPython driver into ours; ``absent``: those that mean "no chip"."""
    try:
        yield
    except DeviceSdkError:
        raise
    except OSError as error:
        failed = BusError(f"{place}: {error.strerror or error}")
        failed.errno = error.errno
        raise failed from error
    except Exception as error:
        text = str(error).lower()
        for words, meaning in _RUNTIME_ERRORS:
            if isinstance(error, RuntimeError) and any(word in text for word in words):
                raise meaning(f"{place}: {error}") from error
        if isinstance(error, absent):
            # The usual probe hides every fault of the bus behind "no device".
            hidden = error.__context__
            if isinstance(hidden, BusError) and hidden.errno not in NO_ACKNOWLEDGE:
                raise hidden from None
            raise DeviceNotFoundError(f"{place}: {error}; {advice}") from error
        raise DriverError(f"{place}: {type(error).__name__}: {error}") from error


def _parse_channels(channels: ChannelTable) -> dict[str, tuple[PropertyChannel, ...]]:
    if isinstance(channels, str) or not isinstance(channels, Mapping | Sequence) or not channels:
        raise ArgumentError("channels", f"expected a list or a table of properties, found {channels!r:.80}")
    wanted = channels if isinstance(channels, Mapping) else {name: {} for name in channels}
    table: dict[str, tuple[PropertyChannel, ...]] = {}
    for name, given in wanted.items():
        _check_channel(name, given)
        standard = STANDARD_PROPERTIES.get(name, ())
        if isinstance(given, Mapping):
            if len(standard) > 1 and not given:
                table[name] = standard
                continue
            given = [given]
        table[name] = tuple(
            _parse_channel(name, keys, standard[0] if len(standard) == len(given) == 1 else None)
            for keys in given
        )
    names = [source.name for sources in table.values() for source in sources]
    if len(set(names)) != len(names):
        raise ArgumentError("channels", f"two channels have one name: {', '.join(names)}")
    return table


def _check_channel(name: object, given: object) -> None:
    tables = given if isinstance(given, list | tuple) else [given]
    if not (isinstance(name, str) and tables and all(isinstance(table, Mapping) for table in tables)):
        raise ArgumentError(
            f"channels.{name}",
            f"expected a table, or a list of tables for several numbers, found {given!r:.80}",
        )


def _parse_channel(
    property_name: str, keys: Mapping[str, object], standard: PropertyChannel | None
) -> PropertyChannel:
    known = list(inspect.signature(PropertyChannel).parameters)
    for key, value in keys.items():
        where = f"channels.{property_name}.{key}"
        if key not in known:
            raise ArgumentError(where, f"there is: {', '.join(known)}{did_you_mean(key, known)}")
        expected: tuple[type, ...] = (int, float) if key in ("scale", "min", "max") else (str,)
        if not isinstance(value, expected) or isinstance(value, bool):
            raise ArgumentError(where, f"expected {expected[-1].__name__}, found {value!r:.80}")
    if "unit" not in keys:
        if standard is None:
            raise ArgumentError(
                f"channels.{property_name}", f"{property_name!r} has no standard unit, say which: unit = ..."
            )
        # A given unit has a scale of its own; without a given unit, the standard scale applies.
        keys = {"unit": standard.unit, "scale": standard.scale, **keys}
    arguments: dict[str, Any] = {"name": standard.name if standard else property_name, **keys}
    return PropertyChannel(**arguments)


def _scaled(number: float, scale: float) -> float:
    # 57 / 100 is 0.57, where 57 * 0.01 is 0.5700000000000001.
    inverse = round(1 / scale) if abs(scale) < 1 and scale else 0
    return number / inverse if inverse and 1 / inverse == scale else number * scale


def _listed(addresses: tuple[int, ...]) -> str:
    return " or ".join(f"0x{address:02x}" for address in addresses)
