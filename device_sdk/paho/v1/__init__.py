"""The interface of paho-mqtt 1.6, which Debian 12 ships: its signatures and its callback arguments.

Change ``import paho.mqtt.client as mqtt`` into ``import device_sdk.paho.v1.client as mqtt``. ``matcher``,
``packettypes``, ``properties`` and ``subscribeoptions`` are those of :mod:`device_sdk.paho`.
"""

from __future__ import annotations

from device_sdk.paho import matcher, packettypes, properties, subscribeoptions
from device_sdk.paho.exception import MQTTException

__all__ = ["MQTTException", "__version__", "matcher", "packettypes", "properties", "subscribeoptions"]

#: The version of paho-mqtt whose interface this is.
__version__ = "1.6.1"
