"""Test doubles for programs that use device_sdk, and for device_sdk itself.

The names below are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from device_sdk.testing.broker_server import BrokerServer, MemoryBrokerServer
    from device_sdk.testing.clock import ManualClock
    from device_sdk.testing.fault_proxy import FaultProxy
    from device_sdk.testing.model_broker import ModelBroker
    from device_sdk.testing.scripted_broker import ScriptedBroker

__all__ = [
    "BrokerServer",
    "FaultProxy",
    "ManualClock",
    "MemoryBrokerServer",
    "ModelBroker",
    "ScriptedBroker",
]

_HOME = {
    "BrokerServer": "device_sdk.testing.broker_server",
    "FaultProxy": "device_sdk.testing.fault_proxy",
    "ManualClock": "device_sdk.testing.clock",
    "MemoryBrokerServer": "device_sdk.testing.broker_server",
    "ModelBroker": "device_sdk.testing.model_broker",
    "ScriptedBroker": "device_sdk.testing.scripted_broker",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
