"""Sensors: the driver contract and the drivers behind it.

A new driver is a subclass of :class:`Driver` in a module of its own and one line in :data:`DRIVERS`.

=====================  ======================================================================
``base.py``            the contract :class:`Driver`, readings, the table :data:`DRIVERS`
``values.py``          from a result to a reading: type, range, precision
``staleness.py``       values that never change although the chip has stopped
``kinds.py``           chips that are no kind of driver, and what to write for each
``host.py``            this machine: load, memory, uptime, network counters;
                       ``host_parts.py``: CPU, disks, supply
``sysfs/``             sensors with a Linux driver, by names that stay; finds them
``circuitpython/``     any CircuitPython driver on I2C; BME280 and SHT4x
``function.py``        a Python function as a sensor
``bus/``               I2C buses, shared by name; each has one lock, for all threads
=====================  ======================================================================

Drivers have no thread and no lock: one thread at a time calls a driver. Read ``base.py`` and ``host.py``.
"""

from __future__ import annotations

from device_sdk._load import export

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.drivers.base import (
        DRIVERS,
        Channel,
        Driver,
        Quality,
        Reading,
        Value,
        driver_class,
        make_driver,
        open_driver,
    )
    from device_sdk.drivers.sysfs.discover import Discovered, discover

__all__ = [
    "DRIVERS",
    "Channel",
    "Discovered",
    "Driver",
    "Quality",
    "Reading",
    "Value",
    "discover",
    "driver_class",
    "make_driver",
    "open_driver",
]

_HOMES = {**dict.fromkeys(__all__, "base"), "Discovered": "sysfs.discover", "discover": "sysfs.discover"}


def __getattr__(name: str) -> object:
    return export(globals(), _HOMES, name)
