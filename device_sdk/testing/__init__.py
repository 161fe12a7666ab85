"""Test doubles for programs that use device_sdk, and for device_sdk itself.

The names below are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_sdk._load import load

if TYPE_CHECKING:
    from device_sdk.testing.broker_server import BrokerServer, MemoryBrokerServer
    from device_sdk.testing.certificates import Certificates
    from device_sdk.testing.clock import ManualClock
    from device_sdk.testing.fake_bme280 import FakeBME280
    from device_sdk.testing.fake_i2c import FakeI2CBus, FakeI2CDevice, FakeRegisterDevice
    from device_sdk.testing.fake_sht4x import FakeSHT4x
    from device_sdk.testing.fake_sysfs import FakeSysfs
    from device_sdk.testing.fault_proxy import FaultProxy
    from device_sdk.testing.model_broker import ModelBroker
    from device_sdk.testing.pty_line import PtyLine
    from device_sdk.testing.scripted_broker import ScriptedBroker

__all__ = [
    "BrokerServer",
    "Certificates",
    "FakeBME280",
    "FakeI2CBus",
    "FakeI2CDevice",
    "FakeRegisterDevice",
    "FakeSHT4x",
    "FakeSysfs",
    "FaultProxy",
    "ManualClock",
    "MemoryBrokerServer",
    "ModelBroker",
    "PtyLine",
    "ScriptedBroker",
]

_HOME = {
    "BrokerServer": "device_sdk.testing.broker_server",
    "Certificates": "device_sdk.testing.certificates",
    "FakeBME280": "device_sdk.testing.fake_bme280",
    "FakeI2CBus": "device_sdk.testing.fake_i2c",
    "FakeI2CDevice": "device_sdk.testing.fake_i2c",
    "FakeRegisterDevice": "device_sdk.testing.fake_i2c",
    "FakeSHT4x": "device_sdk.testing.fake_sht4x",
    "FakeSysfs": "device_sdk.testing.fake_sysfs",
    "FaultProxy": "device_sdk.testing.fault_proxy",
    "ManualClock": "device_sdk.testing.clock",
    "MemoryBrokerServer": "device_sdk.testing.broker_server",
    "ModelBroker": "device_sdk.testing.model_broker",
    "PtyLine": "device_sdk.testing.pty_line",
    "ScriptedBroker": "device_sdk.testing.scripted_broker",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return load(f"{_HOME[name]}:{name}")
