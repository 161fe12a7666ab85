"""Sensors that the Linux kernel reads: hwmon, IIO, 1-wire, thermal zones, power supplies; no library needed.

===============  ===========================================================================
``driver.py``    :class:`SysfsDriver`: reads the channels of one device
``names.py``     finds a device by a name that stays after a boot
``channels.py``  the channels in a device's folder, their units and ranges
``files.py``     reads one file of the kernel's
``discover.py``  lists the devices of this machine
===============  ===========================================================================
"""

from __future__ import annotations

from device_sdk._load import export

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.drivers.sysfs.driver import SysfsDriver

__all__ = ["SysfsDriver"]

_HOMES = {"SysfsDriver": "driver"}


def __getattr__(name: str) -> object:
    return export(globals(), _HOMES, name)
