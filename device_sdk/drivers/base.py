"""The contract of a sensor driver: channels, one read for all values; and the table of drivers.

A driver is synchronous and belongs to one thread at a time, its caller's. Its life is
``open() -> read() ... -> close()``, and it may be opened again after ``close()``::

    with open_driver("host") as sensor:
        for reading in sensor.read():
            print(reading.channel, reading.value, reading.unit)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from device_sdk._load import load
from device_sdk.drivers.kinds import kind_hint
from device_sdk.errors import ArgumentError

__all__ = [
    "DRIVERS",
    "Channel",
    "Driver",
    "Quality",
    "Reading",
    "Value",
    "driver_class",
    "make_driver",
    "open_driver",
]

_AGING = "device_sdk.drivers.staleness:Aging"

Value = float | int | bool | str | None
"""The value of a channel. ``None`` only together with the quality ``"bad"``; never NaN or infinity."""

Quality = Literal["good", "uncertain", "bad"]
"""``good``: measured now. ``uncertain``: a real value of doubtful use, for example out of the sensor's
range. ``bad``: the channel could not be measured this time, the value is ``None``."""

DRIVERS: dict[str, str] = {
    "bme280": "device_sdk.drivers.circuitpython:BME280Driver",
    "circuitpython": "device_sdk.drivers.circuitpython:CircuitPythonDriver",
    "function": "device_sdk.drivers.function:FunctionDriver",
    "host": "device_sdk.drivers.host:HostDriver",
    "sht4x": "device_sdk.drivers.circuitpython:SHT4xDriver",
    "sysfs": "device_sdk.drivers.sysfs.driver:SysfsDriver",
}
"""Every driver: kind -> ``"module:Class"``. A module is imported when its kind is requested."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One quantity that a driver measures.

    ``name`` is unique within the driver and does not change; ``unit`` is a SenML unit name (RFC 8428 §12.1,
    RFC 8798 §3: ``"Cel"``, ``"Pa"``, ``"%RH"``, ``"B"``, ``"s"``, ``"count"``), ``"1"`` for a plain number.

    ``min`` and ``max``, in that unit, are the range that the sensor can measure, by its data sheet or the
    kernel; ``None``: not known. ``precision``: decimals that it resolves in that unit, negative for tens and
    more; ``None``: as many as a number has. :func:`~device_sdk.drivers.values.measured` applies them.
    """

    name: str
    unit: str
    description: str
    min: float | None = None
    max: float | None = None
    precision: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of one channel.

    ``time`` is the wall clock when it was measured, in seconds since 1970-01-01 UTC (``time.time()``). All
    readings of one ``read()`` carry the same time. ``reason`` says why a value is not good, for people.
    """

    channel: str
    value: Value
    unit: str
    time: float
    quality: Quality = "good"
    reason: str = ""


class Driver(ABC):
    """Base of all drivers. Not thread-safe: one thread at a time.

    ``unchanged_after``: seconds after which a number that stays exactly the same is not credible for what it
    measures, and ``uncertain``; ``None``: it may stay for ever. :func:`make_driver` applies it.
    """

    unchanged_after: ClassVar[float | None] = None

    @abstractmethod
    def channels(self) -> tuple[Channel, ...]:
        """Return the measured channels, in the order of ``read()``. Known after ``open()``.

        Raises: DriverError: the driver is not open.
        """

    @abstractmethod
    def open(self) -> None:
        """Find and prepare the device. Does nothing if it is open already.

        Raises: DeviceNotFoundError: no device at that address. DriverError: it does not behave as specified.
        """

    @abstractmethod
    def read(self) -> tuple[Reading, ...]:
        """Measure every channel in one transaction, in the order of ``channels()``.

        If only one channel cannot be measured, its reading has the quality ``"bad"``.

        Raises: DriverError, or one of its subclasses: there are no values this time. The driver stays open
        and may be read again.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the device. Does nothing if it is closed already; never raises."""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def driver_class(kind: str) -> type[Driver]:
    """Return the class behind a kind of :data:`DRIVERS`.

    Raises: ArgumentError: there is no such kind; the message lists the kinds and says what to write.
    """
    target = DRIVERS.get(kind)
    if target is None:
        there_is = ", ".join(sorted(DRIVERS))
        raise ArgumentError(
            "kind", f"no driver is called {kind!r}, there is: {there_is}{kind_hint(kind, DRIVERS)}"
        )
    found: type[Driver] = load(target)
    return found


def make_driver(kind: str, options: Mapping[str, object], unchanged_after: float | None = None) -> Driver:
    """Create the driver of this kind with its options; it is not opened.

    Args:
        kind: a key of :data:`DRIVERS`.
        options: arguments of the class.
        unchanged_after: in place of the class's; 0: numbers may stay the same for ever.

    Raises: ArgumentError: no such kind, no such time. TypeError: the driver has no such option.
    """
    if not (unchanged_after is None or (isinstance(unchanged_after, int | float) and unchanged_after >= 0)):
        raise ArgumentError("unchanged_after", f"expected seconds, 0 or more, found {unchanged_after!r:.80}")
    found = driver_class(kind)
    driver = found(**options)
    after = found.unchanged_after if unchanged_after is None else unchanged_after
    if not after:
        return driver
    aging: Driver = load(_AGING)(driver, after)
    return aging


def open_driver(kind: str, **options: object) -> Driver:
    """Create the driver of this kind with its options, open it and return it.

    An option ``unchanged_after`` is that of :func:`make_driver`.

    Raises: ArgumentError: no such kind. TypeError: the driver has no such option. DriverError: what
    :meth:`Driver.open` raises.
    """
    unchanged_after = options.pop("unchanged_after", None)
    driver = make_driver(kind, options, unchanged_after)  # type: ignore[arg-type] # it is checked there
    driver.open()
    return driver
