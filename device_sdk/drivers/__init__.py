"""Sensors: the driver contract and the drivers behind it.

A new driver is a subclass of :class:`Driver` in a module of its own and one line in :data:`DRIVERS`.
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
