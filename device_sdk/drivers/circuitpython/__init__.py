"""Any CircuitPython sensor driver on one of our I2C buses: about 400 chips, maintained by others.

The driver gets our own bus object, so Adafruit's detection of the board is not used: a board that Blinka does
not know, or a fake bus, works as well. The packages come with the extra ``blinka``.

================  ======================================================================================
``driver.py``     :class:`CircuitPythonDriver`: the life of a chip, from ``open()`` to ``close()``
``chips.py``      chips that need no configuration but the bus: BME280, SHT4x
``channels.py``   the channels of a property or a method: the standard table, and that of the user
``units.py``      the units in which drivers give their properties, where they differ
``presets.py``    facts about chips that are often used: ranges, how they start, how a restart is noticed
``sources.py``    asks the chip's object for each property or method, and takes its results apart
``ready.py``      chips that say when there is something new
``making.py``     imports the driver's class, and makes and sets up the object of a chip
``guard.py``      bounds the time of a call, and finds chips that vanish in the middle of a read
``watch.py``      notices that a chip has restarted
``identify.py``   tells which chip is at the address instead
``faults.py``     from what a CircuitPython driver raises to our errors
================  ======================================================================================
"""

from __future__ import annotations

from device_sdk._load import export

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.drivers.circuitpython.channels import STANDARD_PROPERTIES, PropertyChannel
    from device_sdk.drivers.circuitpython.chips import BME280Driver, SHT4xDriver
    from device_sdk.drivers.circuitpython.driver import CircuitPythonDriver

__all__ = ["STANDARD_PROPERTIES", "BME280Driver", "CircuitPythonDriver", "PropertyChannel", "SHT4xDriver"]

_HOMES = {
    "STANDARD_PROPERTIES": "channels",
    "BME280Driver": "chips",
    "CircuitPythonDriver": "driver",
    "PropertyChannel": "channels",
    "SHT4xDriver": "chips",
}


def __getattr__(name: str) -> object:
    return export(globals(), _HOMES, name)
