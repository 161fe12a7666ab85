"""Buses of sensors, by name. All callers that open the same bus share one object and its lock.

::

    bus = open_bus("i2c-1")
    try:
        print([hex(address) for address in bus.scan()])
    finally:
        close_bus(bus)

``i2c.py`` has the bus and Linux's ``/dev/i2c-N``, ``smbus.py`` its way over adapters without plain I2C
transfers, ``shared.py`` the buses by name.
"""

from __future__ import annotations

from device_sdk._load import export

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.drivers.bus.i2c import I2CBus, LinuxI2C, list_buses
    from device_sdk.drivers.bus.shared import abandon_bus, check_bus_name, close_bus, open_bus

__all__ = [
    "I2CBus",
    "LinuxI2C",
    "abandon_bus",
    "check_bus_name",
    "close_bus",
    "list_buses",
    "open_bus",
]

_HOMES = {
    **dict.fromkeys(__all__, "shared"),
    **dict.fromkeys(("I2CBus", "LinuxI2C", "list_buses"), "i2c"),
}


def __getattr__(name: str) -> object:
    return export(globals(), _HOMES, name)
