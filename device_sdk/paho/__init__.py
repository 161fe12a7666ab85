"""A drop-in for paho-mqtt: its names and its rules on the core of device_sdk.

Change ``import paho.mqtt.client as mqtt`` into ``import device_sdk.paho.client as mqtt``, or leave the
program as it is and run it with ``python -m device_sdk.paho program.py``. Programs written for paho-mqtt 1.x
take ``device_sdk.paho.v1.client`` or the option ``--v1``. docs/moving-from-paho.md lists the differences.
"""

from __future__ import annotations

from device_sdk.paho.exception import MQTTException

__all__ = ["MQTTException", "__version__"]

#: The version of paho-mqtt whose interface this is; programs choose their call signatures by it.
__version__ = "2.2.0"
