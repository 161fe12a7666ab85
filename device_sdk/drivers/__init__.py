"""Sensors: the driver contract and the drivers behind it.

A new driver is a subclass of :class:`Driver` in a module of its own and one line in :data:`DRIVERS`.

=====================  =================================================================
``base.py``            the contract, readings, and the table from kind to driver
``bus/``               I2C buses, shared by the drivers on them
``circuitpython.py``   every CircuitPython driver by its class; BME280 and SHT4x by kind
``host.py``            the machine itself: load, memory, network
``sysfs.py``           hwmon, IIO, 1-wire and thermal zones of the kernel
``sysfs_discover.py``  which of them this machine has
``function.py``        any Python function
=====================  =================================================================
"""

from device_sdk.drivers.base import (
    DRIVERS,
    Channel,
    Driver,
    Quality,
    Reading,
    Value,
    driver_class,
    open_driver,
)
from device_sdk.drivers.sysfs_discover import Discovered, discover

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
    "open_driver",
]
