"""The life of a chip behind a CircuitPython driver, from ``open()`` to ``close()``."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, ClassVar

from device_sdk._load import check_path
from device_sdk.drivers.base import Channel, Driver, Reading
from device_sdk.drivers.bus import I2CBus, check_bus_name, close_bus, open_bus
from device_sdk.drivers.circuitpython.channels import Source, parse_channels
from device_sdk.drivers.circuitpython.faults import translated
from device_sdk.drivers.circuitpython.guard import GuardedBus
from device_sdk.drivers.circuitpython.making import Maker, check_address, parse_calls, parse_table
from device_sdk.drivers.circuitpython.presets import preset_for
from device_sdk.drivers.circuitpython.ready import Ready
from device_sdk.drivers.circuitpython.sources import Reader, condition, standard_sources
from device_sdk.drivers.circuitpython.watch import Watch, parse_watch
from device_sdk.drivers.values import shown
from device_sdk.errors import ArgumentError, DriverError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from device_sdk.drivers.circuitpython.channels import ChannelTable

__all__ = ["CircuitPythonDriver"]


class CircuitPythonDriver(Driver):
    """Any CircuitPython driver of an I2C sensor, by the path of its class.

    One ``read()`` asks for each property once, with the bus locked. ``open()`` makes the driver object anew,
    and so does a ``read()`` after a fault of the bus: a sensor that was unplugged is set up again before it
    is believed. A property that raises, or gives what cannot be published, costs its own channels; a chip
    that does not answer costs the sample.

    Units: those of the table ``STANDARD_PROPERTIES``; a property that is not in it needs a unit, and so does
    one whose unit differs from driver to driver (current, power), if the driver is not known. Duration of one
    ``read()``: the chip's measuring time, 10 to 500 ms for most; the bus is locked for that time.

    Args:
        driver: ``"adafruit_bme280.basic:Adafruit_BME280_I2C"``.
        bus: ``"i2c-1"``, ``"fake:module:name"``, or a bus object.
        address: 7 bits; ``None``: the driver's own default.
        channels: properties and methods to read: a list of names, or a table ``{"pressure": {"unit":
            "hPa"}}`` with the keys of :class:`PropertyChannel`, and ``read``, ``arguments``, ``via``,
            ``values`` of :class:`~device_sdk.drivers.circuitpython.channels.Source`; a result that holds
            several values has a list of such tables. ``None``: every standard property that the class
            measures.
        arguments: further arguments for the constructor, by name. A text ``"module:NAME"`` in the driver's
            own package stands for that constant, in all arguments and settings.
        settings: attributes set after each construction, for example ``{"sea_level_pressure": 1020}``.
        start: methods called after that, in order: names, or ``{"call": name, "arguments": {...}}``.
        ready: property or method that is true when there is a new measurement. Until then ``read()`` returns
            the last readings again, with their time; before the first measurement it waits.
        ready_within: seconds within which ``ready`` must come true; then it is a ReadTimeoutError.
        watch: properties and registers of one byte (numbers) that keep the value they have after ``start``.
            Another value means that the chip has restarted: the read fails, the next one sets it up anew.

    ``start``, ``ready``, ``watch`` and the ranges of channels that are not given are those of ``PRESETS``,
    for chips that are often used.

    Raises: ArgumentError: a wrong argument; a wrong name of a property or setting is found by ``open()``.
    """

    addresses: ClassVar[
        tuple[int, ...]
    ] = ()  # that the chip can have, if its driver's package is in the extra

    def __init__(
        self,
        driver: str,
        bus: str | I2CBus = "i2c-1",
        address: int | None = None,
        *,
        channels: ChannelTable | None = None,
        arguments: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
        start: Sequence[str | Mapping[str, object]] | None = None,
        ready: str | None = None,
        ready_within: float = 10.0,
        watch: Sequence[str | int] | None = None,
    ) -> None:
        if isinstance(bus, str):
            check_bus_name(bus)
        elif not isinstance(bus, I2CBus):
            raise ArgumentError("bus", f"expected the name of a bus or an I2CBus, found {shown(bus)}")
        check_address(address)
        if not isinstance(driver, str):
            raise ArgumentError("driver", f"expected 'package.module:Class', found {shown(driver)}")
        self._preset = preset_for(driver)
        if start is None:
            start, ready = self._preset.start, ready or self._preset.ready
        self._bus_name = bus
        self._sources: tuple[Source, ...] = () if channels is None else parse_channels(channels, driver)
        self._maker = Maker(
            driver,
            bus if isinstance(bus, str) else bus.name,
            address,
            arguments=parse_table("arguments", arguments),
            settings=parse_table("settings", settings),
            start=parse_calls("start", start),
            addresses=self.addresses,
        )
        self._ready = None if ready is None else Ready(ready, ready_within)
        self._is_ready: Callable[[], bool] = lambda: True
        self._watched = parse_watch(self._preset.watch if watch is None else watch)
        self._watch: Watch | None = None
        self._reader: Reader | None = None
        self._bus: GuardedBus | None = None
        self._release = ExitStack()
        check_path(driver, "driver")

    def channels(self) -> tuple[Channel, ...]:
        """Return the channels of the properties, in the order of the table."""
        return self._require_open()[1].channels

    def open(self) -> None:
        """Import the CircuitPython driver, open the bus and construct the driver on it.

        Raises: MissingDependency: a package is not installed. DeviceNotFoundError: nothing answers at the
        address, or another chip does. BusError, ChecksumError, DriverError: the bus or the chip failed.
        ArgumentError: the class, an argument, a property, a setting or a method does not exist.
        """
        if self._reader is not None:
            return
        self._maker.load()
        with ExitStack() as undo:
            if isinstance(self._bus_name, str):
                bus = open_bus(self._bus_name)
                undo.callback(close_bus, bus)
            else:
                bus = self._bus_name
            guarded = GuardedBus(bus)
            self._set_up(guarded)
            self._bus = guarded
            self._release = undo.pop_all()

    def read(self) -> tuple[Reading, ...]:
        """Read every property once.

        Raises: ChecksumError: the chip's CRC did not match. BusError: the bus failed. ReadTimeoutError: it
        takes too long. DriverError: anything else that the CircuitPython driver raised, with its words.
        """
        bus, _ = self._require_open()
        if bus.is_lost or (self._watched and self._watch is None):
            self._set_up(bus)
        if self._ready is None:
            return self._measure()
        return self._ready.wait(self._maker.place, self._look) or self._ready.keep(self._measure())

    def close(self) -> None:
        """Drop the driver object and release the bus."""
        self._reader = None
        self._bus = None
        self._watch = None
        self._is_ready = lambda: True
        self._release.close()

    def _set_up(self, bus: GuardedBus) -> None:
        """Make the object of the chip anew."""
        path = self._maker.path
        factory = self._maker.load()
        with bus.call(self._maker.place):
            chip = self._maker.make(factory, bus)
            sources = self._sources or standard_sources(chip, path)
            sources = self._preset.applied(sources)
            reader = Reader(chip, sources, path, self._maker.place, is_started=self._maker.starts)
            with translated(self._maker.place):
                watch = Watch(chip, bus, self._maker.address, self._watched, path)
            if self._ready is not None:
                self._is_ready = condition(chip, self._ready.name, path)
                self._ready.begin()
        self._reader, self._watch = reader, watch
        bus.is_lost = False

    def _require_open(self) -> tuple[GuardedBus, Reader]:
        if self._bus is None or self._reader is None:
            raise DriverError(
                f"{self._maker.place} is not open: call open() first, or use it in a with statement"
            )
        return self._bus, self._reader

    def _look(self) -> bool:
        """Ask the chip whether it has measured. Between two questions others may use the bus."""
        bus, _ = self._require_open()
        with bus.call(self._maker.place):
            self._check_restart()
            with translated(self._maker.place):
                return self._is_ready()

    def _measure(self) -> tuple[Reading, ...]:
        bus, reader = self._require_open()
        with bus.call(self._maker.place):
            self._check_restart()
            readings = reader.read(time.time())
            self._check_restart()
            return readings

    def _check_restart(self) -> None:
        if self._watched and self._watch is not None:
            watch, self._watch = self._watch, None  # it is none if it fails
            with translated(self._maker.place):
                watch.check(self._maker.place)
            self._watch = watch
